"""The scenes of a domain: found, checked against each other, and closed again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.windows import Window

from geotranslate.choices import Decibel
from geotranslate.errors import GridError, SettingError
from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid
from geotranslate.raster.sampling import sample_pixels
from geotranslate.raster.scene import Scene, expand_paths, open_scene
from geotranslate.raster.warp import check_same_kind

logger = logging.getLogger(__name__)

# Where a model would be in doubt about the pixel size, and where it would be useless.
SIZES_ALIKE, SIZES_USABLE = 1.25, 2.0

# Share of values without a logarithm from which they are no linear backscatter.
MOST = 0.5


@dataclass(frozen=True)
class Sources:
    """The scenes of one domain, closed, and what all of them share.

    Attributes:
        paths: of the scenes.
        grids: where each lies.
        bands: the bands that are cut.
        dtype: numpy's name of the chips' type.
        nodata: the chips' value for "nothing here"; None where validity lies in a mask.
        identities: of each scene, what must stay the same for work on it to be continued.
        wanted: the bands asked for.
        given_nodata: a value that means "nothing here" besides what the files say.
        decibel: how linear values become decibels.
    """

    paths: tuple[str, ...]
    grids: tuple[Grid, ...]
    bands: tuple[Band, ...]
    dtype: str
    nodata: float | None
    identities: tuple[Mapping[str, Any], ...]
    wanted: tuple[str, ...] | None
    given_nodata: float | None
    decibel: Decibel | None

    @property
    def pixel_bytes(self) -> int:
        """Size of one pixel of all bands."""
        return len(self.bands) * np.dtype(self.dtype).itemsize

    @property
    def files(self) -> list[tuple[str, int, int]]:
        """Name, size in bytes and time in ns of each file that the scenes are read from."""
        return [tuple(file) for identity in self.identities for file in identity["files"]]

    def open(self, index: int) -> Scene:
        """Open one of the scenes."""
        return open_scene(
            self.paths[index], bands=self.wanted, nodata=self.given_nodata, decibel=self.decibel
        )


def read_sources(
    inputs: Sequence[str],
    *,
    bands: tuple[str, ...] | None = None,
    nodata: float | None = None,
    decibel: Decibel | None = None,
) -> Sources:
    """Look at the scenes that inputs stand for, and close them again.

    Args:
        inputs: rasters, globs and folders.
        bands: numbers from 1 or names; all when None.
        nodata: value that means "nothing here", besides what the files say.
        decibel: turn linear values into decibels; bands in dB stay as they are.

    Raises:
        RasterError: a scene is missing, damaged, or of a kind that cannot be cut.
        BandError: a band is not there, or the scenes are not of one kind.
        GridError: their pixels differ too much in size.
        SettingError: decibels are asked of values that have none, or a file cannot hold the nodata
            value.
    """
    paths = expand_paths(inputs)
    grids, nodatas, identities = [], [], []
    with open_scene(paths[0], bands=bands, nodata=nodata, decibel=decibel) as first:
        for path in paths:
            with open_scene(path, bands=bands, nodata=nodata, decibel=decibel) as scene:
                check_same_kind(first, scene)
                _read_last_pixel(scene)
                grids.append(scene.grid)
                nodatas.append(scene.nodata)
                identities.append(scene.identity())
            if decibel:
                _check_linear(path, bands, nodata)
        _check_pixel_sizes(paths, grids)
        return Sources(
            paths=tuple(paths),
            grids=tuple(grids),
            bands=first.bands,
            dtype=first.dtype,
            # Scenes that disagree on the value agree in chips with a mask.
            nodata=nodatas[0] if len(set(map(str, nodatas))) == 1 else None,
            identities=tuple(identities),
            wanted=bands,
            given_nodata=nodata,
            decibel=decibel,
        )


def _read_last_pixel(scene: Scene) -> None:
    """Notice a file that was cut off before work on it begins."""
    rows, cols = scene.grid.shape
    scene.read(Window(col_off=cols - 1, row_off=rows - 1, width=1, height=1))


def _check_linear(path: str, bands: tuple[str, ...] | None, nodata: float | None) -> None:
    """Refuse to take the logarithm of what is no linear backscatter, decibels above all."""
    with open_scene(path, bands=bands, nodata=nodata) as scene:
        if all(band.in_decibels for band in scene.bands):
            return
        rows, cols = scene.grid.shape
        sampled = sample_pixels(scene, Window(col_off=0, row_off=0, width=cols, height=rows))
        if not sampled.size:
            return
        for band, stored in zip(scene.bands, sampled, strict=True):
            values = stored * band.scale + band.offset
            share = float(np.mean(values <= 0))
            if band.in_decibels or share <= MOST:
                continue
            empty = float(np.mean(values == 0)) > share / 2
            mend = (
                "If 0 means that nothing is there, say so with --nodata-a 0 or --nodata-b 0"
                if empty
                else "It looks like decibels already: leave out --decibel-a or --decibel-b"
            )
            raise SettingError(
                f"{share:.0%} of the values of band {band.name!r} of {path} are not above 0, with "
                f"a median of {np.median(values):.4g}, so they have no decibels and would all "
                f"become the same dark value. {mend}."
            )


def _check_pixel_sizes(paths: Sequence[str], grids: Sequence[Grid]) -> None:
    sizes = [max(grid.resolution_m) for grid in grids]
    smallest, largest = int(np.argmin(sizes)), int(np.argmax(sizes))
    ratio = sizes[largest] / sizes[smallest]
    found = (
        f"{paths[largest]} has pixels of {sizes[largest]:.3g} m and {paths[smallest]} of "
        f"{sizes[smallest]:.3g} m"
    )
    if ratio >= SIZES_USABLE:
        # In units of the coarse scene's CRS, which need not be that of the fine one.
        x, y = (side / ratio for side in grids[largest].resolution)
        raise GridError(
            f"{found}: what a model learns of one size is wrong for the other. If they are bands "
            "of one scene, join them: `gdalbuildvrt -separate -resolution highest scene.vrt ...`. "
            "If not, give scenes of one pixel size: "
            f"`gdalwarp -tr {x:.6g} {y:.6g} -r bilinear {paths[largest]} resampled.tif`."
        )
    if ratio > SIZES_ALIKE:
        logger.warning("%s; a model takes both for the same size.", found)

"""The scenes of a domain: found, checked against each other, and closed again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.windows import Window

from geotranslate.errors import GridError
from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid
from geotranslate.raster.scene import Decibel, Scene, expand_paths, open_scene
from geotranslate.raster.warp import check_same_kind

logger = logging.getLogger(__name__)

# Where a model would be in doubt about the pixel size, and where it would be useless.
SIZES_ALIKE, SIZES_USABLE = 1.25, 2.0


@dataclass(frozen=True)
class Sources:
    """The scenes of one domain, closed, and what all of them share.

    Attributes:
        paths: of the scenes.
        grids: where each lies.
        bands: the bands that are cut.
        dtype: numpy's name of the chips' type.
        nodata: the chips' value for "nothing here"; None where validity lies in a mask.
        identities: by path, what must stay the same for work on the scenes to be continued.
        wanted: the bands asked for.
        given_nodata: the value asked for, where the files do not say.
        decibel: how linear values become decibels.
    """

    paths: tuple[str, ...]
    grids: tuple[Grid, ...]
    bands: tuple[Band, ...]
    dtype: str
    nodata: float | None
    identities: Mapping[str, Any]
    wanted: tuple[str, ...] | None
    given_nodata: float | None
    decibel: Decibel | None

    @property
    def pixel_bytes(self) -> int:
        """Size of one pixel of all bands."""
        return len(self.bands) * np.dtype(self.dtype).itemsize

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
        nodata: value that means "nothing here", where the files do not say.
        decibel: turn linear values into decibels.

    Raises:
        RasterError: a scene is missing, damaged, or of a kind that cannot be cut.
        BandError: a band is not there, or the scenes are not of one kind.
        GridError: their pixels differ too much in size.
    """
    paths = expand_paths(inputs)
    grids, nodatas, identities = [], [], {}
    with open_scene(paths[0], bands=bands, nodata=nodata, decibel=decibel) as first:
        for path in paths:
            with open_scene(path, bands=bands, nodata=nodata, decibel=decibel) as scene:
                check_same_kind(first, scene)
                _read_last_pixel(scene)
                grids.append(scene.grid)
                nodatas.append(scene.nodata)
                identities[path] = scene.identity()
        _check_pixel_sizes(paths, grids)
        return Sources(
            paths=tuple(paths),
            grids=tuple(grids),
            bands=first.bands,
            dtype=first.dtype,
            # Scenes that disagree on the value agree in chips with a mask.
            nodata=nodatas[0] if len(set(map(str, nodatas))) == 1 else None,
            identities=identities,
            wanted=bands,
            given_nodata=nodata,
            decibel=decibel,
        )


def _read_last_pixel(scene: Scene) -> None:
    """Notice a file that was cut off before work on it begins."""
    rows, cols = scene.grid.shape
    scene.read(Window(col_off=cols - 1, row_off=rows - 1, width=1, height=1))


def _check_pixel_sizes(paths: Sequence[str], grids: Sequence[Grid]) -> None:
    sizes = [max(grid.resolution_m) for grid in grids]
    smallest, largest = int(np.argmin(sizes)), int(np.argmax(sizes))
    ratio = sizes[largest] / sizes[smallest]
    found = (
        f"{paths[largest]} has pixels of {sizes[largest]:.3g} m and {paths[smallest]} of "
        f"{sizes[smallest]:.3g} m"
    )
    if ratio >= SIZES_USABLE:
        raise GridError(
            f"{found}: what a model learns of one size is wrong for the other. Give scenes of one "
            "pixel size, or warp them first: `gdalwarp -tr 10 10 fine.tif coarse.tif`."
        )
    if ratio > SIZES_ALIKE:
        logger.warning("%s; a model takes both for the same size.", found)

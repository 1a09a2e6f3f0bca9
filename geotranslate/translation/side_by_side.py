"""Rasters of one place, seen on one grid and read together window by window.

A prediction gives the grid; its truth and its source are brought onto it. Memory does not grow
with the images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geotranslate.errors import BandError, GridError, SettingError
from geotranslate.raster.domain import to_physical
from geotranslate.raster.grid import Grid, spell_place
from geotranslate.raster.scene import Readable, Scene, expand_paths, open_scene
from geotranslate.raster.warp import WarpedScenes, meets

CORE = 512
"""Side of the part of a window that counts, in pixels."""

RESAMPLING = "bilinear"
"""How a raster on another grid comes onto the prediction's."""


@dataclass(frozen=True)
class ImageFiles:
    """The files of one image: a prediction, and the scenes that show the same place.

    Attributes:
        predicted: the raster whose grid everything is brought onto.
        truth: scenes; where they overlap, the first counts. Empty when none are named.
        source: scenes the prediction was made from; empty when none are named.
        bands: those of the truth, by number or name; None for all.
        nodata: of the truth, where its files do not say.
        predicted_bands: those of the prediction; None for all.
        against: another prediction of the same place; None when none is named.
    """

    predicted: str
    truth: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    bands: str | None = None
    nodata: float | None = None
    predicted_bands: str | None = None
    against: str | None = None

    @property
    def name(self) -> str:
        """The prediction's file name without its suffix."""
        return Path(self.predicted).stem


def match_images(
    predicted: str,
    truth: str | None = None,
    source: str | None = None,
    *,
    against: str | None = None,
    bands: str | None = None,
    nodata: float | None = None,
) -> tuple[ImageFiles, ...]:
    """Which files belong to which prediction; the arguments are those of `EvaluateConfig`.

    Raises:
        RasterError: a folder or glob stands for nothing.
        SettingError: a prediction has no truth, source or other prediction of its name.
    """
    predictions = expand_paths([predicted])
    single = predictions == [predicted]

    found = {name: expand_paths([name]) for name in (truth, source, against) if name is not None}

    def scenes(path: str, given: str | None) -> tuple[str, ...]:
        """A single prediction takes all that were found, as a mosaic."""
        if given is None:
            return ()
        return tuple(found[given]) if single else (_namesake(path, found[given], given),)

    return tuple(
        ImageFiles(
            predicted=path,
            truth=scenes(path, truth),
            source=scenes(path, source),
            bands=bands,
            nodata=nodata,
            against=None if against is None else _namesake(path, found[against], against),
        )
        for path in predictions
    )


def _namesake(path: str, others: list[str], given: str) -> str:
    """The one of ``others`` with the file name of ``path``, or the only one that was given."""
    if others == [given]:
        return given
    by_name = {Path(other).stem: other for other in others}
    by_name |= {Path(other).name: other for other in others}
    found = by_name.get(Path(path).name) or by_name.get(Path(path).stem)
    if found is None:
        raise SettingError(
            f"{given} holds no raster named {Path(path).name}, so nobody knows what {path} is to "
            "be compared with. Give both the same file name, or name one raster that serves every "
            "prediction; `gdalbuildvrt all.vrt ...` joins several into one."
        )
    return found


@dataclass(frozen=True)
class Part:
    """A window of an image, read from all of its files.

    Attributes:
        predicted: (bands, rows, cols), in physical units.
        truth: likewise.
        source: likewise; without bands when there is no source.
        valid: (rows, cols), True where every file holds data.
        grid: where the pixels lie.
        core: rows and columns that count; the rest is halo.
        before: share of the image that came before this part.
    """

    predicted: NDArray[np.float64]
    truth: NDArray[np.float64]
    source: NDArray[np.float64]
    valid: NDArray[np.bool_]
    grid: Grid
    core: tuple[slice, slice]
    before: float


@dataclass(frozen=True)
class Image:
    """The opened files of one image, all on the prediction's grid.

    Attributes:
        files: which ones they are.
        predicted: the prediction.
        truth: the truth, as if it lay on the prediction's grid.
        source: likewise; None when there is none.
        truth_grid: how the truth came onto the grid, for people.
        identities: of each file, by its role and path, as JSON values.
    """

    files: ImageFiles
    predicted: Scene
    truth: Readable
    source: Readable | None
    truth_grid: str
    identities: dict[str, Any]

    def parts(self, halo: int) -> Iterator[Part]:
        """Windows whose cores tile the image, where a pixel is valid in all of its files.

        Raises:
            GridError: there is no such window.
        """
        empty = True
        windows = list(_windows(self.predicted.grid.shape, halo))
        for number, (window, core) in enumerate(windows):
            chips = [self.predicted.read(window), self.truth.read(window)]
            source = np.zeros((0, *chips[0].valid.shape))
            if self.source is not None:
                chips.append(self.source.read(window))
                source = to_physical(chips[2].pixels, self.source.bands)
            valid = np.logical_and.reduce([chip.valid for chip in chips])
            if not valid[core].any():
                continue
            empty = False
            yield Part(
                predicted=to_physical(chips[0].pixels, self.predicted.bands),
                truth=to_physical(chips[1].pixels, self.truth.bands),
                source=source,
                valid=valid,
                grid=chips[0].grid,
                core=core,
                before=number / len(windows),
            )
        if empty:
            among = "its truth" if self.source is None else "its truth and its source"
            raise GridError(
                f"{self.files.predicted} and {among} overlap, but no pixel holds data in all of "
                "them, so there is nothing to measure. Check their nodata values, for example "
                "with `geotranslate info`."
            )


@contextmanager
def open_image(files: ImageFiles) -> Iterator[Image]:
    """Open the files of one image, those scenes only that may share pixels with the prediction.

    Raises:
        RasterError: a file cannot be read.
        BandError: the prediction's bands are not those of the truth.
        GridError: no scene of the truth or of the source meets the prediction.
    """
    with ExitStack() as stack:
        predicted = stack.enter_context(open_scene(files.predicted, bands=files.predicted_bands))
        grid = predicted.grid
        truths = _open_near(stack, files.truth, predicted, bands=files.bands, nodata=files.nodata)
        sources = _open_near(stack, files.source, predicted) if files.source else []
        truth = WarpedScenes(truths, grid, RESAMPLING)
        _check_bands(predicted, truth, files)
        roles = {"predicted": [predicted], "truth": truths, "source": sources}
        yield Image(
            files=files,
            predicted=predicted,
            truth=truth,
            source=WarpedScenes(sources, grid, RESAMPLING) if sources else None,
            truth_grid=_tell_grids(truths, grid),
            identities={
                f"{role} {scene.path}": scene.identity()
                for role, scenes in roles.items()
                for scene in scenes
            },
        )


def _open_near(
    stack: ExitStack,
    paths: Sequence[str],
    predicted: Scene,
    bands: str | None = None,
    nodata: float | None = None,
) -> list[Scene]:
    """Those scenes that may share pixels with the prediction, open until the stack closes them."""
    near = []
    for path in paths:
        scene = open_scene(path, bands=bands, nodata=nodata)
        if meets(scene.grid, predicted.grid):
            near.append(stack.enter_context(scene))
        else:
            away = scene.grid
            scene.close()
    if not near:
        others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        raise GridError(
            f"{predicted.path} and {paths[-1]}{others} do not overlap: "
            f"{_place(predicted.grid)} against {_place(away)}. Give rasters of the same place."
        )
    return near


def _check_bands(predicted: Scene, truth: Readable, files: ImageFiles) -> None:
    """Refuse a prediction that the truth cannot judge."""
    ours, theirs = predicted.bands, truth.bands
    if len(ours) != len(theirs):
        numbers = ",".join(str(number) for number in range(1, len(ours) + 1))
        raise BandError(
            f"{files.predicted} and its truth {files.truth[0]} differ in their number of bands "
            f"({len(ours)} and {len(theirs)}), so nobody knows which to compare. Name those of the "
            f"truth that the prediction shows, such as --bands {numbers}."
        )
    for our, their in zip(ours, theirs, strict=True):
        if our.unit and their.unit and our.unit != their.unit:
            raise BandError(
                f"{our.name} of {files.predicted} is in {our.unit} and {their.name} of "
                f"{files.truth[0]} in {their.unit}, so their difference means nothing. Bring "
                "both to one unit, or choose other bands with --bands."
            )


def _place(grid: Grid) -> str:
    return spell_place([(grid.crs, grid.bounds)])


def _tell_grids(truths: Sequence[Scene], grid: Grid) -> str:
    """How the truth comes onto the prediction's grid, in a sentence."""
    if all(scene.grid == grid for scene in truths):
        return "truth and prediction lie on the same grid"
    moved = [scene for scene in truths if not scene.grid.is_aligned(grid)]
    if not moved:
        return "the truth's pixels lie on the prediction's and were copied, not resampled"
    first = moved[0].grid
    return (
        f"the truth was resampled ({RESAMPLING}) from {_size(first)} onto the prediction's grid, "
        f"{_size(grid)}"
    )


def _size(grid: Grid) -> str:
    x, y = grid.resolution
    return f"{grid.crs} at {x:.6g} x {y:.6g}"


def _windows(shape: tuple[int, int], halo: int) -> Iterator[tuple[Window, tuple[slice, slice]]]:
    """Windows of a core and a halo that ends with the image, and the core inside each."""
    rows, cols = shape
    for row in range(0, rows, CORE):
        for col in range(0, cols, CORE):
            top, left = max(row - halo, 0), max(col - halo, 0)
            bottom, right = min(row + CORE + halo, rows), min(col + CORE + halo, cols)
            window = Window(col_off=left, row_off=top, width=right - left, height=bottom - top)
            core = (
                slice(row - top, min(row + CORE, rows) - top),
                slice(col - left, min(col + CORE, cols) - left),
            )
            yield window, core

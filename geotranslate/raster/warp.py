"""Scenes brought onto another grid, window by window, with their validity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import reproject, transform, transform_bounds
from rasterio.windows import Window

from geotranslate.errors import BandError, GridError, SettingError
from geotranslate.raster.blend import Weights
from geotranslate.raster.domain import Band, to_dtype
from geotranslate.raster.grid import Grid
from geotranslate.raster.reading import UNPLACED
from geotranslate.raster.scene import Chip, Scene, intersect

RESAMPLINGS = {
    "nearest": Resampling.nearest,
    "bilinear": Resampling.bilinear,
    "cubic": Resampling.cubic,
    "average": Resampling.average,
}

STRIP_COLS = 64

# What a thread may hold of a source at once, in all bands and copies, while it is resampled.
SOURCE_BYTES = 1 << 27


class WarpedScenes:
    """Scenes of one kind, seen on a grid that need not be theirs; read like one scene.

    Where several scenes hold data, the first one given counts. Scenes whose pixels lie on the
    grid's are copied, not resampled. A pixel comes out the same in whichever window it is read,
    but for the last bit of a float.

    Attributes:
        grid: where the chips lie.
        bands: of the first scene.
        dtype: of the first scene.
        nodata: of the first scene.
    """

    def __init__(self, scenes: Sequence[Scene], grid: Grid, resampling: str = "bilinear") -> None:
        if resampling not in RESAMPLINGS:
            raise SettingError(
                f"resampling {resampling!r} is unknown. Choose one of {', '.join(RESAMPLINGS)}."
            )
        self._scenes = list(scenes)
        self._resampling = RESAMPLINGS[resampling]
        self.grid = grid
        first = self._scenes[0]
        self.bands: tuple[Band, ...] = first.bands
        self.dtype = first.dtype
        self.nodata = first.nodata
        for scene in self._scenes:
            check_same_kind(first, scene)

    def read(self, window: Window) -> Chip:
        """The pixels of a window of the grid, invalid where no scene holds data."""
        grid = self.grid.window_grid(window)
        pixels = np.zeros((len(self.bands), *grid.shape), self.dtype)
        valid = np.zeros(grid.shape, bool)
        for scene in self._scenes:
            part = read_onto(scene, self.grid, window, self._resampling)
            if part is None:
                continue
            fresh = part.valid & ~valid
            pixels[:, fresh] = part.pixels[:, fresh]
            valid |= fresh
            if valid.all():
                break
        return Chip(pixels, valid, grid)


def check_same_kind(first: Scene, other: Scene) -> None:
    """Refuse scenes that cannot stand for one kind of imagery.

    Raises:
        BandError: bands, scales or types differ.
    """
    for what, ours, theirs in (
        ("bands", [b.name for b in first.bands], [b.name for b in other.bands]),
        ("units", [b.unit for b in first.bands], [b.unit for b in other.bands]),
        ("scales", [b.scale for b in first.bands], [b.scale for b in other.bands]),
        ("offsets", [b.offset for b in first.bands], [b.offset for b in other.bands]),
        ("types", _once(first.types), _once(other.types)),
    ):
        if ours != theirs:
            raise BandError(
                f"{other.path} has other {what} ({_listed(theirs)}) than {first.path} "
                f"({_listed(ours)}), so the same number would mean different things. Give scenes "
                "of one kind, or choose bands that all of them have."
            )


def _once(types: tuple[str, ...]) -> tuple[str, ...]:
    """The one type of all bands, or that of each."""
    return types[:1] if len(set(types)) == 1 else types


def _listed(values: Sequence[object]) -> str:
    return ", ".join(str(value) or "none" for value in values)


def read_onto(scene: Scene, grid: Grid, window: Window, resampling: Resampling) -> Chip | None:
    """A scene's pixels in a window of another grid; None where the two do not meet."""
    if scene.grid.is_aligned(grid):
        return _read_shifted(scene, grid.window_grid(window))

    def read(needed: Window) -> NDArray[np.floating[Any]]:
        chip = scene.read(needed)
        return as_numbers(chip.pixels, chip.valid)

    per_pixel = number_bytes(len(scene.bands), scene.dtype)
    warped = warp_onto(scene.grid, grid, window, resampling, read, pixel_bytes=per_pixel)
    if warped is None:
        return None
    valid = where_valid(warped)
    pixels = to_dtype(np.where(valid, warped, 0), np.dtype(scene.dtype))
    return Chip(pixels, valid, grid.window_grid(window))


def warp_onto(
    source: Grid,
    grid: Grid,
    window: Window,
    resampling: Resampling,
    read: Callable[[Window], NDArray[np.floating[Any]]],
    *,
    pixel_bytes: int,
    rim: int = 0,
) -> NDArray[np.floating[Any]] | None:
    """Numbers (bands, rows, cols) in a window of another grid, NaN where invalid.

    Where many source pixels make one, the window is worked on in parts, so that memory does not
    grow with the difference of the pixels' sizes.

    Args:
        source: where the numbers lie.
        grid: another; which windows of it are asked for does not change a pixel.
        window: of ``grid``.
        resampling: how numbers are weighed.
        read: numbers (bands, rows, cols) in a window inside ``source``, NaN in all bands where
            they are invalid in one, so that the same pixels are left out of all.
        pixel_bytes: what reading a pixel takes for a while, in all bands and copies.
        rim: pixels of the source that are read around a window.

    Returns:
        None where the two do not meet.
    """
    # Along a row, GDAL computes exact coordinates at both ends and draws lines between. In strips
    # that are fixed to the grid, those lines do not depend on the window, and are short.
    start = int(window.col_off // STRIP_COLS) * STRIP_COLS
    ahead = int(window.col_off) - start
    strips = -(-(ahead + int(window.width)) // STRIP_COLS)
    wide = grid.window_grid(
        Window(
            col_off=start,
            row_off=window.row_off,
            width=strips * STRIP_COLS,
            height=window.height,
        )
    )
    scales = _kernel_scales(source, grid)
    needed = _source_window(source, wide, scales)
    if needed is None:
        return None
    held = (needed.width + 2 * rim) * (needed.height + 2 * rim) * pixel_bytes
    # Parts smaller than their rim would read little else, again and again.
    can_halve = (strips > 1 or window.height > 1) and needed.width * needed.height > rim**2
    if held > SOURCE_BYTES and can_halve:
        parts = _halves(window, start, strips)
        warped = [
            warp_onto(source, grid, part, resampling, read, pixel_bytes=pixel_bytes, rim=rim)
            for part in parts
        ]
        return _joined(warped, parts)
    numbers = read(needed)
    place = source.window_grid(needed)
    return np.concatenate(
        [
            _warp_strip(numbers, place, wide, strip * STRIP_COLS, scales, resampling)
            for strip in range(strips)
        ],
        axis=-1,
    )[..., ahead : ahead + int(window.width)]


def as_numbers(
    pixels: NDArray[Any], valid: NDArray[np.bool_], weights: Weights | None = None
) -> NDArray[np.floating[Any]]:
    """Pixels as floats that hold them exactly, NaN in all bands where one is invalid.

    The warper then leaves out the very same pixels in each band, which no nodata value or alpha
    band of GDAL's own achieves. Weights (rows, cols), where given, are one more band.
    """
    bands = len(pixels)
    shape = bands + (weights is not None), *valid.shape
    numbers = np.empty(shape, _number_type(pixels.dtype))
    numbers[:bands] = pixels
    if weights is not None:
        numbers[bands] = weights
    np.copyto(numbers, np.nan, where=~valid)
    return numbers


def where_valid(numbers: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """(rows, cols), where no band is NaN."""
    return np.asarray(np.isfinite(numbers).all(axis=0))


def number_bytes(bands: int, dtype: str) -> int:
    """What a pixel takes that is read in a type and turned into numbers."""
    stored = np.dtype(dtype)
    return bands * (stored.itemsize + np.dtype(_number_type(stored)).itemsize)


def _halves(window: Window, start: int, strips: int) -> list[Window]:
    """A window in two along its longer side; columns are cut between strips, from ``start`` on."""
    col, row, width, height = map(
        int, (window.col_off, window.row_off, window.width, window.height)
    )
    if strips == 1 or (height > 1 and height >= width):
        cut = height // 2
        return [
            Window(col_off=col, row_off=row, width=width, height=cut),
            Window(col_off=col, row_off=row + cut, width=width, height=height - cut),
        ]
    cut = start + strips // 2 * STRIP_COLS - col
    return [
        Window(col_off=col, row_off=row, width=cut, height=height),
        Window(col_off=col + cut, row_off=row, width=width - cut, height=height),
    ]


def _joined(
    parts: Sequence[NDArray[np.floating[Any]] | None], windows: Sequence[Window]
) -> NDArray[np.floating[Any]] | None:
    """Two halves of a window as one; what meets nothing is NaN."""
    some = next((part for part in parts if part is not None), None)
    if some is None:
        return None
    whole = [
        np.full((len(some), int(window.height), int(window.width)), np.nan, some.dtype)
        if part is None
        else part
        for part, window in zip(parts, windows, strict=True)
    ]
    return np.concatenate(whole, axis=-1 if windows[0].row_off == windows[1].row_off else -2)


def _warp_strip(
    numbers: NDArray[np.floating[Any]],
    source: Grid,
    target: Grid,
    col: int,
    scales: tuple[float, float],
    resampling: Resampling,
) -> NDArray[np.floating[Any]]:
    """Source numbers (bands, rows, cols) in the target's columns from ``col``; NaN is invalid."""
    strip = np.full((len(numbers), target.height, STRIP_COLS), np.nan, numbers.dtype)
    # rasterio silences a warning of its own here, in a way that threads take from each other.
    with UNPLACED:
        reproject(
            numbers,
            strip,
            src_crs=source.crs,
            src_transform=source.transform,
            src_nodata=np.nan,
            dst_crs=target.crs,
            dst_transform=target.transform @ Affine.translation(col, 0),
            dst_nodata=np.nan,
            resampling=resampling,
            # Otherwise GDAL chooses the kernel's width anew for each window.
            XSCALE=scales[0],
            YSCALE=scales[1],
        )
    return strip


def meets(source: Grid, grid: Grid) -> bool:
    """Whether two grids may share pixels, judged by their bounds."""
    return _source_window(source, grid, (1.0, 1.0)) is not None


@lru_cache(maxsize=1024)
def pixel_scales(source: Grid, grid: Grid) -> tuple[float, float]:
    """How many pixels of another grid one pixel of a source is long, along its x and its y.

    Measured at the source's middle, or as near to it as the other grid reaches, so that it does
    not depend on windows; 1 where the source has no place in the other CRS.
    """
    if source.crs == grid.crs:
        x, y = (a / b for a, b in zip(source.resolution, grid.resolution, strict=True))
        return x, y
    try:
        reach = transform_bounds(grid.crs, source.crs, *grid.bounds)
        left, bottom, right, top = reach if all(map(math.isfinite, reach)) else source.bounds
        col, row = ~source.transform @ (
            _nearest((source.bounds[0] + source.bounds[2]) / 2, left, right),
            _nearest((source.bounds[1] + source.bounds[3]) / 2, bottom, top),
        )
        points = [source.transform @ (col + x, row + y) for x, y in ((0, 0), (1, 0), (0, 1))]
        xs, ys = transform(source.crs, grid.crs, *zip(*points, strict=True))
    except (CRSError, RasterioError):
        return 1.0, 1.0
    here, right_of, below = (~grid.transform @ point for point in zip(xs, ys, strict=True))
    x, y = math.dist(here, right_of), math.dist(here, below)
    return (x, y) if 0 < x < math.inf and 0 < y < math.inf else (1.0, 1.0)


def _nearest(value: float, low: float, high: float) -> float:
    # Bounds that cross 180 degrees run from a high one to a low one.
    return min(max(value, low), high) if low <= high else value


def _read_shifted(scene: Scene, grid: Grid) -> Chip | None:
    window = grid.window_in(scene.grid)
    try:
        inside = intersect(window, scene.grid)
    except GridError:
        return None
    part = scene.read(inside)
    row, col = int(inside.row_off - window.row_off), int(inside.col_off - window.col_off)
    place = (slice(row, row + int(inside.height)), slice(col, col + int(inside.width)))
    pixels = np.zeros((len(scene.bands), *grid.shape), part.pixels.dtype)
    valid = np.zeros(grid.shape, bool)
    pixels[:, *place] = part.pixels
    valid[place] = part.valid
    return Chip(pixels, valid, grid)


def _source_window(source: Grid, grid: Grid, scales: tuple[float, float]) -> Window | None:
    """The source pixels that a warp onto ``grid`` reads, with room for its kernel."""
    try:
        left, bottom, right, top = transform_bounds(grid.crs, source.crs, *grid.bounds)
    except (CRSError, RasterioError):
        return None
    if not all(map(math.isfinite, (left, bottom, right, top))):
        return None
    x_rim, y_rim = (
        (2 / scale + 2) * side for scale, side in zip(scales, source.resolution, strict=True)
    )
    try:
        return source.window_of((left - x_rim, bottom - y_rim, right + x_rim, top + y_rim))
    except GridError:
        return None


def _kernel_scales(source: Grid, grid: Grid) -> tuple[float, float]:
    """Grid pixels per source pixel along x and y, at most 1: how much the kernel is widened."""
    # GDAL leaves a kernel as it is when the sizes are nearly the same; so do we.
    x, y = (scale if scale < 0.95 else 1.0 for scale in pixel_scales(source, grid))
    return x, y


def _number_type(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """A float type that holds every value of a dtype exactly."""
    return np.float32 if np.can_cast(dtype, np.float32) else np.float64

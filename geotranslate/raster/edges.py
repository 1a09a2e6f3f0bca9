"""How far a pixel lies from the edge of what a scene holds, whichever window it is read in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt

from geotranslate.raster.grid import Grid, split_window

# Side of the squares that are read in search of the first and last valid pixels.
STEP = 512

# What distance_inside holds of a pixel: two indexes and three numbers of 4 bytes, and validity.
DISTANCE_BYTES = 24

ReadValid = Callable[[Window], NDArray[np.bool_]]
"""Validity (rows, cols) of a window inside a scene."""


@dataclass(frozen=True)
class Extent:
    """The smallest window that holds all valid pixels of a scene.

    Attributes:
        top: first row.
        bottom: row after the last.
        left: first column.
        right: column after the last.
    """

    top: int
    bottom: int
    left: int
    right: int

    def tents(self, window: Window) -> NDArray[np.float32]:
        """The product (rows, cols) of the distances to the ends of row and column, at most 1.

        Counted from a pixel's centre (0.5, 1.5, ... 1.5, 0.5), as shares of half an axis: a small
        scene counts in its middle as much as a large one does. Where two whole rasters of one size
        overlap by at most half of it, this fades from one to the other in a straight line, up to
        their common rims.
        """
        rows = _tent(self.top, self.bottom, window.row_off, window.height)
        cols = _tent(self.left, self.right, window.col_off, window.width)
        return np.outer(rows, cols)


def find_extent(read: ReadValid, grid: Grid) -> Extent:
    """Where a scene's valid pixels begin and end; read from its rims inwards, no farther.

    The whole scene where nothing is valid.
    """
    rows, cols = grid.shape

    def of_rows(start: int, end: int) -> NDArray[np.bool_]:
        strip = Window(col_off=0, row_off=start, width=cols, height=end - start)
        parts = [read(part).any(axis=1) for part in split_window(strip, STEP, STEP)]
        return np.asarray(np.any(parts, axis=0))

    top, bottom = _ends(of_rows, rows)

    def of_cols(start: int, end: int) -> NDArray[np.bool_]:
        strip = Window(col_off=start, row_off=top, width=end - start, height=bottom - top)
        parts = [read(part).any(axis=0) for part in split_window(strip, STEP, STEP)]
        return np.asarray(np.any(parts, axis=0))

    left, right = _ends(of_cols, cols)
    return Extent(top, bottom, left, right)


def distance_inside(valid: NDArray[np.bool_], cap: float) -> NDArray[np.float32]:
    """Distance (rows, cols) of each valid pixel's centre to the nearest invalid pixel's side.

    At most ``cap`` pixels; what lies beyond the array is not known and does not count, so give
    validity with a rim of ``cap`` pixels around what is wanted.
    """
    if valid.all():
        return np.full(valid.shape, cap, np.float32)
    # Of SciPy only which pixel is nearest: its distances are float64 and take three times as much.
    rows, cols = distance_transform_edt(valid, return_distances=False, return_indices=True)
    rows -= np.arange(valid.shape[0], dtype=rows.dtype)[:, None]
    cols -= np.arange(valid.shape[1], dtype=cols.dtype)
    # Between centres; half a pixel of it lies inside the invalid one.
    distance = np.hypot(rows, cols, dtype=np.float32) - np.float32(0.5)
    return np.asarray(distance.clip(0.5, cap))


def with_rim(window: Window, rim: int, grid: Grid) -> Window:
    """A window of a grid with up to ``rim`` pixels more on each side, as far as there are any."""
    row, col = max(int(window.row_off) - rim, 0), max(int(window.col_off) - rim, 0)
    bottom = min(int(window.row_off + window.height) + rim, grid.height)
    right = min(int(window.col_off + window.width) + rim, grid.width)
    return Window(col_off=col, row_off=row, width=right - col, height=bottom - row)


def _ends(read: Callable[[int, int], NDArray[np.bool_]], length: int) -> tuple[int, int]:
    """The first True along an axis, and the one after the last; the whole where none is."""
    for start in range(0, length, STEP):
        found = np.flatnonzero(read(start, min(start + STEP, length)))
        if len(found):
            first = start + int(found[0])
            break
    else:
        return 0, length
    for end in range(length, 0, -STEP):
        begin = max(end - STEP, 0)
        found = np.flatnonzero(read(begin, end))
        if len(found):
            return first, begin + int(found[-1]) + 1
    raise AssertionError("what was found from one side is there from the other")


def _tent(start: int, end: int, offset: float, length: float) -> NDArray[np.float32]:
    """Distance of centres to the nearer end of an axis, for a part of it, by half the axis.

    Never below that of half a pixel.
    """
    centres = np.arange(int(offset), int(offset + length), dtype=np.float32) + np.float32(0.5)
    distances = np.minimum(centres - start, end - centres).clip(0.5)
    return np.asarray(distances / np.float32((end - start) / 2))

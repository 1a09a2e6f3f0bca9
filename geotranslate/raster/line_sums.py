"""How neighbouring pixels differ, summed along every line between them, whatever a raster's size.

The sums are small, a number for each line and band, and all that `seams` tells comes from them.
A raster is read in strips of rows, so memory grows with its width only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geotranslate.errors import SettingError
from geotranslate.raster.grid import Grid

Values = NDArray[np.float64]

STRIP_PIXELS = 1 << 20
"""About how many pixels of a band are held at once."""

LEAST_ROWS = 64
"""Rows of a strip, however wide the raster: with fewer, most would be read twice."""

LEAST_SIZE = 4

WIDEST_REACH = 8


@dataclass(frozen=True)
class Lines:
    """Where the windows of a raster meet: every so many pixels, in both directions.

    Attributes:
        size: pixels from one line to the next.
        offset: the lines lie between pixels ``k * size + offset - 1`` and ``k * size + offset``.

    Raises:
        SettingError: the size is too small, or the offset is not below it.
    """

    size: int
    offset: int = 0

    def __post_init__(self) -> None:
        if self.size < LEAST_SIZE:
            raise SettingError(
                f"the seams' size is {self.size} px: so close together, there is nothing between "
                f"two lines to compare them with. Choose {LEAST_SIZE} px or more."
            )
        if not 0 <= self.offset < self.size:
            raise SettingError(
                f"the seams' offset is {self.offset} px, but lines every {self.size} px begin "
                f"before that. Choose an offset from 0 to {self.size - 1}."
            )

    @property
    def reach(self) -> int:
        """Pixels on each side of a line whose mean levels make its step; a power of two."""
        reach = WIDEST_REACH
        while reach > max(self.size // 8, 1):
            reach //= 2
        return reach

    def on(self, length: int) -> NDArray[np.intp]:
        """The lines across an axis of ``length`` pixels, each by the pixel that follows it."""
        return np.arange(self.offset or self.size, length, self.size)


class LineSums:
    """Sums along each line of one direction; line ``i`` lies between pixels ``i - 1`` and ``i``.

    Attributes:
        pairs: (length,) pairs of valid neighbours across the line.
        gradient: (bands, length) sum of the absolute differences of these pairs.
        places: (length,) pixels along the line with ``reach`` valid pixels on both sides.
        step: (bands, length) sum over window edges of the absolute value of the summed
            differences between the means of these pixels on both sides.
    """

    def __init__(self, lines: Lines, bands: int, length: int) -> None:
        self.lines = lines
        self.pairs = np.zeros(length, np.int64)
        self.gradient = np.zeros((bands, length))
        self.places = np.zeros(length, np.int64)
        self.step = np.zeros((bands, length))
        # Signed sums of the window edge that what came so far has not completed.
        self._open = np.zeros((bands, length))

    def add(
        self, pixels: Values, valid: NDArray[np.bool_], *, along: int, across: int, counted: slice
    ) -> None:
        """Add what a part of the raster tells about some lines; along a line, parts come in order.

        Args:
            pixels: (bands, along the lines, across them).
            valid: (along, across).
            along: position of the first pixel along the lines.
            across: position of the first pixel across them.
            counted: the lines to add to; where the raster goes on, the pixels have to reach as
                far beyond them as ``lines.reach``.
        """
        differences, found, at = _differences(pixels, valid, 1, across, counted)
        self.pairs[at] += found.sum(axis=0)
        self.gradient[:, at] += np.abs(differences).sum(axis=1)

        size, offset = self.lines.size, self.lines.offset
        if (along - offset) % size == 0:
            self._close(counted)
        starts = range(along + (offset - along) % size, along + valid.shape[0], size)
        edges = np.array(sorted({0, *(start - along for start in starts)}))
        differences, found, at = _differences(pixels, valid, self.lines.reach, across, counted)
        self.places[at] += found.sum(axis=0)
        sums = np.add.reduceat(differences, edges, axis=1)
        sums[:, 0] += self._open[:, at]
        self.step[:, at] += np.abs(sums[:, :-1]).sum(axis=1)
        self._open[:, at] = sums[:, -1]

    def finish(self) -> None:
        """Count the window edges that end with the raster."""
        self._close(slice(None))

    def _close(self, at: slice) -> None:
        self.step[:, at] += np.abs(self._open[:, at])
        self._open[:, at] = 0


def _differences(
    pixels: Values, valid: NDArray[np.bool_], width: int, across: int, counted: slice
) -> tuple[Values, NDArray[np.bool_], slice]:
    """Mean of ``width`` pixels behind each counted line minus the mean of those before it.

    Returns:
        The differences (bands, along, lines), 0 where a pixel is not valid; where (along, lines)
        all are; and the lines that have so many pixels on both sides.
    """
    first = max(counted.start, across + width)
    last = max(min(counted.stop, across + valid.shape[1] - width + 1), first)
    sums, whole = pixels, valid
    reached = 1
    while reached < width:
        sums = sums[..., :-reached] + sums[..., reached:]
        whole = whole[..., :-reached] & whole[..., reached:]
        reached *= 2
    behind = slice(first - across, last - across)
    before = slice(first - across - width, last - across - width)
    found = whole[..., behind] & whole[..., before]
    differences = np.where(found, (sums[..., behind] - sums[..., before]) / width, 0.0)
    return differences, found, slice(first, last)


class RasterSums:
    """The sums along all lines of a raster, in both directions.

    Attributes:
        vertical: lines between columns.
        horizontal: lines between rows.
    """

    def __init__(self, lines: Lines, bands: int, shape: tuple[int, int]) -> None:
        rows, cols = shape
        self.vertical = LineSums(lines, bands, cols)
        self.horizontal = LineSums(lines, bands, rows)

    def add(self, strip: Strip, pixels: Values, valid: NDArray[np.bool_]) -> None:
        """Add the next strip: pixels (bands, rows, cols), where (rows, cols) says they are valid."""
        pixels = np.where(valid, pixels, 0.0)
        inner, cols = strip.inner, valid.shape[1]
        self.vertical.add(
            pixels[:, inner],
            valid[inner],
            along=strip.start,
            across=0,
            counted=slice(0, cols),
        )
        self.horizontal.add(
            pixels.swapaxes(1, 2),
            valid.T,
            along=0,
            across=int(strip.window.row_off),
            counted=slice(strip.start, strip.stop),
        )

    def finish(self) -> None:
        """Say that no strip is left."""
        self.vertical.finish()
        self.horizontal.finish()


@dataclass(frozen=True)
class Strip:
    """Rows of a raster that are worked on at once.

    Attributes:
        start: first row that counts.
        stop: where they end.
        window: what is read: these rows, and a few around them as far as the raster goes.
    """

    start: int
    stop: int
    window: Window

    @property
    def inner(self) -> slice:
        """The rows that count, among those read."""
        first = int(self.window.row_off)
        return slice(self.start - first, self.stop - first)


def strips(grid: Grid, reach: int) -> Iterator[Strip]:
    """Strips of whole rows that cover a raster from above, read with ``reach`` rows around each."""
    rows, cols = grid.shape
    height = max(STRIP_PIXELS // cols, LEAST_ROWS)
    for start in range(0, rows, height):
        stop = min(start + height, rows)
        top, bottom = max(start - reach, 0), min(stop + reach, rows)
        yield Strip(start, stop, Window(col_off=0, row_off=top, width=cols, height=bottom - top))

"""How neighbouring pixels differ, summed along every line between them, whatever a raster's size.

The sums are small, a number for each line and band, and all that `seams` tells comes from them.
A raster is read in slabs of rows, so memory grows with its width only.
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

SLAB_PIXELS = 1 << 20
"""About how many pixels of a band are held at once."""

LEAST_ROWS = 64
"""Rows of a slab, however wide the raster: with fewer, most would be read twice."""

LEAST_SIZE = 4

WIDEST_REACH = 8


@dataclass(frozen=True)
class Lines:
    """Where the windows of a raster meet: every so many pixels, in both directions.

    Attributes:
        size: pixels from one line to the next.
        offset: the lines lie between pixels ``k * size + offset - 1`` and ``k * size + offset``.
        row_offset: that of the lines between rows, where it is another one.

    Raises:
        SettingError: the size is too small, or the offset is not below it.
    """

    size: int
    offset: int = 0
    row_offset: int | None = None

    def __post_init__(self) -> None:
        if self.size < LEAST_SIZE:
            raise SettingError(
                f"the seams' size is {self.size} px: so close together, there is nothing between "
                f"two lines to compare them with. Choose {LEAST_SIZE} px or more."
            )
        for offset in (self.offset, self.row_offset or 0):
            if not 0 <= offset < self.size:
                raise SettingError(
                    f"the seams' offset is {offset} px, but lines every {self.size} px begin "
                    f"before that. Choose an offset from 0 to {self.size - 1}."
                )

    @property
    def between_cols(self) -> Lines:
        """The vertical ones, and others at the same offset."""
        return Lines(self.size, self.offset)

    @property
    def between_rows(self) -> Lines:
        """The horizontal ones, and others at the same offset."""
        return Lines(self.size, self.offset if self.row_offset is None else self.row_offset)

    @property
    def reach(self) -> int:
        """Pixels around a line that are its neighbourhood; beyond them is elsewhere."""
        return min(max(self.size // 8, 1), WIDEST_REACH)

    def on(self, length: int) -> NDArray[np.intp]:
        """The lines at ``offset`` across ``length`` pixels, each by the pixel that follows it."""
        return np.arange(self.offset or self.size, length, self.size)


def parse_lines(text: str) -> Lines:
    """The lines that SIZE or SIZE,OFFSET stands for.

    Raises:
        SettingError: it stands for none.
    """
    words = text.split(",")
    if len(words) > 2 or not all(word.strip().isdecimal() for word in words):
        raise SettingError(
            f"seams is {text!r}, which says nothing of where windows meet. Give the pixels from "
            "one line to the next, such as 256, and after a comma where the first one lies if "
            "that is somewhere else: 256,128."
        )
    return Lines(*map(int, words))


class LineSums:
    """Sums along each line of one direction; line ``i`` lies between pixels ``i - 1`` and ``i``.

    Attributes:
        lines: where windows meet in this direction.
        crossings: where in the other one; there an edge of a window ends.
        pairs: (length,) pairs of valid neighbours, one on each side of the line.
        gradient: (bands, length) sum of the absolute differences of these pairs.
        step: (bands, length) the differences are summed over each window edge with their signs,
            so that texture cancels and a jump of the level stays; sum of the absolute values.
    """

    def __init__(self, lines: Lines, crossings: Lines, bands: int, length: int) -> None:
        self.lines, self.crossings = lines, crossings
        self.pairs = np.zeros(length, np.int64)
        self.gradient = np.zeros((bands, length))
        self.step = np.zeros((bands, length))
        # Sums over the edge that the pixels so far have not completed.
        self._open = np.zeros((bands, length))

    def add(self, pixels: Values, valid: NDArray[np.bool_], *, along: int, first: int) -> None:
        """Add what pixels tell about the lines between them; along a line, they come in order.

        Args:
            pixels: (bands, along the lines, across them).
            valid: (along, across).
            along: position of the first pixel along the lines.
            first: the line before the second pixel.
        """
        found = valid[:, 1:] & valid[:, :-1]
        # Where no data is, a value may be infinite.
        differences = np.diff(np.where(valid, pixels, 0.0), axis=2) * found
        at = slice(first, first + found.shape[1])
        self.pairs[at] += found.sum(axis=0)
        self.gradient[:, at] += np.abs(differences).sum(axis=1)

        size = self.crossings.size
        start = (self.crossings.offset - along) % size
        if start == 0:
            self._close(at)
        edges = np.array([*range(0 if start == 0 else start - size, found.shape[0], size)])
        sums = np.add.reduceat(differences, np.maximum(edges, 0), axis=1)
        sums[:, 0] += self._open[:, at]
        self.step[:, at] += np.abs(sums[:, :-1]).sum(axis=1)
        self._open[:, at] = sums[:, -1]

    def finish(self) -> None:
        """Count the edges that end with the raster."""
        self._close(slice(None))

    def _close(self, at: slice) -> None:
        self.step[:, at] += np.abs(self._open[:, at])
        self._open[:, at] = 0


class RasterSums:
    """The sums along all lines of a raster.

    Attributes:
        vertical: lines between columns.
        horizontal: lines between rows.
    """

    def __init__(self, lines: Lines, bands: int, shape: tuple[int, int]) -> None:
        rows, cols = shape
        vertical, horizontal = lines.between_cols, lines.between_rows
        self.vertical = LineSums(vertical, horizontal, bands, cols)
        self.horizontal = LineSums(horizontal, vertical, bands, rows)

    def add(self, slab: Slab, pixels: Values, valid: NDArray[np.bool_]) -> None:
        """Add the next slab: pixels (bands, rows, cols), valid (rows, cols)."""
        inner, top = slab.inner, int(slab.window.row_off)
        self.vertical.add(pixels[:, inner], valid[inner], along=slab.start, first=1)
        self.horizontal.add(pixels.swapaxes(1, 2), valid.T, along=0, first=top + 1)

    def finish(self) -> None:
        """Say that no slab is left."""
        self.vertical.finish()
        self.horizontal.finish()


@dataclass(frozen=True)
class Slab:
    """Rows of a raster that are worked on at once.

    Attributes:
        start: first row that counts.
        window: what is read: the rows that count, and the one above them where there is one.
    """

    start: int
    window: Window

    @property
    def inner(self) -> slice:
        """The rows that count, among those read."""
        return slice(self.start - int(self.window.row_off), None)


def slabs(grid: Grid) -> Iterator[Slab]:
    """Slabs of whole rows that cover a raster from above."""
    rows, cols = grid.shape
    height = max(SLAB_PIXELS // cols, LEAST_ROWS)
    for start in range(0, rows, height):
        top, bottom = max(start - 1, 0), min(start + height, rows)
        yield Slab(start, Window(col_off=0, row_off=top, width=cols, height=bottom - top))

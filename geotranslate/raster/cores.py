"""Cores: the parts of a scene that are written one by one, each with the halo read around it.

Cores lie on a lattice that starts at the scene's upper left pixel, whatever part of the scene is
wanted. So the network sees the same window around a pixel in the part as in the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rasterio.windows import Window

from geotranslate.errors import SettingError


@dataclass(frozen=True)
class Span:
    """A core along one axis; all positions in pixels of the scene, ends not included.

    Attributes:
        start: first pixel written.
        end: where writing ends.
        read_start: first pixel read; may lie before the scene.
        read_end: where reading ends; may lie beyond the scene.
    """

    start: int
    end: int
    read_start: int
    read_end: int

    @property
    def written(self) -> slice:
        """What is written, counted from the first pixel read."""
        return slice(self.start - self.read_start, self.end - self.read_start)


@dataclass(frozen=True)
class Core:
    """What is written at one step, and what has to be read for it.

    Attributes:
        rows: along the scene's columns.
        cols: along the scene's rows.
    """

    rows: Span
    cols: Span

    @property
    def window(self) -> Window:
        """The pixels written."""
        rows, cols = self.rows, self.cols
        return Window(
            col_off=cols.start,
            row_off=rows.start,
            width=cols.end - cols.start,
            height=rows.end - rows.start,
        )

    @property
    def read_window(self) -> Window:
        """The pixels read: the core and its halo; may leave the scene."""
        rows, cols = self.rows, self.cols
        return Window(
            col_off=cols.read_start,
            row_off=rows.read_start,
            width=cols.read_end - cols.read_start,
            height=rows.read_end - rows.read_start,
        )

    @property
    def written(self) -> tuple[slice, slice]:
        """Rows and columns of the window read that are written."""
        return self.rows.written, self.cols.written


def core_size(size: int, *, stride: int, block: int) -> int:
    """The side of a core nearest above ``size`` that starts all cores where they should.

    Cores start on multiples of the generator's stride, and of the output's blocks if they are at
    least as large as one.

    Args:
        size: the side asked for.
        stride: of the generator.
        block: side of the output's blocks.

    Raises:
        SettingError: the size is no number of pixels.
    """
    if size < 1:
        raise SettingError(
            f"size is {size} px, so a core would hold no pixel. Choose a size from {stride} px; "
            "1024 is a good one."
        )
    return _round_up(size, stride if size < block else math.lcm(stride, block))


def plan_cores(
    shape: tuple[int, int], part: Window, *, size: int, stride: int, halo: int
) -> list[list[Core]]:
    """The cores that cover a part of a scene, row by row; together they write it exactly once.

    A core that reaches beyond the scene is cut down to what the scene needs, rounded up to the
    stride. A core that reaches beyond the part is read whole and written as far as the part goes.

    Args:
        shape: (rows, cols) of the scene.
        part: the window of the scene that is wanted, inside it.
        size: side of a core, a multiple of ``stride``.
        stride: sides and starts of what is read are multiples of it.
        halo: pixels read around a core, a multiple of ``stride``.
    """
    rows = _spans(shape[0], int(part.row_off), int(part.height), size, stride, halo)
    cols = _spans(shape[1], int(part.col_off), int(part.width), size, stride, halo)
    return [[Core(row, col) for col in cols] for row in rows]


def _spans(
    length: int, part_start: int, part_length: int, size: int, stride: int, halo: int
) -> list[Span]:
    part_end = part_start + part_length
    rim = _round_up(length, stride)
    return [
        Span(
            start=max(start, part_start),
            end=min(start + size, part_end),
            read_start=start - halo,
            read_end=min(start + size, rim) + halo,
        )
        for start in range(part_start // size * size, part_end, size)
    ]


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step

"""Cores: the parts of a scene that are written one by one, each with the halo read around it.

Cores lie on a lattice that is fixed to the scene, whatever part of it is wanted. So the network
sees the same window around a pixel in the part as in the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geotranslate.choices import PredictBlend
from geotranslate.errors import SettingError

Taper = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""How a window fades in over an overlap: from places between 0 and 1 to weights above 0."""

TAPERS: dict[PredictBlend, Taper] = {
    "crop": np.ones_like,
    "hann": lambda place: np.sin(np.pi / 2 * place) ** 2,
    "linear": lambda place: place,
}

OVERLAP = 4
"""Cores that are blended overlap by a quarter of their side."""


@dataclass(frozen=True)
class Lattice:
    """How a scene is cut.

    Attributes:
        size: side of a core, a multiple of ``stride``.
        stride: starts and sides of what is read keep one distance to multiples of it.
        halo: pixels read around a core.
        step: from one core's start to the next one's, a multiple of ``stride``; ``size`` where
            each core is written as it is, less where cores are blended.
        taper: how a core fades in where it overlaps another.
        shift: pixels by which the first core starts before the scene, a multiple of ``stride``.
    """

    size: int
    stride: int
    halo: int
    step: int
    taper: Taper = np.ones_like
    shift: int = 0


@dataclass(frozen=True, eq=False)
class Span:
    """A core along one axis; all positions in pixels of the scene, ends not included.

    Attributes:
        start: first pixel written with this core, when all cores that share in it are there.
        end: where that ends; at ``start`` where the core only adds to the pixels of others.
        core_start: first pixel the core has a share in.
        core_end: where the core ends.
        read_start: first pixel read; may lie before the scene.
        read_end: where reading ends; may lie beyond the scene.
        shares: float32, the core's share in each of its pixels; those of all cores add up to 1.
    """

    start: int
    end: int
    core_start: int
    core_end: int
    read_start: int
    read_end: int
    shares: NDArray[np.float32]

    @property
    def trusted(self) -> slice:
        """The core, counted from the first pixel read."""
        return slice(self.core_start - self.read_start, self.core_end - self.read_start)

    @property
    def written(self) -> slice:
        """What is written, counted from the first pixel of the core."""
        return slice(self.start - self.core_start, self.end - self.core_start)


@dataclass(frozen=True)
class Core:
    """What is translated at one step, and what has to be read for it.

    Attributes:
        rows: along the scene's columns.
        cols: along the scene's rows.
    """

    rows: Span
    cols: Span

    @property
    def window(self) -> Window:
        """The pixels written: no two cores have one in common."""
        return _window(self.rows.start, self.rows.end, self.cols.start, self.cols.end)

    @property
    def core_window(self) -> Window:
        """The pixels the core has a share in: as many as are written, or more."""
        rows, cols = self.rows, self.cols
        return _window(rows.core_start, rows.core_end, cols.core_start, cols.core_end)

    @property
    def read_window(self) -> Window:
        """The pixels read: the core and its halo; may leave the scene."""
        rows, cols = self.rows, self.cols
        return _window(rows.read_start, rows.read_end, cols.read_start, cols.read_end)

    @property
    def trusted(self) -> tuple[slice, slice]:
        """Rows and columns of the window read that belong to the core."""
        return self.rows.trusted, self.cols.trusted

    @property
    def written(self) -> tuple[slice, slice]:
        """Rows and columns of the core that are written with it."""
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


def core_step(size: int, *, stride: int) -> int:
    """The way from core to core where they are blended: three quarters of a side, or nearly."""
    overlap = max(size // OVERLAP // stride, 1) * stride
    return max(size - overlap, stride)


def plan_cores(shape: tuple[int, int], part: Window, lattice: Lattice) -> list[list[Core]]:
    """The cores that a part of a scene needs, row by row; together they write it exactly once.

    A core that reaches beyond the part is read whole and written as far as the part goes. Where
    cores overlap, the last one is pulled back to end with the scene, rounded up to the stride;
    where they do not, it is cut down to that.

    Args:
        shape: (rows, cols) of the scene.
        part: the window of the scene that is wanted, inside it.
        lattice: how the scene is cut.
    """
    rows = _spans(shape[0], int(part.row_off), int(part.height), lattice)
    cols = _spans(shape[1], int(part.col_off), int(part.width), lattice)
    return [[Core(row, col) for col in cols] for row in rows]


def _spans(length: int, part_start: int, part_length: int, lattice: Lattice) -> list[Span]:
    part_end = part_start + part_length
    places = _places(length, lattice)
    shares = _shares(places, lattice.taper)
    nexts = [start for start, _ in places[1:]] + [places[-1][1]]
    spans = []
    for (start, end), until, share in zip(places, nexts, shares, strict=True):
        core_start, core_end = max(start, part_start), min(end, part_end)
        if core_start < core_end:
            span = Span(
                start=core_start,
                end=max(core_start, min(until, part_end)),
                core_start=core_start,
                core_end=core_end,
                read_start=start - lattice.halo,
                read_end=end + lattice.halo,
                shares=share[core_start - start : core_end - start].astype(np.float32),
            )
            spans.append(span)
    return spans


def _places(length: int, lattice: Lattice) -> list[tuple[int, int]]:
    """Start and end of every core along an axis of a scene."""
    rim = _round_up(length, lattice.stride)
    size, step = lattice.size, lattice.step
    if step == size:
        starts = [*range(-lattice.shift, length, step)]
    else:
        last = max(rim - size, -lattice.shift)
        starts = [*range(-lattice.shift, last, step), last]
    return [(start, min(start + size, rim)) for start in starts]


def _shares(places: Sequence[tuple[int, int]], taper: Taper) -> list[NDArray[np.float64]]:
    """The share of every core in each of its pixels: weights over the sum of all weights there.

    A core weighs 1 where no other lies, so also at the scene's rim, and fades over overlaps.
    """
    weights = [np.ones(end - start) for start, end in places]
    for index, ((_, end), (start, _)) in enumerate(pairwise(places)):
        overlap = end - start
        ramp = taper((np.arange(overlap) + 0.5) / max(overlap, 1))
        weights[index + 1][:overlap] *= ramp
        weights[index][len(weights[index]) - overlap :] *= ramp[::-1]
    first = places[0][0]
    total = np.zeros(places[-1][1] - first)
    for (start, end), weight in zip(places, weights, strict=True):
        total[start - first : end - first] += weight
    return [
        weight / total[start - first : end - first]
        for (start, end), weight in zip(places, weights, strict=True)
    ]


def _window(top: int, bottom: int, left: int, right: int) -> Window:
    return Window(col_off=left, row_off=top, width=right - left, height=bottom - top)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step

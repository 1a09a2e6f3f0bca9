"""How overlapping pixels become one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from geotranslate.choices import MosaicBlend

SORTED_ROWS = 32

Place = tuple[slice, slice]
"""Rows and columns of a canvas."""

Weights = NDArray[np.floating[Any]] | float
"""(rows, cols), or one number for all pixels."""


# No float holds all of their values.
LARGE_INTEGERS = np.dtype("int64"), np.dtype("uint64")


class Canvas(Protocol):
    """A rectangle that rasters are laid on, one after another."""

    valid: NDArray[np.bool_]

    @property
    def values(self) -> NDArray[Any]:
        """(bands, rows, cols); 0 where nothing valid was laid."""

    def is_full(self, place: Place) -> bool:
        """Whether nothing laid there would change anything."""

    def lay(
        self, place: Place, pixels: NDArray[Any], valid: NDArray[np.bool_], weights: Weights
    ) -> None:
        """Lay pixels (bands, rows, cols) on a place, with valid (rows, cols) and weights."""


class FirstValid:
    """Keeps of every pixel the first valid value laid on it.

    Attributes:
        values: (bands, rows, cols).
        valid: (rows, cols), where something valid was laid.
    """

    def __init__(self, bands: int, shape: tuple[int, int], dtype: str) -> None:
        self.values = np.zeros((bands, *shape), dtype)
        self.valid = np.zeros(shape, bool)

    def is_full(self, place: Place) -> bool:
        """Whether every pixel has its value."""
        return bool(self.valid[place].all())

    def lay(
        self, place: Place, pixels: NDArray[Any], valid: NDArray[np.bool_], weights: Weights
    ) -> None:
        """Lay pixels (bands, rows, cols) on a place; weights do not matter."""
        fresh = valid & ~self.valid[place]
        np.copyto(self.values[:, *place], pixels, where=fresh)
        self.valid[place] |= fresh


class WeightedMean:
    """The weighted mean of all valid values, exact where they are equal or there is only one.

    Sums run over differences to the first value of each pixel, so that no rounding touches a
    value that nothing else is mixed with: two halves give back the raster they were cut from.

    Attributes:
        valid: (rows, cols), where something valid was laid.
    """

    def __init__(self, bands: int, shape: tuple[int, int], dtype: str) -> None:
        self._first = FirstValid(bands, shape, dtype)
        # Small integers are rounded in the end, to which float32 is exact enough and faster.
        sums = np.float32 if np.can_cast(dtype, np.uint16) or dtype == "int16" else np.float64
        self._weight = np.zeros(shape, sums)
        self._moved = np.zeros((bands, *shape), sums)
        self.valid = self._first.valid

    @property
    def values(self) -> NDArray[Any]:
        """(bands, rows, cols)."""
        step = self._moved / np.where(self.valid, self._weight, 1)
        return _added(self._first.values, step)

    def is_full(self, place: Place) -> bool:
        """Never: each value moves the mean."""
        return False

    def lay(
        self, place: Place, pixels: NDArray[Any], valid: NDArray[np.bool_], weights: Weights
    ) -> None:
        """Lay pixels (bands, rows, cols) on a place, with valid (rows, cols) and weights."""
        weights = np.where(valid, weights, 0).astype(self._weight.dtype, copy=False)
        mixes = bool((valid & self.valid[place]).any())
        self._first.lay(place, pixels, valid, weights)
        self._weight[place] += weights
        if not mixes:
            return
        step = np.subtract(pixels, self._first.values[:, *place], dtype=self._moved.dtype)
        if np.issubdtype(pixels.dtype, np.floating):
            # What lies under an invalid pixel may be NaN, which no weight of zero takes away.
            step[:, ~valid] = 0
        step *= weights
        self._moved[:, *place] += step


class Median:
    """The median of all valid values; of an even number, the mean of the middle two.

    Memory grows with the number of values that lie on each other, not of the rasters laid.

    Attributes:
        valid: (rows, cols), where something valid was laid.
    """

    def __init__(self, bands: int, shape: tuple[int, int], dtype: str) -> None:
        self._layers: list[NDArray[Any]] = []
        self._count = np.zeros(shape, np.intp)
        self._empty = np.zeros((bands, *shape), dtype)
        self.valid = np.zeros(shape, bool)

    @property
    def values(self) -> NDArray[Any]:
        """(bands, rows, cols)."""
        if len(self._layers) < 2:
            return self._layers[0] if self._layers else self._empty
        # A few rows at a time: sorting takes several copies of what it sorts.
        large = self._empty.dtype in LARGE_INTEGERS
        middle = np.empty(self._empty.shape, self._empty.dtype if large else np.float64)
        for row in range(0, len(self.valid), SORTED_ROWS):
            rows = slice(row, row + SORTED_ROWS)
            stack = np.stack([layer[:, rows] for layer in self._layers])
            middle[:, rows] = _middle(stack, self._count[rows])
        return middle

    def is_full(self, place: Place) -> bool:
        """Never: each value counts."""
        return False

    def lay(
        self, place: Place, pixels: NDArray[Any], valid: NDArray[np.bool_], weights: Weights
    ) -> None:
        """Lay pixels (bands, rows, cols) on a place; weights do not matter."""
        count = self._count[place]
        for depth in range(int(count[valid].max(initial=-1)) + 1):
            if depth == len(self._layers):
                self._layers.append(np.zeros_like(self._empty))
            here = valid & (count == depth)
            np.copyto(self._layers[depth][:, *place], pixels, where=here)
        self._count[place] += valid
        self.valid[place] |= valid


def _middle(stack: NDArray[Any], count: NDArray[np.intp]) -> NDArray[Any]:
    """The median (bands, rows, cols) of the first values of each pixel of a stack, sorted there.

    Args:
        stack: (values, bands, rows, cols).
        count: (rows, cols), how many of them count.
    """
    for depth in range(2, len(stack) + 1):
        here = count == depth
        stack[:depth, :, here] = np.sort(stack[:depth, :, here], axis=0)
    count = np.maximum(count, 1)[None, None]
    low, high = (
        np.take_along_axis(stack, np.broadcast_to(index, (1, *stack.shape[1:])), axis=0)[0]
        for index in ((count - 1) // 2, count // 2)
    )
    return _added(low, np.subtract(high, low, dtype=np.float64) / 2)


def _added(values: NDArray[Any], step: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Values moved by a step, which may be overwritten; large integers by a whole one."""
    if values.dtype in LARGE_INTEGERS:
        whole: NDArray[Any] = np.rint(step).astype(np.int64).astype(values.dtype)
        whole += values
        return whole
    step += values
    return step


class Highest:
    """Keeps of every pixel the valid values with the highest weight; of equal ones the first.

    Attributes:
        values: (bands, rows, cols).
        valid: (rows, cols), where something valid was laid.
    """

    def __init__(self, bands: int, shape: tuple[int, int], dtype: str) -> None:
        self.values = np.zeros((bands, *shape), dtype)
        self.valid = np.zeros(shape, bool)
        self._best = np.full(shape, -np.inf)

    def is_full(self, place: Place) -> bool:
        """Never: a better one may come."""
        return False

    def lay(
        self, place: Place, pixels: NDArray[Any], valid: NDArray[np.bool_], weights: Weights
    ) -> None:
        """Lay pixels (bands, rows, cols) on a place, with valid (rows, cols) and weights."""
        better = valid & ((weights > self._best[place]) | ~self.valid[place])
        np.copyto(self.values[:, *place], pixels, where=better)
        np.copyto(self._best[place], weights, where=better)
        self.valid[place] |= better


@dataclass(frozen=True)
class Blend:
    """A way to make one value of many.

    Attributes:
        canvas: makes the canvas, from bands, shape and dtype.
        weights: what a raster's pixels are weighed by: the distance to its valid edge, the values
            of its quality band, or nothing.
        ordered: whether the order in which rasters were given counts; where it does not, they
            are laid in the order of their places, so that sums round alike.
        backwards: lay the last one first.
        stacks: keeps all values of a pixel, so that memory grows with the rasters' number.
    """

    canvas: Callable[[int, tuple[int, int], str], Canvas]
    weights: Literal["distance", "quality"] | None = None
    ordered: bool = False
    backwards: bool = False
    stacks: bool = False


BLENDS: dict[MosaicBlend, Blend] = {
    "feather": Blend(WeightedMean, weights="distance"),
    "first": Blend(FirstValid, ordered=True),
    "last": Blend(FirstValid, ordered=True, backwards=True),
    "mean": Blend(WeightedMean),
    "median": Blend(Median, stacks=True),
    "best": Blend(Highest, weights="quality", ordered=True),
}

"""How overlapping pixels become one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geotranslate.choices import MosaicBlend

Place = tuple[slice, slice]
"""Rows and columns of a canvas."""

Weigh = Callable[[int], NDArray[np.float64]]
"""Weights along one axis of a raster, from its length; a pixel's weight is the product of two."""


def tent(length: int) -> NDArray[np.float64]:
    """The distance of each pixel's centre to the nearer end, in pixels: 0.5, 1.5, ... 1.5, 0.5.

    Where two rasters of one size overlap by at most half of it, this fades from one to the other
    in a straight line. No weight is zero, so a raster's rim is kept where nothing lies over it.
    """
    ramp = np.arange(length) + 0.5
    weights: NDArray[np.float64] = np.minimum(ramp, ramp[::-1])
    return weights


def flat(length: int) -> NDArray[np.float64]:
    """The same weight for every pixel."""
    return np.ones(length)


class Canvas(Protocol):
    """A rectangle that rasters are laid on, one after another."""

    valid: NDArray[np.bool_]

    @property
    def values(self) -> NDArray[Any]:
        """(bands, rows, cols); 0 where nothing valid was laid."""

    def is_full(self, place: Place) -> bool:
        """Whether nothing laid there would change anything."""

    def lay(
        self,
        place: Place,
        pixels: NDArray[Any],
        valid: NDArray[np.bool_],
        weights: NDArray[np.float64],
    ) -> None:
        """Lay pixels (bands, rows, cols) on a place, with valid and weights (rows, cols)."""


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
        self,
        place: Place,
        pixels: NDArray[Any],
        valid: NDArray[np.bool_],
        weights: NDArray[np.float64],
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
        self._weight = np.zeros(shape)
        self._moved = np.zeros((bands, *shape))
        self.valid = self._first.valid

    @property
    def values(self) -> NDArray[np.float64]:
        """(bands, rows, cols)."""
        weight = np.where(self.valid, self._weight, 1.0)
        return self._first.values + self._moved / weight

    def is_full(self, place: Place) -> bool:
        """Never: each value moves the mean."""
        return False

    def lay(
        self,
        place: Place,
        pixels: NDArray[Any],
        valid: NDArray[np.bool_],
        weights: NDArray[np.float64],
    ) -> None:
        """Lay pixels (bands, rows, cols) on a place, with valid and weights (rows, cols)."""
        self._first.lay(place, pixels, valid, weights)
        weights = np.where(valid, weights, 0.0)
        self._weight[place] += weights
        step = np.subtract(pixels, self._first.values[:, *place], dtype=np.float64)
        # What lies under an invalid pixel may be NaN, which no weight of zero takes away.
        step[:, ~valid] = 0.0
        self._moved[:, *place] += weights * step


@dataclass(frozen=True)
class Blend:
    """A way to make one value of many.

    Attributes:
        canvas: makes the canvas, from bands, shape and dtype.
        weigh: weights along each axis of a raster.
        ordered: whether the order in which rasters were given counts; where it does not, they
            are laid in the order of their places, so that sums round alike.
        backwards: lay the last one first.
    """

    canvas: Callable[[int, tuple[int, int], str], Canvas]
    weigh: Weigh = flat
    ordered: bool = False
    backwards: bool = False


BLENDS: dict[MosaicBlend, Blend] = {
    "feather": Blend(WeightedMean, tent),
    "first": Blend(FirstValid, ordered=True),
    "last": Blend(FirstValid, ordered=True, backwards=True),
    "mean": Blend(WeightedMean, flat),
}

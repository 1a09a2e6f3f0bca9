"""Figures of bands, gathered chip by chip in constant memory and merged at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CODE_BITS = 20


@dataclass(frozen=True)
class BandStatistics:
    """Exact moments of one band's valid pixels, in stored units.

    Attributes:
        count: valid pixels.
        min: smallest value; NaN when there is none.
        max: largest value; NaN when there is none.
        mean: arithmetic mean; 0 when there is none.
        m2: sum of squared deviations from the mean.
    """

    count: int
    min: float
    max: float
    mean: float
    m2: float

    @property
    def std(self) -> float:
        """Standard deviation over all pixels (not the sample's estimate)."""
        return float(np.sqrt(self.m2 / self.count)) if self.count else 0.0

    def merge(self, other: BandStatistics) -> BandStatistics:
        """The statistics of both sets of pixels together (Chan et al., 1979)."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        step = other.mean - self.mean
        return BandStatistics(
            count=count,
            min=min(self.min, other.min),
            max=max(self.max, other.max),
            mean=self.mean + step * other.count / count,
            m2=self.m2 + other.m2 + step * step * self.count * other.count / count,
        )


EMPTY = BandStatistics(count=0, min=float("nan"), max=float("nan"), mean=0.0, m2=0.0)


def band_statistics(
    pixels: NDArray[np.generic], valid: NDArray[np.bool_]
) -> tuple[BandStatistics, ...]:
    """Statistics of each band over the valid pixels.

    Args:
        pixels: (bands, rows, cols).
        valid: (rows, cols).
    """
    return tuple(_moments(band[valid].astype(np.float64)) for band in pixels)


def _moments(values: NDArray[np.float64]) -> BandStatistics:
    if not values.size:
        return EMPTY
    mean = float(values.mean())
    return BandStatistics(
        count=int(values.size),
        min=float(values.min()),
        max=float(values.max()),
        mean=mean,
        m2=float(np.square(values - mean).sum()),
    )


def merge_statistics(parts: Iterable[tuple[BandStatistics, ...]]) -> tuple[BandStatistics, ...]:
    """Band by band, the statistics of all parts together."""
    total: tuple[BandStatistics, ...] = ()
    for part in parts:
        total = tuple(a.merge(b) for a, b in zip(total, part, strict=True)) if total else part
    return total


class Histogram:
    """Percentiles of any number of values, in 8 MB.

    A float32's bits, read as an integer, sort as the number does; the first 20 bits are the
    bin. So bins are narrow near zero and wide far off: 0.05 % of the value, at any scale.
    Integers up to 4,096 get a bin each.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(1 << CODE_BITS, np.int64)

    def add(self, values: NDArray[np.generic]) -> None:
        """Count values of any shape; all must be numbers."""
        codes, counts = np.unique(_codes(values), return_counts=True)
        self.counts[codes] += counts

    def percentile(self, percent: float) -> float:
        """The value below which ``percent`` of the values lie, to a bin's width."""
        cumulated = np.cumsum(self.counts)
        rank = percent / 100 * max(int(cumulated[-1]) - 1, 0)
        return _value(np.searchsorted(cumulated, rank, side="right"))

    def share_outside(self, low: float, high: float) -> float:
        """Share of the values in bins below that of ``low`` or above that of ``high``."""
        first, last = _codes(np.array([low, high]))
        inside = int(self.counts[first : last + 1].sum())
        total = int(self.counts.sum())
        return 1 - inside / total if total else 0.0


def _codes(values: NDArray[np.generic]) -> NDArray[np.int64]:
    bits = values.astype(np.float32).ravel().view(np.uint32).astype(np.int64)
    negative = bits >> 31 == 1
    ordered = np.where(negative, 0xFFFFFFFF - bits, bits + (1 << 31))
    return ordered >> (32 - CODE_BITS)


def _value(code: np.integer) -> float:
    """The number nearest to zero in a bin, so that small integers come back as they were."""
    ordered = int(code) << (32 - CODE_BITS)
    if ordered >= 1 << 31:
        bits = ordered - (1 << 31)
    else:
        bits = 0xFFFFFFFF - ordered - ((1 << (32 - CODE_BITS)) - 1)
    return float(np.array([bits], np.uint32).view(np.float32)[0])

"""How far a domain's values reach: what its normalization is made from."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geotranslate.chips.file import ChipPixels
from geotranslate.raster.domain import Band
from geotranslate.raster.scene import Chip
from geotranslate.raster.statistics import Histogram

PERCENTILES = 0.1, 99.9


class Limits(NamedTuple):
    """The physical values of a band that become -1 and 1, and the share of pixels outside."""

    low: float
    high: float
    outside: float


class Tally:
    """Which values a domain's normalization must reach, gathered from several threads."""

    def __init__(self, bands: Sequence[Band], dtype: str) -> None:
        self._bands, self._dtype = bands, dtype
        self._histograms = [Histogram() for _ in bands] if dtype != "uint8" else []
        self._locks = [threading.Lock() for _ in bands]

    def add(self, chip: Chip | ChipPixels) -> None:
        """Count a chip's valid pixels."""
        for band, histogram, lock, pixels in zip(
            self._bands, self._histograms, self._locks, chip.pixels, strict=False
        ):
            physical = pixels[chip.valid] * np.float64(band.scale) + band.offset
            with lock:
                histogram.add(physical)

    def limits(self) -> list[Limits]:
        """Of each band: 0 to 255 for uint8, else the 0.1 and 99.9 percentiles."""
        if self._dtype == "uint8":
            ends = [sorted((b.offset, b.offset + 255 * b.scale)) for b in self._bands]
            return [Limits(low, high, 0.0) for low, high in ends]
        limits = []
        for histogram in self._histograms:
            low, high = map(histogram.percentile, PERCENTILES)
            limits.append(Limits(low, high, histogram.share_outside(low, high)))
        return limits

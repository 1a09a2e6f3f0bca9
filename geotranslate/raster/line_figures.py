"""How the lines where windows meet stand out from all other lines of pixels.

docs/evaluate.md defines the figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from geotranslate.raster.line_sums import Lines, LineSums, Values

PERIODIC_PEAK = 4.0
"""Power over that around it from which the gradients count as repeating with the lines."""

LEAST_PERIODS = 4
"""Windows along a raster that a peak takes. Of rasters of smoothed noise with two, one in ten
reaches `PERIODIC_PEAK` in one of three bands; with four, none of 60 did."""

HARMONICS = 8
"""Multiples of the frequency of the lines that the spectral peak looks at."""

NEIGHBOURS = 4
"""Frequencies on each side of a harmonic that it is compared with."""

ROUNDING = 1e-9
"""Parts of a mean below which differences between lines are those of computing it."""


@dataclass(frozen=True)
class Contrast:
    """A figure on the lines against the same figure elsewhere, in the band's unit.

    Attributes:
        on_lines: mean over the lines.
        elsewhere: what it would be if the lines stood out as much as all other lines of pixels.
        score: the difference of the two over the standard deviation at other distances.
        chance: how often lines that mean nothing reach this score, by Student's distribution.
    """

    on_lines: float
    elsewhere: float
    score: float
    chance: float

    @property
    def excess(self) -> float:
        """What the lines have more."""
        return self.on_lines - self.elsewhere


@dataclass(frozen=True)
class LineFigures:
    """What one band shows on the lines of one direction.

    Attributes:
        gradient: mean absolute difference of the pixels on both sides of a line.
        step: mean absolute jump of the level from one window to the next, along a window's edge.
        peak: power of the gradients at the lines' frequency and its harmonics, over that of
            the frequencies around them; NaN where the raster is less than four windows long.
    """

    gradient: Contrast
    step: Contrast
    peak: float

    @property
    def chance(self) -> float:
        """The lower one of gradient and step."""
        return min(self.gradient.chance, self.step.chance)

    @property
    def periodic(self) -> bool:
        """Whether the gradients repeat with the lines, as blended seams make them do."""
        return self.peak >= PERIODIC_PEAK


def line_figures(sums: LineSums, band: int) -> LineFigures | None:
    """The figures of one band and direction; None where no line has pixels on both sides.

    Args:
        sums: along every line of the direction.
        band: index of the band, from 0.
    """
    gradient = _contrast(sums.gradient[band], sums.pairs, sums.lines)
    step = _contrast(sums.step[band], sums.pairs, sums.lines)
    if gradient is None or step is None:
        return None
    return LineFigures(gradient, step, _peak(sums.gradient[band], sums.pairs, sums.lines))


def _contrast(total: Values, count: NDArray[np.int64], lines: Lines) -> Contrast | None:
    """How a figure on the lines stands out, against how it does at other distances from them.

    Args:
        total: (length,) sum of the figure over the pixels of each line of pixels.
        count: (length,) how many there are.
        lines: where windows meet.
    """
    mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    outstanding = mean - _surroundings(total, count, lines.reach)
    position = np.arange(len(total))
    # Each line of pixels counts with the window line nearest to it, so that every distance
    # is measured in the same parts of the raster.
    half = lines.size // 2
    distance = (position - lines.offset + half) % lines.size - half
    used = np.isin(position - distance, lines.on(len(total))) & np.isfinite(outstanding)
    weight = np.bincount(distance[used] + half, count[used], lines.size)
    weighted = np.bincount(distance[used] + half, (count * outstanding)[used], lines.size)
    by_distance = np.divide(weighted, weight, out=np.full(lines.size, np.nan), where=weight > 0)
    away = np.abs(np.arange(lines.size) - half) >= lines.reach
    others = by_distance[away & (weight > 0)]
    if not weight[half] or others.size < 2:
        return None
    on_line = used & (distance == 0)
    on_lines = float(total[on_line].sum() / count[on_line].sum())
    excess = float(by_distance[half] - others.mean())
    spread = max(float(others.std()), ROUNDING * abs(on_lines))
    score = excess / spread if spread else 0.0
    return Contrast(on_lines, on_lines - excess, score, _chance_of(score, others.size))


def _chance_of(score: float, others: int) -> float:
    """How often one more value of a normal population scores as high against ``others`` of it.

    The score divides by their standard deviation, not by the estimate for the population.
    """
    t = score * math.sqrt((others - 1) / (others + 1))
    return float(stdtr(others - 1, -t))


def _surroundings(total: Values, count: NDArray[np.int64], reach: int) -> Values:
    """The mean of what lies from ``reach`` to twice as far on each side, both sides alike.

    So neither a slope nor a wide change of the content makes a line stand out, and a line's
    own neighbourhood does not hide it. NaN where a side holds nothing.
    """
    sums = [np.concatenate([[0], np.cumsum(values)]) for values in (total, count)]
    position = np.arange(len(total))
    sides = []
    for first, last in ((-2 * reach, -reach), (reach, 2 * reach)):
        start = np.clip(position + first, 0, len(total))
        stop = np.clip(position + last + 1, 0, len(total))
        values, pixels = (cumulated[stop] - cumulated[start] for cumulated in sums)
        side = np.full(len(total), np.nan)
        sides.append(np.divide(values, pixels, out=side, where=pixels > 0))
    return np.asarray((sides[0] + sides[1]) / 2, np.float64)


def _peak(total: Values, count: NDArray[np.int64], lines: Lines) -> float:
    """Power of a profile at the lines' frequency and its harmonics, over that around them.

    After Wang, Bovik and Evans, "Blind measurement of blocking artifacts in images" (ICIP 2000),
    who find the blocks of JPEG by the peaks in the spectrum of the differences of neighbours.

    Args:
        total: (length,) sum of absolute gradients along each line of pixels.
        count: (length,) how many there are.
        lines: where windows meet.
    """
    periods = (len(total) - 1) // lines.size
    if periods < LEAST_PERIODS:
        return math.nan
    whole = slice(1, 1 + periods * lines.size)
    total, count = total[whole], count[whole]
    position, known = np.arange(len(total)), count > 0
    if known.sum() < 2:
        return math.nan
    profile = total[known] / count[known]
    slope = np.polynomial.Polynomial.fit(position[known], profile, 1, w=np.sqrt(count[known]))
    level = np.zeros(len(total))
    # Lines with few valid pixels are noisy, so they count as little as they hold.
    level[known] = (profile - slope(position[known])) * count[known] / count.max()
    if np.abs(level).max() <= ROUNDING * profile.max():
        return 1.0
    power = np.abs(np.fft.rfft(level)) ** 2
    ratios = []
    for bin_ in range(periods, len(power), periods)[:HARMONICS]:
        near = np.arange(max(bin_ - NEIGHBOURS, 1), min(bin_ + NEIGHBOURS + 1, len(power)))
        ratios.append(ratio(power[bin_], power[near[near % periods > 0]].mean(), of_nothing=1.0))
    return float(np.mean(ratios))


def ratio(part: float, whole: float, *, of_nothing: float) -> float:
    """A quotient; of two zeros, what it is by agreement."""
    if whole:
        return float(part / whole)
    return math.inf if part else of_nothing

"""Figures of what is visible where the windows of a prediction meet.

They need nothing but the raster and the distance of the lines, so they serve rasters of any
tool. docs/evaluate.md defines each figure and says what it does not see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from geotranslate.errors import BandError, GridError, SettingError
from geotranslate.raster.domain import Band, to_physical
from geotranslate.raster.line_sums import Lines, LineSums, RasterSums, Strip, Values, strips
from geotranslate.raster.scene import Scene, open_scene
from geotranslate.raster.statistics import BandStatistics, band_statistics, merge_statistics

VISIBLE_CHANCE = 0.005
"""Lines are called visible where lines that mean nothing would stand out as much at most this
often. That takes a score of 2.6, and more where a short period has few lines to compare with."""

VISIBLE_PEAK = 4.0
"""Power over that around it from which the gradients count as repeating with the lines."""

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
        elsewhere: what it would be if the lines stood out as much as the other offsets do.
        score: the difference of the two over the standard deviation among other offsets.
        chance: how often lines that mean nothing reach this score, by Student's distribution.
    """

    on_lines: float
    elsewhere: float
    score: float
    chance: float

    @property
    def visible(self) -> bool:
        """Whether the lines stand out beyond chance."""
        return self.chance <= VISIBLE_CHANCE

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
            the frequencies around them; NaN where the raster holds less than two periods.
    """

    gradient: Contrast
    step: Contrast
    peak: float

    @property
    def visible(self) -> bool:
        """Whether gradients or levels on the lines stand out beyond chance."""
        return self.gradient.visible or self.step.visible

    @property
    def periodic(self) -> bool:
        """Whether the gradients repeat with the lines, as blended seams make them do."""
        return self.peak >= VISIBLE_PEAK


@dataclass(frozen=True)
class BandSeams:
    """What one band shows.

    Attributes:
        band: which one.
        std: standard deviation of its valid pixels, in its unit.
        vertical: on the lines between columns; None where none crosses the raster.
        horizontal: on the lines between rows; None likewise.
    """

    band: Band
    std: float
    vertical: LineFigures | None
    horizontal: LineFigures | None

    def directions(self) -> Iterator[tuple[str, LineFigures]]:
        """Those that have lines, with their names."""
        for name, figures in (("vertical", self.vertical), ("horizontal", self.horizontal)):
            if figures is not None:
                yield name, figures


@dataclass(frozen=True)
class SeamFigures:
    """What is visible on the lines where the windows of a raster meet.

    Attributes:
        path: the raster.
        lines: where its windows meet.
        bands: what each band shows.
    """

    path: str
    lines: Lines
    bands: tuple[BandSeams, ...]

    @property
    def visible(self) -> bool:
        """Whether any band shows the lines."""
        return any(figures.visible for band in self.bands for _, figures in band.directions())


def measure_seams(path: str | Path, size: int, offset: int = 0) -> SeamFigures:
    """Measure what is visible where windows of ``size`` pixels meet, in a raster of any size.

    Args:
        path: any georeferenced raster.
        size: pixels from one line to the next, in both directions.
        offset: the lines lie between pixels ``k * size + offset - 1`` and ``k * size + offset``.

    Raises:
        RasterError: the file cannot be read.
        SettingError: the lines cannot be measured, or none crosses the raster.
        GridError: no pixel near a line is valid.
    """
    lines = Lines(size, offset)
    with open_scene(path) as scene:
        check_crossed(lines, scene)
        sums = RasterSums(lines, len(scene.bands), scene.grid.shape)
        statistics: tuple[BandStatistics, ...] = ()
        for strip in strips(scene.grid):
            chip = scene.read(strip.window)
            pixels = to_physical(chip.pixels, scene.bands)
            sums.add(strip, pixels, chip.valid)
            statistics = merge_statistics(
                [statistics, _inner_statistics(strip, pixels, chip.valid)]
            )
        sums.finish()
        bands = tuple(
            BandSeams(
                band=band,
                std=statistics[index].std,
                vertical=line_figures(sums.vertical, index),
                horizontal=line_figures(sums.horizontal, index),
            )
            for index, band in enumerate(scene.bands)
        )
    if not any(list(band.directions()) for band in bands):
        raise GridError(
            f"{path} holds no data on both sides of any line every {size} px, or too near to its "
            "rim, so there is nothing to measure. Check its nodata value with `geotranslate "
            "info`, or choose another size or offset."
        )
    return SeamFigures(str(path), lines, bands)


@dataclass(frozen=True)
class BandMismatch:
    """How one band of two rasters differs, over the pixels that are valid in both.

    Attributes:
        band: of the first raster.
        mean: mean absolute difference, in the band's unit.
        largest: largest absolute difference.
        std: standard deviation of the other raster's pixels.
        vertical: mean gradient on the vertical lines over the other raster's on the same lines;
            None where no line was asked for, none crosses or no valid pixels lie on both sides.
        horizontal: the same for horizontal lines.
    """

    band: Band
    mean: float
    largest: float
    std: float
    vertical: float | None
    horizontal: float | None

    @property
    def share(self) -> float:
        """Mean absolute difference in parts of the standard deviation."""
        return _ratio(self.mean, self.std, of_nothing=0.0)


@dataclass(frozen=True)
class Mismatch:
    """How two rasters of one grid differ.

    Attributes:
        path: the first raster.
        other: the one it is held against.
        lines: where gradients were compared; None where they were not.
        pixels: how many are valid in both.
        bands: how each band differs.
    """

    path: str
    other: str
    lines: Lines | None
    pixels: int
    bands: tuple[BandMismatch, ...]

    @property
    def share(self) -> float:
        """Mean over the bands of the difference in parts of the standard deviation."""
        return float(np.mean([band.share for band in self.bands]))


def measure_mismatch(path: str | Path, other: str | Path, lines: Lines | None = None) -> Mismatch:
    """Measure how two rasters of one grid differ, such as predictions cut in two ways.

    Args:
        path: a raster.
        other: the raster that it is held against, such as one predicted in a single window.
        lines: compare the gradients on them as well.

    Raises:
        RasterError: a file cannot be read.
        BandError: the rasters differ in their number of bands or in a unit.
        GridError: the rasters lie on different grids, or share no valid pixel.
        SettingError: none of the lines crosses the rasters.
    """
    with open_scene(path) as ours, open_scene(other) as theirs:
        _check_comparable(ours, theirs)
        if lines is not None:
            check_crossed(lines, ours)
        count, shape = len(ours.bands), ours.grid.shape
        measured = [RasterSums(lines, count, shape) for _ in range(2)] if lines else []
        total, largest, shared = np.zeros(count), np.zeros(count), 0
        statistics: tuple[BandStatistics, ...] = ()
        for strip in strips(ours.grid):
            chips = [scene.read(strip.window) for scene in (ours, theirs)]
            valid = chips[0].valid & chips[1].valid
            pixels = [
                to_physical(chip.pixels, scene.bands)
                for chip, scene in zip(chips, (ours, theirs), strict=True)
            ]
            for sums, values in zip(measured, pixels, strict=False):
                sums.add(strip, values, valid)
            inner = np.where(valid[strip.inner], np.abs(pixels[0] - pixels[1])[:, strip.inner], 0.0)
            total += inner.sum(axis=(1, 2))
            largest = np.maximum(largest, inner.max(axis=(1, 2)))
            shared += int(valid[strip.inner].sum())
            statistics = merge_statistics([statistics, _inner_statistics(strip, pixels[1], valid)])
        if not shared:
            raise GridError(
                f"no pixel holds data in both {path} and {other}, so there is nothing to compare. "
                "Check their nodata values, for example with `geotranslate info`."
            )
        return Mismatch(
            path=ours.path,
            other=theirs.path,
            lines=lines,
            pixels=shared,
            bands=tuple(
                BandMismatch(
                    band=band,
                    mean=float(total[index] / shared),
                    largest=float(largest[index]),
                    std=statistics[index].std,
                    vertical=_gradient_ratio([s.vertical for s in measured], index),
                    horizontal=_gradient_ratio([s.horizontal for s in measured], index),
                )
                for index, band in enumerate(ours.bands)
            ),
        )


def check_crossed(lines: Lines, scene: Scene) -> None:
    """Refuse lines of which none crosses a raster.

    Raises:
        SettingError: the raster is no larger than one window.
    """
    rows, cols = scene.grid.shape
    if not lines.on(rows).size and not lines.on(cols).size:
        raise SettingError(
            f"{scene.path} has {cols} x {rows} px, so no line every {lines.size} px crosses it "
            f"(the first would be at {lines.offset or lines.size}). Give the size of the windows "
            f"it was made of, below {max(rows, cols)} px."
        )


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
    """How a figure on the lines stands out from its surroundings, against other offsets' figures.

    Each line of pixels belongs to the window line that is nearest to it, so that all offsets
    are measured in the same parts of the raster.

    Args:
        total: (length,) sum of the figure over the pixels of each line of pixels.
        count: (length,) how many there are.
        lines: where windows meet.
    """
    mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    outstanding = mean - _surroundings(total, count, lines.reach)
    position = np.arange(len(total))
    half = lines.size // 2
    offset = (position - lines.offset + half) % lines.size - half
    used = np.isin(position - offset, lines.on(len(total))) & np.isfinite(outstanding)
    weight = np.bincount(offset[used] + half, count[used], lines.size)
    weighted = np.bincount(offset[used] + half, (count * outstanding)[used], lines.size)
    if not weight[half]:
        return None
    by_offset = np.divide(weighted, weight, out=np.full(lines.size, np.nan), where=weight > 0)
    away = np.abs(np.arange(lines.size) - half) >= lines.reach
    others = by_offset[away & (weight > 0)]
    on_line = used & (offset == 0)
    on_lines = float(total[on_line].sum() / count[on_line].sum())
    if others.size < 2:
        return None
    excess = float(by_offset[half] - others.mean())
    spread = max(float(others.std()), ROUNDING * abs(on_lines))
    score = excess / spread if spread else 0.0
    return Contrast(
        on_lines=on_lines,
        elsewhere=on_lines - excess,
        score=score,
        chance=_chance_of(score, others.size),
    )


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
    if periods < 2:
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
    power = np.abs(np.fft.rfft(level)) ** 2
    ratios = []
    for bin_ in range(periods, len(power), periods)[:HARMONICS]:
        near = np.arange(max(bin_ - NEIGHBOURS, 1), min(bin_ + NEIGHBOURS + 1, len(power)))
        ratios.append(_ratio(power[bin_], power[near[near % periods > 0]].mean(), of_nothing=1.0))
    return float(np.mean(ratios))


def _inner_statistics(
    strip: Strip, pixels: Values, valid: NDArray[np.bool_]
) -> tuple[BandStatistics, ...]:
    return band_statistics(pixels[:, strip.inner], valid[strip.inner])


def _gradient_ratio(pair: Sequence[LineSums], band: int) -> float | None:
    """Gradients on the lines of the first over those of the second, which have the same pixels."""
    if not pair:
        return None
    on = pair[0].lines.on(len(pair[0].pairs))
    if not pair[0].pairs[on].sum():
        return None
    ours, theirs = (float(sums.gradient[band, on].sum()) for sums in pair)
    return _ratio(ours, theirs, of_nothing=1.0)


def _ratio(part: float, whole: float, *, of_nothing: float) -> float:
    """A quotient; of two zeros, what it is by agreement."""
    if whole:
        return float(part / whole)
    return math.inf if part else of_nothing


def _check_comparable(ours: Scene, theirs: Scene) -> None:
    """Refuse rasters whose pixels do not stand for the same places and things."""
    if ours.grid != theirs.grid:
        raise GridError(
            f"{ours.path} and {theirs.path} lie on different grids: {_spell(ours)} against "
            f"{_spell(theirs)}. Their pixels cannot be subtracted. Predict both on one grid, or "
            "warp one onto the other's, for example with `gdalwarp -te ... -tr ...`."
        )
    if len(ours.bands) != len(theirs.bands):
        raise BandError(
            f"{ours.path} has {len(ours.bands)} bands and {theirs.path} {len(theirs.bands)}, so "
            "nobody knows which to compare. Give rasters with the same bands, for example cut "
            "out with `gdal_translate -b`."
        )
    for one, two in zip(ours.bands, theirs.bands, strict=True):
        if one.unit and two.unit and one.unit != two.unit:
            raise BandError(
                f"{one.name} of {ours.path} is in {one.unit} and {two.name} of {theirs.path} in "
                f"{two.unit}, so their difference means nothing. Bring both to one unit."
            )


def _spell(scene: Scene) -> str:
    left, _, _, top = scene.grid.bounds
    x, y = scene.grid.resolution
    rows, cols = scene.grid.shape
    corner = f"{left:.10g}, {top:.10g}"
    return f"{cols} x {rows} px of {x:.6g} x {y:.6g} from ({corner}) in {scene.grid.crs}"

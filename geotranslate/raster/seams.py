"""Figures of what is visible where the windows of a prediction meet.

They need nothing but the raster and the distance of the lines, so they serve rasters of any
tool. docs/evaluate.md defines each figure and says what it does not see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotranslate.errors import BandError, GridError, SettingError
from geotranslate.raster.domain import Band, to_physical
from geotranslate.raster.line_figures import LineFigures, line_figures, ratio
from geotranslate.raster.line_sums import Lines, LineSums, RasterSums, Slab, Values, slabs
from geotranslate.raster.scene import Scene, open_scene
from geotranslate.raster.statistics import BandStatistics, band_statistics, merge_statistics

VISIBLE_CHANCE = 0.005
"""Lines are called visible where lines that mean nothing would stand out as much, in any band and
direction, in at most this share of rasters."""


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
        return self.chance <= VISIBLE_CHANCE

    @property
    def chance(self) -> float:
        """Share of rasters, at most, in which lines that mean nothing would stand out as much."""
        lowest = min(figures.chance for band in self.bands for _, figures in band.directions())
        return min(1.0, lowest * self._looked_at)

    @property
    def _looked_at(self) -> int:
        return 2 * sum(len(list(band.directions())) for band in self.bands)

    def shows(self, figures: LineFigures) -> bool:
        """Whether lines of one band and direction stand out beyond chance, of so many looked at.

        The chance of each figure times their number (Bonferroni) bounds that of any of them. On
        rasters of only a few windows the chances themselves are somewhat too low.
        """
        return figures.chance * self._looked_at <= VISIBLE_CHANCE

    @property
    def score(self) -> float:
        """The highest of any band, direction and figure."""
        return max(
            max(figures.gradient.score, figures.step.score)
            for band in self.bands
            for _, figures in band.directions()
        )

    @property
    def verdict(self) -> str:
        """What is visible, in a sentence without its full stop."""
        shown = self._bands_where(self.shows)
        repeated = self._bands_where(lambda figures: figures.periodic)
        lines = f"the lines of {self.lines.size} px"
        row, col = self.lines.between_rows.offset, self.lines.offset
        if row != col:
            lines += f" from row {row} and column {col}"
        elif col:
            lines += f" from {col}"
        if shown:
            return f"visible on {lines} in {_listed(shown)}"
        if repeated:
            return (
                f"invisible on {lines}, but gradients repeat as often in {_listed(repeated)}: "
                "windows were blended, or meet at another offset, or the landscape itself repeats "
                "so"
            )
        return f"invisible on {lines}"

    def _bands_where(self, holds: Callable[[LineFigures], bool]) -> list[str]:
        """Names of the bands of which it holds in any direction."""
        return [
            band.band.name
            for band in self.bands
            if any(holds(figures) for _, figures in band.directions())
        ]

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values; one without a finite value is None."""
        return {
            "size": self.lines.size,
            "offset": self.lines.offset,
            "row_offset": self.lines.between_rows.offset,
            "visible": self.visible,
            "verdict": self.verdict,
            "bands": [
                {
                    "name": band.band.name,
                    "unit": band.band.unit,
                    "std": finite(band.std),
                    **{
                        name: {
                            "gradient": {k: finite(v) for k, v in asdict(figures.gradient).items()},
                            "step": {k: finite(v) for k, v in asdict(figures.step).items()},
                            "peak": finite(figures.peak),
                        }
                        for name, figures in band.directions()
                    },
                }
                for band in self.bands
            ],
        }


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
    found = look_for_seams(path, Lines(size, offset))
    if found is None:
        raise GridError(
            f"{path} holds no data on both sides of any line every {size} px, or too near to its "
            "rim, so there is nothing to measure. Check its nodata value with `geotranslate "
            "info`, or choose another size or offset."
        )
    return found


def look_for_seams(path: str | Path, lines: Lines) -> SeamFigures | None:
    """Measure what is visible on lines; None where too little data lies at them to tell.

    Raises:
        RasterError: the file cannot be read.
        SettingError: none of the lines crosses the raster.
    """
    with open_scene(path, placed=False) as scene:
        check_crossed(lines, scene)
        sums = RasterSums(lines, len(scene.bands), scene.grid.shape)
        statistics: tuple[BandStatistics, ...] = ()
        for slab in slabs(scene.grid):
            chip = scene.read(slab.window)
            pixels = to_physical(chip.pixels, scene.bands)
            sums.add(slab, pixels, chip.valid)
            statistics = merge_statistics([statistics, _inner_statistics(slab, pixels, chip.valid)])
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
    measured = any(list(band.directions()) for band in bands)
    return SeamFigures(str(path), lines, bands) if measured else None


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
        return ratio(self.mean, self.std, of_nothing=0.0)

    @property
    def largest_share(self) -> float:
        """Largest absolute difference in the same parts."""
        return ratio(self.largest, self.std, of_nothing=0.0)


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

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values; one without a finite value is None."""
        return {
            "other": self.other,
            "pixels": self.pixels,
            "share": finite(self.share),
            "bands": [
                {
                    "name": band.band.name,
                    "unit": band.band.unit,
                    "mean": finite(band.mean),
                    "largest": finite(band.largest),
                    "std": finite(band.std),
                    "share": finite(band.share),
                    "gradient_ratio": {
                        "vertical": finite(band.vertical),
                        "horizontal": finite(band.horizontal),
                    },
                }
                for band in self.bands
            ],
        }


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
        check_comparable(ours, theirs)
        if lines is not None:
            check_crossed(lines, ours)
        differences = _Differences(lines, len(ours.bands), ours.grid.shape)
        for slab in slabs(ours.grid):
            one, two = (scene.read(slab.window) for scene in (ours, theirs))
            differences.add(
                slab,
                to_physical(one.pixels, ours.bands),
                to_physical(two.pixels, theirs.bands),
                one.valid & two.valid,
            )
        if not differences.pixels:
            raise GridError(
                f"no pixel holds data in both {path} and {other}, so there is nothing to compare. "
                "Check their nodata values, for example with `geotranslate info`."
            )
        bands = tuple(differences.of_band(index, band) for index, band in enumerate(ours.bands))
        return Mismatch(ours.path, theirs.path, lines, differences.pixels, bands)


class _Differences:
    """Sums over two rasters of one grid, slab by slab, and what they come to.

    Attributes:
        pixels: how many were valid in both.
    """

    def __init__(self, lines: Lines | None, bands: int, shape: tuple[int, int]) -> None:
        self.pixels = 0
        self._total, self._largest = np.zeros(bands), np.zeros(bands)
        self._others: tuple[BandStatistics, ...] = ()
        self._sums = [RasterSums(lines, bands, shape) for _ in range(2)] if lines else []

    def add(self, slab: Slab, ours: Values, theirs: Values, valid: NDArray[np.bool_]) -> None:
        """Add the next slab of both: pixels (bands, rows, cols), valid in both (rows, cols)."""
        for sums, pixels in zip(self._sums, (ours, theirs), strict=False):
            sums.add(slab, pixels, valid)
        inner = valid[slab.inner]
        distances = np.abs(ours[:, slab.inner][:, inner] - theirs[:, slab.inner][:, inner])
        self._total += distances.sum(axis=1)
        self._largest = np.maximum(self._largest, distances.max(axis=1, initial=0))
        self.pixels += int(inner.sum())
        self._others = merge_statistics([self._others, _inner_statistics(slab, theirs, valid)])

    def of_band(self, index: int, band: Band) -> BandMismatch:
        """How one band differs; takes a pixel that is valid in both."""
        return BandMismatch(
            band=band,
            mean=float(self._total[index] / self.pixels),
            largest=float(self._largest[index]),
            std=self._others[index].std,
            vertical=_gradient_ratio([sums.vertical for sums in self._sums], index),
            horizontal=_gradient_ratio([sums.horizontal for sums in self._sums], index),
        )


def check_crossed(lines: Lines, scene: Scene) -> None:
    """Refuse lines of which none crosses a raster.

    Raises:
        SettingError: the raster is no larger than one window.
    """
    rows, cols = scene.grid.shape
    if not lines.between_rows.on(rows).size and not lines.between_cols.on(cols).size:
        raise SettingError(
            f"{scene.path} has {cols} x {rows} px, so no line every {lines.size} px crosses it "
            f"(the first would be at {lines.offset or lines.size}). Give the size of the windows "
            f"it was made of, below {max(rows, cols)} px."
        )


def _inner_statistics(
    slab: Slab, pixels: Values, valid: NDArray[np.bool_]
) -> tuple[BandStatistics, ...]:
    return band_statistics(pixels[:, slab.inner], valid[slab.inner])


def _gradient_ratio(pair: Sequence[LineSums], band: int) -> float | None:
    """Gradients on the lines of the first over those of the second, which have the same pixels."""
    if not pair:
        return None
    on = pair[0].lines.on(len(pair[0].pairs))
    if not pair[0].pairs[on].sum():
        return None
    ours, theirs = (float(sums.gradient[band, on].sum()) for sums in pair)
    return ratio(ours, theirs, of_nothing=1.0)


def finite(value: float | None) -> float | None:
    """A number as JSON holds it."""
    return value if value is not None and math.isfinite(value) else None


def _listed(names: Sequence[str]) -> str:
    """Names as in "band red" or "bands red, green and blue"; bands without one are "band 1"."""
    *first, last = [name.removeprefix("band ") for name in names]
    return f"bands {', '.join(first)} and {last}" if first else f"band {last}"


def check_comparable(ours: Scene, theirs: Scene) -> None:
    """Refuse rasters whose pixels do not stand for the same places and things.

    Raises:
        GridError: they lie on different grids.
        BandError: they differ in their number of bands or in a unit.
    """
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

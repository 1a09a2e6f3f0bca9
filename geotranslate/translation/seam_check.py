"""Whether a finished prediction shows where its windows met: what `predict --check-seams` says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from rasterio.windows import Window

from geotranslate.raster.domain import Domain
from geotranslate.raster.grid import Grid
from geotranslate.raster.scene import open_scene
from geotranslate.raster.seams import measure_mismatch, measure_seams
from geotranslate.raster.vrt import Source, build_vrt
from geotranslate.translation.engine import Engine
from geotranslate.translation.pipeline import translate_rows
from geotranslate.translation.scene_plan import ScenePlan

MOST_PLACES = 16
"""Crossings of lines that are looked at for one where enough is valid."""

ENOUGH = 0.5
"""Share of a sample's pixels that has to be valid, if there is such a place."""


@dataclass(frozen=True)
class SeamCheck:
    """How much of a prediction depends on how the scene was cut.

    Attributes:
        mismatch: mean absolute difference from a prediction whose cores start half a core
            earlier, in parts of the standard deviation; mean over the bands.
        largest: largest difference of a pixel, in the same parts.
        score: the highest of any band and direction: gradient, or jump of the level, on the
            lines less that elsewhere, in standard deviations of other offsets.
        visible: whether the lines stand out beyond chance.
        pixels: valid ones that were translated again.
    """

    mismatch: float
    largest: float
    score: float
    visible: bool
    pixels: int


def check_sample(
    plan: ScenePlan, output: Path, engine: Engine, folder: Path, batch: int
) -> SeamCheck | None:
    """Translate a sample again with other cores, and compare; None where no two cores meet.

    The sample is a core wide and high, lies where cores meet, and most of it is valid if such a
    place is soon found. The seam score is that of the whole output.

    Args:
        plan: of a scene that is translated.
        output: its translation.
        engine: that made it.
        folder: for small files.
        batch: windows translated at once.
    """
    sample = _choose_sample(plan, output)
    if sample is None:
        return None
    views = _Views(plan, output, engine.target, folder)
    mismatch = measure_mismatch(
        views.of_output("sample.vrt", sample),
        _translate_shifted(plan, sample, engine, folder, batch),
    )
    # The lines lie on multiples of the step in the scene: a view that starts on one has them
    # at one distance along both axes.
    step, part = plan.lattice.step, plan.part
    row, col = (-(-int(start) // step) * step for start in (part.row_off, part.col_off))
    seams = measure_seams(
        views.of_output(
            "lines.vrt",
            Window(
                col_off=col,
                row_off=row,
                width=part.col_off + part.width - col,
                height=part.row_off + part.height - row,
            ),
        ),
        step,
    )
    figures = [figures for band in seams.bands for _, figures in band.directions()]
    return SeamCheck(
        mismatch=mismatch.share,
        largest=max(band.largest / band.std if band.std else 0.0 for band in mismatch.bands),
        score=max(max(each.gradient.score, each.step.score) for each in figures),
        visible=seams.visible,
        pixels=mismatch.pixels,
    )


@dataclass(frozen=True)
class _Views:
    """Virtual rasters that show a window of a finished output."""

    plan: ScenePlan
    output: Path
    target: Domain
    folder: Path

    def of_output(self, name: str, window: Window) -> Path:
        """The raster that shows a window of the scene, which must lie in the part translated."""
        part, path = self.plan.part, self.folder / name
        whole = Window(
            col_off=part.col_off - window.col_off,
            row_off=part.row_off - window.row_off,
            width=part.width,
            height=part.height,
        )
        grid = self.plan.scene_grid.window_grid(window)
        _write_view(path, [Source(self.output, whole)], grid, self.target)
        return path


def _write_view(path: Path, sources: Sequence[Source], grid: Grid, target: Domain) -> None:
    text = build_vrt(sources, grid, bands=target.bands, dtype=target.dtype, nodata=target.nodata)
    path.write_text(text, encoding="utf-8")


def _translate_shifted(
    plan: ScenePlan, sample: Window, engine: Engine, folder: Path, batch: int
) -> Path:
    """The sample, translated in cores that start half a core before those of the plan."""
    lattice = plan.lattice
    half = max(lattice.size // 2 // lattice.stride, 1) * lattice.stride
    shifted = replace(plan, part=sample, lattice=replace(lattice, shift=half))
    rows = dict(enumerate(shifted.rows()))
    files = {number: shifted.row_file(row, folder) for number, row in rows.items()}
    found = {number: file for number, file in files.items() if file is not None}
    for _ in translate_rows(shifted, engine, rows, found, batch):
        pass
    path = folder / "shifted.vrt"
    _write_view(path, list(found.values()), shifted.grid, engine.target)
    return path


def _choose_sample(plan: ScenePlan, output: Path) -> Window | None:
    """The window around a place where cores meet, near the middle, in which most is valid."""
    best, best_share = None, 0.0
    with open_scene(output) as translated:
        for place in islice(_places(plan), MOST_PLACES):
            inside = Window(
                col_off=place.col_off - plan.part.col_off,
                row_off=place.row_off - plan.part.row_off,
                width=place.width,
                height=place.height,
            )
            share = float(translated.read(inside).valid.mean())
            if share > best_share:
                best, best_share = place, share
            if share > ENOUGH:
                break
    return best


def _places(plan: ScenePlan) -> list[Window]:
    """Windows as large as a core around places where cores meet, those in the middle first."""
    part = plan.part
    rows = _lines(int(part.row_off), int(part.height), plan.lattice.step)
    cols = _lines(int(part.col_off), int(part.width), plan.lattice.step)
    if not rows and not cols:
        return []
    middle = part.row_off + part.height / 2, part.col_off + part.width / 2
    crossings = [(row, col) for row in rows or [middle[0]] for col in cols or [middle[1]]]
    crossings.sort(key=lambda place: math.dist(place, middle))
    half = plan.lattice.size // 2
    return [
        Window(
            col_off=int(col) - half, row_off=int(row) - half, width=2 * half, height=2 * half
        ).intersection(part)
        for row, col in crossings
    ]


def _lines(start: int, length: int, step: int) -> list[int]:
    """Where cores meet along an axis of the part."""
    return list(range((start // step + 1) * step, start + length, step))

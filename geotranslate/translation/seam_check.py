"""Whether a finished prediction shows where its windows met: what `predict --check-seams` says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rasterio.windows import Window

from geotranslate.raster.cores import Lattice
from geotranslate.raster.domain import Domain
from geotranslate.raster.grid import Grid
from geotranslate.raster.line_sums import Lines
from geotranslate.raster.scene import open_scene
from geotranslate.raster.seams import finite, look_for_seams, measure_mismatch
from geotranslate.raster.vrt import Source, build_vrt
from geotranslate.translation.engine import Engine
from geotranslate.translation.pipeline import translate_rows
from geotranslate.translation.scene_plan import ScenePlan

MOST_PLACES = 16
"""Crossings of lines that are looked at for one where enough is valid."""

ROUNDING = 1e-4
"""Parts of a standard deviation up to which pixels may change without depending on the cut."""

ENOUGH = 0.5
"""Share of a sample's pixels that has to be valid, if there is such a place."""


@dataclass(frozen=True)
class SeamCheck:
    """How much of a prediction depends on how the scene was cut.

    Attributes:
        mismatch: mean absolute difference from a prediction cut at other places, in parts of the
            standard deviation; mean over the bands. None where no valid pixel was found at the
            places looked at.
        largest: largest difference of a pixel, in the same parts; None likewise.
        score: the highest of any band and direction: gradient, or jump of the level, on the
            lines less that elsewhere, in standard deviations of other offsets. None where too
            little data lies at the lines to tell.
        chance: share of rasters, at most, in which lines that mean nothing score as high in any
            band and direction; None likewise.
        visible: whether the lines stand out beyond chance.
        pixels: valid ones that were translated again.
    """

    mismatch: float | None
    largest: float | None
    score: float | None
    chance: float | None
    visible: bool
    pixels: int

    @property
    def depends_on_cut(self) -> bool:
        """Whether pixels change by more than rounding when they are cut in other windows."""
        return self.mismatch is not None and self.mismatch > ROUNDING

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values; one without a finite value is None."""
        names = "mismatch", "largest", "score", "chance"
        figures = {name: finite(getattr(self, name)) for name in names}
        return figures | {"visible": self.visible, "pixels": self.pixels}


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
    places = _places(plan)
    if not places:
        return None
    mismatch = None
    sample = _choose_sample(plan, output, places)
    if sample is not None:
        mismatch = measure_mismatch(
            _view_output(plan, output, engine.target, sample, folder / "sample.vrt"),
            _translate_otherwise(plan, sample, engine, folder, batch),
        )
    step, part = plan.lattice.step, plan.part
    lines = Lines(step, offset=int(-part.col_off % step), row_offset=int(-part.row_off % step))
    seams = look_for_seams(output, lines)
    return SeamCheck(
        mismatch=mismatch.share if mismatch else None,
        largest=max(band.largest_share for band in mismatch.bands) if mismatch else None,
        score=seams.score if seams else None,
        chance=seams.chance if seams else None,
        visible=seams is not None and seams.visible,
        pixels=mismatch.pixels if mismatch else 0,
    )


def _view_output(plan: ScenePlan, output: Path, target: Domain, window: Window, path: Path) -> Path:
    """A virtual raster of a window of the scene, which must lie in the part translated."""
    part = plan.part
    whole = Window(
        col_off=part.col_off - window.col_off,
        row_off=part.row_off - window.row_off,
        width=part.width,
        height=part.height,
    )
    _write_view(path, [Source(output, whole)], plan.scene_grid.window_grid(window), target)
    return path


def _write_view(path: Path, sources: Sequence[Source], grid: Grid, target: Domain) -> None:
    text = build_vrt(sources, grid, bands=target.bands, dtype=target.dtype, nodata=target.nodata)
    path.write_text(text, encoding="utf-8")


def _translate_otherwise(
    plan: ScenePlan, sample: Window, engine: Engine, folder: Path, batch: int
) -> Path:
    """The sample, translated in cores that lie elsewhere than those of the plan."""
    shifted = replace(plan, part=sample, lattice=_other_lattice(plan.lattice))
    rows = dict(enumerate(shifted.rows()))
    files = {number: shifted.row_file(row, folder) for number, row in rows.items()}
    found = {number: file for number, file in files.items() if file is not None}
    for _ in translate_rows(shifted, engine, rows, found, batch):
        pass
    path = folder / "shifted.vrt"
    _write_view(path, list(found.values()), shifted.grid, engine.target)
    return path


def _other_lattice(lattice: Lattice) -> Lattice:
    """Cores that start half a step earlier; larger ones too, where half a step is no start."""
    if lattice.step == lattice.stride:
        lattice = replace(
            lattice,
            size=lattice.size + lattice.stride,
            step=lattice.step + lattice.stride,
        )
    half = lattice.step // 2 // lattice.stride * lattice.stride
    return replace(lattice, shift=half)


def _choose_sample(plan: ScenePlan, output: Path, places: Sequence[Window]) -> Window | None:
    """The first place that is valid enough, or of those looked at the one that is most so."""
    best, best_share = None, 0.0
    with open_scene(output) as translated:
        for place in places[:MOST_PLACES]:
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

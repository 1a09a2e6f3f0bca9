"""The report on a run: one HTML file that needs no network and no script.

It carries its pictures in itself, so it can be mailed, printed and kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geotranslate import __version__
from geotranslate.chips.index import CHIPS_NAME, read_tile_record
from geotranslate.errors import ChipsError
from geotranslate.raster.output import write_text
from geotranslate.report import quantities
from geotranslate.report.curves import Curve, draw_curve
from geotranslate.report.places import PlaceMaps, map_chips
from geotranslate.report.run import RunRecord, read_run
from geotranslate.report.templates import fill
from geotranslate.translation.config import DECIDED, TrainConfig
from geotranslate.translation.run_record import REPORT_NAME


@dataclass(frozen=True)
class Drawing:
    """A curve with its words.

    Attributes:
        title: of the quantity.
        unit: "" for a plain number.
        best: which way is better; "" for a loss.
        meaning: what it is; "" where that is not known.
        latest: its last value.
        curve: the drawing.
    """

    title: str
    unit: str
    best: str
    meaning: str
    latest: str
    curve: Curve


def write_report(run: Path, path: Path | None = None) -> Path:
    """Write the report on a run, finished or not.

    Args:
        run: the folder that `geotranslate train` wrote, or is writing.
        path: of the HTML file; unset, ``report.html`` in the run folder.

    Returns:
        The path of the file.

    Raises:
        SettingError: the folder is none of a run.
        OutputError: the file cannot be written.
    """
    path = path or run / REPORT_NAME
    write_text(path, render(read_run(run)))
    return path


def render(run: RunRecord) -> str:
    """The page about a run, as HTML."""
    losses, figures = _draw_columns(run)
    return fill(
        "page.html.jinja",
        run=run,
        version=__version__,
        losses=losses,
        figures=figures,
        rate=_draw_rate(run),
        seconds=run.rows[-1]["seconds"] if run.rows else None,
        chips=_describe_chips(run.chips),
        changed=_changed(run.settings),
        headline=_headline(run),
    )


def _headline(run: RunRecord) -> list[tuple[str, float, str]]:
    """Title, value and unit of each figure of the best generators."""
    lines = []
    for name in quantities.in_reading_order(run.figures):
        figure = quantities.figure_of(name)
        title, unit = (figure.title, figure.unit) if figure else (name.replace("_", " "), "")
        lines.append((title, run.figures[name], unit))
    return lines


def _draw_columns(run: RunRecord) -> tuple[list[Drawing], list[Drawing]]:
    """The curves of the losses, and those of the figures, the decisive one first."""
    drawn = {name: _draw(run, name) for name in quantities.in_reading_order(run.columns)}
    losses = [drawing for name, drawing in drawn.items() if drawing and quantities.is_loss(name)]
    figures = [
        drawing for name, drawing in drawn.items() if drawing and not quantities.is_loss(name)
    ]
    return losses, figures


def _draw(run: RunRecord, name: str) -> Drawing | None:
    points = [
        (row["update"], row[name]) for row in run.rows if math.isfinite(row.get(name, math.nan))
    ]
    figure = quantities.figure_of(name)
    if not points:
        return None
    updates, values = zip(*points, strict=True)
    marks = [run.best] if figure and run.best else [each.update for each in run.warnings]
    curve = draw_curve(updates, values, x_range=_x_range(run), marks=marks)
    assert curve is not None
    return Drawing(
        title=figure.title if figure else name.replace("_", " "),
        unit=figure.unit if figure else "",
        best=figure.best if figure else "",
        meaning=figure.meaning if figure else quantities.LOSSES.get(name, ""),
        latest=f"{values[-1]:.3g}",
        curve=curve,
    )


def _x_range(run: RunRecord) -> tuple[float, float]:
    """All curves have one axis, so that they can be read one below the other."""
    return 0.0, max(run.updates, 1)


def _draw_rate(run: RunRecord) -> Curve | None:
    """Updates a second, each over as many updates as lie between two checkpoints."""
    if not run.rows:
        return None
    rows = [(0.0, 0.0), *((row["update"], row["seconds"]) for row in run.rows)]
    updates, seconds = np.array(rows).T
    stretch = run.settings.get("checkpoint_every", 1)
    ends = np.flatnonzero(updates >= min(stretch, updates[-1]))
    starts = np.searchsorted(updates, updates[ends] - stretch, side="right").clip(1) - 1
    with np.errstate(divide="ignore", invalid="ignore"):  # within the clock's smallest step
        rates = (updates[ends] - updates[starts]) / (seconds[ends] - seconds[starts])
    return draw_curve(updates[ends], rates, x_range=_x_range(run), from_zero=True)


@dataclass(frozen=True)
class Chips:
    """The data of a run, as far as its folder still tells.

    Attributes:
        missing: why there is no map, as a sentence; "" where there is one.
        domains: a title, the bands, and the maps of each domain that is drawn.
    """

    missing: str
    domains: list[tuple[str, str, PlaceMaps]]


def _describe_chips(folder: Path) -> Chips:
    if not folder.is_dir():
        return Chips(f"The chips were in {folder}, which is gone: there is no map of them.", [])
    if not (folder / CHIPS_NAME).exists():
        return Chips(
            f"{folder} has no {CHIPS_NAME}, the index that `geotranslate tile` writes: there is no "
            "map of its chips.",
            [],
        )
    try:
        record = read_tile_record(folder)
        bands = {
            "a": ", ".join(band.name for band in record.domain_a.bands),
            "b": ", ".join(band.name for band in record.domain_b.bands),
        }
        if record.paired:
            both = f"{bands['a']} to {bands['b']}"
            return Chips("", [("Pairs of A and B", both, map_chips(folder, "a"))])
        return Chips("", [(f"Chips of {d.upper()}", bands[d], map_chips(folder, d)) for d in "ab"])
    except ChipsError as error:
        return Chips(f"There is no map of the chips: {error}", [])


def _changed(settings: Mapping[str, Any]) -> set[str]:
    """Settings whose value is not the one they have when nobody names it.

    Those that the chips, the device or other settings decide then are not among them.
    """
    fixed = {
        name
        for name, field in TrainConfig.model_fields.items()
        if name not in DECIDED and field.default_factory is None
    }
    plain = TrainConfig.model_construct().model_dump(mode="json")
    return {name for name in settings.keys() & fixed if settings[name] != plain[name]}

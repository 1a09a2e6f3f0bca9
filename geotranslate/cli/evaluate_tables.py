"""The tables of ``geotranslate evaluate``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from geotranslate.raster.domain import Band
    from geotranslate.raster.line_figures import Contrast
    from geotranslate.raster.seams import Mismatch, SeamFigures
    from geotranslate.translation.accuracy import AccuracyPlan
    from geotranslate.translation.evaluate import ImageReport, Report

IMAGE_FIGURES = ("psnr", "psnr8", "ssim", "color_bias", "contrast", "sharpness", "corr8")
"""Figures of the table that has a row for each image; the JSON holds all of them."""

PIPE_WIDTH = 120

ROUNDING = 1e-9


def show_report(report: Report) -> None:
    """Print a report as tables: what the truth says, what another prediction, what the lines."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    for table in _tables(report):
        console.print(table)
    for sentence in _sentences(report):
        console.print(f"* {sentence}", highlight=False, markup=False)


def _tables(report: Report) -> Iterator[Table]:
    single = len(report.images) == 1
    if report.plan.accuracy:
        yield _band_table(report, report.plan.accuracy)
        yield _figure_table(report)
        if not single:
            yield _image_table(report)
    for image in report.images:
        over = "" if single else f" of {image.files.name}"
        if image.mismatch:
            yield _mismatch_table(image.mismatch, over)
        if image.seams:
            yield _seam_table(image.seams, over)


def _sentences(report: Report) -> Iterator[str]:
    accuracy = [image.accuracy for image in report.images if image.accuracy]
    plan = report.plan.accuracy
    if plan:
        yield from sorted({each.truth_grid for each in accuracy})
        yield f"full range: {plan.range_origin}"
        yield f"baselines: {plan.fit_origin}"
        yield f"pixels measured: {sum(each.pixels for each in accuracy):,}"
    for image in report.images:
        yield from _verdicts(image, "" if len(report.images) == 1 else f"{image.files.name}: ")


def _verdicts(image: ImageReport, before: str) -> Iterator[str]:
    """What seams and mismatch come to, for one image."""
    if image.mismatch:
        yield (
            f"{before}differs from {image.mismatch.other} by {_spell(image.mismatch.share)} of the "
            f"standard deviation, over {image.mismatch.pixels:,} pixels"
        )
    if image.seams:
        yield f"{before}seams: {image.seams.verdict}"


def _mismatch_table(mismatch: Mismatch, over: str) -> Table:
    """How each band differs from the other raster."""
    from rich.table import Table

    bands = [each.band for each in mismatch.bands]
    title = f"Against the other raster{_in_unit(bands)}{over}"
    table = Table(title=_plain(title), title_justify="left")
    table.add_column("band", overflow="fold")
    columns = ["mean difference", "largest", "mean in stds"]
    if mismatch.lines:
        columns += ["gradient ratio, vertical", "horizontal"]
    for column in columns:
        table.add_column(column, justify="right")
    for band in mismatch.bands:
        values = [band.mean, band.largest, band.share]
        if mismatch.lines:
            values += [_number(band.vertical), _number(band.horizontal)]
        table.add_row(_named(band.band, bands), *map(_spell, values))
    return table


def _seam_table(seams: SeamFigures, over: str) -> Table:
    """What each band shows on the lines of each direction."""
    from rich.table import Table

    bands = [each.band for each in seams.bands]
    title = f"On the lines of {seams.lines.size} px{_in_unit(bands)}{over}"
    table = Table(title=_plain(title), title_justify="left")
    table.add_column("band", overflow="fold")
    table.add_column("lines")
    for column in (
        "gradient",
        "elsewhere",
        "score",
        "step",
        "elsewhere",
        "score",
        "in stds",
        "peak",
    ):
        table.add_column(column, justify="right")
    table.add_column("seams")
    for band in seams.bands:
        for name, figures in band.directions():
            in_stds = figures.step.excess / band.std if band.std else 0.0
            table.add_row(
                _named(band.band, bands),
                name,
                *_contrast(figures.gradient),
                *_contrast(figures.step),
                f"{in_stds:.4f}",
                f"{figures.peak:.1f}" if math.isfinite(figures.peak) else "-",
                "visible"
                if seams.shows(figures)
                else "periodic"
                if figures.periodic
                else "invisible",
            )
    return table


def _contrast(contrast: Contrast) -> tuple[str, str, str]:
    return _spell(contrast.on_lines), _spell(contrast.elsewhere), f"{contrast.score:.1f}"


def _in_unit(bands: Sequence[Band]) -> str:
    """The unit of all bands, for a table's title; nothing where they have none or several."""
    units = {band.unit for band in bands}
    return f", in {bands[0].unit}" if len(units) == 1 and bands[0].unit else ""


def _named(band: Band, bands: Sequence[Band]) -> str:
    """A band's name in a table, with its unit unless the title says it."""
    unit = "" if _in_unit(bands) else band.unit
    return _plain(f"{band.name} [{unit}]" if unit else band.name)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _band_table(report: Report, plan: AccuracyPlan) -> Table:
    """MAE, RMSE and bias of each band, and the baselines' RMSE beside them."""
    from rich.table import Table

    from geotranslate.translation.accuracy import CANDIDATES
    from geotranslate.translation.metrics import FIGURES

    summary = report.summary()
    columns = [("prediction", name) for name in ("mae", "rmse", "bias")]
    columns += [(name, "rmse") for name in summary if name != "prediction"]
    title = f"By band{_in_unit(plan.bands) or ', in its unit'}{_over(report)}"
    table = Table(title=_plain(title), title_justify="left")
    table.add_column("band", overflow="fold")
    table.add_column("full range")
    for candidate, name in columns:
        beside = "" if candidate == "prediction" else f" of {CANDIDATES[candidate]}"
        table.add_column(FIGURES[name].title + beside, justify="right")
    limits = zip(plan.value_range.low, plan.value_range.high, strict=True)
    for index, (band, (low, high)) in enumerate(zip(plan.bands, limits, strict=True)):
        values = (getattr(summary[candidate], name)[index] for candidate, name in columns)
        name = _named(band, plan.bands)
        table.add_row(name, f"{low:.5g} to {high:.5g}", *map(_spell, values))
    return table


def _figure_table(report: Report) -> Table:
    """The figures of all bands together, prediction and baselines side by side."""
    from rich.table import Table

    from geotranslate.translation.accuracy import CANDIDATES
    from geotranslate.translation.metrics import FIGURES

    summary = report.summary()
    table = Table(title="All bands" + _over(report), title_justify="left")
    table.add_column("figure")
    table.add_column("best")
    for candidate in summary:
        table.add_column(CANDIDATES[candidate], justify="right")
    for name, figure in FIGURES.items():
        if figure.unit != "band":
            unit = f", {figure.unit}" if figure.unit else ""
            values = (getattr(figures, name) for figures in summary.values())
            table.add_row(figure.title + unit, figure.best, *map(_spell, values))
    return table


def _image_table(report: Report) -> Table:
    """The prediction's main figures, image by image."""
    import numpy as np
    from rich.table import Table

    from geotranslate.translation.metrics import FIGURES

    table = Table(title="By image", title_justify="left")
    table.add_column("image", overflow="fold")
    for name in IMAGE_FIGURES:
        table.add_column(FIGURES[name].title, justify="right")
    rows = [
        (image.files.name, image.accuracy.candidates["prediction"])
        for image in report.images
        if image.accuracy
    ]
    means = [(how.__name__, report.summary(how)["prediction"]) for how in (np.mean, np.median)]
    for title, figures in rows:
        table.add_row(_plain(title), *(_spell(getattr(figures, name)) for name in IMAGE_FIGURES))
    table.add_section()
    for title, figures in means:
        table.add_row(title, *(_spell(getattr(figures, name)) for name in IMAGE_FIGURES))
    return table


def _over(report: Report) -> str:
    return f" (mean of {len(report.images)} images)" if len(report.images) > 1 else ""


def _plain(text: str) -> str:
    """Text of the user's, in which square brackets are no markup."""
    from rich.markup import escape

    return escape(text)


def _spell(value: float) -> str:
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞"
    return f"{value:.4g}" if abs(value) > ROUNDING else "0"

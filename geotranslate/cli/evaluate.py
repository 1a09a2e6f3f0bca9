"""``geotranslate evaluate``: how near translated images come to the true ones."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geotranslate.cli.options import config_option, json_option, overwrite_option
from geotranslate.cli.progress import counted, duration, finish, progress

if TYPE_CHECKING:
    from rich.table import Table

    from geotranslate.translation.evaluate import Report

IMAGE_FIGURES = ("psnr", "psnr8", "ssim", "color_bias", "contrast", "sharpness", "corr8")
"""Figures of the table that has a row for each image; the JSON holds all of them."""

PIPE_WIDTH = 120

ROUNDING = 1e-9


@click.command()
@click.argument("predicted")
@click.argument("truth")
@click.option(
    "--source",
    help="What PREDICTED was made from: adds the baseline of a linear regression.",
)
@click.option("--bands", help="Bands of TRUTH that PREDICTED shows, by number or name: 4,3,2.")
@click.option("--nodata", type=float, help="One more value of TRUTH for nothing here.")
@click.option(
    "--range",
    "value_range",
    type=float,
    nargs=2,
    metavar="LOW HIGH",
    help="Physical values that count as full range in PSNR and SSIM. "
    "[default: 0 to 255 for uint8, else the 0.1 and 99.9 percentiles of TRUTH]",
)
@click.option("--fit-truth", help="Fit the baselines on these images, not on TRUTH itself.")
@click.option("--fit-source", help="The source of --fit-truth.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the whole report to this JSON file.",
)
@overwrite_option
@json_option
@config_option
def evaluate(
    predicted: str,
    truth: str,
    source: str | None,
    bands: str | None,
    nodata: float | None,
    value_range: tuple[float, float] | None,
    fit_truth: str | None,
    fit_source: str | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure PREDICTED against TRUTH, over the pixels that are valid in both.

    Each is a raster, a folder or a quoted glob. A folder of predictions is matched with a folder
    of truths by file names; a single prediction takes a folder as a mosaic. The truth is
    brought onto the prediction's grid.
    """
    from contextlib import nullcontext

    from geotranslate.translation.evaluate import (
        Report,
        claim_report,
        measure_images,
        plan_evaluation,
        write_report,
    )

    start = time.monotonic()
    plan = plan_evaluation(
        predicted,
        truth,
        source=source,
        bands=bands,
        nodata=nodata,
        value_range=value_range,
        fit_truth=fit_truth,
        fit_source=fit_source,
    )
    claim = claim_report(output, plan, overwrite=overwrite) if output else nullcontext(False)
    with claim as finished:
        if finished:
            finish(
                f"{output} is there already, from the same files and words: nothing to do.",
                {"output": str(output), "finished": True},
                as_json=as_json,
            )
            return
        images = []
        with progress("Measuring", len(plan.images), quiet=as_json) as bar:
            for step in measure_images(plan):
                bar.update(step.done, step.name)
                if step.report:
                    images.append(step.report)
        report = Report(plan, tuple(images))
        if output:
            write_report(report, output)
    if not as_json:
        show_report(report)
    written = f" and wrote {output}" if output else ""
    finish(
        f"Measured {counted(len(images), 'image')}{written} in "
        f"{duration(time.monotonic() - start)}.",
        report.to_dict(),
        as_json=as_json,
    )


def show_report(report: Report) -> None:
    """Print a report as tables: by band, by figure, by image."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    console.print(_band_table(report))
    console.print(_figure_table(report))
    if len(report.images) > 1:
        console.print(_image_table(report))
    for sentence in (
        *sorted({image.truth_grid for image in report.images}),
        f"full range: {report.plan.range_origin}",
        f"baselines: {report.plan.fit_origin}",
        f"pixels measured: {sum(image.pixels for image in report.images):,}",
    ):
        console.print(f"* {sentence}", highlight=False)


def _band_table(report: Report) -> Table:
    """MAE, RMSE and bias of each band, and the baselines' RMSE beside them."""
    from rich.table import Table

    from geotranslate.translation.evaluate import CANDIDATES
    from geotranslate.translation.metrics import FIGURES

    summary = report.summary()
    columns = [("prediction", name) for name in ("mae", "rmse", "bias")]
    columns += [(name, "rmse") for name in summary if name != "prediction"]
    table = Table(title="By band, in its unit" + _over(report), title_justify="left")
    table.add_column("band", overflow="fold")
    table.add_column("full range")
    for candidate, name in columns:
        beside = "" if candidate == "prediction" else f" of {CANDIDATES[candidate]}"
        table.add_column(FIGURES[name].title + beside, justify="right")
    limits = zip(report.plan.value_range.low, report.plan.value_range.high, strict=True)
    for index, (band, (low, high)) in enumerate(zip(report.plan.bands, limits, strict=True)):
        unit = f" [{band.unit}]" if band.unit else ""
        values = (getattr(summary[candidate], name)[index] for candidate, name in columns)
        table.add_row(_plain(band.name + unit), f"{low:.5g} to {high:.5g}", *map(_spell, values))
    return table


def _figure_table(report: Report) -> Table:
    """The figures of all bands together, prediction and baselines side by side."""
    from rich.table import Table

    from geotranslate.translation.evaluate import CANDIDATES
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
    rows = [(image.files.name, image.candidates["prediction"]) for image in report.images]
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

"""``geotranslate evaluate``: how near translated images come to the true ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from geotranslate.cli.options import config_option, json_option, overwrite_option
from geotranslate.cli.progress import counted, duration, finish, progress


@click.command()
@click.argument("predicted")
@click.argument("truth", required=False)
@click.option(
    "--seams",
    metavar="SIZE[,OFFSET]",
    help="Measure what is visible on the lines between windows of SIZE pixels; OFFSET moves them.",
)
@click.option(
    "--against",
    metavar="OTHER",
    help="Measure how PREDICTED differs from another raster on the same grid.",
)
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
    truth: str | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure PREDICTED against TRUTH, or without one where its windows meet.

    Each is a raster, a folder or a quoted glob. A folder of predictions is matched with a folder
    of truths by file names; a single prediction takes a folder as a mosaic. The truth is
    brought onto the prediction's grid, and pixels count that are valid in both.
    """
    from contextlib import nullcontext

    from geotranslate.cli.evaluate_tables import show_report
    from geotranslate.translation.evaluate import (
        Report,
        claim_report,
        measure_images,
        plan_evaluation,
        read_report,
        write_report,
    )
    from geotranslate.translation.evaluate_config import EvaluateConfig

    start = time.monotonic()
    plan = plan_evaluation(EvaluateConfig(predicted=predicted, truth=truth, **settings))
    claim = claim_report(output, plan, overwrite=overwrite) if output else nullcontext(False)
    with claim as finished:
        if output and finished:
            finish(
                f"{output} is there already, from the same files and words: nothing to do.",
                read_report(output),
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

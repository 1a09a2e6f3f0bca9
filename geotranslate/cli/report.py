"""``geotranslate report``: a page about a training run."""

from __future__ import annotations

from pathlib import Path

import click

from geotranslate.cli.options import json_option
from geotranslate.cli.progress import finish


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page; unset, RUN/report.html.",
)
@json_option
def report(run: Path, output: Path | None, as_json: bool) -> None:
    """Write a page about RUN, the folder of a training: how it went, on what, with what.

    `geotranslate train` writes one at its end; this does so while a run goes on, or anew. It is one
    file that needs no network.
    """
    from geotranslate.report.page import write_report

    path = write_report(run, output)
    finish(f"{path} holds the report. Open it in a browser.", {"report": path}, as_json=as_json)

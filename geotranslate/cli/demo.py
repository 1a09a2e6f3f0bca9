"""``geotranslate demo``: the whole way on made-up data."""

from __future__ import annotations

import time
from pathlib import Path

import click

from geotranslate.cli.options import json_option, overwrite_option
from geotranslate.cli.progress import duration, finish, progress, say


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default="demo",
    show_default=True,
    help="Folder for everything the demo makes.",
)
@click.option(
    "--updates", type=click.IntRange(1), default=500, show_default=True, help="Steps of training."
)
@overwrite_option
@json_option
def demo(output: Path, updates: int, overwrite: bool, as_json: bool) -> None:
    """Translate a made-up radar scene to colour: tile, train, predict, mosaic, evaluate.

    Takes a few minutes without a GPU. Exits with 1 if the model does not beat both baselines.
    """
    from geotranslate.cli.evaluate_tables import show_report
    from geotranslate.demo import DECISIVE, Demo, run_demo

    start = time.monotonic()
    command, done = "", None
    with progress("Demo", 1.0, quiet=as_json) as bar:
        for step in run_demo(output, updates=updates, overwrite=overwrite):
            if isinstance(step, Demo):
                done = step
                break
            if step.command != command:
                command = step.command
                say(f"geotranslate {command}", quiet=as_json)
            bar.update(step.done, step.name)
    assert done is not None
    seconds = time.monotonic() - start
    won = all(gain > 0 for gain in done.beaten.values())
    if not as_json:
        show_report(done.report)
    gains = ", ".join(f"{gain:+.2f} dB against {name}" for name, gain in done.beaten.items())
    finish(
        f"The model {'beats' if won else 'does not beat'} both baselines in {DECISIVE}: {gains}.\n"
        f"Look at {done.picture} and open {done.translated} in QGIS. It took {duration(seconds)}.",
        {
            "picture": done.picture,
            "translated": done.translated,
            "gains": done.beaten,
            "seconds": seconds,
        },
        as_json=as_json,
    )
    if not won:
        raise SystemExit(1)

"""``geotranslate train``: a network learns the translation from chips."""

from __future__ import annotations

import shlex
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geotranslate.cli.options import (
    config_option,
    json_option,
    overwrite_option,
    quiet_option,
    setting_options,
)
from geotranslate.cli.progress import Bar, counted, duration, finish, progress, say
from geotranslate.cli.train_rates import PICTURE, show_rates
from geotranslate.errors import LostError, TrainingError
from geotranslate.translation.config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geotranslate.translation.plan import Plan
    from geotranslate.translation.train import Progress

TIMED_UPDATES = 20
"""After so many the command says how long the rest will take."""


def _parse_changes(
    ctx: click.Context, param: click.Parameter, words: tuple[str, ...]
) -> dict[str, str]:
    """Settings by name from words such as updates=40000."""
    changes = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise click.BadParameter(
                f"{word!r} does not say what becomes what. Write NAME=VALUE, such as updates=40000."
            )
        changes[name.replace("-", "_")] = value
    return changes


@click.command()
@click.argument("chips", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder for all that comes of the training; with --lr-find, the picture.",
)
@click.option(
    "--resume",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="RUN",
    help="Go on with this run, with the settings in its folder.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_parse_changes,
    help="With --resume: change a setting from here on, such as updates=40000; may be repeated.",
)
@setting_options(TrainConfig)
@click.option(
    "--lr-find",
    is_flag=True,
    help="Only try which --learning-rate to take, and draw it; no run is made or touched.",
)
@click.option(
    "--tensorboard", is_flag=True, help="Write what is logged for TensorBoard, to RUN/tensorboard."
)
@overwrite_option
@quiet_option
@json_option
@config_option
def train(
    chips: Path | None,
    output: Path | None,
    resume: Path | None,
    changes: dict[str, str],
    lr_find: bool,
    tensorboard: bool,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Learn from CHIPS, the folder that `geotranslate tile` or ArcGIS wrote, how A becomes B.

    RUN/model is what `geotranslate predict` takes, RUN/samples shows how it goes, RUN/report.html
    how it went. Interrupted at any moment, the same command goes on from the last checkpoint.
    """
    from geotranslate.report.page import write_report
    from geotranslate.translation.run_record import REPORT_NAME

    start, quiet = time.monotonic(), quiet or as_json
    given = {name: value for name, value in settings.items() if value is not None}
    if lr_find:
        picture = output or PICTURE
        if chips is None or resume or changes or overwrite or tensorboard or picture.is_dir():
            raise click.UsageError(
                "--lr-find makes and touches no run: it takes CHIPS, settings, and with -o the "
                "file of its picture. Say `geotranslate train CHIPS --lr-find`."
            )
        show_rates(chips, TrainConfig(**given), picture, quiet=quiet, as_json=as_json)
        return
    run, plan = _plan(chips, output, resume, changes, overwrite=overwrite, **given)
    if not plan.processes.first:
        _learn_along(plan, run)
        return
    say(_describe(plan), quiet=quiet)
    if changes:
        told = ", ".join(f"{name} {getattr(plan.config, name)}" for name in changes)
        say(f"From here on with {told}.", quiet=quiet)
    done = _learn(plan, run, overwrite=overwrite, tensorboard=tensorboard, quiet=quiet)
    # A run that was finished before is not touched, unless its process died right at the end.
    page = write_report(run) if done or not (run / REPORT_NAME).exists() else run / REPORT_NAME
    sentences, values = _sum_up(plan, run, page, done, time.monotonic() - start)
    finish(sentences, values, as_json=as_json)


def _plan(
    chips: Path | None,
    output: Path | None,
    resume: Path | None,
    changes: dict[str, str],
    *,
    overwrite: bool,
    **given: Any,
) -> tuple[Path, Plan]:
    """Where a run lies and how it will go, begun by these words or gone on with."""
    from geotranslate.translation.plan import plan_training
    from geotranslate.translation.resumption import plan_resumption

    if resume is not None:
        if chips or output or overwrite:
            raise click.UsageError(
                "--resume goes on with a run by what its folder says, so it takes no CHIPS, no -o "
                "and no --overwrite. Leave them out, or say `train CHIPS -o RUN`."
            )
        return resume, plan_resumption(resume, changes=changes, **given)
    if changes:
        raise click.UsageError(
            "--set changes a run that was begun, so it goes with --resume RUN. Say each setting by "
            "its own flag to begin one."
        )
    if chips is None or output is None:
        raise click.UsageError(
            "say what to learn from and where to write: `geotranslate train CHIPS -o RUN`, or "
            "`geotranslate train --resume RUN` to go on with a run."
        )
    return output, plan_training(chips, TrainConfig(**given))


def _learn(plan: Plan, run: Path, *, overwrite: bool, tensorboard: bool, quiet: bool) -> int:
    """Learn and show it; gives how many updates it made. Ended early, it says what is kept."""
    from geotranslate.report.page import write_report
    from geotranslate.translation.memory import memory_in_words
    from geotranslate.translation.tensorboard import watched
    from geotranslate.translation.train import learn

    learning = learn(plan, run, overwrite=overwrite)
    steps = watched(learning, run) if tensorboard else learning
    try:
        # Closed, it keeps the state after the last update.
        with (
            progress("Training", plan.config.updates, unit="update", quiet=quiet) as bar,
            closing(learning),
        ):
            return _follow(steps, bar, quiet=quiet)
    except KeyboardInterrupt:
        if held := memory_in_words(plan.device):
            say(held)
        _say_how_to_go_on(run)
        raise
    except LostError:
        raise
    except TrainingError:
        say(f"{write_report(run)} shows how it went.")
        raise


def _sum_up(
    plan: Plan, run: Path, page: Path, done: int, seconds: float
) -> tuple[str, dict[str, Any]]:
    """What came of a run in sentences, and the same as values by name."""
    from geotranslate.translation.bundle import FOLDER, read_bundle_record
    from geotranslate.translation.guards import read_guards
    from geotranslate.translation.memory import memory_in_words, peak_device_memory, peak_memory

    record, model, warnings = read_bundle_record(run), run / FOLDER, read_guards(run)
    if done:
        held = memory_in_words(plan.device)
        sentence = f"Trained {counted(done, 'update')} in {duration(seconds)}. {held}".rstrip()
    else:
        sentence = f"{run} was finished before, by the same words: nothing to do."
    figures = ", ".join(f"{name} {value:.3g}" for name, value in record.figures.items())
    fired = f" Guards fired: {', '.join(each.guard for each in warnings)}." if warnings else ""
    sentences = (
        f"{sentence} {model} holds the generators of update {record.updates}"
        f"{f' ({figures})' if figures else ''}.{fired} {page} shows how it went.\n"
        f"Next: geotranslate predict {shlex.quote(str(run))} SCENE -o OUT.tif"
    )
    return sentences, {
        "run": str(run),
        "model": str(model),
        "report": str(page),
        "updates": plan.config.updates,
        "trained": done,
        "best_update": record.updates,
        "figures": record.figures,
        "guards": [vars(each) for each in warnings],
        "seconds": seconds,
        "memory_bytes": peak_memory(),
        "device_memory_bytes": peak_device_memory(plan.device),
    }


def _learn_along(plan: Plan, run: Path) -> None:
    """Learn with the first process, which says all that is to be said while it lives."""
    from geotranslate.translation.train import learn

    try:
        for _ in learn(plan, run):
            pass
    except LostError:
        # The first one may be the one that is gone, but not all need to say so.
        if plan.processes.rank == 1:
            raise
        sys.exit(LostError.exit_status)


def _describe(plan: Plan) -> str:
    """What a run will do, in a line for each matter."""
    config, folder = plan.config, plan.folder
    count_a, count_b = (len(folder.files(domain, "train")) for domain in "ab")
    paired = config.model == "pix2pix"
    heaps = counted(count_a, "pair") if paired else f"{count_a} and {counted(count_b, 'chip')}"
    compiling = "\nThe networks are compiled at the first update, which takes minutes."
    compiling = compiling if plan.compiled else ""
    return (
        f"{config.model} from {heaps}: {counted(config.updates, 'update')} of {config.batch} x "
        f"{config.crop} px, on {_where(plan)} in {plan.arithmetic}.\n{plan.reading}{compiling}"
    )


def _where(plan: Plan) -> str:
    processes = plan.processes
    if processes.count == 1:
        return str(plan.device)
    machines = f" on {processes.machines} machines" if processes.machines > 1 else ""
    return f"{plan.device.type} in {processes.count} processes{machines}"


def _follow(steps: Iterable[Progress], bar: Bar, *, quiet: bool) -> int:
    """Show each step; gives how many there were."""
    done = 0
    first = time.monotonic()
    for step in steps:
        done += 1
        if done == 1:
            first = time.monotonic()
            if step.update > 1:
                say(f"Going on after update {step.update - 1}.", quiet=quiet)
        if done == TIMED_UPDATES + 1 and step.update < step.updates:
            each = (time.monotonic() - first) / TIMED_UPDATES
            rest = duration(each * (step.updates - step.update))
            say(f"An update takes {duration(each)}, the rest about {rest}.", quiet=quiet)
        bar.update(step.update, _note(step))
    return done


def _say_how_to_go_on(run: Path) -> None:
    from geotranslate.translation.checkpoint import list_checkpoints

    found = list_checkpoints(run)
    if found:
        say(f"The state after update {found[0][0]} is kept. To go on from there:")
        say(f"geotranslate train --resume {shlex.quote(str(run))}")
    else:
        say("No update was finished, so there is nothing to keep.")


def _note(step: Progress) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in step.losses.items())

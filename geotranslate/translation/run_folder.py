"""The folder of a run: who works in it, on what, and with which settings."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w

from geotranslate.errors import OutputError, TakenError
from geotranslate.raster.output import (
    LOCK_NAME,
    RECORD_NAME,
    as_read,
    differences,
    explained,
    locked,
    write_text,
)
from geotranslate.translation import bundle, checkpoint, tensorboard
from geotranslate.translation.checkpoint import list_checkpoints, load_checkpoint
from geotranslate.translation.config import BUILT_IN
from geotranslate.translation.guards import NAME as GUARDS_NAME
from geotranslate.translation.log import NAME as LOG_NAME
from geotranslate.translation.plan import Plan
from geotranslate.translation.run_record import CONFIG_NAME, REPORT_NAME, SAMPLES, read_job
from geotranslate.translation.sessions import NAME as SESSIONS_NAME

log = logging.getLogger(__name__)

WRITTEN = {
    checkpoint.FOLDER: checkpoint.NAME,
    SAMPLES: re.compile(r"\d{9}\.png"),
    bundle.FOLDER: bundle.FILES,
    bundle.LAST: bundle.FILES,
    tensorboard.FOLDER: tensorboard.EVENTS,
}
"""The folders of a run, and what its files in them are called."""


@contextmanager
def claim_run(plan: Plan, run: Path, *, overwrite: bool = False) -> Iterator[dict[str, Any] | None]:
    """Hold a run folder for this process.

    A run that has no checkpoint yet has nothing to lose, so other words may begin it anew. To be
    overwritten, one that these words have begun and not finished goes on.

    Yields:
        What the folder said before (`read_job`); None where a run begins.

    Raises:
        OutputError: another process has it, it holds other work, or it cannot be written.
    """
    with explained(run):
        run.mkdir(parents=True, exist_ok=True)
    with locked(run / LOCK_NAME, run):
        job = read_job(run)
        if job is None:
            _refuse_other_things(run)
        elif overwrite and _is_under_way(plan, run, job):
            pass
        elif overwrite or (job["work"] != _work(plan) and not list_checkpoints(run)):
            _clear(run)
            job = None
        else:
            _refuse_unsaid_changes(plan, run, job["work"])
        yield job


def record_work(plan: Plan, run: Path, job: dict[str, Any] | None, *, update: int) -> None:
    """Say in a claimed folder what its work is, and what of it changes after an update.

    Args:
        plan: the work.
        run: the folder.
        job: what `claim_run` gave.
        update: the last one that was done with the settings before.

    Raises:
        OutputError: the folder cannot be written.
    """
    work = _work(plan)
    changes = [] if job is None else job["changes"]
    if job is not None and job["work"] != work:
        changed = {
            name: {"was": job["work"].get(name), "is": work.get(name)}
            for name in sorted(job["work"].keys() | work.keys())
            if job["work"].get(name) != work.get(name)
        }
        changes = [*changes, {"after_update": update, "settings": changed}]
        told = "; ".join(differences(job["work"], work))
        log.info("%s goes on after update %d with other settings: %s", run, update, told)
    said = {"chips": str(plan.folder.path.resolve()), "work": work, "changes": changes}
    _keep(run / RECORD_NAME, json.dumps(said, indent=1) + "\n")
    _keep(run / CONFIG_NAME, tomli_w.dumps(plan.config.settings()))


def _work(plan: Plan) -> dict[str, Any]:
    """The plan's work as a file gives it back."""
    return as_read(plan.work())


def _is_under_way(plan: Plan, run: Path, job: dict[str, Any]) -> bool:
    """Whether a run was begun by these very words and can go on."""
    if job["work"] != _work(plan) or job["changes"]:
        return False
    with suppress(OutputError):  # to start over is the mend of checkpoints that cannot be read
        state = load_checkpoint(run)
        return state is not None and state["recorded"] < plan.config.updates
    return False


def _refuse_unsaid_changes(plan: Plan, run: Path, before: dict[str, Any]) -> None:
    """Refuse to go on with other settings than a run was begun with, but for the changes said.

    Raises:
        TakenError: there are some; the message names them.
    """
    now = _work(plan)
    differing = [
        name
        for name in [*before, *(name for name in now if name not in before)]
        if before.get(name) != now.get(name) and name not in plan.changed
    ]
    if not differing:
        return
    found = differences(
        {name: before.get(name) for name in differing}, {name: now.get(name) for name in differing}
    )
    mend = "Use the same words to go on"
    if not set(differing) & {*BUILT_IN, "init_from", "chips"}:
        words = " ".join(f"--set {name}={now[name]}" for name in differing if name in now)
        mend += f", say `geotranslate train --resume {run} {words}` to change them from here on"
    raise TakenError(
        f"{run} was begun with other settings: {'; '.join(found[:4])}. {mend}, choose another "
        "folder, or say --overwrite to start over."
    )


def _refuse_other_things(run: Path) -> None:
    """Leave alone a folder that no run can be recognized in, even if it is to be overwritten.

    Raises:
        TakenError: there is something in it.
    """
    found = sorted({path.name for path in run.iterdir()} - {LOCK_NAME, RECORD_NAME + ".part"})
    if found:
        raise TakenError(
            f"{run} was not made by this command, or its {RECORD_NAME} is damaged: it holds "
            f"{found[0]}, which may be someone's work. Choose another folder, or empty this one "
            "yourself."
        )


def _keep(path: Path, text: str) -> None:
    """Write a file unless it holds the text already."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _clear(run: Path) -> None:
    """Remove what a run leaves, and nothing else."""
    with explained(run):
        for name, written in WRITTEN.items():
            folder = run / name
            for file in folder.glob("*"):
                if written.fullmatch(file.name.removesuffix(".part")):
                    file.unlink()
            with suppress(OSError):  # it holds other things, or is not there
                folder.rmdir()
        # The record goes last, so that a folder cleared by half is still known as a run.
        for name in (LOG_NAME, GUARDS_NAME, SESSIONS_NAME, REPORT_NAME, CONFIG_NAME, RECORD_NAME):
            (run / name).unlink(missing_ok=True)

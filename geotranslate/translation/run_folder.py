"""The folder of a run: who works in it, on what, and with which settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import tomli_w

from geotranslate.errors import TakenError
from geotranslate.raster.output import (
    LOCK_NAME,
    RECORD_NAME,
    check_same_work,
    explained,
    locked,
    write_text,
)
from geotranslate.translation import bundle, checkpoint, tensorboard
from geotranslate.translation.checkpoint import list_checkpoints
from geotranslate.translation.log import NAME as LOG_NAME
from geotranslate.translation.plan import Plan
from geotranslate.translation.run_record import CONFIG_NAME, REPORT_NAME, SAMPLES, read_job
from geotranslate.translation.sessions import NAME as SESSIONS_NAME

WRITTEN = {
    checkpoint.FOLDER: checkpoint.NAME,
    SAMPLES: re.compile(r"\d{9}\.png"),
    bundle.FOLDER: bundle.FILES,
    bundle.LAST: bundle.FILES,
    tensorboard.FOLDER: tensorboard.EVENTS,
}
"""The folders of a run, and what its files in them are called."""


@contextmanager
def claim_run(plan: Plan, run: Path, *, overwrite: bool = False) -> Iterator[None]:
    """Hold a run folder for this process; it says what its work is from the first moment.

    A run that has no checkpoint yet has nothing to lose, so other words may begin it anew.

    Raises:
        OutputError: another process has it, it holds other work, or it cannot be written.
    """
    work = json.loads(json.dumps(plan.work()))
    with explained(run):
        run.mkdir(parents=True, exist_ok=True)
    with locked(run / LOCK_NAME, run):
        job = read_job(run)
        if job is None:
            _refuse_other_things(run)
        elif overwrite or (job["work"] != work and not list_checkpoints(run)):
            _clear(run)
        else:
            check_same_work(run, job["work"], work)
        job = {"chips": str(plan.folder.path.resolve()), "work": work}
        _keep(run / RECORD_NAME, json.dumps(job, indent=1) + "\n")
        _keep(run / CONFIG_NAME, tomli_w.dumps(plan.config.settings()))
        yield


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
        for name in (LOG_NAME, SESSIONS_NAME, REPORT_NAME, CONFIG_NAME, RECORD_NAME):
            (run / name).unlink(missing_ok=True)

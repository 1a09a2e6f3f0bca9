"""Checkpoints: all that a run needs to go on as if it had never been interrupted.

They hold tensors, numbers and strings only, and are loaded with ``weights_only=True``.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from geotranslate.errors import OutputError
from geotranslate.raster.output import explained

FOLDER = "checkpoints"
NAME = re.compile(r"(\d{9})\.pt")

log = logging.getLogger(__name__)


def save_checkpoint(run: Path, update: int, state: dict[str, Any], *, best: int, keep: int) -> Path:
    """Write a checkpoint that has its name only when it is on the disk, then drop old ones.

    Args:
        run: the run folder.
        update: after which the state was taken.
        state: of tensors, numbers and strings.
        best: the update whose figure is the best so far; its checkpoint stays.
        keep: how many of the newest stay.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    folder = run / FOLDER
    path = folder / f"{update:09d}.pt"
    part = path.with_name(path.name + ".part")
    with explained(path):
        folder.mkdir(exist_ok=True)
        try:
            with part.open("wb") as file:
                _write(state, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    drop_old_checkpoints(run, best=best, keep=keep)
    return path


def drop_old_checkpoints(run: Path, *, best: int, keep: int) -> None:
    """Remove all but the newest ``keep`` and that of the best update.

    Raises:
        OutputError: the folder cannot be written.
    """
    for update, path in list_checkpoints(run)[keep:]:
        if update != best:
            with explained(path):
                path.unlink()


def list_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Updates and files of a run's checkpoints, newest first."""
    folder = run / FOLDER
    names = ((NAME.fullmatch(path.name), path) for path in folder.glob("*.pt"))
    return sorted(((int(match[1]), path) for match, path in names if match), reverse=True)


def load_checkpoint(run: Path) -> dict[str, Any] | None:
    """The state of a run's newest checkpoint, on the CPU; None where there is none yet.

    Raises:
        OutputError: there are some, but none can be read.
    """
    found = list_checkpoints(run)
    for _, path in found:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            log.warning("%s cannot be read and is passed over: %s", path, error)
            continue
        assert isinstance(state, dict)
        return state
    if found:
        raise OutputError(
            f"none of the {len(found)} checkpoints in {run / FOLDER} can be read, so the run "
            "cannot go on from where it was. Say --overwrite to start over."
        )
    return None


def _write(state: dict[str, Any], file: Any) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        # torch's zip writer reports a full disk in its own words.
        raise OSError(str(error)) from error

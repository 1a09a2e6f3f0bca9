"""A run for TensorBoard: the rows of its log, its samples and what guards said as events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from geotranslate.errors import SettingError
from geotranslate.translation.run_record import SAMPLES

if TYPE_CHECKING:
    from geotranslate.translation.train import Progress

FOLDER = "tensorboard"
"""Inside a run folder."""

EVENTS = re.compile(r"events\.out\.tfevents\..+")
"""What the files in it are called."""


def watched(steps: Iterable[Progress], run: Path) -> Iterator[Progress]:
    """Pass on the steps of a run, and write what they bring to ``RUN/tensorboard``.

    What was written after the checkpoint that a run goes on from is taken back.

    Args:
        steps: as `train` yields them.
        run: its folder.

    Raises:
        SettingError: TensorBoard is not installed.
    """
    make_writer, writer = _writer_class(), None
    try:
        for step in steps:
            if writer is None:
                writer = make_writer(run / FOLDER, purge_step=step.update)
            for name, value in step.row.items():
                if name != "update":
                    writer.add_scalar(name, value, step.update)
            for each in step.warnings:
                writer.add_text(f"guards/{each.guard}", each.sentence, step.update)
            picture = run / SAMPLES / f"{step.update:09d}.png"
            if picture.exists():
                with Image.open(picture) as file:
                    pixels = np.asarray(file)
                writer.add_image("samples", pixels, step.update, dataformats="HWC")
            if step.row:
                writer.flush()
            yield step
    finally:
        if writer is not None:
            writer.close()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingError(
            f"TensorBoard is not there ({error}), so nothing can be written for it. Install it "
            'with `pip install "geotranslate[tensorboard]"`, or leave out --tensorboard: log.csv '
            "and report.html hold the same."
        ) from error
    return SummaryWriter

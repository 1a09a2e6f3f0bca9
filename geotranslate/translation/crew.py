"""What the processes of a run agree on, beside the numbers that they exchange in an update.

Each update is the same function of seed, update and sample however many processes there are: each
reads and computes its share of the batch, and what they exchange (`networks.collective`) makes the
update that of one process with the whole batch. So all hold the same state at any time, and the
first one alone measures, draws and writes.

Before each update they agree to do it. A process that was asked to stop, or that failed, says so
there, and then no other does the update either: the state of the last one is whole and is kept.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from geotranslate.errors import GeotranslateError, LostError, SettingError
from geotranslate.networks import collective
from geotranslate.translation import companions
from geotranslate.translation.batch import Batch
from geotranslate.translation.held_interrupts import held_interrupts
from geotranslate.translation.processes import Processes


class How(IntEnum):
    """What a process says before an update."""

    ON = 0
    DONE = 1
    STOPPED = 2
    FAILED = 3


class EndedError(Exception):
    """All processes end here, and it is not for this one to say why."""


class Crew:
    """The processes of a run, seen from one of them. Alone, nothing is exchanged.

    Attributes:
        processes: how many, and which this is.
        within: whether an update is being done; then what was learned is not whole.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.within = False
        self._over = processes.count == 1

    @contextmanager
    def together(self, batch: Batch) -> Iterator[Batch]:
        """Do an update, which all processes do or none; interrupts come after it.

        Args:
            batch: this process's share.

        Yields:
            The share. Where another one's has invalid pixels, so that not the whole batch is valid,
            it has masks as well.

        Raises:
            LostError: another process is gone or, in the first one, failed.
            KeyboardInterrupt: in the first one: another process was asked to stop.
            EndedError: in the others: one does not go on.
        """
        with held_interrupts():
            if self.processes.count > 1:
                masked = (batch.valid_a is not None, batch.valid_b is not None)
                of_all = self._agree(How.ON, *masked).any(0).tolist()
                batch = replace(
                    batch,
                    valid_a=_masks(batch.real_a, batch.valid_a) if of_all[0] else None,
                    valid_b=_masks(batch.real_b, batch.valid_b) if of_all[1] else None,
                )
            self.within = True
            with companions.waiting():
                yield batch
            self.within = False

    def give_state(self, state: Callable[[], dict[str, Any]], work: int) -> None:
        """Let the others begin with the state of this process, the first one.

        Args:
            state: gives it: tensors, numbers and strings.
            work: stands for what is to be learned, from what; must be the same for all.

        Raises:
            SettingError: the processes were given different work.
            Others: as `together`.
        """
        if self.processes.count > 1:
            self._require_same(work)
            _broadcast(state())

    def take_state(self, work: int) -> dict[str, Any]:
        """What the first process gives; see `give_state`."""
        self._require_same(work)
        return _broadcast(None)

    def _require_same(self, work: int) -> None:
        works = self._agree(How.ON, work)
        if (works != works[0]).any():
            raise SettingError(
                "the processes were given different settings or chips, so what they learn would "
                "not belong together. Give all of them the same words and the same chips."
            )

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Tell the others how this process ends, whatever happens."""
        try:
            yield
        except GeneratorExit:
            self._leave(How.DONE)
            raise
        except KeyboardInterrupt:
            self._leave(How.STOPPED)
            raise
        except BaseException as error:
            known = isinstance(error, GeotranslateError)
            self._leave(How.FAILED, str(error) if known else f"{type(error).__name__}: {error}")
            raise
        self._leave(How.DONE)

    def _leave(self, how: How, why: str = "") -> None:
        """Say at the place of the next agreement that there will be none."""
        if self._over or self.within:
            return
        try:
            self._agree(how, why=why)
        except (EndedError, LostError, KeyboardInterrupt):
            return

    def _agree(self, how: How, *numbers: int, why: str = "") -> Tensor:
        """Hear what each process says, (processes, numbers); those who end say no numbers.

        Raises:
            As `together`, where not all go on.
        """
        row = torch.zeros(3, dtype=torch.int64)
        row[0] = how
        row[1 : 1 + len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        try:
            with companions.waiting(), collective.exchanging():
                rows = collective.gathered(row)
        except LostError:
            self._over = True
            raise
        if rows[:, 0].any():
            self._over = True
            self._end([How(each) for each in rows[:, 0].tolist()], why)
        others: Tensor = rows[:, 1 : 1 + len(numbers)]
        return others

    def _end(self, said: list[How], why: str) -> None:
        reasons = collective.words_of_all(why)
        if self.processes.first and How.FAILED in said:
            number = said.index(How.FAILED)
            raise LostError(
                f"process {number} of {len(said)} failed ({reasons[number].rstrip('.')})"
            )
        if self.processes.first and How.STOPPED in said:
            raise KeyboardInterrupt
        raise EndedError


def _masks(images: Tensor, valid: Tensor | None) -> Tensor:
    return torch.ones_like(images[:, :1]) if valid is None else valid


def _broadcast(state: dict[str, Any] | None) -> dict[str, Any]:
    """The first process's state on the CPU of each."""
    file = io.BytesIO()
    if state is not None:
        torch.save(state, file)
    size = collective.from_first(torch.tensor(file.tell()))
    content = torch.zeros(int(size), dtype=torch.uint8)
    if state is not None:
        content = torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
    with companions.waiting():
        content = collective.from_first(content)
    file = io.BytesIO(content.numpy().tobytes())
    found = torch.load(file, map_location="cpu", weights_only=True)
    assert isinstance(found, dict)
    return found

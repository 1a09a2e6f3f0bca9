"""The losses of the latest updates, from the device to a row of the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from geotranslate.translation.failures import went_wrong


class RecentLosses:
    """Losses of the latest updates; they stay on the device, so that no update waits for them."""

    def __init__(self, run: Path, known: Sequence[dict[str, float]] = ()) -> None:
        """Begin to collect.

        Args:
            run: the run folder, for what is said when a loss is no number.
            known: a `state` to go on from.
        """
        self._run = run
        self._waiting: list[tuple[int, dict[str, Tensor]]] = []
        self._known = list(known)

    def add(self, update: int, losses: dict[str, Tensor]) -> None:
        """Take in the losses of an update, by name."""
        self._waiting.append((update, losses))

    def fetch(self) -> None:
        """Bring the losses home.

        Raises:
            TrainingError: one of them is no number.
        """
        if not self._waiting:
            return
        names = list(self._waiting[0][1])
        values = torch.stack([torch.stack(list(each.values())) for _, each in self._waiting])
        for (update, _), row in zip(self._waiting, values.float().tolist(), strict=True):
            losses = dict(zip(names, row, strict=True))
            for name, value in losses.items():
                if not abs(value) < float("inf"):
                    raise went_wrong(self._run, f"the loss {name} is {value}", update)
            self._known.append(losses)
        self._waiting.clear()

    def state(self) -> list[dict[str, float]]:
        """The losses that no `mean` was taken of yet, update by update.

        Raises:
            TrainingError: one of them is no number.
        """
        self.fetch()
        return list(self._known)

    def mean(self) -> dict[str, float]:
        """Of the losses since the last call."""
        known, self._known = self._known, []
        return {name: sum(losses[name] for losses in known) / len(known) for name in known[0]}

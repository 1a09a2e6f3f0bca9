"""Averaged weights: those of a GAN swing from one update to the next, their mean does not."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedNetwork:
    """Weights averaged over the latest updates, without those of the first steps.

    ``average = keep * average + (1 - keep) * weights`` after each update. ``keep`` grows with the
    updates done, so that the random weights of the start are soon forgotten.

    Attributes:
        network: a copy that holds the averages, in evaluation mode; its buffers are the latest.
    """

    def __init__(self, network: nn.Module, updates: int) -> None:
        """Begin to average.

        Args:
            network: whose weights.
            updates: that the average looks back over; with 0 it is the latest weights.
        """
        self.network = deepcopy(network).eval().requires_grad_(False)
        self._keep = max(1 - 1 / updates, 0.0) if updates >= 1 else 0.0

    @torch.no_grad()
    def follow(self, network: nn.Module, update: int) -> None:
        """Take in the weights as they are after an update, counted from 1."""
        keep = min(self._keep, update / (update + 9))
        average = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
        average(list(self.network.parameters()), list(network.parameters()), None)
        for ours, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)

"""What a layer is told about a batch besides its pixels, and how that reaches it."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Context(NamedTuple):
    """What a normalization layer must know about a batch.

    A named tuple and not a dataclass, because Lightning Fabric casts the tensors among a module's
    arguments and refuses frozen dataclasses.

    Attributes:
        valid: (N, 1, H, W) of 0 and 1, at the size of the network's input; None where every pixel
            is valid, which is also the faster way.
        groups: the batch is this many equal parts one after the other (real images, say, and then
            translated ones), and batch statistics are those of each part alone.
        track: whether running statistics learn from this batch. Only the first group counts.
        origin: row and column in the scene of each image's first pixel, less than 0 where the
            image begins before the scene. Only norms with statistics on a grid ask for it.
    """

    valid: Tensor | None = None
    groups: int = 1
    track: bool = False
    origin: Sequence[tuple[int, int]] | None = None


PLAIN = Context()
"""One group, every pixel valid, nothing tracked."""


class Contextual(nn.Module):
    """A module whose ``forward`` takes the context beside the pixels."""


def in_a_row(layers: Iterable[nn.Module], x: Tensor, context: Context) -> Tensor:
    """Hand ``x`` from layer to layer; those that take the context get it."""
    for layer in layers:
        x = layer(x, context) if isinstance(layer, Contextual) else layer(x)
    return x


class Chain(Contextual):
    """Modules one after the other; those that take the context get it.

    Attributes:
        learning: how they are computed where gradients will be asked for; None for as always.
    """

    learning: Callable[[Sequence[nn.Module], Tensor, Context], Tensor] | None = None

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(modules)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Hand ``x`` from module to module."""
        if self.learning is not None and torch.is_grad_enabled():
            return self.learning(list(self.layers), x, context)
        return in_a_row(self.layers, x, context)

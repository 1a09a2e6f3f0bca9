"""What processes that learn together exchange.

Each has an equal share of every batch, one after the other in the order of their ranks. Inside
`exchanging`, layers and losses work on the batch of all of them: what they compute, and its
gradient, is that of one process with the whole batch. Elsewhere each process is on its own, so
that one alone can measure or draw.

A loss is then each process's part of the loss of all: parts add up, and so do their gradients.
Backends differ in what they can do: all-gather and all-reduce are what NCCL and gloo both can.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed

from geotranslate.errors import LostError

_together = False


@contextmanager
def exchanging(together: bool = True) -> Iterator[None]:
    """Let what is called in here work on the batch of all processes, if they do ``together``."""
    global _together
    before, _together = _together, together
    try:
        yield
    finally:
        _together = before


def processes() -> int:
    """How many work on a batch together; 1 outside of `exchanging`."""
    return distributed.get_world_size() if _together else 1


def total(values: Tensor) -> Tensor:
    """The sum over all processes, without gradient; alone, the values as they are."""
    if processes() == 1:
        return values
    values = values.detach().clone()
    _done(distributed.all_reduce, values)
    return values


def gathered(values: Tensor) -> Tensor:
    """The values of all processes, (processes, *shape); gradients find their way back."""
    if processes() == 1:
        return values[None]
    result: Tensor = _Gathered.apply(values)
    return result


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return torch.stack(_all(values))

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> Tensor:
        # What one process gave has gone into the losses of all.
        gradients = gradients.contiguous()
        _done(distributed.all_reduce, gradients)
        return gradients[distributed.get_rank()]


def from_first(values: Tensor) -> Tensor:
    """What the first process has, in the place of the values of the others; of the same shape."""
    _done(distributed.broadcast, values, 0)
    return values


def words_of_all(words: str) -> list[str]:
    """What each process says, in their order."""
    said = [""] * distributed.get_world_size()
    _done(distributed.all_gather_object, said, words)
    return said


def whole_batch(share: Tensor) -> Tensor:
    """The batch that the processes' shares (N, ...) are of, on each of them; without gradient."""
    if processes() == 1:
        return share
    batch = torch.cat(_all(share.detach()))
    last = share.dim() == 4 and share.is_contiguous(memory_format=torch.channels_last)
    return batch.contiguous(memory_format=torch.channels_last) if last else batch


def own_share(batch: Tensor) -> Tensor:
    """This process's share of a whole batch (N, ...)."""
    return batch if processes() == 1 else batch.chunk(processes())[distributed.get_rank()]


@torch.no_grad()
def add_gradients(parameters: Iterable[Tensor]) -> None:
    """Give each parameter the sum of its gradients over all processes, in one exchange."""
    if processes() == 1:
        return
    gradients = [each.grad for each in parameters if each.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    _done(distributed.all_reduce, flat)
    sums = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, values in zip(gradients, sums, strict=True):
        gradient.copy_(values.view_as(gradient))


def _all(values: Tensor) -> list[Tensor]:
    values = values.contiguous()
    parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
    _done(distributed.all_gather, parts, values)
    return parts


def _done(exchange: Callable[..., Any], *args: Any) -> None:
    """Exchange something.

    Raises:
        LostError: another process is gone, or was not heard of for too long.
    """
    try:
        exchange(*args)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostError(
            "one of the processes that learn together is gone, or was not heard of for too long"
        ) from error

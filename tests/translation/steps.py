"""What the tests of all models look at."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from geotranslate.translation.batch import Batch


def smooth(count: int, bands: int, generator: torch.Generator) -> Tensor:
    """Images of 32 x 32 px that a small network can learn something about."""
    coarse = torch.rand(count, bands, 5, 5, generator=generator) * 2 - 1
    return functional.interpolate(coarse, 32, mode="bilinear", align_corners=False)


def spoiled(batch: Batch, value: float) -> Batch:
    """The batch with other values at the invalid pixels."""
    assert batch.valid_a is not None
    assert batch.valid_b is not None
    return Batch(
        torch.where(batch.valid_a > 0, batch.real_a, value),
        torch.where(batch.valid_b > 0, batch.real_b, value),
        batch.valid_a,
        batch.valid_b,
    )


def same(one: object, other: object) -> bool:
    """Whether two states, or the losses of two steps, are the same bit for bit."""
    return torch.equal(flat(one), flat(other))


def flat(state: object) -> Tensor:
    """All tensors of a state in a row."""
    if isinstance(state, dict):
        return torch.cat([torch.empty(0).double(), *(flat(value) for value in state.values())])
    return state.flatten().double() if isinstance(state, Tensor) else torch.empty(0).double()


class Waits(TorchDispatchMode):
    """Counts how often the host asks the device for a value, and so waits for it."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def gradients_at_outputs(network: nn.Module) -> list[Tensor]:
    """Filled, call by call, with the gradient that comes back to what the network gave."""
    gradients: list[Tensor] = []

    def watch(module: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
        if result.requires_grad:
            result.register_hook(gradients.append)

    network.register_forward_hook(watch)
    return gradients

"""What the steps of all models are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from geotranslate.networks.collective import add_gradients

Backward = Callable[[Tensor], Any]


def adam(networks: Iterable[nn.Module], learning_rate: float) -> Adam:
    """The optimizer of pix2pix and CycleGAN, over the parameters of ``networks``."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return _AdamAsLaidOut(parameters, lr=learning_rate, betas=(0.5, 0.999), fused=True)


class _AdamAsLaidOut(Adam):
    """Adam whose fused kernel goes through channels-last weights as they lie in memory.

    On a CPU it would copy each of their gradients otherwise. Weights, gradients and momenta lie
    alike: autograd sees to the gradients, `load_state` to the momenta.
    """

    # Torch's own name for what collects the tensors of a group; a test holds that it still does.
    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        is_complex: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        for tensors in lists:
            tensors[:] = map(_as_laid_out, tensors)
        return is_complex


def _as_laid_out(values: Tensor) -> Tensor:
    """The same memory as a contiguous tensor, where it is a channels-last one."""
    channels_last = values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last)
    return values.permute(0, 2, 3, 1) if channels_last else values


def descend(optimizer: Optimizer, losses: Iterable[Tensor], backward: Backward) -> None:
    """Take one step down the gradient of the sum of ``losses``, each made when it is its turn.

    It is that of all processes together.
    """
    optimizer.zero_grad(set_to_none=True)
    for loss in losses:
        backward(loss)
    add_gradients(each for group in optimizer.param_groups for each in group["params"])
    optimizer.step()


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Let gradients pass through ``networks`` as called in here, but not into their weights."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


@contextmanager
def predicting(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards the networks are as before."""
    before = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for network, training in zip(networks, before, strict=True):
            network.train(training)


class Sums(dict[str, Tensor]):
    """Losses by name, for the log, summed over the parts of a batch.

    They are still on the device, so that no step waits for it.
    """

    def add(self, **losses: Tensor) -> None:
        """Take in the losses of a part."""
        for name, loss in losses.items():
            self[name] = self[name] + loss.detach() if name in self else loss.detach()


def state_of(
    networks: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]
) -> dict[str, Any]:
    """What networks and optimizers have learned: tensors, numbers and strings."""
    return {
        "networks": {name: network.state_dict() for name, network in networks.items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
    }


def load_state(
    state: dict[str, Any], networks: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]
) -> None:
    """Put back what `state_of` gave, into memory of the networks' and optimizers' own."""
    for name, network in networks.items():
        network.load_state_dict(state["networks"][name])
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
        _lay_out_as_parameters(optimizer)


def _lay_out_as_parameters(optimizer: Optimizer) -> None:
    """Copy momenta into the memory layout of their parameters.

    The fused kernel walks parameters and momenta side by side and takes for granted that they lie
    alike, but torch goes on with the very tensors that were loaded.
    """
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            like = parameter if value.shape == parameter.shape else value
            values[name] = torch.empty_like(like, dtype=value.dtype).copy_(value)

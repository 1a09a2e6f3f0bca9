"""Layers computed a second time on the way back, in place of keeping what lies between them.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geotranslate.networks.context import Chain, Context, in_a_row
from geotranslate.networks.norms import BatchNorm
from geotranslate.networks.resnet import ResidualBlock


def save_memory(generator: nn.Module) -> None:
    """Let a generator that learns keep only what goes from stage to stage, not what lies within.

    A stage is a residual block, or layers up to an activation; of a U-Net, a halving or doubling.
    Gradients and running statistics are the same; learning takes one more forward pass.
    """
    inner = {part.change for part in generator.modules() if isinstance(part, ResidualBlock)}
    for part in generator.modules():
        if isinstance(part, Chain) and part not in inner:
            part.learning = by_stages


def by_stages(layers: Sequence[nn.Module], x: Tensor, context: Context) -> Tensor:
    """The layers in a row, computed again, stage by stage, when gradients go back."""
    for stage in stages(layers):
        x = recomputed(stage, x, context)
    return x


def stages(layers: Sequence[nn.Module]) -> Iterator[list[nn.Module]]:
    """The layers in parts that each end with a residual block or an activation in place."""
    stage: list[nn.Module] = []
    for layer in layers:
        stage.append(layer)
        if isinstance(layer, ResidualBlock) or (isinstance(layer, nn.ReLU) and layer.inplace):
            yield stage
            stage = []
    if stage:
        yield stage


def recomputed(layers: Sequence[nn.Module], x: Tensor, context: Context) -> Tensor:
    """The layers in a row, of which only ``x`` is kept until gradients go back.

    What is computed again starts from the running statistics that were there the first time, which
    batch renormalization computes with, and changes only copies of them.
    """
    norms = [part for layer in layers for part in layer.modules() if isinstance(part, BatchNorm)]
    before: list[dict[str, Tensor]] = []

    def compute(x: Tensor) -> Tensor:
        if not before:
            before.extend({name: b.clone() for name, b in norm.named_buffers()} for norm in norms)
            before.append({})  # also where there are no norms, the next time is the second one
            return in_a_row(layers, x, context)
        with with_buffers(norms, before):
            return in_a_row(layers, x, context)

    # Nothing random is computed in a generator, so there is no state of random numbers to keep.
    result: Tensor = checkpoint(compute, x, use_reentrant=False, preserve_rng_state=False)
    return result


@contextmanager
def with_buffers(
    modules: Sequence[nn.Module], buffers: Sequence[dict[str, Tensor]]
) -> Iterator[None]:
    """Other buffers in place of those of each module; afterwards they have their own again."""
    own = [dict(module.named_buffers()) for module in modules]
    try:
        _put(modules, buffers)
        yield
    finally:
        _put(modules, own)


def _put(modules: Sequence[nn.Module], buffers: Sequence[dict[str, Tensor]]) -> None:
    for module, values in zip(modules, buffers, strict=False):
        for name, value in values.items():
            setattr(module, name, value)

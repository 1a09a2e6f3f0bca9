"""Normalization with statistics of valid pixels only, each role in a batch for itself.

Statistics are float32 also where the pixels are bfloat16, and the memory layout of the pixels is
kept (``nn.InstanceNorm2d`` turns channels-last around at every layer).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from geotranslate.errors import SettingError
from geotranslate.networks.context import Context, Contextual

EPS = 1e-5


class Statistics(NamedTuple):
    """Statistics of each channel in each group of a batch.

    Attributes:
        positions: (groups, 1), how many are valid; partly valid ones count by their share.
        mean: (groups, C).
        variance: (groups, C), around the mean, divided by their number.
    """

    positions: Tensor
    mean: Tensor
    variance: Tensor


def valid_statistics(x: Tensor, valid: Tensor, groups: int) -> Statistics:
    """Mean and variance over the valid positions of each of ``groups`` equal parts of ``x``.

    A deeper layer has fewer positions than the image: each then weighs by the valid share of the
    pixels it stands for. A group with less than two valid positions has no variance worth the
    name and is given mean 0 and variance 1, which leaves it as it is.

    Args:
        x: (N, C, h, w).
        valid: (N, 1, H, W) of 0 and 1.
        groups: a divisor of N.
    """
    # matmul adds up several times faster than multiply and sum; autocast would make it bfloat16.
    with torch.autocast(x.device.type, enabled=False):
        channels, rows, cols = x.shape[1:]
        share = functional.adaptive_avg_pool2d(valid.float(), (rows, cols)).reshape(groups, 1, -1)
        pixels = x.float().permute(0, 2, 3, 1).reshape(groups, -1, channels)
        positions = share.sum(dim=2, keepdim=True)
        enough, divisor = positions >= 2, positions.clamp(min=2)
        mean = torch.where(enough, share @ pixels / divisor, 0.0)
        variance = torch.where(enough, share @ (pixels - mean).square() / divisor, 1.0)
    return Statistics(positions.squeeze(1), mean.squeeze(1), variance.squeeze(1))


def standardize(
    x: Tensor,
    statistics: Statistics,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Bring each group of ``x`` to mean 0 and variance 1 by its statistics, then to the affine."""
    scale = torch.rsqrt(statistics.variance + EPS)
    if weight is not None:
        scale = scale * weight
    shift = -statistics.mean * scale
    if bias is not None:
        shift = shift + bias
    images = len(x) // len(scale)
    scale, shift = (each.repeat_interleave(images, 0)[..., None, None] for each in (scale, shift))
    return torch.addcmul(shift, x.float(), scale).to(x.dtype)


class InstanceNorm(Contextual):
    """Each channel of each image to mean 0 and variance 1 (Ulyanov et al. 2016).

    As in CycleGAN it has no weights and no running statistics.
    """

    one: Tensor
    zero: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # No affine, but float32: without them torch rounds the statistics of bfloat16 pixels.
        self.register_buffer("one", torch.ones(channels), persistent=False)
        self.register_buffer("zero", torch.zeros(channels), persistent=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Normalize ``x`` (N, C, h, w)."""
        if context.valid is not None:
            return standardize(x, valid_statistics(x, context.valid, groups=len(x)))
        # Batch norm of one image is instance norm, and torch's kernel for it keeps channels-last.
        return _joined(
            functional.batch_norm(image, None, None, self.one, self.zero, training=True, eps=EPS)
            for image in x.chunk(len(x))
        )


class BatchNorm(Contextual):
    """Each channel of each group to mean 0 and variance 1, then to a learned scale and shift.

    In evaluation the running statistics stand in, so that the output is a fixed function of the
    pixels (Ioffe and Szegedy 2015). Running statistics follow the first group of the batches that
    are tracked: they are those of one role, the real source images.

    Attributes:
        momentum: how far one tracked batch moves the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Normalize ``x`` (N, C, h, w)."""
        if not self.training:
            mean, variance = self.running_mean, self.running_var
            return functional.batch_norm(x, mean, variance, self.weight, self.bias, eps=EPS)
        if context.valid is None:
            return _joined(
                self._whole(group, track=context.track and role == 0)
                for role, group in enumerate(x.chunk(context.groups))
            )
        statistics = valid_statistics(x, context.valid, context.groups)
        if context.track:
            self._follow(statistics)
        return standardize(x, statistics, self.weight, self.bias)

    def _whole(self, x: Tensor, *, track: bool) -> Tensor:
        """One group in which every position is valid, by torch's own kernel."""
        return functional.batch_norm(
            x,
            self.running_mean if track else None,
            self.running_var if track else None,
            self.weight,
            self.bias,
            training=True,
            momentum=self.momentum,
            eps=EPS,
        )

    @torch.no_grad()
    def _follow(self, statistics: Statistics) -> None:
        """Move the running statistics towards the first group's, as torch does in its kernel."""
        positions, mean, variance = (values[0] for values in statistics)
        step = torch.where(positions >= 2, self.momentum, 0.0)
        self.running_mean.lerp_(mean, step)
        self.running_var.lerp_(variance * positions / (positions - 1).clamp(min=1), step)


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """The parts as one batch; a single part is not copied."""
    first, *rest = parts
    return torch.cat([first, *rest]) if rest else first


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": BatchNorm,
    "instance": InstanceNorm,
    "none": lambda channels: nn.Identity(),
}


@torch.no_grad()
def reestimate_statistics(
    generator: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]]
) -> None:
    """Set the running statistics of all batch norms to those of all ``batches`` together.

    The running ones lag behind the weights, and averaged weights have none of their own, so this
    comes before a generator is used. Means and variances are pooled over the batches by their
    count of valid pixels (Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3).

    Args:
        generator: called with the images and a `Context`; without batch norm nothing is done.
        batches: at least one (images, valid) of real source images: (N, C, H, W) with 0 at invalid
            pixels, and (N, 1, H, W) or None where all is valid.
    """
    norms = [module for module in generator.modules() if isinstance(module, BatchNorm)]
    if not norms:
        return
    pooled = [(torch.zeros_like(n.running_mean), torch.zeros_like(n.running_var)) for n in norms]
    seen = torch.zeros((), device=norms[0].weight.device)

    with _remembering_one_batch(generator, norms):
        for images, valid in batches:
            generator(images, Context(valid, track=True))
            count = seen.new_tensor(images[:, :1].numel()) if valid is None else valid.sum()
            seen = seen + count
            share = (count / seen).nan_to_num()
            for norm, (mean, variance) in zip(norms, pooled, strict=True):
                delta = norm.running_mean - mean
                mean += share * delta
                variance += share * (norm.running_var - variance + (1 - share) * delta**2)
    if not seen:
        raise SettingError(
            "no valid pixel to take the generator's statistics from: without them its output "
            "has no level. Give at least one batch of training chips."
        )
    for norm, (mean, variance) in zip(norms, pooled, strict=True):
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


@contextmanager
def _remembering_one_batch(generator: nn.Module, norms: list[BatchNorm]) -> Iterator[None]:
    """Make the running statistics those of the last batch alone, for as long as this is open."""
    training, momenta = generator.training, [norm.momentum for norm in norms]
    generator.train()
    for norm in norms:
        norm.momentum = 1.0
    try:
        yield
    finally:
        generator.train(training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

"""Normalization with statistics of valid pixels only, each role in a batch for itself.

Statistics are float32 also where the pixels are bfloat16, and the memory layout of the pixels is
kept (``nn.InstanceNorm2d`` turns channels-last around at every layer).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from geotranslate.choices import Norm
from geotranslate.errors import SettingError
from geotranslate.networks import collective
from geotranslate.networks.context import Context, Contextual
from geotranslate.networks.joint_statistics import joint_statistics, normalize_jointly
from geotranslate.networks.statistics import (
    ENOUGH,
    EPS,
    Statistics,
    joined,
    precise,
    standardize,
    valid_statistics,
)


class InstanceNorm(Contextual):
    """Each channel of each image to mean 0 and variance 1 (Ulyanov et al. 2016).

    As in CycleGAN it has no weights and no running statistics.

    Attributes:
        channels: how many there are.
    """

    one: Tensor
    zero: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        # No affine, but float32: without them torch rounds the statistics of bfloat16 pixels.
        self.register_buffer("one", torch.ones(channels), persistent=False)
        self.register_buffer("zero", torch.zeros(channels), persistent=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Normalize ``x`` (N, C, h, w)."""
        if context.valid is not None:
            return standardize(x, valid_statistics(x, context.valid, groups=len(x)))
        # Batch norm of one image is instance norm, and torch's kernel for it keeps channels-last.
        return joined(
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

    momentum = 0.1

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Normalize ``x`` (N, C, h, w)."""
        if not self.training:
            mean, variance = self.running_mean, self.running_var
            return functional.batch_norm(x, mean, variance, self.weight, self.bias, eps=EPS)
        if context.valid is None and collective.processes() == 1:
            return joined(
                self._whole(group, track=context.track and role == 0)
                for role, group in enumerate(x.chunk(context.groups))
            )
        statistics = joint_statistics(x, context.valid, context.groups)
        if context.track:
            self._follow(statistics, self.momentum)
        return normalize_jointly(x, context.valid, statistics, self.weight, self.bias)

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
    def _follow(self, statistics: Statistics, step: float | Tensor) -> None:
        """Move the running statistics towards the first group's, as torch does in its kernel."""
        positions, mean, variance = (values[0] for values in statistics)
        step = torch.where(positions >= ENOUGH, step, 0.0).to(mean.dtype)
        self.running_mean.lerp_(mean, step)
        self.running_var.lerp_(variance * positions / (positions - 1).clamp(min=1), step)


class BatchRenorm(BatchNorm):
    """Batch norm that trains with nearly the statistics it is used with (Ioffe 2017).

    The batch's statistics are corrected towards the running ones by a factor r and an offset d,
    which are constants for the gradient: ``(x - mean) / std * r + d``. So batches of 1 to 4, whose
    statistics say little, teach the network what it will compute in evaluation.

    How far the correction may go depends on the tracked batches seen, which are counted among the
    buffers, so that a resumed run goes on alike. The running statistics are the mean over all
    batches for the first `memory`, then follow with a step of ``1 / memory``. For the first two
    memories r is 1 and d is 0; until the tenth their limits grow in straight lines to r in
    [1 / 3, 3] and d in [-5, 5], the paper's.

    Attributes:
        memory: tracked batches that the running statistics look back over.
        tracked: batches seen, int64.
    """

    memory = 100
    plain, ramped = 2 * memory, 10 * memory
    r_max, d_max = 3.0, 5.0

    tracked: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("tracked", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Normalize ``x`` (N, C, h, w)."""
        if not self.training:
            return super().forward(x, context)
        whole = context.valid is None and collective.processes() == 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and not whole):
            statistics = joint_statistics(x, context.valid, context.groups)
        r, d = self._correction(statistics)
        weight, bias = self.weight * r, self.bias + self.weight * d
        if context.track:
            self._follow(statistics, 1 / (self.tracked + 1).clamp(max=self.memory))
            self.tracked += 1
        if not whole:
            return normalize_jointly(x, context.valid, statistics, weight, bias)
        return joined(
            functional.batch_norm(group, None, None, w, b, training=True, eps=EPS)
            for group, w, b in zip(x.chunk(context.groups), weight, bias, strict=True)
        )

    @torch.no_grad()
    def _correction(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """The factor and the offset of each channel in each group, (groups, C)."""
        grown = ((self.tracked - self.plain) / (self.ramped - self.plain)).clamp(0, 1)
        r_limit, d_limit = 1 + (self.r_max - 1) * grown, self.d_max * grown
        std = torch.sqrt(self.running_var + EPS)
        r = torch.sqrt(statistics.variance + EPS) / std
        d = (statistics.mean - self.running_mean) / std
        return r.clamp(1 / r_limit, r_limit), d.clamp(-d_limit, d_limit)


class ChannelNorm(Contextual):
    """Each pixel's channels to a mean square of 1, then to a learned scale and shift of each.

    Statistics are those of one position (RMS norm, Zhang and Sennrich 2019), so the result does
    not depend on the window and there is nothing to remember.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Normalize ``x`` (N, C, h, w)."""
        pixels = precise(x)
        scale = torch.rsqrt(pixels.square().mean(1, keepdim=True) + EPS)
        weight, bias = (each[:, None, None] for each in (self.weight, self.bias))
        return torch.addcmul(bias, pixels * scale, weight).to(x.dtype)


NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    "batch": BatchNorm,
    "renorm": BatchRenorm,
    "channel": ChannelNorm,
    "none": lambda channels: nn.Identity(),
    "instance": InstanceNorm,
}

CENTRED: frozenset[Norm] = frozenset({"batch", "renorm"})
"""Norms that take the mean away and shift by themselves: a bias before them would do nothing."""


@torch.no_grad()
def reestimate_statistics(
    generator: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]]
) -> None:
    """Set the running statistics of all batch norms to those of all ``batches`` together.

    The running ones lag behind the weights, and averaged weights have none of their own, so this
    comes before a generator is used. Means and variances are pooled over the batches by their
    count of valid positions (Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3).
    Each batch is normalized by what is pooled so far, itself included, so that deeper layers see
    what they will see in evaluation, also where one batch is a single image.

    Args:
        generator: called with the images and a `Context`; without batch norm nothing is done.
        batches: at least one (images, valid) of real source images: (N, C, H, W) with 0 at invalid
            pixels, and (N, 1, H, W) or None where all is valid.
    """
    norms = [module for module in generator.modules() if isinstance(module, BatchNorm)]
    if not norms:
        return
    seen = {norm: torch.zeros(1, device=norm.weight.device) for norm in norms}

    def pool(norm: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(norm, BatchNorm)
        x, context = args
        positions, mean, variance = (v[0] for v in valid_statistics(x, context.valid, groups=1))
        positions = torch.where(positions >= ENOUGH, positions, 0.0)
        seen[norm] += positions
        share = (positions / seen[norm]).nan_to_num()
        delta = mean - norm.running_mean
        norm.running_mean += share * delta
        # The first batch takes the place of what was there.
        around = torch.where(share < 1, variance + (1 - share) * delta**2, variance)
        norm.running_var += share * (around - norm.running_var)

    with _evaluating(generator), ExitStack() as hooks:
        for norm in norms:
            hooks.enter_context(norm.register_forward_pre_hook(pool))
        for images, valid in batches:
            generator(images, Context(valid))
    if not all(seen.values()):
        raise SettingError(
            "no valid pixel to take the generator's statistics from: without them its output "
            "has no level. Give at least one batch of training chips."
        )


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards the network is as before."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)

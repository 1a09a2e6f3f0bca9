"""Batch statistics of all processes that share a batch (`collective`), as of one with all of it.

Where every position is valid, this is as quick as torch's own batch norm and takes no more memory.
(``nn.SyncBatchNorm`` knows no CPU, no valid positions and no groups.)
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from geotranslate.networks import collective
from geotranslate.networks.statistics import (
    EPS,
    SMALLEST_COUNT,
    Statistics,
    joined,
    raw_statistics,
    standardize,
    valid_statistics,
    worth_the_name,
)

BATCH_NORM_BACKWARD = torch.ops.aten.native_batch_norm_backward.default


def joint_statistics(x: Tensor, valid: Tensor | None, groups: int) -> Statistics:
    """`valid_statistics` of the parts that all processes have of each group, taken together.

    Where all is valid they have no gradient; `normalize_jointly` knows it.
    """
    if collective.processes() == 1:
        return valid_statistics(x, valid, groups)
    own = _whole_statistics(x, groups) if valid is None else raw_statistics(x, valid, groups)
    of_all: Statistics = _joined_statistics(own)
    return of_all


def _joined_statistics(own: Statistics) -> Statistics:
    channels = own.mean.shape[1]
    parts = collective.gathered(torch.cat(own, dim=1))
    positions, mean, variance = torch.split(parts, [1, channels, channels], dim=2)
    count = positions.sum(0)
    share = positions / count.clamp(min=SMALLEST_COUNT)
    joint = (share * mean).sum(0)
    around = (share * (variance + (mean - joint).square())).sum(0)
    return worth_the_name(Statistics(count, joint, around))


def normalize_jointly(
    x: Tensor, valid: Tensor | None, statistics: Statistics, weight: Tensor, bias: Tensor
) -> Tensor:
    """`standardize` by `joint_statistics`; weight and bias are (C,) or (groups, C)."""
    if valid is not None:
        return standardize(x, statistics, weight, bias)
    normalized: Tensor = _normalize_whole(x, statistics, weight, bias)
    return normalized


def _normalize_whole(x: Tensor, statistics: Statistics, weight: Tensor, bias: Tensor) -> Tensor:
    like = statistics.mean
    result: Tensor = _JointBatchNorm.apply(
        x, weight.expand_as(like), bias.expand_as(like), *statistics
    )
    return result


@torch.no_grad()
def _whole_statistics(x: Tensor, groups: int) -> Statistics:
    """`raw_statistics` where all is valid, by torch's kernel and without gradient."""
    mean, variance = torch.zeros(2, groups, x.shape[1], device=x.device)
    for group, *running in zip(x.chunk(groups), mean, variance, strict=True):
        torch.batch_norm_update_stats(group, *running, 1.0)  # type: ignore[call-arg]
    positions = torch.full((groups, 1), x[:, 0].numel() / groups, device=x.device)
    # The kernel divides by one position less than there are.
    variance = torch.where(positions > 1, variance * (positions - 1) / positions, 0.0)
    return Statistics(positions, mean, variance)


class _JointBatchNorm(torch.autograd.Function):
    """Batch norm of groups with the statistics of all processes, where all positions are valid.

    It remembers its input and no more, as torch's own, and computes by torch's kernels: with fixed
    statistics these give all of the gradient but what goes back through the statistics, and the two
    sums that this is made of.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        positions: Tensor,
        mean: Tensor,
        variance: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, positions, mean, variance)
        parts = zip(x.chunk(len(mean)), mean, variance, weight, bias, strict=True)
        return joined(functional.batch_norm(*part, eps=EPS) for part in parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, positions, mean, variance = ctx.saved_tensors
        images, gradients = x.chunk(len(mean)), gradient.chunk(len(mean))
        fixed, of_weight, of_bias = zip(
            *(
                BATCH_NORM_BACKWARD(*part, None, None, False, EPS, [True, True, True])
                for part in zip(gradients, images, weight, mean, variance, strict=True)
            ),
            strict=True,
        )
        own = torch.stack([torch.stack(of_weight), torch.stack(of_bias)])
        along, level = collective.total(own) / positions
        scale = torch.rsqrt(variance + EPS)
        slope = -weight * scale.square() * along
        shift = -weight * scale * level - slope * mean
        through = (
            torch.addcmul(b[:, None, None], image.float(), a[:, None, None]).add_(rest).to(x.dtype)
            for image, rest, a, b in zip(images, fixed, slope, shift, strict=True)
        )
        return joined(through), *own, None, None, None

"""Statistics of a batch's valid positions, and what is made of pixels by them.

They are float32 also where the pixels are bfloat16.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

EPS = 1e-5

ENOUGH = 2
"""Valid positions from which on a variance is worth the name."""

SMALLEST_COUNT = 1e-6
"""Below the share of a position that one valid pixel can be."""


def precise(x: Tensor) -> Tensor:
    """``x`` as float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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


def valid_statistics(x: Tensor, valid: Tensor | None, groups: int) -> Statistics:
    """Mean and variance over the valid positions of each of ``groups`` equal parts of ``x``.

    A deeper layer has fewer positions than the image: each then weighs by the valid share of the
    pixels it stands for. A group with less than two valid positions has no variance worth the
    name and is given mean 0 and variance 1, which leaves it as it is.

    Args:
        x: (N, C, h, w).
        valid: (N, 1, H, W) of 0 and 1; None where all pixels are valid.
        groups: a divisor of N.
    """
    return worth_the_name(raw_statistics(x, valid, groups))


def raw_statistics(x: Tensor, valid: Tensor | None, groups: int) -> Statistics:
    """As `valid_statistics`, of however few positions."""
    # matmul adds up several times faster than multiply and sum; autocast would make it bfloat16.
    with torch.autocast(x.device.type, enabled=False):
        share = _valid_shares(x, valid).reshape(groups, 1, -1)
        pixels = _by_position(x).reshape(groups, -1, x.shape[1])
        positions = share.sum(dim=2, keepdim=True)
        divisor = positions.clamp(min=SMALLEST_COUNT)
        mean = share @ pixels / divisor
        variance = share @ (pixels - mean).square() / divisor
    return Statistics(positions.squeeze(1), mean.squeeze(1), variance.squeeze(1))


def worth_the_name(found: Statistics) -> Statistics:
    """Mean 0 and variance 1 in the place of those of too few positions."""
    enough = found.positions >= ENOUGH
    mean, variance = torch.where(enough, found.mean, 0.0), torch.where(enough, found.variance, 1.0)
    return Statistics(found.positions, mean, variance)


def pooled_statistics(x: Tensor, valid: Tensor | None) -> Statistics:
    """`valid_statistics` of all of ``x`` as one group, for which nothing as large as ``x`` is made.

    Not for training: gradients would keep what is made for each image.
    """
    with torch.autocast(x.device.type, enabled=False):
        share = _valid_shares(x, valid).reshape(len(x), 1, -1)
        positions = share.sum().reshape(1, 1)
        divisor = positions.clamp(min=SMALLEST_COUNT)
        mean, variance = torch.zeros(2, 1, x.shape[1], device=x.device)
        for image, weights in zip(x, share, strict=True):
            mean += weights @ _by_position(image) / divisor
        for image, weights in zip(x, share, strict=True):
            variance += weights @ (_by_position(image) - mean).square_() / divisor
    return worth_the_name(Statistics(positions, mean, variance))


def _valid_shares(x: Tensor, valid: Tensor | None) -> Tensor:
    """How much of each position (N, 1, h, w) of a layer is valid."""
    rows, cols = x.shape[-2:]
    if valid is None:
        return precise(torch.ones(len(x), 1, rows, cols, dtype=x.dtype, device=x.device))
    return functional.adaptive_avg_pool2d(precise(valid), (rows, cols))


def _by_position(x: Tensor) -> Tensor:
    """(..., h * w, C), `precise`, of (..., C, h, w)."""
    return precise(x).flatten(-2).transpose(-2, -1)


def standardize(
    x: Tensor,
    statistics: Statistics,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Bring each group of ``x`` to mean 0 and variance 1 by its statistics, then to the affine.

    Args:
        x: (N, C, h, w).
        statistics: of each group.
        weight: (C,) or (groups, C); None for 1.
        bias: the same; None for 0.
    """
    scale = torch.rsqrt(statistics.variance + EPS)
    if weight is not None:
        scale = scale * weight
    shift = -statistics.mean * scale
    if bias is not None:
        shift = shift + bias
    images = len(x) // len(scale)
    scale, shift = (each.repeat_interleave(images, 0)[..., None, None] for each in (scale, shift))
    return torch.addcmul(shift, precise(x), scale).to(x.dtype)


def joined(parts: Iterable[Tensor]) -> Tensor:
    """The parts as one batch; a single part is not copied."""
    first, *rest = parts
    return torch.cat([first, *rest]) if rest else first

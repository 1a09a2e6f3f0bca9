"""A generator without the norms that are nothing but a fixed scale and shift of each channel."""

from copy import deepcopy
from itertools import pairwise

import torch
from torch import nn

from geotranslate.networks.build import Generator
from geotranslate.networks.norms import BatchNorm
from geotranslate.networks.statistics import EPS


@torch.no_grad()
def fold(generator: Generator) -> Generator:
    """A copy for evaluation in which batch norms are part of the convolutions before them.

    The result is the same but for rounding. Instance norms with fixed statistics
    (:func:`geotranslate.networks.scene_statistics.with_statistics`) are batch norms by then; norms
    that look at the pixels, instance and channel, stay.
    """
    folded = deepcopy(generator)
    leaves = [(name, part) for name, part in folded.named_modules() if not list(part.children())]
    for (_, before), (name, norm) in pairwise(leaves):
        if isinstance(norm, BatchNorm) and isinstance(before, nn.Conv2d | nn.ConvTranspose2d):
            _take_in(before, norm)
            folded.set_submodule(name, nn.Identity())
    return folded.eval().requires_grad_(False)


def _take_in(conv: nn.Conv2d | nn.ConvTranspose2d, norm: BatchNorm) -> None:
    """Let a convolution do the work of the norm behind it."""
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + EPS)
    shift = norm.bias.double() - norm.running_mean.double() * scale
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    outputs = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    weight = conv.weight.double() * scale.view(outputs)
    conv.weight = nn.Parameter(weight.float())
    conv.bias = nn.Parameter(shift.float())

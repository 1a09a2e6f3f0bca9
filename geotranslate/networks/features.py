"""What images look like in numbers: a fixed convolutional network that takes any bands."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

SCALES = (1, 2, 4, 8)
"""Sides in pixels of the squares whose means are the pixels that the layers see."""

WIDTHS = (32, 64)
"""Channels of the layers, where their weights are drawn."""

SIDE = 3
"""Of the convolutions, in pixels."""


class Features(nn.Module):
    """Describes an image by what a few convolutions answer to it, at several scales.

    The same layers look at the image in each of `SCALES`. A layer is a convolution of 3 x 3 px
    without padding and ReLU; before the second and any further one, each 2 x 2 px become their
    mean. The features are mean and standard deviation over the image of every channel.

    Attributes:
        bands: channels of the images.
        widths: channels of the layers.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take over weights.

        Args:
            layers: weight (out, in, 3, 3) and bias (out,) of each; one takes what the one before
                gives.
        """
        super().__init__()
        self.bands = layers[0][0].shape[1]
        self.widths = [len(bias) for _, bias in layers]
        self.layers = nn.ModuleList()
        for weight, bias in layers:
            # Weights of its own would be drawn from the numbers that others rely on.
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], SIDE, device="meta")
            layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
            self.layers.append(layer)
        self.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def forward(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """Features (N, features) of images (N, C, H, W) in [-1, 1], in float32.

        Args:
            images: of any size; layers that they are too small for answer 0.
            valid: (N, 1, H, W) of 0 and 1. An answer to a square that holds an invalid pixel does
                not count; where none counts, features are 0.
        """
        with torch.autocast(images.device.type, enabled=False):
            seen = torch.ones_like(images[:, :1]) if valid is None else valid
            seen = seen.float()
            images = torch.where(seen > 0, images.float(), 0.0)
            scales = [self._look(*_halved(images, seen, scale)) for scale in SCALES]
            return torch.cat(scales, dim=1)

    def _look(self, images: Tensor, seen: Tensor) -> Tensor:
        features = []
        for number, layer in enumerate(self.layers):
            if number:
                images, seen = _halved(images, seen, 2)
            if min(images.shape[-2:]) < SIDE:
                features.append(images.new_zeros(len(images), 2 * sum(self.widths[number:])))
                break
            images = functional.relu(layer(images))
            seen = _whole(functional.avg_pool2d(seen, SIDE, stride=1))
            features.append(_moments(images, seen))
        return torch.cat(features, dim=1)


def _halved(images: Tensor, seen: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Means over squares of ``scale`` px, and which squares are seen whole."""
    if min(images.shape[-2:]) < scale:
        return images[..., :0, :0], seen[..., :0, :0]
    return functional.avg_pool2d(images, scale), _whole(functional.avg_pool2d(seen, scale))


def _whole(shares: Tensor) -> Tensor:
    return (shares > 1 - 1e-4).to(shares.dtype)


def _moments(answers: Tensor, seen: Tensor) -> Tensor:
    """Mean and standard deviation of each channel over what is seen, (N, 2 C)."""
    count = seen.sum((2, 3)).clamp(min=1)
    mean = (answers * seen).sum((2, 3)) / count
    deviations = (answers - mean[..., None, None]) * seen
    return torch.cat([mean, (deviations.square().sum((2, 3)) / count).sqrt()], dim=1)


def random_features(bands: int, seed: int = 0) -> Features:
    """Features with drawn weights, the same for the same bands and seed.

    Random filters tell textures apart nearly as well as learned ones (Saxe et al. 2011), and take
    any bands. Weights are from N(0, 2 / (9 in)) (He et al. 2015), biases from N(0, 0.1). Half of
    the first filters sum to zero in each band and have no bias: these see detail alone, which
    brightness would drown.
    """
    generator = torch.Generator().manual_seed(seed)
    layers, channels = [], bands
    for width in WIDTHS:
        spread = (2 / (channels * SIDE * SIDE)) ** 0.5
        weight = torch.randn(width, channels, SIDE, SIDE, generator=generator) * spread
        bias = torch.randn(width, generator=generator) * 0.1**0.5
        layers.append((weight, bias))
        channels = width
    weight, bias = layers[0]
    blind = len(weight) // 2
    weight[:blind] -= weight[:blind].mean((2, 3), keepdim=True)
    bias[:blind] = 0
    return Features(layers)

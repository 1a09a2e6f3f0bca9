"""The ways a square can lie: four quarter turns, each plain or mirrored."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geotranslate.networks.build import Generator
from geotranslate.networks.context import PLAIN, Context

TURNS = 8
"""How many there are; turn 0 leaves an image as it lies."""

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""In which they are taken where not all are: as it lies, upside down, both mirrored, the rest."""


def turned(image: Tensor, turn: int) -> Tensor:
    """Images (..., rows, cols) after ``turn % 4`` quarter turns, mirrored from turn 4 on."""
    image = torch.rot90(image, turn % 4, (-2, -1))
    return image.flip(-1) if turn >= 4 else image


def turned_back(image: Tensor, turn: int) -> Tensor:
    """What `turned` made of an image, as it lay before."""
    image = image.flip(-1) if turn >= 4 else image
    return torch.rot90(image, -(turn % 4), (-2, -1))


class TurnedMean(nn.Module):
    """A generator that translates each image as it lies and turned, and gives the mean.

    What a generator makes of a pixel changes a little with the way the image lies; the mean over
    ways is nearer to the truth and calmer ("geometric self-ensemble", Lim et al. 2017, section
    3.4). A fixed function of the pixels in reach stays one.

    Attributes:
        generator: what translates.
        turns: the ways, as `turned` counts them.
        in_channels, out_channels, stride, halo, minimum_side: the generator's own.
    """

    def __init__(self, generator: Generator, count: int) -> None:
        """Take a generator in evaluation mode and the number of ways: 2, 4 or 8."""
        super().__init__()
        self.generator = generator
        self.turns = ORDER[:count]
        self.in_channels, self.out_channels = generator.in_channels, generator.out_channels
        self.stride, self.halo = generator.stride, generator.halo
        self.minimum_side = generator.minimum_side

    def forward(self, x: Tensor, context: Context = PLAIN) -> Tensor:
        """Translate ``x`` (N, C, H, W) in [-1, 1]; the result is float32 in (-1, 1)."""
        total = torch.zeros((), device=x.device)
        for turn in self.turns:
            valid = None if context.valid is None else turned(context.valid, turn)
            image = turned(x, turn).contiguous(memory_format=torch.channels_last)
            translated = self.generator(image, context._replace(valid=valid))
            total = total + turned_back(translated, turn)
        return total / len(self.turns)

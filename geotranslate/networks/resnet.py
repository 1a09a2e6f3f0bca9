"""The generator of CycleGAN: few halvings and a row of residual blocks."""

import math

import torch
from torch import Tensor, nn

from geotranslate.choices import Norm, Upsample
from geotranslate.networks.context import PLAIN, Chain, Context, Contextual
from geotranslate.networks.geometry import halo_of, layers_of, require_sides, total_stride
from geotranslate.networks.layers import (
    LastConvolution,
    ReflectionPad,
    in_float32,
    initialize_generator,
)
from geotranslate.networks.norms import CENTRED, NORMS, ChannelNorm


class ResidualBlock(Contextual):
    """Two convolutions whose result is added to what came in; no activation after the sum."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        bias = norm not in CENTRED
        self.change = Chain(
            ReflectionPad(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            NORMS[norm](channels),
            nn.ReLU(inplace=True),
            ReflectionPad(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            NORMS[norm](channels),
        )

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Change ``x`` a little."""
        changed: Tensor = x + self.change(x, context)
        return changed

    @torch.no_grad()
    def begin_without_change(self, blocks: int) -> None:
        """Let a block that is one of ``blocks`` in a row begin by giving what it is given.

        Where no norm with statistics of many pixels holds the values together, the changes of a
        row of random blocks would drown what came in. With channel norm the last scale is 0 (Goyal
        et al. 2017, section 5.1). Without norms the last convolution is 0 and the first one is
        scaled (Fixup, Zhang et al. 2019, section 3, for two layers a block).
        """
        last = self.change.layers[-1]
        if isinstance(last, ChannelNorm):
            last.weight.zero_()
            return
        first, second = (each for each in self.change.layers if isinstance(each, nn.Conv2d))
        first.weight.div_(math.sqrt(blocks))
        second.weight.zero_()


class ResnetGenerator(nn.Module):
    """Translates images of ``in_channels`` bands into ``out_channels`` bands of the same size.

    A 7 x 7 convolution, two halvings, ``blocks`` residual blocks, two doublings, a 7 x 7
    convolution, tanh (Johnson et al. 2016, with the widths of Zhu et al. 2017: 9 blocks for images
    of 256 px and more, 6 for 128 px).

    Attributes:
        in_channels, out_channels: bands of what goes in and of what comes out.
        stride: window sides must be multiples of it.
        halo: pixels around a core that its values depend on, rounded up to a multiple of `stride`.
        minimum_side: the smallest image it takes.
    """

    minimum_side = 8  # of which 2 px remain inside, the least that can be reflected

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = "batch",
        upsample: Upsample = "transposed",
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        bias = norm not in CENTRED
        self.body = Chain(
            ReflectionPad(3),
            nn.Conv2d(in_channels, width, 7, bias=bias),
            *(NORMS[norm](width), nn.ReLU(inplace=True)),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias),
            *(NORMS[norm](2 * width), nn.ReLU(inplace=True)),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1, bias=bias),
            *(NORMS[norm](4 * width), nn.ReLU(inplace=True)),
            *(ResidualBlock(4 * width, norm) for _ in range(blocks)),
            doubling(upsample, 4 * width, 2 * width, bias=bias),
            *(NORMS[norm](2 * width), nn.ReLU(inplace=True)),
            doubling(upsample, 2 * width, width, bias=bias),
            *(NORMS[norm](width), nn.ReLU(inplace=True)),
        )
        self.head = nn.Sequential(
            ReflectionPad(3), LastConvolution(width, out_channels, 7), nn.Tanh()
        )
        initialize_generator(self, self.head, norm)
        if norm in ("channel", "none"):
            for layer in self.body.layers:
                if isinstance(layer, ResidualBlock):
                    layer.begin_without_change(blocks)
        layers = layers_of(self)
        self.stride = total_stride(layers)
        self.halo = halo_of(layers)

    def forward(self, x: Tensor, context: Context = PLAIN) -> Tensor:
        """Translate ``x`` (N, C, H, W) in [-1, 1]; the result is float32 in (-1, 1)."""
        require_sides(x, stride=self.stride, minimum=self.minimum_side)
        return in_float32(self.head, self.body(x, context))


def doubling(upsample: Upsample, in_channels: int, out_channels: int, *, bias: bool) -> nn.Module:
    """A convolution that doubles both sides."""
    if upsample == "transposed":
        return nn.ConvTranspose2d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=bias
        )
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        ReflectionPad(1),
        nn.Conv2d(in_channels, out_channels, 3, bias=bias),
    )

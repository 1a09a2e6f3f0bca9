"""The generator of pix2pix: halvings to a few pixels, and back with what was seen on the way."""

import torch
from torch import Tensor, nn

from geotranslate.choices import Norm, Upsample
from geotranslate.networks.context import PLAIN, Chain, Context
from geotranslate.networks.geometry import halo_of, layers_of, require_sides, total_stride
from geotranslate.networks.layers import in_float32, initialize_generator
from geotranslate.networks.norms import CENTRED, NORMS


class UnetGenerator(nn.Module):
    """Translates images of ``in_channels`` bands into ``out_channels`` bands of the same size.

    ``depth`` halvings and as many doublings; each doubling sees what the halving of its size gave
    (Isola et al. 2017; 8 for images of 256 px, 7 for 128 px). The paper's dropout is left out: it
    stood for noise that the network learned to ignore, and it made predictions differ by run.

    The halo is exact for any depth, but it doubles with each step. And a network that has learned
    on crops of about ``2**depth`` px has always seen its rim there, and meets at prediction what
    it has never seen: for scenes choose a depth that leaves crops several strides wide.

    Attributes:
        in_channels, out_channels: bands of what goes in and of what comes out.
        stride: window sides must be multiples of it, ``2**depth``.
        halo: pixels around a core that its values depend on, rounded up to a multiple of `stride`.
        minimum_side: the smallest image it takes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 64,
        depth: int = 8,
        norm: Norm = "batch",
        upsample: Upsample = "transposed",
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        bias = norm not in CENTRED
        widths = [width * min(2**level, 8) for level in range(depth)]

        self.down = nn.ModuleList([Chain(halving(in_channels, width, bias=bias))])
        for level in range(1, depth):
            conv = halving(widths[level - 1], widths[level], bias=bias)
            innermost = level == depth - 1  # too few positions for statistics
            rest: list[nn.Module] = [] if innermost else [NORMS[norm](widths[level])]
            self.down.append(Chain(nn.LeakyReLU(0.2), conv, *rest))

        self.up = nn.ModuleList()
        for level in range(depth - 1, 0, -1):
            beside = 1 if level == depth - 1 else 2  # the same again from the skip connection
            conv = doubling(upsample, beside * widths[level], widths[level - 1], bias=bias)
            self.up.append(Chain(nn.ReLU(), conv, NORMS[norm](widths[level - 1])))
        self.head = nn.Sequential(
            nn.ReLU(), doubling(upsample, 2 * width, out_channels, bias=True), nn.Tanh()
        )

        initialize_generator(self, self.head, norm)
        layers = layers_of(self)
        self.stride = self.minimum_side = total_stride(layers)
        self.halo = halo_of(layers)

    def forward(self, x: Tensor, context: Context = PLAIN) -> Tensor:
        """Translate ``x`` (N, C, H, W) in [-1, 1]; the result is float32 in (-1, 1)."""
        require_sides(x, stride=self.stride, minimum=self.minimum_side)
        seen = []
        for down in self.down:
            x = down(x, context)
            seen.append(x)
        seen.pop()
        for up in self.up:
            x = torch.cat([seen.pop(), up(x, context)], dim=1)
        return in_float32(self.head, x)


def halving(in_channels: int, out_channels: int, *, bias: bool) -> nn.Module:
    """A convolution that halves both sides."""
    return nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)


def doubling(upsample: Upsample, in_channels: int, out_channels: int, *, bias: bool) -> nn.Module:
    """A convolution that doubles both sides."""
    if upsample == "transposed":
        return nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias),
    )

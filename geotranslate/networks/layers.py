"""What more than one network is built with."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from geotranslate.choices import Norm
from geotranslate.networks.norms import BatchNorm, ChannelNorm
from geotranslate.networks.statistics import precise

Convolution = nn.Conv2d | nn.ConvTranspose2d


def in_float32(head: nn.Module, x: Tensor) -> Tensor:
    """Run the last layers in float32, also where the others run in bfloat16.

    bfloat16 has 8 bits of precision: through the last convolution and tanh it would leave steps
    of 20 in reflectance x 10000.
    """
    with torch.autocast(x.device.type, enabled=False):
        result: Tensor = head(precise(x))
    return result


class ReflectionPad(nn.ReflectionPad2d):
    """Pixels mirrored around the image, in the arithmetic of the image.

    Autocast on CPUs would compute it in float32, so that the convolution after it turns all of it
    back to bfloat16, though pixels are only copied. On the way back the gradients of a pixel and
    its mirror images are added in that arithmetic too.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Pad ``input`` (N, C, H, W)."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input)


class LastConvolution(nn.Conv2d):
    """A convolution to a few bands, without padding and stride.

    A CPU computes 16 channels of a convolution at once, be there but 3. So here the rows of the
    kernel become channels of a convolution along the rows, whose results are then added up: half
    the time for 3 bands and a kernel of 7 x 7, and the same but for rounding.
    """

    few = 8
    """Bands up to which this pays."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Convolve ``input`` (N, C, H, W)."""
        if input.device.type != "cpu" or self.out_channels > self.few:
            return super().forward(input)
        kernel_rows = self.weight.shape[2]
        rows = input.shape[2] - kernel_rows + 1
        by_row = self.weight.permute(2, 0, 1, 3).flatten(0, 1).unsqueeze(2)
        parts = functional.conv2d(input, by_row).chunk(kernel_rows, dim=1)
        total = parts[0][:, :, :rows]
        for row in range(1, kernel_rows):
            total = total + parts[row][:, :, row : row + rows]
        return total if self.bias is None else total + self.bias[:, None, None]


def initialize(network: nn.Module) -> None:
    """Draw convolution weights from N(0, 0.02), norm weights from N(1, 0.02); all biases are 0.

    As in Isola et al. 2017 and Zhu et al. 2017; the numbers come from torch's global generator.
    """
    for module in network.modules():
        if isinstance(module, Convolution):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, BatchNorm | ChannelNorm):
            nn.init.normal_(module.weight, 1.0, 0.02)


def initialize_generator(generator: nn.Module, head: nn.Module, norm: Norm) -> None:
    """Draw the weights that a generator begins to learn with.

    They are those of `initialize`, but for two norms. With ``channel`` the biases before it are
    from N(0, 0.1): without them its input would grow in proportion to the pixels, and since that
    is what it divides by, pixels of twice the value would come out alike. With ``none`` the
    weights keep the spread of what goes through (He et al. 2015), but for the last ones, which
    stay small so that the output begins in the middle of its range.

    Args:
        generator: to draw weights for.
        head: its last layers.
        norm: what stands between its layers.
    """
    initialize(generator)
    last = set(head.modules())
    for module in generator.modules():
        if not isinstance(module, Convolution) or module in last:
            continue
        if norm == "channel" and module.bias is not None:
            nn.init.normal_(module.bias, 0.0, 0.1)
        elif norm == "none":
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / _summands(module)))


def _summands(conv: nn.Conv2d | nn.ConvTranspose2d) -> float:
    """How many products make one number of a convolution's output."""
    taps = conv.in_channels * math.prod(conv.kernel_size)
    # A transposed one spreads each number over several, so that fewer come together in each.
    return taps / math.prod(conv.stride) if isinstance(conv, nn.ConvTranspose2d) else taps

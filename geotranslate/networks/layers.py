"""What more than one network is built with."""

import torch
from torch import Tensor, nn

from geotranslate.networks.norms import BatchNorm


def in_float32(head: nn.Module, x: Tensor) -> Tensor:
    """Run the last layers in float32, also where the others run in bfloat16.

    bfloat16 has 8 bits of precision: through the last convolution and tanh it would leave steps
    of 20 in reflectance x 10000.
    """
    with torch.autocast(x.device.type, enabled=False):
        result: Tensor = head(x.float())
    return result


def initialize(network: nn.Module) -> None:
    """Draw convolution weights from N(0, 0.02), norm weights from N(1, 0.02); all biases are 0.

    As in Isola et al. 2017 and Zhu et al. 2017; the numbers come from torch's global generator.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, BatchNorm):
            nn.init.normal_(module.weight, 1.0, 0.02)

"""The discriminator of pix2pix and CycleGAN: one score for each patch of an image."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from geotranslate.choices import DiscriminatorNorm
from geotranslate.errors import SettingError
from geotranslate.networks.context import PLAIN, Chain, Context
from geotranslate.networks.geometry import layers_of, receptive_field
from geotranslate.networks.layers import initialize
from geotranslate.networks.norms import NORMS


class SpectralNorm(nn.Module):
    """Divides a weight by its largest singular value (Miyato et al. 2018).

    The value is estimated by one step of the power method each time the weight is used in
    training. Other than torch's own it stays in float32 under autocast.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, first_steps: int = 15) -> None:
        super().__init__()
        rows = weight.detach().flatten(1)
        self.register_buffer(
            "u", functional.normalize(rows.new_empty(rows.shape[0]).normal_(), dim=0)
        )
        self.register_buffer(
            "v", functional.normalize(rows.new_empty(rows.shape[1]).normal_(), dim=0)
        )
        for _ in range(first_steps):
            self._step(rows)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with a largest singular value of about 1."""
        with torch.autocast(weight.device.type, enabled=False):
            rows = weight.flatten(1)
            if self.training:
                self._step(rows)
            # Copies, since the next call changes the vectors before this one's backward reads them.
            largest = self.u.clone() @ rows @ self.v.clone()
            return weight / largest

    @torch.no_grad()
    def _step(self, rows: Tensor) -> None:
        """One step of the power method for the first pair of singular vectors."""
        self.u.copy_(functional.normalize(rows @ self.v, dim=0))
        self.v.copy_(functional.normalize(self.u @ rows, dim=0))


class PatchGAN(nn.Module):
    """Scores overlapping patches of an image: high where it takes them for real.

    ``layers`` halvings by 4 x 4 convolutions, then one at that size, then the scores (Isola et al.
    2017): a patch is 70 px wide with 3 layers, 16 / 34 / 142 / 286 with 1 / 2 / 4 / 5.

    Attributes:
        field: the patch that one score judges.
        minimum_side: the smallest image it takes.
    """

    def __init__(
        self,
        in_channels: int,
        width: int = 64,
        layers: int = 3,
        norm: DiscriminatorNorm = "spectral",
    ) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(layers + 1)]
        normalize = NORMS["instance" if norm == "instance" else "none"]

        parts: list[nn.Module] = [conv(in_channels, width, stride=2), nn.LeakyReLU(0.2)]
        for level in range(1, layers + 1):
            parts += [
                conv(widths[level - 1], widths[level], stride=2 if level < layers else 1),
                normalize(widths[level]),
                nn.LeakyReLU(0.2),
            ]
        self.body = Chain(*parts, conv(widths[-1], 1, stride=1))

        self.field = receptive_field(layers_of(self))
        self.minimum_side = self.field.size - 2 * self.field.padding
        initialize(self)
        if norm == "spectral":
            for layer in layers_of(self):
                if isinstance(layer, nn.Conv2d):
                    parametrize.register_parametrization(
                        layer, "weight", SpectralNorm(layer.weight)
                    )

    def forward(self, x: Tensor, context: Context = PLAIN) -> Tensor:
        """Score ``x`` (N, C, H, W) in [-1, 1]; the result is (N, 1, rows of patches, cols)."""
        if min(x.shape[-2:]) < self.minimum_side:
            raise SettingError(
                f"the image is {x.shape[-1]} x {x.shape[-2]} px, too small for one score of a "
                f"discriminator that sees patches of {self.field.size} px. Train on crops of at "
                f"least {self.minimum_side} px, or give the discriminator fewer layers."
            )
        scores: Tensor = self.body(x, context)
        return scores


def conv(in_channels: int, out_channels: int, *, stride: int) -> nn.Module:
    """The discriminator's convolution, 4 x 4."""
    return nn.Conv2d(in_channels, out_channels, 4, stride=stride, padding=1)

"""From a network's settings, as they stand in a bundle, to the network."""

from pydantic import BaseModel, Field

from geotranslate.choices import DiscriminatorNorm, GeneratorKind, Norm, Upsample
from geotranslate.networks.patchgan import PatchGAN
from geotranslate.networks.resnet import ResnetGenerator
from geotranslate.networks.unet import UnetGenerator

Generator = ResnetGenerator | UnetGenerator


class GeneratorSpec(BaseModel, frozen=True, extra="forbid"):
    """What a generator is, apart from its bands."""

    kind: GeneratorKind = "resnet"
    """``resnet`` has an exact halo of less than 100 px; ``unet`` is quicker and sees further."""

    width: int = Field(default=64, ge=1)
    """Channels of the first layer; the others follow from it."""

    blocks: int = Field(default=9, ge=1)
    """Residual blocks of a resnet: 9 for images of 256 px and more, 6 for 128 px."""

    depth: int = Field(default=8, ge=5, le=8)
    """Halvings of a unet; image sides must be multiples of 2**depth."""

    norm: Norm = "batch"
    """``batch`` and, for small batches, ``renorm`` have statistics of the data set, ``channel`` of
    each pixel alone; ``instance``, the papers', of each window."""

    upsample: Upsample = "transposed"
    """``transposed`` convolution, or ``resize``: repeat each pixel, then an ordinary one."""


class DiscriminatorSpec(BaseModel, frozen=True, extra="forbid"):
    """What a PatchGAN discriminator is, apart from its bands."""

    width: int = Field(default=64, ge=1)
    """Channels of the first layer; the others follow from it."""

    layers: int = Field(default=3, ge=1, le=5)
    """Halvings; a patch is 16, 34, 70, 142 or 286 px wide."""

    norm: DiscriminatorNorm = "spectral"
    """``spectral`` sees absolute colour and stays in balance; ``instance`` is the papers'."""


def build_generator(spec: GeneratorSpec, in_channels: int, out_channels: int) -> Generator:
    """A generator with weights drawn from torch's global random numbers."""
    if spec.kind == "resnet":
        return ResnetGenerator(
            in_channels, out_channels, spec.width, spec.blocks, spec.norm, spec.upsample
        )
    return UnetGenerator(
        in_channels, out_channels, spec.width, spec.depth, spec.norm, spec.upsample
    )


def build_discriminator(spec: DiscriminatorSpec, in_channels: int) -> PatchGAN:
    """A discriminator with weights drawn from torch's global random numbers."""
    return PatchGAN(in_channels, spec.width, spec.layers, spec.norm)

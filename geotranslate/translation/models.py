"""The ways of learning a translation, and how one is made from its settings."""

from __future__ import annotations

import torch

from geotranslate.networks.build import (
    DiscriminatorSpec,
    GeneratorSpec,
    build_discriminator,
    build_generator,
)
from geotranslate.translation.cyclegan import CycleGAN, CycleGANConfig
from geotranslate.translation.pix2pix import Pix2Pix, Pix2PixConfig

Model = Pix2Pix | CycleGAN


def build_model(
    config: Pix2PixConfig | CycleGANConfig,
    generator: GeneratorSpec,
    discriminator: DiscriminatorSpec,
    *,
    bands_a: int,
    bands_b: int,
    seed: int,
) -> Model:
    """A model that has learned nothing yet, on the CPU; its kind is that of its config.

    Args:
        config: what it strives for.
        generator: architecture of each generator.
        discriminator: architecture of each discriminator.
        bands_a: bands of domain A.
        bands_b: bands of domain B.
        seed: of the first weights. Torch's global random numbers are left as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        g_ab = build_generator(generator, bands_a, bands_b)
        if isinstance(config, Pix2PixConfig):
            return Pix2Pix(g_ab, build_discriminator(discriminator, bands_a + bands_b), config)
        g_ba = build_generator(generator, bands_b, bands_a)
        d_a = build_discriminator(discriminator, bands_a)
        d_b = build_discriminator(discriminator, bands_b)
        return CycleGAN(g_ab, g_ba, d_a, d_b, config)

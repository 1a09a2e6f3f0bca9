"""Folding: the same result with fewer layers."""

import pytest
import torch
from torch import Tensor, nn

from geotranslate.choices import GENERATORS, UPSAMPLES
from geotranslate.networks.build import Generator, GeneratorSpec, build_generator
from geotranslate.networks.context import Contextual
from geotranslate.networks.fold import fold
from geotranslate.networks.norms import BatchNorm
from geotranslate.networks.scene_statistics import measure_statistics, with_statistics

FOLDED = ("batch", "renorm", "scene")
"""Norms of which nothing stays; instance norm with the statistics of a scene is one."""


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 2, 64, 96, generator=torch.Generator().manual_seed(seed)) / 2


def learned(kind: str, norm: str, upsample: str = "transposed") -> Generator:
    """A generator with statistics and affines of its own in every norm."""
    torch.manual_seed(0)
    built = "instance" if norm == "scene" else norm
    spec = GeneratorSpec(kind=kind, width=4, blocks=2, depth=5, norm=built, upsample=upsample)
    network = build_generator(spec, 2, 3).eval()
    for module in network.modules():
        if isinstance(module, BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.2, 2)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5)
    if norm == "scene":
        return with_statistics(network, measure_statistics(network, images()))
    return network


@pytest.mark.parametrize("upsample", UPSAMPLES)
@pytest.mark.parametrize("norm", FOLDED)
@pytest.mark.parametrize("kind", GENERATORS)
@torch.no_grad()
def test_a_folded_generator_gives_the_same_without_its_norms(kind, norm, upsample) -> None:
    network = learned(kind, norm, upsample)
    folded, x = fold(network), images(1)
    expected = network(x)
    assert expected.std() > 0.1
    torch.testing.assert_close(folded(x), expected, atol=1e-5, rtol=0)
    assert not any(isinstance(module, BatchNorm) for module in folded.modules())
    assert any(isinstance(module, BatchNorm) for module in network.modules())
    for name in ("in_channels", "out_channels", "stride", "halo", "minimum_side"):
        assert getattr(folded, name) == getattr(network, name)


@pytest.mark.parametrize("norm", ["instance", "channel", "none"])
@torch.no_grad()
def test_norms_that_look_at_the_pixels_stay(norm) -> None:
    network = learned("resnet", norm)
    folded, x = fold(network), images(1)
    assert [type(m) for m in folded.modules()] == [type(m) for m in network.modules()]
    assert torch.equal(folded(x), network(x))


@pytest.mark.parametrize("norm", FOLDED)
def test_folding_keeps_channels_last_and_leaves_the_original_as_it_is(norm) -> None:
    network = learned("resnet", norm).to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold(network)
    weights = [p for p in folded.parameters() if p.dim() == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    assert not any(p.requires_grad for p in folded.parameters())
    assert not any(isinstance(m, Contextual) and not list(m.children()) for m in folded.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])

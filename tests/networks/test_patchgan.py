"""The discriminator: published sizes, its patches, and spectral norm."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from geotranslate.choices import DISCRIMINATOR_NORMS
from geotranslate.errors import SettingError
from geotranslate.networks.build import DiscriminatorSpec, build_discriminator
from geotranslate.networks.geometry import ReceptiveField
from geotranslate.networks.patchgan import PatchGAN, SpectralNorm


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("norm", DISCRIMINATOR_NORMS)
def test_parameters_are_those_of_the_papers(norm) -> None:
    assert parameters(PatchGAN(3, norm=norm)) == 2_764_737
    # pix2pix counts 2.769 M for 3 + 3 bands: its batch norm has a scale and a shift for each of
    # 128 + 256 + 512 channels, where these convolutions have a bias.
    assert parameters(PatchGAN(6, norm=norm)) + 128 + 256 + 512 == 2_768_705


@pytest.mark.parametrize(("layers", "size"), [(1, 16), (2, 34), (3, 70), (4, 142), (5, 286)])
def test_the_patch_of_a_score_is_the_published_one_and_the_one_it_reads(layers, size) -> None:
    network = PatchGAN(1, width=1, layers=layers, norm="none").double()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1.0)
    field = network.field
    assert field.size == size
    x = torch.ones(1, 1, network.minimum_side, 3 * size, dtype=torch.float64, requires_grad=True)
    scores = network(x)
    middle = scores.shape[-1] // 2
    (gradient,) = torch.autograd.grad(scores[..., middle].sum(), x)
    touched = gradient[0, 0].sum(0).nonzero().flatten()
    start = middle * field.stride - field.padding
    assert (touched.min(), touched.max()) == (start, start + size - 1)


def test_the_patch_of_three_layers() -> None:
    assert PatchGAN(3, width=1).field == ReceptiveField(size=70, stride=8, padding=23)


@pytest.mark.parametrize("layers", [1, 3, 5])
def test_an_image_too_small_for_a_score_is_refused_with_the_mend(layers) -> None:
    network = build_discriminator(DiscriminatorSpec(width=2, layers=layers, norm="none"), 3)
    side = network.minimum_side
    assert network(torch.randn(1, 3, side, side)).shape == (1, 1, 1, 1)
    with pytest.raises(SettingError, match=f"crops of at least {side} px"):
        network(torch.randn(1, 3, side, side - 1))


def test_spectral_norm_equals_torchs() -> None:
    torch.manual_seed(0)
    ours, weight = SpectralNorm(torch.randn(8, 3, 4, 4)), torch.randn(8, 3, 4, 4)
    layer = nn.Conv2d(3, 8, 4)
    with torch.no_grad():
        layer.weight.copy_(weight)
    theirs = parametrizations.spectral_norm(layer).parametrizations.weight[0]
    theirs._u.copy_(ours.u)
    theirs._v.copy_(ours.v)
    for _ in range(3):
        torch.testing.assert_close(ours(weight), theirs(weight))
    ours.eval(), theirs.eval()
    for new in (weight, torch.randn(8, 3, 4, 4), weight):
        torch.testing.assert_close(ours(new), theirs(new))


def test_spectral_norm_holds_the_largest_singular_value_at_one() -> None:
    torch.manual_seed(0)
    network = PatchGAN(3, width=8)
    for _ in range(50):
        network(torch.zeros(1, 3, 24, 24))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
            assert float(largest) == pytest.approx(1, abs=0.05)


def test_two_calls_before_one_backward_are_allowed() -> None:
    network = PatchGAN(3, width=4)
    real, fake = network(torch.randn(1, 3, 32, 32)), network(torch.randn(1, 3, 32, 32))
    (real - fake).mean().backward()


def test_spectral_norm_stays_float32_under_autocast() -> None:
    torch.manual_seed(0)
    norm, weight = SpectralNorm(torch.randn(8, 3, 4, 4)).eval(), torch.randn(8, 3, 4, 4)
    exact = norm(weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(norm(weight), exact)

"""Generators: any bands, the published sizes, and a halo beyond which nothing matters."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geotranslate.choices import GENERATORS, NORMS, UPSAMPLES
from geotranslate.errors import SettingError
from geotranslate.networks.build import Generator, GeneratorSpec, build_generator
from geotranslate.networks.context import Context
from geotranslate.networks.norms import BatchNorm
from geotranslate.networks.resnet import ResnetGenerator
from geotranslate.networks.unet import UnetGenerator

few = settings(deadline=None, max_examples=12)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def small(kind: str, norm: str = "batch", upsample: str = "transposed") -> Generator:
    torch.manual_seed(0)
    spec = GeneratorSpec(kind=kind, width=4, blocks=2, depth=5, norm=norm, upsample=upsample)
    return build_generator(spec, 2, 3)


def test_parameters_are_those_of_the_papers() -> None:
    with torch.device("meta"):
        assert parameters(ResnetGenerator(3, 3, norm="instance")) == 11_378_179
        assert parameters(ResnetGenerator(2, 13, norm="instance")) == 11_406_413
        assert parameters(ResnetGenerator(3, 3, blocks=6, norm="instance")) == 7_837_699
        assert parameters(UnetGenerator(3, 3, norm="batch")) == 54_413_955
        # Batch norm has two numbers a channel where a convolution without it has one bias.
        extra = 64 + 128 + 256 + 9 * 2 * 256 + 128 + 64
        assert parameters(ResnetGenerator(3, 3, norm="batch")) == 11_378_179 + extra


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("upsample", UPSAMPLES)
@pytest.mark.parametrize("bands", [(1, 4), (2, 13), (12, 3)])
def test_any_bands_go_in_and_out_and_height_and_width_stay(kind, norm, upsample, bands) -> None:
    spec = GeneratorSpec(kind=kind, width=4, blocks=1, depth=5, norm=norm, upsample=upsample)
    network = build_generator(GeneratorSpec.model_validate_json(spec.model_dump_json()), *bands)
    fake = network(torch.randn(1, bands[0], 64, 96))
    assert fake.shape == (1, bands[1], 64, 96)
    assert fake.abs().max() <= 1


@pytest.mark.parametrize("kind", GENERATORS)
def test_first_weights_are_drawn_as_in_the_papers(kind) -> None:
    torch.manual_seed(0)
    spec = GeneratorSpec(kind=kind, width=16, blocks=4, depth=5, norm="batch")
    network = build_generator(spec, 3, 3)
    drawn, scales = [], []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            drawn.append(module.weight.detach().flatten())
            assert module.bias is None or module.bias.eq(0).all()
        elif isinstance(module, BatchNorm):
            scales.append(module.weight.detach())
            assert module.bias.eq(0).all()
    assert float(torch.cat(drawn).std()) == pytest.approx(0.02, rel=0.02)
    assert abs(torch.cat(drawn).mean()) < 1e-3
    assert float(torch.cat(scales).mean()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("norm", NORMS)
def test_under_bfloat16_the_last_step_is_float32(kind, norm) -> None:
    network = small(kind, norm).to(memory_format=torch.channels_last)
    last: list[torch.dtype] = []
    network.head.register_forward_hook(lambda module, args, result: last.append(args[0].dtype))
    x = torch.randn(1, 2, 64, 64).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fake = network(x)
    assert last == [torch.float32]
    assert fake.dtype == torch.float32
    assert torch.unique(fake).numel() > 5_000  # bfloat16 has some hundreds of values in this range
    torch.testing.assert_close(fake, network(x), atol=0.05, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_a_generator_keeps_channels_last_throughout(norm) -> None:
    network = small("resnet", norm).to(memory_format=torch.channels_last)
    lost: list[str] = []

    def look(module: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
        if not result.is_contiguous(memory_format=torch.channels_last):
            lost.append(type(module).__name__)

    for module in network.modules():
        module.register_forward_hook(look)
    x = torch.randn(2, 2, 32, 32).to(memory_format=torch.channels_last)
    network(x)
    network(x, Context(torch.ones(2, 1, 32, 32), groups=2))
    assert lost == []


@pytest.mark.parametrize(("blocks", "halo"), [(9, 84), (6, 60)])
def test_the_halo_of_the_papers_networks(blocks, halo) -> None:
    network = ResnetGenerator(1, 1, width=1, blocks=blocks)
    assert (network.stride, network.halo) == (4, halo)


def averaging(network: Generator) -> Generator:
    """The same network with positive weights and no bends, in which every pixel read counts."""
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1.0)
    for name, module in network.named_modules():
        if isinstance(module, nn.Tanh):
            network.set_submodule(name, nn.Identity())
    return network.eval()


@few
@given(
    kind=st.sampled_from(GENERATORS),
    blocks=st.integers(1, 9),
    upsample=st.sampled_from(UPSAMPLES),
    core=st.integers(1, 3),
)
def test_the_pixels_a_core_depends_on_are_those_of_the_halo(kind, blocks, upsample, core) -> None:
    spec = GeneratorSpec(kind=kind, width=1, blocks=blocks, depth=5, norm="none", upsample=upsample)
    network = averaging(build_generator(spec, 1, 1))
    stride, halo = network.stride, network.halo
    side = core * stride + 2 * (halo + stride)
    start, stop = halo + stride, halo + stride + core * stride
    x = torch.ones(1, 1, stride * 2, side, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x)[..., start:stop].sum(), x)
    touched = gradient[0, 0].sum(0).nonzero().flatten()
    assert touched.min() >= start - halo
    assert touched.max() < stop + halo
    # No pixel more than needed: at one of the two sides the last stride of the halo is used.
    assert touched.min() < start - halo + stride or touched.max() >= stop + halo - stride


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("upsample", UPSAMPLES)
def test_a_core_read_with_its_halo_equals_the_whole_scene(kind, upsample) -> None:
    network = small(kind, "batch", upsample).eval()
    stride, halo = network.stride, network.halo
    x = torch.randn(1, 2, 2 * stride, 6 * stride + 2 * halo)
    whole = network(x)
    for start in (halo + stride, halo + 3 * stride):
        window = network(x[..., start - halo : start + 2 * stride + halo])
        core = window[..., halo : halo + 2 * stride]
        torch.testing.assert_close(core, whole[..., start : start + 2 * stride])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("share", [None, 0.7])
def test_roles_in_one_call_are_as_in_separate_calls(kind, norm, share) -> None:
    network, other = small(kind, norm), small(kind, norm)
    roles = [torch.randn(2, 2, 32, 32), torch.randn(2, 2, 32, 32) / 3]
    valid = None if share is None else (torch.rand(2, 1, 32, 32) < share).float()
    both = None if valid is None else torch.cat([valid, valid])
    together = network(torch.cat(roles), Context(both, groups=2, track=True))
    apart = [other(roles[0], Context(valid, track=True)), other(roles[1], Context(valid))]
    torch.testing.assert_close(together, torch.cat(apart))
    for mine, theirs in zip(network.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("kind", "mend"), [("resnet", "Choose 32 or 36"), ("unet", "Choose 32 or 64")]
)
def test_a_side_the_generator_cannot_take_is_refused_with_the_mend(kind, mend) -> None:
    with pytest.raises(SettingError, match=mend):
        small(kind)(torch.randn(1, 2, 64, 34))


def test_an_image_too_small_to_reflect_is_refused_with_the_mend() -> None:
    with pytest.raises(SettingError, match="Choose 8 px instead of 4"):
        small("resnet")(torch.randn(1, 2, 4, 8))
    small("resnet")(torch.randn(1, 2, 8, 8))
    small("unet")(torch.randn(1, 2, 32, 32))


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_can_be_copied_and_loaded(kind) -> None:
    network, x = small(kind), torch.randn(2, 2, 32, 32)
    network(x, Context(track=True))
    other = small(kind)
    other.load_state_dict(network.state_dict())
    for same in (other, copy.deepcopy(network)):
        assert torch.equal(same.eval()(x), network.eval()(x))
        network.train()

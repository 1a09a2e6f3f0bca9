"""Normalization: valid pixels only, each role for itself, equal to torch where torch has it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geotranslate.choices import GENERATORS
from geotranslate.choices import NORMS as NORM_NAMES
from geotranslate.errors import SettingError
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.networks.context import PLAIN, Context
from geotranslate.networks.norms import (
    NORMS,
    BatchNorm,
    BatchRenorm,
    ChannelNorm,
    InstanceNorm,
    reestimate_statistics,
)
from geotranslate.networks.resnet import ResidualBlock, ResnetGenerator
from geotranslate.networks.statistics import EPS, pooled_statistics, valid_statistics

few = settings(deadline=None, max_examples=15)


def images(*shape: int, seed: int = 0, mean: float = 0.5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2 + mean


def mask(*shape: int, share: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator) < share).float()


def test_the_table_has_the_names_a_user_can_choose() -> None:
    assert tuple(NORMS) == NORM_NAMES


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("count", [1, 3])
def test_instance_norm_equals_torchs_and_keeps_the_layout(layout, count) -> None:
    x = images(count, 5, 9, 11).contiguous(memory_format=layout).requires_grad_()
    theirs = nn.InstanceNorm2d(5)(x)
    pull = images(count, 5, 9, 11, seed=1)
    (their_gradient,) = torch.autograd.grad((theirs * pull).sum(), x)
    for context in (PLAIN, Context(valid=torch.ones(count, 1, 9, 11))):
        ours = InstanceNorm(5)(x, context)
        (gradient,) = torch.autograd.grad((ours * pull).sum(), x)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        torch.testing.assert_close(gradient, their_gradient, atol=1e-5, rtol=0)
        assert ours.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("valid", [None, torch.ones(3, 1, 9, 11)])
def test_batch_norm_equals_torchs_in_training_and_in_evaluation(layout, valid) -> None:
    x = images(3, 5, 9, 11).contiguous(memory_format=layout)
    ours, theirs = BatchNorm(5), nn.BatchNorm2d(5)
    for norm in (ours, theirs):
        nn.init.constant_(norm.weight, 1.5)
        nn.init.constant_(norm.bias, 0.5)
    for _ in range(3):
        mine = ours(x, Context(valid, track=True))
        torch.testing.assert_close(mine, theirs(x), atol=1e-5, rtol=0)
        assert mine.is_contiguous(memory_format=layout)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x, PLAIN), theirs(x), atol=1e-5, rtol=0)


def renorm(tracked: int, seed: int = 0) -> BatchRenorm:
    """A batch renormalization of 3 channels that has learned something."""
    torch.manual_seed(seed)
    norm = BatchRenorm(3)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.running_mean, 0.5, 0.3)
    nn.init.uniform_(norm.running_var, 2, 6)
    norm.tracked.fill_(tracked)
    return norm


@few
@given(
    tracked=st.sampled_from([0, 199, 200, 300, 600, 1000, 5000]),
    share=st.sampled_from([None, 0.4]),
    groups=st.sampled_from([1, 2]),
    mean=st.floats(-20, 20),
)
def test_batch_renorm_corrects_as_far_as_the_paper_lets_it(tracked, share, groups, mean) -> None:
    """Against Ioffe 2017, algorithm 1, in float64, with r and d as constants for the gradient."""
    norm = renorm(tracked)
    x = images(4, 3, 6, 6, mean=mean).requires_grad_()
    valid = None if share is None else mask(4, 1, 6, 6, share=share)
    pull = images(4, 3, 6, 6, seed=1)
    grown = min(max((tracked - 200) / 800, 0), 1)
    r_max, d_max = 1 + 2 * grown, 5 * grown

    expected = []
    for part, where in zip(
        x.double().chunk(groups),
        (torch.ones(4, 1, 6, 6) if valid is None else valid).double().chunk(groups),
        strict=True,
    ):
        count = where.sum()
        mu = (part * where).sum((0, 2, 3), keepdim=True) / count
        sigma = (((part - mu) ** 2 * where).sum((0, 2, 3), keepdim=True) / count + EPS).sqrt()
        running_mu, running_sigma, weight, bias = (
            each.double().view(1, 3, 1, 1)
            for each in (norm.running_mean, (norm.running_var + EPS).sqrt(), norm.weight, norm.bias)
        )
        r = (sigma / running_sigma).detach().clamp(1 / r_max, r_max)
        d = ((mu - running_mu) / running_sigma).detach().clamp(-d_max, d_max)
        expected.append(((part - mu) / sigma * r + d) * weight + bias)
    inputs = [x, norm.weight, norm.bias]
    wanted = torch.autograd.grad((torch.cat(expected) * pull).sum(), inputs)
    found = norm(x, Context(valid, groups=groups))
    torch.testing.assert_close(found, torch.cat(expected).float(), atol=2e-4, rtol=1e-4)
    gradients = torch.autograd.grad((found * pull).sum(), inputs)
    for gradient, right in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, right, atol=2e-3, rtol=1e-3)


def test_batch_renorm_trains_with_what_it_is_used_with_once_its_limits_have_grown() -> None:
    norm, x = renorm(tracked=1000), images(1, 3, 16, 16)
    torch.testing.assert_close(norm(x, PLAIN), norm.eval()(x, PLAIN), atol=1e-5, rtol=0)


def test_batch_renorm_remembers_the_mean_of_its_first_batches_and_then_the_latest() -> None:
    norm = BatchRenorm(3)
    batches = [images(2, 3, 8, 8, seed=seed, mean=seed) for seed in range(5)]
    for batch in batches:
        norm(batch, PLAIN)  # not tracked: leaves no trace
        norm(batch, Context(track=True))
    assert norm.tracked == 5
    torch.testing.assert_close(norm.running_mean, torch.cat(batches).mean((0, 2, 3)))
    of_each = torch.stack([batch.var((0, 2, 3)) for batch in batches])
    torch.testing.assert_close(norm.running_var, of_each.mean(0))
    norm.tracked.fill_(50_000)
    before = norm.running_mean.clone()
    norm(images(2, 3, 8, 8, mean=1000), Context(track=True))
    torch.testing.assert_close(norm.running_mean, before * 0.99 + 10, atol=0.05, rtol=0)


def test_batch_renorm_goes_on_bit_for_bit_from_what_was_saved() -> None:
    def learn(norm: BatchRenorm, seeds: range) -> list[Tensor]:
        return [norm(images(1, 3, 8, 8, seed=s, mean=s % 7), Context(track=True)) for s in seeds]

    whole = renorm(tracked=190)
    results = learn(whole, range(40))
    first, second = renorm(tracked=190), renorm(tracked=0, seed=9)
    begun = learn(first, range(20))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    for found, wanted in zip(begun + learn(second, range(20, 40)), results, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_channel_norm_looks_at_one_pixel_at_a_time(layout) -> None:
    norm = ChannelNorm(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = images(2, 4, 5, 6).contiguous(memory_format=layout)
    found = norm(x, PLAIN)
    assert found.is_contiguous(memory_format=layout)
    pixels = x.double().numpy()
    size = np.sqrt((pixels**2).mean(1, keepdims=True) + EPS)
    weight, bias = (each.detach().numpy()[:, None, None] for each in (norm.weight, norm.bias))
    np.testing.assert_allclose(found.detach().numpy(), pixels / size * weight + bias, atol=1e-5)


def test_with_channel_norm_a_new_network_tells_levels_apart() -> None:
    """It divides by what grows with the level: without biases before it, it would see none."""
    torch.manual_seed(0)
    network = ResnetGenerator(2, 3, width=16, blocks=2, norm="channel")
    dark = torch.full((1, 2, 32, 32), 0.2)
    seen = (network(dark * 2) - network(dark)).abs().mean()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.zeros_(module.bias)
    unseen = (network(dark * 2) - network(dark)).abs().mean()
    assert seen > 0.01 > 1000 * unseen


@pytest.mark.parametrize("norm", ["channel", "none"])
def test_without_statistics_of_many_pixels_blocks_begin_without_change(norm) -> None:
    torch.manual_seed(0)
    network = ResnetGenerator(2, 3, width=8, blocks=3, norm=norm)
    x = images(1, 32, 8, 8)
    blocks = [each for each in network.body.layers if isinstance(each, ResidualBlock)]
    assert len(blocks) == 3
    assert all(torch.equal(block(x, PLAIN), x) for block in blocks)


def test_without_norms_the_spread_of_the_values_lasts() -> None:
    torch.manual_seed(0)
    network = ResnetGenerator(2, 3, width=16, blocks=9, norm="none")
    spreads: list[float] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(
                lambda conv, args, result: spreads.append(float(result.detach().std()))
            )
    fake = network(images(2, 2, 64, 64, mean=0) / 2)
    first, doublings = spreads[:3], spreads[-3:-1]
    assert max(first + doublings) < 3 * min(first + doublings)
    assert 0.01 < fake.std() < 0.5


def fields(update: int, count: int = 4, side: int = 32) -> tuple[Tensor, Tensor]:
    """Fields of one level each under speckle, and the colours that belong to the levels."""
    generator = torch.Generator().manual_seed(update)
    level = torch.rand(count, 1, side // 8, side // 8, generator=generator)
    level = level.repeat_interleave(8, 2).repeat_interleave(8, 3)
    speckle = torch.randn(count, 2, side, side, generator=generator) / 4
    return level * 2 - 1 + speckle, torch.cat([(3 * level).sin(), level - 0.5, -(level**2)], 1)


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("norm", NORM_NAMES)
def test_each_norm_learns(norm, kind) -> None:
    """In 60 updates to two thirds of the distance that the best single colour has."""
    torch.manual_seed(0)
    spec = GeneratorSpec(kind=kind, width=8, blocks=2, depth=5, norm=norm)
    network = build_generator(spec, 2, 3)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, betas=(0.5, 0.999))
    losses = []
    for update in range(60):
        x, y = fields(update)
        loss = (network(x, Context(track=True)) - y).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    _, y = fields(0)
    grey = float((y - y.mean((0, 2, 3), keepdim=True)).abs().mean())
    assert sum(losses[-10:]) / 10 < grey * 2 / 3


@few
@given(groups=st.sampled_from([1, 2, 4]), share=st.floats(0.1, 1), seed=st.integers(0, 99))
def test_statistics_are_those_of_the_valid_pixels(groups, share, seed) -> None:
    x, valid = images(4, 3, 8, 8, seed=seed), mask(4, 1, 8, 8, share=share, seed=seed)
    valid[:, :, 0, :2] = 1
    found = valid_statistics(x, valid, groups)
    for group, (pixels, where) in enumerate(zip(x.chunk(groups), valid.chunk(groups), strict=True)):
        kept = pixels.permute(1, 0, 2, 3)[:, where[:, 0] > 0].double()
        assert found.positions[group] == kept.shape[1]
        torch.testing.assert_close(found.mean[group], kept.mean(1).float())
        torch.testing.assert_close(found.variance[group], kept.var(1, correction=0).float())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [1, 6])
@pytest.mark.parametrize("share", [None, 0.0, 0.1, 0.7])
def test_pooled_image_by_image_statistics_are_those_of_one_group(layout, side, share) -> None:
    x = images(5, 3, side, side).contiguous(memory_format=layout)
    valid = None if share is None else mask(5, 1, 2 * side, 2 * side, share=share)
    before = x.clone()
    found = pooled_statistics(x, valid)
    for ours, theirs in zip(found, valid_statistics(x, valid, groups=1), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert torch.equal(x, before)


@pytest.mark.parametrize("share", [None, 0.6])
def test_a_grouped_call_equals_separate_calls(share) -> None:
    a, b = images(2, 4, 8, 8), images(2, 4, 8, 8, seed=1, mean=-3)
    valid = None if share is None else mask(4, 1, 8, 8, share=share)
    halves = (None, None) if valid is None else valid.chunk(2)
    norm = BatchNorm(4)
    together = norm(torch.cat([a, b]), Context(valid, groups=2))
    apart = [norm(part, Context(half)) for part, half in zip((a, b), halves, strict=True)]
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("share", [None, 0.6])
def test_the_running_mean_is_that_of_real_a_alone(share) -> None:
    real, identity = images(2, 4, 8, 8), images(2, 4, 8, 8, seed=1, mean=50)
    valid = torch.ones(2, 1, 8, 8) if share is None else mask(2, 1, 8, 8, share=share)
    norm = BatchNorm(4)
    norm.momentum = 0.5
    whole = None if share is None else torch.cat([valid, torch.ones_like(valid)])
    norm(torch.cat([real, identity]), Context(whole, groups=2, track=True))
    norm(identity, Context(None if share is None else valid))  # not tracked: leaves no trace
    of_real = real.permute(1, 0, 2, 3)[:, valid[:, 0] > 0].mean(1)
    torch.testing.assert_close(norm.running_mean, of_real / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", NORM_NAMES)
@pytest.mark.parametrize("pixels", [0, 1, 2, 40])
def test_hardly_any_valid_pixel_gives_finite_values_and_gradients(norm, pixels) -> None:
    torch.manual_seed(0)
    network = ResnetGenerator(2, 3, width=4, blocks=3, norm=norm)
    valid = torch.zeros(2, 1, 32, 32)
    valid[0, 0].view(-1)[500 : 500 + pixels] = 1
    fake = network(images(2, 2, 32, 32) * valid, Context(valid, groups=2, track=True))
    (fake * valid).sum().backward()
    assert fake.isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    assert all(value.isfinite().all() for value in network.state_dict().values())


def test_a_group_without_valid_pixels_leaves_the_running_statistics_alone() -> None:
    norm = BatchNorm(3)
    norm(images(2, 3, 8, 8), Context(torch.zeros(2, 1, 8, 8), track=True))
    assert norm.running_mean.eq(0).all()
    assert norm.running_var.eq(1).all()


@pytest.mark.parametrize("norm", NORM_NAMES)
def test_statistics_are_float32_where_the_pixels_are_bfloat16(norm) -> None:
    x = images(2, 8, 16, 16, mean=30).bfloat16()
    layer, exact = NORMS[norm](8), NORMS[norm](8)
    for valid in (None, torch.ones(2, 1, 16, 16)):
        if norm == "none":
            continue
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = layer(x, Context(valid, track=True))
        assert found.dtype == torch.bfloat16
        # One rounding of the result, and none of the mean or the variance.
        expected = exact(x.float(), Context(valid, track=True)).bfloat16()
        torch.testing.assert_close(found, expected, atol=0.008, rtol=0.008)
    for value, wanted in zip(layer.state_dict().values(), exact.state_dict().values(), strict=True):
        torch.testing.assert_close(value, wanted, atol=1e-4, rtol=1e-4)


def network_and_batches(
    share: float | None, norm: str = "batch", images_a_batch: int = 4
) -> tuple[ResnetGenerator, list[tuple[Tensor, Tensor | None]]]:
    torch.manual_seed(0)
    network = ResnetGenerator(2, 3, width=8, blocks=2, norm=norm)
    batches: list[tuple[Tensor, Tensor | None]] = []
    for seed in range(4):
        x = images(images_a_batch, 2, 32, 32, seed=seed).tanh()
        valid = None if share is None else mask(len(x), 1, 32, 32, share=share, seed=seed)
        batches.append((x if valid is None else x * valid, valid))
    return network, batches


@pytest.mark.parametrize("norm", ["batch", "renorm"])
@pytest.mark.parametrize("share", [None, 0.5])
def test_reestimated_statistics_are_those_of_all_batches_together(share, norm) -> None:
    network, batches = network_and_batches(share, norm)
    seen: list[Tensor] = []
    first = next(m for m in network.modules() if isinstance(m, BatchNorm))
    hook = first.register_forward_hook(lambda module, args, result: seen.append(args[0]))
    reestimate_statistics(network, batches)
    hook.remove()
    valid = torch.cat([torch.ones(4, 1, 32, 32) if v is None else v for _, v in batches])
    kept = torch.cat(seen).permute(1, 0, 2, 3)[:, valid[:, 0] > 0]
    torch.testing.assert_close(first.running_mean, kept.mean(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(first.running_var, kept.var(1), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("norm", ["batch", "renorm"])
@pytest.mark.parametrize("share", [None, 0.5])
@pytest.mark.parametrize(("batches_seen", "figure"), [(1, 0.001), (4, 0.02)])
@torch.no_grad()
def test_after_reestimation_training_and_evaluation_agree(
    share, batches_seen, figure, norm
) -> None:
    """In parts of the range: nearly exact on the one batch seen, within 2 % on one of four."""
    network, batches = network_and_batches(share, norm)
    network.eval()

    def difference() -> float:
        x, valid = batches[0]
        evaluated, trained = network(x), network.train()(x, Context(valid))
        network.eval()
        return float((evaluated - trained).abs().mul(1 if valid is None else valid).mean() / 2)

    before = difference()
    reestimate_statistics(network, batches[:batches_seen])
    assert difference() < figure < before
    assert not network.training


def test_reestimation_without_batches_is_refused_and_changes_nothing() -> None:
    network, _ = network_and_batches(None)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(SettingError, match="Give at least one batch"):
        reestimate_statistics(network, [])
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@torch.no_grad()
def test_reestimation_from_single_images_fits_what_evaluation_computes_with() -> None:
    """Deeper layers are measured behind the statistics they will have, not behind each image's."""
    network, _ = network_and_batches(None, "renorm")
    scenes = [images(1, 2, 32, 32, seed=s, mean=s % 5 - 2) / (1 + s % 3) for s in range(60)]
    reestimate_statistics(network, ((scene, None) for scene in scenes))
    whole = torch.cat(scenes)
    at_once = network.train()(whole, PLAIN)
    assert (network.eval()(whole) - at_once).abs().mean() < 0.02  # behind each image's: 0.06

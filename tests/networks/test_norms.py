"""Normalization: valid pixels only, each role for itself, equal to torch where torch has it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geotranslate.choices import NORMS as NORM_NAMES
from geotranslate.errors import SettingError
from geotranslate.networks.context import PLAIN, Context
from geotranslate.networks.norms import (
    NORMS,
    BatchNorm,
    InstanceNorm,
    reestimate_statistics,
    valid_statistics,
)
from geotranslate.networks.resnet import ResnetGenerator

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
    share: float | None,
) -> tuple[ResnetGenerator, list[tuple[Tensor, Tensor | None]]]:
    torch.manual_seed(0)
    network = ResnetGenerator(2, 3, width=8, blocks=2, norm="batch")
    batches: list[tuple[Tensor, Tensor | None]] = []
    for seed in range(4):
        x = images(4, 2, 32, 32, seed=seed).tanh()
        valid = None if share is None else mask(4, 1, 32, 32, share=share, seed=seed)
        batches.append((x if valid is None else x * valid, valid))
    return network, batches


@pytest.mark.parametrize("share", [None, 0.5])
def test_reestimated_statistics_are_those_of_all_batches_together(share) -> None:
    network, batches = network_and_batches(share)
    seen: list[Tensor] = []
    first = next(m for m in network.modules() if isinstance(m, BatchNorm))
    hook = first.register_forward_hook(lambda module, args, result: seen.append(args[0]))
    reestimate_statistics(network, batches)
    hook.remove()
    valid = torch.cat([torch.ones(4, 1, 32, 32) if v is None else v for _, v in batches])
    kept = torch.cat(seen).permute(1, 0, 2, 3)[:, valid[:, 0] > 0]
    torch.testing.assert_close(first.running_mean, kept.mean(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(first.running_var, kept.var(1), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("share", [None, 0.5])
@pytest.mark.parametrize(("batches_seen", "figure"), [(1, 0.001), (4, 0.02)])
@torch.no_grad()
def test_after_reestimation_training_and_evaluation_agree(share, batches_seen, figure) -> None:
    """In parts of the range: nearly exact on the one batch seen, within 2 % on one of four."""
    network, batches = network_and_batches(share)
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

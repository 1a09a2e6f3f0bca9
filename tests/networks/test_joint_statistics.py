"""Alone, a process's batch is the whole one: then all must be as torch has it."""

import pytest
import torch
from torch.nn import functional

from geotranslate.networks.joint_statistics import (
    _whole_statistics,
    joint_statistics,
    normalize_jointly,
)
from geotranslate.networks.statistics import EPS, raw_statistics, valid_statistics

GROUPS, CHANNELS = 2, 3


def images(dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.randn(4, CHANNELS, 6, 5) * 3 + 1
    return x.to(dtype).to(memory_format=torch.channels_last).requires_grad_()


def test_alone_joint_statistics_are_those_of_the_batch():
    x, valid = images(), (torch.rand(4, 1, 6, 5) > 0.3).float()
    for ours, theirs in zip(
        joint_statistics(x, valid, GROUPS), valid_statistics(x, valid, GROUPS), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_torchs_kernel_finds_the_statistics_that_are_written_out():
    x = images()
    for ours, theirs in zip(
        _whole_statistics(x, GROUPS), raw_statistics(x, None, GROUPS), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_one_position_has_variance_zero():
    statistics = _whole_statistics(torch.ones(1, CHANNELS, 1, 1), 1)
    assert torch.equal(statistics.variance, torch.zeros(1, CHANNELS))


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["float32", "bf16"]
)
def test_batch_norm_and_its_gradients_are_torchs(dtype, close):
    x, direction = images(dtype), torch.randn(4, CHANNELS, 6, 5)
    weight, bias = (torch.randn(CHANNELS).requires_grad_() for _ in range(2))
    given = x, weight, bias
    ours = normalize_jointly(x, None, _whole_statistics(x, GROUPS), weight, bias)
    wide = x.float()
    parts = (
        functional.batch_norm(part, None, None, weight, bias, training=True, eps=EPS)
        for part in wide.chunk(GROUPS)
    )
    theirs = torch.cat(list(parts))
    assert ours.dtype == dtype
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours.float(), theirs, rtol=close, atol=close)
    for one, other in zip(
        torch.autograd.grad((ours.float() * direction).sum(), given),
        torch.autograd.grad((theirs * direction).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(one.float(), other.float(), rtol=close, atol=10 * close)

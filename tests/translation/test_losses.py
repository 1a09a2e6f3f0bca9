"""Losses: valid pixels only, divided by the valid pixels of the whole batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from geotranslate.choices import GAN_LOSSES
from geotranslate.networks.patchgan import PatchGAN
from geotranslate.translation.batch import Batch, hide
from geotranslate.translation.losses import (
    ADVERSARIAL,
    Judgement,
    detail_of,
    masked_l1,
    pooled_l2,
    valid_share,
    weighted_mean,
)

few = settings(deadline=None, max_examples=20)


def pair_and_mask(seed: int, share: float, side: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fake, real = torch.rand(2, 3, 2, side, side, generator=generator)
    return fake, real, (torch.rand(3, 1, side, side, generator=generator) < share).float()


def test_the_table_has_the_names_a_user_can_choose() -> None:
    assert tuple(ADVERSARIAL) == GAN_LOSSES


@few
@given(seed=st.integers(0, 99), share=st.floats(0.05, 1))
def test_l1_is_the_mean_over_the_valid_values(seed, share) -> None:
    fake, real, valid = pair_and_mask(seed, share)
    kept = valid.expand_as(fake) > 0
    torch.testing.assert_close(masked_l1(fake, real, valid), (fake - real).abs()[kept].mean())


@pytest.mark.parametrize("loss", [masked_l1, pooled_l2])
def test_without_invalid_pixels_a_mask_changes_nothing(loss) -> None:
    fake, real, _ = pair_and_mask(0, 1)
    ones = torch.ones(3, 1, 20, 20)
    torch.testing.assert_close(loss(fake, real, ones), loss(fake, real, None))


def test_one_pooled_l2_is_that_of_the_averaged_images() -> None:
    fake, real, _ = pair_and_mask(0, 1, side=24)
    averaged = (functional.avg_pool2d(image, 8) for image in (fake, real))
    torch.testing.assert_close(pooled_l2(fake, real, None), functional.mse_loss(*averaged))


@few
@given(seed=st.integers(0, 99), share=st.floats(0.05, 1))
def test_pooled_l2_compares_the_means_of_valid_pixels_cell_by_cell(seed, share) -> None:
    fake, real, valid = pair_and_mask(seed, share)
    total, pixels = 0.0, 0
    for image in range(3):
        for row in (0, 8, 16):
            for col in (0, 8, 16):
                cell = (image, ..., slice(row, row + 8), slice(col, col + 8))
                where = valid[cell][0] > 0
                if where.any():
                    means = (values[cell][:, where].mean(1) for values in (fake, real))
                    total += float((next(means) - next(means)).square().sum()) * int(where.sum())
                    pixels += int(where.sum())
    assert float(pooled_l2(fake, real, valid)) == pytest.approx(total / pixels / 2, rel=1e-4)


def test_a_discriminator_of_detail_learns_nothing_from_coarse_colours() -> None:
    fake, real, _ = pair_and_mask(0, 1)
    coarse = functional.interpolate(torch.rand(3, 2, 1, 1), (20, 20))
    torch.testing.assert_close(detail_of(fake + coarse, real, None), detail_of(fake, real, None))
    torch.testing.assert_close(detail_of(real + coarse, real, None), real)


def test_what_was_changed_lies_between_the_means_of_neighbouring_cells() -> None:
    fake, real, _ = pair_and_mask(0, 1, side=24)
    means = functional.avg_pool2d(real - fake, 8)
    change = detail_of(fake, real, None) - fake
    middles = torch.stack(
        [change[..., r : r + 2, c : c + 2].mean((2, 3)) for r in (3, 11, 19) for c in (3, 11, 19)],
        -1,
    )
    torch.testing.assert_close(middles[..., 4], means[..., 1, 1], atol=0.02, rtol=0)
    assert change.abs().amax() <= means.abs().amax() + 1e-6


@few
@given(seed=st.integers(0, 99), share=st.floats(0.05, 1))
def test_detail_is_that_of_valid_pixels_and_real_stays_real(seed, share) -> None:
    fake, real, valid = pair_and_mask(seed, share)
    detail = detail_of(fake, real, valid)
    spoiled = torch.where(valid > 0, fake, torch.nan)
    assert torch.equal(detail_of(spoiled, real, valid), detail)
    assert (detail[valid.expand_as(detail) == 0] == 0).all()
    assert torch.equal(detail_of(real, real, valid), hide(real, valid))


@pytest.mark.parametrize("gan_loss", GAN_LOSSES)
@pytest.mark.parametrize("loss", [masked_l1, pooled_l2])
def test_without_valid_pixels_losses_are_zero_and_gradients_finite(loss, gan_loss) -> None:
    nothing = torch.zeros(1, 1, 24, 24)
    fake = torch.rand(1, 3, 24, 24, requires_grad=True)
    discriminator = PatchGAN(3, width=2)
    judgement = Judgement(gan_loss, discriminator.field)
    shown = hide(fake, nothing)
    total = loss(shown, torch.zeros_like(fake), nothing)
    total = total + judgement.as_real(discriminator(shown), nothing)
    (gradient,) = torch.autograd.grad(total, fake)
    assert total.detach() == 0
    assert gradient.eq(0).all()


def test_a_score_weighs_by_the_valid_share_of_the_patch_it_judges() -> None:
    field = PatchGAN(1, width=1).field
    valid = (torch.rand(2, 1, 96, 80, generator=torch.Generator().manual_seed(0)) < 0.7).float()
    share = valid_share(valid, field)
    assert share is not None
    assert share.shape == PatchGAN(1, width=1)(valid).shape
    for row in range(share.shape[2]):
        for col in range(share.shape[3]):
            top, left = row * field.stride - field.padding, col * field.stride - field.padding
            patch = valid[..., max(top, 0) : top + field.size, max(left, 0) : left + field.size]
            torch.testing.assert_close(share[:, 0, row, col], patch.mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("side", [24, 25, 70, 100, 128])
def test_all_patches_weigh_the_same_where_all_pixels_are_valid(side) -> None:
    network = PatchGAN(1, width=1)
    share = valid_share(torch.ones(1, 1, side, side), network.field)
    assert share is not None
    assert share.shape == network(torch.ones(1, 1, side, side)).shape
    assert share.eq(1).all()


def test_the_adversarial_losses_are_least_squares_and_cross_entropy() -> None:
    scores = torch.tensor([[-1.0, 0.0, 0.5, 2.0]])
    field = PatchGAN(1, width=1).field
    squares, entropy = Judgement("lsgan", field), Judgement("bce", field)
    assert float(squares.as_real(scores, None)) == pytest.approx((4 + 1 + 0.25 + 1) / 4)
    assert float(squares.as_fake(scores, None)) == pytest.approx((1 + 0 + 0.25 + 4) / 4)
    surely_real = scores.sigmoid()
    assert float(entropy.as_real(scores, None)) == pytest.approx(float(-surely_real.log().mean()))
    surely_fake = 1 - surely_real
    assert float(entropy.as_fake(scores, None)) == pytest.approx(float(-surely_fake.log().mean()))


def test_losses_are_float32_for_scores_in_bfloat16() -> None:
    scores = torch.rand(1, 1, 1, 1).bfloat16()
    assert (
        Judgement("lsgan", PatchGAN(1, width=1).field).as_real(scores, None).dtype == torch.float32
    )


def test_a_mean_is_weighted() -> None:
    values, weights = torch.tensor([1.0, 5.0, 100.0]), torch.tensor([3.0, 1.0, 0.0])
    assert float(weighted_mean(values, weights)) == 2


def test_hiding_lets_neither_nan_nor_gradient_through_and_keeps_the_layout() -> None:
    images = torch.full((2, 3, 4, 4), torch.nan).to(memory_format=torch.channels_last)
    images[..., :2] = 1
    images.requires_grad_()
    valid = torch.zeros(2, 1, 4, 4)
    valid[..., :2] = 1
    batch = Batch(images, images, valid, None).hidden()
    assert batch.real_a.eq(valid).all()
    assert batch.real_a.is_contiguous(memory_format=torch.channels_last)
    assert batch.real_b is images
    (gradient,) = torch.autograd.grad(batch.real_a.sum(), images)
    assert gradient.eq(valid).all()

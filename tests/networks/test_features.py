import pytest
import torch

from geotranslate.networks.features import SCALES, WIDTHS, Features, random_features


def images(count=2, bands=3, side=48, seed=0):
    return (
        torch.rand(count, bands, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    )


@pytest.mark.parametrize("bands", [1, 2, 4, 13])
def test_images_of_any_bands_are_described_one_by_one(bands):
    looks, shown = random_features(bands), images(bands=bands)
    found = looks(shown)
    assert found.shape == (2, len(SCALES) * 2 * sum(WIDTHS))
    torch.testing.assert_close(looks(shown[1:]), found[1:])
    assert not torch.equal(found[0], found[1])


def test_the_weights_follow_from_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = random_features(2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    shown = images(bands=2)
    assert torch.equal(one(shown), random_features(2)(shown))
    assert not torch.equal(one(shown), random_features(2, seed=1)(shown))


def test_what_lies_under_invalid_pixels_changes_nothing():
    looks, shown = random_features(3), images(side=64)
    valid = torch.ones(2, 1, 64, 64)
    valid[:, :, :, 40:] = 0
    spoiled = torch.where(valid > 0, shown, torch.nan)
    torch.testing.assert_close(looks(spoiled, valid), looks(shown, valid))
    # Where whole squares are seen, it is as if the rest were not there.
    cut = looks(shown[..., :40].contiguous())
    first = 2 * sum(WIDTHS)
    torch.testing.assert_close(looks(shown, valid)[:, :first], cut[:, :first])
    assert looks(shown, torch.zeros_like(valid)).abs().max() == 0


def test_half_of_the_first_filters_see_detail_and_not_brightness():
    looks, shown = random_features(3), images()
    half = WIDTHS[0] // 2
    change = (looks(shown + 0.3) - looks(shown)).abs()[:, : 2 * WIDTHS[0]]
    means = change[:, : WIDTHS[0]]
    assert means[:, :half].max() < 1e-5
    assert means[:, half:].max() > 0.1


def test_scales_and_layers_that_an_image_is_too_small_for_answer_nothing():
    found = random_features(3)(images(side=12))
    assert found.shape[1] == len(SCALES) * 2 * sum(WIDTHS)
    assert found[:, -2 * sum(WIDTHS) :].abs().max() == 0
    assert found.isfinite().all()


def test_a_layer_answers_as_its_definition_says():
    weight, bias = torch.randn(4, 2, 3, 3), torch.randn(4)
    shown = images(count=1, bands=2, side=9)
    answers = [
        torch.relu((shown[0, :, row : row + 3, col : col + 3] * weight).sum((1, 2, 3)) + bias)
        for row in range(7)
        for col in range(7)
    ]
    expected = torch.stack(answers)
    found = Features([(weight, bias)])(shown)[0, :8]
    torch.testing.assert_close(found[:4], expected.mean(0))
    torch.testing.assert_close(found[4:], expected.std(0, unbiased=False))

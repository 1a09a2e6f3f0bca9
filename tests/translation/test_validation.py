import math
from dataclasses import replace

import numpy as np
import pytest

from geotranslate.translation.metrics import ValueRange, measure
from geotranslate.translation.validation import figure_names, is_better, score

RANGE = ValueRange((0.0,), (255.0,))


@pytest.fixture
def truth():
    random = np.random.default_rng(0)
    fields = random.normal(size=(1, 8, 8)).repeat(12, axis=1).repeat(12, axis=2)
    return 128 + 30 * fields + 10 * random.normal(size=(1, 96, 96))


def score_of(predicted, truth):
    return score(measure(predicted, truth, np.ones(truth.shape[1:], bool), RANGE))


def test_the_score_rewards_neither_blur_nor_noise(truth):
    random = np.random.default_rng(1)
    means = truth.reshape(1, 12, 8, 12, 8).mean(axis=(2, 4))
    means += 12 * random.normal(size=means.shape)
    blurred = means.repeat(8, axis=1).repeat(8, axis=2)
    noisy = blurred + 40 * random.normal(size=truth.shape)
    lively = blurred + 10 * random.normal(size=truth.shape)
    assert score_of(lively, truth) > score_of(blurred, truth)
    assert score_of(lively, truth) > score_of(noisy, truth)


def test_the_score_is_psnr_of_block_means_where_nothing_is_missed(truth):
    figures = measure(truth + 3, truth, np.ones(truth.shape[1:], bool), RANGE)
    assert score(figures) == pytest.approx(figures.psnr8)
    assert score(replace(figures, contrast=math.nan, sharpness=math.nan)) == figures.psnr8
    halved = replace(figures, contrast=0.5, sharpness=2.0)
    assert score(halved) == pytest.approx(figures.psnr8 - 2 * 10 * math.log10(2))
    assert math.isfinite(score(replace(figures, contrast=0.0)))


def test_more_score_and_less_cycle_error_are_better():
    assert is_better("pix2pix", 2.0, 1.0)
    assert not is_better("pix2pix", 1.0, 2.0)
    assert is_better("cyclegan", 0.1, 0.2)
    assert not is_better("cyclegan", math.nan, 0.2)


def test_a_run_follows_pairs_where_there_are_some():
    assert "psnr8" in figure_names("pix2pix", paired=True)
    assert figure_names("cyclegan", paired=False) == ["cycle"]
    assert {"corr8", "cycle"} <= set(figure_names("cyclegan", paired=True))

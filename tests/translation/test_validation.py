"""By what figure the best generators are kept."""

import numpy as np
import pytest
import torch

from geotranslate.raster.domain import Band, Domain
from geotranslate.translation.batch import Batch
from geotranslate.translation.metrics import ValueRange, measure
from geotranslate.translation.validation import TOLERANCE, _compare, score, spread

BYTES = ValueRange((0.0,), (255.0,))


def measured(fake, real):
    return measure(fake[None], real[None], np.ones(real.shape, bool), BYTES)


@pytest.fixture
def town():
    """Roofs of 16 px with some texture."""
    random = np.random.default_rng(0)
    roofs = random.uniform(40, 200, (8, 8)).repeat(16, 0).repeat(16, 1)
    return roofs + random.normal(0, 12, roofs.shape)


def test_nothing_is_taken_off_while_contrast_and_sharpness_are_near_the_truths(town):
    figures = measured(town + 5, town)
    assert figures.contrast == pytest.approx(1)
    assert score(figures) == pytest.approx((figures.psnr + figures.psnr8) / 2)


def test_a_grey_picture_loses_what_its_contrast_misses_beyond_the_tolerance(town):
    grey = town.mean() + 0.1 * (town - town.mean())
    figures = measured(grey, town)
    missed = 2 * (10 - TOLERANCE)  # a tenth of contrast and of sharpness is 10 dB each
    assert score(figures) == pytest.approx((figures.psnr + figures.psnr8) / 2 - missed)


def test_the_right_picture_a_pixel_off_scores_higher_than_a_flat_one(town):
    shifted = measured(np.roll(town, 1, axis=1), town)
    flat = measured(np.full_like(town, town.mean()), town)
    assert score(shifted) > score(flat) + 10


def test_a_run_measures_in_physical_units():
    bands = Band(name="red", scale=0.5, offset=-10), Band(name="height", unit="m")
    domain = Domain(
        bands=bands,
        dtype="float32",
        resolution_m=(10.0, 10.0),
        low=(0.0, -100.0),
        high=(1.0, 700.0),
    )
    real = torch.rand(1, 2, 32, 32) - 0.5
    batch = Batch(real, real, None, None)
    figures = _compare(real + 0.1, batch, domain)  # a twentieth of the range
    assert figures.psnr == pytest.approx(20 * np.log10(20), abs=1e-3)
    assert figures.bias == pytest.approx((0.05, 40), abs=1e-3)


def test_chips_are_taken_at_even_distances():
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 4) == [0, 1, 2]

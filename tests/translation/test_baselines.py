"""The two predictions without a network, against numpy's own least squares."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geotranslate.errors import GridError
from geotranslate.raster.grid import Grid
from geotranslate.raster.scene import Chip
from geotranslate.translation.baselines import fit_linear, fit_mean


def chip(pixels: np.ndarray, valid: np.ndarray) -> Chip:
    return Chip(pixels, valid, Grid(CRS.from_epsg(32633), Affine.identity(), *valid.shape[::-1]))


def all_valid(pixels: np.ndarray) -> Chip:
    return chip(pixels, np.ones(pixels.shape[1:], bool))


@given(seed=st.integers(0, 2**32 - 1), parts=st.integers(1, 4))
@settings(deadline=None, max_examples=10)
def test_fits_over_parts_equal_least_squares_over_all_valid_pixels(seed, parts):
    random = np.random.default_rng(seed)
    # Decibels beside a band whose large values hardly vary.
    level, spread = np.array([-12, 1e5])[:, None, None], np.array([4, 0.5])[:, None, None]
    sources = [level + spread * random.normal(size=(2, 9, 7)) for _ in range(parts)]
    truths = [random.integers(0, 256, (3, 9, 7)).astype(np.uint8) for _ in range(parts)]
    seen = [random.uniform(size=(9, 7)) < 0.7 for _ in range(parts)]
    true_seen = [random.uniform(size=(9, 7)) < 0.9 for _ in range(parts)]
    pairs = [
        (chip(x, x_valid), chip(y, y_valid))
        for x, x_valid, y, y_valid in zip(sources, seen, truths, true_seen, strict=True)
    ]

    color = fit_mean(truth for _, truth in pairs).color
    kept = np.concatenate([truth.pixels[:, truth.valid] for _, truth in pairs], axis=1)
    assert color == pytest.approx(kept.mean(axis=1))

    line = fit_linear(iter(pairs))
    joint = [x_valid & y_valid for x_valid, y_valid in zip(seen, true_seen, strict=True)]
    x = np.concatenate([s[:, v] for s, v in zip(sources, joint, strict=True)], axis=1)
    y = np.concatenate([t[:, v] for t, v in zip(truths, joint, strict=True)], axis=1)
    centred = x - x.mean(axis=1, keepdims=True)
    design = np.vstack([centred, np.ones(x.shape[1])]).T
    expected = design @ np.linalg.lstsq(design, y.T, rcond=None)[0]
    assert line.predict(x[:, :, None])[..., 0] == pytest.approx(expected.T, rel=1e-5, abs=1e-5)


def test_a_line_that_is_there_is_found_and_predicted():
    source = np.random.default_rng(0).normal(-12, 4, (2, 6, 5))
    truth = np.stack([3 * source[0] - source[1] + 7, 0 * source[0] + 2])
    line = fit_linear([(all_valid(source), all_valid(truth))])
    assert line.weights == pytest.approx(np.array([[3, -1], [0, 0]]))
    assert line.offset == pytest.approx([7, 2])
    assert line.predict(source) == pytest.approx(truth)


@pytest.mark.parametrize(("gain", "level"), [(1, 0), (1e-3, 1e4), (0, 1e6)])
def test_a_source_band_that_adds_nothing_is_no_harm(gain, level):
    random = np.random.default_rng(1)
    band = random.normal(-12, 4, (20, 30))
    source = np.stack([band, gain * band + level])
    truth = 5 * band[None] + random.normal(size=(1, 20, 30))
    alone = fit_linear([(all_valid(band[None]), all_valid(truth))])
    both = fit_linear([(all_valid(source), all_valid(truth))])
    assert both.predict(source) == pytest.approx(alone.predict(band[None]))
    assert np.abs(both.weights * source.std(axis=(1, 2))).max() < 100


def test_the_mean_colour_fills_any_window():
    truth = np.arange(12.0).reshape(2, 2, 3)
    flat = fit_mean([all_valid(truth)]).predict(np.zeros((0, 4, 5)))
    assert flat.shape == (2, 4, 5)
    assert np.unique(flat).tolist() == [2.5, 8.5]


def test_images_without_a_valid_pixel_are_refused_with_the_mend():
    empty = chip(np.zeros((1, 2, 2)), np.zeros((2, 2), bool))
    with pytest.raises(GridError, match="nodata values are right"):
        fit_mean([empty])
    with pytest.raises(GridError, match="nodata values are right"):
        fit_linear([(empty, all_valid(np.zeros((1, 2, 2))))])

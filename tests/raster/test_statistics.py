from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geotranslate.raster.statistics import EMPTY, Histogram, band_statistics, merge_statistics

numbers = st.floats(-1e6, 1e6, width=32)
lists = st.lists(numbers, max_size=30)


def statistics_of(values):
    pixels = np.array([values, values[::-1]], np.float64)[:, None]
    return band_statistics(pixels, np.ones(pixels.shape[1:], bool))


@settings(deadline=None)
@given(values=st.lists(numbers, min_size=1, max_size=50))
def test_moments_are_numpys(values):
    for found in statistics_of(values):
        assert found.count == len(values)
        assert found.min == min(values)
        assert found.max == max(values)
        assert found.mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-9)
        assert found.std == pytest.approx(np.std(values), rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(parts=st.lists(lists, min_size=1, max_size=6))
def test_merged_parts_equal_the_whole(parts):
    whole = [value for part in parts for value in part]
    merged = merge_statistics(statistics_of(part) for part in parts)
    for found, expected in zip(merged, statistics_of(whole), strict=True):
        assert found.count == expected.count
        np.testing.assert_array_equal((found.min, found.max), (expected.min, expected.max))
        assert found.mean == pytest.approx(expected.mean, rel=1e-9, abs=1e-6)
        assert found.m2 == pytest.approx(expected.m2, rel=1e-6, abs=1e-3)


def test_merging_survives_a_large_mean_with_a_small_spread():
    values = 1e9 + np.random.default_rng(0).normal(0, 0.1, 10_000)
    merged = merge_statistics(statistics_of(part) for part in np.split(values, 100))
    assert merged[0].std == pytest.approx(values.std(), rel=1e-4)


def test_invalid_pixels_do_not_count():
    pixels = np.array([[[1.0, np.nan, 1e9, 3.0]]])
    valid = np.array([[True, False, False, True]])
    (found,) = band_statistics(pixels, valid)
    assert (found.count, found.min, found.max, found.mean, found.std) == (2, 1, 3, 2, 1)


def test_nothing_valid_is_told_apart_from_zero():
    (found,) = band_statistics(np.ones((1, 2, 2), np.uint8), np.zeros((2, 2), bool))
    assert found is EMPTY
    assert found.std == 0
    assert merge_statistics([]) == ()


def histogram_of(values):
    """Fed in parts, as chips come."""
    histogram = Histogram()
    for part in np.array_split(values, 7):
        histogram.add(part)
    return histogram


@settings(deadline=None, max_examples=30)
@given(
    shape=st.sampled_from(["normal", "lognormal", "uniform", "exponential"]),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    shift=st.sampled_from([-20.0, 0.0, 3.0]),
    percent=st.sampled_from([0.0, 0.1, 2.0, 50.0, 98.0, 99.9, 100.0]),
    seed=st.integers(0, 9),
)
def test_percentiles_are_numpys_to_a_bins_width(shape, scale, shift, percent, seed):
    values = getattr(np.random.default_rng(seed), shape)(size=5000) * scale + shift * scale
    values = values.astype(np.float32)
    expected = float(np.percentile(values, percent, method="lower"))
    found = histogram_of(values).percentile(percent)
    assert abs(found - expected) <= 2.0**-11 * abs(expected)


@settings(deadline=None, max_examples=30)
@given(
    limits=st.sampled_from([("uint8", 0, 256), ("int16", -3000, 3000), ("uint16", 0, 4097)]),
    percent=st.floats(0, 100),
    seed=st.integers(0, 9),
)
def test_percentiles_of_small_integers_are_exact(limits, percent, seed):
    dtype, low, high = limits
    values = np.random.default_rng(seed).integers(low, high, 3000).astype(dtype)
    expected = float(np.percentile(values, percent, method="lower"))
    assert histogram_of(values).percentile(percent) == expected


def test_the_share_outside_is_counted():
    histogram = histogram_of(np.arange(1000, dtype=np.uint16))
    assert histogram.share_outside(10, 989) == pytest.approx(0.02)
    assert histogram.share_outside(-5, 2000) == 0
    assert Histogram().share_outside(0, 1) == 0


def test_bins_ascend_through_zero():
    values = np.array([-1e30, -5.0, -1e-30, 0.0, 1e-30, 5.0, 1e30], np.float32)
    histogram = histogram_of(values)
    found = [histogram.percentile(100 * rank / 6) for rank in range(7)]
    np.testing.assert_allclose(found, values, rtol=2.0**-11)

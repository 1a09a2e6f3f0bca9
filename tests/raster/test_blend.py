from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geotranslate.choices import MOSAIC_BLENDS
from geotranslate.raster import blend
from geotranslate.raster.blend import BLENDS, FirstValid, Highest, Median, WeightedMean

SHAPE = (9, 11)
NUMBERS = st.floats(-1000, 1000, width=32)


@st.composite
def parts(draw, values=NUMBERS):
    """A rectangle of pixels laid somewhere on a canvas of SHAPE."""
    row, col = draw(st.integers(0, SHAPE[0] - 1)), draw(st.integers(0, SHAPE[1] - 1))
    shape = draw(st.integers(1, SHAPE[0] - row)), draw(st.integers(1, SHAPE[1] - col))
    place = slice(row, row + shape[0]), slice(col, col + shape[1])
    pixels = draw(hnp.arrays(np.float32, (2, *shape), elements=values))
    valid = draw(hnp.arrays(bool, shape))
    weights = draw(hnp.arrays(np.float32, shape, elements=st.floats(0.5, 100, width=32)))
    return place, pixels, valid, weights


def lay_all(canvas, laid):
    for part in laid:
        canvas.lay(*part)
    return canvas


def test_names_and_table_agree():
    assert tuple(BLENDS) == MOSAIC_BLENDS


@settings(deadline=None, max_examples=50)
@given(laid=st.lists(parts(), max_size=6))
def test_the_weighted_mean_is_numpys(laid):
    total, weight = np.zeros((2, *SHAPE)), np.zeros(SHAPE)
    for place, pixels, valid, weights in laid:
        total[:, *place] += pixels.astype(np.float64) * (weights * valid)
        weight[place] += weights * valid
    canvas = lay_all(WeightedMean(2, SHAPE, "float32"), laid)
    np.testing.assert_array_equal(canvas.valid, weight > 0)
    expected = total[:, canvas.valid] / weight[canvas.valid]
    np.testing.assert_allclose(canvas.values[:, canvas.valid], expected, rtol=1e-9, atol=1e-9)
    assert (canvas.values[:, ~canvas.valid] == 0).all()


@settings(deadline=None, max_examples=50)
@given(laid=st.lists(parts(values=st.just(np.float32(0.1))), min_size=1, max_size=6))
def test_equal_values_stay_what_they_are_to_the_last_bit(laid):
    canvas = lay_all(WeightedMean(2, SHAPE, "float32"), laid)
    assert (canvas.values[:, canvas.valid] == np.float32(0.1)).all()


@settings(deadline=None, max_examples=50)
@given(part=parts())
def test_a_value_that_nothing_is_mixed_with_stays_what_it_is(part):
    place, pixels, valid, _ = part
    canvas = lay_all(WeightedMean(2, SHAPE, "float64"), [part])
    np.testing.assert_array_equal(canvas.values[:, *place][:, valid], pixels[:, valid])


@settings(deadline=None, max_examples=50)
@given(laid=st.lists(parts(), max_size=6))
def test_the_first_valid_value_stays(laid):
    expected = np.full((2, *SHAPE), np.nan)
    for place, pixels, valid, _ in reversed(laid):
        expected[:, *place] = np.where(valid, pixels, expected[:, *place])
    canvas = lay_all(FirstValid(2, SHAPE, "float32"), laid)
    np.testing.assert_array_equal(canvas.valid, ~np.isnan(expected[0]))
    np.testing.assert_array_equal(canvas.values, np.nan_to_num(expected))
    everywhere = slice(0, SHAPE[0]), slice(0, SHAPE[1])
    assert canvas.is_full(everywhere) == canvas.valid.all()


@settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(laid=st.lists(parts(), max_size=6))
def test_the_median_is_numpys(monkeypatch, laid):
    monkeypatch.setattr(blend, "SORTED_ROWS", 2)
    stack = np.full((max(len(laid), 1), 2, *SHAPE), np.nan)
    for layer, (place, pixels, valid, _) in zip(stack, laid, strict=False):
        layer[:, *place] = np.where(valid, pixels, np.nan)
    canvas = lay_all(Median(2, SHAPE, "float32"), laid)
    np.testing.assert_array_equal(canvas.valid, ~np.isnan(stack[:, 0]).all(axis=0))
    expected = np.nanmedian(stack[:, :, canvas.valid], axis=0)
    np.testing.assert_allclose(canvas.values[:, canvas.valid], expected, rtol=1e-12, atol=1e-12)
    assert (canvas.values[:, ~canvas.valid] == 0).all()


def test_the_median_of_many_values_takes_little_more_than_they_do():
    canvas = Median(1, (512, 64), "float32")
    place = slice(0, 512), slice(0, 64)
    for index in range(40):
        pixels = np.full((1, 512, 64), index, np.float32)
        canvas.lay(place, pixels, np.ones((512, 64), bool), 1.0)
    held = 40 * 512 * 64 * 4
    tracemalloc.start()
    try:
        assert (canvas.values == 19.5).all()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < held / 3


def test_the_median_keeps_as_many_layers_as_lie_on_each_other():
    canvas = Median(1, (4, 40), "uint8")
    for col in range(0, 40, 4):
        place = slice(0, 4), slice(col, col + 4)
        canvas.lay(place, np.full((1, 4, 4), col, np.uint8), np.ones((4, 4), bool), 1.0)
    assert len(canvas._layers) == 1


@settings(deadline=None, max_examples=50)
@given(laid=st.lists(parts(), max_size=6))
def test_the_highest_weight_wins_and_of_equal_ones_the_first(laid):
    expected, best = np.zeros((2, *SHAPE), np.float32), np.full(SHAPE, -np.inf)
    for place, pixels, valid, weights in laid:
        better = valid & (weights > best[place])
        expected[:, *place] = np.where(better, pixels, expected[:, *place])
        best[place] = np.where(better, weights, best[place])
    canvas = lay_all(Highest(2, SHAPE, "float32"), laid)
    np.testing.assert_array_equal(canvas.valid, best > -np.inf)
    np.testing.assert_array_equal(canvas.values, expected)


@settings(deadline=None, max_examples=30)
@given(laid=st.lists(parts(), min_size=1, max_size=4))
@pytest.mark.parametrize("make", [WeightedMean, FirstValid, Median, Highest])
@pytest.mark.parametrize("number", [np.nan, np.inf, -3.4e38])
def test_what_lies_under_invalid_pixels_never_shows(make, number, laid):
    spoiled = [
        (place, np.where(valid, pixels, np.float32(number)), valid, weights)
        for place, pixels, valid, weights in laid
    ]
    clean = lay_all(make(2, SHAPE, "float32"), laid)
    np.testing.assert_array_equal(lay_all(make(2, SHAPE, "float32"), spoiled).values, clean.values)


@pytest.mark.parametrize("blend", BLENDS)
def test_a_canvas_with_nothing_on_it_is_invalid_and_zero(blend):
    canvas = BLENDS[blend].canvas(3, SHAPE, "uint8")
    assert not canvas.valid.any()
    assert canvas.values.shape == (3, *SHAPE)
    assert not canvas.values.any()

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geotranslate.choices import MOSAIC_BLENDS
from geotranslate.raster.blend import BLENDS, FirstValid, WeightedMean, flat, tent

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
    return place, pixels, valid, np.outer(tent(shape[0]), tent(shape[1]))


def lay_all(canvas, laid):
    for part in laid:
        canvas.lay(*part)
    return canvas


def test_names_and_table_agree():
    assert tuple(BLENDS) == MOSAIC_BLENDS


@pytest.mark.parametrize("weigh", [tent, flat])
@pytest.mark.parametrize("length", [1, 2, 3, 16, 257])
def test_weights_are_positive_and_symmetric(weigh, length):
    weights = weigh(length)
    assert weights.shape == (length,)
    assert weights.min() > 0
    np.testing.assert_array_equal(weights, weights[::-1])


@given(size=st.integers(2, 300), data=st.data())
def test_tents_fade_in_a_straight_line_where_two_rasters_overlap(size, data):
    overlap = data.draw(st.integers(1, size // 2))
    leaving, coming = tent(size)[-overlap:], tent(size)[:overlap]
    share = coming / (leaving + coming)
    np.testing.assert_allclose(share, (np.arange(overlap) + 0.5) / overlap, rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(laid=st.lists(parts(), max_size=6))
def test_the_weighted_mean_is_numpys(laid):
    total, weight = np.zeros((2, *SHAPE)), np.zeros(SHAPE)
    for place, pixels, valid, weights in laid:
        total[:, *place] += pixels * (weights * valid)
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


@settings(deadline=None, max_examples=30)
@given(laid=st.lists(parts(), min_size=1, max_size=4))
@pytest.mark.parametrize("make", [WeightedMean, FirstValid])
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

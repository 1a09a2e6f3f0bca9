import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geotranslate.report.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    decades,
    draw_curve,
    round_numbers,
    spell_number,
)

FRAME = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)


def corners(text):
    return np.array([[float(number) for number in corner.split(",")] for corner in text.split()])


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
@example(1.0, 400_001.0, 2)
def test_numbers_at_an_axis_are_round_lie_inside_and_are_neither_too_many_nor_too_few(
    low, length, most
):
    numbers = round_numbers(low, low + length, most)
    assert 1 <= len(numbers) <= most + 1
    assert all(low - 1e-6 * length <= n <= low + length * (1 + 1e-6) for n in numbers)
    if len(numbers) > 1:
        steps = np.diff(numbers)
        assert np.allclose(steps, steps[0])
        assert f"{steps[0]:.0e}"[0] in "125"


@given(st.floats(1e-8, 1e3), st.floats(1.0, 1e8))
def test_decades_are_the_powers_of_ten_inside(low, factor):
    found = decades(low, low * factor)
    assert all(math.log10(n) == pytest.approx(round(math.log10(n))) for n in found)
    assert len(found) in {math.floor(math.log10(factor)), math.floor(math.log10(factor)) + 1}


def test_numbers_have_as_many_decimals_as_tell_them_apart():
    assert spell_number(20_000, 5000) == "20,000"
    assert spell_number(0.25, 0.05) == "0.25"
    assert spell_number(0.3, 0.1) == "0.3"
    assert spell_number(2e-7, 1e-7) == "2.0e-07"
    assert spell_number(0, 5e-5) == "0"
    assert spell_number(2_500_000, 500_000) == "2.5e+06"


def test_a_line_runs_from_the_left_to_the_right_of_its_frame_and_upwards():
    curve = draw_curve([0, 5, 10], [1.0, 2.0, 3.0])
    points = corners(curve.line)
    assert points[:, 0].tolist() == [LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT]
    rises = -np.diff(points[:, 1])
    assert rises[0] == pytest.approx(rises[1], abs=0.2)
    assert rises[0] > 0.4 * (HEIGHT - TOP - BOTTOM)
    assert curve.span == ""
    assert curve.last == tuple(points[-1])


def test_labels_stand_where_their_numbers_are():
    curve = draw_curve([0, 400], [0.0, 100.0])
    start, end = corners(curve.line)
    assert [tick.label for tick in curve.x_ticks] == ["0", "100", "200", "300", "400"]
    for tick in curve.y_ticks:
        share = (tick.at - start[1]) / (end[1] - start[1])
        assert 100 * share == pytest.approx(float(tick.label), abs=0.1)


@given(
    st.lists(st.floats(-1e9, 1e9) | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=30)
)
def test_every_number_lies_in_the_frame_and_what_is_none_is_left_out(values):
    curve = draw_curve(range(len(values)), values)
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        assert curve is None
        return
    points = corners(curve.line)
    assert len(points) == len(finite)
    left, right, top, bottom = FRAME
    assert points[:, 0].min() >= left
    assert points[:, 0].max() <= right
    assert points[:, 1].min() >= top
    assert points[:, 1].max() <= bottom


def test_of_a_long_curve_the_means_are_drawn_and_the_span_reaches_every_value():
    values = np.random.default_rng(0).normal(size=5000)
    values[1234] = 40.0
    curve = draw_curve(range(5000), values)
    assert len(corners(curve.line)) == MOST_POINTS
    drawn = corners(curve.span)
    spike = drawn[:, 1].min()
    assert spike < corners(curve.line)[:, 1].min() - 20
    place = drawn[drawn[:, 1].argmin(), 0]
    assert place == pytest.approx(LEFT + 1234 / 4999 * (WIDTH - RIGHT - LEFT), abs=1)


def test_an_axis_from_zero_begins_there():
    curve = draw_curve([0, 1], [20.0, 21.0], from_zero=True)
    assert curve.y_ticks[0].label == "0"
    assert curve.y_ticks[0].at == HEIGHT - BOTTOM
    heights = HEIGHT - BOTTOM - corners(curve.line)[:, 1]
    assert heights[1] / heights[0] == pytest.approx(21 / 20, rel=0.01)


def test_marks_stand_at_their_updates_and_those_beyond_the_axis_are_left_out():
    curve = draw_curve([10, 20], [1, 2], x_range=(0, 40), marks=[20, 50])
    assert curve.marks == (round((LEFT + WIDTH - RIGHT) / 2, 1),)


def test_equal_factors_lie_equally_far_apart_on_a_logarithmic_axis():
    curve = draw_curve([1e-6, 1e-4, 1e-2], [3, 2, 1], log_x=True)
    steps = np.diff(corners(curve.line)[:, 0])
    assert steps[0] == pytest.approx(steps[1], abs=0.2)
    assert [tick.label for tick in curve.x_ticks] == ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2"]

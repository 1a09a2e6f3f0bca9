from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.windows import Window

from geotranslate.errors import GridError, SettingError
from geotranslate.raster.grid import Grid, offsets, plan_windows, split_window

UTM = CRS.from_epsg(32633)
STEPS = [(10.0, -10.0), (-10.0, 10.0), (10.0, 10.0), (0.143, -0.143)]

sides = st.integers(1, 70)


def grid_of(x_step: float = 10.0, y_step: float = -10.0, width: int = 30, height: int = 20) -> Grid:
    return Grid(UTM, Affine(x_step, 0, 500_000, 0, y_step, 4_000_000), width, height)


@settings(deadline=None)
@given(rows=sides, cols=sides, size=st.integers(1, 32), data=st.data())
def test_windows_cover_every_pixel_and_never_leave_a_raster_they_fit_in(rows, cols, size, data):
    size = min(size, rows, cols)
    stride = data.draw(st.integers(1, size))
    seen = np.zeros((rows, cols), int)
    for window in plan_windows((rows, cols), size=size, stride=stride):
        assert (window.height, window.width) == (size, size)
        assert window.row_off + size <= rows
        assert window.col_off + size <= cols
        seen[window.toslices()] += 1
    assert seen.min() >= 1


@given(row=sides, col=sides, rows=sides, cols=sides, height=sides, width=sides)
def test_parts_of_a_window_fill_it_once_row_by_row(row, col, rows, cols, height, width):
    whole = Window(col_off=col, row_off=row, width=cols, height=rows)
    seen = np.zeros((row + rows + 1, col + cols + 1), int)
    parts = list(split_window(whole, height, width))
    for part in parts:
        assert 1 <= part.height <= height
        assert 1 <= part.width <= width
        seen[part.toslices()] += 1
    assert (seen[whole.toslices()] == 1).all()
    assert seen.sum() == rows * cols
    assert parts == sorted(parts, key=lambda part: (part.row_off, part.col_off))


@given(length=st.integers(1, 16))
def test_a_side_shorter_than_the_window_gets_one_window_from_its_start(length):
    assert offsets(length, size=16, stride=8) == [0]


@given(length=st.integers(1, 500), size=st.integers(1, 64), data=st.data())
def test_no_window_is_planned_twice(length, size, data):
    starts = offsets(length, size, data.draw(st.integers(1, size)))
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("stride", [-1, 0, 17])
def test_a_stride_that_leaves_gaps_is_refused_with_the_mend(stride):
    with pytest.raises(SettingError, match="Choose a stride from 1 to 16"):
        list(plan_windows((64, 64), size=16, stride=stride))


@pytest.mark.parametrize("steps", STEPS)
def test_bounds_and_resolution_do_not_depend_on_where_the_axes_run(steps):
    grid = grid_of(*steps)
    left, bottom, right, top = grid.bounds
    assert left < right
    assert bottom < top
    assert grid.resolution == (abs(steps[0]), abs(steps[1]))
    corners = {grid.transform @ (col, row) for col in (0, 30) for row in (0, 20)}
    assert corners == {(x, y) for x in (left, right) for y in (bottom, top)}


def test_pixels_of_a_geographic_grid_shrink_towards_the_pole():
    transform = Affine(0.001, 0, 20, 0, -0.001, 60.01)
    x, y = Grid(CRS.from_epsg(4326), transform, 20, 20).resolution_m
    assert y == pytest.approx(111, rel=0.01)
    assert x == pytest.approx(111 / 2, rel=0.01)


def test_pixels_in_feet_are_told_in_metres():
    feet = Grid(CRS.from_epsg(2229), Affine(3, 0, 0, 0, -3, 0), 5, 5)
    assert feet.resolution_m == pytest.approx((0.9144, 0.9144), rel=1e-4)


@pytest.mark.parametrize("steps", STEPS)
def test_a_pixel_lies_at_the_same_place_in_a_grid_and_in_its_windows(steps):
    grid = grid_of(*steps)
    inner = grid.window_grid(Window(col_off=-3, row_off=4, width=7, height=40))
    assert inner.shape == (40, 7)
    for col, row in [(0, 0), (2, 9), (-5, 30)]:
        assert inner.transform @ (col, row) == pytest.approx(grid.transform @ (col - 3, row + 4))


@settings(deadline=None, max_examples=40)
@given(
    steps=st.sampled_from(STEPS),
    col=st.integers(0, 29),
    row=st.integers(0, 19),
    width=st.integers(1, 30),
    height=st.integers(1, 20),
)
def test_a_windows_bounds_give_the_window_back(steps, col, row, width, height):
    grid = grid_of(*steps)
    window = Window(
        col_off=col, row_off=row, width=min(width, 30 - col), height=min(height, 20 - row)
    )
    assert grid.window_of(grid.window_grid(window).bounds) == window
    assert grid.window_grid(window).window_in(grid) == window


def test_bounds_within_pixels_take_whole_pixels():
    window = grid_of().window_of((500_015, 3_999_961, 500_021, 3_999_979))
    assert window == Window(col_off=1, row_off=2, width=2, height=2)


def test_bounds_that_reach_beyond_the_raster_are_cut_at_its_edge():
    window = grid_of().window_of((400_000, 3_000_000, 500_050, 5_000_000))
    assert window == Window(col_off=0, row_off=0, width=5, height=20)


@pytest.mark.parametrize("steps", STEPS)
def test_the_window_around_bounds_may_leave_the_raster(steps):
    grid = grid_of(*steps)
    window = Window(col_off=-7, row_off=15, width=9, height=30)
    left, bottom, right, top = grid.window_grid(window).bounds
    x, y = grid.resolution
    assert grid.window_around((left, bottom, right, top)) == window
    assert grid.window_around((left + x / 2, bottom + y / 2, right, top)) == window
    point = left + x / 2, bottom + y / 2
    assert grid.window_around((*point, *point)).width == 1


def test_bounds_outside_the_raster_are_refused_with_what_it_covers():
    with pytest.raises(GridError, match=r"covers \(500000, 3999800, 500300, 4000000\)"):
        grid_of().window_of((0, 0, 10, 10))


@pytest.mark.parametrize("steps", STEPS)
def test_grids_shifted_by_whole_pixels_are_aligned(steps):
    grid = grid_of(*steps)
    other = grid.window_grid(Window(col_off=-1200, row_off=77, width=5, height=5))
    assert grid.is_aligned(other)
    assert other.is_aligned(grid)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 500_004, 0, -10, 4_000_000),
        Affine(10, 0, 500_000, 0, -10, 3_999_995),
        Affine(10.01, 0, 500_000, 0, -10, 4_000_000),
        Affine(20, 0, 500_000, 0, -20, 4_000_000),
        Affine(10, 0, 500_000, 0, 10, 4_000_000),
        Affine(-10, 0, 500_000, 0, -10, 4_000_000),
    ],
)
def test_grids_with_other_pixels_are_not_aligned(transform):
    other = Grid(UTM, transform, 30, 20)
    assert not grid_of().is_aligned(other)
    assert not other.is_aligned(grid_of())


def test_a_grid_of_another_crs_is_not_aligned():
    grid = grid_of()
    assert not grid.is_aligned(Grid(CRS.from_epsg(32634), grid.transform, 30, 20))


def test_a_step_that_is_off_counts_over_the_whole_width():
    transform = Affine(10.0001, 0, 500_000, 0, -10, 4_000_000)
    assert grid_of().is_aligned(Grid(UTM, transform, 10, 10))
    assert not grid_of().is_aligned(Grid(UTM, transform, 1000, 10))


def test_a_rotated_grid_is_refused_with_the_mend():
    with pytest.raises(GridError, match="gdalwarp"):
        Grid(UTM, Affine.rotation(10), 5, 5)

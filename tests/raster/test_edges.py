from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.crs import CRS
from rasterio.windows import Window

from geotranslate.raster.edges import Extent, distance_inside, find_extent, with_rim
from geotranslate.raster.grid import Grid
from tests.conftest import NORTH_UP

CAP = 6


@given(size=st.integers(2, 300), data=st.data())
def test_whole_rasters_fade_in_a_straight_line_where_they_overlap(size, data):
    overlap = data.draw(st.integers(1, size // 2))
    extent = Extent(0, size, 0, size)
    tents = extent.tents(Window(col_off=0, row_off=0, width=size, height=size))
    leaving, coming = tents[:, -overlap:], tents[:, :overlap]
    share = np.broadcast_to((np.arange(overlap) + 0.5) / overlap, coming.shape)
    np.testing.assert_allclose(coming / (leaving + coming), share, rtol=1e-5)


@given(valid=hnp.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_the_extent_holds_all_valid_pixels_and_no_more(valid):
    rows, cols = valid.shape
    read = []

    def part(window):
        read.append(window)
        return valid[window.toslices()]

    extent = find_extent(part, Grid(CRS.from_epsg(32633), NORTH_UP, cols, rows))
    if not valid.any():
        assert extent == Extent(0, rows, 0, cols)
        return
    row, col = np.nonzero(valid)
    assert extent == Extent(row.min(), row.max() + 1, col.min(), col.max() + 1)


def test_the_extent_is_found_from_the_rims_inwards(monkeypatch):
    monkeypatch.setattr("geotranslate.raster.edges.STEP", 4)
    valid = np.ones((40, 40), bool)
    valid[:6] = False
    seen = np.zeros(valid.shape, bool)

    def part(window):
        seen[window.toslices()] = True
        return valid[window.toslices()]

    extent = find_extent(part, Grid(CRS.from_epsg(32633), NORTH_UP, 40, 40))
    assert extent == Extent(6, 40, 0, 40)
    assert not seen[8:36, 4:36].any()


@settings(deadline=None, max_examples=50)
@given(valid=hnp.arrays(bool, (15, 17)))
def test_the_distance_is_that_to_the_nearest_invalid_pixel(valid):
    found = distance_inside(valid, CAP)
    rows, cols = np.nonzero(~valid)
    for row, col in np.argwhere(valid):
        nearest = np.hypot(rows - row, cols - col).min(initial=np.inf) - 0.5
        assert found[row, col] == pytest.approx(min(nearest, CAP), rel=1e-6)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), valid=hnp.arrays(bool, (30, 31), elements=st.booleans(), fill=st.just(True)))
def test_the_distance_does_not_depend_on_the_window(data, valid):
    grid = Grid(CRS.from_epsg(32633), NORTH_UP, 31, 30)
    row, col = data.draw(st.integers(0, 29)), data.draw(st.integers(0, 30))
    height, width = data.draw(st.integers(1, 30 - row)), data.draw(st.integers(1, 31 - col))
    window = Window(col_off=col, row_off=row, width=width, height=height)
    wide = with_rim(window, CAP + 1, grid)
    part = distance_inside(valid[wide.toslices()], CAP)
    top, left = int(row - wide.row_off), int(col - wide.col_off)
    np.testing.assert_array_equal(
        part[top : top + height, left : left + width],
        distance_inside(valid, CAP)[window.toslices()],
    )

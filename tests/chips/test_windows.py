import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from geotranslate.chips.windows import find_cover, find_inside, fits, lay_windows
from geotranslate.raster.grid import Grid

UTM32, UTM33 = CRS.from_epsg(32632), CRS.from_epsg(32633)
LONLAT = CRS.from_epsg(4326)
LOCAL = CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1]]')


def grid(width, height, *, col=0, row=0, step=(10, -10), crs=UTM33):
    x, y = step
    return Grid(crs, Affine(x, 0, 500_000 + x * col, 0, y, 5_000_000 + y * row), width, height)


sides = st.integers(1, 30)
steps = st.sampled_from([(10, -10), (10, 10), (-10, -10), (0.5, -0.7)])
some_grids = st.lists(
    st.builds(
        lambda w, h, col, row, step: grid(w, h, col=col, row=row, step=step),
        sides,
        sides,
        st.integers(-50, 50),
        st.integers(-50, 50),
        steps,
    ),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=60)
@given(grids=some_grids, size=st.integers(1, 12), stride=st.integers(1, 12))
def test_windows_cover_each_scene_that_is_large_enough_and_no_other(grids, size, stride):
    assume(stride <= size)
    windows = lay_windows(grids, size=size, stride=stride)
    for index, one in enumerate(grids):
        seen = np.zeros(one.shape, int)
        for k in np.flatnonzero(windows.scene == index):
            window = windows.window(k)
            assert seen[window.toslices()].shape == (size, size)
            seen[window.toslices()] += 1
        assert seen.min() >= 1 if fits(one, size) else not seen.any()


@settings(deadline=None, max_examples=60)
@given(grids=some_grids, size=st.integers(1, 12))
def test_bounds_are_those_of_the_windows_grids(grids, size):
    windows = lay_windows(grids, size=size, stride=size)
    expected = [
        grids[windows.scene[k]].window_grid(windows.window(k)).bounds for k in range(len(windows))
    ]
    assert np.allclose(windows.bounds(), np.reshape(expected, (-1, 4)), rtol=0, atol=1e-6)


def test_an_outline_in_another_crs_holds_the_windows_own_points():
    windows = lay_windows([grid(64, 64)], size=64, stride=64)
    (outline,) = windows.outlines(UTM32)
    left, bottom, right, top = windows.bounds()[0]
    x, y = np.random.default_rng(0).uniform((left, bottom), (right, top), (500, 2)).T
    moved = transform_points(UTM33, UTM32, x, y)
    assert shapely.contains_xy(outline, *moved).all()
    assert outline.area == pytest.approx(640**2, rel=0.01)


def test_there_is_no_outline_where_a_crs_does_not_reach():
    windows = lay_windows([grid(8, 8, crs=LOCAL)], size=8, stride=8)
    assert windows.outlines(LONLAT)[0].is_empty
    assert not windows.outlines(LOCAL)[0].is_empty


def area_in(shape):
    return lambda crs: shape


def test_windows_lie_inside_an_area_or_touch_it():
    windows = lay_windows([grid(64, 64)], size=8, stride=8)
    circle = shapely.Point(500_320, 4_999_680).buffer(260, quad_segs=200)
    corners = shapely.box(*windows.bounds().T)
    inside = find_inside(windows, area_in(circle), touching=False)
    touching = find_inside(windows, area_in(circle), touching=True)
    assert inside.tolist() == [circle.covers(box) for box in corners]
    assert touching.tolist() == [circle.intersects(box) for box in corners]
    assert 0 < inside.sum() < touching.sum() < len(windows)


def test_an_area_drawn_along_pixel_edges_holds_the_windows_at_its_edge():
    windows = lay_windows([grid(64, 64)], size=16, stride=16)
    left, bottom, right, top = windows.bounds()[5]
    drawn = shapely.box(*(round(edge, 2) + 1e-4 for edge in (left, bottom, right, top)))
    inside = find_inside(windows, area_in(drawn), touching=False)
    touching = find_inside(windows, area_in(drawn), touching=True)
    assert np.flatnonzero(inside).tolist() == np.flatnonzero(touching).tolist() == [5]


@settings(deadline=None, max_examples=60)
@given(
    places=st.lists(
        st.tuples(sides, sides, st.integers(-20, 40), st.integers(-20, 40)), min_size=1, max_size=4
    )
)
def test_cover_counts_the_pixels_that_scenes_share_with_a_window(places):
    windows = lay_windows([grid(24, 24)], size=8, stride=8)
    others = [grid(w, h, col=col, row=row) for w, h, col, row in places]
    cover = find_cover(windows, others)
    for k in range(len(windows)):
        pixels = []
        for w, h, col, row in places:
            inside = np.zeros((24, 24), bool)
            inside[max(row, 0) : max(row + h, 0), max(col, 0) : max(col + w, 0)] = True
            pixels.append(inside[windows.window(k).toslices()].sum())
        assert cover.share[k] == pytest.approx(sum(pixels) / 64, abs=1e-6)
        assert cover.scenes[k] == tuple(np.flatnonzero(pixels))


def test_cover_is_found_across_crs_and_pixel_size():
    windows = lay_windows([grid(64, 64)], size=32, stride=32)
    left, bottom, right, top = windows.bounds()[1]  # the upper right one of four
    x, y = transform_points(UTM33, LONLAT, [left, left, right, right], [bottom, top, bottom, top])
    lonlat = Grid(
        LONLAT,
        Affine((max(x) - min(x)) / 7, 0, min(x), 0, -(max(y) - min(y)) / 5, max(y)),
        7,
        5,
    )
    cover = find_cover(windows, [grid(64, 64, col=9999), lonlat])
    assert cover.share[1] == pytest.approx(1, abs=1e-6)
    assert cover.share[2] < 0.01
    assert cover.scenes[1] == (1,)


def test_cover_is_found_on_both_sides_of_180_degrees():
    crossing = Grid(CRS.from_epsg(32660), Affine(10, 0, 820_000, 0, -10, 110_000), 2600, 400)
    windows = lay_windows([crossing], size=100, stride=100)
    step = 0.01
    east = Grid(LONLAT, Affine(step, 0, 179, 0, -step, 2), 100, 200)
    west = Grid(LONLAT, Affine(step, 0, -180, 0, -step, 2), 100, 200)
    cover = find_cover(windows, [east, west])
    assert cover.share == pytest.approx(np.ones(len(windows)), abs=1e-6)
    assert set(cover.scenes) == {(0,), (0, 1), (1,)}
    assert find_cover(windows, [east]).share.min() < 1e-6


def test_a_window_that_a_map_folds_or_cuts_apart_is_never_a_traceback():
    crossing = Grid(CRS.from_epsg(32660), Affine(10, 0, 820_000, 0, -10, 110_000), 2600, 400)
    windows = lay_windows([crossing], size=100, stride=100)
    world = CRS.from_epsg(3857)
    scene = Grid(world, Affine(1000, 0, -20_037_000, 0, -1000, 1e6), 40_074, 2000)
    cover = find_cover(windows, [scene])
    assert cover.share.max() == pytest.approx(1)


def test_a_local_crs_meets_no_other():
    windows = lay_windows([grid(8, 8)], size=8, stride=8)
    cover = find_cover(windows, [grid(8, 8, crs=LOCAL)])
    assert cover.share.tolist() == [0]
    assert cover.scenes == ((),)

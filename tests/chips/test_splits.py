import itertools

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geotranslate.chips.layout import SPLITS
from geotranslate.chips.splits import BETWEEN, draw_order, split_by_blocks
from geotranslate.chips.windows import lay_windows
from geotranslate.errors import GridError
from geotranslate.raster.grid import Grid

UTM33 = CRS.from_epsg(32633)
SHARES = (0.8, 0.1, 0.1)
CANVAS = 160


def grid(width, height, *, col=0, row=0, pixel=10, crs=UTM33):
    x, y = 500_000 + 10 * col, 5_000_000 - 10 * row
    return Grid(crs, Affine(pixel, 0, x, 0, -pixel, y), width, height)


def paint(windows, splits):
    """(splits, rows, cols) where on a canvas of 10 m pixels each split has a window."""
    canvas = np.zeros((len(SPLITS), CANVAS, CANVAS), bool)
    for (left, bottom, right, top), split in zip(windows.bounds(), splits, strict=True):
        if split != BETWEEN:
            rows = slice(round((5_000_000 - top) / 10), round((5_000_000 - bottom) / 10))
            cols = slice(round((left - 500_000) / 10), round((right - 500_000) / 10))
            canvas[split, rows, cols] = True
    return canvas


scenes = st.lists(
    st.builds(
        lambda w, h, col, row, pixel: grid(w, h, col=col, row=row, pixel=pixel),
        st.integers(8, 40),
        st.integers(8, 40),
        st.integers(0, 80),
        st.integers(0, 80),
        st.sampled_from([10, 20]),
    ),
    min_size=1,
    max_size=3,
)
shares = st.sampled_from([SHARES, (0.5, 0.25, 0.25), (0.6, 0.4, 0.0), (0.7, 0.0, 0.3)])


@settings(deadline=None, max_examples=150)
@given(
    domains=st.lists(scenes, min_size=1, max_size=2),
    size=st.integers(2, 8),
    stride=st.integers(1, 8),
    shares=shares,
    seed=st.integers(0, 100),
)
def test_no_place_on_the_map_is_in_two_splits(domains, size, stride, shares, seed):
    assume(stride <= size)
    windows = [lay_windows(grids, size=size, stride=stride) for grids in domains]
    splits = split_by_blocks(windows, shares, seed)
    seen = np.any([paint(*pair) for pair in zip(windows, splits, strict=True)], axis=0)
    assert seen.sum(axis=0).max() <= 1


def test_no_place_is_in_two_splits_across_crs_either():
    systems = [CRS.from_epsg(32632), UTM33, CRS.from_epsg(4326)]
    step = 1 / 11_132  # about 10 m of latitude
    grids = [
        Grid(systems[0], Affine(10, 0, 960_000, 0, -10, 5_002_000), 400, 400),
        Grid(systems[1], Affine(10, 0, 492_000, 0, -10, 4_996_000), 400, 400),
        Grid(systems[2], Affine(step, 0, 14.9, 0, -step, 45.16), 400, 400),
    ]
    windows = lay_windows(grids, size=32, stride=16)
    (splits,) = split_by_blocks([windows], SHARES, seed=0)
    assert all((splits == split).sum() > 20 for split in range(3))
    outlines = windows.outlines(systems[1])
    for one, other in itertools.combinations(range(3), 2):
        ones, others = outlines[splits == one], outlines[splits == other]
        a, b = shapely.STRtree(others).query(ones, predicate="intersects")
        common = shapely.area(shapely.intersection(ones[a], others[b]))
        assert common.max(initial=0) < 10 * 10 / 100  # a hundredth of a pixel


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shares", [SHARES, (0.5, 0.3, 0.2), (0.9, 0.1, 0.0)])
def test_the_shares_of_a_large_scene_come_close(shares, seed):
    windows = lay_windows([grid(3000, 2500)], size=64, stride=32)
    (splits,) = split_by_blocks([windows], shares, seed)
    for split, share in enumerate(shares):
        assert (splits == split).mean() == pytest.approx(share, rel=0.2)
    assert (splits == BETWEEN).mean() < 0.15


@pytest.mark.parametrize("side", [512, 640, 1024])
def test_a_small_scene_still_has_all_splits(side):
    windows = lay_windows([grid(side, side)], size=256, stride=128)
    (splits,) = split_by_blocks([windows], SHARES, seed=0)
    counts = np.bincount(splits[splits != BETWEEN], minlength=3)
    assert counts.min() >= 1
    assert counts[0] > counts[1:].max()


@pytest.mark.parametrize("shares", [SHARES, (0.1, 0.2, 0.7)])
def test_where_there_is_hardly_any_ground_there_is_still_something_to_train_on(shares):
    windows = lay_windows([grid(300, 256)], size=256, stride=128)
    (splits,) = split_by_blocks([windows], shares, seed=0)
    assert splits[0] == 0
    assert splits[1] in (0, BETWEEN)


def test_the_only_split_asked_for_gets_everything():
    windows = lay_windows([grid(100, 100)], size=16, stride=8)
    (splits,) = split_by_blocks([windows], (1.0, 0.0, 0.0), seed=0)
    assert (splits == 0).all()


def test_the_seed_decides_and_nothing_else():
    windows = lay_windows([grid(800, 800)], size=32, stride=16)
    first, again, other = (split_by_blocks([windows], SHARES, seed)[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_two_domains_are_split_by_the_same_blocks():
    both = [lay_windows([grid(800, 800)], size=32, stride=16) for _ in range(2)]
    first, second = split_by_blocks(both, SHARES, seed=0)
    assert (first == second).all()


def test_a_window_that_the_map_cuts_apart_is_left_out():
    crossing = Grid(CRS.from_epsg(32601), Affine(10, 0, 165_000, 0, -10, 20_000), 2000, 400)
    elsewhere = Grid(UTM33, Affine(10, 0, 500_000, 0, -10, 20_000), 400, 400)
    windows = lay_windows([crossing, elsewhere], size=100, stride=100)
    (splits,) = split_by_blocks([windows], SHARES, seed=0)
    west = shapely.bounds(windows.outlines(CRS.from_epsg(4326)))
    apart = west[:, 2] - west[:, 0] > 180
    assert 0 < apart.sum() < len(windows) / 2
    assert (splits[apart] == BETWEEN).all()
    assert (splits[~apart] != BETWEEN).any()


@settings(deadline=None, max_examples=60)
@given(
    counts=st.tuples(*[st.integers(0, 60)] * 3).filter(any),
    seed=st.integers(0, 5),
    share=st.floats(0, 1),
)
def test_any_first_part_of_a_draw_has_the_shares_of_the_whole(counts, seed, share):
    splits = np.repeat(np.arange(3), counts)
    order = draw_order(splits, seed)
    assert sorted(order) == list(range(len(splits)))
    first = np.bincount(splits[order[: round(share * len(splits))]], minlength=3)
    assert np.abs(first - share * np.array(counts)).max() <= 2


def test_scenes_without_a_common_map_are_refused_with_the_mend():
    local = CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1]]')
    windows = lay_windows([grid(32, 32), grid(32, 32, crs=local)], size=8, stride=8)
    with pytest.raises(GridError, match="Give scenes of one coordinate system, or say --split"):
        split_by_blocks([windows], SHARES, seed=0)

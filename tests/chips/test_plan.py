from collections import Counter

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geotranslate.chips.config import TileConfig
from geotranslate.chips.plan import plan_tiles
from geotranslate.errors import ChipsError, GridError, SettingError

WORDS = {"size": 16, "stride": 8, "split": "1,0,0"}


@pytest.fixture
def write_area(tmp_path):
    def write(left, top, right, bottom, crs="EPSG:32633"):
        """A box given in pixels of the scenes' grid, in a CRS of choice."""
        box = shapely.box(
            500_000 + 10 * left, 4_000_000 - 10 * bottom, 500_000 + 10 * right, 4_000_000 - 10 * top
        )
        table = gpd.GeoSeries([box.segmentize(10)], crs="EPSG:32633").to_crs(crs)
        path = tmp_path / "area.gpkg"
        gpd.GeoDataFrame(geometry=table).to_file(path)
        return str(path)

    return write


@pytest.fixture
def scene(make_raster):
    def make(name, rows=64, cols=64, **place):
        return str(make_raster(name, np.ones((1, rows, cols), np.uint8), **place))

    return make


def windows_of(plan, domain="a"):
    return {(chip.scene, chip.window.col_off, chip.window.row_off) for chip in plan.chips[domain]}


def test_pairs_are_planned_where_both_domains_lie(scene):
    plan = plan_tiles(TileConfig(a=[scene("a.tif")], b=[scene("b.tif", col=24)], **WORDS))
    assert windows_of(plan) == {(0, c, r) for c in range(24, 49, 8) for r in range(0, 49, 8)}
    assert plan.dropped == {"not covered by scenes of B": 21}
    assert plan.counts == {domain: {"train": 28, "val": 0, "test": 0} for domain in "ab"}
    assert plan.total == 28
    assert plan.bytes == 2 * 28 * 16 * 16


def test_fewer_valid_pixels_let_pairs_be_covered_in_part(scene):
    words = WORDS | {"min_valid": 0.5}
    plan = plan_tiles(TileConfig(a=[scene("a.tif")], b=[scene("b.tif", col=24)], **words))
    assert min(col for _, col, _ in windows_of(plan)) == 16


def test_a_pair_knows_all_scenes_of_b_below_it(scene):
    names = [scene("b0.tif", cols=24), scene("b1.tif", cols=40, col=24), scene("far.tif", col=999)]
    plan = plan_tiles(TileConfig(a=[scene("a.tif")], b=names, **WORDS))
    partners = {chip.window.col_off: chip.partners for chip in plan.chips["a"]}
    assert partners == {
        0: (0,), 8: (0,), 16: (0, 1), 24: (1,), 32: (1,), 40: (1,), 48: (1,)
    }  # fmt: skip


def test_without_pairs_each_domain_is_planned_alone(scene):
    words = WORDS | {"layout": "cyclegan"}
    far = scene("b.tif", rows=16, cols=32, col=9999)
    plan = plan_tiles(TileConfig(a=[scene("a.tif")], b=[far], **words))
    assert len(windows_of(plan, "a")) == 49
    assert windows_of(plan, "b") == {(0, 0, 0), (0, 8, 0), (0, 16, 0)}
    assert [chip.number for chip in plan.chips["b"]] == [0, 1, 2]
    assert plan.total == 52


def test_a_scene_smaller_than_a_chip_is_named_and_skipped(scene, caplog):
    names = [scene("small.tif", rows=15), scene("large.tif")]
    plan = plan_tiles(TileConfig(a=names, b=names, **WORDS))
    assert {chip.scene for chip in plan.chips["a"]} == {1}
    assert "small.tif (15 x 64 px)" in caplog.text


def test_where_all_scenes_are_too_small_the_largest_size_is_named(scene):
    names = [scene("small.tif", rows=15), scene("smaller.tif", rows=7)]
    with pytest.raises(SettingError, match="Choose --size 15 or less"):
        plan_tiles(TileConfig(a=names, b=names, **WORDS))


def test_domains_that_do_not_meet_are_refused_with_their_places(scene):
    words = {"a": [scene("a.tif")], "b": [scene("b.tif", col=64)]} | WORDS
    with pytest.raises(
        GridError, match=r"A covers longitude 15\.0000 to 15\.00.*or cut .* --layout cyclegan"
    ):
        plan_tiles(TileConfig(**words))


def test_a_local_coordinate_system_meets_no_other_and_the_refusal_says_so(scene):
    local = scene("b.tif", crs='LOCAL_CS["building site",UNIT["metre",1]]')
    with pytest.raises(GridError, match="B covers ground that only a local coordinate system"):
        plan_tiles(TileConfig(a=[scene("a.tif")], b=[local], **WORDS))


def test_a_crs_that_no_chip_can_hold_is_refused(scene):
    a, b = scene("a.tif", crs="+proj=nsper +h=3000000 +lat_0=36 +lon_0=15"), scene("b.tif")
    with pytest.raises(GridError, match="Choose one that it can hold"):
        plan_tiles(TileConfig(a=[a], b=[a], **WORDS))
    # Pairs lie on the grid of A alone.
    plan_tiles(TileConfig(a=[b], b=[b, a], **WORDS))


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize(
    ("words", "columns"), [({}, {16, 24}), ({"aoi_touching": True}, {8, 16, 24, 32})]
)
def test_chips_lie_in_an_area_of_any_crs(scene, write_area, crs, words, columns):
    both = [scene("a.tif")]
    area = write_area(16, -50, 40, 50, crs)
    plan = plan_tiles(TileConfig(a=both, b=both, aoi=area, **WORDS, **words))
    assert {col for _, col, _ in windows_of(plan)} == columns
    assert sum(plan.dropped.values()) + plan.total == 49


def test_an_area_beside_the_scenes_is_refused_with_both_places(scene, write_area):
    both = [scene("a.tif")]
    area = write_area(500, 0, 600, 50)
    with pytest.raises(SettingError, match=r"lies outside the scenes.*Draw it where the scenes"):
        plan_tiles(TileConfig(a=both, b=both, aoi=area, **WORDS))


def test_an_area_too_narrow_for_a_chip_is_refused_with_the_mend(scene, write_area):
    both = [scene("a.tif")]
    area = write_area(20, 0, 30, 64)
    with pytest.raises(ChipsError, match=r"49 not inside the area.*--aoi-touching"):
        plan_tiles(TileConfig(a=both, b=both, aoi=area, **WORDS))


def test_the_refusal_says_which_filter_took_how_many(scene, write_area):
    words = {"a": [scene("a.tif")], "b": [scene("b.tif", col=24)]} | WORDS
    with pytest.raises(
        ChipsError, match=r"of 49 windows: 21 not covered by scenes of B, 28 not inside the area"
    ):
        plan_tiles(TileConfig(aoi=write_area(0, 0, 20, 64), **words))


def test_pairs_are_numbered_as_planned_and_split_by_the_seed(scene):
    words = WORDS | {"split": "0.6,0.2,0.2"}
    both = [scene("a.tif", rows=128, cols=128)]
    plans = [plan_tiles(TileConfig(a=both, b=both, seed=seed, **words)) for seed in (0, 0, 1)]
    assert plans[0].chips == plans[1].chips != plans[2].chips
    numbers = [chip.number for chip in plans[0].chips["a"]]
    assert numbers == list(range(len(numbers)))
    assert min(plans[0].counts["a"].values()) > 5
    assert plans[0].dropped["between two splits"] == 225 - len(numbers)


def test_a_limit_keeps_the_shares_of_the_splits(scene):
    words = WORDS | {"split": "0.6,0.2,0.2", "limit": 20}
    both = [scene("a.tif", rows=128, cols=128)]
    plan = plan_tiles(TileConfig(a=both, b=both, **words))
    assert plan.total == 20
    counts = plan.counts["a"]
    assert sum(counts.values()) == 20
    assert counts["train"] >= 10
    assert min(counts.values()) >= 2
    assert plan.bytes == 2 * 20 * 16 * 16
    first = Counter(chip.split for chip in plan.drawn(plan.chips["a"])[:20])
    assert first == counts


def test_the_record_changes_with_the_words_the_scenes_and_the_area(scene, write_area):
    both = [scene("a.tif")]

    def record(**words):
        return plan_tiles(TileConfig(a=both, b=both, **WORDS | words)).record

    first = record(aoi=write_area(0, 0, 40, 40))
    assert record(aoi=write_area(0, 0, 40, 40)) == first
    assert record(aoi=write_area(0, 0, 40, 41)) != first
    assert record(aoi=write_area(0, 0, 40, 40), seed=1) != first
    scene("a.tif", rows=65)
    assert record(aoi=write_area(0, 0, 40, 40)) != first

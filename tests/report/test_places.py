import re

import numpy as np
import pytest
from rasterio.crs import CRS

from geotranslate.errors import ChipsError
from geotranslate.report import places as module
from geotranslate.report.places import MARGIN, WIDTH, map_chips

SITE = CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1]]')


def outlines(path):
    """The corners of each outline in a path, (corners, 2)."""
    rings = path.removesuffix("Z").split("Z")
    return [np.array(re.findall(r"[-\d.]+", ring), float).reshape(-1, 2) for ring in rings]


def sides(ring):
    return np.ptp(ring, axis=0)


@pytest.mark.parametrize("northing", [100_000, 5_400_000, 7_500_000])
def test_a_square_chip_is_drawn_square_at_any_latitude_and_the_bar_measures_it(
    make_chips, northing
):
    chips = make_chips([(0, 0, "train"), (9, 4, "train")], origin=(500_000, northing))
    (place,) = map_chips(chips, "a").maps
    for ring in outlines(place.paths["train"]):
        across, down = sides(ring)
        assert across == pytest.approx(down, rel=0.02)
        assert place.bar_label == "2 km"
        assert place.bar / 2 == pytest.approx(across, rel=0.02)


def test_north_is_up_east_is_right_and_every_chip_is_inside(make_chips):
    (place,) = map_chips(make_chips([(0, 0, "train"), (3, 2, "val")]), "a").maps
    (train,), (val,) = outlines(place.paths["train"]), outlines(place.paths["val"])
    assert (val.mean(axis=0) > train.mean(axis=0) + 20).all()
    corners = np.concatenate([train, val])
    assert corners.min() >= MARGIN - 0.1
    assert corners[:, 0].max() <= WIDTH - MARGIN + 0.1
    assert corners[:, 1].max() <= place.height
    assert place.counts == {"train": 1, "val": 1, "test": 0}


def test_chips_far_from_each_other_have_maps_of_their_own_the_fuller_first(make_chips):
    chips = make_chips(
        [(0, 0, "train"), (300, 0, "train"), (301, 0, "val"), (8, 0, "test"), (7, 0, "test")]
    )
    drawn = map_chips(chips, "b")
    assert [place.counts for place in drawn.maps] == [
        {"train": 1, "val": 0, "test": 2},
        {"train": 1, "val": 1, "test": 0},
    ]
    assert drawn.maps[0].title == "48.75° N, 15.06° E"
    assert drawn.left_out == drawn.nowhere == 0


def test_of_many_places_the_fullest_are_drawn_and_the_rest_is_counted(make_chips, monkeypatch):
    monkeypatch.setattr(module, "MOST_MAPS", 2)
    row = [(100 * number, 0, "train") for number in range(5)]
    drawn = map_chips(make_chips([*row, (301, 0, "train")]), "a")
    assert [place.counts["train"] for place in drawn.maps] == [2, 1]
    assert drawn.left_out == 3


def test_of_many_chips_the_area_is_drawn_that_they_cover(make_chips, monkeypatch):
    square = [(x / 2, y / 2, "train") for x in range(5) for y in range(5)]
    hole = [place for place in square if place[:2] != (1, 1)]
    chips = make_chips([(x, y, split) for x, y, split in hole])
    (alone,) = map_chips(chips, "a").maps
    monkeypatch.setattr(module, "MOST_CHIPS", 10)
    (joined,) = map_chips(chips, "a").maps
    (area,) = outlines(joined.paths["train"])
    every = np.concatenate(outlines(alone.paths["train"]))
    assert np.allclose([area.min(0), area.max(0)], [every.min(0), every.max(0)], atol=0.1)
    assert joined.counts == alone.counts


def test_chips_without_a_place_on_earth_are_counted(make_chips):
    drawn = map_chips(make_chips([(0, 0, "train")], crs=SITE), "a")
    assert drawn.maps == ()
    assert drawn.nowhere == 1


def test_a_chip_across_180_degrees_has_one_small_map(make_chips):
    fiji = CRS.from_epsg(32701)
    chips = make_chips([(0, 0, "train"), (1, 0, "train")], crs=fiji, origin=(176_600, 8_000_000))
    drawn = map_chips(chips, "a")
    assert sum(place.counts["train"] for place in drawn.maps) == 2
    assert all(place.bar_label.endswith(" m") or place.bar_label == "1 km" for place in drawn.maps)


def test_an_index_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ChipsError, match=r"chips\.gpkg cannot be read"):
        map_chips(tmp_path, "a")

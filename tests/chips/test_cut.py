import threading
import time

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from geotranslate.chips.cut import OpenScenes, in_order, write_chip
from geotranslate.chips.file import read_chip
from geotranslate.chips.sources import read_sources
from geotranslate.errors import OutputError
from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid
from geotranslate.raster.scene import Chip

GRID = Grid(CRS.from_epsg(32633), Affine(10, 0, 500_000, 0, -10, 5_000_000), 24, 24)
BANDS = (
    Band(name="VV", unit="dB", scale=0.5, offset=-3, color="gray"),
    Band(name="VH", unit="dB", scale=2.0),
)


def make_chip(dtype="float32", invalid=0, nodata=None):
    pixels = np.random.default_rng(0).integers(1, 100, (2, 24, 24)).astype(dtype)
    valid = np.ones((24, 24), bool)
    valid.ravel()[:invalid] = False
    pixels[:, ~valid] = 0 if nodata is None else nodata
    return Chip(pixels, valid, GRID)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("invalid", [0, 30])
@pytest.mark.parametrize("nodata", [None, 0, 200])
def test_a_chip_comes_back_as_it_was_written(tmp_path, dtype, invalid, nodata):
    chip = make_chip(dtype, invalid, nodata)
    write_chip(tmp_path / "1.tif", chip, bands=BANDS, nodata=nodata)
    pixels, valid = read_chip(tmp_path / "1.tif")
    assert pixels.dtype == dtype
    assert (pixels == chip.pixels).all()
    assert (valid == chip.valid).all()
    with rasterio.open(tmp_path / "1.tif") as file:
        assert (file.crs, file.transform) == (GRID.crs, GRID.transform)
        assert file.descriptions == ("VV", "VH")
        assert file.units == ("dB", "dB")
        assert (file.scales, file.offsets) == ((0.5, 2.0), (-3, 0))
        assert file.colorinterp[0].name == "gray"
        assert file.nodata == nodata
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.tfw", "1.tif"]


def test_the_world_file_places_the_first_pixels_middle(tmp_path):
    write_chip(tmp_path / "1.tif", make_chip(), bands=BANDS, nodata=None)
    lines = (tmp_path / "1.tfw").read_text().split()
    assert list(map(float, lines)) == [10, 0, 0, -10, 500_005, 4_999_995]


def test_a_chip_in_a_folder_that_is_gone_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"1\.tfw"):
        write_chip(tmp_path / "gone" / "1.tif", make_chip(), bands=BANDS, nodata=None)


def test_results_come_in_the_order_of_the_items_and_not_far_ahead():
    started = []

    def work(item):
        started.append(item)
        time.sleep(0.002 * (item % 3))
        return item, threading.get_ident()

    results = in_order(work, range(40), workers=3)
    first = [next(results)[0] for _ in range(5)]
    assert first == [0, 1, 2, 3, 4]
    assert len(started) <= 5 + 2 * 3 + 1
    rest = list(results)
    assert [item for item, _ in rest] == list(range(5, 40))
    assert len({thread for _, thread in rest}) == 3


def test_the_first_error_ends_the_work():
    started = []

    def work(item):
        started.append(item)
        if item == 3:
            raise OutputError("full")
        return item

    with pytest.raises(OutputError, match="full"):
        list(in_order(work, range(1000), workers=2))
    assert len(started) < 20


def test_scenes_used_last_stay_open_and_others_are_closed(make_raster, monkeypatch):
    monkeypatch.setattr("geotranslate.chips.cut.SCENES_KEPT_OPEN", 2)
    pixels = np.ones((1, 4, 4), np.uint8)
    paths = [str(make_raster(f"{n}.tif", pixels)) for n in range(4)]
    desk = OpenScenes({"a": read_sources(paths)})
    scenes = [desk.get("a", index) for index in (0, 1, 2, 0, 3)]
    assert scenes[3] is scenes[0]
    desk.trim()
    assert desk.get("a", 0) is scenes[0]
    assert desk.get("a", 1) is not scenes[1]
    desk.close()

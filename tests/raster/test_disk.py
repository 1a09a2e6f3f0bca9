from __future__ import annotations

import logging
import zlib

import numpy as np
import pytest

from geotranslate.errors import OutputError
from geotranslate.raster.disk import DEFLATE_MOST, check_room, check_room_for_cogs
from geotranslate.raster.mosaic import MosaicSettings, check_mosaic, plan_mosaic


def test_nothing_is_said_where_there_is_room(room, tmp_path, caplog):
    room(1000)
    check_room(tmp_path / "out.tif", 1000, least=1000)
    assert not caplog.records


def test_a_disk_that_may_be_too_small_is_warned_of_with_both_numbers(room, tmp_path, caplog):
    room(2_500_000_000)
    check_room(tmp_path / "out.tif", 4e12)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "4,000.0 GB" in record.message
    assert "2.5 GB" in record.message


def test_what_can_never_fit_is_refused_with_the_mend(room, tmp_path):
    room(100_000_000)
    with pytest.raises(OutputError, match=r"200\.0 MB at the very least.*100\.0 MB.*Make room"):
        check_room(tmp_path / "out.tif", 4e12, least=200_000_000)


def test_the_disk_of_the_nearest_folder_that_is_there_is_asked(room, tmp_path, monkeypatch):
    asked = room(10)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    check_room(tmp_path / "a" / "b" / "c.tif", 0)
    check_room(tmp_path / "a", 0)
    check_room(tmp_path.relative_to(tmp_path) / "b.tif", 0)
    assert [folder.resolve() for folder in asked] == [tmp_path / "a", tmp_path / "a", tmp_path]


def test_rows_the_file_and_its_overviews_lie_there_at_once(room, tmp_path, caplog):
    # Rows of 900 bytes beside files of 300 and 900 with a third more, and the overviews once more.
    need = 900 + 1200 * 4 // 3 + 900 // 3
    room(need)
    check_room_for_cogs(tmp_path / "out", [300, 900], passing=900)
    assert not caplog.records
    room(need - 1)
    check_room_for_cogs(tmp_path / "out", [300, 900], passing=900)
    assert len(caplog.records) == 1


def test_nothing_to_write_needs_no_room(room, tmp_path, caplog):
    room(0)
    check_room_for_cogs(tmp_path / "out", [], passing=0)
    assert not caplog.records


def test_no_pixels_pack_closer_than_the_least_says():
    raw = bytes(10_000_000)
    packed = zlib.compress(raw, 9)
    assert len(raw) / DEFLATE_MOST <= len(packed) < len(raw) / DEFLATE_MOST * 1.1


class TestMosaics:
    @pytest.fixture
    def tiles(self, make_raster):
        def make(col):
            return [
                make_raster(f"{index}.tif", np.ones((1, 100, 100), np.uint8), col=index * col)
                for index in range(2)
            ]

        return make

    def test_rows_that_are_copied_need_no_room_of_their_own(self, tiles, tmp_path):
        copied = plan_mosaic(tiles(100), tmp_path / "out.tif")
        assert (copied.size_bytes, copied.passing_bytes) == (20_000, 0)
        blended = plan_mosaic(tiles(50), tmp_path / "out.tif")
        assert blended.size_bytes == blended.passing_bytes == 15_000

    def test_they_are_refused_before_a_pixel_is_read(self, tiles, room, tmp_path):
        plan = plan_mosaic(tiles(50), tmp_path / "out.tif", MosaicSettings())
        room(10)
        with pytest.raises(OutputError, match="Make room"):
            check_mosaic(plan, tmp_path / "out.tif")

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioIOError
from rasterio.io import MemoryFile
from rasterio.warp import transform
from rasterio.windows import Window
from rio_cogeo import cog_validate

from geotranslate.errors import GridError, OutputError
from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid, split_window
from geotranslate.raster.reading import bounded_cache
from geotranslate.raster.vrt import Source
from geotranslate.raster.writing import (
    GeoTiff,
    check_crs,
    check_readable,
    quickest_codec,
    write_cog,
)
from tests.conftest import NORTH_UP
from tests.reading_back import read

BANDS = (
    Band(name="B4", unit="reflectance", scale=1e-4, offset=-0.1, color="red"),
    Band(name="B8", color="nir"),
)
TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


def grid_of(rows, cols, x_step=10.0, y_step=-10.0):
    transform = Affine(x_step, 0, 500_000.5, 0, y_step, 4_000_000.25)
    return Grid(CRS.from_epsg(32633), transform, cols, rows)


def whole(grid):
    return Window(col_off=0, row_off=0, width=grid.width, height=grid.height)


def noise(dtype, grid, seed=0):
    values = np.random.default_rng(seed).uniform(1, 100, (2, *grid.shape)).astype(dtype)
    valid = np.random.default_rng(seed + 1).random(grid.shape) < 0.8
    return values, valid


def write_rows(folder, grid, pixels, valid, nodata=None, rows=300):
    """The raster in finished files of some rows each."""
    sources = []
    for row in range(0, grid.height, rows):
        window = Window(
            col_off=0, row_off=row, width=grid.width, height=min(rows, grid.height - row)
        )
        path = folder / f"row{row}.tif"
        part = grid.window_grid(window)
        with GeoTiff(path, part, bands=BANDS, dtype=pixels.dtype.name, nodata=nodata) as file:
            place = window.toslices()
            file.write(whole(part), pixels[:, *place], valid[place])
        sources.append(Source(path, window))
    return sources


class TestGeoTiff:
    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("shape", [(5, 7), (300, 260)])
    def test_pixels_validity_and_place_come_back(self, tmp_path, dtype, shape):
        grid = grid_of(*shape)
        pixels, valid = noise(dtype, grid)
        with GeoTiff(tmp_path / "a.tif", grid, bands=BANDS, dtype=dtype) as file:
            file.write(whole(grid), pixels, valid)
        scene, chip = read(tmp_path / "a.tif")
        np.testing.assert_array_equal(chip.pixels, pixels)
        np.testing.assert_array_equal(chip.valid, valid)
        assert scene.grid == grid
        assert scene.bands == BANDS

    @pytest.mark.parametrize("length", [0, 1, 4, 8, 20, 100, 160, 300, 1000])
    def test_what_a_kill_cut_off_anywhere_is_in_nobodys_way(self, tmp_path, length):
        grid = grid_of(300, 260)
        pixels, valid = noise("uint8", grid)
        for number in range(2):
            with GeoTiff(tmp_path / f"{number}.tif", grid, bands=BANDS, dtype="uint8") as file:
                file.write(whole(grid), pixels, valid)
            part = tmp_path / f"{number + 1}.tif.part"
            part.write_bytes((tmp_path / f"{number}.tif").read_bytes()[:length])
        part.unlink()
        assert {path.name for path in tmp_path.iterdir()} == {"0.tif", "1.tif"}
        assert (tmp_path / "0.tif").read_bytes() == (tmp_path / "1.tif").read_bytes()

    def test_files_are_on_the_disk_before_they_have_their_names(self, tmp_path, monkeypatch):
        grid = grid_of(20, 30)
        pixels, valid = noise("uint8", grid)
        flushed = []
        monkeypatch.setattr(os, "fsync", lambda number: flushed.append(os.fstat(number).st_size))
        sources = write_rows(tmp_path, grid, pixels, valid)
        out = tmp_path / "out.tif"
        write_cog(out, sources, grid, bands=BANDS, dtype="uint8", scratch=tmp_path)
        assert flushed == [sources[0].path.stat().st_size, out.stat().st_size]

    @pytest.mark.parametrize("nodata", [None, 0, 255])
    def test_what_is_never_written_is_invalid(self, tmp_path, nodata):
        grid = grid_of(600, 600)
        part = Window(col_off=10, row_off=20, width=30, height=40)
        pixels, valid = np.full((2, 40, 30), 7, np.uint8), np.ones((40, 30), bool)
        with GeoTiff(tmp_path / "a.tif", grid, bands=BANDS, dtype="uint8", nodata=nodata) as file:
            file.write(part, pixels, valid)
        _, chip = read(tmp_path / "a.tif")
        assert chip.valid[part.toslices()].all()
        assert chip.valid.sum() == 40 * 30

    def test_it_has_its_name_only_when_it_is_complete(self, tmp_path):
        grid = grid_of(5, 7)
        pixels, valid = noise("uint8", grid)
        with GeoTiff(tmp_path / "a.tif", grid, bands=BANDS, dtype="uint8") as file:
            file.write(whole(grid), pixels, valid)
            assert not (tmp_path / "a.tif").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]

    def test_an_error_on_the_way_leaves_nothing(self, tmp_path):
        with (
            pytest.raises(ZeroDivisionError),
            GeoTiff(tmp_path / "a.tif", grid_of(5, 7), bands=BANDS, dtype="uint8"),
        ):
            1 / 0  # noqa: B018
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_folder_is_said(self, tmp_path):
        with pytest.raises(OutputError, match=r"a\.tif"):
            GeoTiff(tmp_path / "away" / "a.tif", grid_of(5, 7), bands=BANDS, dtype="uint8")

    @pytest.mark.parametrize("rows", [1, 100, 256, 300])
    def test_what_is_written_core_by_core_is_packed_once(self, tmp_path, rows):
        """Though the cache holds but a few cores: the file is as small as one written at once."""
        grid = grid_of(rows, 2048)
        pixels = np.random.default_rng(0).normal(size=(2, *grid.shape))
        valid = np.ones(grid.shape, bool)
        with bounded_cache(2**19):
            for name, width in (("cores", 256), ("once", 2048)):
                with GeoTiff(
                    tmp_path / f"{name}.tif", grid, bands=BANDS, dtype="float64", passing=True
                ) as file:
                    for window in split_window(grid.whole, rows, width):
                        place = window.toslices()
                        file.write(window, pixels[:, *place], valid[place])
        cores, once = ((tmp_path / f"{name}.tif").stat().st_size for name in ("cores", "once"))
        assert cores == pytest.approx(once, rel=0.03)
        _, chip = read(tmp_path / "cores.tif")
        np.testing.assert_array_equal(chip.pixels, pixels)

    @pytest.mark.parametrize("shape", [(64, 64), (256, 256), (256, 512), (40, 300)])
    def test_a_chip_is_one_block(self, tmp_path, shape):
        grid = grid_of(*shape)
        with GeoTiff(tmp_path / "a.tif", grid, bands=BANDS, dtype="uint8") as file:
            file.write(whole(grid), *noise("uint8", grid))
        with rasterio.open(tmp_path / "a.tif") as dataset:
            assert dataset.block_shapes == [shape] * 2

    def test_without_zstd_it_is_deflated(self, tmp_path, monkeypatch):
        def refuse(*args, **options):
            raise RasterioIOError("Cannot create TIFF file due to missing codec for ZSTD")

        def written():
            quickest_codec.cache_clear()
            with GeoTiff(path, grid, bands=BANDS, dtype="uint8", nodata=0, passing=True) as file:
                file.write(whole(grid), *noise("uint8", grid))
            with rasterio.open(path) as dataset:
                return dataset.compression.name

        path, grid = tmp_path / "a.tif", grid_of(9, 7)
        assert written() == "zstd"
        monkeypatch.setattr(MemoryFile, "open", refuse)
        try:
            assert written() == "deflate"
        finally:
            quickest_codec.cache_clear()


class TestCog:
    @pytest.mark.parametrize("dtype", TYPES)
    def test_rows_become_one_valid_cog(self, tmp_path, dtype):
        grid = grid_of(700, 1100)
        pixels, valid = noise(dtype, grid)
        sources = write_rows(tmp_path, grid, pixels, valid)
        output = tmp_path / "out.tif"
        write_cog(output, sources, grid, bands=BANDS, dtype=dtype, scratch=tmp_path)
        assert cog_validate(output)[:2] == (True, [])
        scene, chip = read(output)
        np.testing.assert_array_equal(chip.valid, valid)
        np.testing.assert_array_equal(chip.pixels[:, valid], pixels[:, valid])
        assert (scene.grid, scene.bands, scene.dtype) == (grid, BANDS, dtype)
        with rasterio.open(output) as file:
            assert file.overviews(1) == [2, 4]
            assert file.block_shapes == [(512, 512)] * 2

    @pytest.mark.parametrize("nodata", [-9999.0, float("nan")])
    def test_a_nodata_value_is_kept_in_place_of_a_mask(self, tmp_path, nodata):
        grid = grid_of(700, 600)
        pixels, valid = noise("float32", grid)
        pixels[:, ~valid] = nodata
        sources = write_rows(tmp_path, grid, pixels, valid, nodata)
        output = tmp_path / "out.tif"
        write_cog(
            output, sources, grid, bands=BANDS, dtype="float32", nodata=nodata, scratch=tmp_path
        )
        scene, chip = read(output)
        np.testing.assert_array_equal(chip.pixels, pixels)
        np.testing.assert_array_equal(chip.valid, valid)
        np.testing.assert_array_equal(scene.nodata, nodata)

    @pytest.mark.parametrize("nodata", [None, 0])
    def test_overviews_do_not_mix_invalid_pixels_in(self, tmp_path, nodata):
        grid = grid_of(700, 700)
        _, valid = noise("uint8", grid)
        pixels = np.where(valid, 100, 0).astype(np.uint8)[None].repeat(2, axis=0)
        sources = write_rows(tmp_path, grid, pixels, valid, nodata)
        output = tmp_path / "out.tif"
        write_cog(
            output, sources, grid, bands=BANDS, dtype="uint8", nodata=nodata, scratch=tmp_path
        )
        with rasterio.open(output, overview_level=0) as file:
            seen = file.read(1)[file.read_masks(1) > 0]
        assert set(np.unique(seen)) == {100}

    def test_a_turned_grid_stays_turned(self, tmp_path):
        grid = grid_of(700, 300, x_step=-0.143, y_step=0.143)
        pixels, valid = noise("uint8", grid)
        sources = write_rows(tmp_path, grid, pixels, valid)
        output = tmp_path / "out.tif"
        write_cog(output, sources, grid, bands=BANDS, dtype="uint8", scratch=tmp_path)
        scene, chip = read(output)
        assert scene.grid == grid
        np.testing.assert_array_equal(chip.pixels[:, valid], pixels[:, valid])

    def test_colours_and_tags_are_kept(self, tmp_path):
        colors = ("red", "green", "blue")
        bands = tuple(Band(name=color, color=color) for color in colors)
        grid = grid_of(20, 20)
        with GeoTiff(tmp_path / "a.tif", grid, bands=bands, dtype="uint8") as file:
            file.write(whole(grid), np.ones((3, 20, 20), np.uint8), np.ones((20, 20), bool))
        write_cog(
            tmp_path / "out.tif",
            [Source(tmp_path / "a.tif", whole(grid))],
            grid,
            bands=bands,
            dtype="uint8",
            tags={"NOTE": "hello"},
            scratch=tmp_path,
        )
        with rasterio.open(tmp_path / "out.tif") as file:
            assert [color.name for color in file.colorinterp] == list(colors)
            assert file.tags()["NOTE"] == "hello"

    def test_the_same_rows_give_the_same_bytes(self, tmp_path):
        grid = grid_of(700, 600)
        contents = []
        for run in ("a", "b"):
            (tmp_path / run).mkdir()
            sources = write_rows(tmp_path / run, grid, *noise("uint16", grid))
            output = tmp_path / run / "out.tif"
            write_cog(output, sources, grid, bands=BANDS, dtype="uint16", scratch=tmp_path / run)
            contents.append(output.read_bytes())
        assert contents[0] == contents[1]


def test_a_file_that_was_cut_off_is_found_out(make_raster):
    path = make_raster("a.tif", np.random.default_rng(0).random((2, 90, 90), np.float32))
    check_readable(path)
    for lost in (1, 100, 20_000):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - lost)
        with pytest.raises(OutputError, match="cannot be read back"):
            check_readable(path)


HELD = [
    *("EPSG:32633", "EPSG:3035", "EPSG:3857", "EPSG:4326", "EPSG:27700", "EPSG:5514", "EPSG:8857"),
    *("EPSG:7415", "EPSG:5972", "EPSG:4979", "EPSG:2263", "EPSG:4807", "ESRI:102008", "OGC:CRS84"),
    "+proj=tmerc +lat_0=1 +lon_0=2 +k=0.9 +x_0=1000 +y_0=5 +ellps=GRS80",
    "+proj=tmerc +lon_0=9 +x_0=3500000 +ellps=bessel +towgs84=598,73,418,0.2,0.05,-2.4,6.7",
    "+proj=laea +lat_0=50 +lon_0=10 +R=6370997",
    "+proj=eqc +R=1737400",
    'LOCAL_CS["site",UNIT["metre",1]]',
    'ENGCRS["site",EDATUM["here"],CS[Cartesian,2],AXIS["(E)",east],AXIS["(N)",north],'
    'LENGTHUNIT["metre",1]]',
]


class TestCrs:
    @pytest.mark.parametrize("words", HELD)
    def test_it_comes_back_from_a_file_that_is_alone(self, tmp_path, words):
        crs = CRS.from_user_input(words)
        step = 0.01 if crs.is_geographic else 10
        grid = Grid(crs, Affine(step, 0, 10, 0, -step, 45), 7, 5)
        sources = write_rows(tmp_path, grid, *noise("uint8", grid))
        output = tmp_path / "moved" / "out.tif"
        output.parent.mkdir()
        write_cog(output, sources, grid, bands=BANDS, dtype="uint8", scratch=tmp_path)
        assert [path.name for path in output.parent.iterdir()] == ["out.tif"]
        with rasterio.open(output) as file:
            if crs.is_geographic or crs.is_projected:
                places = transform(crs, file.crs, [10, 10 + step], [45, 45 - step])
                np.testing.assert_allclose(places, [[10, 10 + step], [45, 45 - step]])
            else:
                assert "site" in file.crs.to_wkt()

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            ("+proj=eqearth", "EPSG:8857"),
            ("+proj=nsper +h=3000000 +lat_0=40", "EPSG:..."),
            ("+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39 +lon_0=180", "EPSG:..."),
            ("EPSG:9311", "EPSG:..."),  # its code is written, and another is read back
            ("+proj=krovak", "EPSG:5514"),  # comes back with its axes exchanged
        ],
    )
    def test_one_that_would_be_lost_is_refused_with_the_mend(self, tmp_path, words, code):
        grid = Grid(CRS.from_user_input(words), NORTH_UP, 7, 5)
        mend = re.escape(f"`geotranslate mosaic --crs {code}` brings rasters into it.")
        with pytest.raises(GridError, match=mend):
            check_crs(grid)
        with pytest.raises(GridError, match=mend):
            GeoTiff(tmp_path / "a.tif", grid, bands=BANDS, dtype="uint8")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("left", [-180, 175, 190])
    def test_a_longitude_may_come_back_a_turn_away(self, left):
        for words in (
            "+proj=longlat +ellps=intl +towgs84=-87,-98,-121",
            "+proj=longlat +lon_wrap=180",
        ):
            transform = Affine(0.1, 0, left, 0, -0.1, 45)
            check_crs(Grid(CRS.from_user_input(words), transform, 70, 50))

    def test_another_than_was_written_is_found_out(self, make_raster):
        path = make_raster("a.tif", np.ones((1, 5, 7), np.uint8))
        check_readable(path, Grid(CRS.from_epsg(32633), NORTH_UP, 7, 5))
        with pytest.raises(OutputError, match="another grid than it was given"):
            check_readable(path, Grid(CRS.from_epsg(32634), NORTH_UP, 7, 5))


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from geotranslate.errors import OutputError
sys.path.insert(0, sys.argv[1])
from test_writing import BANDS, grid_of, noise, write_rows
from geotranslate.raster.writing import write_cog

folder, limit = Path(sys.argv[2]), int(sys.argv[3])
grid = grid_of(700, 600)
sources = write_rows(folder, grid, *noise("uint16", grid))
output = folder / "out.tif"
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write_cog(output, sources, grid, bands=BANDS, dtype="uint16", scratch=folder)
except OutputError as error:
    print(error)
else:
    print("size", output.stat().st_size)
"""


@pytest.mark.parametrize("room", [0.3, 0.999, -1])
def test_a_full_disk_is_said_and_no_file_gets_the_name(tmp_path, room):
    """A share of the bytes there is room for, or the number of bytes that are missing."""

    def run(limit):
        command = [sys.executable, "-c", FULL_DISK, __file__.rsplit("/", 1)[0], tmp_path, limit]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        return done.stdout

    size = int(run(0).removeprefix("size "))
    (tmp_path / "out.tif").unlink()
    limit = size - 1 if room < 0 else int(size * room)
    assert "Make room and run the same command again" in run(limit)
    assert not (tmp_path / "out.tif").exists()


def test_an_error_of_gdals_that_nobody_explains_is_said(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise SystemError("Unknown GDAL Error")

    grid = grid_of(20, 30)
    sources = write_rows(tmp_path, grid, *noise("uint8", grid))
    monkeypatch.setattr(rasterio.shutil, "copy", fail)
    with pytest.raises(OutputError, match=r"Unknown GDAL Error.*run the same command again"):
        write_cog(tmp_path / "out.tif", sources, grid, bands=BANDS, dtype="uint8", scratch=tmp_path)

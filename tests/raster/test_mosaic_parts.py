"""Areas, cutlines, chosen bands, quality, virtual mosaics, footprints."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.errors import RasterioIOError

from geotranslate.errors import BandError, OutputError, RasterError, SettingError, TakenError
from geotranslate.raster import writing
from geotranslate.raster.domain import Band
from geotranslate.raster.mosaic import (
    MosaicSettings,
    check_virtual,
    plan_mosaic,
    virtual,
    write_virtual,
)
from geotranslate.raster.mosaic.cutlines import write_footprints
from geotranslate.raster.output import explained, locked
from geotranslate.raster.scene import open_scene
from tests.conftest import NORTH_UP
from tests.reading_back import join, read

IO = Path("/proc/self/io")

RESAMPLED = {"nearest": "bilinear", "bilinear": "nearest"}

SCALED_BANDS = (
    Band(name="B4", unit="reflectance", scale=1e-4, offset=-0.1, color="red"),
    Band(name="height", unit="m"),
)


@pytest.fixture
def pair(make_raster):
    """a.tif of ones and b.tif of twos, 20 px each, that overlap by half."""
    return [
        make_raster(f"{name}.tif", np.full((1, 20, 20), value, np.uint8), col=col)
        for name, value, col in (("a", 1, 0), ("b", 2, 10))
    ]


@pytest.fixture
def draw(tmp_path):
    """Writes polygons with columns as a GeoPackage."""

    def make(shapes, name="shapes.gpkg", crs="EPSG:32633", **columns):
        table = gpd.GeoDataFrame(columns, geometry=list(shapes), crs="EPSG:32633")
        table.to_crs(crs).to_file(tmp_path / name)
        return tmp_path / name

    return make


def box(left, top, right, bottom):
    """In pixels of NORTH_UP."""
    x0, y0 = NORTH_UP @ (left, top)
    x1, y1 = NORTH_UP @ (right, bottom)
    return shapely.box(x0, y1, x1, y0)


class TestArea:
    def test_outside_the_mosaic_is_empty_and_around_it_it_ends(self, pair, draw, tmp_path):
        triangle = shapely.Polygon([NORTH_UP @ point for point in ((2, 2), (14, 2), (2, 14))])
        scene, chip = join(pair, tmp_path / "out.tif", aoi=draw([triangle]), blend="first")
        assert scene.grid.transform == NORTH_UP @ Affine.translation(2, 2)
        assert scene.grid.shape == (12, 12)
        row, col = np.mgrid[:12, :12] + 0.5
        # Centres on the line itself may fall to either side.
        clear = row + col != 12
        np.testing.assert_array_equal(chip.valid[clear], (row + col < 12)[clear])
        assert set(np.unique(chip.pixels[0, chip.valid])) == {1}

    def test_an_area_in_another_crs_is_brought_over(self, pair, draw, tmp_path):
        area = draw([box(3, 3, 9, 9)], crs="EPSG:4326")
        _, chip = join(pair, tmp_path / "out.tif", aoi=area)
        assert chip.valid.sum() == 36

    def test_an_area_elsewhere_is_refused(self, pair, draw, tmp_path):
        area = draw([box(300, 3, 900, 9)])
        with pytest.raises(SettingError, match="Give an area that overlaps the rasters"):
            join(pair, tmp_path / "out.tif", aoi=area)

    def test_an_area_between_the_centres_of_pixels_is_refused(self, pair, draw, tmp_path):
        area = draw([box(3.1, 3.1, 3.4, 3.4), box(5.6, 3, 5.9, 9)])
        with pytest.raises(SettingError, match=r"no pixel of 10 by 10 .*Draw it larger, or choose"):
            plan_mosaic(pair, tmp_path / "out.tif", MosaicSettings(aoi=area))
        _, chip = join(pair, tmp_path / "out.tif", aoi=area, resolution=(2, 2))
        assert chip.valid.any()


class TestCutline:
    @pytest.mark.parametrize("named", ["file", "stem", "path"])
    def test_each_scene_counts_inside_its_polygon_only(self, pair, draw, tmp_path, named):
        names = {
            "file": ["a.tif", "b.tif"],
            "stem": ["a", "b"],
            "path": [str(path) for path in pair],
        }[named]
        cut = draw([box(0, 0, 13, 20), box(13, 5, 30, 20)], note=["x", "y"], scene=names)
        scene, chip = join(pair, tmp_path / "out.tif", cutline=cut, blend="first")
        assert scene.grid.shape == (20, 30)
        expected = np.zeros((20, 30), int)
        expected[:, :13] = 1
        expected[5:, 13:] = 2
        np.testing.assert_array_equal(np.where(chip.valid, chip.pixels[0], 0), expected)

    def test_feather_fades_towards_the_cut(self, pair, draw, tmp_path):
        cut = draw([box(0, 0, 16, 20), box(12, 0, 30, 20)], scene=["a", "b"])
        paths = []
        for path, value in zip(pair, (0, 80), strict=True):
            with rasterio.open(path, "r+") as file:
                file.write(np.full((1, 20, 20), value, np.uint8))
            paths.append(path)
        _, chip = join(paths, tmp_path / "out.tif", cutline=cut)
        # Four pixels fade in a straight line between the two cuts.
        shares = chip.pixels[0, 10, 11:17] / 80
        np.testing.assert_allclose(shares, [0, 0.03, 0.26, 0.74, 0.97, 1], atol=0.05)

    def test_a_scene_without_a_polygon_is_refused(self, pair, draw, tmp_path):
        cut = draw([box(0, 0, 13, 20)], scene=["a"])
        with pytest.raises(SettingError, match=r"no polygon for 1 of 2 rasters, such as .*b\.tif"):
            join(pair, tmp_path / "out.tif", cutline=cut)

    def test_polygons_that_name_no_scene_are_refused(self, pair, draw, tmp_path):
        cut = draw([box(0, 0, 13, 20)], scene=["c"])
        with pytest.raises(SettingError, match="or say --aoi for one area that cuts all"):
            join(pair, tmp_path / "out.tif", cutline=cut)

    @pytest.mark.parametrize(
        "shape",
        [
            box(300, 0, 310, 9),
            box(30, 0, 40, 20),  # touches the edge
            box(15.1, 3.1, 15.4, 3.4),  # lies between centres
        ],
    )
    def test_a_polygon_beside_all_pixels_of_its_scene_is_refused(self, pair, draw, tmp_path, shape):
        cut = draw([box(0, 0, 13, 20), shape], scene=["a", "b"])
        with pytest.raises(SettingError, match=r"the polygon of .*b\.tif .* none of the centres"):
            join(pair, tmp_path / "out.tif", cutline=cut)

    def test_a_name_of_several_scenes_is_refused_with_the_mend(self, make_raster, draw, tmp_path):
        paths = [
            make_raster(f"{folder}/s.tif", np.full((1, 20, 20), 7, np.uint8), col=col)
            for folder, col in (("u1", 0), ("u2", 10))
        ]
        for name in ("s.tif", "s"):
            cut = draw([box(0, 0, 30, 20)], scene=[name])
            with pytest.raises(SettingError, match=r"u1/s\.tif, .*u2/s\.tif.*Name it by its path"):
                join(paths, tmp_path / "out.tif", cutline=cut)
        cut = draw([box(0, 0, 5, 20), box(25, 0, 30, 20)], scene=list(map(str, paths)))
        _, chip = join(paths, tmp_path / "out.tif", cutline=cut)
        assert np.flatnonzero(chip.valid[0]).tolist() == [*range(5), *range(25, 30)]

    @pytest.mark.parametrize("columns", [("stem", "raster"), ("raster", "stem")])
    def test_a_column_of_paths_counts_before_one_of_shared_names(
        self, make_raster, draw, tmp_path, columns
    ):
        paths = [
            make_raster(f"{folder}/B04.tif", np.full((1, 20, 20), 7, np.uint8), col=col)
            for folder, col in (("u1", 0), ("u2", 10))
        ]
        said = {"stem": ["B04", "B04"], "raster": list(map(str, paths))}
        cut = draw([box(0, 0, 5, 20), box(25, 0, 30, 20)], **{name: said[name] for name in columns})
        _, chip = join(paths, tmp_path / "out.tif", cutline=cut)
        assert np.flatnonzero(chip.valid[0]).tolist() == [*range(5), *range(25, 30)]

    def test_a_path_counts_before_a_name(self, make_raster, draw, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        pixels = np.full((1, 20, 20), 7, np.uint8)
        make_raster("s.tif", pixels)
        make_raster("u/s.tif", pixels, col=10)
        cut = draw([box(0, 0, 5, 20), box(25, 0, 30, 20)], scene=["s.tif", "u/s.tif"])
        _, chip = join(["s.tif", "u/s.tif"], tmp_path / "out.tif", cutline=cut)
        assert np.flatnonzero(chip.valid[0]).tolist() == [*range(5), *range(25, 30)]

    def test_footprints_serve_as_cutlines_from_any_folder(self, pair, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        plan = plan_mosaic([path.name for path in pair], tmp_path / "out.tif")
        footprints = tmp_path / "out.footprints.gpkg"
        assert write_footprints(footprints, plan)
        assert not write_footprints(footprints, plan)
        monkeypatch.chdir("/")
        table = gpd.read_file(footprints)
        assert table["raster"].tolist() == [str(path.resolve()) for path in pair]
        assert table.to_crs("EPSG:32633").area.sum() == pytest.approx(2 * 200**2, rel=1e-6)
        whole, cut = (
            join(pair, tmp_path / f"{name}.tif", blend="mean", **words)[1]
            for name, words in (("whole", {}), ("cut", {"cutline": footprints}))
        )
        np.testing.assert_array_equal(cut.pixels, whole.pixels)
        footprints.write_bytes(b"edited")
        with pytest.raises(TakenError, match="--overwrite to replace it"):
            write_footprints(footprints, plan)
        monkeypatch.chdir(tmp_path)
        assert write_footprints(footprints, plan, overwrite=True)


class TestBands:
    BANDS = (Band(name="red"), Band(name="nir"), Band(name="clear"))

    @pytest.fixture
    def dated(self, make_raster):
        """Two dates of three bands, the last of which is their quality."""
        rng = np.random.default_rng(0)
        made = []
        for name in ("may", "june"):
            pixels = rng.integers(1, 200, (3, 30, 30)).astype(np.uint8)
            valid = rng.random((30, 30)) < 0.8
            path = make_raster(f"{name}.tif", pixels, valid=valid, bands=self.BANDS)
            made.append((path, pixels, valid))
        return made

    @pytest.mark.parametrize("quality", ["clear", "3"])
    def test_best_takes_the_pixels_of_the_highest_quality(self, dated, tmp_path, quality):
        paths = [path for path, *_ in dated]
        scene, chip = join(paths, tmp_path / "out.tif", blend="best", quality=quality)
        assert [band.name for band in scene.bands] == ["red", "nir"]
        (_, may, may_valid), (_, june, june_valid) = dated
        better = june_valid & (~may_valid | (june[2] > may[2]))
        np.testing.assert_array_equal(chip.valid, may_valid | june_valid)
        expected = np.where(better, june, may)[:2]
        np.testing.assert_array_equal(chip.pixels[:, chip.valid], expected[:, chip.valid])

    @pytest.mark.parametrize("words", [{}, {"resolution": (20, 20), "resampling": "nearest"}])
    def test_the_quality_may_be_of_another_type(self, make_raster, stack_bands, tmp_path, words):
        dates = []
        for date, value, clear in (("may", 16_777_217, 0.25), ("june", 7, 0.5)):
            data = make_raster(f"{date}d.tif", np.full((1, 8, 8), value, np.int32))
            quality = make_raster(f"{date}q.tif", np.full((1, 8, 8), clear, np.float32))
            dates.append(stack_bands(f"{date}.vrt", red=data, clear=quality))
        first = {"blend": "best", "quality": "clear", **words}
        scene, chip = join(dates, tmp_path / "out.tif", **first)
        assert scene.dtype == "int32"
        assert set(chip.pixels.ravel()) == {7}
        _, chip = join(dates[:1], tmp_path / "one.tif", **first)
        assert set(chip.pixels.ravel()) == {16_777_217}
        both, chip = join(dates, tmp_path / "both.tif", **first, bands="red,clear")
        assert both.dtype == "float64"
        assert set(chip.pixels.ravel()) == {7, 0.5}

    def test_bands_of_other_types_are_refused_though_one_type_holds_them(
        self, make_raster, stack_bands, tmp_path
    ):
        quality = make_raster("q.tif", np.ones((1, 8, 8), np.float32))
        paths = [
            stack_bands(f"{kind}.vrt", red=make_raster(f"{kind}.tif", pixels), clear=quality)
            for kind in ("uint8", "float32")
            for pixels in [np.ones((1, 8, 8), kind)]
        ]
        with pytest.raises(BandError, match=r"other types \(float32\) than .* \(uint8, float32\)"):
            join(paths, tmp_path / "out.tif", blend="best", quality="clear")

    def test_the_quality_is_written_where_asked_for(self, dated, tmp_path):
        words = {"blend": "best", "quality": "clear", "bands": "clear,red"}
        scene, chip = join([path for path, *_ in dated], tmp_path / "out.tif", **words)
        assert [band.name for band in scene.bands] == ["clear", "red"]
        (_, may, may_valid), (_, june, june_valid) = dated
        both = may_valid & june_valid
        highest = np.maximum(may[2], june[2])
        np.testing.assert_array_equal(chip.pixels[0, both], highest[both])

    def test_bands_are_chosen_by_name(self, dated, tmp_path):
        scene, chip = join([dated[0][0]], tmp_path / "out.tif", bands=["nir"])
        assert [band.name for band in scene.bands] == ["nir"]
        _, pixels, valid = dated[0]
        np.testing.assert_array_equal(chip.pixels[0, valid], pixels[1, valid])

    def test_a_quality_band_that_is_not_there_is_refused(self, dated, tmp_path):
        with pytest.raises(BandError, match=r"'haze' is not in .* named red, nir, clear"):
            join([dated[0][0]], tmp_path / "o.tif", blend="best", quality="haze")

    def test_nothing_but_quality_is_refused(self, make_raster, tmp_path):
        path = make_raster("a.tif", np.ones((1, 4, 4), np.uint8))
        with pytest.raises(BandError, match="Give --bands to write the quality itself"):
            join([path], tmp_path / "out.tif", blend="best", quality="1")


class TestMedian:
    def test_it_is_numpys_and_does_not_depend_on_the_memory_at_hand(
        self, make_raster, tmp_path, monkeypatch
    ):
        rng = np.random.default_rng(0)
        stack = rng.normal(0, 9, (7, 2, 40, 50)).astype(np.float32)
        stack[:, :, rng.random((40, 50)) < 0.1] = np.nan
        stack[rng.random((7, 1, 40, 50)).repeat(2, axis=1) < 0.3] = np.nan
        paths = [make_raster(f"{i}.tif", pixels) for i, pixels in enumerate(stack)]
        with np.errstate(all="ignore"):
            somewhere = ~np.isnan(stack[:, 0]).all(axis=0)
        expected = np.nanmedian(stack[:, :, somewhere], axis=0)
        for name, budget in (("a", 1 << 27), ("b", 10_000)):
            monkeypatch.setattr("geotranslate.raster.mosaic.write.STACK_BYTES", budget)
            _, chip = join(paths, tmp_path / f"{name}.tif", blend="median")
            np.testing.assert_array_equal(chip.valid, somewhere)
            np.testing.assert_allclose(chip.pixels[:, somewhere], expected, rtol=1e-6)


class TestVirtual:
    @pytest.mark.parametrize("suffix", [".vrt", ".gti.gpkg"])
    @pytest.mark.parametrize("blend", ["first", "last"])
    @pytest.mark.parametrize("said", ["nodata", "mask", "alpha", "nowhere"])
    def test_it_reads_like_the_mosaic(self, make_raster, tmp_path, suffix, blend, said):
        rng = np.random.default_rng(0)
        paths = []
        for index, (row, col) in enumerate([(0, 0), (10, 25), (30, 5), (60, 60)]):
            pixels = rng.integers(1, 255, (2, 40, 40)).astype(np.uint8)
            valid = rng.random((40, 40)) < 0.7
            words, bands = {}, SCALED_BANDS
            if said == "nodata":
                pixels[:, ~valid] = 0
                words = {"nodata": 0}
            elif said == "mask":
                words = {"valid": valid}
            elif said == "alpha":
                pixels[1] = 255 * valid
                bands = SCALED_BANDS[0], Band(name="alpha", color="alpha")
            path = make_raster(f"{index}.tif", pixels, row=row, col=col, bands=bands, **words)
            paths.append(path)
        scene, chip = join(paths, tmp_path / "out.tif", blend=blend)
        output = tmp_path / f"out{suffix}"
        plan = plan_mosaic(paths, output, MosaicSettings(blend=blend))
        assert write_virtual(plan, output)
        virtual, found = read(output)
        assert virtual.grid == scene.grid
        assert virtual.dtype == scene.dtype
        assert scene.bands == SCALED_BANDS[: len(chip.pixels)]
        assert virtual.bands == scene.bands
        np.testing.assert_array_equal(found.valid, chip.valid)
        np.testing.assert_array_equal(found.pixels[:, chip.valid], chip.pixels[:, chip.valid])
        before = output.stat().st_mtime_ns
        assert not write_virtual(plan, output)
        assert output.stat().st_mtime_ns == before
        other = plan_mosaic(paths[1:], output, MosaicSettings(blend=blend))
        with pytest.raises(TakenError, match="--overwrite to replace it"):
            write_virtual(other, output)
        assert write_virtual(other, output, overwrite=True)

    def test_an_index_that_a_map_program_opened_is_still_the_same(self, pair, tmp_path):
        output = tmp_path / "out.gti.gpkg"
        plan = plan_mosaic(pair, output, MosaicSettings(blend="first"))
        write_virtual(plan, output)
        before = output.read_bytes()
        with closing(sqlite3.connect(output)) as opened:
            opened.execute("PRAGMA journal_mode=wal").fetchall()
            opened.execute("CREATE TABLE layer_styles (id INTEGER)")
            opened.commit()
            assert not write_virtual(plan, output)
        assert output.read_bytes() != before
        assert not write_virtual(plan, output)
        with closing(sqlite3.connect(output)) as edited:
            edited.execute("UPDATE gpkg_metadata SET metadata = ''")
            edited.commit()
        with pytest.raises(TakenError, match="--overwrite to replace it"):
            write_virtual(plan, output)

    def test_an_index_may_lie_where_nothing_can_be_written(self, pair, tmp_path, monkeypatch):
        output = tmp_path / "out.vrt"
        plan = plan_mosaic(pair, output, MosaicSettings(blend="first"))
        write_virtual(plan, output)
        monkeypatch.setattr(virtual, "locked", None)
        assert not write_virtual(plan, output)

    def test_one_process_at_a_time_writes_an_index(self, pair, tmp_path):
        output = tmp_path / "out.vrt"
        plan = plan_mosaic(pair, output, MosaicSettings(blend="first"))
        with (
            locked(tmp_path / "out.vrt.lock", output),
            pytest.raises(OutputError, match="is being written by another process"),
        ):
            write_virtual(plan, output)
        assert write_virtual(plan, output)

    @pytest.mark.parametrize(
        ("words", "mend"),
        [
            ({"blend": "feather"}, "Choose --blend first or last"),
            ({"blend": "first", "resolution": (20, 20)}, "Leave out --virtual, or give rasters on"),
            ({"blend": "first", "bands": "1"}, "--bands. Choose"),
            ({"blend": "last", "match": "gain"}, "--match. Choose"),
        ],
    )
    def test_what_would_have_to_be_computed_is_refused(self, pair, tmp_path, words, mend):
        output = tmp_path / "out.vrt"
        with pytest.raises(SettingError, match=mend):
            write_virtual(plan_mosaic(pair, output, MosaicSettings(**words)), output)
        assert not output.exists()

    @pytest.mark.parametrize(
        ("colors", "words"),
        [
            (("alpha", "red"), {}),
            (("red", "alpha", "blue", "green"), {}),
            (("red", "green", "alpha"), {}),
            (("red", "alpha"), {"nodata": 0}),
        ],
    )
    def test_an_alpha_band_that_gdal_does_not_see_is_refused(
        self, make_raster, tmp_path, colors, words
    ):
        bands = tuple(Band(name=color, color=color) for color in colors)
        pixels = np.full((len(colors), 8, 8), 255, np.uint8)
        path = make_raster("a.tif", pixels, bands=bands, **words)
        output = tmp_path / "out.vrt"
        plan = plan_mosaic([path], output, MosaicSettings(blend="first"))
        with pytest.raises(SettingError, match=r"a\.tif says by an alpha band .*Leave out --virt"):
            check_virtual(plan, output)

    def test_another_name_is_refused_with_a_better_one(self, pair, tmp_path):
        plan = plan_mosaic(pair, tmp_path / "out.tif", MosaicSettings(blend="first"))
        with pytest.raises(SettingError, match=r"Name it .*out\.vrt, or .*out\.gti\.gpkg"):
            write_virtual(plan, tmp_path / "out.tif")

    def test_turned_axes_are_refused_for_an_index(self, make_raster, tmp_path):
        turned = Affine(-10, 0, 500_000, 0, 10, 4_000_000)
        path = make_raster("a.tif", np.ones((1, 8, 8), np.uint8), transform=turned)
        output = tmp_path / "out.gti.gpkg"
        with pytest.raises(SettingError, match=r"Name it .*out\.vrt"):
            write_virtual(plan_mosaic([path], output, MosaicSettings(blend="first")), output)


class TestCopies:
    """Strips of files that do not overlap are never decoded by us."""

    @pytest.mark.parametrize("said", ["nodata", "mask", "file beside", "nowhere"])
    def test_they_give_what_blending_gives(self, make_raster, tmp_path, monkeypatch, said):
        monkeypatch.setattr("geotranslate.raster.mosaic.plan.STRIP_ROWS", 32)
        rng = np.random.default_rng(0)
        paths = []
        for index, (row, col) in enumerate([(0, 0), (0, 40), (40, 0), (40, 50), (90, 3)]):
            pixels = rng.integers(1, 255, (1, 40, 40)).astype(np.uint8)
            valid = rng.random((40, 40)) < 0.7
            words = {}
            if said != "nowhere":
                pixels[:, ~valid] = 0
            if said == "nodata":
                words = {"nodata": 0}
            elif said == "mask":
                words = {"valid": valid}
            path = make_raster(f"{index}.tif", pixels, row=row, col=col, **words)
            if said == "file beside":
                with (
                    rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),
                    rasterio.open(path, "r+") as file,
                ):
                    file.write_mask(valid)
                assert path.with_name(path.name + ".msk").exists()
            paths.append(path)
        plan = plan_mosaic(paths, tmp_path / "a.tif")
        assert all(plan.is_copy(strip) for strip in plan.strips)
        join(paths, tmp_path / "a" / "out.tif")
        monkeypatch.setattr("geotranslate.raster.mosaic.MosaicPlan.is_copy", lambda *_: False)
        join(paths, tmp_path / "b" / "out.tif")
        a, b = ((tmp_path / name / "out.tif").read_bytes() for name in "ab")
        assert a == b

    def test_what_may_hide_invalid_pixels_is_not_copied(self, make_raster, tmp_path):
        ones = np.ones((2, 8, 8))
        for name, pixels, words in (
            ("float", ones.astype(np.float32), {}),
            ("bands", ones.astype(np.uint8), {"nodata": 0}),
        ):
            path = make_raster(f"{name}.tif", pixels, **words)
            plan = plan_mosaic([path], tmp_path / "out.tif")
            assert not plan.is_copy(plan.strips[0])

    def test_strips_with_an_overlap_are_blended(self, pair, tmp_path):
        plan = plan_mosaic(pair, tmp_path / "out.tif")
        assert not plan.is_copy(plan.strips[0])

    def test_a_damaged_file_is_named(self, make_raster, tmp_path):
        noise = np.random.default_rng(0).integers(0, 255, (1, 300, 300), np.uint8)
        first = make_raster("a.tif", noise)
        second = make_raster("b.tif", noise, col=300)
        with second.open("r+b") as file:
            file.truncate(second.stat().st_size // 2)
        with pytest.raises(RasterError, match=r"b\.tif cannot be read at row"):
            join([first, second], tmp_path / "out.tif")
        assert not (tmp_path / "out.tif").exists()

    @pytest.mark.parametrize(
        ("words", "read"),
        [
            ("No space left on device", []),
            ("Read-only file system", []),
            ("Cannot read 8100 bytes at offset 40932", ["0", "1", "2"]),
            ("No such file or directory", ["0", "1", "2"]),
        ],
    )
    def test_scenes_are_read_again_once_and_only_if_reading_failed(
        self, make_raster, tmp_path, monkeypatch, words, read
    ):
        def fail(output, *args, **settings):
            with explained(output):
                raise RasterioIOError(words)

        found = []
        monkeypatch.setattr("geotranslate.raster.mosaic.plan.STRIP_ROWS", 16)
        monkeypatch.setattr("geotranslate.raster.mosaic.write.write_cog", fail)
        monkeypatch.setattr("geotranslate.raster.mosaic.write._read_all", found.append)
        ones = np.ones((1, 60, 20), np.uint8)
        paths = [make_raster(f"{col}.tif", ones, col=20 * col) for col in range(3)]
        with pytest.raises(OutputError):
            join(paths, tmp_path / "out.tif")
        assert [Path(path).stem for path in found] == read

    @pytest.mark.parametrize(("resampling", "middle"), [("nearest", False), ("bilinear", True)])
    def test_overviews_of_the_nearest_hold_no_new_values(
        self, make_raster, tmp_path, resampling, middle
    ):
        classes = np.random.default_rng(0).choice(np.uint8([10, 50]), (1, 600, 600))
        output = tmp_path / "out.tif"
        join([make_raster("a.tif", classes)], output, blend="first", resampling=resampling)
        with rasterio.open(output, OVERVIEW_LEVEL=0) as overview:
            found = np.unique(overview.read(1))
        assert bool(set(found) - {10, 50}) == middle
        with pytest.raises(TakenError, match="resampling"):
            join([tmp_path / "a.tif"], output, blend="first", resampling=RESAMPLED[resampling])

    @pytest.mark.skipif(not IO.exists(), reason="only Linux says how much was read")
    def test_rows_as_wide_as_a_raster_are_read_once(self, make_raster, tmp_path, monkeypatch):
        pixels = np.random.default_rng(0).integers(1, 60_000, (2, 512, 4096), dtype=np.uint16)
        wide = make_raster("wide.tif", pixels, compress="deflate", interleave="pixel")
        monkeypatch.setattr(writing, "JOINING_CACHE", 8 * 2**20)
        before = bytes_read()
        join([wide], tmp_path / "mosaic.tif")
        # Once for its pixels, and for what the result's end is checked by.
        assert bytes_read() - before < 3 * wide.stat().st_size
        _, chip = read(tmp_path / "mosaic.tif")
        np.testing.assert_array_equal(chip.pixels, pixels)


def bytes_read():
    """By this process until now."""
    return int(IO.read_text().split("rchar:")[1].split()[0])


@pytest.mark.real
class TestReal:
    def test_touching_images_come_together(self, real_data, tmp_path):
        sar = real_data / "volkov-s1s2-1024" / "sar"
        names = ["047", "048", "049", "050", "060", "061", "062", "063", "073", "074", "075", "076"]
        paths = [sar / f"{name}.tif" for name in names]
        if not all(path.exists() for path in paths):
            paths = [next(sar.glob(f"*{name}.tif")) for name in names]
        scene, chip = join(paths, tmp_path / "out.tif")
        assert scene.grid.shape == (3072, 4096)
        assert chip.valid.all()
        for index, path in enumerate(paths):
            _, part = read(path)
            row, col = index // 4 * 1024, index % 4 * 1024
            np.testing.assert_array_equal(
                chip.pixels[:, row : row + 1024, col : col + 1024], part.pixels
            )

    def test_a_grid_that_is_another_by_less_than_a_percent_is_resampled(self, real_data, tmp_path):
        folder = real_data / "ssl4eo-s12-sample"
        radar = sorted(folder.glob("s1/**/*V*.tif"))[:1]
        optical = sorted(folder.glob("s2a/**/B4.tif"))[:1]
        assert radar
        assert optical
        with open_scene(optical[0]) as model:
            settings = MosaicSettings(snap=str(optical[0]), bounds=model.grid.bounds)
            plan = plan_mosaic(radar, tmp_path / "out.tif", settings)
            assert plan.resampled == 1
            assert plan.grid.shape == model.grid.shape
            words = {"snap": str(optical[0]), "bounds": model.grid.bounds}
        _, chip = join(radar, tmp_path / "out.tif", **words)
        _, original = read(radar[0])
        assert chip.valid.mean() > 0.9
        assert abs(chip.pixels[0, chip.valid].mean() - original.pixels.mean()) < 0.3

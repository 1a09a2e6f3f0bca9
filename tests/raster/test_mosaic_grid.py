"""Mosaics of scenes that do not lie on one grid."""

from __future__ import annotations

import tracemalloc

import geopandas as gpd
import numpy as np
import pytest
import rasterio.warp
import shapely
from affine import Affine
from rasterio.crs import CRS

from geotranslate.choices import MOSAIC_BLENDS
from geotranslate.errors import GridError, SettingError
from geotranslate.raster.domain import Band
from geotranslate.raster.mosaic import (
    MosaicSettings,
    check_mosaic,
    mosaic_rasters,
    plan,
    plan_mosaic,
    write,
)
from geotranslate.raster.mosaic.cutlines import write_footprints
from geotranslate.raster.scene import open_scene
from tests.conftest import NORTH_UP
from tests.reading_back import join, read

UTM33, UTM34 = CRS.from_epsg(32633), CRS.from_epsg(32634)

# Where zones 33 and 34 meet, so that a scene of each covers the same ground.
WEST = Affine(10, 0, 737_000, 0, -10, 4_990_000)
(EAST_X, *_), (EAST_Y, *_) = rasterio.warp.transform(UTM33, UTM34, [737_250], [4_989_950])
EAST = Affine(10, 0, round(EAST_X, -1), 0, -10, round(EAST_Y, -1))


@pytest.fixture
def zones(make_raster):
    """A scene in each of two zones that overlap, with what ``fill`` gives for them."""

    def make(fill=lambda index, shape: np.full(shape, 7.0), dtype="float32", **words):
        paths = []
        for index, (crs, transform) in enumerate(((UTM33, WEST), (UTM34, EAST))):
            pixels = np.asarray(fill(index, (1, 60, 50)), dtype)
            paths.append(
                make_raster(
                    f"{index}.tif", pixels, crs=crs.to_string(), transform=transform, **words
                )
            )
        return paths

    return make


class TestGrid:
    def test_by_default_it_is_the_first_scenes_around_all(self, zones, tmp_path):
        scene, chip = join(zones(), tmp_path / "out.tif")
        assert scene.grid.crs == UTM33
        assert scene.grid.resolution == (10, 10)
        shift = ~WEST @ scene.grid.transform
        assert (shift.c, shift.f) == (round(shift.c), round(shift.f))
        assert 1 < chip.valid.sum() / 3000 < 2

    @pytest.mark.parametrize(
        ("words", "crs", "size", "corner"),
        [
            ({"crs": "EPSG:32634", "resolution": (30, 20)}, UTM34, (30, 20), (0, 0)),
            ({"resolution": (7, 7)}, UTM33, (7, 7), (0, 0)),
            ({"resolution": (10, 10)}, UTM33, (10, 10), (WEST.c, WEST.f)),
            ({"resolution": (7, 7), "snap": "first"}, UTM33, (7, 7), (WEST.c, WEST.f)),
            ({"snap": "multiples"}, UTM33, (10, 10), (0, 0)),
            (
                {"bounds": (737_003, 4_989_500, 737_403, 4_989_904), "snap": "bounds"},
                UTM33,
                (10, 10),
                (737_003, 4_989_904),
            ),
        ],
    )
    def test_it_lies_where_it_was_asked_to(self, zones, tmp_path, words, crs, size, corner):
        grid = plan_mosaic(zones(), tmp_path / "out.tif", MosaicSettings(**words)).grid
        assert grid.crs == crs
        assert grid.resolution == size
        cols = (grid.transform.c - corner[0]) / size[0]
        rows = (grid.transform.f - corner[1]) / size[1]
        assert (cols, rows) == (pytest.approx(round(cols)), pytest.approx(round(rows)))

    def test_another_crs_alone_keeps_the_area_of_a_pixel(self, make_raster, tmp_path):
        path = make_raster("a.tif", np.ones((1, 9, 9), np.uint8), transform=WEST)
        settings = MosaicSettings(crs="EPSG:4326")
        x, y = plan_mosaic([path], tmp_path / "out.tif", settings).grid.resolution
        assert x == y
        metres = 111_195 * np.sqrt(np.cos(np.radians(45)))
        assert x * metres == pytest.approx(10, rel=0.01)

    def test_it_can_be_snapped_to_a_raster(self, zones, make_raster, tmp_path):
        turned = Affine(-12, 0, 500_005, 0, 12, 5_000_001)
        model = make_raster("m.tif", np.ones((1, 4, 4)), crs="EPSG:32634", transform=turned)
        settings = MosaicSettings(snap=str(model))
        grid = plan_mosaic(zones(), tmp_path / "out.tif", settings).grid
        assert grid.crs == UTM34
        with open_scene(model) as scene:
            assert scene.grid.is_aligned(grid)

    def test_bounds_hold_the_mosaic_and_leave_out_scenes_beyond(self, make_raster, tmp_path):
        ones = np.ones((1, 8, 8), np.uint8)
        paths = [make_raster("a.tif", ones), make_raster("b.tif", ones, col=100)]
        made = plan_mosaic(
            paths, tmp_path / "out.tif", MosaicSettings(bounds=(500_021, 3_999_930, 500_105, 4e6))
        )
        assert [piece.path for piece in made.pieces] == [str(paths[0])]
        assert made.grid.transform == NORTH_UP @ Affine.translation(2, 0)
        assert made.grid.shape == (7, 9)
        assert not made.resampled

    def test_two_parts_of_a_mosaic_are_the_parts_of_the_whole(self, zones, tmp_path):
        paths = zones(lambda _, shape: np.random.default_rng(0).normal(0, 9, shape))
        whole, chip = join(paths, tmp_path / "whole.tif")
        left, bottom, right, top = whole.grid.bounds
        middle = left + 330
        halves = []
        for name, bounds in (
            ("a", (left, bottom, middle, top)),
            ("b", (middle, bottom, right, top)),
        ):
            _, half = join(paths, tmp_path / f"{name}.tif", bounds=bounds)
            halves.append(half)
        np.testing.assert_array_equal(np.hstack([half.valid for half in halves]), chip.valid)
        pixels = np.concatenate([half.pixels for half in halves], axis=-1)
        # Of noise with a deviation of 9: places agree to a thousandth of a pixel.
        np.testing.assert_allclose(pixels[:, chip.valid], chip.pixels[:, chip.valid], atol=9e-3)


class TestPixels:
    @pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
    @pytest.mark.parametrize("blend", MOSAIC_BLENDS)
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_a_constant_stays_constant_across_zones(
        self, make_raster, tmp_path, blend, resampling, dtype
    ):
        rng = np.random.default_rng(0)
        paths = []
        for index, (crs, transform) in enumerate(((UTM33, WEST), (UTM34, EAST))):
            pixels = np.full((2, 60, 50), 77, dtype)
            pixels[1] = rng.integers(1, 9, (60, 50))
            valid = rng.random((60, 50)) < 0.8
            pixels[:, ~valid] = 0
            paths.append(
                make_raster(
                    f"{index}.tif",
                    pixels,
                    crs=crs.to_string(),
                    transform=transform,
                    nodata=0,
                    bands=(Band(name="value"), Band(name="quality")),
                )
            )
        words = {"quality": "quality"} if blend == "best" else {"bands": "value"}
        _, chip = join(paths, tmp_path / "out.tif", blend=blend, resampling=resampling, **words)
        assert chip.pixels.shape[0] == 1
        assert chip.valid.sum() > 3000
        np.testing.assert_allclose(chip.pixels[:, chip.valid], 77, rtol=1e-6)

    @pytest.mark.parametrize("resampling", ["bilinear", "cubic"])
    def test_no_dark_rims_come_from_resampled_nodata(
        self, zones, make_raster, tmp_path, resampling
    ):
        """Bright ground with a hole and a collar of nodata: nothing is darker than the ground."""

        def fill(index, shape):
            ground = np.random.default_rng(index).integers(180, 220, shape)
            ground[:, 20:30, 15:25] = ground[:, :5] = ground[:, :, -7:] = 0
            return ground

        _, chip = join(zones(fill, "uint8", nodata=0), tmp_path / "o.tif", resampling=resampling)
        found = chip.pixels[:, chip.valid]
        # A cubic kernel swings over by at most a quarter of the contrast at the edge of noise.
        assert found.min() >= (180 if resampling == "bilinear" else 165)
        assert found.max() <= (219 if resampling == "bilinear" else 235)

    def test_pixels_of_different_sizes_land_on_the_same_ground(self, make_raster, tmp_path):
        """Pixels hold their own coordinates; fine and coarse ones agree on the mosaic's."""
        paths = []
        for name, size, col in (("a.tif", 10, 0), ("b.tif", 25, 8)):
            transform = Affine(size, 0, 500_000, 0, -size, 4_000_000)
            x = (np.arange(40) + 0.5 + col) * size
            pixels = np.broadcast_to(x, (1, 40, 40)).astype(np.float32)
            paths.append(make_raster(name, pixels, transform=transform, col=col))
        scene, chip = join(paths, tmp_path / "out.tif", resolution=(20, 20))
        x = (np.arange(scene.grid.width) + 0.5) * 20 + scene.grid.transform.c - 500_000
        wrong = np.abs(chip.pixels[0] - x)
        # At a scene's own rim a kernel is cut off on one side.
        assert np.quantile(wrong[chip.valid], 0.9) < 0.05
        assert wrong[chip.valid].max() < 12

    def test_the_cut_into_strips_does_not_matter(self, zones, tmp_path, monkeypatch):
        paths = zones(lambda index, shape: np.random.default_rng(index).normal(0, 9, shape))
        _, expected = join(paths, tmp_path / "a.tif")
        monkeypatch.setattr(plan, "STRIP_ROWS", 32)
        monkeypatch.setattr(write, "BLOCK_COLS", 27)
        _, chip = join(paths, tmp_path / "b.tif")
        np.testing.assert_array_equal(chip.valid, expected.valid)
        np.testing.assert_allclose(
            chip.pixels[:, chip.valid], expected.pixels[:, chip.valid], rtol=1e-4, atol=1e-4
        )

    @pytest.mark.parametrize("blend", ["feather", "mean", "median"])
    def test_the_order_does_not_matter_on_a_grid_that_was_asked_for(self, zones, tmp_path, blend):
        paths = zones(lambda index, shape: np.random.default_rng(index).normal(0, 9, shape))
        words = {"crs": "EPSG:32634", "resolution": (10, 10), "blend": blend}
        join(paths, tmp_path / "a" / "out.tif", **words)
        join(paths[::-1], tmp_path / "b" / "out.tif", **words)
        a, b = ((tmp_path / name / "out.tif").read_bytes() for name in "ab")
        assert a == b

    def test_many_source_pixels_for_one_are_read_in_parts(self, make_raster, tmp_path, monkeypatch):
        fine = Affine(1, 0, 500_000, 0, -1, 4_000_000)
        pixels = np.random.default_rng(0).uniform(1, 9, (1, 600, 600)).astype(np.float32)
        path = make_raster("fine.tif", pixels, transform=fine)
        words = {"resolution": (10, 10), "resampling": "average"}
        _, expected = join([path], tmp_path / "a.tif", **words)
        monkeypatch.setattr("geotranslate.raster.warp.SOURCE_BYTES", 80_000)
        _, chip = join([path], tmp_path / "b.tif", **words)
        means = pixels.reshape(1, 60, 10, 60, 10).mean(axis=(2, 4))
        np.testing.assert_allclose(chip.pixels, means, rtol=1e-5)
        np.testing.assert_allclose(chip.pixels, expected.pixels, rtol=1e-5)

    @pytest.mark.parametrize(
        ("bands", "masked", "most"), [(12, False, 8e6), (4, True, 30e6)], ids=["bands", "rims"]
    )
    def test_memory_does_not_grow_with_the_difference_of_the_pixels_sizes(
        self, make_raster, tmp_path, monkeypatch, bands, masked, most
    ):
        """Neither with the bands nor with the rims that feathering reads around each part."""
        side = 1600 if masked else 600
        fine = Affine(1, 0, 500_000, 0, -1, 4_000_000)
        ones = np.ones((bands, side, side), np.uint16)
        valid = np.ones((side, side), bool)
        valid[: side // 3, side // 2] = not masked
        mask = valid if masked else None
        paths = [make_raster(f"{name}.tif", ones, transform=fine, valid=mask) for name in "ab"]
        monkeypatch.setattr("geotranslate.raster.warp.SOURCE_BYTES", 1 << 22)
        words = {"resolution": (10, 10), "resampling": "average"}
        steps = mosaic_rasters(paths, tmp_path / "out.tif", **words)
        tracemalloc.start()
        try:
            list(steps)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < most
        _, chip = read(tmp_path / "out.tif")
        assert (chip.pixels[:, chip.valid] == 1).all()


class TestAcross180:
    """Scenes where longitudes jump from 180 to -180 degrees."""

    @pytest.fixture
    def across(self, make_raster):
        """Makes scenes of UTM zone 60: about 180 degrees, or beside it at a distance in metres."""

        def make(name, metres=0, zone=60, value=7):
            crs = f"EPSG:326{zone:02d}"
            (x, *_), (y, *_) = rasterio.warp.transform("EPSG:4326", crs, [180], [60])
            transform = Affine(100, 0, x - 2500 + metres, 0, -100, y)
            pixels = np.full((1, 50, 50), value, np.uint8)
            return make_raster(f"{name}.tif", pixels, crs=crs, transform=transform)

        return make

    @pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:4326"])
    def test_a_scene_that_a_crs_tears_apart_is_refused_with_one_that_does_not(
        self, across, tmp_path, crs
    ):
        path = across("a")
        with pytest.raises(GridError, match="Choose a CRS that runs on there, such as EPSG:32660"):
            join([path], tmp_path / "out.tif", crs=crs)
        _, chip = join([path], tmp_path / "out.tif", crs="EPSG:3832")
        assert set(np.unique(chip.pixels[0, chip.valid])) == {7}
        assert chip.valid.mean() > 0.8

    @pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:4326"])
    def test_neighbours_at_opposite_ends_of_a_crs_are_refused(self, across, tmp_path, crs):
        paths = [across("west", -4000), across("east", 4000, zone=1)]
        with pytest.raises(GridError, match=r"lie \d+ km from each other.*such as EPSG:32660"):
            join(paths, tmp_path / "out.tif", crs=crs)
        scene, chip = join(paths, tmp_path / "out.tif")
        assert scene.grid.crs == CRS.from_epsg(32660)
        assert scene.grid.width < 200
        assert chip.valid.sum() > 4500

    def test_scenes_that_are_far_from_each_other_on_the_ground_are_not(self, make_raster, tmp_path):
        pixels = np.ones((1, 10, 10), np.uint8)
        paths = [
            make_raster(
                f"{lon}.tif", pixels, crs="EPSG:4326", transform=Affine(1, 0, lon, 0, -1, 5)
            )
            for lon in (-150, 20)
        ]
        made = plan_mosaic(paths, tmp_path / "out.tif")
        assert made.grid.shape == (10, 180)

    def test_footprints_are_cut_there_and_serve_as_cutlines(self, across, tmp_path):
        paths = [across("a"), across("b", 4500)]
        footprints = tmp_path / "footprints.gpkg"
        write_footprints(footprints, plan_mosaic(paths, tmp_path / "out.tif"))
        table = gpd.read_file(footprints)
        # 5 km by 5 km, of which a degree at 60 N holds 55.8 by 111.4.
        areas = shapely.area(table.geometry.to_numpy())
        np.testing.assert_allclose(areas, 25 / (55.8 * 111.4), rtol=0.02)
        assert np.abs(table.total_bounds[[0, 2]]).max() == 180
        _, whole = join(paths, tmp_path / "out.tif")
        _, cut = join(paths, tmp_path / "cut.tif", cutline=footprints)
        np.testing.assert_array_equal(cut.valid, whole.valid)


class TestRefusals:
    @pytest.fixture
    def path(self, make_raster):
        return make_raster("a.tif", np.ones((1, 8, 8), np.uint8))

    @pytest.mark.parametrize(
        ("words", "mend"),
        [
            ({"crs": "EPSG:999999"}, "Give it as EPSG:32633"),
            ({"resolution": (0, 10)}, "Give width and height above 0"),
            ({"resolution": (float("nan"), 10)}, "Give width and height above 0"),
            ({"bounds": (10, 0, 5, 5)}, "with left below right"),
            ({"snap": "bounds"}, "Add --bounds"),
            ({"snap": "first", "crs": "EPSG:32634"}, "Choose --snap multiples"),
            ({"resampling": "lanczos"}, "Choose one of nearest, bilinear"),
            ({"match": "mean"}, "Choose one of gain, histogram"),
            ({"blend": "best"}, "Name it with --quality"),
            ({"quality": "2"}, "Choose --blend best"),
            ({"anchor": "a.tif"}, "Add --match gain"),
        ],
    )
    def test_settings_that_cannot_work_are_refused_with_the_mend(self, path, tmp_path, words, mend):
        with pytest.raises(SettingError, match=mend):
            join([path], tmp_path / "out.tif", **words)
        assert not (tmp_path / "out.tif.parts").exists()

    @pytest.mark.parametrize(
        ("words", "mend"),
        [
            ({"bounds": (0, 0, 5, 5)}, "Give bounds as left,bottom,right,top in the mosaic's CRS"),
            ({"resolution": (1e-9, 1e-9)}, "Choose larger pixels with --resolution"),
            ({"resolution": (1e-4, 1e-4)}, r"800,000 x 800,000 pixels, 640 GB .* in the units of"),
        ],
    )
    def test_grids_that_cannot_be_are_refused_with_the_mend(self, path, tmp_path, words, mend):
        with pytest.raises(GridError, match=mend):
            join([path], tmp_path / "out.tif", **words)

    def test_a_crs_that_no_geotiff_holds_is_refused_before_a_pixel_is_read(self, path, tmp_path):
        output = tmp_path / "out.tif"
        made = plan_mosaic([path], output, MosaicSettings(crs="+proj=eqearth"))
        with pytest.raises(GridError, match=r"mosaic --crs EPSG:8857`"):
            check_mosaic(made, output)
        assert list(tmp_path.iterdir()) == [path]
        assert join([path], output, crs="EPSG:8857")[0].grid.crs == CRS.from_epsg(8857)

    def test_a_scene_that_has_no_place_in_the_crs_is_refused(self, path, make_raster, tmp_path):
        local = 'LOCAL_CS["site",UNIT["metre",1]]'
        other = make_raster("b.tif", np.ones((1, 8, 8), np.uint8), crs=local)
        with pytest.raises(GridError, match="Choose a CRS that holds all of them"):
            join([path, other], tmp_path / "out.tif")

from __future__ import annotations

import os

import numpy as np
import PIL.Image
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rio.main import main_group
from rasterio.rpc import RPC
from rasterio.windows import Window

from geotranslate.chips.file import read_chip
from geotranslate.errors import BandError, GridError, RasterError, SettingError
from geotranslate.raster.domain import Band
from geotranslate.raster.scene import expand_paths, open_scene

WHOLE = Window(col_off=0, row_off=0, width=4, height=3)


def pixels_of(dtype="float32", bands=2, rows=3, cols=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(1, 100, (bands, rows, cols)).astype(dtype)


def invalid_pixels(path, **words):
    with open_scene(path, **words) as scene:
        chip = scene.read(WHOLE)
    assert chip.grid.shape == chip.valid.shape
    return sorted(zip(*map(np.ndarray.tolist, np.nonzero(~chip.valid)), strict=True))


def make_vrt(path, nodata):
    """A virtual raster over a file: ``nodata`` for all bands, or a digit for each."""
    vrt = path.with_suffix(".vrt")
    rasterio.shutil.copy(path, vrt, driver="VRT")
    values = list(nodata) if nodata.isdigit() else [nodata] * 2
    text = vrt.read_text()
    for band, value in enumerate(values, start=1):
        start = text.index(">", text.index(f'band="{band}"')) + 1
        text = f"{text[:start]}<NoDataValue>{value}</NoDataValue>{text[start:]}"
    vrt.write_text(text)
    return vrt


class TestReading:
    def test_a_window_has_the_pixels_and_the_place_that_rasterio_gives(self, make_raster):
        path = make_raster("a.tif", pixels_of(rows=30, cols=40))
        window = Window(col_off=7, row_off=3, width=20, height=11)
        with open_scene(path) as scene, rasterio.open(path) as file:
            chip = scene.read(window)
            np.testing.assert_array_equal(chip.pixels, file.read(window=window))
            assert chip.grid.transform @ (0, 0) == file.xy(3, 7, offset="ul")
            assert chip.grid.crs == file.crs
            assert chip.valid.all()

    def test_bands_keep_their_names_units_scales_and_colours(self, make_raster):
        bands = (
            Band(name="B4", unit="reflectance", scale=1e-4, offset=-0.1, color="red"),
            Band(name="B8", color="nir"),
        )
        path = make_raster("a.tif", pixels_of("uint16"), bands=bands, nodata=0)
        with open_scene(path) as scene:
            assert scene.bands == bands
            assert scene.dtype == "uint16"
            assert scene.nodata == 0

    def test_bands_come_in_the_order_asked_for_by_name_or_number(self, make_raster):
        bands = tuple(Band(name=name) for name in ("VV", "VH", "3"))
        pixels = pixels_of(bands=3)
        path = make_raster("a.tif", pixels, bands=bands)
        for asked in ("vh, 1", ["VH", 1], (2, "VV")):
            with open_scene(path, bands=asked) as scene:
                assert [band.name for band in scene.bands] == ["VH", "VV"]
                np.testing.assert_array_equal(scene.read(WHOLE).pixels, pixels[[1, 0]])

    @pytest.mark.parametrize("asked", ["VH,HH", "0", "3", ""])
    def test_a_band_that_is_not_there_is_refused_with_those_that_are(self, make_raster, asked):
        path = make_raster("a.tif", pixels_of(), bands=(Band(name="VV"), Band(name="VH")))
        with pytest.raises(BandError, match=r"named VV, VH.*number from 1 to 2"):
            open_scene(path, bands=asked)

    @pytest.mark.parametrize("asked", [None, "1"])
    def test_a_raster_of_alpha_alone_is_refused_with_the_mend(self, make_raster, asked):
        path = make_raster("a.tif", pixels_of(bands=1))
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [ColorInterp.alpha]
        with pytest.raises(BandError, match="no value to read") as caught:
            open_scene(path, bands=asked)
        _, *mend = str(caught.value).split("`")[1].split()
        assert CliRunner().invoke(main_group, mend).exit_code == 0
        open_scene(path, bands=asked).close()

    def test_a_turned_raster_is_read_as_it_lies(self, make_raster):
        turned = Affine(-10.0, 0, 500_400, 0, 10.0, 3_999_700)
        pixels = pixels_of(rows=30, cols=40)
        path = make_raster("a.tif", pixels, transform=turned)
        with open_scene(path) as scene:
            chip = scene.read(Window(col_off=10, row_off=5, width=4, height=3))
            assert scene.grid.bounds == (500_000, 3_999_700, 500_400, 4_000_000)
        np.testing.assert_array_equal(chip.pixels, pixels[:, 5:8, 10:14])
        assert chip.grid.bounds == (500_260, 3_999_750, 500_300, 3_999_780)

    @pytest.mark.parametrize("window", [(-1, 0, 2, 2), (0, -1, 2, 2), (3, 0, 2, 2), (0, 2, 2, 2)])
    def test_a_window_that_leaves_the_raster_is_refused(self, make_raster, window):
        col, row, width, height = window
        leaving = Window(col_off=col, row_off=row, width=width, height=height)
        with (
            open_scene(make_raster("a.tif", pixels_of())) as scene,
            pytest.raises(GridError, match="3 x 4 px"),
        ):
            scene.read(leaving)

    @settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
    @given(
        rows=st.integers(1, 24),
        cols=st.integers(1, 24),
        halo=st.integers(0, 30),
        size=st.integers(1, 16),
        data=st.data(),
    )
    def test_a_core_with_its_halo_sees_the_raster_mirrored_at_its_rim(
        self, make_raster, rows, cols, halo, size, data
    ):
        pixels = pixels_of(rows=rows, cols=cols)
        valid = np.random.default_rng(1).random((rows, cols)) < 0.8
        row, col = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
        side = size + 2 * halo
        window = Window(col_off=col - halo, row_off=row - halo, width=side, height=side)
        rim = halo + size
        padded = np.pad(pixels, ((0, 0), (rim, rim), (rim, rim)), "reflect")
        padded_valid = np.pad(valid, rim, "reflect")
        part = slice(row + size, row + size + side), slice(col + size, col + size + side)
        with open_scene(make_raster("a.tif", pixels, valid=valid)) as scene:
            chip = scene.read_reflected(window)
        assert chip.grid.transform @ (halo, halo) == scene.grid.transform @ (col, row)
        np.testing.assert_array_equal(chip.pixels, padded[:, *part])
        np.testing.assert_array_equal(chip.valid, padded_valid[part])


class TestValidity:
    def test_without_a_word_of_nodata_every_pixel_is_valid(self, make_raster):
        path = make_raster("a.tif", np.zeros((2, 3, 4), np.uint8))
        assert invalid_pixels(path) == []
        with open_scene(path) as scene:
            assert scene.nodata is None

    def test_nodata_in_one_band_makes_the_pixel_invalid(self, make_raster):
        pixels = pixels_of()
        pixels[0, 1, 2] = pixels[1, 0, 3] = -9999
        assert invalid_pixels(make_raster("a.tif", pixels, nodata=-9999)) == [(0, 3), (1, 2)]

    def test_only_the_bands_asked_for_count(self, make_raster):
        pixels = pixels_of()
        pixels[0, 1, 2] = pixels[1, 0, 3] = -9999
        path = make_raster("a.tif", pixels, nodata=-9999)
        assert invalid_pixels(path, bands="2") == [(0, 3)]

    @pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
    def test_what_is_no_number_is_invalid(self, make_raster, number):
        pixels = pixels_of()
        pixels[1, 2, 0] = number
        assert invalid_pixels(make_raster("a.tif", pixels)) == [(2, 0)]
        assert invalid_pixels(make_raster("b.tif", pixels, nodata=-9999)) == [(2, 0)]
        assert invalid_pixels(make_raster("c.tif", pixels), nodata=-1.0) == [(2, 0)]

    def test_nan_as_nodata(self, make_raster):
        pixels = pixels_of()
        pixels[1, 2, 0] = np.nan
        assert invalid_pixels(make_raster("a.tif", pixels, nodata=np.nan)) == [(2, 0)]

    def test_an_internal_mask(self, make_raster):
        valid = np.ones((3, 4), bool)
        valid[2, 3] = valid[0, 0] = False
        path = make_raster("a.tif", pixels_of("uint8"), valid=valid)
        assert invalid_pixels(path) == [(0, 0), (2, 3)]

    @pytest.mark.parametrize("nodata", [-9999, np.nan])
    def test_a_mask_does_not_make_nodata_valid(self, make_raster, nodata):
        pixels = pixels_of()
        pixels[0, 1, 2] = pixels[1, 0, 3] = nodata
        valid = np.ones((3, 4), bool)
        valid[2, 1] = False
        path = make_raster("a.tif", pixels, nodata=nodata, valid=valid)
        assert invalid_pixels(path) == [(0, 3), (1, 2), (2, 1)]
        _, chip_valid = read_chip(path)
        assert np.argwhere(~chip_valid).tolist() == [[0, 3], [1, 2], [2, 1]]

    def test_nodata_does_not_make_transparent_pixels_valid(self, make_raster):
        pixels = pixels_of("uint8", bands=4)
        pixels[3] = 255
        pixels[3, 1, 1] = pixels[0, 2, 2] = 0
        path = make_raster("a.tif", pixels, photometric="RGB", alpha="yes", nodata=0)
        assert invalid_pixels(path) == [(1, 1), (2, 2)]

    def test_nodata_that_no_pixel_can_have_is_none(self, make_raster):
        pixels = pixels_of()
        pixels[0, 0, 0] = -np.inf
        path = make_raster("a.tif", pixels)
        path = make_vrt(path, nodata="-1.7976931348623157e+308")
        assert invalid_pixels(path) == [(0, 0)]
        with open_scene(path) as scene:
            assert scene.nodata is None

    def test_bands_with_other_nodata_values_share_none(self, make_raster):
        pixels = np.full((2, 3, 4), 9, np.uint8)
        pixels[0, 0, 0] = pixels[1, 0, 1] = 1
        pixels[0, 1, 0] = pixels[1, 1, 1] = 2
        path = make_vrt(make_raster("a.tif", pixels), nodata="12")
        assert invalid_pixels(path) == [(0, 0), (1, 1)]
        with open_scene(path) as scene:
            assert scene.nodata is None
        with open_scene(path, bands="2") as scene:
            assert scene.nodata == 2

    def test_an_alpha_band_is_validity_and_no_data(self, make_raster):
        pixels = pixels_of("uint8", bands=4)
        pixels[3] = 255
        pixels[3, 1, 1] = 0
        path = make_raster("a.tif", pixels, photometric="RGB", alpha="yes")
        with open_scene(path) as scene:
            assert [band.color for band in scene.bands] == ["red", "green", "blue"]
        assert invalid_pixels(path) == [(1, 1)]

    def test_a_nodata_value_given_by_hand(self, make_raster):
        pixels = pixels_of("uint8")
        pixels[1, 0, 1] = 0
        path = make_raster("a.tif", pixels)
        assert invalid_pixels(path, nodata=0) == [(0, 1)]
        with open_scene(path, nodata=0) as scene:
            assert scene.nodata == 0

    @pytest.mark.parametrize("how", ["nodata", "mask"])
    def test_a_nodata_value_given_by_hand_adds_to_what_the_file_says(self, make_raster, how):
        pixels = pixels_of()
        pixels[1, 0, 1], pixels[0, 2, 2] = 0, -9999
        valid = np.ones((3, 4), bool)
        valid[2, 2] = False
        words = {"nodata": -9999} if how == "nodata" else {"valid": valid}
        path = make_raster("a.tif", pixels, **words)
        assert invalid_pixels(path, nodata=0) == [(0, 1), (2, 2)]
        with open_scene(path, nodata=0) as scene:
            assert scene.nodata == (-9999 if how == "nodata" else 0)

    @pytest.mark.parametrize("value", [-1, 256, 0.5])
    def test_a_nodata_value_the_type_cannot_hold_is_refused(self, make_raster, value):
        with pytest.raises(SettingError, match="uint8"):
            open_scene(make_raster("a.tif", pixels_of("uint8")), nodata=value)

    def test_a_nodata_value_beyond_floats_is_refused(self, make_raster):
        path = make_raster("a.tif", pixels_of())
        with pytest.raises(SettingError, match="float32"):
            open_scene(path, nodata=-1e39)


class TestDecibels:
    def test_power_and_amplitude_become_decibels(self, make_raster):
        path = make_raster("a.tif", np.full((2, 3, 4), 0.01, np.float32), nodata=0)
        for kind, expected in (("power", -20), ("amplitude", -40)):
            with open_scene(path, decibel=kind) as scene:
                chip = scene.read(WHOLE)
                assert [band.unit for band in scene.bands] == ["dB", "dB"]
                assert scene.dtype == chip.pixels.dtype == "float32"
            np.testing.assert_allclose(chip.pixels, expected, rtol=1e-6)

    def test_integers_with_a_scale_are_made_physical_first(self, make_raster):
        bands = (Band(name="VV", scale=0.001),) * 2
        path = make_raster("a.tif", np.full((2, 3, 4), 100, np.uint16), bands=bands)
        with open_scene(path, decibel="power") as scene:
            np.testing.assert_allclose(scene.read(WHOLE).pixels, -10, rtol=1e-6)
            assert scene.bands[0].scale == 1

    def test_nothing_is_darker_than_the_floor(self, make_raster):
        pixels = np.zeros((1, 3, 4), np.float32)
        pixels[0, 0] = [-1, np.nan, 1e-30, 0]
        with open_scene(make_raster("a.tif", pixels), decibel="power") as scene:
            chip = scene.read(WHOLE)
        np.testing.assert_allclose(chip.pixels, -50, rtol=1e-6)
        assert (~chip.valid).sum() == 1

    def test_what_is_in_decibels_already_stays(self, make_raster):
        pixels = np.full((1, 3, 4), -12.5, np.float32)
        path = make_raster("a.tif", pixels, bands=(Band(name="VV", unit="dB"),))
        with open_scene(path, decibel="power") as scene:
            np.testing.assert_array_equal(scene.read(WHOLE).pixels, pixels)

    def test_each_band_is_decibels_or_not_by_itself(self, make_raster):
        pixels = np.full((2, 3, 4), 0.01, np.float32)
        pixels[0] = -125
        bands = (Band(name="VV", unit="dB", scale=0.1, color="gray"), Band(name="VH"))
        with open_scene(make_raster("a.tif", pixels, bands=bands), decibel="power") as scene:
            chip = scene.read(WHOLE)
            assert [band.unit for band in scene.bands] == ["dB", "dB"]
            assert scene.bands[0].scale == 1
        np.testing.assert_allclose(chip.pixels[0], -12.5, rtol=1e-6)
        np.testing.assert_allclose(chip.pixels[1], -20, rtol=1e-6)

    def test_a_nodata_value_of_linear_numbers_means_nothing_among_decibels(self, make_raster):
        pixels = np.full((1, 3, 4), 0.01, np.float32)
        pixels[0, 0, 0] = 0
        path = make_raster("a.tif", pixels, nodata=0)
        assert invalid_pixels(path, decibel="power") == [(0, 0)]
        with open_scene(path, decibel="power") as scene:
            assert scene.nodata is None


class TestRefusals:
    def test_a_missing_file(self, tmp_path):
        with pytest.raises(RasterError, match=r"does not exist.*Check the path"):
            open_scene(tmp_path / "a.tif")

    def test_an_empty_file(self, tmp_path):
        (tmp_path / "a.tif").touch()
        with pytest.raises(RasterError, match=r"0 bytes.*again"):
            open_scene(tmp_path / "a.tif")

    def test_what_is_no_raster(self, tmp_path):
        (tmp_path / "a.tif").write_text("once upon a time")
        with pytest.raises(RasterError, match="cannot be opened as a raster"):
            open_scene(tmp_path / "a.tif")

    @pytest.mark.parametrize("share", [0.0001, 0.5, 0.99])
    def test_a_truncated_file(self, make_raster, share):
        path = make_raster("a.tif", pixels_of(rows=200, cols=200))
        os.truncate(path, int(path.stat().st_size * share))
        with (
            pytest.raises(RasterError, match=r"again") as refusal,
            open_scene(path) as scene,
        ):
            scene.read(Window(col_off=0, row_off=0, width=200, height=200))
        assert "See previous exception" not in str(refusal.value)

    def test_a_raster_without_a_crs(self, make_raster):
        with pytest.raises(RasterError, match=r"no coordinate reference system.*--crs"):
            open_scene(make_raster("a.tif", pixels_of(), crs=None))

    @pytest.mark.parametrize("crs", [None, "EPSG:4326"])
    def test_a_raster_placed_by_a_camera_model_only(self, tmp_path, crs):
        words = {"driver": "GTiff", "count": 1, "height": 3, "width": 4, "dtype": "uint8"}
        model = RPC(
            height_off=0.0,
            height_scale=500.0,
            lat_off=36.1,
            lat_scale=0.1,
            line_off=1.0,
            line_scale=2.0,
            long_off=15.0,
            long_scale=0.1,
            samp_off=2.0,
            samp_scale=2.0,
            line_num_coeff=[0.0, 0.0, -1.0, *[0.0] * 17],
            line_den_coeff=[1.0, *[0.0] * 19],
            samp_num_coeff=[0.0, 1.0, *[0.0] * 18],
            samp_den_coeff=[1.0, *[0.0] * 19],
        )
        with rasterio.open(tmp_path / "a.tif", "w", **words, crs=crs, rpcs=model) as file:
            file.write(np.ones((1, 3, 4), np.uint8))
        with pytest.raises(RasterError, match=r"camera model only.*`gdalwarp -rpc -to RPC_DEM="):
            open_scene(tmp_path / "a.tif")

    def test_a_raster_with_a_crs_that_lies_nowhere_in_it(self, tmp_path):
        words = {"driver": "GTiff", "count": 1, "height": 3, "width": 4, "dtype": "uint8"}
        with (
            pytest.warns(NotGeoreferencedWarning),
            rasterio.open(tmp_path / "a.tif", "w", **words, crs="EPSG:32633") as file,
        ):
            file.write(np.ones((1, 3, 4), np.uint8))
        with pytest.raises(RasterError, match=r"no place in it.*gdal_edit\.py -a_ullr"):
            open_scene(tmp_path / "a.tif")

    def test_a_picture_that_lies_nowhere(self, tmp_path):
        PIL.Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
        with pytest.raises(RasterError, match="no coordinate reference system"):
            open_scene(tmp_path / "a.png")

    def test_a_rotated_raster(self, make_raster):
        turn = Affine(10, 2, 500_000, 2, -10, 4_000_000)
        with pytest.raises(RasterError, match=r"rotated.*gdalwarp"):
            open_scene(make_raster("a.tif", pixels_of(), transform=turn))

    @pytest.mark.real
    def test_a_real_rotated_raster(self, real_data):
        with pytest.raises(RasterError, match=r"rotated.*gdalwarp"):
            open_scene(real_data / "umbra-sar-2000" / "umbra_mount_yasur.tif")

    def test_a_rotation_that_is_a_rounding_error_is_none(self, make_raster):
        noise = Affine(10, 1e-14, 500_000, -1e-14, -10, 4_000_000)
        with open_scene(make_raster("a.tif", pixels_of(), transform=noise)) as scene:
            assert scene.grid.transform == Affine(10, 0, 500_000, 0, -10, 4_000_000)

    def test_a_raster_turned_by_a_right_angle(self, make_raster):
        turn = Affine(0, 10, 500_000, -10, 0, 4_000_000)
        with pytest.raises(RasterError, match=r"rotated.*gdalwarp"):
            open_scene(make_raster("a.tif", pixels_of(), transform=turn))

    def test_ground_control_points_only(self, tmp_path):
        points = [
            GroundControlPoint(row, col, 15 + col / 100, 45 - row / 100)
            for row in (0, 3)
            for col in (0, 4)
        ]
        words = {"driver": "GTiff", "count": 1, "height": 3, "width": 4, "dtype": "uint8"}
        with rasterio.open(tmp_path / "a.tif", "w", **words, gcps=points, crs="EPSG:4326") as file:
            file.write(np.ones((1, 3, 4), np.uint8))
        with pytest.raises(RasterError, match=r"4 ground control points only.*gdalwarp -tps"):
            open_scene(tmp_path / "a.tif")

    def test_numbers_of_a_palette(self, make_raster):
        path = make_raster("a.tif", pixels_of("uint8", bands=1))
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 0, 255)})
            file.colorinterp = [ColorInterp.palette]
        with pytest.raises(RasterError, match=r"palette.*-expand rgb"):
            open_scene(path)

    def test_complex_numbers(self, make_raster):
        with pytest.raises(RasterError, match=r"complex.*sigma nought"):
            open_scene(make_raster("a.tif", pixels_of("complex64")))


class TestIdentity:
    def test_it_changes_with_the_file_and_with_the_bands(self, make_raster):
        path = make_raster("a.tif", pixels_of())

        def identity(**words):
            with open_scene(path, **words) as scene:
                return scene.identity()

        before = identity()
        assert identity() == before
        assert identity(bands="1") != before
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        assert identity() != before

    def test_what_programs_write_beside_a_raster_they_show_changes_nothing(self, make_raster):
        path = make_raster("a.tif", pixels_of(rows=600, cols=600))
        with open_scene(path) as scene:
            before = scene.identity()
        path.with_name("a.tif.ovr").write_bytes(path.read_bytes())
        path.with_name("a.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
        with open_scene(path) as scene:
            assert len(scene._dataset.files) == 3
            assert scene.identity() == before

    @pytest.mark.parametrize(
        "said",
        [
            *("<NoDataValue>7</NoDataValue>", "<Scale>2</Scale>", "<Offset>5</Offset>"),
            *("<UnitType>dB</UnitType>", "<Description>VV</Description>"),
        ],
    )
    def test_what_its_values_mean_written_beside_it_changes_it(self, make_raster, said):
        path = make_raster("a.tif", pixels_of())
        with open_scene(path) as scene:
            before = scene.identity()
        band = f'<PAMRasterBand band="1">{said}</PAMRasterBand>'
        path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
        with open_scene(path) as scene:
            assert scene.identity() != before

    def test_it_is_the_same_from_another_folder(self, make_raster, monkeypatch):
        path = make_raster("scenes/a.tif", pixels_of())
        found = []
        for folder, name in ((path.parent, "a.tif"), (path.parent.parent, "scenes/a.tif")):
            monkeypatch.chdir(folder)
            with open_scene(name) as scene:
                found.append(scene.identity())
        assert found[0] == found[1]


class TestPaths:
    def test_folders_and_globs_stand_for_the_rasters_in_them_each_once(self, tmp_path):
        for name in ("b.tif", "a.TIFF", "c.vrt", "notes.txt", ".d.tif"):
            (tmp_path / name).touch()
        found = expand_paths([tmp_path / "b.tif", tmp_path, str(tmp_path / "*.tif")])
        names = [path.rsplit("/", 1)[-1] for path in found]
        assert names == ["b.tif", "a.TIFF", "c.vrt"]

    def test_a_path_with_brackets_is_no_glob(self, tmp_path):
        (tmp_path / "a[1].tif").touch()
        assert expand_paths([tmp_path / "a[1].tif"]) == [str(tmp_path / "a[1].tif")]

    def test_an_address_is_left_to_gdal(self):
        address = "https://example.org/scene.tif?size=*"
        assert expand_paths([address]) == [address]

    @pytest.mark.parametrize("name", ["", "*.tif"])
    def test_what_stands_for_nothing_is_refused(self, tmp_path, name):
        with pytest.raises(RasterError, match="Check the path"):
            expand_paths([tmp_path / name])

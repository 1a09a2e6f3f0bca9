import re

import numpy as np
import pytest
from affine import Affine
from rasterio.windows import Window

from geotranslate.errors import BandError, GridError, SettingError
from geotranslate.raster.domain import Band, Domain
from geotranslate.translation.preflight import check_scene, open_matching

BANDS = (Band(name="VV", unit="dB"), Band(name="VH", unit="dB"))
SAR = Domain(
    bands=BANDS, dtype="float32", resolution_m=(10.0, 10.0), low=(-25.0, -30.0), high=(5.0, 0.0)
)
LINEAR = SAR.model_copy(
    update={
        "bands": (Band(name="VV"), Band(name="VH")),
        "low": (0.0, 0.0),
        "high": (0.5, 0.2),
    }
)


def decibels(rows=60, cols=70, outside=0.0):
    """Values inside the range, but for a share of them in VH."""
    random = np.random.default_rng(0)
    pixels = random.uniform(-24, -1, (2, rows, cols)).astype(np.float32)
    pixels[1][random.uniform(size=(rows, cols)) < outside] = 9
    return pixels


def check(path, domain=SAR, *, force=False, **words):
    with open_matching(path, domain, **words) as scene:
        whole = Window(col_off=0, row_off=0, width=scene.grid.width, height=scene.grid.height)
        check_scene(scene, domain, whole, force=force)


def named(*names):
    return tuple(Band(name=name, unit="dB") for name in names)


# --------------------------------------------------------------------------------------- bands


def test_bands_are_found_by_name_wherever_they_lie(make_raster):
    pixels = np.stack([np.full((5, 6), value, np.float32) for value in (-1, -2, -3)])
    path = make_raster("scene.tif", pixels, bands=named("vh", "angle", "VV"))
    with open_matching(path, SAR) as scene:
        chip = scene.read(Window(col_off=0, row_off=0, width=1, height=1))
    assert chip.pixels.ravel().tolist() == [-3, -1]


def test_bands_without_names_are_taken_in_their_order_silently(make_raster, caplog):
    path = make_raster("scene.tif", decibels())
    with open_matching(path, SAR) as scene:
        assert scene.identity()["bands"] == [1, 2]
    check(path)
    assert not caplog.text


def test_bands_of_other_names_are_taken_in_their_order_with_a_warning(make_raster, caplog):
    check(make_raster("scene.tif", decibels(), bands=named("sigma0_VV", "sigma0_VH")))
    assert "'sigma0_VV' is taken for 'VV', band 'sigma0_VH' is taken for 'VH'" in caplog.text
    assert "with --bands if that is wrong" in caplog.text


def test_bands_that_are_said_come_before_bands_of_the_right_name(make_raster):
    path = make_raster("scene.tif", decibels(), bands=named("VV", "VH"))
    with open_matching(path, SAR, bands="2,1") as scene:
        assert [band.name for band in scene.bands] == ["VH", "VV"]


@pytest.mark.parametrize(("count", "bands"), [(3, None), (1, None), (3, "1"), (3, "1,2,3")])
def test_another_number_of_bands_is_refused_with_the_mend(make_raster, count, bands):
    path = make_raster("scene.tif", np.zeros((count, 5, 5), np.float32))
    with pytest.raises(BandError, match=r"takes 2 bands \(VV, VH\).*Choose with --bands"):
        open_matching(path, SAR, bands=bands)


def test_bands_that_neither_side_names_are_not_chosen_by_their_number(make_raster):
    unnamed = SAR.model_copy(update={"bands": (Band(name="band 1"), Band(name="band 2"))})
    three = make_raster("three.tif", np.full((3, 5, 5), -9, np.float32))
    with pytest.raises(BandError, match=r"takes 2 bands .* gives 3 bands .*Choose with --bands"):
        open_matching(three, unnamed)
    with open_matching(three, unnamed, bands="3,1") as scene:
        assert scene.identity()["bands"] == [3, 1]


def test_names_are_no_reason_to_warn_where_the_model_has_none(make_raster, caplog):
    unnamed = SAR.model_copy(
        update={"bands": (Band(name="band 1", unit="dB"), Band(name="band 2", unit="dB"))}
    )
    check(make_raster("scene.tif", decibels(), bands=BANDS), unnamed)
    assert not caplog.text


def test_an_alpha_band_is_no_band(make_raster):
    bands = (*BANDS, Band(name="alpha", color="alpha"))
    pixels = np.concatenate([decibels(5, 5), np.full((1, 5, 5), 255, np.float32)])
    with open_matching(make_raster("scene.tif", pixels, bands=bands), SAR) as scene:
        assert len(scene.bands) == 2


# ---------------------------------------------------------------------------------- pixel size


@pytest.mark.parametrize("metres", [8.1, 10.0, 12.4])
def test_nearly_the_same_pixel_size_is_silent(make_raster, caplog, metres):
    grid = Affine(metres, 0, 5e5, 0, -metres, 4e6)
    check(make_raster("scene.tif", decibels(), bands=BANDS, transform=grid))
    assert not caplog.text


@pytest.mark.parametrize("metres", [7.9, 12.6, 19.9])
def test_another_pixel_size_warns(make_raster, caplog, metres):
    grid = Affine(10, 0, 5e5, 0, -metres, 4e6)
    check(make_raster("scene.tif", decibels(), bands=BANDS, transform=grid))
    assert "gdalwarp -tr" in caplog.text


@pytest.mark.parametrize(
    ("metres", "looks", "resampling"), [(5.0, "large", "average"), (20.0, "small", "bilinear")]
)
def test_a_pixel_size_off_by_two_is_refused_unless_forced(
    make_raster, caplog, metres, looks, resampling
):
    path = make_raster(
        "scene.tif", decibels(), bands=BANDS, transform=Affine(metres, 0, 5e5, 0, -metres, 4e6)
    )
    with pytest.raises(GridError, match=rf"gdalwarp -tr 10 10 -r {resampling} .* or say --force"):
        check(path)
    check(path, force=True)
    assert f"2 times too {looks} to it" in caplog.text


# -------------------------------------------------------------------------------------- values


def test_a_few_values_outside_are_silent(make_raster, caplog):
    check(make_raster("scene.tif", decibels(outside=0.03), bands=BANDS))
    assert not caplog.text


def test_more_than_a_twentieth_outside_warns(make_raster, caplog):
    check(make_raster("scene.tif", decibels(outside=0.2), bands=BANDS))
    assert "band 'VH'" in caplog.text
    assert re.search("learned from -30 to 0 dB: (19|2.)% of its values lie outside", caplog.text)


def test_more_than_half_outside_is_refused_unless_forced(make_raster, caplog):
    path = make_raster("scene.tif", decibels(outside=0.7), bands=BANDS)
    with pytest.raises(SettingError, match=r"Give a scene in the units.*, or say --force"):
        check(path)
    check(path, force=True)
    assert "band 'VH'" in caplog.text


def test_linear_values_for_a_model_of_decibels_are_told_apart(make_raster):
    power = (10 ** (decibels() / 10)).astype(np.float32)
    path = make_raster("scene.tif", power)
    with pytest.raises(SettingError, match=r"looks like linear.*say --decibel power"):
        check(path)
    check(path, decibel="power")


def test_linear_values_inside_the_range_of_decibels_are_told_apart_all_the_same(make_raster):
    low = np.random.default_rng(0).uniform(0.001, 0.9, (2, 50, 50)).astype(np.float32)
    towns = SAR.model_copy(update={"high": (15.0, 5.0)})
    with pytest.raises(SettingError, match=r"none of its values is negative.*--decibel power"):
        check(make_raster("scene.tif", low), towns)


def test_linear_values_are_told_apart_where_nobody_says_decibels(make_raster, caplog):
    quiet = SAR.model_copy(update={"bands": (Band(name="VV"), Band(name="VH"))})
    low = np.random.default_rng(0).uniform(0.001, 0.9, (2, 50, 50)).astype(np.float32)
    towns = quiet.model_copy(update={"high": (15.0, 5.0)})
    with pytest.raises(SettingError, match=r"none of its values is negative.*--decibel power"):
        check(make_raster("scene.tif", low), towns)
    around_zero = quiet.model_copy(update={"low": (-1.0, -1.0), "high": (1.0, 1.0)})
    check(make_raster("change.tif", low), around_zero)
    assert not caplog.text


def test_amplitude_is_turned_into_decibels_when_said(make_raster):
    path = make_raster("scene.tif", (10 ** (decibels() / 20)).astype(np.float32))
    check(path, decibel="amplitude")
    with open_matching(path, SAR, decibel="amplitude") as scene:
        chip = scene.read(Window(col_off=0, row_off=0, width=70, height=60))
    assert np.abs(chip.pixels - decibels()).max() < 1e-4


def test_a_model_that_learned_from_turned_values_turns_them_again(make_raster):
    power = (10 ** (decibels() / 10)).astype(np.float32)
    check(make_raster("scene.tif", power), SAR.model_copy(update={"decibel": "power"}))


def test_decibels_taken_for_linear_values_are_told_apart(make_raster):
    path = make_raster("scene.tif", decibels())  # its unit is not said
    turning = SAR.model_copy(update={"decibel": "power"})
    with pytest.raises(SettingError, match="say --decibel none"):
        check(path, turning)
    check(path, turning, decibel="none")


def test_decibels_for_a_model_of_linear_values_are_told_apart(make_raster):
    path = make_raster("scene.tif", decibels(), bands=BANDS)
    with pytest.raises(SettingError, match="give the scene before it was turned"):
        check(path, LINEAR)


def test_values_are_compared_in_physical_units(make_raster, caplog):
    packed = tuple(band.model_copy(update={"scale": 0.1, "offset": -3.0}) for band in BANDS)
    stored = np.rint(decibels() * 10 + 30).astype(np.int16)
    check(make_raster("scene.tif", stored, bands=packed))
    assert not caplog.text

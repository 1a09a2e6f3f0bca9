import numpy as np
import pytest

from geotranslate.chips.sources import read_sources
from geotranslate.errors import BandError, GridError, RasterError, SettingError
from geotranslate.raster.domain import Band
from tests.conftest import NORTH_UP

PLAIN = np.arange(2 * 20 * 30, dtype=np.uint16).reshape(2, 20, 30)


def test_it_says_what_all_scenes_share_and_where_each_lies(make_raster, tmp_path):
    bands = (Band(name="VV", unit="dB", scale=0.5, color="gray"), Band(name="VH", unit="dB"))
    for index in range(3):
        make_raster(f"scenes/{index}.tif", PLAIN, col=30 * index, bands=bands, nodata=7)
    sources = read_sources([str(tmp_path / "scenes")], bands=("VH",))
    assert [path[-5:] for path in sources.paths] == ["0.tif", "1.tif", "2.tif"]
    assert [grid.bounds[0] for grid in sources.grids] == [500_000, 500_300, 500_600]
    assert sources.bands == (Band(name="VH", unit="dB"),)
    assert (sources.dtype, sources.nodata, sources.pixel_bytes) == ("uint16", 7, 2)
    assert [each["path"] for each in sources.identities] == list(sources.paths)
    with sources.open(2) as scene:
        assert scene.bands == sources.bands
        assert scene.grid == sources.grids[2]


@pytest.mark.parametrize(("first", "second", "common"), [(7, 7, 7), (7, 8, None), (7, None, None)])
def test_scenes_that_disagree_about_nodata_agree_on_a_mask(make_raster, first, second, common):
    paths = [
        str(make_raster(f"{index}.tif", PLAIN, nodata=nodata))
        for index, nodata in enumerate((first, second))
    ]
    assert read_sources(paths).nodata == common


def test_nan_as_nodata_is_one_value(make_raster):
    paths = [str(make_raster(f"{n}.tif", PLAIN.astype("float32"), nodata=np.nan)) for n in range(2)]
    assert np.isnan(read_sources(paths).nodata)


def test_decibels_have_their_own_type_and_unit(make_raster):
    sources = read_sources([str(make_raster("a.tif", PLAIN, nodata=0))], decibel="power")
    assert sources.dtype == "float32"
    assert {band.unit for band in sources.bands} == {"dB"}
    assert sources.nodata is None


@pytest.mark.parametrize("kind", ["power", "amplitude"])
def test_decibels_of_what_looks_like_decibels_are_refused(make_raster, kind):
    pixels = np.random.default_rng(0).normal(-12, 4, (2, 40, 40)).astype("f4")
    pixels[0] = 0.1
    bands = (Band(name="VV"), Band(name="VH"))
    path = str(make_raster("a.tif", pixels, bands=bands))
    with pytest.raises(SettingError, match=r"'VH' .*median of -1.*leave out --decibel-a"):
        read_sources([path], decibel=kind)


def test_a_unit_says_for_each_band_whether_it_is_decibels(make_raster):
    pixels = np.full((2, 40, 40), 0.1, "f4")
    pixels[1] = -12
    bands = (Band(name="VV"), Band(name="VH", unit="dB"))
    sources = read_sources([str(make_raster("a.tif", pixels, bands=bands))], decibel="power")
    assert [band.unit for band in sources.bands] == ["dB", "dB"]


def test_a_wide_rim_of_zeros_has_no_decibels_unless_it_is_nodata(make_raster):
    pixels = np.full((1, 40, 40), 0.1, "f4")
    pixels[:, :30] = 0
    path = str(make_raster("a.tif", pixels))
    with pytest.raises(SettingError, match=r"75% of the values .* say so with --nodata-a 0"):
        read_sources([path], decibel="power")
    assert read_sources([path], decibel="power", nodata=0).dtype == "float32"


def write_text(folder):
    (folder / "a.tif").write_text("no raster")


def write_nothing(folder):
    (folder / "a.tif").touch()


@pytest.mark.parametrize(
    ("make", "mend"),
    [
        (lambda folder: None, "does not exist.*Check the path"),
        (write_text, "cannot be opened as a raster"),
        (write_nothing, r"is empty \(0 bytes\)"),
    ],
)
def test_what_is_no_raster_is_refused_with_the_mend(tmp_path, make, mend):
    make(tmp_path)
    with pytest.raises(RasterError, match=mend):
        read_sources([str(tmp_path / "a.tif")])


@pytest.mark.parametrize("profile", [{}, {"compress": "deflate", "tiled": True}])
def test_a_scene_that_was_cut_off_is_noticed_before_work_begins(make_raster, profile):
    noise = np.random.default_rng(0).integers(0, 60_000, (1, 300, 300), dtype=np.uint16)
    path = make_raster("a.tif", noise, **profile)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    with pytest.raises(RasterError, match=r"[cC]opy.*again"):
        read_sources([str(path)])


def test_a_scene_without_crs_is_refused_with_the_mend(make_raster):
    with pytest.raises(RasterError, match="rio edit-info --crs"):
        read_sources([str(make_raster("a.tif", PLAIN, crs=None))])


def test_a_band_that_is_not_there_is_refused_with_those_that_are(make_raster):
    path = str(make_raster("a.tif", PLAIN, bands=(Band(name="VV"), Band(name="VH"))))
    with pytest.raises(BandError, match=r"'HH' .* named VV, VH"):
        read_sources([path], bands=("HH",))


def test_scenes_of_two_kinds_are_refused(make_raster):
    paths = [
        str(make_raster("a.tif", PLAIN)),
        str(make_raster("b.tif", PLAIN.astype(np.uint8))),
    ]
    with pytest.raises(BandError, match=r"\(uint8\) than .* \(uint16\).* Give scenes of one kind"):
        read_sources(paths)


def test_bands_that_differ_are_named(make_raster):
    named = (Band(name="VV", unit="dB"), Band(name="VH"))
    paths = [
        str(make_raster("a.tif", PLAIN, bands=named)),
        str(make_raster("b.tif", PLAIN, bands=(Band(name="VV"), Band(name="VH")))),
        str(make_raster("c.tif", PLAIN, bands=(Band(name="R"), Band(name="G")))),
    ]
    for other, found in (
        (1, r"units \(none, none\) .*\(dB, none\)"),
        (2, r"bands \(R, G\) .*VH\)"),
    ):
        with pytest.raises(BandError, match=found):
            read_sources([paths[0], paths[other]])


def test_a_nodata_value_that_no_pixel_can_have_is_refused(make_raster):
    with pytest.raises(SettingError, match="Give the value that its empty pixels have"):
        read_sources([str(make_raster("a.tif", PLAIN))], nodata=-1)


@pytest.mark.parametrize(("factor", "refused", "warned"), [(1.1, 0, 0), (1.5, 0, 1), (2.5, 1, 0)])
def test_pixel_sizes_that_do_not_go_together(make_raster, caplog, factor, refused, warned):
    coarse = NORTH_UP @ NORTH_UP.scale(factor)
    paths = [
        str(make_raster("a.tif", PLAIN)),
        str(make_raster("b.tif", PLAIN, transform=coarse)),
    ]
    if refused:
        with pytest.raises(
            GridError, match=r"b\.tif has pixels of 25 m.*-tr 10 10 -r \S+ \S+b\.tif "
        ):
            read_sources(paths)
    else:
        read_sources(paths)
        assert len(caplog.records) == warned

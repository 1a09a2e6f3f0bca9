import runpy
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import geometry_mask
from rasterio.warp import reproject, transform_geom
from scipy.ndimage import binary_erosion

from geotranslate.errors import OutputError
from geotranslate.sample import make_sample, sample_paths
from geotranslate.sample.files import complete_or_not, write_area
from geotranslate.sample.landscape import CODES, GROUNDS
from geotranslate.sample.sensors import LOOKS

COMMITTED = Path(__file__).parents[1] / "sample_data"
FILES = sample_paths(COMMITTED)
PARTS = ("train", "heldout")
RASTERS = [name for name in FILES if name != "area"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("sample") / "new" / "folder")


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def on_grid_of(path, target, resampling=Resampling.bilinear):
    """All bands of ``path`` on the grid of ``target``, in stored units; NaN outside."""
    with rasterio.open(path) as source, rasterio.open(target) as goal:
        out = np.full((source.count, *goal.shape), np.nan)
        reproject(
            source.read().astype(float),
            out,
            src_transform=source.transform,
            src_crs=source.crs,
            dst_transform=goal.transform,
            dst_crs=goal.crs,
            dst_nodata=np.nan,
            resampling=resampling,
        )
    return out


def footprint(path):
    """The outline of a raster on the map, in the CRS of the radar."""
    with rasterio.open(path) as dataset:
        box = shapely.geometry.mapping(shapely.box(*dataset.bounds))
        return shapely.geometry.shape(transform_geom(dataset.crs, "EPSG:32633", box))


@pytest.mark.parametrize("name", RASTERS)
def test_the_maker_writes_the_committed_rasters(made, name):
    with rasterio.open(made[name]) as new, rasterio.open(FILES[name]) as old:
        for what in ("crs", "transform", "shape", "count", "dtypes", "descriptions", "units"):
            assert getattr(new, what) == getattr(old, what)
        for what in ("scales", "offsets", "colorinterp"):
            assert getattr(new, what) == getattr(old, what)
        np.testing.assert_equal(new.nodata, old.nodata)
        assert new.tags(1) == old.tags(1)
        ours, theirs = new.read().astype(float), old.read().astype(float)
    # Another processor may round a power or a sine elsewhere in its last digit.
    step = {"sar": 1 / 64, "optical": 8}.get(name.split("_")[-1], 0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=step)
    assert np.mean(np.nan_to_num(ours) != np.nan_to_num(theirs)) < 1e-3


def test_the_maker_writes_the_committed_area(made):
    new, old = geopandas.read_file(made["area"]), geopandas.read_file(FILES["area"])
    assert new.crs == old.crs == "EPSG:4326"
    assert new.geometry[0].equals_exact(old.geometry[0], tolerance=1e-9)


def test_the_maker_leaves_nothing_but_the_files_it_names(made):
    folder = made["area"].parent
    assert sorted(folder.iterdir()) == sorted(made.values())
    assert made == sample_paths(folder)


def test_a_geopackage_written_later_has_the_same_bytes(tmp_path):
    option = "OGR_CURRENT_DATE"
    before = pyogrio.get_gdal_config_option(option)
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        write_area(folder / "area.gpkg")
    assert (first / "area.gpkg").read_bytes() == (second / "area.gpkg").read_bytes()
    assert pyogrio.get_gdal_config_option(option) == before


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "area.gpkg"
    path.write_text("old")

    def write_half():
        with complete_or_not(path) as part:
            part.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="Make room"):
        write_half()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_cannot_be_made_is_refused_with_the_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        make_sample(tmp_path / "file" / "sample")


def test_the_committed_files_stay_under_6_megabytes():
    assert sum(path.stat().st_size for path in COMMITTED.iterdir()) < 6e6


@pytest.mark.parametrize("part", PARTS)
def test_the_radar_scene_says_what_it_holds(part):
    with rasterio.open(FILES[f"{part}_sar"]) as sar:
        assert sar.descriptions == ("VV", "VH")
        assert sar.units == ("dB", "dB")
        assert sar.dtypes == ("float32", "float32")
        assert np.isnan(sar.nodata)
        pixels, valid = sar.read(), sar.dataset_mask() > 0
    assert 0.03 < 1 - valid.mean() < 0.2
    assert not valid[:, 0].any(), "the wedge lies at the western side"
    assert valid[:, -1].all()
    np.testing.assert_array_equal(np.isnan(pixels).any(axis=0), ~valid)
    np.testing.assert_array_equal(pixels[:, valid] * 64 % 1, 0)
    assert -50 < pixels[:, valid].min() < pixels[:, valid].max() < 25


@pytest.mark.parametrize("part", PARTS)
def test_the_optical_scene_says_what_it_holds(part):
    with rasterio.open(FILES[f"{part}_optical"]) as optical:
        assert optical.descriptions == ("B", "G", "R", "NIR")
        assert set(optical.units) == {"reflectance"}
        assert set(optical.scales) == {1e-4}
        assert set(optical.dtypes) == {"uint16"}
        assert optical.colorinterp[:3] == (ColorInterp.blue, ColorInterp.green, ColorInterp.red)
        assert ColorInterp.alpha not in optical.colorinterp
        assert optical.nodata == 0
        pixels = optical.read()
    assert pixels.min() > 0
    assert pixels.max() < 10_000


def test_the_land_cover_names_its_classes_in_the_file_and_in_the_readme():
    readme = (COMMITTED / "README.md").read_text()
    with rasterio.open(FILES["landcover"]) as cover:
        assert cover.nodata == 0
        assert set(np.unique(cover.read())) == set(CODES.values())
        for name, code in CODES.items():
            assert cover.colormap(1)[code][:3] == GROUNDS[name].color
            assert cover.tags(1)[f"CLASS_{code}"] == name
            assert f"| {code} | {name} |" in readme


@pytest.mark.parametrize("part", PARTS)
def test_both_sensors_overlap_on_grids_that_differ(part):
    with (
        rasterio.open(FILES[f"{part}_sar"]) as sar,
        rasterio.open(FILES[f"{part}_optical"]) as optical,
    ):
        assert sar.crs != optical.crs
        assert sar.res == (10, 10)
        assert optical.res == (8, 8)
    one, other = footprint(FILES[f"{part}_sar"]), footprint(FILES[f"{part}_optical"])
    assert one.intersection(other).area > 0.95 * one.area


def test_nothing_of_the_held_out_part_is_in_the_training_part():
    for train in ("train_sar", "train_optical"):
        for heldout in ("heldout_sar", "heldout_optical"):
            assert footprint(FILES[train]).distance(footprint(FILES[heldout])) > 300


def test_inside_the_area_both_sensors_have_data():
    area = geopandas.read_file(FILES["area"]).to_crs("EPSG:32633").geometry[0]
    with rasterio.open(FILES["train_sar"]) as sar:
        inside = geometry_mask([area], sar.shape, sar.transform, invert=True)
        assert area.area > 0.6 * shapely.box(*sar.bounds).area
    assert not np.isnan(read(FILES["train_sar"])[:, inside]).any()
    assert not np.isnan(on_grid_of(FILES["train_optical"], FILES["train_sar"])[:, inside]).any()


def cover_below(part):
    cover = on_grid_of(FILES["landcover"], FILES[f"{part}_sar"], Resampling.nearest)[0]
    return np.nan_to_num(cover).astype(int)


def test_the_speckle_on_still_water_has_the_stated_looks():
    power = 10 ** (read(FILES["train_sar"]) / 10)
    water = binary_erosion(cover_below("train") == CODES["water"], iterations=4)
    water &= ~np.isnan(power[0])
    assert water.sum() > 3_000
    for band in power:
        looks = band[water].mean() ** 2 / band[water].var()
        assert looks == pytest.approx(LOOKS, rel=0.1)
    left, right = power[:, :, :-1], power[:, :, 1:]
    both = water[:, :-1] & water[:, 1:]
    for pair in (left[0], right[0]), (left[0], left[1]):
        assert abs(np.corrcoef(pair[0][both], pair[1][both])[0, 1]) < 0.06


def test_water_is_dark_and_roofs_are_bright_to_the_radar():
    sar, cover = read(FILES["train_sar"]), cover_below("train")
    seen = {name: np.nanmean(sar[:, cover == code], axis=1) for name, code in CODES.items()}
    assert all(seen["water"] < seen["meadow"] - 4)
    assert all(seen["meadow"] < seen["conifers"])
    assert seen["conifers"][0] < seen["tiled roof"][0]
    assert seen["wheat"][0] < seen["bare soil"][0]
    assert seen["wheat"][1] > seen["bare soil"][1], "bare soil depolarizes little"


def test_knowing_the_ground_tells_its_colour_far_better_than_a_line_through_each_pixel():
    """The sample is there to be learned from: a model that sees context must be able to win."""
    power, color, cover = {}, {}, {}
    for part in PARTS:
        sar, kinds = read(FILES[f"{part}_sar"]), cover_below(part)
        optical = on_grid_of(FILES[f"{part}_optical"], FILES[f"{part}_sar"])[[2, 1, 0]] / 1e4
        valid = ~np.isnan(sar[0]) & ~np.isnan(optical[0]) & (kinds > 0)
        power[part] = np.column_stack([*sar[:, valid].astype(float), np.ones(valid.sum())])
        color[part], cover[part] = optical[:, valid].T, kinds[valid]

    def decibel(predicted):
        return -10 * np.log10(np.mean((predicted - color["heldout"]) ** 2))

    line, *_ = np.linalg.lstsq(power["train"], color["train"], rcond=None)
    mean_of = {code: color["train"][cover["train"] == code].mean(axis=0) for code in CODES.values()}
    oracle = np.array([mean_of[code] for code in cover["heldout"]])
    by_mean = decibel(color["train"].mean(axis=0))
    by_line, by_ground = decibel(power["heldout"] @ line), decibel(oracle)
    assert by_mean < by_line < by_mean + 1
    assert by_ground > by_line + 6


def test_the_script_beside_the_data_is_its_maker(tmp_path, monkeypatch):
    script = shutil.copy(COMMITTED / "make.py", tmp_path)
    seen = []
    monkeypatch.setattr("geotranslate.sample.make_sample", lambda folder: seen.append(folder) or {})
    runpy.run_path(script, run_name="__main__")
    assert seen == [tmp_path]

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
import rasterio.warp
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.windows import Window

from geotranslate.errors import BandError, SettingError
from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid
from geotranslate.raster.scene import open_scene
from geotranslate.raster.warp import RESAMPLINGS, WarpedScenes, meets, pixel_scales

UTM33 = CRS.from_epsg(32633)
UTM34 = CRS.from_epsg(32634)

EAST = 900_000  # of zone 33, so that zone 34 is near
SOURCE = Affine(10.0, 0, EAST, 0, -10.0, 5_000_000)

# Grids over the source's middle that force every kind of resampling.
WGS84 = CRS.from_epsg(4326)
(X34, *_), (Y34, *_) = rasterio.warp.transform(UTM33, UTM34, [EAST + 60], [5_000_000 - 50])
(LON, *_), (LAT, *_) = rasterio.warp.transform(UTM33, WGS84, [EAST - 20], [5_000_000 - 30])
TARGETS = {
    "shifted": Grid(UTM33, Affine(10, 0, EAST - 43, 0, -10, 5_000_028), 60, 60),
    "turned": Grid(UTM33, Affine(-7, 0, EAST + 420, 0, 7, 4_999_580), 80, 60),
    "finer": Grid(UTM33, Affine(3, 0, EAST - 51, 0, -3, 4_999_911), 150, 60),
    "coarser": Grid(UTM33, Affine(27, 0, EAST - 200, 0, -27, 5_000_100), 30, 30),
    "other zone": Grid(UTM34, Affine(10, 0, X34, 0, -10, Y34), 90, 40),
    "degrees": Grid(WGS84, Affine(1e-4, 0, LON, 0, -1e-4, LAT), 80, 40),
}


@pytest.fixture
def source(make_raster):
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:48, :40]
    waves = 50 + 30 * np.sin(rows / 5) * np.cos(cols / 4) + rng.normal(0, 3, (2, 48, 40))
    valid = np.ones((48, 40), bool)
    valid[10:20, 5:9] = valid[:, -2] = valid[30, 30] = False
    return make_raster("a.tif", waves.astype(np.float32), transform=SOURCE, valid=valid)


def read(paths, grid, window=None, resampling="bilinear"):
    whole = Window(col_off=0, row_off=0, width=grid.width, height=grid.height)
    with ExitStack() as stack:
        scenes = [stack.enter_context(open_scene(path)) for path in paths]
        return WarpedScenes(scenes, grid, resampling).read(window or whole)


@settings(
    deadline=None,
    max_examples=4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_a_pixel_comes_out_the_same_in_whichever_window_it_is_read(
    source, resampling, target, data
):
    grid = TARGETS[target]
    whole = read([source], grid, resampling=resampling)
    assert whole.valid.any()
    assert not whole.valid.all()
    row = data.draw(st.integers(0, grid.height - 1))
    col = data.draw(st.integers(0, grid.width - 1))
    height = data.draw(st.integers(1, grid.height - row))
    width = data.draw(st.integers(1, grid.width - col))
    window = Window(col_off=col, row_off=row, width=width, height=height)
    part = read([source], grid, window, resampling)
    place = window.toslices()
    np.testing.assert_array_equal(part.valid, whole.valid[place])
    expected = whole.pixels[:, *place]
    # Coordinates are counted from the window's corner, which may round the last bit otherwise.
    np.testing.assert_allclose(
        part.pixels[:, part.valid], expected[:, part.valid], rtol=5e-7, atol=0
    )
    assert part.grid == grid.window_grid(window)


def test_scenes_on_the_same_pixels_are_copied(source):
    grid = Grid(UTM33, SOURCE @ Affine.translation(-5, 7), 60, 60)
    chip = read([source], grid, resampling="cubic")
    with open_scene(source) as scene:
        expected = scene.read(Window(col_off=0, row_off=7, width=40, height=41))
    np.testing.assert_array_equal(chip.valid[:41, 5:45], expected.valid)
    found = chip.pixels[:, :41, 5:45]
    np.testing.assert_array_equal(found[:, expected.valid], expected.pixels[:, expected.valid])
    assert not chip.valid[41:].any()
    assert not chip.valid[:, :5].any()


@pytest.mark.parametrize("target", ["shifted", "turned", "finer", "other zone", "degrees"])
def test_a_pixel_lands_where_it_lies_on_the_map(make_raster, target):
    """Pixels hold their own coordinates, so the warped ones must, too."""
    rows, cols = np.mgrid[:48, :40]
    x, y = 10 * cols + 5.0, -10 * rows - 5.0
    path = make_raster("a.tif", np.stack([x, y]).astype(np.float32), transform=SOURCE)
    grid = TARGETS[target]
    chip = read([path], grid)
    rows, cols = np.nonzero(chip.valid)
    centres = [grid.transform @ (col + 0.5, row + 0.5) for row, col in zip(rows, cols, strict=True)]
    east, north = rasterio.warp.transform(grid.crs, UTM33, *zip(*centres, strict=True))
    inside = (np.abs(np.array(east) - EAST - 200) < 190) & (
        np.abs(np.array(north) - 4_999_760) < 230
    )
    found = chip.pixels[:, rows, cols][:, inside]
    expected = np.array([np.array(east) - EAST, np.array(north) - 5_000_000])[:, inside]
    assert found.shape[1] > 100
    # Where pixels differ in size along an axis, GDAL's wider kernel is a little off centre.
    np.testing.assert_allclose(found, expected, atol=1 if target == "degrees" else 0.01)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_what_lies_under_invalid_pixels_never_shows(make_raster, resampling, target):
    rng = np.random.default_rng(1)
    valid = rng.random((48, 40)) < 0.7
    chips = []
    for name, filler in (("a.tif", 0), ("b.tif", 60_000)):
        pixels = np.full((2, 48, 40), 1000, np.uint16)
        pixels[:, ~valid] = filler
        path = make_raster(name, pixels, transform=SOURCE, valid=valid)
        chips.append(read([path], TARGETS[target], resampling=resampling))
    for chip in chips:
        assert chip.valid.any()
        assert set(np.unique(chip.pixels[:, chip.valid])) <= {1000}
    np.testing.assert_array_equal(chips[0].valid, chips[1].valid)


def test_a_pixel_invalid_in_one_band_is_left_out_of_all(make_raster):
    pixels = np.full((2, 48, 40), 7, np.float32)
    pixels[0, 20:24, 20:24] = -9999
    pixels[1, 20:24, 20:24] = 500
    path = make_raster("a.tif", pixels, transform=SOURCE, nodata=-9999)
    chip = read([path], TARGETS["shifted"])
    assert set(np.unique(chip.pixels[:, chip.valid])) == {7}
    assert not chip.valid[24:26, 26:27].any()


def test_average_onto_pixels_twice_as_large_is_the_mean_of_four(make_raster):
    pixels = np.random.default_rng(0).uniform(0, 9, (1, 48, 40)).astype(np.float32)
    path = make_raster("a.tif", pixels, transform=SOURCE)
    grid = Grid(UTM33, SOURCE @ Affine.scale(2), 20, 24)
    chip = read([path], grid, resampling="average")
    expected = pixels.reshape(1, 24, 2, 20, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(chip.pixels, expected, rtol=1e-6)


@pytest.mark.parametrize("latitude", [0, 34, 60, 70])
@pytest.mark.parametrize("wide", [False, True])
def test_a_kernel_is_as_wide_as_pixels_are_on_the_ground(make_raster, latitude, wide):
    """Web Mercator's metres shrink towards the poles: noise is as smooth as GDAL makes it."""
    mercator = CRS.from_epsg(3857)
    corners = {
        crs: [axis[0] for axis in rasterio.warp.transform(WGS84, crs, [15], [latitude])]
        for crs in (UTM33, mercator)
    }
    noise = np.random.default_rng(0).normal(0, 9, (1, 90, 90)).astype(np.float32)
    for ours, theirs in ((UTM33, mercator), (mercator, UTM33)):
        transforms = [
            Affine(10, 0, corners[crs][0], 0, -10, corners[crs][1]) for crs in (ours, theirs)
        ]
        path = make_raster("a.tif", noise, crs=ours.to_string(), transform=transforms[0])
        grid = Grid(theirs, transforms[1], 30, 30)
        if wide:
            grid = Grid(theirs, transforms[1] @ Affine.translation(-4000, -4000), 8000, 8000)
        window = Window(col_off=4000 * wide, row_off=4000 * wide, width=30, height=30)
        found = read([path], grid, window)
        expected = np.full((1, 30, 30), np.nan, np.float32)
        rasterio.warp.reproject(
            noise,
            expected,
            src_crs=ours,
            src_transform=transforms[0],
            dst_crs=theirs,
            dst_transform=grid.window_grid(window).transform,
            dst_nodata=np.nan,
            resampling=RESAMPLINGS["bilinear"],
        )
        inside = found.valid & np.isfinite(expected[0])
        inside[:3] = inside[:, :3] = False
        assert inside.sum() > 100
        assert found.pixels[:, inside].std() == pytest.approx(expected[:, inside].std(), rel=0.03)


def test_a_kernel_is_that_of_where_a_large_source_meets_the_grid():
    world = Grid(WGS84, Affine(0.01, 0, -180, 0, -0.01, 90), 36_000, 18_000)
    for crs, zone, latitude in ((32631, 3, 60), (32633, 15, 0), (32660, 177, -70)):
        utm = CRS.from_epsg(crs)
        (x, *_), (y, *_) = rasterio.warp.transform(WGS84, utm, [zone], [latitude])
        shape = Affine(100, 0, x, 0, -100, y), 40, 40
        found = pixel_scales(world, Grid(utm, *shape))
        expected = 11.13 * np.cos(np.radians(latitude)), 11.13
        np.testing.assert_allclose(found, expected, rtol=0.02)


def test_the_first_scene_counts_and_the_next_fills_its_holes(make_raster):
    left = np.ones((48, 40), bool)
    left[:, 25:] = False
    first = make_raster("a.tif", np.full((1, 48, 40), 1, np.uint8), transform=SOURCE, valid=left)
    second = make_raster("b.tif", np.full((1, 48, 40), 2, np.uint8), transform=SOURCE)
    grid = Grid(UTM33, SOURCE, 40, 48)
    chip = read([first, second], grid)
    assert chip.valid.all()
    np.testing.assert_array_equal(chip.pixels[0], np.where(left, 1, 2))


def test_several_threads_leave_no_warning_and_the_filters_as_they_were(source):
    def work(_):
        for _ in range(10):
            read([source], TARGETS["shifted"])

    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert list(warnings.filters) == before


def test_far_away_nothing_is_valid(source):
    far = Grid(UTM33, Affine(10, 0, 100_000, 0, -10, 100_000), 8, 8)
    beyond = Grid(WGS84, Affine(0.1, 0, -100, 0, -0.1, -20), 8, 8)
    for grid in (far, beyond):
        assert not read([source], grid).valid.any()
        with open_scene(source) as scene:
            assert not meets(scene.grid, grid)


def test_what_lies_over_it_is_said_to_meet(source):
    with open_scene(source) as scene:
        assert all(meets(scene.grid, grid) for grid in TARGETS.values())


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("bands", {"bands": (Band(name="VV"), Band(name="HH"))}),
        ("units", {"bands": (Band(name="VV", unit="dB"), Band(name="VH"))}),
        ("scales", {"bands": (Band(name="VV", scale=0.1), Band(name="VH", scale=0.1))}),
        ("types", {"dtype": np.uint16}),
    ],
)
def test_scenes_of_different_kinds_are_refused_by_name(make_raster, what, words):
    bands = (Band(name="VV"), Band(name="VH"))
    first = make_raster("a.tif", np.ones((2, 4, 4), np.uint8), bands=bands)
    pixels = np.ones((2, 4, 4), words.get("dtype", np.uint8))
    other = make_raster("b.tif", pixels, bands=words.get("bands", bands))
    with pytest.raises(BandError, match=rf"b\.tif has other {what}.*a\.tif.*Give scenes of one"):
        read([first, other], TARGETS["shifted"])


def test_an_unknown_resampling_is_refused_with_those_known(source):
    with pytest.raises(SettingError, match="Choose one of nearest, bilinear, cubic, average"):
        read([source], TARGETS["shifted"], resampling="lanczos")

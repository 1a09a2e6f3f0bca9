"""Seam figures of files: made rasters with a known answer, refusals, and real imagery."""

import math
import re

import numpy as np
import pytest
import rasterio
from affine import Affine

from geotranslate.errors import BandError, GridError, SettingError
from geotranslate.raster import line_sums
from geotranslate.raster.domain import Band
from geotranslate.raster.line_sums import Lines
from geotranslate.raster.seams import look_for_seams, measure_mismatch, measure_seams


def noise(seed=0, bands=1, rows=200, cols=230):
    return np.random.default_rng(seed).normal(100, 10, (bands, rows, cols)).astype(np.float32)


def tiles(rows, cols, size, heights, offset=0):
    """A level of its own for each window; ``heights`` is (more rows, more cols than needed)."""
    row, col = ((np.arange(n) - offset) // size + 1 for n in (rows, cols))
    return heights[np.ix_(row, col)]


@pytest.mark.parametrize("offset", [0, 24])
def test_windows_with_a_level_of_their_own_are_found_on_their_lines_only(make_raster, offset):
    heights = np.random.default_rng(1).normal(0, 4, (6, 6))
    pixels = 0.3 * noise() + tiles(200, 230, 64, heights, offset).astype(np.float32)
    path = make_raster("tiles.tif", pixels)
    found = measure_seams(path, 64, offset)
    assert found.visible
    for name, figures in found.bands[0].directions():
        assert figures.step.chance < 1e-4, name
    assert not measure_seams(path, 64, (offset + 32) % 64).visible


def test_the_step_is_the_mean_jump_from_window_to_window(make_raster):
    # Up and down by 3 from window to window, so that each edge jumps by 3.
    board = 3.0 * np.indices((6, 6)).sum(axis=0) % 6
    pixels = tiles(256, 256, 64, board)[None].astype(np.float32) + 5
    band = measure_seams(make_raster("board.tif", pixels), 64).bands[0]
    for _, figures in band.directions():
        assert figures.step.on_lines == pytest.approx(3)
        assert figures.step.elsewhere == pytest.approx(0, abs=0.2)
        assert figures.gradient.on_lines == pytest.approx(3)
    assert band.std == pytest.approx(1.5)


def test_gradients_count_only_where_both_pixels_are_valid(make_raster):
    pixels = noise(7, bands=2)
    pixels[:, 60:110, 50:130] = 9999
    valid = np.ones(pixels.shape[1:], bool)
    valid[60:110, 50:130] = False
    valid[:, 64:66] = False
    masked = measure_seams(make_raster("masked.tif", pixels, valid=valid), 64)
    pixels[:, ~valid] = -9999
    nodata = measure_seams(make_raster("nodata.tif", pixels, nodata=-9999), 64)
    assert masked.bands == nodata.bands
    assert not masked.visible
    assert masked.bands[0].vertical.gradient.on_lines == pytest.approx(11.3, abs=1)


def test_slabs_of_any_height_give_the_same_figures(make_raster, monkeypatch):
    pixels = noise(8, bands=2, rows=150, cols=90)
    paths = make_raster("a.tif", pixels), make_raster("b.tif", pixels + noise(9, 2, 150, 90))
    found = []
    for height in (1000, 64, 7, 1):
        monkeypatch.setattr(line_sums, "SLAB_PIXELS", height * 90)
        monkeypatch.setattr(line_sums, "LEAST_ROWS", 1)
        bands = measure_seams(paths[0], 32, 5).bands
        numbers = [x for b in bands for _, f in b.directions() for x in _numbers(f)]
        mismatch = measure_mismatch(*paths, Lines(32, 5))
        numbers += [x for b in mismatch.bands for x in (b.mean, b.largest, b.std, b.vertical)]
        found.append([*numbers, mismatch.pixels])
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-9, nan_ok=True)


def _numbers(figures):
    return [*vars(figures.gradient).values(), *vars(figures.step).values(), figures.peak]


def test_values_are_physical(make_raster):
    pixels = np.round(noise(10)).astype(np.int16)
    plain = measure_seams(make_raster("plain.tif", pixels), 64).bands[0]
    band = Band(name="B04", unit="reflectance", scale=0.0001, offset=-0.1)
    scaled = measure_seams(make_raster("scaled.tif", pixels, bands=(band,)), 64).bands[0]
    assert scaled.band.unit == "reflectance"
    assert scaled.std == pytest.approx(plain.std / 10_000)
    assert scaled.vertical.step.on_lines == pytest.approx(plain.vertical.step.on_lines / 10_000)
    assert scaled.vertical.gradient.score == pytest.approx(plain.vertical.gradient.score)


def test_a_flat_raster_has_no_seams(make_raster):
    found = measure_seams(make_raster("flat.tif", np.full((1, 100, 100), 7, np.uint8)), 16)
    assert not found.visible
    assert found.bands[0].vertical.gradient.score == 0
    assert found.bands[0].vertical.peak == 1


def test_many_bands_are_not_called_visible_more_often_than_one(make_raster):
    found = [
        measure_seams(make_raster("bands.tif", noise(seed, 13, 100, 100)), 32) for seed in range(40)
    ]
    # Of 52 figures, some reach a chance of 0.001 in many a raster.
    assert sum(min(_chances(each)) <= 0.001 for each in found) >= 4
    assert sum(each.visible for each in found) <= 1
    for each in found:
        assert each.verdict.startswith("visible" if each.visible else "invisible")


def _chances(found):
    return [figures.chance for band in found.bands for _, figures in band.directions()]


def test_a_direction_that_no_line_crosses_has_no_figures(make_raster):
    found = measure_seams(make_raster("wide.tif", noise(rows=30, cols=300)), 64)
    assert found.bands[0].horizontal is None
    assert math.isfinite(found.bands[0].vertical.gradient.score)


@pytest.mark.parametrize(
    ("size", "offset", "mend"),
    [
        (3, 0, "Choose 4 px or more"),
        (64, 64, "Choose an offset from 0 to 63"),
        (64, -1, "Choose an offset from 0 to 63"),
        (230, 0, "below 230 px"),
    ],
)
def test_lines_that_cannot_be_measured_are_refused_with_the_mend(make_raster, size, offset, mend):
    path = make_raster("noise.tif", noise())
    with pytest.raises(SettingError, match=mend):
        measure_seams(path, size, offset)


def test_a_raster_without_data_at_the_lines_is_refused(make_raster):
    valid = np.zeros((200, 230), bool)
    valid[:20, :20] = True
    path = make_raster("corner.tif", noise(), valid=valid)
    with pytest.raises(GridError, match="Check its nodata value"):
        measure_seams(path, 64)


def test_a_mismatch_is_the_difference_over_the_standard_deviation(make_raster):
    other = noise(11, bands=2)
    pixels = other.copy()
    pixels[0] += 1
    pixels[1, 5, 5] -= 4
    valid = np.ones(pixels.shape[1:], bool)
    valid[100:, :40] = False
    pixels[:, ~valid] = 0
    found = measure_mismatch(
        make_raster("ours.tif", pixels, valid=valid), make_raster("other.tif", other)
    )
    spread = other[:, valid].astype(np.float64).std(axis=1)
    assert found.pixels == valid.sum()
    assert [band.largest for band in found.bands] == pytest.approx([1, 4], abs=1e-4)
    means = [1, 4 / valid.sum()]
    assert [band.mean for band in found.bands] == pytest.approx(means, abs=1e-6)
    assert found.share == pytest.approx(np.mean(means / spread), rel=1e-4)
    assert found.bands[0].vertical is None


def test_a_difference_from_a_flat_band_is_infinite_in_its_parts(make_raster):
    flat = make_raster("flat.tif", np.full((1, 40, 40), 7, np.float32))
    (band,) = measure_mismatch(make_raster("ours.tif", noise(0, 1, 40, 40)), flat).bands
    assert (band.share, band.largest_share) == (math.inf, math.inf)
    (band,) = measure_mismatch(flat, flat).bands
    assert (band.share, band.largest_share) == (0, 0)


def test_lines_may_have_an_offset_of_their_own_between_rows(make_raster):
    heights = np.random.default_rng(1).normal(0, 4, (9, 9))
    whole = 0.3 * noise(rows=260, cols=300) + tiles(260, 300, 64, heights).astype(np.float32)
    path = make_raster("part.tif", whole[:, 40:, 10:])
    found = look_for_seams(path, Lines(64, 54, row_offset=24))
    assert all(figures.step.chance < 1e-4 for _, figures in found.bands[0].directions())
    assert found.verdict == "visible on the lines of 64 px from row 24 and column 54 in band 1"
    other = look_for_seams(path, Lines(64, 24, row_offset=54))
    assert not other.visible


def test_the_gradient_ratio_compares_the_same_lines_and_pixels(make_raster):
    other = noise(12)
    pixels = other.copy()
    valid = np.ones(pixels.shape[1:], bool)
    valid[:, 150:] = False
    # Twice the jump over the only horizontal line that both have in full.
    pixels[0, 128:] += 2 * (other[0, 128] - other[0, 127]) - (other[0, 128] - other[0, 127])
    found = measure_mismatch(
        make_raster("ours.tif", pixels), make_raster("other.tif", other, valid=valid), Lines(128)
    )
    assert found.bands[0].horizontal == pytest.approx(2, rel=1e-4)
    jumps = [np.abs(np.diff(x[0, :, 127:129], axis=1)).mean() for x in (pixels, other)]
    assert found.bands[0].vertical == pytest.approx(jumps[0] / jumps[1], rel=1e-4)


def test_a_raster_equals_itself(make_raster):
    path = make_raster("same.tif", noise(13, bands=3))
    found = measure_mismatch(path, path, Lines(64))
    assert found.share == 0
    assert all((b.largest, b.vertical, b.horizontal) == (0, 1, 1) for b in found.bands)


@pytest.mark.parametrize(
    ("other", "error", "mend"),
    [
        ({"col": 3}, GridError, "gdalwarp"),
        ({"crs": "EPSG:32634"}, GridError, "gdalwarp"),
        ({"transform": Affine(20, 0, 500_000, 0, -20, 4_000_000)}, GridError, "gdalwarp"),
        ({"pixels": noise(rows=100)}, GridError, re.escape("230 x 100 px")),
        ({"pixels": noise(bands=2)}, BandError, "same bands"),
        ({"bands": (Band(name="VV", unit="dB"),)}, BandError, "Bring both to one unit"),
        ({"valid": np.zeros((200, 230), bool)}, GridError, "Check their nodata values"),
    ],
)
def test_rasters_that_cannot_be_compared_are_refused_with_the_mend(make_raster, other, error, mend):
    ours = make_raster("ours.tif", noise(), bands=(Band(name="VV", unit="power"),))
    theirs = make_raster("other.tif", **{"pixels": noise(), **other})
    with pytest.raises(error, match=mend):
        measure_mismatch(ours, theirs)


def test_lines_that_do_not_cross_two_rasters_are_refused(make_raster):
    path = make_raster("small.tif", noise(rows=50, cols=60))
    with pytest.raises(SettingError, match="below 60 px"):
        measure_mismatch(path, path, Lines(64))


@pytest.mark.real
@pytest.mark.parametrize("size", [256, 512, 1024])
def test_true_imagery_has_no_seams(real_data, size):
    path = real_data / "volkov-s1s2-1024" / "scene_3072" / "opt.tif"
    found = measure_seams(path, size)
    assert not found.visible
    assert not any(f.periodic for band in found.bands for _, f in band.directions())


@pytest.mark.real
@pytest.mark.parametrize("share", [0.01, 0.02])
def test_windows_a_little_brighter_or_darker_are_found_in_true_imagery(
    real_data, make_raster, share
):
    with rasterio.open(real_data / "volkov-s1s2-1024" / "scene_3072" / "opt.tif") as file:
        pixels = file.read(window=rasterio.windows.Window(0, 0, 2048, 2048))
    random = np.random.default_rng(14)
    gains = 1 + share * random.choice([-1, 1], (10, 10))
    spoilt = np.round(pixels * tiles(2048, 2048, 256, gains)).clip(0, 255).astype(np.uint8)
    assert not measure_seams(make_raster("true.tif", pixels), 256).visible
    assert measure_seams(make_raster("spoilt.tif", spoilt), 256).visible

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from geotranslate.raster.domain import Band
from geotranslate.raster.scene import open_scene
from geotranslate.raster.vrt import Source, build_vrt
from tests.reading_back import read

BANDS = (
    Band(name="B4 <red> & more", unit="reflectance", scale=1e-4, offset=-0.1, color="red"),
    Band(name="B8", color="nir"),
)


@pytest.fixture
def joined(make_raster, tmp_path):
    """Two halves of one raster beside each other, below an empty stripe, seen as one."""

    def join(pixels, *, valid=None, nodata=None, **words):
        shape = pixels.shape[1:]
        halves = np.s_[:, :7], np.s_[:, 7:]
        sources = []
        for index, half in enumerate(halves):
            part = (
                None if nodata is not None else (np.ones(shape, bool) if valid is None else valid)
            )
            path = make_raster(
                f"ä {index}.tif",
                pixels[:, *half],
                row=3,
                col=7 * index,
                valid=None if part is None else part[half],
                nodata=nodata,
            )
            cols = 7 if index == 0 else shape[1] - 7
            window = Window(col_off=7 * index, row_off=3, width=cols, height=shape[0])
            sources.append(Source(path, window))
        with open_scene(sources[0].path) as scene:
            whole = Window(col_off=0, row_off=-3, width=shape[1], height=shape[0] + 3)
            grid = scene.grid.window_grid(whole)
        text = build_vrt(
            sources, grid, bands=BANDS, dtype=pixels.dtype.name, nodata=nodata, **words
        )
        path = tmp_path / "joined.vrt"
        path.write_text(text, encoding="utf-8")
        return path, grid

    return join


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_pixels_of_every_type_come_through(joined, dtype):
    pixels = np.random.default_rng(0).uniform(0, 100, (2, 5, 16)).astype(dtype)
    path, grid = joined(pixels)
    scene, chip = read(path)
    assert scene.dtype == dtype
    assert scene.grid == grid
    np.testing.assert_array_equal(chip.pixels[:, 3:], pixels)
    assert chip.valid[3:].all()
    assert not chip.valid[:3].any()


def test_masks_of_the_sources_are_the_mask_of_the_whole(joined):
    valid = np.random.default_rng(0).random((5, 16)) < 0.5
    _, chip = read(joined(np.ones((2, 5, 16), np.uint8), valid=valid)[0])
    np.testing.assert_array_equal(chip.valid[3:], valid)


@pytest.mark.parametrize("nodata", [-9999.0, float("nan"), -3.4028234663852886e38])
def test_where_no_source_lies_there_is_nodata(joined, nodata):
    pixels = np.random.default_rng(0).uniform(0, 100, (2, 5, 16)).astype(np.float32)
    pixels[:, 2, 2:9] = nodata
    scene, chip = read(joined(pixels, nodata=nodata)[0])
    np.testing.assert_array_equal(scene.nodata, np.float32(nodata))
    np.testing.assert_array_equal(chip.pixels[:, 3:], pixels)
    np.testing.assert_array_equal(chip.pixels[:, :3], np.float32(nodata))
    assert not chip.valid[:3].any()
    assert not chip.valid[5, 2:9].any()
    assert chip.valid.sum() == 5 * 16 - 7


def test_names_units_scales_colours_and_tags_are_kept(joined):
    path, _ = joined(np.ones((2, 5, 16), np.uint16), tags={"NOTE": 'say "<hi>"'})
    scene, _ = read(path)
    assert scene.bands == BANDS
    with rasterio.open(path) as file:
        assert file.tags()["NOTE"] == 'say "<hi>"'


@pytest.mark.parametrize("geotiff", [False, True])
def test_of_a_known_geotiff_the_pixels_and_the_mask_are_read_and_nothing_else(
    make_raster, tmp_path, geotiff
):
    rng = np.random.default_rng(0)
    pixels, valid = rng.integers(1, 255, (2, 5, 16), np.uint8), rng.random((5, 16)) < 0.5
    source = make_raster("a.tif", pixels, valid=valid)
    with open_scene(source) as scene:
        sources = [Source(source, scene.grid.whole, geotiff)]
        text = build_vrt(sources, scene.grid, bands=scene.bands, dtype="uint8")
    (tmp_path / "joined.vrt").write_text(text)
    scene, chip = read(tmp_path / "joined.vrt")
    np.testing.assert_array_equal(chip.pixels[:, valid], pixels[:, valid])
    np.testing.assert_array_equal(chip.valid, valid)
    assert ("GEOREF_SOURCES" in text) == geotiff


def test_a_later_source_lies_over_an_earlier_one(make_raster, tmp_path):
    over, under = (
        make_raster(f"{value}.tif", np.full((1, 4, 4), value, np.uint8), nodata=0)
        for value in (2, 1)
    )
    with rasterio.open(over, "r+") as file:
        file.write(np.zeros((1, 2, 4), np.uint8), window=Window(0, 0, 4, 2))
    whole = Window(col_off=0, row_off=0, width=4, height=4)
    with open_scene(under) as scene:
        sources = [Source(under, whole), Source(over, whole)]
        text = build_vrt(sources, scene.grid, bands=scene.bands, dtype="uint8", nodata=0)
    (tmp_path / "joined.vrt").write_text(text)
    _, chip = read(tmp_path / "joined.vrt")
    np.testing.assert_array_equal(chip.pixels[0, :, 0], [1, 1, 2, 2])

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.env import get_gdal_config
from rasterio.windows import Window

from geotranslate.raster.reading import (
    bounded_cache,
    open_dataset,
    open_many,
    read_pixels,
    striped_bytes,
)


@pytest.mark.parametrize(
    ("how", "expected"),
    [({"tiled": True, "blockxsize": 16, "blockysize": 16}, 0), ({}, 2 * 4 * 100)],
)
def test_rows_have_to_stay_in_the_cache_where_blocks_are_whole_rows(make_raster, how, expected):
    path = make_raster("scene.tif", np.zeros((2, 40, 100), np.float32), **how)
    with open_dataset(path) as dataset:
        assert striped_bytes(dataset) == expected


def test_the_cache_is_bounded_in_bytes_and_by_the_usual_limit(monkeypatch):
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    with bounded_cache(32 * 2**20):
        assert get_gdal_config("GDAL_CACHEMAX") == 32 * 2**20
    with bounded_cache(10**12):
        assert get_gdal_config("GDAL_CACHEMAX") == 512 * 2**20


@pytest.mark.parametrize("limit", ["64", "512"])  # 512 is the usual one
def test_a_limit_that_the_user_has_set_stays(monkeypatch, limit):
    monkeypatch.setenv("GDAL_CACHEMAX", limit)
    found = []

    def look():
        before = get_gdal_config("GDAL_CACHEMAX")
        with bounded_cache(32 * 2**20):
            found.append(get_gdal_config("GDAL_CACHEMAX") == before)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [True]


def test_the_warning_filters_stay_as_they_were_when_threads_open_files(make_raster):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = make_raster("a.tif", np.ones((1, 4, 4), np.uint8), transform=Affine.identity())
    before = list(warnings.filters)

    def look(_):
        for _ in range(30):
            open_dataset(path).close()

    with ThreadPoolExecutor(8, initializer=open_many) as threads:
        list(threads.map(look, range(8)))
    assert warnings.filters == before


@pytest.mark.parametrize(
    ("types", "joint"),
    [
        (("uint8", "float32"), "float32"),
        (("int32", "float32"), "float64"),
        (("uint8", "int16", "uint16"), "int32"),
    ],
)
def test_bands_of_different_types_are_read_together(make_raster, stack_bands, types, joint):
    """As `gdalbuildvrt -separate` makes them; each band has its own value for nothing here."""
    random = np.random.default_rng(0)
    made, files, valid = [], {}, np.ones((9, 7), bool)
    for index, kind in enumerate(types):
        most = 1 if kind == "float32" else np.iinfo(kind).max
        pixels = random.uniform(0, most, (1, 9, 7)).astype(kind)
        pixels[0, index, index] = nodata = pixels[0, 8, 6]
        valid &= pixels[0] != nodata
        files[f"b{index}"] = make_raster(f"{index}.tif", pixels, nodata=float(nodata))
        made.append(pixels[0])
    with open_dataset(stack_bands("all.vrt", **files)) as dataset:
        window = Window(col_off=0, row_off=0, width=7, height=9)
        for part in (None, window):
            pixels, found = read_pixels(dataset, dataset.indexes, part)
            assert pixels.dtype == joint
            np.testing.assert_array_equal(found, valid)
            for band, expected in zip(pixels, made, strict=True):
                np.testing.assert_array_equal(band.astype(expected.dtype), expected)


def test_many_files_are_opened_without_a_look_at_their_folder(make_raster, monkeypatch):
    """A mask beside a file is found all the same; what the user says of folders counts."""
    path = make_raster("a.tif", np.ones((1, 4, 4), np.uint8))
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),
        rasterio.open(path, "r+") as file,
    ):
        file.write_mask(np.eye(4, dtype=bool))
    assert path.with_name("a.tif.msk").exists()

    def look():
        with open_dataset(path) as dataset:
            _, valid = read_pixels(dataset, [1])
        return get_gdal_config("GDAL_DISABLE_READDIR_ON_OPEN"), valid.sum()

    for said, found in ((None, "TRUE"), ("EMPTY_DIR", "EMPTY_DIR")):
        if said:
            monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", said)
        with ThreadPoolExecutor(1, initializer=open_many) as threads:
            listing, count = threads.submit(look).result()
        assert listing == found
        assert said or count == 4

import threading

import numpy as np
import pytest
from rasterio.env import get_gdal_config

from geotranslate.raster.reading import bounded_cache, open_dataset, striped_bytes


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

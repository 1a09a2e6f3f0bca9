import numpy as np
from rasterio.windows import Window

from geotranslate.raster.sampling import sample_pixels
from geotranslate.raster.scene import open_scene


def test_only_valid_pixels_of_the_part_are_sampled_and_all_of_a_small_one(make_raster):
    pixels = np.arange(300 * 300, dtype=np.float32).reshape(1, 300, 300)
    valid = np.zeros((300, 300), bool)
    valid[100:120, 250:280] = True
    with open_scene(make_raster("scene.tif", pixels, valid=valid)) as scene:
        found = sample_pixels(scene, Window(col_off=240, row_off=90, width=20, height=60))
    assert sorted(found.ravel()) == sorted(pixels[0, 100:120, 250:260].ravel())


def test_many_places_of_a_large_raster_are_sampled(make_raster):
    rows, cols = np.mgrid[:2048, :2048] // 256
    pixels = (rows * 8 + cols).astype(np.uint8)[None]
    whole = Window(col_off=0, row_off=0, width=2048, height=2048)
    with open_scene(make_raster("scene.tif", pixels, compress="deflate", tiled=True)) as scene:
        found = sample_pixels(scene, whole)
        assert (sample_pixels(scene, whole) == found).all()
    assert 90_000 < found.size < 110_000
    assert len(np.unique(found)) >= 40

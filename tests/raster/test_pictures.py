import numpy as np
from PIL import Image

from geotranslate.raster.domain import Band
from geotranslate.raster.pictures import Stretch, choose_stretch, display_bands, write_grid


def bands(*colors):
    return [Band(name=str(number), color=color) for number, color in enumerate(colors)]


def test_bands_are_shown_in_their_colours():
    assert display_bands(bands("blue", "green", "red", "undefined")) == (2, 1, 0)
    assert display_bands(bands("gray", "undefined", "undefined", "undefined")) == (0, 1, 2)
    assert display_bands(bands("gray", "undefined")) == (0,)
    assert display_bands(bands("undefined")) == (0,)


def test_a_stretch_leaves_out_extremes_and_invalid_pixels():
    pixels = np.linspace(0, 100, 10_000).reshape(1, 100, 100)
    valid = np.ones((100, 100), bool)
    valid[0] = False
    pixels[0, 0] = np.nan
    stretch = choose_stretch(bands("gray"), [(pixels, valid)])
    assert np.allclose(stretch.low, 2, atol=0.05)
    assert np.allclose(stretch.high, 99, atol=0.05)
    nothing = choose_stretch(bands("gray"), [(pixels, np.zeros((100, 100), bool))])
    assert (nothing.low, nothing.high) == ((0.0,), (1.0,))


def test_paint_goes_from_black_to_white_and_leaves_nothing_white():
    pixels = np.array([[[-20.0, -10.0, 0.0, np.nan, 50.0]]])
    valid = np.array([[True, True, True, False, True]])
    painted = Stretch((0,), (-20.0,), (0.0,)).paint(pixels, valid)
    assert painted.shape == (1, 5, 3)
    assert painted[0, :, 0].tolist() == [0, 128, 255, 255, 255]
    assert (painted == painted[..., :1]).all()
    flat = Stretch((0,), (5.0,), (5.0,)).paint(np.full((1, 1, 5), 5.0), valid)
    assert flat[0, 0].tolist() == [0, 0, 0]


def test_a_grid_holds_each_image_at_its_place(tmp_path):
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    row = [np.full((40, 60, 3), color, np.uint8) for color in colors]
    write_grid(tmp_path / "grid.png", ["A", "A to B", "B"], [row, row[::-1]])
    with Image.open(tmp_path / "grid.png") as picture:
        picture = np.asarray(picture.convert("RGB"))
    for color in colors:
        count = int((picture == color).all(axis=2).sum())
        assert count == 2 * (4 * 40) * (4 * 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.png"]

import pytest

from geotranslate import choices
from geotranslate.chips.layout import LAYOUTS, find_layout


def test_the_names_in_help_texts_are_those_of_the_layouts():
    assert tuple(LAYOUTS) == choices.LAYOUTS


@pytest.mark.parametrize(
    ("name", "train_a", "test_b"),
    [
        ("pix2pix", "images/000000007.tif", "test/images2/000000007.tif"),
        ("cyclegan", "A/images/000000007.tif", "test/B/images/000000007.tif"),
        ("train_a_b", "Images/train_a/000000007.tif", "test/Images/train_b/000000007.tif"),
    ],
)
def test_chips_have_nine_digits_and_test_chips_lie_apart(name, train_a, test_b):
    layout = LAYOUTS[name]
    assert layout.chip_file("a", "train", 7) == layout.chip_file("a", "val", 7) == train_a
    assert layout.chip_file("b", "test", 7) == test_b


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_found_when_both_of_its_folders_are_there(layout, tmp_path):
    (tmp_path / layout.a).mkdir(parents=True)
    assert find_layout(tmp_path) is None
    (tmp_path / layout.b).mkdir(parents=True)
    assert find_layout(tmp_path) == layout

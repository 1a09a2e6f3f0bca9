import pytest
from pydantic import ValidationError

from geotranslate import choices
from geotranslate.chips.config import TileConfig
from geotranslate.errors import SettingError
from geotranslate.raster.warp import RESAMPLINGS


def config(**settings):
    return TileConfig(**{"a": ["a.tif"], "b": ["b.tif"]} | settings)


def test_the_stride_is_half_of_the_size_where_it_is_not_given():
    assert config().stride == 128
    assert config(size=64).stride == 32
    assert config(size=1).stride == 1
    assert config(size=64, stride=10).stride == 10


def test_bands_and_shares_may_come_in_one_string():
    settings = config(bands_a="VV,VH", split="0.5, 0.25, 0.25")
    assert settings.bands_a == ("VV", "VH")
    assert settings.split == (0.5, 0.25, 0.25)


def test_the_names_for_the_help_are_those_of_the_code():
    assert tuple(RESAMPLINGS) == choices.RESAMPLINGS


def test_settings_go_through_json_unchanged():
    settings = config(nodata_a=float("nan"), limit=3)
    again = TileConfig.model_validate_json(settings.model_dump_json())
    assert str(again) == str(settings)


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        ({"size": 0}, "Choose 1 or more"),
        ({"size": 16, "stride": 17}, "Choose a stride from 1 to 16"),
        ({"size": 16, "stride": 0}, "Choose a stride from 1 to 16"),
        ({"min_valid": 0}, "Choose more than 0 and at most 1"),
        ({"min_valid": 1.01}, "Choose more than 0 and at most 1"),
        ({"aoi_touching": True}, "Name it with --aoi"),
        ({"limit": 0}, "Choose 1 or more"),
        ({"a": []}, "no scene is given with --a"),
        ({"split": "0.8,0.1"}, "such as 0.8,0.1,0.1"),
        ({"split": "0.8,0.1,0.2"}, "split is 0.8,0.1,0.2, .* 1 as their sum"),
        ({"split": (1.2, -0.1, -0.1)}, "such as 0.8,0.1,0.1"),
        ({"split": (0.0, 0.5, 0.5)}, "with some for train"),
        ({"split": "most,some,few"}, "such as 0.8,0.1,0.1"),
        ({"split": "nan,0.5,0.5"}, "such as 0.8,0.1,0.1"),
        ({"split": "0.5,nan,0.5"}, "such as 0.8,0.1,0.1"),
        ({"split": "inf,0,0"}, "such as 0.8,0.1,0.1"),
        ({"min_valid": float("nan")}, "Choose more than 0 and at most 1"),
        ({"split": 0.8}, "such as 0.8,0.1,0.1"),
    ],
)
def test_what_cannot_work_is_refused_with_the_mend(settings, mend):
    with pytest.raises(SettingError, match=mend):
        config(**settings)


@pytest.mark.parametrize("settings", [{"strides": 5}, {"size": "big"}, {"layout": "pix3pix"}])
def test_unknown_words_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        config(**settings)

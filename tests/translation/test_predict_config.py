"""Settings of a prediction: what cannot work whatever the model is refused."""

from pathlib import Path

import pytest

from geotranslate.errors import SettingError
from geotranslate.translation.predict_config import PredictConfig


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        ({"batch": 0}, "batch cannot be 0. Choose 1 or more"),
        ({"blend": "feather"}, "cannot be 'feather'. Choose 'crop', 'hann' or 'linear'"),
        ({"direction": "there"}, "Choose 'ab' or 'ba'"),
        ({"precision": "half"}, "Choose 'auto', 'float32' or 'bf16'"),
        ({"seams": "none"}, "Choose 'tile', 'scene' or 'dense'"),
        ({"nodata": "none"}, "nodata cannot be 'none'. Choose a number"),
        ({"bounds": (0, 0, 10)}, "bounds.3 is missing. Give it"),
        ({"bounds": (280, 10, 277, 20)}, "280,10,277,20 hold nothing.*left below right"),
        ({"bounds": (0, float("nan"), 1, 1)}, "with left below right and bottom below top"),
        ({"seam": "tile"}, "seam is no setting. Leave it out, or correct its spelling"),
        ({"seams": "tile", "statistics": "file.json"}, "Say --seams scene"),
        ({"seams": "dense", "statistics": "file.json"}, "or leave out --statistics"),
        ({"turns": 3}, "Choose 1, 2, 4 or 8"),
        ({"turns": 2, "seams": "dense"}, "Say --seams scene, or --turns 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_mend(settings, mend):
    with pytest.raises(SettingError, match=mend):
        PredictConfig(**settings)


def test_nan_is_nothing_to_name_as_nodata():
    assert PredictConfig(nodata=float("nan")) == PredictConfig()


def test_paths_and_bands_may_be_spelled_as_text():
    texts = PredictConfig(statistics="file.json", bands="VV,VH", aoi="/vsizip/a.zip/a.gpkg")
    assert texts.statistics == Path("file.json")
    assert texts.bands == "VV,VH"
    assert texts.aoi == "/vsizip/a.zip/a.gpkg"
    things = PredictConfig(statistics=Path("file.json"), bands=["VV", 2], aoi=Path("a.gpkg"))
    assert things.bands == ("VV", 2)
    assert things.aoi == Path("a.gpkg")

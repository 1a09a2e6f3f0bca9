"""Settings of an evaluation: what contradicts itself is refused."""

from pathlib import Path

import pytest

from geotranslate.errors import SettingError
from geotranslate.raster.line_sums import Lines
from geotranslate.translation.evaluate_config import ABOUT_TRUTH, EvaluateConfig


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        ({"fit_source": "x.tif"}, "Give --fit-truth and --source too"),
        ({"source": "x.tif", "fit_truth": "x.tif"}, "Give --fit-source too"),
    ],
)
def test_half_a_fit_is_refused_with_the_mend(settings, mend):
    with pytest.raises(SettingError, match=mend):
        EvaluateConfig(predicted="p.tif", truth="t.tif", **settings)


def test_nothing_to_measure_with_is_refused_with_the_mend():
    with pytest.raises(SettingError, match="Give the true image after it, --seams SIZE"):
        EvaluateConfig(predicted="p.tif")


@pytest.mark.parametrize("name", ABOUT_TRUTH)
def test_words_about_a_truth_that_is_not_given_are_refused_with_the_mend(name):
    value = {"nodata": 0, "value_range": (0, 1)}.get(name, "x")
    flag = "--range" if name == "value_range" else "--" + name.replace("_", "-")
    with pytest.raises(SettingError, match=rf"{flag} says how .*or leave {flag} out"):
        EvaluateConfig(predicted="p.tif", seams="64", **{name: value})


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("256", Lines(256)),
        ("256,128", Lines(256, 128)),
        (" 64 , 1 ", Lines(64, 1)),
        (256, Lines(256)),
        ((256, 0), Lines(256)),
        ([256, 128], Lines(256, 128)),
        (Lines(8, 2), Lines(8, 2)),
    ],
)
def test_seams_are_a_size_and_perhaps_an_offset(text, lines):
    assert EvaluateConfig(predicted="p.tif", seams=text).seams == lines


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("wide", "such as 256"),
        ("256,", "such as 256"),
        ("256,1,2", "such as 256"),
        ("-256", "such as 256"),
        ("25.6", "such as 256"),
        ("", "such as 256"),
        ("3", "Choose 4 px or more"),
        ("256,256", "Choose an offset from 0 to 255"),
        (-256, "such as 256"),
        (25.6, "such as 256"),
        ((256, 1, 2), "such as 256"),
        ((256, 256), "Choose an offset from 0 to 255"),
    ],
)
def test_seams_that_are_no_lines_are_refused_with_the_mend(text, mend):
    with pytest.raises(SettingError, match=mend):
        EvaluateConfig(predicted="p.tif", seams=text)


def test_paths_may_be_paths():
    config = EvaluateConfig(predicted=Path("p.tif"), truth=Path("t.tif"))
    assert (config.predicted, config.truth) == ("p.tif", "t.tif")

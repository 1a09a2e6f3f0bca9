"""What `--check-seams` says of scenes small, odd and empty, and of networks with a wide stride."""

import json
import math

import numpy as np
import pytest
import torch

from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.raster.domain import Band, Domain
from geotranslate.translation.bundle import save_bundle
from geotranslate.translation.seam_check import SeamCheck
from tests.translation.predicting import steps_of

SAR = Domain(
    bands=(Band(name="VV", unit="dB"),),
    dtype="float32",
    nodata=-999.0,
    resolution_m=(10.0, 10.0),
    low=(-25.0,),
    high=(5.0,),
)
GRAY = Domain(
    bands=(Band(name="gray", color="gray"),),
    dtype="float32",
    resolution_m=(10.0, 10.0),
    low=(0.0,),
    high=(255.0,),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Bundles with random weights, by the words of their generator."""
    folder, made = tmp_path_factory.mktemp("models"), {}

    def make(**words):
        spec = GeneratorSpec(width=4, **words)
        key = spec.model_dump_json()
        if key not in made:
            torch.manual_seed(0)
            generator = build_generator(spec, 1, 1).eval()
            for weight in generator.parameters():
                if weight.ndim > 1:
                    torch.nn.init.xavier_normal_(weight)
            made[key] = folder / str(len(made))
            save_bundle(
                made[key],
                {"g_ab": generator},
                model="pix2pix",
                updates=1,
                generator=spec,
                domain_a=SAR,
                domain_b=GRAY,
                chip_size=32,
            )
        return made[key]

    return make


@pytest.fixture
def check(tmp_path, make_raster):
    """Translate a made-up scene and check it; ``valid`` says where it holds data."""

    def run(model, rows, cols, valid=None, **words):
        pixels = np.random.default_rng(0).normal(-12, 3, (1, rows, cols)).astype(np.float32)
        if valid is not None:
            pixels[:, ~valid] = SAR.nodata
        scene = make_raster("scene.tif", pixels, bands=SAR.bands, nodata=SAR.nodata)
        words = {"size": 64, "check_seams": True} | words
        output = tmp_path / "out.tif"
        *_, step = steps_of(model, [scene], output, **words)
        assert step.state == "checked"
        assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "out.tif"}
        return step.seams

    return run


def test_a_scene_a_little_larger_than_a_core_has_too_little_to_score(model, check):
    found = check(model(blocks=1), 40, 70)
    assert (found.score, found.visible) == (None, False)
    assert found.mismatch < 1e-4
    assert found.pixels > 1000


@pytest.mark.parametrize(
    "part",
    [
        (0, 100, 50, 250),  # lines cross it along one axis only
        (30, 90, 130, 250),
        (40, 100, 30, 100),  # one line along each axis
        (3, 201, 5, 197),
    ],
)
def test_any_part_is_checked_on_the_lines_of_its_scene(model, check, part):
    left, right, top, bottom = part
    bounds = (
        500_000 + 10 * left,
        4_000_000 - 10 * bottom,
        500_000 + 10 * right,
        4_000_000 - 10 * top,
    )
    found = check(model(blocks=1), 260, 280, bounds=bounds)
    assert found.mismatch < 1e-4
    assert found.score is not None
    assert not found.visible


def test_few_valid_pixels_are_no_error(model, check):
    valid = np.zeros((150, 150), bool)
    valid[62:66, 62:67] = True
    found = check(model(blocks=1), 150, 150, valid)
    assert (found.score, found.pixels) == (None, 20)


def test_valid_pixels_inside_one_core_leave_nothing_to_check(model, check):
    valid = np.zeros((600, 600), bool)
    valid[5:20, 5:20] = True
    found = check(model(blocks=1), 600, 600, valid)
    assert (found.mismatch, found.largest, found.score, found.pixels) == (None, None, None, 0)
    assert not found.visible


@pytest.mark.parametrize("words", [{"size": 32}, {"size": 64, "blend": "hann"}])
def test_a_core_as_wide_as_the_stride_is_checked_against_another_cut(model, check, words):
    unet = model(kind="unet", depth=5, norm="instance")
    found = check(unet, 160, 160, seams="tile", **words)
    assert found.mismatch > 0.01


def test_figures_without_a_finite_value_are_null():
    # A band that is flat in one cut and not in the other.
    found = SeamCheck(math.inf, math.inf, None, None, visible=False, pixels=9).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "mismatch": None,
        "largest": None,
        "score": None,
        "chance": None,
        "visible": False,
        "pixels": 9,
    }

import numpy as np
import pytest
import torch
from torch import nn

from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.networks.context import PLAIN
from geotranslate.raster.domain import Band, Domain
from geotranslate.raster.scene import open_scene
from geotranslate.translation.bundle import Translator
from geotranslate.translation.engine import Engine

CPU = torch.device("cpu")
A = Domain(
    bands=(Band(name="one"), Band(name="two")),
    dtype="uint16",
    resolution_m=(10.0, 10.0),
    low=(0.0, 1000.0),
    high=(100.0, 3000.0),
)
B = A.model_copy(update={"low": (-1.0, 0.0), "high": (1.0, 10.0), "dtype": "float32"})


class Watched(nn.Module):
    """Gives back what it gets, and keeps it."""

    def forward(self, x, context=PLAIN):
        self.x, self.context = x, context
        return x


@pytest.fixture
def scene(make_raster):
    with open_scene(make_raster("scene.tif", np.ones((2, 4, 4), np.uint16))) as scene:
        yield scene


def pixels(*values):
    """One image of one row."""
    return np.array(values, np.uint16)[None, :, None, :]


def test_values_go_through_both_normalizations(scene):
    translate = Engine(Translator(Watched(), A, B), CPU, "float32").on(scene)
    stored = pixels([0, 50, 100, 7], [1000, 2000, 3000, 7])
    found = translate(stored, np.array([[[True, True, True, False]]]))
    assert found.dtype == np.float32
    assert np.abs(found[0, :, 0, :3] - [[-1, 0, 1], [0, 5, 10]]).max() < 1e-6


def test_invalid_pixels_are_zero_to_the_network_and_named_to_it(scene):
    generator = Watched()
    translate = Engine(Translator(generator, A, B), CPU, "float32").on(scene)
    valid = np.array([[[True, False, True, False]]])
    translate(pixels([0, 0, 100, 100], [1000, 9, 3000, 9]), valid)
    assert generator.x[0, :, 0].tolist() == [[-1, 0, 1, 0], [-1, 0, 1, 0]]
    assert generator.context.valid[0, 0].tolist() == [[1, 0, 1, 0]]


def test_where_all_is_valid_the_network_goes_the_faster_way(scene):
    generator = Watched()
    translate = Engine(Translator(generator, A, B), CPU, "float32").on(scene)
    translate(pixels([0] * 4, [1000] * 4), np.ones((1, 1, 4), bool))
    assert generator.context is PLAIN


def test_bf16_is_near_float32_and_not_the_same(scene):
    torch.manual_seed(0)
    stored = np.random.default_rng(0).integers(0, 3000, (1, 2, 32, 32)).astype(np.uint16)
    valid = np.ones((1, 32, 32), bool)
    generator = build_generator(GeneratorSpec(kind="resnet", width=4, blocks=1), 2, 2).eval()
    results = [
        Engine(Translator(generator, A, B), CPU, arithmetic).on(scene)(stored, valid)
        for arithmetic in ("float32", "bf16")
    ]
    assert 0 < np.abs(results[0] - results[1]).max() < 0.05

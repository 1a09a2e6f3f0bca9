import numpy as np
import pytest
import torch
from rasterio.crs import CRS
from torch import nn

from geotranslate.errors import SettingError
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.networks.context import PLAIN
from geotranslate.raster.domain import Band, Domain, to_dtype
from geotranslate.raster.grid import Grid
from geotranslate.raster.scene import Chip
from geotranslate.translation.engine import Engine, good_batch
from tests.conftest import NORTH_UP

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


def engine(generator, source=A, target=B, arithmetic="float32"):
    return Engine(generator, source, target, bands=source.bands, device=CPU, arithmetic=arithmetic)


def chip(pixels, valid=None):
    valid = np.ones(pixels.shape[1:], bool) if valid is None else valid
    return Chip(pixels, valid, Grid(CRS.from_epsg(32633), NORTH_UP, *pixels.shape[:0:-1]))


def row(*values):
    """One image of one row."""
    return np.array(values, np.uint16)[:, None, :]


WHOLE = slice(None), slice(None)


def translate(engine, *chips, place=WHOLE, rounded=False):
    return engine.translate(chips, [(0, 0)] * len(chips), [place] * len(chips), rounded=rounded)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "float32", "float64"])
def test_values_go_through_both_normalizations(dtype):
    domain = A.model_copy(update={"low": (0.0, 10.0), "high": (100.0, 30.0)})
    stored = row([0, 50, 100, 7], [10, 20, 30, 7]).astype(dtype)
    valid = np.array([[True, True, True, False]])
    (found,) = translate(engine(Watched(), domain), chip(stored, valid))
    assert found.dtype == np.float32
    assert np.abs(found[:, 0, :3] - [[-1, 0, 1], [0, 5, 10]]).max() < 1e-6


def test_values_that_no_float32_holds_are_the_ends_of_the_range():
    stored = np.array([[-1e300, -1e39, 50, 1e300]])[:, None].repeat(2, axis=0)
    (found,) = translate(engine(Watched()), chip(stored))
    assert found[0, 0].tolist() == [-1, -1, 0, 1]


def test_invalid_pixels_are_zero_to_the_network_and_named_to_it():
    generator = Watched()
    valid = np.array([[True, False, True, False]])
    translate(engine(generator), chip(row([0, 0, 100, 100], [1000, 9, 3000, 9]), valid))
    assert generator.x[0, :, 0].tolist() == [[-1, 0, 1, 0], [-1, 0, 1, 0]]
    assert generator.context.valid[0, 0].tolist() == [[1, 0, 1, 0]]


def test_where_all_is_valid_the_network_goes_the_faster_way():
    generator = Watched()
    translate(engine(generator), chip(row([0] * 4, [1000] * 4)))
    assert generator.context.valid is None


def test_what_is_wanted_is_cut_out_of_each_window():
    chips = [chip(row([0, 50, 100, 7], [1000] * 4)), chip(row([7, 100, 50, 0], [1000] * 4))]
    found = translate(engine(Watched()), *chips, place=(slice(None), slice(1, 3)))
    assert [values.shape for values in found] == [(2, 1, 2)] * 2
    assert found[0][0, 0].tolist() == found[1][0, 0, ::-1].tolist() == [0, 1]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_rounding_on_the_device_is_that_of_files(dtype):
    limits = np.iinfo(dtype)
    random = np.random.default_rng(0)
    values = random.uniform(limits.min - 9, limits.max + 9, 4000).astype(np.float32)
    values[:200] = np.arange(200) + 0.5
    domain = B.model_copy(update={"low": (-1.0,), "high": (1.0,), "bands": B.bands[:1]})
    target = domain.model_copy(update={"dtype": dtype})

    class Given(nn.Module):
        def forward(self, x, context=PLAIN):
            return torch.from_numpy(values)[None, None, None]

    (found,) = translate(engine(Given(), domain, target), chip(row([0] * 4000)), rounded=True)
    assert found.dtype == dtype
    assert (found[0, 0] == to_dtype(values, np.dtype(dtype))).all()


def test_bf16_is_near_float32_and_not_the_same():
    torch.manual_seed(0)
    stored = np.random.default_rng(0).integers(0, 3000, (2, 32, 32)).astype(np.uint16)
    generator = build_generator(GeneratorSpec(kind="resnet", width=4, blocks=1), 2, 2).eval()
    results = [
        translate(engine(generator, arithmetic=arithmetic), chip(stored))[0]
        for arithmetic in ("float32", "bf16")
    ]
    assert 0 < np.abs(results[0] - results[1]).max() < 0.05


@pytest.mark.parametrize(
    ("device", "size", "batch"),
    [("cpu", 256, 1), ("cuda", 256, 16), ("cuda", 1024, 1), ("cuda", 2048, 1)],
)
def test_a_batch_is_one_window_on_a_cpu_and_a_megapixel_elsewhere(device, size, batch):
    assert good_batch(size, torch.device(device)) == batch


def test_beside_a_gpu_a_cpu_is_a_way_out_too():
    there = engine(Watched())
    there.device = torch.device("cuda")
    said = r"2 windows of 9 x 8 px .* memory of cuda\. Say less, or --device cpu and --overwrite\.$"
    with pytest.raises(SettingError, match=said), there.within_memory(2, (8, 9), "less"):
        raise torch.OutOfMemoryError
    with pytest.raises(RuntimeError, match="shapes"), there.within_memory(2, (8, 9), "less"):
        raise RuntimeError("shapes do not match")

"""Memory stays bounded: many times the pixels take hardly more of it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.windows import Window

from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid
from geotranslate.raster.vrt import Source, build_vrt
from tests.conftest import NORTH_UP

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak is read from /proc"
)

# Smaller scenes do not fill all that is in flight between reading and writing.
SMALL, LARGE = 2048, 4096
# A scene is 50 MB larger as float32, a mosaic 75 MB; blending it would need twice that.
ALLOWED_MB = 40

MOSAIC = """
from geotranslate.raster.mosaic import mosaic_rasters
for _ in mosaic_rasters([folder / "left.tif", folder / "right.tif"], folder / "out.tif"):
    pass
"""

TILE = """
from geotranslate.chips.config import TileConfig
from geotranslate.chips.plan import plan_tiles
from geotranslate.chips.tile import tile_scenes
words = {"size": 512, "stride": 512, "split": "1,0,0", "min_valid": 0.3}
a, b = str(folder / "left.tif"), str(folder / "turned.tif")
for _ in tile_scenes(plan_tiles(TileConfig(a=[a], b=[b], **words)), folder / "chips"):
    pass
"""

# An identity generator, 2 bands float32 in, 3 bands uint8 out, of a scene that repeats an image.
PREDICT = """
from types import SimpleNamespace
from torch import nn
from geotranslate.raster.domain import Band, Domain
from geotranslate.translation import predict
from geotranslate.translation.bundle import Translator
from geotranslate.translation.predict_config import PredictConfig

class Identity(nn.Module):
    stride, halo = 4, 84

    def forward(self, x, context):
        return x[:, [0, 1, 0]]

def domain(count, dtype):
    bands = tuple(Band(name=f"band {{number}}") for number in range(count))
    words = {{"resolution_m": (10.0, 10.0), "low": (0.0,) * count, "high": (255.0,) * count}}
    return Domain(bands=bands, dtype=dtype, **words)

translator = Translator(Identity(), domain(2, "float32"), domain(3, "uint8"))
predict.load_bundle = lambda path: SimpleNamespace(
    identity="", record=None, translator=lambda direction: translator
)
config = PredictConfig(blend={blend!r}, device="cpu", precision="float32")
for _ in predict.predict_scenes("", [folder / "scene.vrt"], folder / "out.tif", config):
    pass
"""

# The grid of --seams dense, read from the files of its rows and put into the network.
DENSE = """
from types import SimpleNamespace
import torch
from affine import Affine
from rasterio.crs import CRS
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.networks.scene_statistics import StatisticsGrid
from geotranslate.raster.domain import Band, Domain
from geotranslate.raster.grid import Grid
from geotranslate.translation import cells
from geotranslate.translation.bundle import Translator
from geotranslate.translation.network import Network

words = {{"dtype": "uint8", "resolution_m": (10.0, 10.0), "low": (0.0,), "high": (255.0,)}}
gray = Domain(bands=(Band(name="gray"),), **words)
spec = GeneratorSpec(kind="resnet", width=64, blocks=9, norm="instance")
generator = build_generator(spec, 1, 1).eval().requires_grad_(False)
network = Network(Translator(generator, gray, gray), "", torch.device("cpu"), "float32", "dense")
grid = Grid(CRS.from_epsg(32633), Affine.scale(10, -10), {side}, {side})
plan = SimpleNamespace(scene_grid=grid, bands=gray.bands)
for row in range(cells.cell_rows(plan)):
    measured = StatisticsGrid(generator, (cells.LEAST_CELL, {side}), cells.LEAST_CELL)
    for positions in measured.positions.values():
        positions.fill_(9)
    cells._file(folder, row).write_bytes(cells.save(cells._tensors(measured)))
engine = network.engine(plan, folder)
"""

# Not getrusage: on Linux a process inherits the peak of the one that started it.
PEAK = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
{work}
status = Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""


def peak_mb(work, folder, **environment):
    """Peak resident memory of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK.format(work=work), str(folder)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout) / 1e3


@pytest.fixture
def scenes(tmp_path):
    """Folders of a small and a large scene, with one beside it and one on another grid."""
    row = np.linspace(1, 100, LARGE, dtype="f4")
    for side in (SMALL, LARGE):
        folder = tmp_path / str(side)
        folder.mkdir()
        for name, crs, place in (
            ("left.tif", "EPSG:32633", NORTH_UP),
            ("right.tif", "EPSG:32633", NORTH_UP @ NORTH_UP.translation(side // 2, 0)),
            ("turned.tif", "EPSG:32633", NORTH_UP @ NORTH_UP.translation(-0.5, -0.5)),
        ):
            words = {"driver": "GTiff", "count": 1, "dtype": "float32", "tiled": True}
            words |= {"height": side, "width": side, "crs": crs, "transform": place}
            # What is never written is stored nowhere and read as nodata.
            words |= {"nodata": 0, "sparse_ok": True, "compress": "deflate"}
            with rasterio.open(folder / name, "w", **words) as file:
                for start in range(0, side, 512):
                    strip = Window(col_off=0, row_off=start, width=side, height=256)
                    file.write(np.broadcast_to(row[:side], (1, 256, side)), window=strip)
    return tmp_path


@pytest.mark.parametrize("work", [MOSAIC, TILE], ids=["mosaic", "tile"])
def test_memory_does_not_grow_with_the_scenes(scenes, work):
    peaks = [peak_mb(work, scenes / str(side), GDAL_CACHEMAX="16") for side in (SMALL, LARGE)]
    assert peaks[1] - peaks[0] < ALLOWED_MB


def repeat(image, folder, side):
    """A scene of two float32 bands in which an image of 1,024 px and more is repeated."""
    folder.mkdir(parents=True)
    with rasterio.open(image) as file:
        step = file.width
    bands = [Band(name=f"band {number}") for number in range(2)]
    sources = [
        Source(image, Window(col_off=col, row_off=row, width=step, height=step))
        for row in range(0, side, step)
        for col in range(0, side, step)
    ]
    grid = Grid(CRS.from_epsg(32633), NORTH_UP, side, side)
    (folder / "scene.vrt").write_text(
        build_vrt(sources, grid, bands=bands, dtype="float32", nodata=-1)
    )
    return folder


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1000, 1000), dtype=np.uint8)
    words = {"driver": "GTiff", "width": 1000, "height": 1000, "count": 2, "dtype": "uint8"}
    words |= {"crs": "EPSG:32633", "transform": NORTH_UP, "tiled": True}
    with rasterio.open(tmp_path / "image.tif", "w", **words) as file:
        file.write(pixels)
    return tmp_path / "image.tif"


CORE, WINDOW = 1024, 1024 + 2 * 84

TOGETHER_MB = 100
"""Peaks of one and the same work differ by so much: by what its threads happen to hold at once."""


def promised_mb(side, blend):
    """What docs/predict.md says of PREDICT, whose network is three channels wide."""
    windows = 3 * WINDOW**2 * (2 * 4 + 4 * 2)
    layers = 17 * 3 * WINDOW**2
    blended = (CORE * side + 24 * CORE**2) * 3 * 4 if blend == "hann" else 0
    return 750 + 64 + (windows + layers + blended) / 1e6


@pytest.mark.parametrize("blend", ["crop", "hann"])
def test_predicting_takes_as_much_memory_as_the_docs_say(tmp_path, image, blend):
    for side in (2000, 6000):
        peak = peak_mb(PREDICT.format(blend=blend), repeat(image, tmp_path / str(side), side))
        assert peak < promised_mb(side, blend) + TOGETHER_MB


def test_the_grid_of_dense_takes_as_much_memory_as_the_docs_say(tmp_path):
    """42 kB a cell, two times: 64 x 64 cells against one."""
    peaks = []
    for side in (256, 64 * 256):
        folder = tmp_path / str(side)
        folder.mkdir()
        peaks.append(peak_mb(DENSE.format(side=side), folder))
    around = 60  # the rest of two processes
    assert abs(peaks[1] - peaks[0] - 2 * 64 * 64 * 0.042) < around


@pytest.mark.slow
@pytest.mark.real
def test_a_scene_of_30000_px_takes_less_than_2_gb(tmp_path, real_data, image):
    """And hardly more than one of 6,000 px. Here the image is real."""
    real = real_data / "volkov-s1s2-1024" / "scene_3072" / "opt.tif"
    small, large = (
        peak_mb(PREDICT.format(blend="crop"), repeat(real, tmp_path / str(side), side))
        for side in (6000, 30_000)
    )
    assert large < 2000
    assert large < 1.3 * small


@pytest.mark.slow
def test_a_blended_scene_of_30000_px_takes_as_much_memory_as_the_docs_say(tmp_path, image):
    peak = peak_mb(PREDICT.format(blend="hann"), repeat(image, tmp_path / "wide", 30_000))
    assert peak < promised_mb(30_000, "hann") + TOGETHER_MB


def test_gdals_cache_is_bounded_for_who_imports_the_library_too(scenes):
    code = (
        "import sys\n"
        "from geotranslate.raster.scene import open_scene\n"
        "open_scene(sys.argv[1]).close()\n"
        "from rasterio.env import get_gdal_config\n"
        "print(get_gdal_config('GDAL_CACHEMAX'))\n"
    )
    words = [sys.executable, "-c", code, str(scenes / str(SMALL) / "left.tif")]
    environment = {name: value for name, value in os.environ.items() if name != "GDAL_CACHEMAX"}
    for given, expected in (({}, 512), ({"GDAL_CACHEMAX": "64"}, 64)):
        done = subprocess.run(
            words, env=environment | given, capture_output=True, text=True, check=True
        )
        assert int(done.stdout) == expected * 2**20

"""Memory stays bounded: sixteen times the pixels take hardly more of it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from tests.conftest import NORTH_UP

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak is read from /proc"
)

SMALL, LARGE = 1024, 4096
# The large scene alone is 67 MB as float32, the large mosaic 100 MB; blending it needs twice that.
ALLOWED_MB = 60

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

# Not getrusage: on Linux a process inherits the peak of the one that started it.
PEAK = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
{work}
status = Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""


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
    peaks = []
    for side in (SMALL, LARGE):
        done = subprocess.run(
            [sys.executable, "-c", PEAK.format(work=work), str(scenes / str(side))],
            env=os.environ | {"GDAL_CACHEMAX": "16"},
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout) / 1e3)
    assert peaks[1] - peaks[0] < ALLOWED_MB


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

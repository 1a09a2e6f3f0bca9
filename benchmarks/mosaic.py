"""How fast mosaics are made, beside what else a user of rasterio would do.

Two mosaics of tiles of 256 px, uint8, 3 bands: tiles that touch, and tiles that overlap by a
quarter. The same output format for all: a COG with DEFLATE in blocks of 512 px. Overviews, which
take GDAL the same time whoever asks for them, are timed apart.

    python benchmarks/mosaic.py            # 3,600 tiles, three rounds: some minutes
    python benchmarks/mosaic.py --quick    # 400 tiles, one round: under a minute

Methods take turns, each in a process of its own; figures are medians over the rounds, ratios are of
the same run. ``rasterio.merge`` works on chunks of 64 MB, each of which opens every tile; in
``--quick`` they are as much smaller as the mosaic is, so that there are as many.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.merge import merge
from rasterio.windows import Window

from geotranslate.raster import writing
from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid
from geotranslate.raster.mosaic import mosaic_rasters
from geotranslate.raster.vrt import Source, build_vrt

SIZE = 256
FULL, QUICK = 60, 20  # tiles along a side
CASES = {"touching": 256, "overlapping": 192}  # pixels from one tile to the next
CREATION = {
    "driver": "COG",
    "COMPRESS": "DEFLATE",
    "PREDICTOR": "YES",
    "BLOCKSIZE": "512",
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": "ALL_CPUS",
}
MERGE_MB = 64

# What the project promises: method, against which other, at most so much of its time.
BARS = {
    "touching": [("geotranslate", "rasterio.merge", 1 / 3), ("geotranslate", "vrt", 1.5)],
    "overlapping": [("geotranslate", "rasterio.merge", 1 / 2)],
}
MOST_MB = 1000

Method = Callable[[list[Path], Path, int], None]


def make_tiles(folder: Path, side: int, stride: int) -> None:
    """Tiles of one smooth and noisy scene, so that overlaps agree and compression has work."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 6, (3, 1024, 1024))
    for row in range(side):
        for col in range(side):
            y = np.arange(SIZE)[:, None] + row * stride
            x = np.arange(SIZE) + col * stride
            waves = 120 + 60 * np.sin(y / 210) * np.cos(x / 170)
            pixels = (waves + noise[:, y % 1024, x % 1024]).clip(1, 255).astype(np.uint8)
            with rasterio.open(
                folder / f"{row:03d}_{col:03d}.tif",
                "w",
                driver="GTiff",
                crs="EPSG:32633",
                transform=Affine(10, 0, 5e5 + 10 * stride * col, 0, -10, 4e6 - 10 * stride * row),
                width=SIZE,
                height=SIZE,
                count=3,
                dtype="uint8",
                compress="deflate",
                blockysize=SIZE,
            ) as file:
                file.write(pixels)


def with_geotranslate(tiles: list[Path], output: Path, side: int) -> None:
    for _ in mosaic_rasters([tiles[0].parent], output, blend="feather"):
        pass


def with_merge(tiles: list[Path], output: Path, side: int) -> None:
    plain = output.with_name("plain.tif")
    words = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512}
    limit = max(1, round(MERGE_MB * (side / FULL) ** 2))
    merge(tiles, method="first", dst_path=plain, dst_kwds=words, mem_limit=limit)
    rasterio.shutil.copy(plain, output, **CREATION, OVERVIEWS="NONE")
    plain.unlink()


def with_vrt(tiles: list[Path], output: Path, side: int) -> None:
    """What an expert writes by hand where tiles touch: a VRT, and one copy of it."""
    sources = [
        Source(tile, Window(col_off=col * SIZE, row_off=row * SIZE, width=SIZE, height=SIZE))
        for tile, (row, col) in zip(tiles, np.ndindex(side, side), strict=True)
    ]
    with rasterio.open(tiles[0]) as first:
        grid = Grid(first.crs, first.transform, side * SIZE, side * SIZE)
    bands = [Band(name=name) for name in "abc"]
    vrt = output.with_name("hand.vrt")
    root = ElementTree.fromstring(build_vrt(sources, grid, bands=bands, dtype="uint8"))
    # Tiles that are valid everywhere need no mask.
    root.remove(root.find("MaskBand"))
    vrt.write_text(ElementTree.tostring(root, encoding="unicode"))
    rasterio.shutil.copy(vrt, output, **CREATION, OVERVIEWS="NONE")
    vrt.unlink()


METHODS: dict[str, Method] = {
    "geotranslate": with_geotranslate,
    "rasterio.merge": with_merge,
    "vrt": with_vrt,
}
USED = {"touching": list(METHODS), "overlapping": ["geotranslate", "rasterio.merge"]}


def measure(name: str, tiles: Path, side: int) -> dict[str, float]:
    """Run one method in this process: seconds without overviews, and its peak memory."""
    copy = rasterio.shutil.copy
    writing.rasterio.shutil.copy = partial(_without_overviews, copy)
    with tempfile.TemporaryDirectory(dir=tiles.parent) as folder:
        paths = sorted(tiles.iterdir())
        output = Path(folder) / "out.tif"
        start = time.perf_counter()
        METHODS[name](paths, output, side)
        seconds = time.perf_counter() - start
        peak = _peak_mb()
        start = time.perf_counter()
        copy(output, Path(folder) / "with.tif", **CREATION, OVERVIEW_RESAMPLING="AVERAGE")
        overviews = time.perf_counter() - start
        with rasterio.open(output) as file:
            checksum = [file.checksum(band) for band in file.indexes]
    return {"seconds": seconds, "peak_mb": peak, "copy": overviews, "checksum": checksum[0]}


def _without_overviews(copy: Callable[..., None], *args: Any, **words: Any) -> None:
    copy(*args, **words | {"OVERVIEWS": "NONE"})


def _peak_mb() -> float:
    # Not getrusage: on Linux a process inherits the peak of the one that started it.
    status = Path("/proc/self/status")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1000 if status.exists() else 0


def run_case(case: str, folder: Path, side: int, rounds: int) -> dict[str, dict[str, float]]:
    tiles = folder / case
    make_tiles(tiles, side, CASES[case])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in USED[case]}
    for _ in range(rounds):
        for name in USED[case]:
            command = [sys.executable, __file__, "--method", name, str(tiles), str(side)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append(json.loads(done.stdout))
    if case == "touching":
        assert len({each[0]["checksum"] for each in found.values()}) == 1, "outputs differ"
    shutil.rmtree(tiles)
    return {
        name: {key: statistics.median(each[key] for each in runs) for key in runs[0]}
        for name, runs in found.items()
    }


def tell(case: str, side: int, found: dict[str, dict[str, float]]) -> None:
    ours = found["geotranslate"]["seconds"]
    print(f"\n{side * side:,} tiles of {SIZE} px, {case} ({CASES[case]} px apart)\n")
    print("| method | seconds | times ours | peak memory, MB |")
    print("|---|---|---|---|")
    for name, each in found.items():
        print(
            f"| {name} | {each['seconds']:.1f} | {each['seconds'] / ours:.2f} "
            f"| {each['peak_mb']:.0f} |"
        )
    print(f"\nA copy of the result with overviews takes {found['geotranslate']['copy']:.1f} s.")
    for name, other, bar in BARS[case]:
        ratio = found[name]["seconds"] / found[other]["seconds"]
        told = "kept" if ratio <= bar else "MISSED"
        print(f"{name} takes {ratio:.2f} of the time of {other}; bar {bar:.2f}: {told}.")
    peak = found["geotranslate"]["peak_mb"]
    print(f"Peak memory {peak:.0f} MB; bar {MOST_MB}: {'kept' if peak < MOST_MB else 'MISSED'}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="400 tiles, one round")
    parser.add_argument("--rounds", type=int, default=3, help="of which figures are medians")
    parser.add_argument("--folder", type=Path, help="where tiles are made (needs 1 GB)")
    parser.add_argument("--method", nargs=3, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.method:
        name, tiles, side = words.method
        print(json.dumps(measure(name, Path(tiles), int(side))))
        return
    side, rounds = (QUICK, 1) if words.quick else (FULL, words.rounds)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"GDAL {rasterio.__gdal_version__}, rasterio {rasterio.__version__}, "
        f"{datetime.now(UTC):%Y-%m-%d}"
    )
    with tempfile.TemporaryDirectory(dir=words.folder) as folder:
        for case in CASES:
            tell(case, side, run_case(case, Path(folder), side, rounds))


if __name__ == "__main__":
    main()

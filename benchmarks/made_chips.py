"""A folder of made-up chips for benchmarks: as many pairs as asked for, as stored by `tile`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio


def make_chips(
    folder: Path, *, side: int, count: int = 8, bands: int = 3, dtype: str = "uint8"
) -> Path:
    """Write ``count`` pairs of ``side`` px below ``folder``; gives the folder of chips."""
    random = np.random.default_rng(0)
    for number in range(count):
        for name in ("images", "images2"):
            level = random.normal(0, 1, (bands, side, side)).cumsum(1).cumsum(2)
            span = (level - level.min()) / np.ptp(level)
            pixels = (span * np.iinfo(dtype).max).astype(dtype)
            path = folder / "chips" / name / f"{number:09d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=bands,
                height=side,
                width=side,
                dtype=dtype,
                compress="deflate",
                crs="EPSG:32633",
                transform=rasterio.Affine(10, 0, 500_000 + 10 * side * number, 0, -10, 4_000_000),
            ) as file:
                file.write(pixels)
    return folder / "chips"

"""Writes the golden copies of ArcGIS's files, one folder a layout, beside this script.

Run it when the files shall change, and read the difference before you commit it:

    python tests/golden/write_arcgis.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

from affine import Affine
from rasterio.crs import CRS

from geotranslate.chips.arcgis import write_metadata
from geotranslate.chips.index import ChipRecord
from geotranslate.chips.layout import LAYOUTS, Layout
from geotranslate.raster.domain import Band, Domain
from geotranslate.raster.grid import Grid
from geotranslate.raster.statistics import BandStatistics

SAR = Domain(
    bands=(Band(name="VV", unit="dB"), Band(name="VH", unit="dB")),
    dtype="float32",
    resolution_m=(10.0, 10.0),
    low=(-25.0, -32.0),
    high=(5.0, -2.0),
)
RGB = Domain(
    bands=tuple(Band(name=f"B0{n}", color=c) for n, c in ((4, "red"), (3, "green"), (2, "blue"))),
    dtype="uint8",
    resolution_m=(10.0, 10.0),
    low=(0.0, 0.0, 0.0),
    high=(255.0, 255.0, 255.0),
)
SPLITS = ("train", "train", "val", "test")


def records(layout: Layout) -> list[ChipRecord]:
    """Four chips of each domain; the last is for testing and has the greatest values."""
    return [
        ChipRecord(
            domain=domain,
            file=layout.chip_file(domain, split, number),
            split=split,
            scenes=(f"{domain}_{number % 2}.tif",),
            window=(128 * number, 0, 256, 256),
            grid=Grid(
                CRS.from_epsg(32633),
                Affine(10, 0, 500_000 + 1280 * number, 0, -10, 4_000_000),
                256,
                256,
            ),
            valid_share=1.0,
            statistics=tuple(
                BandStatistics(
                    count=65536,
                    min=float(lowest + number),
                    max=float(lowest + number + 20),
                    mean=float(lowest + number + 10 + band),
                    m2=65536.0 * 25,
                )
                for band in range(bands)
            ),
        )
        for number, split in enumerate(SPLITS)
        for domain, bands, lowest in (("a", 2, -25), ("b", 3, 10))
    ]


def write_layouts(folder: Path) -> None:
    """Write the files of every layout below a folder."""
    for name, layout in LAYOUTS.items():
        chips = records(layout)
        for chip in chips:
            (folder / name / chip.file).parent.mkdir(parents=True, exist_ok=True)
        write_metadata(folder / name, layout, chips, SAR, RGB)


if __name__ == "__main__":
    golden = Path(__file__).parent / "arcgis"
    shutil.rmtree(golden, ignore_errors=True)
    write_layouts(golden)

"""The index of a chip folder: one row a chip, each domain as one raster, and what was done.

* ``chips.gpkg``: a :class:`ChipRecord` per row, its footprint in longitude and latitude.
* ``A.gti.gpkg``, ``B.gti.gpkg``: all chips of a domain as one raster, through GDAL's GTI driver.
* ``tile.json``: the :class:`TileRecord`; where it is, the folder is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyogrio
from affine import Affine
from pydantic import BaseModel, ValidationError
from rasterio.crs import CRS

from geotranslate.errors import ChipsError
from geotranslate.raster.domain import Domain
from geotranslate.raster.grid import Grid
from geotranslate.raster.output import write_text
from geotranslate.raster.statistics import EMPTY, BandStatistics
from geotranslate.raster.vectors import outlines, write_geopackage
from geotranslate.raster.vrt import build_gti

CHIPS_NAME = "chips.gpkg"
MOSAIC_NAMES = {"a": "A.gti.gpkg", "b": "B.gti.gpkg"}
TILE_NAME = "tile.json"
PARTS_NAME = TILE_NAME + ".parts"
"""Folder that is there while chips are being cut, and is left by a job that was interrupted."""

LAYER = "chips"
FIGURES = tuple(field.name for field in fields(BandStatistics))


@dataclass(frozen=True)
class ChipRecord:
    """One chip's row in the index.

    Attributes:
        domain: "a" or "b".
        file: relative to the chip folder, with forward slashes.
        split: "train", "val" or "test".
        scenes: what it was cut from.
        window: (col_off, row_off, width, height) on the grid it was cut from, which for a pair is
            that of A's scene; width and height are those of ``grid``.
        grid: where the chip lies.
        valid_share: of its pixels, from 0 to 1; for a pair where both hold data.
        statistics: of each band over the valid pixels, as stored.
    """

    domain: str
    file: str
    split: str
    scenes: tuple[str, ...]
    window: tuple[int, int, int, int]
    grid: Grid
    valid_share: float
    statistics: tuple[BandStatistics, ...]


class TileRecord(BaseModel, frozen=True, extra="forbid"):
    """What made a chip folder, and what came of it."""

    version: str
    """Of geotranslate."""
    layout: str
    """A name of :data:`geotranslate.chips.layout.LAYOUTS`."""
    paired: bool
    """Chips of A and B with one name show one place."""
    settings: dict[str, Any]
    """As resolved, as JSON values."""
    domain_a: Domain
    domain_b: Domain
    counts: dict[str, dict[str, int]]
    """Chips by domain ("a", "b") and split."""
    dropped: dict[str, int]
    """Windows that became no chip, by the reason."""


def write_index(folder: Path, records: Sequence[ChipRecord], domains: Mapping[str, Domain]) -> None:
    """Write ``chips.gpkg`` and, for each domain that has chips, its GTI index.

    The same records give the same bytes.

    Args:
        folder: the chip folder; the chips' files lie in it already.
        records: in the order the rows shall have.
        domains: what the chips' pixels mean, by "a" and "b".

    Raises:
        OutputError: the folder cannot be written.
    """
    rows = [_row(record) for record in records]
    footprints = outlines([record.grid for record in records])
    write_geopackage(folder / CHIPS_NAME, gpd.GeoDataFrame(rows, geometry=footprints), LAYER)
    for domain, name in MOSAIC_NAMES.items():
        chips = [record for record in records if record.domain == domain]
        (folder / name).unlink(missing_ok=True)
        if chips:
            first, kind = chips[0].grid, domains[domain]
            # GDAL looks for relative locations beside the index, so the folder can be moved.
            locations = {"location": [record.file for record in chips]}
            places = outlines([record.grid for record in chips], first.crs)
            table = gpd.GeoDataFrame(locations, geometry=places)
            x, y = first.resolution
            size = {"RESX": repr(x), "RESY": repr(y)}
            # The first chip may have no mask where others have one.
            gti = build_gti(kind.bands, kind.dtype, kind.nodata, masked=True)
            write_geopackage(folder / name, table, LAYER, size, gti)


def read_index(folder: Path) -> list[ChipRecord]:
    """The records that :func:`write_index` was given, in their order.

    Raises:
        ChipsError: the index is missing or damaged.
    """
    with _reading(folder / CHIPS_NAME) as path:
        table = pyogrio.read_dataframe(path, layer=LAYER, read_geometry=False)
        return [_record(row) for row in table.to_dict("records")]


def read_footprints(folder: Path) -> gpd.GeoDataFrame:
    """The ``domain`` and ``split`` of each chip, and its outline in longitude and latitude.

    The outline is missing where a grid has no place on Earth.

    Raises:
        ChipsError: the index is missing or damaged.
    """
    with _reading(folder / CHIPS_NAME) as path:
        return pyogrio.read_dataframe(path, layer=LAYER, columns=["domain", "split"])


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    """Say it in a sentence when an index cannot be read."""
    try:
        yield path
    except (RuntimeError, KeyError, ValueError) as error:
        raise ChipsError(
            f"the index {path} cannot be read ({error}), so nobody knows where its chips lie. "
            "Run the same `geotranslate tile` command again with --overwrite."
        ) from error


def write_tile_record(folder: Path, record: TileRecord) -> None:
    """Declare a chip folder complete.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_text(folder / TILE_NAME, record.model_dump_json(indent=1) + "\n")


def read_tile_record(folder: Path) -> TileRecord:
    """What made a chip folder.

    Raises:
        ChipsError: the record is missing, damaged, or of another version.
    """
    path = folder / TILE_NAME
    try:
        return TileRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ChipsError(
            f"{path} cannot be read as the record of a chip folder ({error}), so its bands and "
            "settings are unknown. Run the same `geotranslate tile` command again with --overwrite."
        ) from error


def _row(record: ChipRecord) -> dict[str, Any]:
    """The columns of a chip; ``count_1`` to ``m2_1`` belong to its first band."""
    col_off, row_off, width, height = record.window
    row = {
        "domain": record.domain,
        "file": record.file,
        "split": record.split,
        "scenes": json.dumps(record.scenes),
        "col_off": col_off,
        "row_off": row_off,
        "width": width,
        "height": height,
        "crs": record.grid.crs.to_string(),
        "transform": json.dumps(list(record.grid.transform)[:6]),
        "valid_share": record.valid_share,
        "bands": len(record.statistics),
    }
    for number, band in enumerate(record.statistics, start=1):
        row |= {f"{name}_{number}": float(getattr(band, name)) for name in FIGURES}
    return row


def _record(row: dict[str, Any]) -> ChipRecord:
    window = (row["col_off"], row["row_off"], row["width"], row["height"])
    return ChipRecord(
        domain=row["domain"],
        file=row["file"],
        split=row["split"],
        scenes=tuple(json.loads(row["scenes"])),
        window=window,
        grid=Grid(
            CRS.from_string(row["crs"]),
            Affine(*json.loads(row["transform"])),
            row["width"],
            row["height"],
        ),
        valid_share=row["valid_share"],
        statistics=tuple(_statistics(row, number + 1) for number in range(row["bands"])),
    )


def _statistics(row: dict[str, Any], number: int) -> BandStatistics:
    count, *figures = (row[f"{name}_{number}"] for name in FIGURES)
    return BandStatistics(int(count), *figures) if count else EMPTY

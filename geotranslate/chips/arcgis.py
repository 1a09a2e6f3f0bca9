"""The files beside the chips by which ArcGIS knows what they are.

Written from what ArcGIS reads, so that `arcgis.learn.prepare_data` and ArcGIS Pro's training tool
take a chip folder as if ArcGIS had exported it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from geotranslate.chips.index import ChipRecord
from geotranslate.chips.layout import Layout, root_of
from geotranslate.raster.domain import Domain
from geotranslate.raster.grid import Grid
from geotranslate.raster.output import explained, write_text
from geotranslate.raster.statistics import BandStatistics, merge_statistics

MODEL_DEFINITION = "esri_model_definition.emd"
ACCUMULATED = "esri_accumulated_stats.json"
MAP = "map.txt"
SUMMARY = "stats.txt"
NORMALIZATION_CACHE = "esri_normalization_stats*.json"

# arcgis 2.4.0 and older fail without this key, whatever it holds.
WELL_KNOWN_KEY = "WellKnownBandNames (FYI, these band names can be used in ExtractBands)"
WELL_KNOWN_NAMES = [
    "Red",
    "Green",
    "Blue",
    "Infrared",
    "CoastalBlue",
    "Yellow",
    "RedEdge",
    "ShortWaveInfrared",
    "NearInfrared",
    "NearInfrared_1",
    "NearInfrared_2",
    "MidInfrared",
    "MidInfrared_1",
    "MidInfrared_2",
    "Thermal",
    "Thermal_1",
    "Thermal_2",
    "Panchromatic",
    "PseudoRed",
    "PseudoGreen",
    "PseudoBlue",
]


@dataclass(frozen=True)
class Side:
    """The chips of one domain below one root.

    Attributes:
        folder: of the chips, relative to the root, with forward slashes.
        domain: what the chips show.
        records: of the chips, at least one.
    """

    folder: str
    domain: Domain
    records: Sequence[ChipRecord]

    @property
    def size(self) -> tuple[int, int]:
        """(rows, cols) of each chip."""
        return self.records[0].grid.shape

    @cached_property
    def statistics(self) -> tuple[BandStatistics, ...]:
        """Of each band over the valid pixels of all chips."""
        return merge_statistics(record.statistics for record in self.records)


def write_metadata(
    folder: Path,
    layout: Layout,
    records: Sequence[ChipRecord],
    domain_a: Domain,
    domain_b: Domain,
) -> None:
    """Write ArcGIS's files for the chips of training and validation, and for the test chips apart.

    The figures are those of the chips below the same root, in stored units over valid pixels:
    ArcGIS scales with them. A paired layout gets its files in the root, an unpaired one in each
    domain's folder. Figures that ArcGIS worked out from earlier chips are removed.

    Args:
        folder: the chip folder.
        layout: how the chips lie in it.
        records: of all chips.
        domain_a: what the chips of A show.
        domain_b: what the chips of B show.

    Raises:
        OutputError: the folder cannot be written.
    """
    for root in ("", root_of("test")):
        sides = [
            Side(
                layout.folder(name),
                domain,
                [r for r in records if r.domain == name and root_of(r.split) == root],
            )
            for name, domain in (("a", domain_a), ("b", domain_b))
        ]
        _forget_normalization(folder / root, layout)
        sides = [side for side in sides if side.records]
        if not layout.paired:
            for side in sides:
                below = PurePosixPath(side.folder)
                inner = replace(side, folder=below.name)
                _write_root(folder / root / below.parent, "CycleGAN", [inner])
        elif sides:
            _write_root(folder / root, "Export_Tiles", sides)


def world_file(grid: Grid) -> str:
    """The text of a ``.tfw``: six lines that place the centre of the upper left pixel."""
    t = grid.transform
    x, y = t @ (0.5, 0.5)
    return "".join(f"{float(number)!r}\n" for number in (t.a, t.d, t.b, t.e, x, y))


def _write_root(root: Path, mode: str, sides: Sequence[Side]) -> None:
    """The four files of one root; the first side is ArcGIS's main raster."""
    write_text(root / MODEL_DEFINITION, _as_json(_model_definition(mode, sides)))
    write_text(root / ACCUMULATED, _as_json(_accumulated(mode, sides[0])))
    write_text(root / MAP, _map(sides))
    write_text(root / SUMMARY, _summary(sides))


def _model_definition(mode: str, sides: Sequence[Side]) -> dict[str, Any]:
    main = sides[0]
    rows, cols = main.size
    smallest, largest = _cell_sizes(main.records)
    all_statistics = {
        key: _tile_statistics(side)
        for key, side in zip(("AllTilesStats", "AllTilesStats2"), sides, strict=False)
    }
    return {
        "MetaDataMode": mode,
        "ImageSpaceUsed": "MAP_SPACE",
        "ImageHeight": rows,
        "ImageWidth": cols,
        "Classes": [],
        "IsMultidimensional": False,
        "ExtractBands": list(range(len(main.domain.bands))),
        "InputRastersProps": {
            "RasterCount": len({scene for record in main.records for scene in record.scenes}),
            "SensorName": "",
            "BandNames": _band_names(main.domain),
        },
        **all_statistics,
        "MinCellSize": smallest,
        "MaxCellSize": largest,
        WELL_KNOWN_KEY: WELL_KNOWN_NAMES,
    }


def _tile_statistics(side: Side) -> list[dict[str, Any]]:
    return [
        {
            "BandName": name,
            "Min": band.min if band.count else 0.0,
            "Max": band.max if band.count else 0.0,
            "Mean": band.mean,
            "StdDev": band.std,
        }
        for name, band in zip(_band_names(side.domain), side.statistics, strict=True)
    ]


def _accumulated(mode: str, side: Side) -> dict[str, Any]:
    rows, cols = side.size
    smallest, _ = _cell_sizes(side.records)
    return {
        "Version": 1,
        "NumBands": len(side.domain.bands),
        "TileSizeX": cols,
        "TileSizeY": rows,
        "NumClasses": 0,
        "NumTiles": len(side.records),
        "MetaDataMode": mode,
        "Classes": [],
        "BandStatsState": [
            {
                "Min": band.min if band.count else 0.0,
                "Max": band.max if band.count else 0.0,
                "M1": band.mean,
                "M2": band.m2,
                "Num": band.count,
            }
            for band in side.statistics
        ],
        "MinCellSize": {"x": smallest["x"], "y": smallest["y"]},
    }


def _map(sides: Sequence[Side]) -> str:
    """A line per chip, with the paths as ArcGIS on Windows writes them."""
    names = [PurePosixPath(record.file).name for record in sides[0].records]
    return "".join(
        "".join(f"{side.folder}/{name}  ".replace("/", "\\") for side in sides)[:-1] + "\n"
        for name in names
    )


def _summary(sides: Sequence[Side]) -> str:
    """A table for people; no program reads it."""
    lines = []
    for side in sides:
        rows, cols = side.size
        count = len(side.domain.bands)
        lines += [
            f"{side.folder} = {len(side.records)} *{count}*{rows}*{cols}",
            f"{'band':<20}{'min':>16}{'max':>16}{'mean':>16}{'std':>16}",
            *(
                f"{row['BandName']:<20}{row['Min']:>16.6g}{row['Max']:>16.6g}"
                f"{row['Mean']:>16.6g}{row['StdDev']:>16.6g}"
                for row in _tile_statistics(side)
            ),
            "",
        ]
    return "\n".join(lines)


def _band_names(domain: Domain) -> list[str]:
    """The bands' names; arcgis.learn knows an RGB image only by these three, in lower case."""
    colors = [band.color for band in domain.bands]
    return colors if colors == ["red", "green", "blue"] else domain.names


def _cell_sizes(records: Sequence[ChipRecord]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The smallest and the largest pixel, each in the units of its own CRS."""
    grids = sorted((record.grid for record in records), key=lambda grid: grid.resolution_m)
    return _cell_size(grids[0]), _cell_size(grids[-1])


def _cell_size(grid: Grid) -> dict[str, Any]:
    x, y = grid.resolution
    code = grid.crs.to_epsg()
    reference = {"wkid": code, "latestWkid": code} if code else {"wkt": grid.crs.to_wkt()}
    return {"x": x, "y": y, "spatialReference": reference}


def _forget_normalization(root: Path, layout: Layout) -> None:
    chips = [root / layout.a, root / layout.b]
    for place in {root, *chips, *(folder.parent for folder in chips)}:
        for file in place.glob(NORMALIZATION_CACHE):
            with explained(file):
                file.unlink()


def _as_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"

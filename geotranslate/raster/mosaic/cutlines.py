"""Cutlines and footprints: which polygon belongs to which scene."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import geopandas as gpd
import pyogrio

from geotranslate.errors import SettingError, TakenError
from geotranslate.raster.area import Area, area_of, read_polygons
from geotranslate.raster.grid import Grid
from geotranslate.raster.mosaic.plan import MosaicPlan
from geotranslate.raster.mosaic.virtual import write_once
from geotranslate.raster.vectors import outlines, write_geopackage

# The column of a footprint's raster; any other column of a cutline's file may name it as well.
RASTER_COLUMN = "raster"

WHAT = "the cutline"

# The layer of footprints, and its metadata by which a file shows that nobody has edited it.
FOOTPRINTS, DIGEST_NAME = "footprints", "GEOTRANSLATE_DIGEST"

# Edges of large scenes are bent in longitude and latitude; cut there, they must not lose pixels.
EDGE_PARTS = 32


def read_cutlines(path: str | Path, grids: Mapping[str, Grid]) -> dict[str, Area]:
    """The polygons that belong to each scene, by the scene's path.

    A column of the file names the scenes, by path, file name, or file name without its suffix:
    whichever column names most of them, and of several such the one whose names most often mean
    a single scene. Several polygons of one scene count together.

    Args:
        path: a vector file in any CRS.
        grids: of the scenes, by path.

    Raises:
        SettingError: the file cannot be read, holds no polygons, names no scene or not all, names
            several at once, or a scene's polygons hold none of its pixels' centres.
    """
    table = read_polygons(path, WHAT)
    columns = [table[name].astype(str) for name in table.columns if name != table.geometry.name]
    find = _finder(list(grids))
    found = [[find(name) for name in column] for column in columns]
    best = max(range(len(columns)), key=lambda index: _naming(found[index]), default=None)
    if best is None or not any(found[best]):
        raise SettingError(
            f"no column of the cutline {path} names the rasters to be joined, such as "
            f"{next(iter(grids))}, so nobody knows which polygon cuts which. Add a column of file "
            "names, or say --aoi for one area that cuts all."
        )
    rows: dict[str, list[int]] = {raster: [] for raster in grids}
    for row, (name, rasters) in enumerate(zip(columns[best], found[best], strict=True)):
        if len(rasters) > 1:
            raise SettingError(
                f"the cutline {path} has a polygon of {name}, which is what {len(rasters)} of the "
                f"rasters to be joined are called ({rasters[0]}, {rasters[1]}"
                f"{', ...' if len(rasters) > 2 else ''}), so nobody knows which it cuts. Name it "
                "by its path."
            )
        for raster in rasters:
            rows[raster].append(row)
    missing = [raster for raster, its_rows in rows.items() if not its_rows]
    if missing:
        raise SettingError(
            f"the cutline {path} has no polygon for {len(missing)} of {len(grids)} rasters, such "
            f"as {missing[0]}, which would vanish from the mosaic. Draw it, or leave the raster "
            "out."
        )
    cuts = {}
    for raster, its_rows in rows.items():
        grid = grids[raster]
        area = area_of(table.geometry.iloc[its_rows], path, grid.crs, grid.bounds, WHAT)
        if not area.holds_pixel(grid):
            raise SettingError(
                f"the polygon of {raster} in the cutline {path} holds none of the centres of that "
                "raster's pixels, so nothing of it would be left. Move or widen the polygon, or "
                "leave the raster out."
            )
        cuts[raster] = area
    return cuts


def _naming(found: Sequence[Sequence[str]]) -> tuple[int, int]:
    """How many rows of a column name scenes, and how many of them a single one."""
    return sum(map(bool, found)), sum(len(rasters) == 1 for rasters in found)


def _finder(rasters: Sequence[str]) -> Callable[[str], list[str]]:
    """What finds the raster at a path, or all those with a file name, also without its suffix."""
    places = {str(Path(raster).resolve()): raster for raster in rasters}
    places |= {raster: raster for raster in rasters}
    called: defaultdict[str, list[str]] = defaultdict(list)
    for raster in rasters:
        for name in {Path(raster).name, Path(raster).stem}:
            called[name].append(raster)

    def find(name: str) -> list[str]:
        place = places.get(name)
        return called.get(name, []) if place is None else [place]

    return find


def write_footprints(path: Path, plan: MosaicPlan, *, overwrite: bool = False) -> bool:
    """Write the outlines of the scenes of a plan as a GeoPackage in longitude and latitude.

    Its column ``raster`` has their absolute paths, so that, edited, it serves as a cutline from any
    folder.

    Args:
        path: the file to be.
        plan: whose scenes are drawn.
        overwrite: replace what is there, also if somebody has edited it.

    Returns:
        Whether anything was written; not when the same file was there already.

    Raises:
        OutputError: the file cannot be written, or one that was edited, or another, has its name.
    """
    rows = {
        RASTER_COLUMN: [
            str(Path(piece.path).resolve()) if piece.is_file else piece.path
            for piece in plan.pieces
        ],
        "resampled": [piece.resampled for piece in plan.pieces],
    }
    places = outlines([piece.grid for piece in plan.pieces], parts=EDGE_PARTS)
    table = gpd.GeoDataFrame(rows, geometry=places)
    metadata = {DIGEST_NAME: _digest(table)}

    def write(part: Path) -> None:
        write_geopackage(part, table, FOOTPRINTS, metadata)

    try:
        return write_once(path, write, overwrite)
    except TakenError:
        if not _is_as_written(path):
            raise
        return write_once(path, write, overwrite=True)


def _is_as_written(footprints: Path) -> bool:
    """Whether footprints are as they were written, so that nothing is lost with them."""
    try:
        said = pyogrio.read_info(footprints, layer=FOOTPRINTS)["layer_metadata"] or {}
        table = gpd.read_file(footprints, layer=FOOTPRINTS)
    except (RuntimeError, ValueError):  # the families of pyogrio's errors
        return False
    return RASTER_COLUMN in table and said.get(DIGEST_NAME) == _digest(table)


def _digest(table: gpd.GeoDataFrame) -> str:
    """Changes with any outline and name."""
    rows = zip(table[RASTER_COLUMN], table.geometry.to_wkb(hex=True), strict=True)
    return hashlib.sha256(repr(list(rows)).encode()).hexdigest()

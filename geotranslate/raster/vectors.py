"""Vector files of ours: outlines of grids, and GeoPackages with the same bytes each time."""

from __future__ import annotations

import glob
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geotranslate.raster.grid import Grid
from geotranslate.raster.output import explained, settle

LONGITUDE_LATITUDE = "EPSG:4326"


def outlines(grids: Sequence[Grid], crs: CRS | None = None, *, parts: int = 1) -> gpd.GeoSeries:
    """The outlines of grids in one CRS, by default longitude and latitude.

    In degrees, what crosses 180 is cut there in two.

    Args:
        grids: in any CRSs.
        crs: of the outlines.
        parts: straight lines that stand for an edge, which is bent in another CRS.
    """
    target = crs.to_string() if crs else LONGITUDE_LATITUDE
    places = np.array([grid.crs.to_string() for grid in grids], dtype=object)
    boxes = np.array([_box(grid, parts) for grid in grids], dtype=object)
    for place in dict.fromkeys(places):
        boxes[places == place] = _transformed(boxes[places == place], place, target)
    outlined = gpd.GeoSeries(boxes, crs=target)
    if outlined.crs.is_geographic:
        outlined = gpd.GeoSeries([_cut_at_180(shape) for shape in outlined], crs=target)
    return outlined


def write_geopackage(
    path: Path,
    table: gpd.GeoDataFrame,
    layer: str,
    layer_metadata: Mapping[str, str] | None = None,
    gti: str | None = None,
) -> None:
    """Write a GeoPackage of one layer that has its name only when it is complete.

    Args:
        path: the file to be.
        table: its rows.
        layer: its layer's name.
        layer_metadata: of the layer; some, where ``gti`` is given.
        gti: from :func:`~geotranslate.raster.vrt.build_gti`, for a tile index.

    Raises:
        OutputError: the folder cannot be written.
    """
    # GDAL knows a GeoPackage, and a GTI index, by how its name ends.
    part = path.with_name(f".part.{path.name}")
    try:
        with explained(path), fixed_date():
            _remove_begun(part)
            _write_layer(part, table, layer, layer_metadata)
            if gti is not None:
                _add_gti(part, gti)
            settle(part, path)
    finally:
        _remove_begun(part)


@contextmanager
def fixed_date() -> Iterator[None]:
    """Keep the clock out of a GeoPackage, so that the same rows give the same bytes."""
    option = "OGR_CURRENT_DATE"
    before = pyogrio.get_gdal_config_option(option)
    pyogrio.set_gdal_config_options({option: "2000-01-01T00:00:00.000Z"})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({option: before})


def _box(grid: Grid, parts: int) -> shapely.Polygon:
    box = shapely.box(*grid.bounds)
    left, bottom, right, top = grid.bounds
    return shapely.segmentize(box, max(right - left, top - bottom) / parts)


def _transformed(boxes: NDArray[np.object_], crs: str, target: str) -> NDArray[np.object_]:
    try:
        moved: NDArray[np.object_] = gpd.GeoSeries(boxes, crs=crs).to_crs(target).to_numpy()
    except RuntimeError:  # pyproj's: a building site's own coordinates have no place on Earth
        return np.full(len(boxes), None, dtype=object)
    return moved


def _cut_at_180(shape: shapely.Polygon | None) -> shapely.Geometry | None:
    """An outline in degrees whose corners fell on both sides of 180, as its two parts."""
    # It ran counter-clockwise; torn apart, it runs the other way round the world.
    if shape is None or _signed_area(shape.exterior) >= 0:
        return shape
    whole = shapely.transform(shape, lambda points: points + (points[:, :1] < 0) * [360, 0])
    left, _, right, _ = whole.bounds
    if not left < 180 < right or right - left > 180:
        return shape
    west = whole & shapely.box(0, -90, 180, 90)
    east = shapely.transform(
        whole & shapely.box(180, -90, 360, 90), lambda points: points - [360, 0]
    )
    return west | east


def _signed_area(ring: shapely.LinearRing) -> float:
    """Above 0 where most of it runs counter-clockwise, whether or not it crosses itself."""
    x, y = shapely.get_coordinates(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def _remove_begun(part: Path) -> None:
    """Remove an unfinished file, and the journal and spatial index that GDAL keeps beside it."""
    for file in part.parent.glob(f"{glob.escape(part.name)}*"):
        file.unlink(missing_ok=True)


def _write_layer(
    path: Path, table: gpd.GeoDataFrame, layer: str, metadata: Mapping[str, str] | None
) -> None:
    try:
        table.to_file(path, driver="GPKG", layer=layer, engine="pyogrio", layer_metadata=metadata)
        indexed = pyogrio.read_info(path)["capabilities"]["fast_spatial_filter"]
    except RuntimeError as error:  # the family of pyogrio's errors
        raise OSError(str(error)) from error
    if not indexed:  # written last, and GDAL says nothing when it cannot
        raise OSError("the spatial index could not be written")


def _add_gti(path: Path, gti: str) -> None:
    """Put XML beside the layer's metadata, where GDAL looks for it; pyogrio cannot."""
    end = "</GDALMultiDomainMetadata>"
    domain = f'<Metadata domain="xml:GTI" format="xml">{gti}</Metadata>'
    try:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(
                "UPDATE gpkg_metadata SET metadata = replace(metadata, ?, ?)", (end, domain + end)
            )
    except sqlite3.Error as error:
        raise OSError(str(error)) from error

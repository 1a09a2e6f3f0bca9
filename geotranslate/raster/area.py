"""Areas of interest: polygons of any vector file, brought onto a raster's grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.features import geometry_mask
from rasterio.warp import transform_bounds
from shapely.geometry.base import BaseGeometry

from geotranslate.errors import SettingError, reason
from geotranslate.raster.bounds import Bounds
from geotranslate.raster.grid import SLACK, Grid, split_window

# A straight edge in one CRS is a curve in another: edges get this many corners more.
CORNERS_PER_EXTENT = 200

# Side of what is looked at at once.
BLOCK = 512

# So much of the scene's extent is kept around it, since its edges are curves as well.
MARGIN = 0.05


@dataclass(frozen=True)
class Area:
    """One or many polygons in a raster's CRS.

    Attributes:
        path: the file they came from.
        shape: what of them lies near the raster, as one; empty where nothing does.
        drawn_crs: CRS of the file.
        drawn_bounds: of all of them, (left, bottom, right, top) in the file's CRS.
    """

    path: str
    shape: BaseGeometry
    drawn_crs: CRS
    drawn_bounds: Bounds

    @property
    def bounds(self) -> Bounds:
        """(left, bottom, right, top) of a shape that is not empty."""
        left, bottom, right, top = map(float, self.shape.bounds)
        return left, bottom, right, top

    @property
    def identity(self) -> str:
        """Changes when the polygons do, not when their file is copied."""
        return hashlib.sha256(shapely.to_wkb(shapely.normalize(self.shape))).hexdigest()[:16]

    def inside(self, grid: Grid) -> NDArray[np.bool_]:
        """(rows, cols) of a grid in the same CRS, True where a pixel's centre is in the area."""
        return _inside(self.shape, grid)

    def holds_pixel(self, grid: Grid) -> bool:
        """Whether the centre of any pixel of a grid in the same CRS is in the area."""
        parts = shapely.get_parts(self.shape)
        parts = parts[_may_hold_pixel(shapely.bounds(parts), grid)]
        # Of the largest part nearly always the first block that is looked at.
        for part in parts[np.argsort(-shapely.area(parts), kind="stable")]:
            for block in split_window(grid.window_of(part.bounds), BLOCK, BLOCK):
                if _inside(part, grid.window_grid(block)).any():
                    return True
        return False


def _inside(shape: BaseGeometry, grid: Grid) -> NDArray[np.bool_]:
    """(rows, cols) of a grid in the same CRS, True where a pixel's centre is in a shape."""
    if shape.is_empty:
        return np.zeros(grid.shape, bool)
    inside: NDArray[np.bool_] = geometry_mask(
        [shape], out_shape=grid.shape, transform=grid.transform, invert=True
    )
    return inside


def _may_hold_pixel(bounds: NDArray[np.float64], grid: Grid) -> NDArray[np.bool_]:
    """(shapes,) True where the rectangle around a shape holds a pixel's centre.

    Args:
        bounds: (shapes, 4), left, bottom, right, top of each, NaN where it is empty.
        grid: in the same CRS.
    """
    left, bottom, right, top = bounds.T
    inverse = ~grid.transform
    corners = inverse @ (left, bottom), inverse @ (right, top)
    holds = np.ones(len(bounds), bool)
    for ends, length in zip(zip(*corners, strict=True), (grid.width, grid.height), strict=True):
        # The first and the last pixel whose centre, half a pixel beyond its start, lies between.
        first = np.maximum(np.ceil(np.minimum(*ends) - 0.5 - SLACK), 0)
        last = np.minimum(np.floor(np.maximum(*ends) - 0.5 + SLACK), length - 1)
        holds &= first <= last
    return holds


def read_area(path: str | Path, crs: CRS, bounds: Bounds) -> Area:
    """The polygons of a vector file, whatever its format, CRS and extent, where a raster lies.

    Args:
        path: anything GDAL opens as vectors; its first layer is read.
        crs: of the raster.
        bounds: of the raster, (left, bottom, right, top) in its CRS.

    Raises:
        SettingError: the file is missing, holds no polygon, does not say where they lie, or
            cannot be brought into the raster's CRS.
    """
    what = "the area of interest"
    return area_of(read_polygons(path, what).geometry, path, crs, bounds, what)


def read_polygons(path: str | Path, what: str) -> gpd.GeoDataFrame:
    """The rows of a vector file that have a geometry, of which some are polygons.

    Args:
        path: anything GDAL opens as vectors; its first layer is read.
        what: the file is, for messages.

    Raises:
        SettingError: the file is missing, holds no polygon, or does not say where they lie.
    """
    try:
        table = gpd.read_file(path)
    except Exception as error:  # pyogrio's errors share no base class below Exception
        raise SettingError(
            f"{what} {path} cannot be read ({reason(error)}). Give a file of polygons such as a "
            "GeoPackage, GeoJSON or Shapefile."
        ) from error
    if isinstance(table, gpd.GeoDataFrame):
        table = table[table.geometry.notna()]
    if not isinstance(table, gpd.GeoDataFrame) or not _surface(table):
        raise SettingError(
            f"{what} {path} holds no polygon, so nothing lies inside. Give a file of polygons; "
            "buffer points or lines first."
        )
    if table.crs is None:
        raise SettingError(
            f"{what} {path} has no coordinate reference system, so nobody knows where it lies. "
            f"Give it the one it was made in: `ogr2ogr -a_srs EPSG:... out.gpkg {path}`."
        )
    return table


def area_of(shapes: gpd.GeoSeries, path: str | Path, crs: CRS, bounds: Bounds, what: str) -> Area:
    """Polygons as one, where a raster lies.

    Polygons in another CRS are cut to the raster's surroundings before they are brought into its
    CRS: most CRSs know a part of the world only.

    Args:
        shapes: the polygons.
        path: of their file.
        crs: of the raster.
        bounds: of the raster, (left, bottom, right, top) in its CRS.
        what: the file is, for messages.

    Raises:
        SettingError: the polygons cannot be brought into the raster's CRS.
    """
    try:
        shape = _bring_to(shapes.make_valid(), crs, bounds)
    # RuntimeError is the family of pyproj's errors.
    except (shapely.GEOSException, RuntimeError) as error:
        raise SettingError(
            f"{what} {path} cannot be brought into the raster's coordinate reference system "
            f"({reason(error)}), so nobody knows what lies inside. Draw it in the raster's own, "
            "around the raster."
        ) from error
    left, bottom, right, top = map(float, shapes.total_bounds)
    drawn_crs = CRS.from_user_input(shapes.crs)
    return Area(str(path), shape, drawn_crs, (left, bottom, right, top))


def _surface(table: gpd.GeoDataFrame) -> float:
    """Of all polygons together, in units that do not matter."""
    return float(shapely.area(table.geometry.to_numpy()).sum())


def _bring_to(shapes: gpd.GeoSeries, crs: CRS, bounds: Bounds) -> BaseGeometry:
    """Valid polygons as one in another CRS, near the bounds given in it."""
    wanted = crs.to_wkt()
    if shapes.crs != wanted:
        near = _surroundings(bounds, crs, CRS.from_user_input(shapes.crs))
        if near is not None:
            shapes = shapes.intersection(near)
            shapes = shapes[~shapes.is_empty]
        if shapes.empty:
            return shapely.Polygon()
        # Of the largest piece: the parts of an area that 180 degrees cut lie a world apart.
        left, bottom, right, top = shapes.explode().bounds.to_numpy().T
        step = max((right - left).max(), (top - bottom).max()) / CORNERS_PER_EXTENT
        moved = shapes.segmentize(step).to_crs(wanted)
        finite = np.isfinite(shapely.bounds(moved.to_numpy())).all(axis=1)
        shapes = moved[finite].make_valid()
    whole: BaseGeometry = shapes.union_all()
    parts = shapely.get_parts(shapely.get_parts(whole))
    surfaces = shapely.get_dimensions(parts) == 2
    # Of a file's lines, or spikes of its polygons, GDAL would take every pixel that they touch.
    return whole if surfaces.all() else shapely.union_all(parts[surfaces])


def _surroundings(bounds: Bounds, crs: CRS, target: CRS) -> BaseGeometry | None:
    """A rectangle in another CRS around bounds; None where that CRS does not hold all of them."""
    try:
        left, bottom, right, top = transform_bounds(crs, target, *bounds)
    except (RasterioError, CPLE_BaseError):
        return None
    if not np.isfinite([left, bottom, right, top]).all():
        return None
    turns = [0.0]
    if target.is_geographic:
        # GDAL gives a left beyond the right for what crosses 180 degrees, and polygons may count
        # longitudes from 0 to 360.
        right += 360 * (right < left)
        turns = [-360.0, 0.0, 360.0]
    margin = MARGIN * max(right - left, top - bottom)
    boxes = [
        shapely.box(left + turn - margin, bottom - margin, right + turn + margin, top + margin)
        for turn in turns
    ]
    return shapely.union_all(boxes)

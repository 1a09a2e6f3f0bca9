"""Areas of interest: polygons of any vector file, brought onto a raster's grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from geotranslate.errors import SettingError
from geotranslate.raster.grid import Grid

# A straight edge in one CRS is a curve in another: edges get this many corners more.
CORNERS_PER_EXTENT = 200


@dataclass(frozen=True)
class Area:
    """One or many polygons in a raster's CRS.

    Attributes:
        path: the file they came from.
        shape: all of them as one.
    """

    path: str
    shape: BaseGeometry

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top)."""
        left, bottom, right, top = map(float, self.shape.bounds)
        return left, bottom, right, top

    @property
    def identity(self) -> str:
        """Changes when the polygons do, not when their file is copied."""
        return hashlib.sha256(shapely.to_wkb(shapely.normalize(self.shape))).hexdigest()[:16]

    def inside(self, grid: Grid) -> NDArray[np.bool_]:
        """(rows, cols) of a grid in the same CRS, True where a pixel's centre is in the area."""
        inside: NDArray[np.bool_] = geometry_mask(
            [self.shape], out_shape=grid.shape, transform=grid.transform, invert=True
        )
        return inside


def read_area(path: str | Path, crs: CRS) -> Area:
    """The polygons of a vector file, whatever its format and CRS, in the CRS asked for.

    Args:
        path: anything GDAL opens as vectors; its first layer is read.
        crs: of the raster.

    Raises:
        SettingError: the file is missing, holds no polygon, or does not say where they lie.
    """
    try:
        table = gpd.read_file(path)
    except Exception as error:  # pyogrio's errors share no base class below Exception
        raise SettingError(
            f"the area of interest {path} cannot be read ({_first_line(error)}). Give a file of "
            "polygons such as a GeoPackage, GeoJSON or Shapefile."
        ) from error
    shapes = table.geometry.dropna() if isinstance(table, gpd.GeoDataFrame) else gpd.GeoSeries()
    if not shapely.area(shapes.to_numpy()).sum():
        raise SettingError(
            f"the area of interest {path} holds no polygon, so nothing lies inside. Give a file "
            "of polygons; buffer points or lines first."
        )
    if shapes.crs is None:
        raise SettingError(
            f"the area of interest {path} has no coordinate reference system, so nobody knows "
            "where it lies. Give it the one it was made in: `ogr2ogr -a_srs EPSG:... out.gpkg "
            f"{path}`."
        )
    return Area(str(path), _union(shapes, crs))


def _union(shapes: gpd.GeoSeries, crs: CRS) -> BaseGeometry:
    wanted = crs.to_wkt()
    if shapes.crs != wanted:
        left, bottom, right, top = shapes.total_bounds
        step = max(right - left, top - bottom) / CORNERS_PER_EXTENT
        shapes = shapes.segmentize(step).to_crs(wanted)
    whole: BaseGeometry = shapes.make_valid().union_all()
    return whole


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")

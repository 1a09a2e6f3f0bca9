"""The sample's files: two scenes of each sensor, the land cover, and an area of interest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform
from rasterio.windows import Window

from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid
from geotranslate.raster.output import explained, settle
from geotranslate.raster.vectors import fixed_date
from geotranslate.raster.writing import GeoTiff
from geotranslate.sample.landscape import CODES, GROUNDS, MAP_GRID, draw_landscape
from geotranslate.sample.sensors import backscatter, optical_view, reflected, sar_view

SAR_BANDS = tuple(Band(name=name, unit="dB", color="sar_c") for name in ("VV", "VH"))
OPTICAL_BANDS = tuple(
    Band(name=name, unit="reflectance", scale=1e-4, color=color)
    for name, color in {"B": "blue", "G": "green", "R": "red", "NIR": "nir"}.items()
)

# No sum or mean can take NaN for backscatter; a number such as -9999 passes unseen.
SAR_NODATA = math.nan
OPTICAL_NODATA = 0

OPTICAL_CRS = CRS.from_epsg(32632)
AREA_CRS = CRS.from_epsg(4326)


@dataclass(frozen=True)
class Part:
    """A square of the landscape that both sensors have seen.

    Attributes:
        center: (x, y) in the map's CRS.
        sar_size: pixels of 10 m along a side of the radar's scene.
        optical_size: pixels of 8 m along a side of the optical scene.
    """

    center: tuple[float, float]
    sar_size: int
    optical_size: int

    @property
    def sar_grid(self) -> Grid:
        """The radar's grid, in the map's UTM zone, off the map's own pixels by 3 m."""
        return _grid_around(self.center, MAP_GRID.crs, pixel=10, size=self.sar_size, origin=3)

    @property
    def optical_grid(self) -> Grid:
        """The optical sensor's grid, in the neighbouring UTM zone and so turned by 4.5 degrees."""
        (x,), (y,) = transform(MAP_GRID.crs, OPTICAL_CRS, *([value] for value in self.center))
        return _grid_around((x, y), OPTICAL_CRS, pixel=8, size=self.optical_size, origin=0)


def _grid_around(
    center: tuple[float, float], crs: CRS, *, pixel: float, size: int, origin: float
) -> Grid:
    """A square grid around a point; its pixel edges lie whole pixels away from ``origin``."""
    x, y = center
    left = origin + pixel * round((x - origin) / pixel - size / 2)
    top = origin + pixel * round((y - origin) / pixel + size / 2)
    return Grid(crs, Affine(pixel, 0, left, 0, -pixel, top), size, size)


PARTS = {
    "train": Part(center=(279_600, 5_368_320), sar_size=640, optical_size=800),
    "heldout": Part(center=(278_900, 5_362_240), sar_size=384, optical_size=528),
}
"""One to learn from and one to be judged on, with a few hundred metres of ground in between."""


def sample_paths(folder: Path) -> dict[str, Path]:
    """Where in ``folder`` each file of the sample lies, by its name without suffix."""
    scenes = [f"{part}_{sensor}" for part in PARTS for sensor in ("sar", "optical")]
    rasters = {name: folder / f"{name}.tif" for name in [*scenes, "landcover"]}
    return rasters | {"area": folder / "area.gpkg"}


def make_sample(folder: Path, seed: int = 7) -> dict[str, Path]:
    """Draw the landscape, let both sensors look at it, and write what they see into ``folder``.

    The same seed gives the same bytes on the same machine. A file that is there already is
    replaced once the new one is complete. It takes a few seconds.

    Returns:
        The files' paths by name: those of :func:`sample_paths`.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = sample_paths(folder)
    rng = np.random.default_rng(seed)
    landscape = draw_landscape(rng)
    power, reflectance = backscatter(landscape, rng), reflected(landscape, rng)
    for name, part in PARTS.items():
        decibel = sar_view(power, part.sar_grid, rng)
        write_scene(paths[f"{name}_sar"], decibel, part.sar_grid, SAR_BANDS, SAR_NODATA)
        counts = optical_view(reflectance, part.optical_grid, rng)
        grid = part.optical_grid
        write_scene(paths[f"{name}_optical"], counts, grid, OPTICAL_BANDS, OPTICAL_NODATA)
    write_landcover(paths["landcover"], landscape.cover)
    write_area(paths["area"])
    return paths


def write_scene(
    path: Path,
    pixels: NDArray[np.generic],
    grid: Grid,
    bands: tuple[Band, ...],
    nodata: float,
) -> None:
    """Write what a sensor saw, (bands, rows, cols), on its grid."""
    whole = Window(col_off=0, row_off=0, width=grid.width, height=grid.height)
    dtype = pixels.dtype.name
    with GeoTiff(path, grid, bands=bands, dtype=dtype, nodata=nodata) as scene:
        scene.write(whole, pixels, np.ones(grid.shape, bool))


def write_landcover(path: Path, cover: NDArray[np.uint8]) -> None:
    """Write every second pixel of the map, with a colour table and the classes as band tags."""
    rows, cols = cover.shape
    with (
        complete_or_not(path) as part,
        rasterio.open(
            part,
            "w",
            driver="GTiff",
            crs=MAP_GRID.crs,
            transform=MAP_GRID.transform @ Affine.scale(2),
            width=cols // 2,
            height=rows // 2,
            count=1,
            dtype="uint8",
            nodata=0,
            compress="deflate",
            tiled=True,
        ) as out,
    ):
        out.write(cover[1::2, 1::2], 1)
        out.write_colormap(1, {CODES[name]: kind.color for name, kind in GROUNDS.items()})
        out.update_tags(1, **{f"CLASS_{code}": name for name, code in CODES.items()})
        out.descriptions = ["land cover"]


def write_area(path: Path) -> None:
    """Write a polygon in degrees, around most of what both sensors saw of the training part."""
    x, y = PARTS["train"].center
    corners = [(-2_500, 2_600), (2_700, 2_900), (2_950, 400), (2_400, -2_700), (-1_900, -2_850)]
    polygon = shapely.Polygon([(x + east, y + north) for east, north in corners])
    frame = geopandas.GeoDataFrame(
        {"name": ["area of interest"]}, geometry=[polygon], crs=MAP_GRID.crs
    )
    with complete_or_not(path) as part, fixed_date():
        frame.to_crs(AREA_CRS).to_file(part, driver="GPKG", layer="area", engine="pyogrio")


@contextmanager
def complete_or_not(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` when the block ends well, and goes otherwise."""
    # The suffix stays last: GDAL warns of a GeoPackage whose name does not end in .gpkg.
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        with explained(path):
            part.unlink(missing_ok=True)
            yield part
            settle(part, path)
    finally:
        part.unlink(missing_ok=True)

"""Rasters on disk: small finished files, and one cloud-optimized GeoTIFF made of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.warp import transform
from rasterio.windows import Window

from geotranslate.errors import GridError, OutputError, reason
from geotranslate.raster.domain import Band
from geotranslate.raster.grid import SLACK, Grid
from geotranslate.raster.output import check_unchanged, explained, settle
from geotranslate.raster.reading import bounded_cache, many_files
from geotranslate.raster.vrt import Source, build_vrt

BLOCK = 512

JOINING_CACHE = 64 * 2**20
"""Bytes of decoded blocks that GDAL keeps while it joins files: it goes through most once."""

DEFLATE: dict[str, Any] = {"compress": "deflate", "zlevel": 1}
ZSTD: dict[str, Any] = {"compress": "zstd", "zstd_level": 1}


class GeoTiff:
    """A GeoTIFF written window by window; it gets its name when it is closed without an error.

    Use it in a ``with`` statement.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        *,
        bands: Sequence[Band],
        dtype: str,
        nodata: float | None = None,
        masked: bool | None = None,
        passing: bool = False,
    ) -> None:
        """Start a file.

        Args:
            path: its final name.
            grid: where its pixels lie.
            bands: written as descriptions, units, scales, offsets and colours.
            dtype: numpy's name of the type.
            nodata: value for "nothing here".
            masked: keep validity in an internal mask; by default where there is no nodata value.
            passing: it is read by us alone, and once: packed in a quarter of the time, by a
                method that not every program knows.

        Raises:
            GridError: a GeoTIFF cannot hold the CRS.
            OutputError: the file cannot be written.
        """
        check_crs(grid)
        self.path = path
        self.masked = nodata is None if masked is None else masked
        self._part = path.with_name(path.name + ".part")
        with explained(path):
            # GDAL opens what it is to replace, and fails where a kill cut that off in its header.
            self._part.unlink(missing_ok=True)
            self._dataset = rasterio.open(
                self._part,
                "w",
                driver="GTiff",
                crs=grid.crs,
                transform=grid.transform,
                width=grid.width,
                height=grid.height,
                count=len(bands),
                dtype=dtype,
                nodata=nodata,
                **_layout(grid, dtype, passing),
            )
            describe_bands(self._dataset, bands)

    def write(self, window: Window, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Write a window: pixels (bands, rows, cols) as stored, valid (rows, cols)."""
        with explained(self.path):
            self._dataset.write(pixels, window=window)
            if self.masked:
                self._dataset.write_mask(valid, window=window)

    def __enter__(self) -> Self:
        self._environment = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)
        self._environment.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with explained(self.path):
                self._dataset.close()
                if kind is None:
                    check_readable(self._part)
                    settle(self._part, self.path)
        finally:
            self._environment.__exit__(kind, error, trace)
            self._part.unlink(missing_ok=True)


def write_cog(
    output: Path,
    sources: Sequence[Source],
    grid: Grid,
    *,
    bands: Sequence[Band],
    dtype: str,
    nodata: float | None = None,
    tags: Mapping[str, str] | None = None,
    overviews: Literal["average", "nearest"] = "average",
    inputs: Iterable[Sequence[Any]] = (),
    scratch: Path,
    row_bytes: int = 0,
) -> None:
    """Join finished files into a cloud-optimized GeoTIFF with overviews.

    GDAL copies block by block, so memory does not grow with the raster. The result is reopened
    and checked before it gets its name.

    Args:
        output: the file to be.
        sources: finished files and the windows they fill.
        grid: of the whole.
        bands: names, units, scales and colours of the result.
        dtype: numpy's name of the type.
        nodata: value for "nothing here"; without one the result has an internal mask.
        tags: metadata of the result.
        overviews: how pixels become one of an overview; nearest where a mean has no meaning.
        inputs: name, size in bytes and time in ns of each file that all of it was made of.
        scratch: folder for the virtual raster and the unfinished copy, on the same disk.
        row_bytes: bytes of a row of pixels in GDAL's cache, where the files' own blocks are whole
            rows; those of a row of blocks are kept, or each block would decode them again.

    Raises:
        OutputError: the disk is full, what was written cannot be read back, or an input was
            changed meanwhile.
    """
    vrt = scratch / "joined.vrt"
    part = scratch / "joined.tif"
    with explained(output):
        text = build_vrt(sources, grid, bands=bands, dtype=dtype, nodata=nodata, tags=tags)
        vrt.write_text(text, encoding="utf-8")
        with many_files(), bounded_cache(JOINING_CACHE + BLOCK * row_bytes):
            try:
                rasterio.shutil.copy(
                    vrt,
                    part,
                    driver="COG",
                    COMPRESS="DEFLATE",
                    PREDICTOR="YES",
                    BLOCKSIZE=str(BLOCK),
                    BIGTIFF="IF_SAFER",
                    OVERVIEW_RESAMPLING=overviews.upper(),
                    NUM_THREADS="ALL_CPUS",
                )
            except SystemError as error:
                # A thread of GDAL's failed, and rasterio was not told why.
                raise OSError(str(error)) from error
        check_readable(part, grid)
        check_unchanged(output, inputs)
        settle(part, output)


def describe_bands(dataset: Any, bands: Sequence[Band]) -> None:
    """Write names, units, scales and colours of the bands into an open dataset."""
    dataset.descriptions = [band.name for band in bands]
    dataset.units = [band.unit for band in bands]
    if any(band.scale != 1 or band.offset for band in bands):
        dataset.scales = [band.scale for band in bands]
        dataset.offsets = [band.offset for band in bands]
    dataset.colorinterp = [ColorInterp[band.color] for band in bands]


def check_readable(path: Path, grid: Grid | None = None) -> None:
    """Read back the end of each band: a full disk can cut a file off without a word.

    Raises:
        OutputError: the file is cut off, or lies elsewhere than it should.
    """
    try:
        with rasterio.open(path) as dataset:
            last = Window(col_off=dataset.width - 1, row_off=dataset.height - 1, width=1, height=1)
            dataset.read(window=last)
            dataset.read_masks(window=last)
            if grid and not (
                dataset.shape == grid.shape
                and dataset.transform == grid.transform
                and _says_place(dataset.crs, grid)
            ):
                raise OutputError(
                    f"{path} came out with another grid than it was given, {grid}, so it would lie "
                    "in the wrong place. This is a fault of geotranslate or GDAL: please report it."
                )
    except RasterioError as error:
        raise OutputError(
            f"{path} cannot be read back after it was written ({reason(error)}), most often "
            "because the disk is full. Make room and run the same command again: what is finished "
            "is kept."
        ) from error


def check_crs(grid: Grid) -> None:
    """Refuse a coordinate reference system that a GeoTIFF cannot hold, before any work.

    GDAL writes such a one into a file beside it, without which the GeoTIFF lies nowhere.

    Args:
        grid: of the GeoTIFF to be.

    Raises:
        GridError: with the mend.
    """
    if not _is_kept(grid.crs, grid):
        number = grid.crs.to_epsg()
        named = number and _is_kept(CRS.from_epsg(number), grid)
        raise GridError(
            "a GeoTIFF would come back with another coordinate reference system than "
            f"{grid.crs.to_proj4() or grid.crs.to_string()}, or with none, so the result would lie "
            "elsewhere. Choose one that it can hold: `geotranslate mosaic --crs "
            f"EPSG:{number if named else '...'}` brings rasters into it."
        )


def _is_kept(crs: CRS, grid: Grid) -> bool:
    return _says_place(_through_geotiff(crs), grid)


@functools.lru_cache(maxsize=64)
def _through_geotiff(crs: CRS) -> CRS | None:
    """A CRS as it comes back from a GeoTIFF without files beside it."""
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
        pixel = {"width": 1, "height": 1, "count": 1, "dtype": "uint8"}
        with memory.open(driver="GTiff", crs=crs, transform=Affine.scale(2), **pixel):
            pass
        with memory.open() as dataset:
            return dataset.crs


def _says_place(crs: CRS | None, grid: Grid) -> bool:
    """Whether a CRS, however worded, puts a grid where its own does."""
    if crs is None or crs == grid.crs:
        return crs is not None
    left, bottom, right, top = grid.bounds
    xs, ys = [left, (left + right) / 2, right], [bottom, (bottom + top) / 2, top]
    try:
        moved = transform(grid.crs, crs, xs, ys)
    except (RasterioError, CPLE_BaseError):  # of a local CRS nobody knows more than its name
        return not any((one.is_projected or one.is_geographic) for one in (crs, grid.crs))
    apart = np.abs(np.subtract(moved, (xs, ys)))
    if crs.is_geographic:
        # A longitude may come back a whole turn from what it was.
        turn = 2 * math.pi / crs.units_factor[1]
        apart[0] = np.minimum(apart[0], np.abs(apart[0] - turn))
    off = apart.max(axis=0)
    known = np.isfinite(off)  # a grid may reach beyond what its CRS knows of the world
    return bool(known.any() and (off[known] <= SLACK * min(grid.resolution)).all())


@functools.cache
def quickest_codec() -> dict[str, Any]:
    """Creation options for files that only we read: ZSTD, where this build of GDAL has it."""
    try:
        with (
            MemoryFile() as memory,
            memory.open(
                driver="GTiff",
                width=1,
                height=1,
                count=1,
                dtype="uint8",
                transform=Affine.scale(2),
                **ZSTD,
            ),
        ):
            return ZSTD
    except (RasterioError, CPLE_BaseError):
        return DEFLATE


def _layout(grid: Grid, dtype: str, passing: bool) -> dict[str, Any]:
    """Creation options: blocks where the raster is larger than one, cheap compression."""
    codec = quickest_codec() if passing else DEFLATE
    predictor = 3 if np.issubdtype(np.dtype(dtype), np.floating) else 2
    layout: dict[str, Any] = codec | {"predictor": predictor}
    side = BLOCK // 2
    if grid.width > BLOCK or min(grid.shape) > side:
        # Low ones, too: written core by core, whole rows would be packed anew for each core. The
        # sides of TIFF's blocks are multiples of 16.
        height = min(side, -(-grid.height // 16) * 16)
        layout |= {"tiled": True, "blockxsize": side, "blockysize": height}
    else:
        # As one block a chip is read as fast as without compression, not a third slower.
        layout |= {"blockysize": grid.height}
    return layout | {"bigtiff": "if_safer"}

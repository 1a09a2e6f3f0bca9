"""Scenes: opened rasters that are read window by window, as pixels that know what is valid."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.windows import Window

from geotranslate.choices import Decibel
from geotranslate.errors import BandError, GridError, RasterError, SettingError, reason
from geotranslate.raster.domain import Band, can_hold
from geotranslate.raster.grid import Grid
from geotranslate.raster.inputs import input_files
from geotranslate.raster.reading import (
    Validity,
    choose_bands,
    has_unseen_alpha,
    nodata_values,
    open_dataset,
    read_pixels,
    stored_bands,
    stored_nodata,
    stored_validity,
    striped_bytes,
)

# Sentinel-1's noise floor is near -30 dB; nothing darker than this says anything about the ground.
DECIBEL_FLOOR = -50.0

# Of a raster whose place does not count: pixels, downwards.
PIXELS = Affine.scale(1, -1)
PIXELS_CRS = 'LOCAL_CS["pixels",UNIT["metre",1]]'

RASTER_SUFFIXES = {".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg"}


@dataclass(frozen=True)
class Chip:
    """A rectangle of pixels that knows where it lies.

    Attributes:
        pixels: (bands, rows, cols), as stored in the source raster.
        valid: (rows, cols) bool, True where every band holds data.
        grid: where the pixels lie; ``grid.shape == valid.shape``.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    grid: Grid


class Readable(Protocol):
    """What gives chips by window: a scene, or scenes warped onto another grid."""

    @property
    def grid(self) -> Grid:
        """Where the pixels lie."""

    @property
    def bands(self) -> tuple[Band, ...]:
        """The bands, in the order of a chip's."""

    @property
    def dtype(self) -> str:
        """The chips' type, by numpy's name."""

    @property
    def nodata(self) -> float | None:
        """The stored value for "nothing here", where there is one."""

    def read(self, window: Window) -> Chip:
        """The pixels of a window inside the grid."""


class Scene:
    """One opened raster with its grid, bands and nodata. Not to be shared between threads.

    Attributes:
        path: as given.
        grid: where the pixels lie.
        bands: name, unit, scale of each band that :meth:`read` gives.
        types: numpy's name of each band's type in the file; of decibels, float32.
        dtype: numpy's name of the type that :meth:`read` gives, which holds all bands.
        nodata: stored value for "nothing here"; None where the file says it another way.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        bands: str | Sequence[int | str] | None = None,
        nodata: float | None = None,
        decibel: Decibel | None = None,
        placed: bool = True,
    ) -> None:
        self.path = str(path)
        self._dataset = _open(self.path, placed=placed)
        self.grid = Grid(
            self._dataset.crs if placed else CRS.from_wkt(PIXELS_CRS),
            _straightened(self._dataset) if placed else PIXELS,
            self._dataset.width,
            self._dataset.height,
        )
        self._indexes = choose_bands(self._dataset, bands)
        stored = self._stored = stored_bands(self._dataset, self._indexes)
        self._linear = [not band.in_decibels for band in stored]
        self._decibel = decibel if any(self._linear) else None
        if self._decibel:
            self.bands = tuple(Band(name=b.name, unit="dB", color=b.color) for b in stored)
            self.types = ("float32",) * len(stored)
        else:
            self.bands = stored
            self.types = tuple(self._dataset.dtypes[index - 1] for index in self._indexes)
        self.dtype = np.result_type(*self.types).name
        self._nodata_given = nodata
        if nodata is not None:
            _check_nodata(nodata, self._dataset, self._indexes)
        # The file's value first: who copies the pixels writes one value wherever they are invalid.
        own = stored_nodata(self._dataset, self._indexes)
        # It stands for linear numbers; among decibels it would mean something else.
        self.nodata = None if self._decibel else nodata if own is None else own

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def striped_bytes(self) -> int:
        """Bytes that a row of pixels takes in GDAL's cache where blocks are whole rows, else 0."""
        return striped_bytes(self._dataset)

    def close(self) -> None:
        """Give the file back."""
        self._dataset.close()

    def read(self, window: Window) -> Chip:
        """The pixels of a window that lies inside the raster.

        Raises:
            GridError: the window leaves the raster.
            RasterError: the file is damaged there.
        """
        _check_inside(window, self.grid, self.path)
        try:
            pixels, valid = read_pixels(
                self._dataset, self._indexes, window, nodata=self._nodata_given
            )
        except RasterioIOError as error:
            raise RasterError(
                f"{self.path} cannot be read at row {window.row_off}, column {window.col_off} "
                f"({reason(error)}): the file is damaged or was cut off while it was copied. "
                "Copy or download it again."
            ) from error
        if self._decibel:
            pixels = self._to_decibels(pixels)
        return Chip(pixels, valid, self.grid.window_grid(window))

    def read_reflected(self, window: Window) -> Chip:
        """The pixels of a window that may leave the raster: it is mirrored there, mask and all."""
        rows = _mirrored(window.row_off, window.height, self.grid.height)
        cols = _mirrored(window.col_off, window.width, self.grid.width)
        needed = Window(
            col_off=int(cols.min()),
            row_off=int(rows.min()),
            width=int(np.ptp(cols)) + 1,
            height=int(np.ptp(rows)) + 1,
        )
        chip = self.read(needed)
        if needed == window:
            return chip
        place = np.ix_(rows - needed.row_off, cols - needed.col_off)
        return Chip(chip.pixels[:, *place], chip.valid[place], self.grid.window_grid(window))

    @property
    def validity(self) -> Validity:
        """Where the file says which pixels are invalid."""
        return stored_validity(self._dataset, self._indexes, self._nodata_given)

    @property
    def has_unseen_alpha(self) -> bool:
        """Whether an alpha band says which pixels are invalid, but GDAL's own masks do not."""
        return has_unseen_alpha(self._dataset, self._indexes)

    @property
    def is_geotiff(self) -> bool:
        """Whether the file is a GeoTIFF."""
        return bool(self._dataset.driver == "GTiff")

    def numbers_of(self, bands: str | Sequence[int | str] | None) -> list[int]:
        """Numbers, from 1, of bands of the file; of all that hold data when None.

        Raises:
            BandError: a band is not there.
        """
        return choose_bands(self._dataset, bands)

    def identity(self) -> dict[str, Any]:
        """What must stay the same for work on this scene to be continued."""
        return {
            "path": os.path.realpath(self.path) if Path(self.path).exists() else self.path,
            "bands": list(self._indexes),
            "shape": list(self.grid.shape),
            "crs": self.grid.crs.to_string(),
            "transform": list(self.grid.transform)[:6],
            "nodata": str([nodata_values(self._dataset)[index - 1] for index in self._indexes]),
            # These may lie in a file beside it that is not looked at, because of its statistics.
            "described": [[b.name, b.unit, b.scale, b.offset] for b in self._stored],
            "files": input_files(self._dataset),
        }

    def _to_decibels(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Decibels: of linear bands never below DECIBEL_FLOOR, of others as they are."""
        scales = np.array([self._dataset.scales[i - 1] for i in self._indexes])[:, None, None]
        shifts = np.array([self._dataset.offsets[i - 1] for i in self._indexes])[:, None, None]
        factor = 10.0 if self._decibel == "power" else 20.0
        floor = 10 ** (DECIBEL_FLOOR / factor)
        physical = np.nan_to_num(stored * scales + shifts, nan=floor, posinf=floor, neginf=floor)
        decibels = factor * np.log10(np.maximum(physical, floor))
        linear = np.array(self._linear)[:, None, None]
        return np.asarray(np.where(linear, decibels, physical), np.float32)


def open_scene(
    path: str | Path,
    *,
    bands: str | Sequence[int | str] | None = None,
    nodata: float | None = None,
    decibel: Decibel | None = None,
    placed: bool = True,
) -> Scene:
    """Open a raster for reading by windows; use it in a ``with`` statement.

    Args:
        path: anything GDAL opens.
        bands: numbers from 1 or names, in the wanted order; a string is split at commas; all
            data bands when None.
        nodata: value that means "nothing here", besides what the file says.
        decibel: turn linear power or amplitude into decibels; bands in dB stay as they are.
        placed: its place on the map counts; without it the grid only counts pixels.

    Raises:
        RasterError: the file is missing, no raster, damaged, without a place on the map, or of a
            kind that cannot be cut into windows (rotated, GCPs or RPCs only, palette, complex).
        BandError: a band is not there.
        SettingError: the raster's type cannot hold the nodata value.
    """
    return Scene(path, bands=bands, nodata=nodata, decibel=decibel, placed=placed)


def expand_paths(inputs: Iterable[str | Path]) -> list[str]:
    """The rasters that paths, globs and folders stand for, each once, in order.

    Raises:
        RasterError: an input stands for nothing.
    """
    paths: dict[str, None] = {}
    for given in map(str, inputs):
        if Path(given).is_dir():
            found = sorted(
                str(file)
                for file in Path(given).iterdir()
                if file.suffix.lower() in RASTER_SUFFIXES and not file.name.startswith(".")
            )
            missing = f"the folder {given} holds no raster ({', '.join(sorted(RASTER_SUFFIXES))})"
        elif glob.has_magic(given) and not Path(given).exists() and "://" not in given:
            found = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 - absolute patterns
            missing = f"no file matches {given}"
        else:
            found = [given]
            missing = ""
        if not found:
            raise RasterError(f"{missing}, so there is nothing to read. Check the path.")
        paths.update(dict.fromkeys(found))
    return list(paths)


def _mirrored(start: float, length: float, size: int) -> NDArray[np.intp]:
    """The pixels of an axis of ``size`` that stand at ``length`` places from ``start``.

    Beyond its ends the axis runs backwards; the pixel at the end is not repeated.
    """
    period = max(2 * size - 2, 1)
    places = np.arange(start, start + length, dtype=np.intp) % period
    return np.minimum(places, period - places)


def intersect(window: Window, grid: Grid) -> Window:
    """The part of a window that lies inside a grid.

    Raises:
        GridError: no pixel does.
    """
    row, col = max(window.row_off, 0), max(window.col_off, 0)
    end_row = min(window.row_off + window.height, grid.height)
    end_col = min(window.col_off + window.width, grid.width)
    if end_row <= row or end_col <= col:
        raise GridError(
            f"the window at row {window.row_off}, column {window.col_off} lies wholly outside a "
            f"raster of {grid.height} x {grid.width} px. Choose a window that touches it."
        )
    return Window(col_off=col, row_off=row, width=end_col - col, height=end_row - row)


def _open(path: str, *, placed: bool) -> rasterio.DatasetReader:
    if "://" not in path and not path.startswith("/vsi"):
        file = Path(path)
        looks_local = ":" not in path or file.drive or file.exists()
        if looks_local and not file.exists():
            raise RasterError(f"{path} does not exist, so it cannot be read. Check the path.")
        if file.is_file() and not file.stat().st_size:
            raise RasterError(
                f"{path} is empty (0 bytes), so it holds no raster. Copy or download it again."
            )
    try:
        dataset = open_dataset(path)
    except RasterioError as error:
        raise RasterError(
            f"{path} cannot be opened as a raster ({reason(error)}). Give a GeoTIFF, VRT or "
            "another format GDAL reads; if it is one, the file is damaged: copy it again."
        ) from error
    try:
        _refuse_unreadable(dataset)
        if placed:
            _refuse_unplaced(dataset)
    except (RasterError, BandError):
        dataset.close()
        raise
    return dataset


def _refuse_unreadable(dataset: rasterio.DatasetReader) -> None:
    name = dataset.name
    if not dataset.count:
        raise RasterError(
            f"{name} holds several rasters but none of its own. Name one of them, such as "
            f"{dataset.subdatasets[0] if dataset.subdatasets else name + ':...'}."
        )
    if ColorInterp.palette in dataset.colorinterp:
        raise RasterError(
            f"{name} stores numbers of a colour palette, which cannot be averaged or learned. "
            f"Turn it into colours first: `gdal_translate -expand rgb {name} rgb.tif`."
        )
    if any(np.issubdtype(np.dtype(kind), np.complexfloating) for kind in dataset.dtypes):
        raise RasterError(
            f"{name} holds complex numbers (single-look complex SAR?), which have no brightness "
            "yet. Detect and calibrate it first, for example to sigma nought in SNAP."
        )


def _refuse_unplaced(dataset: rasterio.DatasetReader) -> None:
    name = dataset.name
    nowhere = dataset.transform.is_identity
    if nowhere and dataset.gcps[0]:
        raise RasterError(
            f"{name} is placed on the map by {len(dataset.gcps[0])} ground control points only, so "
            "its pixels lie on no grid yet. Warp it first: "
            f"`gdalwarp -tps -t_srs EPSG:... {name} warped.tif`."
        )
    # Asked second: GDAL looks for files of such models beside the raster.
    if nowhere and dataset.rpcs:
        raise RasterError(
            f"{name} is placed on the map by a camera model only (rational polynomials, RPCs), so "
            "its pixels lie on no grid yet. Orthorectify it first, on a terrain model: "
            f"`gdalwarp -rpc -to RPC_DEM=dem.tif -t_srs EPSG:... {name} ortho.tif`."
        )
    if dataset.crs is None:
        raise RasterError(
            f"{name} has no coordinate reference system, so nobody knows where it lies. Give it "
            f"the one it was made in: `rio edit-info --crs EPSG:... {name}`."
        )
    if nowhere:
        raise RasterError(
            f"{name} has a coordinate reference system but no place in it: nothing says where its "
            "first pixel lies and how large it is. Give it its corners: "
            f"`gdal_edit.py -a_ullr LEFT TOP RIGHT BOTTOM {name}`."
        )
    if _is_rotated(dataset):
        raise RasterError(
            f"{name} is rotated against its map axes, so its windows are no rectangles on the "
            f"map. Warp it first: `gdalwarp -t_srs EPSG:... {name} north_up.tif`."
        )


def _is_rotated(dataset: rasterio.DatasetReader) -> bool:
    """Whether rows or columns leave the map's axes by more than a thousandth of a pixel."""
    transform = dataset.transform
    return bool(
        abs(transform.b) * dataset.height > 1e-3 * abs(transform.a)
        or abs(transform.d) * dataset.width > 1e-3 * abs(transform.e)
    )


def _straightened(dataset: rasterio.DatasetReader) -> Affine:
    """The transform without the rounding errors that some programs write as a rotation."""
    transform = dataset.transform
    return Affine(transform.a, 0.0, transform.c, 0.0, transform.e, transform.f)


def _check_nodata(nodata: float, dataset: rasterio.DatasetReader, indexes: Sequence[int]) -> None:
    for kind in {dataset.dtypes[index - 1] for index in indexes}:
        if not can_hold(np.dtype(kind), nodata):
            raise SettingError(
                f"nodata {nodata:g} cannot be a value of {dataset.name}, which holds {kind}, so no "
                "pixel would ever be left out. Give the value that its empty pixels have."
            )


def _check_inside(window: Window, grid: Grid, path: str) -> None:
    leaves = (
        window.row_off < 0
        or window.col_off < 0
        or window.row_off + window.height > grid.height
        or window.col_off + window.width > grid.width
    )
    if leaves:
        raise GridError(
            f"the window of {window.height} x {window.width} px at row {window.row_off}, column "
            f"{window.col_off} leaves {path}, which has {grid.height} x {grid.width} px. Choose a "
            "window inside it."
        )

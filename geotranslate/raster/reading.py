"""What every reader of a raster file shares: its bands, its pixels, and which of them are valid."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from geotranslate.errors import BandError
from geotranslate.raster.domain import Band, can_hold

Validity = Literal["nowhere", "mask", "nodata", "several"]
"""Where a file says which pixels are invalid: nothing can be, its mask, a nodata value; or several
of these, an alpha band, or floats, which may be NaN."""

# Of decoded blocks. GDAL itself takes a twentieth of the memory, which may be gigabytes.
# Spelled in bytes, as hardly a user would: so that a user's own limit is told from this one.
CACHE_BYTES = 512 * 2**20


def open_dataset(path: str | Path) -> rasterio.DatasetReader:
    """Open a raster, wherever it lies; GDAL's cache of blocks is bounded from then on.

    A limit that the user or an earlier use of GDAL has set stays.
    """
    os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_BYTES))
    # Who needs a place on the map says so in a sentence of ours, with the mend.
    with UNPLACED, _quiet_range_check():
        return rasterio.open(path)


def many_files() -> rasterio.Env:
    """A session of GDAL's in which many files of one folder are opened quickly.

    The folder is not listed for each file in it; what lies beside a file is found all the same.
    """
    listing = os.environ.get("GDAL_DISABLE_READDIR_ON_OPEN", "TRUE")
    return rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=listing)


def open_many() -> None:
    """Put the thread that calls this, a worker of a pool, into :func:`many_files` until it ends."""
    many_files().__enter__()


class _IgnoredWarning:
    """Ignores a warning while anyone is inside; then the process's filters are as before.

    What Python has for this restores the filters of another thread that came first and left first.
    """

    def __init__(self, category: type[Warning]) -> None:
        self._category = category
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore", self._category)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


UNPLACED = _IgnoredWarning(NotGeoreferencedWarning)
"""What rasterio says of rasters without a place, and of arrays before it gives them theirs."""


@contextmanager
def bounded_cache(size: int) -> Iterator[None]:
    """Let GDAL keep at most ``size`` bytes of decoded blocks, where the user has set no limit.

    The limit is that of the process, for as long as this is open.
    """
    if os.environ.get("GDAL_CACHEMAX", str(CACHE_BYTES)) != str(CACHE_BYTES):
        yield
        return
    # Bytes and not megabytes: rasterio gives the number to GDAL's function, not to its option.
    with rasterio.Env(GDAL_CACHEMAX=min(size, CACHE_BYTES)):
        yield


def striped_bytes(dataset: rasterio.DatasetReader) -> int:
    """Bytes that a row of pixels takes in GDAL's cache where blocks are whole rows; 0 for tiles.

    Who reads windows side by side decodes such rows again for each, unless all of them stay there.
    """
    if all(width < dataset.width for _, width in dataset.block_shapes):
        return 0
    return int(dataset.width * sum(np.dtype(dtype).itemsize for dtype in dataset.dtypes))


def read_pixels(
    dataset: rasterio.DatasetReader,
    indexes: Sequence[int],
    window: Window | None = None,
    *,
    nodata: float | None = None,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels (bands, rows, cols) as stored, and where (rows, cols) every band holds data.

    Bands of different types come in the one that holds all of them. A pixel is invalid where any
    of the file's mask, alpha band and nodata values says so, where it has the value ``nodata``,
    and where it is no number.
    """
    pixels = _read_together(dataset, indexes, window)
    valid = np.ones(pixels.shape[1:], bool)
    # GDAL's own mask is the first it finds: with a mask it forgets nodata, with nodata alpha.
    alpha = _alpha(dataset)
    flags = dataset.mask_flag_enums
    says = any(MaskFlags.all_valid not in flags[index - 1] for index in indexes)
    if says and (not alpha or MaskFlags.nodata not in flags[indexes[0] - 1]):
        valid &= (dataset.read_masks(indexes, window=window) > 0).all(axis=0)
    for index in alpha:
        valid &= dataset.read(index, window=window) > 0
    values = nodata_values(dataset)
    for index, band in zip(indexes, pixels, strict=True):
        stored = np.dtype(dataset.dtypes[index - 1])
        for value in (values[index - 1], nodata):
            if value is not None and can_hold(stored, value):
                valid &= band != stored.type(value)
    if np.issubdtype(pixels.dtype, np.floating):
        valid &= np.isfinite(pixels).all(axis=0)
    return pixels, valid


def stored_type(dataset: rasterio.DatasetReader, indexes: Sequence[int]) -> np.dtype[Any]:
    """The type in which bands are read together."""
    return np.result_type(*(np.dtype(dataset.dtypes[index - 1]) for index in indexes))


def nodata_values(dataset: rasterio.DatasetReader) -> tuple[float | None, ...]:
    """Each band's value for "nothing here", as the file says it."""
    with _quiet_range_check():
        values: tuple[float | None, ...] = dataset.nodatavals
        return values


def stored_nodata(dataset: rasterio.DatasetReader, indexes: Sequence[int]) -> float | None:
    """The value for "nothing here" that bands share; None without one that a pixel can have."""
    values = [nodata_values(dataset)[index - 1] for index in indexes]
    # repr, since NaN does not equal NaN.
    if values[0] is None or len(set(map(repr, values))) > 1:
        return None
    return values[0] if can_hold(stored_type(dataset, indexes), values[0]) else None


def stored_validity(
    dataset: rasterio.DatasetReader, indexes: Sequence[int], nodata: float | None = None
) -> Validity:
    """Where a file says which of its pixels are invalid; see :func:`read_pixels`."""
    flags = {flag for index in indexes for flag in dataset.mask_flag_enums[index - 1]}
    plain = np.issubdtype(stored_type(dataset, indexes), np.integer) and nodata is None
    if not plain or _alpha(dataset):
        return "several"
    if flags == {MaskFlags.all_valid}:
        return "nowhere"
    if any(value is not None for value in nodata_values(dataset)):
        return "nodata" if flags == {MaskFlags.nodata} else "several"
    return "mask" if flags == {MaskFlags.per_dataset} else "several"


def has_unseen_alpha(dataset: rasterio.DatasetReader, indexes: Sequence[int]) -> bool:
    """Whether an alpha band says which pixels are invalid, but GDAL's own masks do not.

    GDAL takes an alpha band for the mask only where it is the last of two or four bands, and
    nothing else says what is invalid.
    """
    flags = (dataset.mask_flag_enums[index - 1] for index in indexes)
    return bool(_alpha(dataset)) and any(MaskFlags.alpha not in said for said in flags)


def stored_bands(dataset: rasterio.DatasetReader, indexes: Sequence[int]) -> tuple[Band, ...]:
    """What a file says of some of its bands."""
    return tuple(
        Band(
            name=dataset.descriptions[index - 1] or f"band {index}",
            unit=dataset.units[index - 1] or "",
            scale=dataset.scales[index - 1],
            offset=dataset.offsets[index - 1],
            color=dataset.colorinterp[index - 1].name,
        )
        for index in indexes
    )


def choose_bands(
    dataset: rasterio.DatasetReader, wanted: str | Sequence[int | str] | None
) -> list[int]:
    """Indexes, from 1, of the bands that numbers or names stand for.

    Raises:
        BandError: a number or name is not there, or no band holds data.
    """
    alpha = _alpha(dataset)
    data = [index for index in dataset.indexes if index not in alpha]
    if not data:
        raise BandError(
            f"{dataset.name} has an alpha band only, which says where pixels are valid, so there "
            "is no value to read. Give the raster that it belongs to, or, if its band does hold "
            f"values, say so: `rio edit-info --colorinterp gray {dataset.name}`."
        )
    if wanted is None:
        return data
    asked = wanted.split(",") if isinstance(wanted, str) else list(wanted)
    names = {(dataset.descriptions[i - 1] or "").strip().lower(): i for i in reversed(data)}
    names.pop("", None)
    return [_band_index(dataset, str(band).strip(), data, names) for band in asked]


def _read_together(
    dataset: rasterio.DatasetReader, indexes: Sequence[int], window: Window | None
) -> NDArray[Any]:
    """Bands in the type that holds all of them; rasterio itself reads bands of one type only."""
    if len({dataset.dtypes[index - 1] for index in indexes}) == 1:
        pixels: NDArray[Any] = dataset.read(indexes, window=window)
        return pixels
    dtype = stored_type(dataset, indexes)
    return np.stack([dataset.read(index, window=window).astype(dtype) for index in indexes])


def _quiet_range_check() -> np.errstate:
    """Rasterio tries whether float32 can hold the -1.8e308 that some programs write as nodata."""
    return np.errstate(over="ignore")


def _alpha(dataset: rasterio.DatasetReader) -> list[int]:
    """Indexes of the bands that hold validity, not data."""
    colors = zip(dataset.indexes, dataset.colorinterp, strict=True)
    return [index for index, color in colors if color == ColorInterp.alpha]


def _band_index(
    dataset: rasterio.DatasetReader, band: str, data: list[int], names: dict[str, int]
) -> int:
    if band.lower() in names:
        return names[band.lower()]
    if band.isdigit() and int(band) in data:
        return int(band)
    named = ", ".join(str(dataset.descriptions[i - 1]) for i in sorted(names.values()))
    raise BandError(
        f"band {band!r} is not in {dataset.name}, which has {len(data)} "
        + ("bands" if len(data) != 1 else "band")
        + (f" named {named}" if named else " without names")
        + f". Name one of them, or give a number from 1 to {len(data)}."
    )

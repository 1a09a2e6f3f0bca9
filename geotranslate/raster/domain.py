"""What the pixels mean: bands, units, and how values become a network's [-1, 1] and come back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from geotranslate.choices import Decibel
from geotranslate.errors import SettingError

Array = TypeVar("Array", bound=Any)


class Band(BaseModel, frozen=True, extra="forbid"):
    """One layer of a raster. Its physical value is ``stored * scale + offset``, in ``unit``."""

    name: str
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    color: str = "undefined"
    """What the band stands for on a screen: a name of rasterio's ``ColorInterp``."""

    @property
    def in_decibels(self) -> bool:
        """Whether the values are logarithms already."""
        return self.unit.strip().lower() == "db"


@dataclass(frozen=True)
class Normalization(Generic[Array]):
    """A line per band from stored values to [-1, 1], and back.

    It works on numpy arrays and torch tensors alike, whichever ``gain`` and ``bias`` are.

    Attributes:
        gain: (bands, 1, 1) float32.
        bias: (bands, 1, 1) float32.
    """

    gain: Array
    bias: Array

    def forward(self, stored: Array) -> Array:
        """From stored values (..., bands, rows, cols), as float32, to [-1, 1]; clips."""
        scaled: Array = (stored * self.gain + self.bias).clip(-1, 1)
        return scaled

    def inverse(self, scaled: Array) -> Array:
        """From [-1, 1] back to stored values, as float32; nothing is rounded."""
        stored: Array = (scaled - self.bias) / self.gain
        return stored


class Domain(BaseModel, frozen=True, extra="forbid", ser_json_inf_nan="strings"):
    """A kind of imagery: its bands, how files store them, and its fixed normalization.

    The normalization belongs to the whole data set, never to one chip or window.
    """

    bands: tuple[Band, ...]
    dtype: str
    """numpy's name of the stored type."""
    nodata: float | None = None
    """The stored value for "nothing here"; None where validity lies in a mask."""
    resolution_m: tuple[float, float]
    """Width and height of a pixel in metres."""
    decibel: Decibel | None = None
    """How values of the source became decibels, for `predict` to repeat."""
    low: tuple[float, ...]
    """Physical value of each band that becomes -1."""
    high: tuple[float, ...]
    """Physical value of each band that becomes 1."""
    clipped: tuple[float, ...] = ()
    """Share of each band's valid training pixels outside low and high."""

    @property
    def names(self) -> list[str]:
        """The bands' names, in their order."""
        return [band.name for band in self.bands]

    def normalization(
        self, convert: Callable[[NDArray[np.float32]], Any] = lambda column: column
    ) -> Normalization[Any]:
        """The line per band that ``low`` and ``high`` draw.

        Args:
            convert: makes something else than numpy arrays of the (bands, 1, 1) factors,
                such as tensors on a device.
        """
        scale = np.array([band.scale for band in self.bands])
        offset = np.array([band.offset for band in self.bands])
        low, high = np.array(self.low), np.array(self.high)
        span = np.where(high > low, high - low, 1.0)
        gain = 2 * scale / span
        bias = 2 * (offset - low) / span - 1
        return Normalization(convert(_column(gain)), convert(_column(bias)))

    def encode(self, values: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[Any]:
        """Stored values as they go into a file; see :func:`encode`.

        Args:
            values: (bands, rows, cols) as :meth:`Normalization.inverse` gives them.
            valid: (rows, cols).
        """
        return encode(values, valid, dtype=self.dtype, nodata=self.nodata)


def to_physical(stored: NDArray[Any], bands: Sequence[Band]) -> NDArray[np.float64]:
    """Stored values (bands, rows, cols) in the units of their bands."""
    scale = np.array([band.scale for band in bands])[:, None, None]
    offset = np.array([band.offset for band in bands])[:, None, None]
    return np.asarray(stored * scale + offset, np.float64)


def encode(
    values: NDArray[Any], valid: NDArray[np.bool_], *, dtype: str, nodata: float | None
) -> NDArray[Any]:
    """Stored values as they go into a file: rounded, inside the dtype, nodata where invalid.

    A valid pixel never gets the nodata value: it moves to the neighbouring value.

    Args:
        values: (bands, rows, cols).
        valid: (rows, cols).
        dtype: numpy's name of the file's type.
        nodata: the file's value for "nothing here"; 0 is written there when it has none.

    Raises:
        SettingError: the dtype cannot hold the nodata value.
    """
    if nodata is not None and not can_hold(np.dtype(dtype), nodata):
        raise SettingError(
            f"nodata {nodata:g} cannot be a value of {dtype}, so invalid pixels would become "
            f"something else. Choose a nodata value that {dtype} can hold."
        )
    # What lies under an invalid pixel may be NaN, which no integer can take.
    safe = values if valid.all() else np.where(valid, values, 0)
    stored = to_dtype(safe, np.dtype(dtype))
    if nodata is not None:
        stored[stored == nodata] = _neighbour(nodata, stored.dtype)
        stored[:, ~valid] = nodata
    return stored


def to_dtype(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A copy of the values as a dtype; integers are rounded and stay within its limits."""
    if values.dtype != dtype and np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        values = np.rint(values)
        np.clip(values, info.min, _at_most(info.max, values.dtype), out=values)
    return values.astype(dtype)


def can_hold(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a pixel of a dtype can have a value; a float is rounded to the next it can have."""
    if not np.issubdtype(dtype, np.integer):
        with np.errstate(over="ignore"):
            return bool(np.isinf(dtype.type(value)) == np.isinf(value))
    info = np.iinfo(dtype)
    return float(value).is_integer() and info.min <= value <= info.max


def _at_most(limit: int, dtype: np.dtype[Any]) -> Any:
    """The largest float that is not above a limit: float32 rounds 2**31 - 1 up to 2**31."""
    nearest = dtype.type(limit)
    return np.nextafter(nearest, dtype.type(0)) if int(nearest) > limit else nearest


def _column(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)[:, None, None]


def _neighbour(value: float, dtype: np.dtype[Any]) -> Any:
    """The next value a dtype can hold, towards zero (for zero itself, upwards)."""
    if np.issubdtype(dtype, np.integer):
        return int(value) + (-1 if value > 0 else 1)
    return np.nextafter(dtype.type(value), dtype.type(0 if value else 1))

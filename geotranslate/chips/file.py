"""One chip's file: its pixels, and what it says of itself. It need not say where it lies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

from geotranslate.errors import ChipsError, reason
from geotranslate.raster.domain import Band
from geotranslate.raster.reading import (
    choose_bands,
    open_dataset,
    read_pixels,
    stored_bands,
    stored_nodata,
)


class ChipPixels(NamedTuple):
    """What a chip's file holds.

    Attributes:
        pixels: (bands, rows, cols), as stored; an alpha band is not among them.
        valid: (rows, cols) bool, True where every band holds data.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class ChipHeader:
    """What a chip's file says of itself."""

    path: Path
    shape: tuple[int, int]
    bands: tuple[Band, ...]
    dtype: str
    nodata: float | None
    crs: CRS | None
    transform: Affine

    @property
    def kind(self) -> str:
        """What all chips of a domain must share, in words."""
        rows, cols = self.shape
        return f"{rows} x {cols} px, {len(self.bands)} bands, {self.dtype}"


def read_chip(path: Path) -> ChipPixels:
    """The pixels of a chip's file, which need not say where it lies.

    Raises:
        ChipsError: the file is missing or damaged.
    """
    with _open(path) as dataset:
        return ChipPixels(*read_pixels(dataset, choose_bands(dataset, None)))


def read_header(path: Path) -> ChipHeader:
    """What a chip's file says of itself.

    Raises:
        ChipsError: the file is missing or damaged, or its numbers are no brightness.
    """
    with _open(path) as dataset:
        indexes = choose_bands(dataset, None)
        if ColorInterp.palette in dataset.colorinterp or "complex" in dataset.dtypes[0]:
            raise ChipsError(
                f"{path} holds numbers of a colour palette or complex numbers, which have no "
                "brightness to learn. Export the chips as plain numbers or RGB."
            )
        return ChipHeader(
            path=path,
            shape=dataset.shape,
            bands=stored_bands(dataset, indexes),
            dtype=dataset.dtypes[0],
            nodata=stored_nodata(dataset, indexes),
            crs=dataset.crs,
            transform=dataset.transform,
        )


@contextmanager
def _open(path: Path) -> Iterator[rasterio.DatasetReader]:
    """Open a chip without listing its folder, where there may be a hundred thousand others."""
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"), open_dataset(path) as dataset:
            yield dataset
    except RasterioError as error:
        raise ChipsError(
            f"the chip {path} cannot be read ({reason(error)}): it is missing or damaged. Copy "
            "it again, or make the folder again with --overwrite."
        ) from error

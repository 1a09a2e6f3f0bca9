"""The files that a raster's pixels come from: when one of them changes, its pixels may have."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError

from geotranslate.raster.reading import open_dataset

# What programs write beside a raster that they only look at: statistics and overviews.
BESIDE_SUFFIXES = (".aux.xml", ".aux", ".ovr", ".rrd")

VIRTUAL_SUFFIXES = (".vrt", ".gti.gpkg")

# Each file is looked at before the work and after it.
MOST_FOLLOWED = 10_000


def input_files(dataset: rasterio.DatasetReader) -> list[list[Any]]:
    """Full name, size in bytes and time in ns of each file that lies on a disk of ours.

    Virtual rasters within virtual ones and the rasters of a tile index (GTI) are followed until
    ``MOST_FOLLOWED`` files are known; those that a virtual raster names itself are all given. Of
    other rasters no file is opened again.
    """
    names = list(dataset.files)
    if dataset.driver in ("VRT", "GTI"):
        names = _followed(dataset)
    states = (_state(name) for name in names if not name.lower().endswith(BESIDE_SUFFIXES))
    return [state for state in states if state is not None]


def _followed(dataset: rasterio.DatasetReader) -> list[str]:
    names = dict.fromkeys(_sources(dataset))
    waiting = [name for name in _virtual(names) if name != dataset.name]
    while waiting and len(names) < MOST_FOLLOWED:
        try:
            with open_dataset(waiting.pop(0)) as inner:
                fresh = [name for name in _sources(inner) if name not in names]
        except RasterioError:  # who reads the pixels will say so
            continue
        names |= dict.fromkeys(fresh)
        waiting += _virtual(fresh)
    return list(names)


def _sources(dataset: rasterio.DatasetReader) -> list[str]:
    """Files of a raster, as far as it names them itself."""
    files: list[str] = list(dataset.files)
    tiles = [name for file in files for name in _tiles(file)] if dataset.driver == "GTI" else []
    return files + tiles


def _tiles(index: str) -> list[str]:
    """The rasters of a tile index that is a vector file; nothing of any other file."""
    # It takes a third of a second to load, which other rasters need not wait for.
    import pyogrio

    try:
        (layer, _), *_ = pyogrio.list_layers(index)
        said = pyogrio.read_info(index, layer=layer)["layer_metadata"] or {}
        field = said.get("LOCATION_FIELD", "location")
        *_, (places,) = pyogrio.raw.read(
            index, layer, columns=[field], read_geometry=False, max_features=MOST_FOLLOWED
        )
    except (RuntimeError, ValueError):  # the families of pyogrio's errors
        return []
    folder = Path(index).parent
    found: list[str] = [place for place in places if place]
    return [str(folder / place) if (folder / place).exists() else place for place in found]


def _virtual(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.lower().endswith(VIRTUAL_SUFFIXES)]


def _state(name: str) -> list[Any] | None:
    """Full name, size in bytes and time in ns of a file; None where it lies on no disk of ours."""
    try:
        state = Path(name).stat()
    except OSError:
        return None
    return [os.path.realpath(name), state.st_size, state.st_mtime_ns]

"""Many scenes joined into one raster; memory grows neither with their number nor size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from geotranslate.raster.mosaic.match import read_match
from geotranslate.raster.mosaic.plan import MosaicPlan, plan_mosaic
from geotranslate.raster.mosaic.settings import MosaicSettings
from geotranslate.raster.mosaic.virtual import check_virtual, write_virtual
from geotranslate.raster.mosaic.write import check_mosaic, write_mosaic

__all__ = [
    "MosaicPlan",
    "MosaicSettings",
    "check_mosaic",
    "check_virtual",
    "mosaic_rasters",
    "plan_mosaic",
    "read_match",
    "write_mosaic",
    "write_virtual",
]


def mosaic_rasters(
    inputs: Iterable[str | Path], output: Path, *, overwrite: bool = False, **settings: Any
) -> Iterator[int]:
    """Join scenes of one kind of imagery into a cloud-optimized GeoTIFF.

    Invalid pixels weigh nothing; where nothing valid lies, the mosaic is invalid. With
    ``feather``, ``mean`` and ``median`` the order of the scenes does not matter. Interrupted, it
    goes on with the same inputs where it was.

    Args:
        inputs: rasters, folders and globs.
        output: the file to be.
        overwrite: replace what is there.
        settings: fields of :class:`MosaicSettings`.

    Yields:
        How many of the plan's steps are done; nothing when the output was finished before.

    Raises:
        RasterError: an input cannot be read.
        GridError: the scenes cannot be brought onto one grid, or bounds meet none of them.
        BandError: a band is missing, or bands, scales or types of two inputs differ.
        SettingError: a setting cannot work, alone, beside another, or with these scenes.
        OutputError: the output cannot be written, or is there with other words.
    """
    plan = plan_mosaic(inputs, output, MosaicSettings(**settings))
    yield from write_mosaic(plan, output, overwrite=overwrite)

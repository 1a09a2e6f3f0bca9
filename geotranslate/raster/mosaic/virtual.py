"""Mosaics without pixels of their own: an index that GDAL and QGIS open as one raster."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from geotranslate.errors import SettingError, TakenError
from geotranslate.raster.mosaic.plan import MosaicPlan
from geotranslate.raster.mosaic.settings import MosaicSettings
from geotranslate.raster.output import (
    LOCK_NAME,
    explained,
    forget_lock,
    locked,
    write_bytes,
    write_text,
)
from geotranslate.raster.vrt import Source, build_gti, build_vrt

VRT, INDEX = ".vrt", ".gti.gpkg"
LAYER = "mosaic"


def write_virtual(plan: MosaicPlan, output: Path, *, overwrite: bool = False) -> bool:
    """Write an index of the scenes instead of their pixels.

    Read, it gives the pixels that :func:`write_mosaic` would have written, where each scene says
    by a nodata value or a mask, and in all bands alike, which of its pixels are invalid.

    Args:
        plan: with blend ``first`` or ``last``, or of scenes that do not overlap.
        output: named ``.vrt``, or ``.gti.gpkg``, which stays quick with many thousands of scenes.
        overwrite: replace what is there.

    Returns:
        Whether anything was written; not when the same file was there already.

    Raises:
        SettingError: pixels would have to be computed, or the output has another name.
        OutputError: the output cannot be written, or is there with other words.
    """
    _check_virtual(plan, output)
    return write_once(output, partial(_write, plan), overwrite)


def check_virtual(plan: MosaicPlan, output: Path, *, overwrite: bool = False) -> None:
    """Refuse what :func:`write_virtual` would refuse.

    Raises:
        SettingError: pixels would have to be computed, or the output has another name.
        TakenError: another file has its name.
    """
    _check_virtual(plan, output)
    _is_there(output, _made(output, partial(_write, plan)), overwrite)


def _check_virtual(plan: MosaicPlan, output: Path) -> None:
    name = output.name.lower()
    if not name.endswith((VRT, INDEX)):
        raise SettingError(
            f"{output} is not named like a virtual raster, so no program would open it as one. "
            f"Name it {output.with_suffix(VRT)}, or {output.with_suffix(INDEX)} for GDAL 3.9 and "
            "newer."
        )
    _check_nothing_computed(plan)
    turned = plan.grid.transform.a < 0 or plan.grid.transform.e > 0
    if turned and name.endswith(INDEX):
        raise SettingError(
            f"the axes of the rasters run backwards, which an index such as {output} cannot say. "
            f"Name it {output.with_name(output.name[: -len(INDEX)] + VRT)}."
        )


def write_once(output: Path, write: Callable[[Path], None], overwrite: bool) -> bool:
    """Write a small file that has the same bytes each time; returns whether it was not there.

    Raises:
        OutputError: it cannot be written, another process writes it, or another file has its name.
    """
    lock = output.with_name(output.name + LOCK_NAME)
    content = _made(output, write)
    if _is_there(output, content, overwrite):
        forget_lock(lock, output)
        return False
    with explained(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock, output):
        # Another process may have written it just now.
        if _is_there(output, content, overwrite):
            return False
        write_bytes(output, content)
    return True


def _made(output: Path, write: Callable[[Path], None]) -> bytes:
    """What a file is to hold."""
    # GDAL knows what a file is by how its name ends.
    with TemporaryDirectory() as folder:
        path = Path(folder) / output.name
        write(path)
        return path.read_bytes()


def _is_there(output: Path, content: bytes, overwrite: bool) -> bool:
    """Whether a file with this content is there and stays.

    Raises:
        TakenError: one of another content is.
    """
    with explained(output):
        if overwrite or not output.exists():
            return False
        there = output.read_bytes()
    if there != content and (_told(there) or there) != _told(content):
        raise TakenError(
            f"{output} is there already, from other rasters, words or hands, and would be lost. "
            "Choose another output, or say --overwrite to replace it."
        )
    return True


def _told(index: bytes) -> list[list[Any]] | None:
    """What an index says, which QGIS does not change where it opens it; None of another file."""
    if not index.startswith(b"SQLite format 3"):
        return None
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            # QGIS lets it say that changes lie in a file beside it, of which memory knows nothing.
            database.deserialize(index[:18] + b"\1\1" + index[20:])
            return [
                database.execute(f"SELECT * FROM {table}").fetchall()
                for table in (LAYER, "gpkg_metadata", "gpkg_spatial_ref_sys")
            ]
    except sqlite3.Error:
        return None


def _write(plan: MosaicPlan, path: Path) -> None:
    if path.name.lower().endswith(VRT):
        write_text(path, _spell_vrt(plan))
    else:
        _write_index(path, plan)


def _check_nothing_computed(plan: MosaicPlan) -> None:
    settings = plan.settings
    default = " (the default)" * (settings.blend == MosaicSettings.blend)
    odd = next((piece.path for piece in plan.pieces if piece.resampled), None)
    reasons = {
        "--match": settings.match,
        "--cutline": settings.cutline,
        "--aoi": settings.aoi,
        "--bands": settings.bands,
        f"--blend {settings.blend}{default}": settings.blend not in ("first", "last")
        and len(plan.places.overlaps()),
    }
    words = [word for word, used in reasons.items() if used]
    unseen = next((piece.path for piece in plan.pieces if piece.unseen_alpha), None)
    if odd is not None:
        raise SettingError(
            f"{odd} does not lie on the mosaic's pixels and would have to be resampled, which a "
            "virtual mosaic does not do. Leave out --virtual, or give rasters on one grid."
        )
    if unseen is not None:
        raise SettingError(
            f"{unseen} says by an alpha band which of its pixels are invalid, which virtual "
            "rasters see only where it is the last of 2 or 4 bands and without a nodata value, so "
            "that they would show those pixels. Leave out --virtual."
        )
    if words:
        raise SettingError(
            f"a virtual mosaic holds no pixels of its own, so it cannot do {' and '.join(words)}. "
            "Choose --blend first or last and nothing that changes pixels, or leave out --virtual."
        )


def _on_top_last(plan: MosaicPlan) -> list[int]:
    """Indexes of the pieces from the lowest to the highest."""
    indexes = list(range(len(plan.pieces)))
    return indexes if plan.settings.blend == "last" else indexes[::-1]


def _spell_vrt(plan: MosaicPlan) -> str:
    pieces = [plan.pieces[index] for index in _on_top_last(plan)]
    return build_vrt(
        [Source(Path(p.path) if p.is_file else p.path, p.window) for p in pieces],
        plan.grid,
        bands=plan.bands,
        dtype=plan.dtype,
        nodata=plan.nodata,
        layered=True,
    )


def _write_index(path: Path, plan: MosaicPlan) -> None:
    # They take half a second to load, which other mosaics need not wait for.
    import geopandas as gpd

    from geotranslate.raster.vectors import outlines, write_geopackage

    pieces = [plan.pieces[index] for index in _on_top_last(plan)]
    rows = {
        "location": [str(Path(p.path).absolute()) if p.is_file else p.path for p in pieces],
        "height": list(range(len(pieces))),
    }
    left, bottom, right, top = plan.grid.bounds
    x, y = plan.grid.resolution
    metadata = {
        "RESX": repr(x),
        "RESY": repr(y),
        "MINX": repr(left),
        "MINY": repr(bottom),
        "MAXX": repr(right),
        "MAXY": repr(top),
    }
    places = outlines([piece.grid for piece in pieces], plan.grid.crs)
    table = gpd.GeoDataFrame(rows, geometry=places)
    gti = build_gti(
        plan.bands, plan.dtype, plan.nodata, masked=plan.nodata is None, sort_field="height"
    )
    write_geopackage(path, table, LAYER, metadata, gti)

"""Many rasters on one grid joined into one; memory grows neither with their number nor size."""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from geotranslate.choices import MosaicBlend
from geotranslate.errors import GridError, RasterError, SettingError
from geotranslate.raster.blend import BLENDS
from geotranslate.raster.domain import Band, encode
from geotranslate.raster.grid import Grid
from geotranslate.raster.output import file_job, record_tags
from geotranslate.raster.scene import Scene, expand_paths, open_scene
from geotranslate.raster.vrt import Source
from geotranslate.raster.warp import check_same_kind
from geotranslate.raster.writing import BLOCK, GeoTiff, write_cog

# Pixels are blended in blocks of this width, so that memory does not grow with the mosaic's.
BLOCK_COLS = 2 * BLOCK

OPEN_AT_ONCE = 64

SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class Piece:
    """One of the rasters to be joined.

    Attributes:
        path: anything GDAL opens.
        window: where it lies on the mosaic's grid.
    """

    path: str
    window: Window


@dataclass(frozen=True)
class MosaicPlan:
    """What will be joined, and into what.

    Attributes:
        pieces: the rasters, in the order in which they are laid.
        blend: a name from :data:`~geotranslate.raster.blend.BLENDS`.
        grid: the smallest that holds all of them.
        bands: names, units, scales and colours of the first raster.
        dtype: numpy's name of the type.
        nodata: what all rasters use for "nothing here"; None where they do not agree, and the
            mosaic gets an internal mask.
        record: what must be the same to go on with this work, as JSON values.
    """

    pieces: tuple[Piece, ...]
    blend: MosaicBlend
    grid: Grid
    bands: tuple[Band, ...]
    dtype: str
    nodata: float | None
    record: dict[str, Any]

    @property
    def steps(self) -> int:
        """How often :func:`write_mosaic` reports: after each strip, and at the end."""
        return len(self.strips) + 1

    @cached_property
    def strips(self) -> tuple[Window, ...]:
        """Rows of blocks as wide as the mosaic, without those where nothing lies."""
        rows, cols = self.grid.shape
        strips = (
            Window(col_off=0, row_off=row, width=cols, height=min(BLOCK, rows - row))
            for row in range(0, rows, BLOCK)
        )
        return tuple(strip for strip in strips if self.meeting(strip))

    def meeting(self, window: Window) -> list[Piece]:
        """The pieces that share pixels with a window, in their order."""
        top, bottom, left, right = self._edges
        meets = (top < window.row_off + window.height) & (bottom > window.row_off)
        meets &= (left < window.col_off + window.width) & (right > window.col_off)
        return [self.pieces[index] for index in np.flatnonzero(meets)]

    @cached_property
    def _edges(self) -> NDArray[np.int64]:
        """(4, pieces): first row, row after the last, first column, column after the last."""
        windows = (piece.window for piece in self.pieces)
        return np.array(
            [(w.row_off, w.row_off + w.height, w.col_off, w.col_off + w.width) for w in windows]
        ).T


def mosaic_rasters(
    inputs: Iterable[str | Path],
    output: Path,
    *,
    blend: MosaicBlend = "feather",
    overwrite: bool = False,
) -> Iterator[int]:
    """Join rasters of one kind, whose pixels lie on one grid, into a cloud-optimized GeoTIFF.

    Invalid pixels weigh nothing; where nothing valid lies, the mosaic is invalid. With
    ``feather`` and ``mean`` the order of the inputs does not matter. Interrupted, it goes on
    with the same inputs where it was.

    Args:
        inputs: rasters, folders and globs.
        output: the file to be.
        blend: what becomes of pixels that several rasters hold: ``feather`` (mean weighted by
            the distance to each raster's rim), ``mean``, ``first`` or ``last`` in the order given.
        overwrite: start over, whatever is there.

    Yields:
        How many of the plan's steps are done; nothing when the output was finished before.

    Raises:
        RasterError: an input cannot be read.
        GridError: the pixels of two inputs do not lie on each other.
        BandError: bands, scales or types of two inputs differ.
        SettingError: the blend is unknown, or the output is one of the inputs or no GeoTIFF.
        OutputError: the output cannot be written, or is there with other words.
    """
    yield from write_mosaic(plan_mosaic(inputs, output, blend=blend), output, overwrite=overwrite)


def plan_mosaic(
    inputs: Iterable[str | Path], output: Path, *, blend: MosaicBlend = "feather"
) -> MosaicPlan:
    """Look at every input without reading its pixels, and find out what they make together.

    Args:
        inputs: rasters, folders and globs; a folder may hold the output itself.
        output: the file to be.
        blend: as for :func:`mosaic_rasters`.

    Raises:
        RasterError: an input cannot be read.
        GridError: the pixels of two inputs do not lie on each other.
        BandError: bands, scales or types of two inputs differ.
        SettingError: the blend is unknown, or the output is one of the inputs or no GeoTIFF.
    """
    if blend not in BLENDS:
        raise SettingError(f"blend {blend!r} is unknown. Choose one of {', '.join(BLENDS)}.")
    if output.suffix.lower() not in SUFFIXES:
        raise SettingError(
            f"{output} is not named like a GeoTIFF, which a mosaic always is, so other programs "
            f"would take it for something else. Name it {output.with_suffix(SUFFIXES[0])}."
        )
    paths = _find_inputs(list(inputs), output)
    if not BLENDS[blend].ordered:
        # Sums of floats depend on their order: the same rasters shall give the same bytes.
        paths.sort()
    grids, identities, nodata = [], [], []
    with open_scene(paths[0]) as first:
        for path in paths:
            with open_scene(path) as scene:
                check_same_kind(first, scene)
                _check_aligned(first, scene)
                grids.append(scene.grid)
                identities.append(scene.identity())
                nodata.append(scene.nodata)
    grid, windows = _join_grids(grids)
    return MosaicPlan(
        pieces=tuple(map(Piece, paths, windows)),
        blend=blend,
        grid=grid,
        bands=first.bands,
        dtype=first.dtype,
        # repr, since NaN does not equal NaN.
        nodata=nodata[0] if len(set(map(repr, nodata))) == 1 else None,
        record={
            "command": "mosaic",
            "blend": blend,
            "rasters": _name_rasters(identities, ordered=BLENDS[blend].ordered),
        },
    )


def write_mosaic(plan: MosaicPlan, output: Path, *, overwrite: bool = False) -> Iterator[int]:
    """Carry out a plan, strip by strip.

    Args:
        plan: made for this output.
        output: the file to be.
        overwrite: start over, whatever is there.

    Yields:
        How many of ``plan.steps`` are done; nothing when the output was finished before.

    Raises:
        RasterError: an input is damaged.
        OutputError: the output cannot be written, or is there with other words.
    """
    with file_job(output, plan.record, overwrite=overwrite) as job:
        if job.finished:
            return
        sources = [
            Source(job.parts / f"rows_{strip.row_off:08d}.tif", strip) for strip in plan.strips
        ]
        with closing(_OpenScenes()) as scenes:
            for done, source in enumerate(sources, start=1):
                if not source.path.exists():
                    _write_strip(source, plan, scenes)
                yield done
        write_cog(
            job.output,
            sources,
            plan.grid,
            bands=plan.bands,
            dtype=plan.dtype,
            nodata=plan.nodata,
            tags=record_tags(job.record),
            scratch=job.parts,
        )
    yield plan.steps


def _write_strip(strip: Source, plan: MosaicPlan, scenes: _OpenScenes) -> None:
    rows, cols = int(strip.window.height), plan.grid.width
    grid = plan.grid.window_grid(strip.window)
    with GeoTiff(strip.path, grid, bands=plan.bands, dtype=plan.dtype, nodata=plan.nodata) as file:
        for col in range(0, cols, BLOCK_COLS):
            width = min(BLOCK_COLS, cols - col)
            block = Window(col_off=col, row_off=strip.window.row_off, width=width, height=rows)
            values, valid = _blend_block(block, plan, scenes)
            pixels = encode(values, valid, dtype=plan.dtype, nodata=plan.nodata)
            file.write(_moved(block, strip.window), pixels, valid)


def _blend_block(
    block: Window, plan: MosaicPlan, scenes: _OpenScenes
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values (bands, rows, cols) and validity (rows, cols) of a window of the mosaic."""
    blend = BLENDS[plan.blend]
    canvas = blend.canvas(len(plan.bands), (block.height, block.width), plan.dtype)
    pieces = plan.meeting(block)
    for piece in reversed(pieces) if blend.backwards else pieces:
        shared = piece.window.intersection(block)
        place = _moved(shared, block).toslices()
        if canvas.is_full(place):
            continue
        part = _moved(shared, piece.window)
        rows, cols = part.toslices()
        weights = np.outer(
            blend.weigh(piece.window.height)[rows], blend.weigh(piece.window.width)[cols]
        )
        chip = scenes.get(piece.path).read(part)
        canvas.lay(place, chip.pixels, chip.valid, weights)
    return canvas.values, canvas.valid


def _moved(window: Window, origin: Window) -> Window:
    """A window of the mosaic, counted from the first pixel of another."""
    return Window(
        col_off=window.col_off - origin.col_off,
        row_off=window.row_off - origin.row_off,
        width=window.width,
        height=window.height,
    )


class _OpenScenes:
    """Keeps the scenes used last open: thousands would exceed what the system allows."""

    def __init__(self) -> None:
        self._scenes: OrderedDict[str, Scene] = OrderedDict()

    def get(self, path: str) -> Scene:
        """The scene at a path, opened if it is not."""
        scene = self._scenes.pop(path, None) or open_scene(path)
        self._scenes[path] = scene
        if len(self._scenes) > OPEN_AT_ONCE:
            _, oldest = self._scenes.popitem(last=False)
            oldest.close()
        return scene

    def close(self) -> None:
        """Close all of them."""
        while self._scenes:
            self._scenes.popitem()[1].close()


def _find_inputs(inputs: Sequence[str | Path], output: Path) -> list[str]:
    """The paths that inputs stand for, each file once, without the output in a folder given."""
    target = output.resolve()
    if target in {Path(given).resolve() for given in inputs}:
        raise SettingError(
            f"{output} is one of the rasters to be joined, and writing it would destroy it. "
            "Choose another output."
        )
    paths: dict[Path, str] = {}
    for path in expand_paths(inputs):
        paths.setdefault(Path(path).resolve(), path)
    paths.pop(target, None)
    if not paths:
        raise RasterError(
            f"there is nothing to join: the inputs hold no raster but {output} itself. "
            "Give rasters, folders or globs."
        )
    return list(paths.values())


def _check_aligned(first: Scene, other: Scene) -> None:
    """Refuse a scene whose pixels do not lie on the first one's grid.

    Raises:
        GridError: with the command that brings it there.
    """
    if first.grid.is_aligned(other.grid):
        return
    raise GridError(
        f"the pixels of {other.path} do not lie on those of {first.path} "
        f"({_misfit(first.grid, other.grid)}), so joining them would shift or resample them. "
        f"{_mend(first.grid, other)}."
    )


def _misfit(ours: Grid, theirs: Grid) -> str:
    """How two grids differ, in a few words."""
    if ours.crs != theirs.crs:
        return f"{theirs.crs.to_string()} instead of {ours.crs.to_string()}"
    steps, their_steps = ((g.transform.a, g.transform.e) for g in (ours, theirs))
    if not np.allclose(steps, their_steps, rtol=1e-6):
        return "steps of {:.10g}, {:.10g} instead of {:.10g}, {:.10g}".format(*their_steps, *steps)
    x, y = ~ours.transform @ (theirs.transform.c, theirs.transform.f)
    return f"shifted by {x - round(x):.3f} px along rows, {y - round(y):.3f} px along columns"


def _mend(ours: Grid, other: Scene) -> str:
    """The command that brings a scene onto the pixels of a grid."""
    turned = ours.transform.a < 0 or ours.transform.e > 0
    if turned or not (ours.crs.is_projected or ours.crs.is_geographic):
        return "Warp all of them to one north-up grid: `gdalwarp -t_srs ... -tr ... -tap`"
    box = transform_bounds(other.grid.crs, ours.crs, *other.grid.bounds)
    corners = [~ours.transform @ corner for corner in (box[:2], box[2:])]
    (left, right), (top, bottom) = map(sorted, zip(*corners, strict=True))
    left, top = math.floor(left), math.floor(top)
    width, height = math.ceil(right) - left, math.ceil(bottom) - top
    window = Window(col_off=left, row_off=top, width=width, height=height)
    extent = " ".join(map(repr, ours.window_grid(window).bounds))
    return (
        f"Warp it: `gdalwarp -t_srs {ours.crs.to_string()} -te {extent} -ts {width} {height} "
        f"{other.path} aligned.tif`"
    )


def _join_grids(grids: Sequence[Grid]) -> tuple[Grid, list[Window]]:
    """The smallest grid that holds all, which are aligned, and the window of each in it."""
    windows = [grid.window_in(grids[0]) for grid in grids]
    corner = Window(
        col_off=min(window.col_off for window in windows),
        row_off=min(window.row_off for window in windows),
        width=0,
        height=0,
    )
    windows = [_moved(window, corner) for window in windows]
    # Its corner is taken from rasters that lie there, not computed: sums of floats are inexact.
    left = next(g for g, window in zip(grids, windows, strict=True) if window.col_off == 0)
    top = next(g for g, window in zip(grids, windows, strict=True) if window.row_off == 0)
    step = grids[0].transform
    grid = Grid(
        grids[0].crs,
        Affine(step.a, 0.0, left.transform.c, 0.0, step.e, top.transform.f),
        width=max(window.col_off + window.width for window in windows),
        height=max(window.row_off + window.height for window in windows),
    )
    return grid, windows


def _name_rasters(identities: Sequence[dict[str, Any]], *, ordered: bool) -> dict[str, str]:
    """What must stay the same of each raster, by its path and, if it matters, its place.

    Sizes and dates are for the person who is told of a change; a short digest stands for the rest.
    """
    named = {}
    for place, identity in enumerate(identities, start=1):
        path, files = identity["path"], identity["files"]
        size, newest = sum(file[1] for file in files), max((file[2] for file in files), default=0)
        date = datetime.fromtimestamp(newest / 1e9, UTC).isoformat(" ", "seconds")
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
        named[f"{place} {path}" if ordered else path] = f"{size} bytes of {date}, {digest}"
    return named

"""The pixels of a mosaic: strip by strip, several at once, and at last one file."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geotranslate.errors import OutputError, SettingError, reason
from geotranslate.raster.blend import FirstValid
from geotranslate.raster.disk import check_room_for_cogs
from geotranslate.raster.domain import encode
from geotranslate.raster.edges import Extent
from geotranslate.raster.grid import split_window
from geotranslate.raster.job import FileJob, file_job, is_finished
from geotranslate.raster.mosaic.adjustment import Adjustment
from geotranslate.raster.mosaic.layers import Layers, moved
from geotranslate.raster.mosaic.match import check_joined, match_scenes, match_tags
from geotranslate.raster.mosaic.plan import MosaicPlan
from geotranslate.raster.output import record_tags
from geotranslate.raster.reading import open_many
from geotranslate.raster.scene import open_scene
from geotranslate.raster.vrt import Source, build_vrt
from geotranslate.raster.writing import BLOCK, GeoTiff, check_crs, write_cog

SUFFIXES = (".tif", ".tiff")

# What GDAL says where a file that it copies from is to blame, and not the one it writes.
READING_FAILED = re.compile("read(?!-only)|decod|no such file", re.IGNORECASE)

# Pixels are blended in blocks of this width, so that memory does not grow with the mosaic's.
BLOCK_COLS = 2 * BLOCK

# Threads that write strips; each holds a block in memory.
MOST_THREADS = 4

# Strips that a thread writes one below the other, so that scenes that lie in two are opened once.
RUN_STRIPS = 4

# What the values of a block that lie on each other may take before it is worked on in parts.
STACK_BYTES = 1 << 27


def write_mosaic(plan: MosaicPlan, output: Path, *, overwrite: bool = False) -> Iterator[int]:
    """Carry out a plan.

    Args:
        plan: made for this output.
        output: the file to be.
        overwrite: replace what is there.

    Yields:
        How many of ``plan.steps`` are done; nothing when the output was finished before.

    Raises:
        RasterError: an input is damaged.
        SettingError: the output is no GeoTIFF, or scenes cannot be matched.
        GridError: a GeoTIFF cannot hold the CRS.
        OutputError: the output cannot be written, or is there with other words.
    """
    check_mosaic(plan, output, overwrite=overwrite)
    with file_job(output, plan.record, overwrite=overwrite) as job:
        if job.finished:
            return
        adjustments = yield from match_scenes(plan, job.parts)
        # Of several threads each may find the same extent, once.
        extents: dict[str, Extent] = {}
        sources = []
        for source in _write_strips(plan, job, adjustments, extents):
            sources.append(source)
            yield len(plan.pairs) + len(sources)
        sources.sort(key=lambda source: source.window.row_off)
        _join(plan, job, sources, match_tags(plan, adjustments))
    yield plan.steps


def check_mosaic(plan: MosaicPlan, output: Path, *, overwrite: bool = False) -> None:
    """Refuse what :func:`write_mosaic` would refuse before it reads a pixel.

    Raises:
        SettingError: the output is not named like a GeoTIFF, or scenes that are to be matched
            do not overlap.
        GridError: a GeoTIFF cannot hold the CRS.
        OutputError: the disk is too small, or the output is there or begun, with other words.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise SettingError(
            f"{output} is not named like a GeoTIFF, which a mosaic always is, so other programs "
            f"would take it for something else. Name it {output.with_suffix(SUFFIXES[0])}, or say "
            "--virtual for an index named .vrt."
        )
    check_crs(plan.grid)
    if plan.settings.match is not None:
        check_joined([piece.path for piece in plan.pieces], plan.pairs)
    if not is_finished(output, plan.record, overwrite=overwrite):
        check_room_for_cogs(output, [plan.size_bytes], plan.passing_bytes)


def _write_strips(
    plan: MosaicPlan,
    job: FileJob,
    adjustments: Sequence[Adjustment | None],
    extents: dict[str, Extent],
) -> Iterator[Source]:
    """Write the strips that are not there yet; what each leaves, as it is finished."""
    stop = threading.Event()
    done: SimpleQueue[Source | Future[None]] = SimpleQueue()

    def write(strip: Window, layers: Layers) -> Source:
        stem = job.parts / f"rows_{strip.row_off:08d}"
        if plan.is_copy(strip):
            path = stem.with_suffix(".vrt")
            path.write_text(_spell_links(strip, plan), encoding="utf-8")
            return Source(path, strip)
        path = stem.with_suffix(".tif")
        if not path.exists():
            _write_strip(path, strip, plan, layers, stop)
        return Source(path, strip)

    def write_run(strips: Sequence[Window]) -> None:
        with closing(Layers(plan, adjustments, extents)) as layers:
            for strip in strips:
                done.put(write(strip, layers))

    workers = min(os.cpu_count() or 1, MOST_THREADS, len(plan.strips))
    length = min(RUN_STRIPS, -(-len(plan.strips) // workers))
    runs = [plan.strips[start : start + length] for start in range(0, len(plan.strips), length)]
    with ThreadPoolExecutor(workers, initializer=open_many) as threads:
        try:
            for run in runs:
                threads.submit(write_run, run).add_done_callback(done.put)
            ended = 0
            while ended < len(runs):
                finished = done.get()
                if isinstance(finished, Source):
                    yield finished
                else:
                    finished.result()
                    ended += 1
        finally:
            # Left early, by an error or by the user: what has begun ends after its block.
            stop.set()
            threads.shutdown(cancel_futures=True)


class _StoppedError(Exception):
    """Nobody waits for this strip any more."""


def _write_strip(
    path: Path, strip: Window, plan: MosaicPlan, layers: Layers, stop: threading.Event
) -> None:
    grid = plan.grid.window_grid(strip)
    with GeoTiff(
        path, grid, bands=plan.bands, dtype=plan.dtype, nodata=plan.nodata, passing=True
    ) as file:
        for block in split_window(strip, int(strip.height), BLOCK_COLS):
            if stop.is_set():
                raise _StoppedError
            values, valid = _fill_block(block, plan, layers)
            pixels = encode(values, valid, dtype=plan.dtype, nodata=plan.nodata)
            file.write(moved(block, strip), pixels, valid)


def _spell_links(strip: Window, plan: MosaicPlan) -> str:
    """A strip of pieces that do not overlap, as a virtual raster of parts of their files."""
    pieces = [plan.pieces[index] for index in plan.places.meeting(strip)]
    return build_vrt(
        [Source(Path(p.path), moved(p.window, strip), p.geotiff) for p in pieces],
        plan.grid.window_grid(strip),
        bands=plan.bands,
        dtype=plan.dtype,
        nodata=plan.nodata,
    )


def _fill_block(
    block: Window, plan: MosaicPlan, layers: Layers
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values (bands, rows, cols) and validity (rows, cols) of a window of the mosaic."""
    halves = _halved(block, plan)
    if halves:
        parts = [_fill_block(half, plan, layers) for half in halves]
        axis = -1 if halves[0].row_off == halves[1].row_off else -2
        values, valid = (np.concatenate(part, axis=axis) for part in zip(*parts, strict=True))
    else:
        values, valid = _blend_block(block, plan, layers)
    return values, valid


def _blend_block(
    block: Window, plan: MosaicPlan, layers: Layers
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    blend = plan.blend
    pieces = plan.places.meeting(block).tolist()
    # Where nothing lies on anything there is nothing to weigh.
    overlapping = len(pieces) > 1 and len(plan.places.overlaps(block)) > 0
    canvas = (blend.canvas if overlapping else FirstValid)(
        len(plan.bands), (int(block.height), int(block.width)), plan.work_dtype
    )
    for index in reversed(pieces) if blend.backwards else pieces:
        shared = plan.pieces[index].window.intersection(block)
        if canvas.is_full(moved(shared, block).toslices()):
            continue
        part = layers.read(index, block, weighted=overlapping and blend.weights is not None)
        if part is not None:
            canvas.lay(part.place, part.pixels, part.valid, part.weights)
    valid = canvas.valid
    if plan.area is not None:
        valid = valid & plan.area.inside(plan.grid.window_grid(block))
    return canvas.values, valid


def _halved(block: Window, plan: MosaicPlan) -> list[Window]:
    """A block in two where a stack of all its pieces would not fit; else nothing."""
    height, width = int(block.height), int(block.width)
    bands = len(plan.bands) * np.dtype(plan.work_dtype).itemsize
    depth = len(plan.places.meeting(block)) if plan.blend.stacks else 0
    if depth * height * width * bands <= STACK_BYTES or max(height, width) < 2:
        return []
    row, col = int(block.row_off), int(block.col_off)
    if width >= height:
        cut = width // 2
        return [
            Window(col_off=col, row_off=row, width=cut, height=height),
            Window(col_off=col + cut, row_off=row, width=width - cut, height=height),
        ]
    cut = height // 2
    return [
        Window(col_off=col, row_off=row, width=width, height=cut),
        Window(col_off=col, row_off=row + cut, width=width, height=height - cut),
    ]


def _join(plan: MosaicPlan, job: FileJob, sources: Sequence[Source], tags: dict[str, str]) -> None:
    try:
        write_cog(
            job.output,
            sources,
            plan.grid,
            bands=plan.bands,
            dtype=plan.dtype,
            nodata=plan.nodata,
            tags=record_tags(job.record) | tags,
            overviews="nearest" if plan.settings.resampling == "nearest" else "average",
            inputs=plan.files,
            scratch=job.parts,
            row_bytes=plan.copied_row_bytes,
        )
    except OutputError as error:
        # Where GDAL read the scenes themselves, one of them may be to blame.
        if error.__cause__ and READING_FAILED.search(reason(error.__cause__)):
            copied = {
                int(index): None
                for strip in plan.strips
                if plan.is_copy(strip)
                for index in plan.places.meeting(strip)
            }
            for index in copied:
                _read_all(plan.pieces[index].path)
        raise


def _read_all(path: str) -> None:
    """Read a scene from end to end.

    Raises:
        RasterError: it is damaged.
    """
    with open_scene(path) as scene:
        for strip in split_window(scene.grid.whole, BLOCK, scene.grid.width):
            scene.read(strip)

"""Scenes translated whole: window by window through a generator, back onto the scene's own grid.

Each finished row of cores is a small GeoTIFF beside the output; at the end they become one
cloud-optimized GeoTIFF. So memory does not grow with the scene, and interrupted work goes on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import WindowError
from rasterio.windows import Window

from geotranslate.chips.area import Area, read_area
from geotranslate.choices import PREDICT_BLENDS, Precision, PredictBlend, PredictDecibel
from geotranslate.errors import GridError, SettingError
from geotranslate.raster.cores import Core, core_size, plan_cores
from geotranslate.raster.domain import Domain
from geotranslate.raster.grid import Grid
from geotranslate.raster.output import check_same_work, file_job, read_record, record_tags
from geotranslate.raster.scene import RASTER_SUFFIXES, Chip, Scene, expand_paths
from geotranslate.raster.vrt import Source
from geotranslate.raster.writing import BLOCK, GeoTiff, write_cog
from geotranslate.translation.bundle import Direction, load_bundle
from geotranslate.translation.engine import Engine, Translate
from geotranslate.translation.precision import choose_arithmetic, choose_device
from geotranslate.translation.preflight import check_scene, open_matching

BATCH_PIXELS = 1024 * 1024
"""What the cores of one batch hold, where the user names no batch."""

ROW_BLOCK = BLOCK // 2
"""Side of the blocks of a row's file."""

GEOTIFF_SUFFIXES = {".tif", ".tiff"}

State = Literal["translating", "joining", "written", "unchanged"]
Bounds = tuple[float, float, float, float]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Attributes:
        done: finished steps of all scenes: a core each, and joining them is one more.
        total: steps of all scenes.
        output: the file that is being made.
        state: ``translating``; ``joining`` the rows; ``written``, when the output is complete; or
            ``unchanged``, where the same words had completed it before.
        pixels: valid pixels that this step translated.
    """

    done: int
    total: int
    output: Path
    state: State
    pixels: int = 0


def predict_scenes(
    model: str | Path,
    scenes: Iterable[str | Path],
    output: str | Path,
    *,
    direction: Direction = "ab",
    size: int = 1024,
    blend: PredictBlend = "crop",
    batch: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    bands: str | Sequence[int | str] | None = None,
    nodata: float | None = None,
    decibel: PredictDecibel | None = None,
    aoi: str | Path | None = None,
    bounds: Bounds | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> Iterator[Progress]:
    """Translate scenes, each onto its own grid, into the target's bands, units and type.

    Invalid pixels stay invalid. The result does not depend on ``size``, ``batch``, ``aoi`` and
    ``bounds`` but for rounding, unless the generator has instance normalization. Everything is
    checked at once; the work is done as the result is iterated over. Interrupted, it goes on with
    the same words where it was.

    Args:
        model: a bundle, or the folder of a run.
        scenes: rasters, folders and globs.
        output: a GeoTIFF for one scene, or a folder, which gets ``NAME.tif`` for each scene.
        direction: ``ab``, or ``ba`` for the way back.
        size: side of a core in pixels, rounded up to what the generator and the output need.
        blend: how windows become one raster; ``crop`` writes each core once.
        batch: windows translated at once; by default so many that their cores are a megapixel.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: arithmetic of the convolutions; ``auto`` is bf16 where the hardware has it.
        bands: numbers or names in the model's order; by default by name, else in their order.
        nodata: value that means "nothing here", where the files do not say.
        decibel: how to turn linear values into decibels; by default as the model's data was.
        aoi: a vector file; pixels whose centre is outside its polygons come out invalid.
        bounds: (left, bottom, right, top) in each scene's CRS, of what is to be translated.
        overwrite: start over, whatever is there.
        force: only warn of pixel sizes and values that the model does not know.

    Yields:
        Progress at the start of each scene, after each core and each output.

    Raises:
        BundleError: there is no model, it is damaged, or has no way back.
        RasterError: a scene cannot be read.
        BandError: a scene has other bands than the model takes.
        GridError: nothing lies inside bounds and area, or the pixel size is off by a factor of 2.
        SettingError: a setting cannot work, two scenes would get one output, most values are none
            the model knows, or a batch does not fit into the GPU's memory.
        OutputError: an output cannot be written, or is there already, made by other words.
    """
    if blend not in PREDICT_BLENDS:
        raise SettingError(
            f"blend {blend!r} is unknown. Choose one of {', '.join(PREDICT_BLENDS)}."
        )
    if nodata is not None and math.isnan(nodata):
        nodata = None  # NaN is invalid anyway
    paths = expand_paths(scenes)
    outputs = _name_outputs(paths, Path(output))
    bundle = load_bundle(Path(model))
    translator = bundle.translator(direction)
    place = choose_device(device)
    engine = Engine(translator, place, choose_arithmetic(precision, place))
    stride, halo = translator.generator.stride, translator.generator.halo
    size = core_size(size, stride=stride, block=ROW_BLOCK)
    # No batch here: it only changes how fast the work is done, and may have to change to go on. No
    # version of geotranslate either: what is finished stays finished after an upgrade.
    words = {
        "command": "predict",
        "model": bundle.identity,
        "direction": direction,
        "size": size,
        "blend": blend,
        "device": place.type,
        "precision": engine.arithmetic,
        "nodata": nodata,
        "decibel": decibel,
        "bounds": bounds,
    }
    plans = []
    for path, target in zip(paths, outputs, strict=True):
        open_again = partial(
            open_matching, path, translator.source, bands=bands, nodata=nodata, decibel=decibel
        )
        with open_again() as scene:
            area = read_area(aoi, scene.grid.crs, scene.grid.bounds) if aoi else None
            part = _wanted_part(path, scene.grid, bounds, area)
            aoi_words = {"aoi": area.identity if area else None}
            record = words | aoi_words | {"scene": scene.identity()}
            _check_output(target, record, overwrite=overwrite)
            check_scene(scene, translator.source, part, force=force)
            rows = plan_cores(scene.grid.shape, part, size=size, stride=stride, halo=halo)
            grid = scene.grid.window_grid(part)
        plans.append(_Plan(open_again, target, part, grid, area, rows, record))
    return _carry_out(plans, engine, _batch(batch, size), overwrite=overwrite)


@dataclass(frozen=True)
class _Plan:
    """One scene to be translated.

    Attributes:
        open: opens it with the model's bands.
        output: the file to be.
        part: the window of the scene that is wanted.
        grid: of the part and of the output.
        area: pixels outside it come out invalid.
        rows: cores, row by row.
        record: what must be the same to go on with this work, as JSON values.
    """

    open: Callable[[], Scene]
    output: Path
    part: Window
    grid: Grid
    area: Area | None
    rows: list[list[Core]]
    record: dict[str, Any]

    @property
    def steps(self) -> int:
        """How many there are: a core each, and joining them."""
        return sum(map(len, self.rows)) + 1

    def window_of(self, row: Sequence[Core]) -> Window:
        """Where a row of cores lies in the output."""
        span = row[0].rows
        return Window(
            col_off=0,
            row_off=span.start - self.part.row_off,
            width=self.part.width,
            height=span.end - span.start,
        )


@dataclass(frozen=True)
class _Reading:
    """What was read for a core.

    Attributes:
        core: what is to be written.
        wanted: (rows, cols) of the core, True where the output is to hold data.
        chip: of the window read; None where nothing is wanted.
    """

    core: Core
    wanted: NDArray[np.bool_]
    chip: Chip | None


@dataclass(frozen=True)
class _Piece:
    """A part of the output.

    Attributes:
        window: in the scene.
        values: (bands, rows, cols) as the target stores them, but not rounded.
        valid: (rows, cols).
    """

    window: Window
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]


def _carry_out(
    plans: Sequence[_Plan], engine: Engine, batch: int, *, overwrite: bool
) -> Iterator[Progress]:
    done, total = 0, sum(plan.steps for plan in plans)
    for plan in plans:
        yield Progress(done, total, plan.output, "translating")
        for state, steps, pixels in _write_scene(plan, engine, batch, overwrite=overwrite):
            done += steps
            yield Progress(done, total, plan.output, state, pixels)


def _write_scene(
    plan: _Plan, engine: Engine, batch: int, *, overwrite: bool
) -> Iterator[tuple[State, int, int]]:
    """Yield a state, how many steps were finished since the last, and their valid pixels."""
    target = engine.target
    with file_job(plan.output, plan.record, overwrite=overwrite) as job:
        if job.finished:
            yield "unchanged", plan.steps, 0
            return
        sources = [
            Source(job.parts / f"rows_{row[0].rows.start:08d}.tif", plan.window_of(row))
            for row in plan.rows
        ]
        # The reader is left before the scene: nobody may read what is being closed.
        with plan.open() as scene, ThreadPoolExecutor(max_workers=1) as reader:
            read = partial(_read, scene, plan.area)
            translate = engine.on(scene)
            for row, source in zip(plan.rows, sources, strict=True):
                if source.path.exists():
                    yield "translating", len(row), 0
                    continue
                readings = _ahead(reader, read, row, depth=batch)
                pieces = _crop(readings, translate, batch, bands=len(target.bands))
                for piece in _write_row(source, plan, target, pieces):
                    yield "translating", 1, int(piece.valid.sum())
        yield "joining", 0, 0
        write_cog(
            job.output,
            sources,
            plan.grid,
            bands=target.bands,
            dtype=target.dtype,
            nodata=target.nodata,
            tags=record_tags(job.record),
            scratch=job.parts,
        )
    yield "written", 1, 0


def _read(scene: Scene, area: Area | None, core: Core) -> _Reading:
    grid = scene.grid.window_grid(core.window)
    wanted = area.inside(grid) if area else np.ones(grid.shape, bool)
    if not wanted.any():
        return _Reading(core, wanted, None)
    chip = scene.read_reflected(core.read_window)
    wanted &= chip.valid[core.written]
    return _Reading(core, wanted, chip if wanted.any() else None)


def _ahead(
    worker: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, depth: int
) -> Iterator[Result]:
    """Results in the items' order, up to ``depth`` of them made before they are asked for."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(worker.submit(function, item))
        if len(pending) > depth:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _crop(
    readings: Iterable[_Reading], translate: Translate, batch: int, *, bands: int
) -> Iterator[_Piece]:
    """Translate windows, those of one shape together, and keep of each its core."""
    waiting: list[tuple[_Reading, Chip]] = []
    for reading in readings:
        chip = reading.chip
        if chip is None:
            nothing = np.zeros((bands, *reading.wanted.shape), np.float32)
            yield _Piece(reading.core.window, nothing, reading.wanted)
            continue
        if waiting and (len(waiting) == batch or chip.grid.shape != waiting[0][1].grid.shape):
            yield from _translate_cores(waiting, translate)
            waiting = []
        waiting.append((reading, chip))
    if waiting:
        yield from _translate_cores(waiting, translate)


def _translate_cores(
    group: Sequence[tuple[_Reading, Chip]], translate: Translate
) -> Iterator[_Piece]:
    pixels = np.stack([chip.pixels for _, chip in group])
    valid = np.stack([chip.valid for _, chip in group])
    for (reading, _), values in zip(group, translate(pixels, valid), strict=True):
        rows, cols = reading.core.written
        yield _Piece(reading.core.window, values[:, rows, cols], reading.wanted)


def _write_row(
    source: Source, plan: _Plan, target: Domain, pieces: Iterable[_Piece]
) -> Iterator[_Piece]:
    """Write a row of cores into its file, and pass on each piece once it is written."""
    row_off = plan.part.row_off + source.window.row_off
    with GeoTiff(
        source.path,
        plan.grid.window_grid(source.window),
        bands=target.bands,
        dtype=target.dtype,
        nodata=target.nodata,
    ) as file:
        for piece in pieces:
            window = Window(
                col_off=piece.window.col_off - plan.part.col_off,
                row_off=piece.window.row_off - row_off,
                width=piece.window.width,
                height=piece.window.height,
            )
            file.write(window, target.encode(piece.values, piece.valid), piece.valid)
            yield piece


def _name_outputs(paths: Sequence[str], output: Path) -> list[Path]:
    """The file that each scene becomes.

    Raises:
        SettingError: two scenes would become one file, or the output is no GeoTIFF.
    """
    suffix = output.suffix.lower()
    if suffix in RASTER_SUFFIXES - GEOTIFF_SUFFIXES and not output.is_dir():
        raise SettingError(
            f"translations are written as GeoTIFF, which {output} would not be taken for. Choose "
            f"{output.with_suffix('.tif')}."
        )
    if suffix in GEOTIFF_SUFFIXES and not output.is_dir():
        if len(paths) > 1:
            raise SettingError(
                f"{len(paths)} scenes cannot become one file, {output}. Give a folder, such as "
                f"{output.with_suffix('')}; `geotranslate mosaic` joins what is in it."
            )
        return [output]
    scenes: dict[str, str] = {}
    for path in paths:
        stem = _stem(path)
        if stem.lower() in scenes:
            raise SettingError(
                f"{scenes[stem.lower()]} and {path} would both become {output / stem}.tif. "
                "Translate them one by one, into two folders."
            )
        scenes[stem.lower()] = path
    return [output / f"{_stem(path)}.tif" for path in paths]


def _stem(path: str) -> str:
    """The name of what a GDAL path points at, without suffix."""
    return PurePosixPath(path.replace("\\", "/").split("?")[0]).stem


def _wanted_part(path: str, grid: Grid, bounds: Bounds | None, area: Area | None) -> Window:
    """The window of a scene that is to be translated.

    Raises:
        GridError: no pixel is.
    """
    part = Window(col_off=0, row_off=0, width=grid.width, height=grid.height)
    if bounds is not None:
        part = grid.window_of(bounds)
    if area is None:
        return part
    if not area.shape.is_empty:
        with suppress(GridError, WindowError):
            return part.intersection(grid.window_of(area.bounds))
    left, bottom, right, top = grid.window_grid(part).bounds
    raise GridError(
        f"the area of interest {area.path} shares no pixel with the part of {path} that is "
        f"wanted, {left:.10g} to {right:.10g} by {bottom:.10g} to {top:.10g} in {grid.crs}: "
        "nothing would be left. Give an area that overlaps it."
    )


def _check_output(output: Path, record: dict[str, Any], *, overwrite: bool) -> None:
    """Refuse early what would be refused, or destroyed, when its turn comes.

    Raises:
        SettingError: the output is the scene itself.
        OutputError: it is there already, made by other words.
    """
    if output.resolve() in {Path(name).resolve() for name, *_ in record["scene"]["files"]}:
        raise SettingError(
            f"{output} is the scene that is to be translated, and writing it would destroy it. "
            "Choose another output."
        )
    if output.exists() and not overwrite:
        check_same_work(output, read_record(output), record)


def _batch(batch: int | None, size: int) -> int:
    """The batch asked for, or one of about a megapixel."""
    if batch is None:
        return max(1, BATCH_PIXELS // size**2)
    if batch < 1:
        raise SettingError(
            f"batch is {batch}, so no window would ever be translated. Choose a batch from 1."
        )
    return batch

"""One scene through the stages: read, translate, blend where cores overlap, write."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geotranslate.raster.area import Area
from geotranslate.raster.cores import Core
from geotranslate.raster.domain import Domain
from geotranslate.raster.reading import bounded_cache
from geotranslate.raster.scene import Chip, Scene
from geotranslate.raster.strip import Strip
from geotranslate.raster.vrt import Source
from geotranslate.raster.writing import GeoTiff
from geotranslate.translation.engine import Engine
from geotranslate.translation.scene_plan import ScenePlan
from geotranslate.translation.stages import stage

Row = Sequence[Core]

READING_CACHE = 64 * 2**20
"""Bytes of decoded blocks that GDAL keeps: what two windows share, and what is being written."""


@dataclass(frozen=True)
class Reading:
    """What was read for a core.

    Attributes:
        core: what is to be translated.
        wanted: (rows, cols) of the core, True where the output is to hold data.
        chip: of the window read; None where nothing is wanted.
    """

    core: Core
    wanted: NDArray[np.bool_]
    chip: Chip | None


@dataclass(frozen=True)
class Piece:
    """A part of the output.

    Attributes:
        core: that it belongs to.
        values: (bands, rows, cols) as the target stores them, rounded or not; None where all is
            invalid.
        valid: (rows, cols).
    """

    core: Core
    values: NDArray[Any] | None
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Written:
    """Pieces that are in their file.

    Attributes:
        row: number of their row among the plan's.
        cores: how many they are.
        pixels: valid ones.
    """

    row: int
    cores: int
    pixels: int


def translate_rows(
    plan: ScenePlan,
    engine: Engine,
    rows: Mapping[int, Row],
    files: Mapping[int, Source],
    batch: int,
) -> Iterator[Written]:
    """Translate rows of cores and write those that have a file.

    Reading, computing, blending and writing overlap, each in a thread of its own but for the
    network, which computes in the caller's. A file gets its name when its row is complete, and
    its bytes do not depend on which other rows are translated in the same call.

    Args:
        plan: the scene.
        engine: made for it.
        rows: by their numbers, in order; where cores overlap, with those above that have a share
            in a row with a file.
        files: where rows are written, by their numbers.
        batch: windows translated at once.
    """
    cores = [core for row in rows.values() for core in row]
    # Each stage is left before the one it takes from: the writer first, the reader last.
    with closing(stage(_reader(plan), cores, depth=batch)) as readings:
        batches = _translate(readings, engine, batch, rounded=not plan.blended)
        if plan.blended:
            strip = Strip(list(rows.values()), len(engine.target.bands))
            batches = stage(nullcontext(partial(_blend, strip)), batches, depth=1)
        writer = RowWriter(plan, engine.target, rows, files)
        with closing(batches), closing(stage(writer, batches, depth=1)) as written:
            yield from written


@contextmanager
def _reader(plan: ScenePlan) -> Iterator[Callable[[Core], Reading]]:
    with plan.open() as scene:
        rows = plan.lattice.size + 2 * plan.lattice.halo
        with bounded_cache(READING_CACHE + rows * scene.striped_bytes):
            yield partial(read_core, scene, plan.area)


def read_core(scene: Scene, area: Area | None, core: Core) -> Reading:
    """Read a core's window, unless nothing of the core is wanted."""
    grid = scene.grid.window_grid(core.core_window)
    wanted = area.inside(grid) if area else np.ones(grid.shape, bool)
    if not wanted.any():
        return Reading(core, wanted, None)
    chip = scene.read_reflected(core.read_window)
    wanted &= chip.valid[core.trusted]
    return Reading(core, wanted, chip if wanted.any() else None)


def _translate(
    readings: Iterable[Reading], engine: Engine, batch: int, *, rounded: bool
) -> Generator[list[Piece]]:
    """Translate windows, those of one shape and one row together, and keep of each its core."""
    waiting: list[Reading] = []
    chips: list[Chip] = []
    for reading in readings:
        full = len(chips) == batch
        if waiting and (full or not _goes_with(reading, waiting[0], chips)):
            yield _translate_together(waiting, engine, rounded=rounded)
            waiting, chips = [], []
        waiting.append(reading)
        if reading.chip is not None:
            chips.append(reading.chip)
    yield _translate_together(waiting, engine, rounded=rounded)


def _goes_with(reading: Reading, first: Reading, chips: Sequence[Chip]) -> bool:
    """Whether a reading may go through the network with those that wait."""
    if reading.core.rows is not first.core.rows:
        return False
    return reading.chip is None or not chips or reading.chip.grid.shape == chips[0].grid.shape


def _translate_together(
    readings: Sequence[Reading], engine: Engine, *, rounded: bool
) -> list[Piece]:
    read = [(reading.core, reading.chip) for reading in readings if reading.chip is not None]
    values: list[NDArray[Any]] = []
    if read:
        values = engine.translate(
            [chip for _, chip in read],
            [(core.rows.read_start, core.cols.read_start) for core, _ in read],
            [core.trusted for core, _ in read],
            rounded=rounded,
        )
    translated = iter(values)
    return [
        Piece(reading.core, None if reading.chip is None else next(translated), reading.wanted)
        for reading in readings
    ]


def _blend(strip: Strip, batch: Sequence[Piece]) -> list[Piece]:
    """What is finished with each core, of the values of all of it."""
    return [
        Piece(piece.core, strip.lay(piece.core, piece.values), piece.valid[piece.core.written])
        for piece in batch
    ]


class RowWriter(AbstractContextManager[Callable[[Sequence[Piece]], Written]]):
    """Writes pieces into the files of their rows; gives the function that writes some of a row.

    All in one thread, since a GDAL dataset is nobody else's while it is open.
    """

    def __init__(
        self,
        plan: ScenePlan,
        target: Domain,
        rows: Mapping[int, Row],
        files: Mapping[int, Source],
    ) -> None:
        """Write rows of a plan.

        Args:
            plan: the scene.
            target: of which kind the output is.
            rows: of whose cores the pieces come, by their numbers.
            files: where rows are written, by their numbers; others are not.
        """
        self._plan, self._target, self._files = plan, target, files
        self._numbers = {row[0].rows: number for number, row in rows.items()}
        self._last = {number: row[-1] for number, row in rows.items()}
        self._file: GeoTiff | None = None

    def __enter__(self) -> Callable[[Sequence[Piece]], Written]:
        return self._write

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.__exit__(kind, error, trace)
            self._file = None

    def _write(self, pieces: Sequence[Piece]) -> Written:
        number = self._numbers[pieces[0].core.rows]
        source = self._files.get(number)
        if source is None:
            return Written(number, len(pieces), 0)
        if self._file is None:
            self._file = self._begin(source)
        for piece in pieces:
            if piece.valid.shape[1]:
                self._put(self._file, piece)
        if pieces[-1].core is self._last[number]:
            self._finish()
        return Written(number, len(pieces), sum(int(piece.valid.sum()) for piece in pieces))

    def _finish(self) -> None:
        """Give the file of a complete row its name."""
        file, self._file = self._file, None
        if file is not None:
            file.__exit__(None, None, None)

    def _begin(self, source: Source) -> GeoTiff:
        target = self._target
        return GeoTiff(
            Path(source.path),
            self._plan.grid.window_grid(source.window),
            bands=target.bands,
            dtype=target.dtype,
            nodata=target.nodata,
        ).__enter__()

    def _put(self, file: GeoTiff, piece: Piece) -> None:
        values, window = piece.values, piece.core.window
        if values is None:
            values = np.zeros((len(self._target.bands), *piece.valid.shape), self._target.dtype)
        place = Window(
            col_off=window.col_off - self._plan.part.col_off,
            row_off=0,
            width=window.width,
            height=window.height,
        )
        file.write(place, self._target.encode(values, piece.valid), piece.valid)

"""Cut planned windows out of scenes: read, pair by place, judge, and write as chips."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from rasterio.windows import Window

from geotranslate.chips.arcgis import world_file
from geotranslate.chips.file import read_chip
from geotranslate.chips.index import ChipRecord
from geotranslate.chips.layout import Layout
from geotranslate.chips.limits import Tally
from geotranslate.chips.sources import Sources
from geotranslate.errors import ChipsError
from geotranslate.raster.domain import Band, encode
from geotranslate.raster.grid import Grid
from geotranslate.raster.output import write_text
from geotranslate.raster.scene import Chip, Readable, Scene
from geotranslate.raster.statistics import band_statistics
from geotranslate.raster.warp import WarpedScenes
from geotranslate.raster.writing import GeoTiff

# Each thread keeps some scenes open: a chip's neighbour is mostly cut from the same ones.
SCENES_KEPT_OPEN = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PlannedChip:
    """A chip to cut, or a pair of chips of one place.

    Attributes:
        domain: "a" or "b"; for a pair "a", on whose grid both lie.
        number: in the file's name.
        scene: index of the scene whose grid it lies on.
        window: on that grid.
        split: "train", "val" or "test".
        partners: indexes of the scenes of B that lie under a pair's window.
    """

    domain: str
    number: int
    scene: int
    window: Window
    split: str
    partners: tuple[int, ...] = ()


class Cutter:
    """Cuts planned chips, one a call, from any number of threads at once."""

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        sources: Mapping[str, Sources],
        *,
        min_valid: float,
        resampling: str,
    ) -> None:
        """Get ready.

        Args:
            folder: the chip folder.
            layout: where chips lie in it, and whether they are paired.
            sources: the scenes of "a" and "b".
            min_valid: least share of valid pixels, for a pair of pixels valid in both.
            resampling: how B comes onto A's grid.
        """
        self._folder, self._layout, self._sources = folder, layout, sources
        self._min_valid, self._resampling = min_valid, resampling
        self.tallies = {name: Tally(kind.bands, kind.dtype) for name, kind in sources.items()}
        self._mine = threading.local()
        self._desks: list[OpenScenes] = []

    def __call__(self, planned: PlannedChip) -> tuple[ChipRecord, ...]:
        """Write a planned chip, or the two of a pair; nothing where too few pixels are valid.

        What lies complete in the folder already is read back and not written again.

        Raises:
            RasterError: a scene is damaged there.
            OutputError: the folder cannot be written or the disk is full.
        """
        domains = "ab" if self._layout.paired else planned.domain
        files = [self._layout.chip_file(d, planned.split, planned.number) for d in domains]
        grid = self._sources[planned.domain].grids[planned.scene].window_grid(planned.window)
        chips = self._read_back(files, grid) or self._cut(planned)
        share = float(np.mean(np.all([chip.valid for chip in chips], axis=0)))
        if share < self._min_valid:
            return ()
        records = []
        for domain, file, chip in zip(domains, files, chips, strict=True):
            kind = self._sources[domain]
            if not (self._folder / file).exists():
                write_chip(self._folder / file, chip, bands=kind.bands, nodata=kind.nodata)
            if planned.split == "train":
                self.tallies[domain].add(chip)
            window = planned.window
            scenes = (planned.scene,) if domain == planned.domain else planned.partners
            records.append(
                ChipRecord(
                    domain=domain,
                    file=file,
                    split=planned.split,
                    scenes=tuple(kind.paths[index] for index in scenes),
                    window=(window.col_off, window.row_off, window.width, window.height),
                    grid=grid,
                    valid_share=share,
                    statistics=band_statistics(chip.pixels, chip.valid),
                )
            )
        return tuple(records)

    def close(self) -> None:
        """Close all scenes; no thread may be cutting any more."""
        for desk in self._desks:
            desk.close()

    def _cut(self, planned: PlannedChip) -> list[Chip]:
        """A planned chip or pair as it goes into files; A alone where that is enough to drop it."""
        desk = self._desk()
        scene = desk.get(planned.domain, planned.scene)
        chips = [_as_stored(scene, planned.window, self._sources[planned.domain])]
        if self._layout.paired and np.mean(chips[0].valid) >= self._min_valid:
            partners = [desk.get("b", index) for index in planned.partners]
            warped = WarpedScenes(partners, scene.grid, self._resampling)
            chips.append(_as_stored(warped, planned.window, self._sources["b"]))
        return chips

    def _read_back(self, files: Sequence[str], grid: Grid) -> list[Chip] | None:
        """What an interrupted run has finished; None where a file is missing or damaged."""
        paths = [self._folder / file for file in files]
        if not all(path.exists() for path in paths):
            return None
        try:
            return [Chip(*read_chip(path), grid) for path in paths]
        except ChipsError:
            for path in paths:
                path.unlink()
            return None

    def _desk(self) -> OpenScenes:
        """The scenes that this thread has open."""
        if not hasattr(self._mine, "desk"):
            self._mine.desk = OpenScenes(self._sources)
            self._desks.append(self._mine.desk)
        desk: OpenScenes = self._mine.desk
        desk.trim()
        return desk


class OpenScenes:
    """Scenes that one thread holds open, the last used ones longest."""

    def __init__(self, sources: Mapping[str, Sources]) -> None:
        self._sources = sources
        self._scenes: OrderedDict[tuple[str, int], Scene] = OrderedDict()

    def get(self, domain: str, index: int) -> Scene:
        """A scene of a domain; it stays open until :meth:`trim`."""
        key = domain, index
        if key not in self._scenes:
            self._scenes[key] = self._sources[domain].open(index)
        self._scenes.move_to_end(key)
        return self._scenes[key]

    def trim(self) -> None:
        """Close the scenes that were not used for longest, if many are open."""
        while len(self._scenes) > SCENES_KEPT_OPEN:
            _, scene = self._scenes.popitem(last=False)
            scene.close()

    def close(self) -> None:
        """Close all of them."""
        for scene in self._scenes.values():
            scene.close()


def write_chip(path: Path, chip: Chip, *, bands: Sequence[Band], nodata: float | None) -> None:
    """Write a chip as a GeoTIFF with a world file beside it; the GeoTIFF comes last.

    Args:
        path: the chip's file.
        chip: pixels as stored, with the nodata value where they are invalid.
        bands: their names, units, scales, offsets and colours.
        nodata: value for "nothing here"; without one a chip with invalid pixels gets a mask.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    write_text(path.with_suffix(".tfw"), world_file(chip.grid))
    masked = nodata is None and not chip.valid.all()
    dtype = chip.pixels.dtype.name
    with GeoTiff(path, chip.grid, bands=bands, dtype=dtype, nodata=nodata, masked=masked) as file:
        file.write(_whole(chip.grid), chip.pixels, chip.valid)


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Results of work on items in the items' order, done by threads that run a little ahead."""
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _as_stored(source: Readable, window: Window, kind: Sources) -> Chip:
    """A window's pixels as they go into a file of a domain."""
    chip = source.read(window)
    pixels = encode(chip.pixels, chip.valid, dtype=kind.dtype, nodata=kind.nodata)
    return replace(chip, pixels=pixels)


def _whole(grid: Grid) -> Window:
    return Window(col_off=0, row_off=0, width=grid.width, height=grid.height)

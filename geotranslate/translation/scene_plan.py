"""What is to be translated, settled before anything is: scenes, parts, cores, outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rasterio.errors import WindowError
from rasterio.windows import Window

from geotranslate.errors import OutsideError, SettingError
from geotranslate.raster.area import Area
from geotranslate.raster.bounds import Bounds
from geotranslate.raster.cores import Core, Lattice, plan_cores
from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid
from geotranslate.raster.job import is_finished
from geotranslate.raster.output import changed, check_not_input, check_unchanged, differences
from geotranslate.raster.scene import RASTER_SUFFIXES, Scene
from geotranslate.raster.vrt import Source

GEOTIFF_SUFFIXES = {".tif", ".tiff"}


@dataclass(frozen=True)
class ScenePlan:
    """One scene to be translated.

    Attributes:
        open: opens it with the model's bands.
        bands: the scene's, as it is opened.
        scene_grid: of the whole scene.
        output: the file to be.
        part: the window of the scene that is wanted.
        area: pixels outside it come out invalid.
        lattice: how the scene is cut.
        record: what must be the same to go on with this work, as JSON values.
    """

    open: Callable[[], Scene]
    bands: tuple[Band, ...]
    scene_grid: Grid
    output: Path
    part: Window
    area: Area | None
    lattice: Lattice
    record: dict[str, Any]

    @property
    def blended(self) -> bool:
        """Whether cores overlap."""
        return self.lattice.step < self.lattice.size

    @property
    def grid(self) -> Grid:
        """Of the part and of the output."""
        return self.scene_grid.window_grid(self.part)

    def rows(self) -> list[list[Core]]:
        """The cores, row by row."""
        return plan_cores(self.scene_grid.shape, self.part, self.lattice)

    def row_file(self, row: Sequence[Core], folder: Path) -> Source | None:
        """The file that holds what is written with a row of cores, and its place in the output.

        None where nothing is: the row only has a share in the next one's pixels.
        """
        span = row[0].rows
        if span.start == span.end:
            return None
        window = Window(
            col_off=0,
            row_off=span.start - self.part.row_off,
            width=self.part.width,
            height=span.end - span.start,
        )
        return Source(folder / f"rows_{span.start:08d}.tif", window)


def has_share(row: Sequence[Core], other: Sequence[Core]) -> bool:
    """Whether pixels written with the row ``other`` depend on the cores of ``row``."""
    cores, written = row[0].rows, other[0].rows
    return cores.core_start < written.end and cores.core_end > written.start


def name_outputs(paths: Sequence[str], output: Path) -> list[Path]:
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


def wanted_part(path: str, grid: Grid, bounds: Bounds | None, area: Area | None) -> Window:
    """The window of a scene that is to be translated.

    Raises:
        OutsideError: no pixel is.
    """
    part = Window(col_off=0, row_off=0, width=grid.width, height=grid.height)
    if bounds is not None:
        part = grid.window_of(bounds)
    if area is None:
        return part
    if not area.shape.is_empty:
        with suppress(OutsideError, WindowError):
            inside = part.intersection(grid.window_of(area.bounds))
            if area.holds_pixel(grid.window_grid(inside)):
                return inside
    left, bottom, right, top = grid.window_grid(part).bounds
    raise OutsideError(
        f"the area of interest {area.path} holds the centre of no pixel of the part of {path} that "
        f"is wanted, {left:.10g} to {right:.10g} by {bottom:.10g} to {top:.10g} in {grid.crs}: "
        "nothing would be left. Give an area that overlaps it."
    )


def check_scene_unchanged(plan: ScenePlan) -> None:
    """Refuse a scene that was written to since it was planned, if only its header was.

    Raises:
        OutputError: it was.
    """
    before = plan.record["scene"]
    check_unchanged(plan.output, before["files"])
    with plan.open() as scene:
        found = differences(before, scene.identity())
    if found:
        raise changed(before["path"], plan.output, found[0])


def check_output(output: Path, record: dict[str, Any], *, overwrite: bool) -> None:
    """Refuse early what would be refused, or destroyed, when its turn comes.

    Raises:
        SettingError: the output is the scene itself, or a file that it reads.
        OutputError: it is there already or begun, by other words.
    """
    check_not_input(output, (name for name, *_ in record["scene"]["files"]))
    is_finished(output, record, overwrite=overwrite)

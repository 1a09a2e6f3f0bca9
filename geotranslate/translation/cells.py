"""Statistics of a scene's cells, measured row by row, so that interrupted work goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from rasterio.windows import Window
from safetensors.torch import load, save
from torch import Tensor, nn

from geotranslate.networks.scene_statistics import StatisticsGrid, measure_cells
from geotranslate.raster.output import write_bytes
from geotranslate.raster.scene import Scene
from geotranslate.translation.engine import Engine, good_batch
from geotranslate.translation.precision import computing
from geotranslate.translation.scene_plan import ScenePlan

LEAST_CELL = 256
"""Pixels along a cell: about as many as generators learn from at once."""

MOST_CELLS = 4096
"""Of a grid, which is held in memory: 170 MB for a ResNet of 9 blocks and width 64."""


def cell_size(shape: tuple[int, int]) -> int:
    """The side of a scene's cells in pixels: doubled until there are few enough.

    Args:
        shape: (rows, cols) of the scene.
    """
    size = LEAST_CELL
    while _count(shape[0], size) * _count(shape[1], size) > MOST_CELLS:
        size *= 2
    return size


def cell_rows(plan: ScenePlan) -> int:
    """How many rows of cells a scene has."""
    return _count(plan.scene_grid.height, cell_size(plan.scene_grid.shape))


def measure_rows(
    plan: ScenePlan, engine: Engine, generator: nn.Module, folder: Path
) -> Iterator[None]:
    """Measure the cells of a scene row by row into files of a folder; yields after each row.

    Args:
        plan: the scene, whatever part of it is wanted.
        engine: for the scene's normalization.
        generator: as it was trained, on the engine's device.
        folder: where files of rows are, and are left alone, or come to be.
    """
    with plan.open() as scene:
        for row in range(cell_rows(plan)):
            path = _file(folder, row)
            if not path.exists():
                cells = _measure_row(scene, row, engine, generator)
                write_bytes(path, save(_tensors(cells)))
            yield


def read_grid(plan: ScenePlan, generator: nn.Module, folder: Path) -> StatisticsGrid | None:
    """The grid that measured rows make; None where no cell of the scene holds data."""
    grid = StatisticsGrid(generator, plan.scene_grid.shape, cell_size(plan.scene_grid.shape))
    for row in range(grid.shape[0]):
        tensors = load(_file(folder, row).read_bytes())
        for kind, layers in _kinds(grid).items():
            for name, values in layers.items():
                values[row] = tensors[f"{name}.{kind}"]
    if not any(positions.any() for positions in grid.positions.values()):
        return None
    grid.fill()
    return grid


def _measure_row(scene: Scene, row: int, engine: Engine, generator: nn.Module) -> StatisticsGrid:
    """A grid of one row of cells; cells beyond the scene's rim are mirrored there."""
    size = cell_size(scene.grid.shape)
    cells = StatisticsGrid(generator, (size, scene.grid.width), size)
    # Never the user's batch, on which not even rounding may depend.
    batch = good_batch(size, engine.device)
    for first in range(0, cells.shape[1], batch):
        cols = range(first, min(first + batch, cells.shape[1]))
        chips = {
            col: scene.read_reflected(
                Window(col_off=col * size, row_off=row * size, width=size, height=size)
            )
            for col in cols
        }
        chips = {col: chip for col, chip in chips.items() if chip.valid.any()}
        if not chips:
            continue
        with (
            engine.within_memory(len(chips), (size, size), "--seams scene"),
            torch.inference_mode(),
            computing(engine.arithmetic, engine.device),
        ):
            pixels, valid = engine.prepare(list(chips.values()))
            measured = measure_cells(generator, pixels, None if valid.all() else valid.float())
        for col, statistics in zip(chips, measured, strict=True):
            cells.put(0, col, statistics)
    return cells


def _tensors(cells: StatisticsGrid) -> dict[str, Tensor]:
    """The one row of a grid, by names in a file."""
    return {
        f"{name}.{kind}": values[0].contiguous()
        for kind, layers in _kinds(cells).items()
        for name, values in layers.items()
    }


def _kinds(cells: StatisticsGrid) -> dict[str, dict[str, Tensor]]:
    return {"mean": cells.mean, "variance": cells.variance, "positions": cells.positions}


def _file(folder: Path, row: int) -> Path:
    return folder / f"cells_{row:05d}.safetensors"


def _count(length: int, size: int) -> int:
    return -(-length // size)

"""Where instance norms take their statistics from: windows, a sample of the scene, a grid over it.

Other norms have theirs from training, and none of this concerns them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from rasterio.windows import Window

from geotranslate.choices import SEAMS, Seams
from geotranslate.errors import SettingError
from geotranslate.networks.scene_statistics import (
    LayerStatistics,
    has_window_statistics,
    measure_statistics,
)
from geotranslate.raster.output import write_text
from geotranslate.raster.scene import Chip, Scene
from geotranslate.translation.engine import Engine
from geotranslate.translation.precision import computing
from geotranslate.translation.scene_plan import ScenePlan

SAMPLE_PIXELS = 1024 * 1024
"""Of all scenes together: as many as an ordinary batch, so they need no more memory than one."""

SAMPLE_SIDE = 128
"""Of a window of the sample. With a trained CycleGAN on a real scene, two samples of 64 windows of
128 px differ by 3 % of the output's standard deviation, two of 16 windows of 256 px by 7 %; windows
normalized each by itself by 20 %."""

MOST_PLACES = 8
"""Places looked at for each window of a sample, where most of the scene is invalid."""

ENOUGH = 0.5
"""Share of a window that has to be valid for it to be taken at once."""


class StatisticsRecord(BaseModel, frozen=True, extra="forbid"):
    """What a file of statistics says: one mean and variance for each channel of each norm."""

    version: Literal[1] = 1
    """Of this format."""

    model: str
    """Identity of the bundle, and the direction."""

    scenes: tuple[str, ...]
    """The scenes they were measured over."""

    pixels: int
    """Valid pixels they were measured over."""

    layers: dict[str, dict[str, list[float]]]
    """Mean and variance of each channel, by the norm's name."""

    @property
    def statistics(self) -> LayerStatistics:
        """As the network takes them."""
        return LayerStatistics.from_lists(self.layers)

    @property
    def digest(self) -> str:
        """Changes when any number does."""
        return hashlib.sha256(json.dumps(self.layers, sort_keys=True).encode()).hexdigest()


def choose_seams(
    seams: Seams | None, generator: torch.nn.Module, statistics: str | Path | None
) -> Seams | None:
    """The way that is meant; None for a generator that needs none.

    Raises:
        SettingError: the choice is unknown, or means nothing for this generator.
    """
    if seams is not None and seams not in SEAMS:
        raise SettingError(f"seams {seams!r} is unknown. Choose one of {', '.join(SEAMS)}.")
    if not has_window_statistics(generator):
        if seams is None and statistics is None:
            return None
        raise SettingError(
            "this model has no instance norm: what it makes of a pixel depends on the pixels in "
            f"its halo only, so there is nothing to choose. Leave out "
            f"{'--statistics' if seams is None else '--seams'}."
        )
    seams = seams or "scene"
    if statistics is not None and seams != "scene":
        raise SettingError(
            f"a file of statistics holds those of whole scenes, which --seams {seams} does not "
            "use. Say --seams scene, or leave out --statistics."
        )
    return seams


def read_statistics(path: Path, model: str) -> StatisticsRecord:
    """Read a file of statistics.

    Raises:
        SettingError: it is none, or was measured with another model.
    """
    try:
        record = StatisticsRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise SettingError(
            f"{path} cannot be read as a file of statistics, so scenes would not match. Give one "
            "that predict wrote, or the name of a file that is not there yet."
        ) from error
    if record.model != model:
        raise SettingError(
            f"{path} was measured with another model, whose layers mean other things. Give a file "
            "that is not there yet to measure this model's."
        )
    return record


def write_statistics(path: Path, record: StatisticsRecord) -> None:
    """Write a file of statistics.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_text(path, record.model_dump_json() + "\n")


def measure_scenes(
    plans: Sequence[ScenePlan],
    engines: Sequence[Engine],
    generator: torch.nn.Module,
    model: str,
) -> StatisticsRecord | None:
    """Statistics over a sample of scenes: a function of the scenes and the model alone.

    Args:
        plans: the scenes; whatever part of them is wanted.
        engines: of each scene, for its normalization.
        generator: as it was trained, on the engines' device.
        model: its identity.

    Returns:
        None where no valid pixel was found.
    """
    side = _round_up(SAMPLE_SIDE, plans[0].lattice.stride)
    images, known = [], []
    for plan, engine, count in zip(plans, engines, _shares(plans, side), strict=True):
        with plan.open() as scene:
            chips = sample_chips(scene, count, side=side, stride=plan.lattice.stride)
        if chips:
            pixels, valid = engine.prepare(chips)
            images.append(pixels)
            known.append(valid)
    if not images:
        return None
    engine, valid = engines[0], torch.cat(known)
    with torch.inference_mode(), computing(engine.arithmetic, engine.device):
        statistics = measure_statistics(
            generator, torch.cat(images), None if valid.all() else valid.float()
        )
    return StatisticsRecord(
        model=model,
        scenes=tuple(str(plan.record["scene"]["path"]) for plan in plans),
        pixels=int(valid.sum()),
        layers=statistics.to_lists(),
    )


def _shares(plans: Sequence[ScenePlan], side: int) -> list[int]:
    """How many windows of the sample each scene gets: as its share of all pixels says."""
    areas = [plan.scene_grid.width * plan.scene_grid.height for plan in plans]
    count = max(min(SAMPLE_PIXELS, sum(areas)) // side**2, 1)
    places = (np.arange(count) + 0.5) / count * sum(areas)
    owners = np.searchsorted(np.cumsum(areas), places)
    return [int(number) for number in np.bincount(owners, minlength=len(plans))]


def sample_chips(scene: Scene, count: int, *, side: int, stride: int) -> list[Chip]:
    """Windows from all over a scene that hold data; always the same.

    Fewer where the scene is small or nearly all of it is invalid.

    Args:
        scene: to be read.
        count: how many are wanted.
        side: of a window, which is mirrored where the scene is smaller.
        stride: windows start on multiples of it.
    """
    taken: list[Chip] = []
    others: list[tuple[float, Chip]] = []
    for row, col in _places(scene.grid.shape, count * MOST_PLACES, side, stride):
        if len(taken) == count:
            break
        chip = scene.read_reflected(Window(col_off=col, row_off=row, width=side, height=side))
        share = float(chip.valid.mean())
        if share >= ENOUGH:
            taken.append(chip)
        elif share:
            others = sorted([*others, (share, chip)], key=lambda other: -other[0])[:count]
    return [*taken, *(chip for _, chip in others[: count - len(taken)])]


def _places(
    shape: tuple[int, int], count: int, side: int, stride: int
) -> Iterable[tuple[int, int]]:
    """First row and column of windows, of which any first few fill a scene evenly (R2, Roberts)."""
    steps = np.array([0.7548776662466927, 0.5698402909980532])
    shares = np.modf(0.5 + np.arange(count)[:, None] * steps)[0]
    room = [max(length - side, 0) + 1 for length in shape]
    starts = (shares * room).astype(int) // stride * stride
    return dict.fromkeys((int(row), int(col)) for row, col in starts)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step

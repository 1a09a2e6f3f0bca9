"""Where instance norms take their statistics from: windows, a sample of the scene, a grid over it.

Other norms have theirs from training, and none of this concerns them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, Field, FiniteFloat, ValidationError, model_validator
from rasterio.windows import Window

from geotranslate.choices import Seams
from geotranslate.errors import BundleError, SettingError, reason
from geotranslate.networks.scene_statistics import (
    LayerStatistics,
    has_window_statistics,
    measure_statistics,
    norm_channels,
)
from geotranslate.raster.grid import split_window
from geotranslate.raster.output import write_text
from geotranslate.raster.reading import bounded_cache
from geotranslate.raster.scene import Chip, Scene
from geotranslate.translation.engine import Engine
from geotranslate.translation.precision import computing
from geotranslate.translation.predict_config import PredictConfig
from geotranslate.translation.scene_plan import ScenePlan

SAMPLE_PIXELS = 1024 * 1024
"""Of all scenes together. They go through the network at once, since each layer is measured over
all of them: in float32 that takes up to 14 MB x width of the network, 0.9 GB at width 64."""

SAMPLE_SIDE = 128
"""Of a window of the sample. With a trained CycleGAN on a real scene, two samples of 64 windows of
128 px differ by 3 % of the output's standard deviation, two of 16 windows of 256 px by 7 %; windows
normalized each by itself by 20 %."""

MOST_PLACES = 8
"""Places looked at for each window of a sample, where most of the scene is invalid."""

SEARCH_CACHE = 64 * 2**20
"""Bytes of decoded blocks that GDAL keeps while a scene is sampled."""

ENOUGH = 0.5
"""Share of a window that has to be valid for it to be taken at once; and of a sample, for the scene
not to be searched for more."""


class LayerRecord(BaseModel, frozen=True, extra="forbid"):
    """What a norm takes for the statistics of its input, channel by channel."""

    mean: tuple[FiniteFloat, ...]
    variance: tuple[Annotated[FiniteFloat, Field(ge=0)], ...]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.mean) != len(self.variance):
            raise ValueError(f"{len(self.mean)} means and {len(self.variance)} variances")
        return self


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

    layers: dict[str, LayerRecord]
    """By the norm's name."""

    @property
    def statistics(self) -> LayerStatistics:
        """As the network takes them."""
        return LayerStatistics.from_lists(self._lists)

    @property
    def digest(self) -> str:
        """Changes when any number does."""
        return hashlib.sha256(json.dumps(self._lists, sort_keys=True).encode()).hexdigest()

    @property
    def _lists(self) -> dict[str, dict[str, list[float]]]:
        lists: dict[str, dict[str, list[float]]] = self.model_dump(mode="json")["layers"]
        return lists


def choose_seams(config: PredictConfig, generator: torch.nn.Module) -> Seams | None:
    """The way that is meant; None for a generator that needs none.

    Raises:
        SettingError: the choice means nothing for this generator.
    """
    if has_window_statistics(generator):
        return config.seams or "scene"
    for flag, value in (("--seams", config.seams), ("--statistics", config.statistics)):
        if value is not None:
            raise SettingError(
                "this model has no instance norm: what it makes of a pixel depends on the pixels "
                f"in its halo only, so there is nothing to choose. Leave out {flag}."
            )
    return None


def read_statistics(path: Path, model: str, generator: torch.nn.Module) -> StatisticsRecord:
    """Read a file of statistics.

    Args:
        path: of the file.
        model: identity of the model and the direction.
        generator: the model's, whose norms the file has to know.

    Raises:
        SettingError: it is none, is damaged, or was measured with another model.
    """
    try:
        record = StatisticsRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise SettingError(
            f"{path} cannot be read as a file of statistics ({_complaint(error)}), so scenes would "
            "not match. Give one that predict wrote, or the name of a file that is not there yet."
        ) from error
    if record.model != model:
        raise SettingError(
            f"{path} was measured with another model, whose layers mean other things. Give a file "
            "that is not there yet to measure this model's."
        )
    wanted = norm_channels(generator)
    if wanted != {name: len(layer.mean) for name, layer in record.layers.items()}:
        raise SettingError(
            f"{path} names this model but not its {len(wanted)} instance norms and their "
            "channels: it was changed by hand or damaged. Delete it, and it is measured again."
        )
    return record


def _complaint(error: OSError | ValidationError) -> str:
    """Why a file cannot be read, for the brackets of a message."""
    if isinstance(error, OSError):
        return reason(error)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def write_statistics(path: Path, record: StatisticsRecord) -> None:
    """Write a file of statistics.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_text(path, record.model_dump_json() + "\n")


def sample_scenes(plans: Sequence[ScenePlan]) -> Iterator[list[Chip]]:
    """Windows from all over scenes, scene by scene: a function of scenes and generator alone.

    Args:
        plans: the scenes; whatever part of them is wanted.
    """
    stride, found = plans[0].lattice.stride, False
    side = -(-SAMPLE_SIDE // stride) * stride
    for plan, share in zip(plans, _shares(plans, side), strict=True):
        # A small scene has no share beside large ones, but it may be the only one with data.
        count = share if found else max(share, 1)
        with plan.open() as scene, bounded_cache(SEARCH_CACHE + side * scene.striped_bytes):
            chips = sample_chips(scene, count, side=side, stride=stride)
        found = found or bool(chips)
        yield chips


def measure_sample(
    samples: Sequence[tuple[Engine, Sequence[Chip]]],
    generator: torch.nn.Module,
    scenes: Sequence[str],
    model: str,
) -> StatisticsRecord | None:
    """Statistics over the windows of all scenes together.

    Args:
        samples: of each scene the engine, for its normalization, and the windows.
        generator: as it was trained, on the engines' device.
        scenes: their names.
        model: identity of the model and the direction.

    Returns:
        None without windows.

    Raises:
        SettingError: the windows do not fit into the device's memory.
        BundleError: what the network makes of them is no number.
    """
    samples = [(engine, chips) for engine, chips in samples if chips]
    if not samples:
        return None
    engine, (first, *_) = samples[0]
    count = sum(len(chips) for _, chips in samples)
    with (
        engine.within_memory(count, first.grid.shape, "--seams dense"),
        torch.inference_mode(),
        computing(engine.arithmetic, engine.device),
    ):
        prepared = [engine.prepare(chips) for engine, chips in samples]
        pixels, valid = (torch.cat(tensors) for tensors in zip(*prepared, strict=True))
        statistics = measure_statistics(generator, pixels, None if valid.all() else valid.float())
    try:
        return StatisticsRecord(
            model=model,
            scenes=tuple(scenes),
            pixels=int(valid.sum()),
            layers=statistics.to_lists(),
        )
    except ValidationError as error:
        raise BundleError(
            f"the network's layers give values of {scenes[0]} that are no numbers "
            f"({_complaint(error)}): its weights are damaged, or its training had gone wrong. "
            "Use another bundle, or train again."
        ) from error


def _shares(plans: Sequence[ScenePlan], side: int) -> list[int]:
    """How many windows of the sample each scene gets: as its share of all pixels says."""
    areas = [plan.scene_grid.width * plan.scene_grid.height for plan in plans]
    count = max(min(SAMPLE_PIXELS, sum(areas)) // side**2, 1)
    places = (np.arange(count) + 0.5) / count * sum(areas)
    owners = np.searchsorted(np.cumsum(areas), places)
    return [int(number) for number in np.bincount(owners, minlength=len(plans))]


def sample_chips(scene: Scene, count: int, *, side: int, stride: int) -> list[Chip]:
    """Windows from all over a scene that hold data; always the same.

    None only where all of the scene is invalid, or none are wanted.

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
        chip = scene.read_reflected(_window(row, col, side))
        share = float(chip.valid.mean())
        if share >= ENOUGH:
            taken.append(chip)
        elif share:
            others = sorted([*others, (share, chip)], key=lambda other: -other[0])[:count]
    others = others[: count - len(taken)]
    if len(taken) + sum(share for share, _ in others) < ENOUGH * count:
        return _search_chips(scene, count, side)
    return [*taken, *(chip for _, chip in others)]


def _search_chips(scene: Scene, count: int, side: int) -> list[Chip]:
    """Windows that hold data, found by reading all of a scene; see `sample_chips`."""
    shares: dict[tuple[int, int], float] = {}
    cols = np.arange(0, scene.grid.width, side)
    for strip in split_window(scene.grid.whole, side, scene.grid.width):
        counts = np.add.reduceat(scene.read(strip).valid.sum(axis=0), cols)
        shares |= {
            (int(strip.row_off), int(col)): number / side**2
            for col, number in zip(cols, counts, strict=True)
            if number
        }
    good = [place for place, share in shares.items() if share >= ENOUGH]
    if len(good) > count:
        places = [good[index * len(good) // count] for index in range(count)]
    else:
        places = sorted(shares, key=lambda place: -shares[place])[:count]
    return [scene.read_reflected(_window(row, col, side)) for row, col in places]


def _window(row: int, col: int, side: int) -> Window:
    return Window(col_off=col, row_off=row, width=side, height=side)


def _places(
    shape: tuple[int, int], count: int, side: int, stride: int
) -> Iterable[tuple[int, int]]:
    """First row and column of windows, of which any first few fill a scene evenly (R2, Roberts)."""
    steps = np.array([0.7548776662466927, 0.5698402909980532])
    shares = np.modf(0.5 + np.arange(count)[:, None] * steps)[0]
    room = [max(length - side, 0) + 1 for length in shape]
    starts = (shares * room).astype(int) // stride * stride
    return dict.fromkeys((int(row), int(col)) for row, col in starts)

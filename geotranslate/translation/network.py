"""A translator with what is decided about its use: where, in which arithmetic, with which norms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from geotranslate.choices import Seams
from geotranslate.networks.build import Generator
from geotranslate.networks.fold import fold
from geotranslate.networks.scene_statistics import with_statistics, with_statistics_grid
from geotranslate.networks.turns import TurnedMean
from geotranslate.raster.domain import Domain
from geotranslate.translation.bundle import Translator
from geotranslate.translation.cells import cell_rows, measure_rows, read_grid
from geotranslate.translation.engine import Engine
from geotranslate.translation.norm_statistics import (
    StatisticsRecord,
    measure_sample,
    read_statistics,
    sample_scenes,
    write_statistics,
)
from geotranslate.translation.precision import Arithmetic
from geotranslate.translation.scene_plan import ScenePlan

STATISTICS_FILE = "statistics.json"


@dataclass(frozen=True)
class Network:
    """What translates scenes.

    Attributes:
        translator: one direction of a model.
        identity: of the model and the direction.
        device: where it computes.
        arithmetic: of its convolutions.
        seams: where its instance norms take their statistics from; None where it has none.
        statistics: those for all scenes, where they are given.
        turns: ways in which each window is translated, and the mean taken; see `TurnedMean`.
    """

    translator: Translator
    identity: str
    device: torch.device
    arithmetic: Arithmetic
    seams: Seams | None = None
    statistics: StatisticsRecord | None = None
    turns: int = 1

    @property
    def target(self) -> Domain:
        """What comes out."""
        return self.translator.target

    def steps(self, plan: ScenePlan) -> int:
        """How many steps :meth:`measure` takes."""
        if self.seams == "dense":
            return cell_rows(plan)
        return int(self._measures_scene)

    def measure(self, plan: ScenePlan, folder: Path) -> Iterator[None]:
        """Measure what a scene's engine needs to know, into files of a folder; yield after steps.

        What is there already stays as it is.
        """
        if self.seams == "dense":
            yield from measure_rows(plan, self._as_trained(plan), self._generator, folder)
        elif self._measures_scene:
            yield from self.measure_together([plan], folder / STATISTICS_FILE)

    def engine(self, plan: ScenePlan, folder: Path) -> Engine:
        """The generator at work on a scene that was measured into a folder."""
        generator = self._generator
        if self.seams == "dense":
            grid = read_grid(plan, generator, folder)
            # Without data there is nothing to measure, and nothing to translate.
            generator = with_statistics_grid(generator, grid) if grid else generator
        elif self.seams == "scene":
            record = self.statistics
            path = folder / STATISTICS_FILE
            if record is None and path.exists():
                record = self.read_statistics(path)
            if record is not None:
                generator = with_statistics(generator, record.statistics)
        folded = fold(generator)
        return self._engine(folded if self.turns == 1 else TurnedMean(folded, self.turns), plan)

    def measure_together(self, plans: Sequence[ScenePlan], path: Path) -> Iterator[None]:
        """Measure statistics over all scenes into a file; yields once for each scene.

        A file that is there already stays as it is; none comes to be where all pixels are invalid.
        """
        if path.exists():
            yield from [None] * len(plans)
            return
        samples = []
        for plan, chips in zip(plans, sample_scenes(plans), strict=True):
            samples.append((self._as_trained(plan), chips))
            yield
        names = [str(plan.record["scene"]["path"]) for plan in plans]
        record = measure_sample(samples, self._generator, names, self.identity)
        if record is not None:
            write_statistics(path, record)

    def read_statistics(self, path: Path) -> StatisticsRecord:
        """Read a file of this network's statistics.

        Raises:
            SettingError: it is none, is damaged, or was measured with another model.
        """
        return read_statistics(path, self.identity, self._generator)

    @property
    def _generator(self) -> Generator:
        return self.translator.generator

    @property
    def _measures_scene(self) -> bool:
        return self.seams == "scene" and self.statistics is None

    def _as_trained(self, plan: ScenePlan) -> Engine:
        return self._engine(self._generator, plan)

    def _engine(self, generator: nn.Module, plan: ScenePlan) -> Engine:
        return Engine(
            generator,
            self.translator.source,
            self.translator.target,
            bands=plan.bands,
            device=self.device,
            arithmetic=self.arithmetic,
        )

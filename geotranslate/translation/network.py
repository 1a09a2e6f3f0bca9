"""A translator with what is decided about its use: where, in which arithmetic, with which norms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from geotranslate.choices import Seams
from geotranslate.networks.build import Generator
from geotranslate.networks.fold import fold
from geotranslate.networks.scene_statistics import with_statistics, with_statistics_grid
from geotranslate.raster.domain import Domain
from geotranslate.translation.bundle import Translator
from geotranslate.translation.cells import cell_rows, measure_rows, read_grid
from geotranslate.translation.engine import Engine
from geotranslate.translation.precision import Arithmetic
from geotranslate.translation.scene_plan import ScenePlan
from geotranslate.translation.norm_statistics import (
    StatisticsRecord,
    measure_scenes,
    read_statistics,
    write_statistics,
)

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
    """

    translator: Translator
    identity: str
    device: torch.device
    arithmetic: Arithmetic
    seams: Seams | None = None
    statistics: StatisticsRecord | None = None

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
            path = folder / STATISTICS_FILE
            if not path.exists():
                record = self.measure_together([plan])
                if record is not None:
                    write_statistics(path, record)
            yield

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
                record = read_statistics(path, self.identity)
            if record is not None:
                generator = with_statistics(generator, record.statistics)
        return self._engine(fold(generator), plan)

    def measure_together(self, plans: Sequence[ScenePlan]) -> StatisticsRecord | None:
        """Statistics over all scenes; None where no valid pixel was found."""
        engines = [self._as_trained(plan) for plan in plans]
        return measure_scenes(plans, engines, self._generator, self.identity)

    @property
    def _generator(self) -> Generator:
        return self.translator.generator

    @property
    def _measures_scene(self) -> bool:
        return self.seams == "scene" and self.statistics is None

    def _as_trained(self, plan: ScenePlan) -> Engine:
        return self._engine(self._generator, plan)

    def _engine(self, generator: Generator, plan: ScenePlan) -> Engine:
        return Engine(
            generator,
            self.translator.source,
            self.translator.target,
            bands=plan.bands,
            device=self.device,
            arithmetic=self.arithmetic,
        )

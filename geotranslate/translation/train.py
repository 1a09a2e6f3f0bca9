"""Learning a translation: the loop, and the run folder in which it can be interrupted anywhere.

A run folder holds ``config.toml`` (the settings as resolved), ``log.csv``, ``sessions.json`` (who
worked on it, on what hardware), ``samples/``, ``checkpoints/`` and two bundles: ``model/``, of the
best generators, and ``model-last/``, of those of the newest checkpoint. A run killed at any moment
goes on from its newest checkpoint and ends with the same bytes as one that was never interrupted
(on the same machine's CPU): all that is random in an update is a function of the seed and the
update's number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geotranslate.networks.norms import reestimate_statistics
from geotranslate.raster.output import explained
from geotranslate.translation.bundle import FOLDER as MODEL
from geotranslate.translation.bundle import LAST, save_bundle
from geotranslate.translation.checkpoint import (
    drop_old_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.data import Preparation, load_batches, training_batches
from geotranslate.translation.failures import out_of_memory, went_wrong
from geotranslate.translation.learner import Learner
from geotranslate.translation.log import NAME as LOG_NAME
from geotranslate.translation.log import Log
from geotranslate.translation.plan import Plan, generator_spec, plan_training
from geotranslate.translation.precision import computing
from geotranslate.translation.recent_losses import RecentLosses
from geotranslate.translation.resumption import plan_resumption
from geotranslate.translation.run_folder import claim_run
from geotranslate.translation.run_record import SAMPLES
from geotranslate.translation.sessions import begin_session, keep_session
from geotranslate.translation.validation import (
    BEST,
    Show,
    draw_samples,
    figure_names,
    is_better,
    measure_generators,
)

LOG_EVERY = 20
"""Updates that one row of the log is the mean of."""

STATISTICS_IMAGES = 256
"""Training crops, at least, that a generator's batch statistics are taken from anew."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a run is, after an update.

    Attributes:
        update: counted from 1.
        updates: how many there are to be.
        losses: by name; mean over the updates of the log's last row.
        figures: as measured last; empty before the first checkpoint, and without validation chips.
        best: update whose generators are in the bundle; 0 before the first checkpoint.
        row: what this update added to the log, by column; empty where it added nothing.
    """

    update: int
    updates: int
    losses: Mapping[str, float]
    figures: Mapping[str, float]
    best: int
    row: Mapping[str, float] = field(default_factory=dict)


def train(
    chips: Path, run: Path, config: TrainConfig | None = None, *, overwrite: bool = False
) -> Iterator[Progress]:
    """Learn a translation from a folder of chips, or go on where the same words stopped.

    Args:
        chips: as `open_chips` takes it.
        run: folder for all that comes of it.
        config: the settings.
        overwrite: start over, whatever run is there.

    Yields:
        Progress after each update; nothing when the run was finished before.

    Raises:
        SettingError: a setting cannot work with these chips.
        ChipsError: there are no chips for training, or no pairs for a model that needs them.
        OutputError: the folder is in use, was begun with other words, or cannot be written.
        TrainingError: a loss is no number any more.
    """
    yield from learn(plan_training(chips, config or TrainConfig()), run, overwrite=overwrite)


def resume(run: Path, **settings: Any) -> Iterator[Progress]:
    """Go on with a run, with the settings in its folder.

    Args:
        run: the folder.
        settings: new values for those that a run may be continued with (`WITHOUT_EFFECT`).

    Yields:
        Progress after each update; nothing when the run was finished before.

    Raises:
        OutputError: the folder is none of a run.
        SettingError: another setting is given.
        Others: as `train`.
    """
    yield from learn(plan_resumption(run, **settings), run)


def learn(plan: Plan, run: Path, *, overwrite: bool = False) -> Iterator[Progress]:
    """Do what a plan says; see `train`."""
    with claim_run(plan, run, overwrite=overwrite):
        state = load_checkpoint(run)
        update = 0 if state is None else int(state["update"])
        Log(run / LOG_NAME).cut_back(update)
        if state is not None:
            # The process may have died between its last two steps.
            drop_old_checkpoints(run, best=state["best"])
        if update < plan.config.updates:
            try:
                yield from _Run(plan, run, state).go()
            except torch.OutOfMemoryError as error:
                raise out_of_memory(plan, run) from error


class _Run:
    """A learner with the data it learns from, and the folder it is written to."""

    def __init__(self, plan: Plan, run: Path, state: dict[str, Any] | None) -> None:
        folder = plan.folder
        self.plan, self.run = plan, run
        self.learner = Learner(plan, state)
        self.seconds, self.best, self.best_figure = 0.0, 0, float("nan")
        self.figures: dict[str, float] = {}
        if state is not None:
            self.seconds, self.figures = state["seconds"], state["figures"]
            self.best, self.best_figure = state["best"], state["best_figure"]

        self.prepare = Preparation(folder.domain_a, folder.domain_b, plan.device)
        self.batches = training_batches(plan)
        stride = next(iter(self.learner.generators.values())).stride
        assert isinstance(stride, int)
        side = folder.chip_size // stride * stride
        self.show = Show(folder, "val", side, self.prepare)
        split = "val" if folder.files("a", "val") and folder.files("b", "val") else "train"
        self.shown = Show(folder, split, side, self.prepare)
        self.losses = RecentLosses(run)
        self.log = Log(run / LOG_NAME)
        self.session = begin_session(plan.device, plan.arithmetic, self.learner.update + 1)

    def go(self) -> Iterator[Progress]:
        """Learn to the end."""
        config = self.plan.config
        updates = range(self.learner.update + 1, config.updates + 1)
        begun = time.monotonic() - self.seconds
        losses: dict[str, float] = {}
        pin = self.plan.device.type == "cuda"
        for update, stored in zip(
            updates,
            load_batches(self.batches, updates, workers=self.plan.workers, pin=pin),
            strict=True,
        ):
            self.losses.add(update, self.learner.learn(self.prepare(stored)))
            last = update == config.updates
            saving = update % config.checkpoint_every == 0 or last
            logging_now = update % LOG_EVERY == 0 or saving
            if logging_now or self.plan.device.type == "cpu":
                self.losses.fetch()
            drawing = update % config.samples_every == 0 or last
            if saving or drawing:
                generators = self._averaged()
            if drawing:
                self._draw(generators)
            if saving:
                self._measure(generators)
            row: dict[str, float] = {}
            if logging_now:
                self.seconds = time.monotonic() - begun
                losses = self.losses.mean()
                row = self._log(losses, self.figures if saving else {})
            if saving:
                self._save(generators)
            yield Progress(update, config.updates, losses, self.figures, self.best, row)

    def _averaged(self) -> dict[str, nn.Module]:
        """Copies of the averaged generators, with statistics of their own."""
        generators = {name: deepcopy(each.network) for name, each in self.learner.averages.items()}
        for name, generator in generators.items():
            with computing(self.plan.arithmetic, self.plan.device):
                reestimate_statistics(generator, self._sources_of(name))
        return generators

    def _sources_of(self, name: str) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Crops that a generator translates: those of the first updates, whenever this is asked.

        They are read anew each time: kept, they would take a gigabyte of the device for 15 bands.
        """
        domain = 0 if name == "g_ab" else 1
        count = -(-STATISTICS_IMAGES // self.plan.config.batch)
        for update in range(1, count + 1):
            yield self.prepare.images_of(domain, self.batches.images_of(domain, update))

    def _measure(self, generators: Mapping[str, nn.Module]) -> None:
        with computing(self.plan.arithmetic, self.plan.device):
            self.figures = measure_generators(self.learner.model, generators, self.show)

    def _draw(self, generators: Mapping[str, nn.Module]) -> None:
        folder = self.run / SAMPLES
        with explained(folder):
            folder.mkdir(exist_ok=True)
        with computing(self.plan.arithmetic, self.plan.device):
            draw_samples(
                folder / f"{self.learner.update:09d}.png",
                self.learner.model,
                generators,
                self.shown,
            )

    def _log(self, losses: dict[str, float], figures: dict[str, float]) -> dict[str, float]:
        """Add a row to the log; gives what is in it."""
        config = self.plan.config
        row = {
            "update": self.learner.update,
            "seconds": round(self.seconds, 1),
            "learning_rate": self.learner.rate,
            **losses,
        }
        names = figure_names(config.model, paired=self.plan.folder.paired)
        self.log.write([*row, *names], row | figures)
        return row | figures

    def _save(self, generators: Mapping[str, nn.Module]) -> None:
        """Write the bundles of the best and of the last generators, then the checkpoint.

        In this order, so that a run killed in between writes the bundles again.
        """
        config = self.plan.config
        for name, network in generators.items():
            if not all(bool(values.isfinite().all()) for values in network.parameters()):
                raise went_wrong(self.run, f"a weight of {name} is no number", self.learner.update)
        figure = self.figures.get(BEST[config.model], float("nan"))
        if not self.best or not is_better(config.model, self.best_figure, figure):
            self.best, self.best_figure = self.learner.update, figure
            self._save_bundle(MODEL, generators)
            log.info("%s holds the generators of update %d", self.run / MODEL, self.learner.update)
        self._save_bundle(LAST, generators)
        save_checkpoint(self.run, self.learner.update, self._state(), best=self.best)
        keep_session(self.run, self.session, self.plan.device, self.learner.update)

    def _save_bundle(self, name: str, generators: Mapping[str, nn.Module]) -> None:
        config, folder = self.plan.config, self.plan.folder
        save_bundle(
            self.run / name,
            generators,
            model=config.model,
            updates=self.learner.update,
            generator=generator_spec(config),
            domain_a=folder.domain_a,
            domain_b=folder.domain_b,
            chip_size=self.plan.crop,
            attribution=config.attribution,
            figures=self.figures,
        )

    def _state(self) -> dict[str, Any]:
        return self.learner.state_dict() | {
            "seconds": self.seconds,
            "best": self.best,
            "best_figure": self.best_figure,
            "figures": self.figures,
        }

"""Learning a translation: the loop, and the run folder in which it can be interrupted anywhere.

A run folder holds ``config.toml`` (the settings as resolved), ``log.csv``, ``guards.csv`` where
guards fired, ``sessions.json`` (who worked on it, on what hardware), ``samples/``, ``checkpoints/``
and two bundles: ``model/``, of the best generators, and ``model-last/``, of those that were
measured last. A run that is killed, stopped or closed at any moment goes on from its newest
checkpoint and ends with the same bytes as one that was never interrupted (on the same machine's
CPU): all that is random in an update is a function of the seed and the update's number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from geotranslate.errors import LostError, TrainingError
from geotranslate.networks.norms import reestimate_statistics
from geotranslate.raster.output import explained
from geotranslate.translation import companions
from geotranslate.translation.bundle import FOLDER as MODEL
from geotranslate.translation.bundle import LAST, save_bundle
from geotranslate.translation.cache import ChipCache
from geotranslate.translation.checkpoint import (
    drop_old_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.crew import Crew, EndedError
from geotranslate.translation.data import (
    Preparation,
    StoredBatch,
    load_batches,
    training_batches,
)
from geotranslate.translation.failures import left_alone, out_of_memory, went_wrong
from geotranslate.translation.guards import NAME as GUARDS_NAME
from geotranslate.translation.guards import NO_NUMBER, Guards, Warned
from geotranslate.translation.held_interrupts import held_interrupts
from geotranslate.translation.learner import Learner
from geotranslate.translation.log import NAME as LOG_NAME
from geotranslate.translation.log import Log
from geotranslate.translation.memory import kept_memory, ran_out
from geotranslate.translation.plan import Plan, generator_spec, plan_training
from geotranslate.translation.precision import computing
from geotranslate.translation.processes import join
from geotranslate.translation.recent_losses import RecentLosses
from geotranslate.translation.resumption import plan_resumption
from geotranslate.translation.run_folder import claim_run, record_work
from geotranslate.translation.run_record import SAMPLES
from geotranslate.translation.samples import draw_samples
from geotranslate.translation.sessions import begin_session, keep_session
from geotranslate.translation.show import Show
from geotranslate.translation.validation import (
    BEST,
    Measured,
    figure_names,
    measure_generators,
)

LOG_EVERY = 20
"""Updates that one row of the log is the mean of."""

STATISTICS_IMAGES = 256
"""Training crops, at least, that a generator's batch statistics are taken from anew."""

SECONDS_TO_DIE = 5.0
"""From a broken connection to what the system says of who died."""

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
        warnings: what the guards said after this update.
    """

    update: int
    updates: int
    losses: Mapping[str, float]
    figures: Mapping[str, float]
    best: int
    row: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[Warned] = ()


def train(
    chips: Path, run: Path, config: TrainConfig | None = None, *, overwrite: bool = False
) -> Generator[Progress]:
    """Learn a translation from a folder of chips, or go on where the same words stopped.

    Closed early, or left by KeyboardInterrupt, it first writes a checkpoint of the last update.

    Args:
        chips: as `open_chips` takes it.
        run: folder for all that comes of it.
        config: the settings.
        overwrite: start over, but for a run that these words have begun and not finished.

    Yields:
        Progress after each update; nothing when the run was finished before.

    Raises:
        SettingError: a setting cannot work with these chips.
        ChipsError: there are no chips for training, or no pairs for a model that needs them.
        OutputError: the folder is in use, was begun with other words, or cannot be written.
        TrainingError: a loss is no number any more, or one of several processes is gone.
    """
    yield from learn(plan_training(chips, config or TrainConfig()), run, overwrite=overwrite)


def resume(
    run: Path, *, changes: Mapping[str, Any] | None = None, **settings: Any
) -> Generator[Progress]:
    """Go on with a run, with the settings in its folder; closed early, it is as with `train`.

    Args:
        run: the folder.
        changes: settings that shall be others from here on, such as more updates.
        settings: new values for those that change nothing of what is learned (`WITHOUT_EFFECT`).

    Yields:
        Progress after each update; nothing when the run was finished before.

    Raises:
        SettingError: the folder is none of a run, another setting is given, or one is to be
            changed that cannot be.
        Others: as `train`.
    """
    yield from learn(plan_resumption(run, changes=changes, **settings), run)


def learn(plan: Plan, run: Path, *, overwrite: bool = False) -> Generator[Progress]:
    """Do what a plan says; see `train`. Of processes that learn together, the first one yields."""
    join(plan.processes, plan.device)
    crew = Crew(plan.processes)
    try:
        with crew.attended(), kept_memory(plan.device):
            if plan.processes.first:
                yield from _lead(plan, run, crew, overwrite=overwrite)
            else:
                _follow(plan, crew)
    except EndedError:
        return
    except RuntimeError as error:
        if not ran_out(error, plan.device):
            raise
        raise out_of_memory(plan, run) from error
    except LostError as error:
        # A process that failed has told why; one that died has not.
        died = companions.who_died(SECONDS_TO_DIE) if error.__cause__ else None
        raise left_alone(run, error, died) from error


def _lead(plan: Plan, run: Path, crew: Crew, *, overwrite: bool) -> Generator[Progress]:
    """Do what a plan says, as the process that measures, draws and writes."""
    with claim_run(plan, run, overwrite=overwrite) as job:
        state = load_checkpoint(run)
        update, recorded = (0, 0) if state is None else (state["update"], state["recorded"])
        record_work(plan, run, job, update=update)
        for table in (LOG_NAME, GUARDS_NAME):
            Log(run / table).cut_back(recorded)
        if state is not None:
            # The process may have died between its last two steps.
            drop_old_checkpoints(run, best=state["best"], keep=plan.config.keep_checkpoints)
        if recorded < plan.config.updates:
            yield from _Run(plan, run, state, crew).go()


def _follow(plan: Plan, crew: Crew) -> None:
    """Learn with the first process, which says from where on and when it ends."""
    learner = Learner(plan, crew.take_state(plan.fingerprint))
    prepare = Preparation(plan.folder.domain_a, plan.folder.domain_b, plan.device)
    for stored in _stored_batches(plan, learner.update, _new_cache(plan)):
        with crew.together(prepare(stored)) as batch:
            learner.learn(batch)


def _new_cache(plan: Plan) -> ChipCache | None:
    """Keeps chips in memory; processes that read ahead have no use for it."""
    return None if plan.workers else ChipCache(plan.cache_bytes)


def _stored_batches(plan: Plan, update: int, cache: ChipCache | None) -> Iterator[StoredBatch]:
    """This process's share of the batches that come after an update."""
    samples = plan.processes.share(plan.config.batch)
    return load_batches(
        training_batches(plan, samples, cache),
        range(update + 1, plan.config.updates + 1),
        workers=plan.workers,
        pin=plan.device.type == "cuda",
    )


class _Run:
    """A learner with the data it learns from, and the folder it is written to.

    Attributes:
        recorded: the last update that the log, the pictures and the figures know all of. After an
            interrupt while these were made it is one less than the learner's update.
    """

    def __init__(self, plan: Plan, run: Path, state: dict[str, Any] | None, crew: Crew) -> None:
        folder = plan.folder
        self.plan, self.run, self.crew = plan, run, crew
        self.learner = Learner(plan, state)
        crew.give_state(self.learner.state_dict, plan.fingerprint)
        self.recorded, self.best, self.best_figure = 0, 0, float("nan")
        self.figures: dict[str, float] = {}
        seconds, losses = 0.0, []
        if state is not None:
            self.recorded, self.figures = state["recorded"], state["figures"]
            self.best, self.best_figure = state["best"], state["best_figure"]
            seconds, losses = state["seconds"], state["losses"]
        self._kept = self.learner.update, self.recorded
        self._kept_at = time.monotonic()
        self._begun = self._kept_at - seconds

        self.prepare = Preparation(folder.domain_a, folder.domain_b, plan.device)
        # One for what is learned from and for what statistics are taken from.
        self.cache = _new_cache(plan)
        self.batches = training_batches(plan, cache=self.cache)
        stride = next(iter(self.learner.generators.values())).stride
        assert isinstance(stride, int)
        side = folder.chip_size // stride * stride
        self.show = Show(folder, "val", side, self.prepare)
        split = "val" if folder.files("a", "val") and folder.files("b", "val") else "train"
        self.shown = Show(folder, split, side, self.prepare)
        self.losses = RecentLosses(run, losses)
        self.mean: dict[str, float] = {}
        self.log = Log(run / LOG_NAME)
        self.guards = Guards(
            run,
            plan.config.gan_loss,
            state and state["guards"],
            norm=plan.config.discriminator_norm,
        )
        self.session = begin_session(
            plan.device,
            plan.arithmetic,
            self.learner.update + 1,
            processes=plan.processes.count,
            compiled=plan.compiled,
        )

    def go(self) -> Iterator[Progress]:
        """Learn to the end; stopped between two updates, keep what was learned so far."""
        try:
            if self.recorded < self.learner.update:
                yield self._record()
            for stored in _stored_batches(self.plan, self.learner.update, self.cache):
                with self.crew.together(self.prepare(stored)) as batch:
                    losses = self.learner.learn(batch)
                    self.losses.add(self.learner.update, losses)
                yield self._record()
        except (KeyboardInterrupt, GeneratorExit, LostError):
            if not self.crew.within:
                self._keep_state()
            raise
        except TrainingError as error:
            self.guards.tell(Warned(self.learner.update, NO_NUMBER, str(error)))
            raise

    def _record(self) -> Progress:
        """Make what is due after an update: pictures, figures, the log's row, the model, a state.

        An interrupt while pictures and figures are made leaves all to be done again.
        """
        config, update = self.plan.config, self.learner.update
        last = update == config.updates
        saving = update % config.checkpoint_every == 0 or last
        drawing = update % config.samples_every == 0 or last
        logging_now = update % LOG_EVERY == 0 or saving
        if logging_now or self.plan.device.type == "cpu":
            self.losses.fetch()
        measured, row, warnings = Measured(self.figures), dict[str, float](), list[Warned]()
        if saving or drawing:
            generators = self._averaged()
        if drawing:
            self._draw(generators)
        if saving:
            measured = self._measure(generators)
        with held_interrupts():
            self.figures, self.recorded = measured.figures, update
            if logging_now:
                self.mean = self.losses.mean()
                row = self._log(self.figures if saving else {})
                warnings += self.guards.see_losses(update, self.mean)
            if saving:
                warnings += self.guards.see_signs(update, measured.signs, measured.clipped)
                self._keep_models(generators)
            if saving or self._is_time():
                self._keep_state()
        return Progress(update, config.updates, self.mean, self.figures, self.best, row, warnings)

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

    def _measure(self, generators: Mapping[str, nn.Module]) -> Measured:
        features = self.plan.config.kid_features
        with computing(self.plan.arithmetic, self.plan.device):
            return measure_generators(self.learner.model, generators, self.show, features)

    def _draw(self, generators: Mapping[str, nn.Module]) -> None:
        folder = self.run / SAMPLES
        with explained(folder):
            folder.mkdir(exist_ok=True)
        with computing(self.plan.arithmetic, self.plan.device):
            path = folder / f"{self.learner.update:09d}.png"
            draw_samples(path, self.learner.model, generators, self.shown)

    @property
    def _seconds(self) -> float:
        """Spent on the run so far, by all its processes."""
        return time.monotonic() - self._begun

    def _log(self, figures: dict[str, float]) -> dict[str, float]:
        """Add a row to the log; gives what is in it."""
        row = {
            "update": self.learner.update,
            "seconds": round(self._seconds, 1),
            "learning_rate": self.learner.rate,
            **self.mean,
        }
        names = figure_names(self.plan.config.model, paired=self.plan.folder.paired)
        self.log.write([*row, *names], row | figures)
        return row | figures

    def _keep_models(self, generators: Mapping[str, nn.Module]) -> None:
        """Write the bundles of the best and of the last generators.

        This comes before the checkpoint, so that a run killed in between writes them again.
        """
        config, update = self.plan.config, self.learner.update
        self._require_numbers()
        figure = self.figures.get(BEST[config.model], float("nan"))
        if not self.best or not self.best_figure > figure:
            self.best, self.best_figure = update, figure
            self._save_bundle(MODEL, generators)
            log.info("%s holds the generators of update %d", self.run / MODEL, update)
        self._save_bundle(LAST, generators)

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

    def _require_numbers(self) -> None:
        """Refuse to keep what nothing can be learned from any more.

        Raises:
            TrainingError: a weight is no number.
        """
        for name, average in self.learner.averages.items():
            if not all(bool(values.isfinite().all()) for values in average.network.parameters()):
                what = f"a weight of {name} is no number"
                raise went_wrong(self.run, what, self.learner.update)

    def _is_time(self) -> bool:
        """Whether the last checkpoint is so long ago that another one is due."""
        minutes = self.plan.config.checkpoint_minutes
        return minutes > 0 and time.monotonic() - self._kept_at >= 60 * minutes

    def _keep_state(self) -> None:
        """Write a checkpoint, unless the newest is of this state already."""
        now = self.learner.update, self.recorded
        if now == self._kept:
            return
        self._require_numbers()
        keep = self.plan.config.keep_checkpoints
        with held_interrupts():
            save_checkpoint(self.run, now[0], self._state(), best=self.best, keep=keep)
            keep_session(self.run, self.session, self.plan.device, now[0])
            self._kept, self._kept_at = now, time.monotonic()

    def _state(self) -> dict[str, Any]:
        return self.learner.state_dict() | {
            "recorded": self.recorded,
            "losses": self.losses.state(),
            "seconds": self._seconds,
            "best": self.best,
            "best_figure": self.best_figure,
            "figures": self.figures,
            "guards": self.guards.state(),
        }

"""Learning a translation: the loop, and the run folder in which it can be interrupted anywhere.

A run folder holds ``config.toml`` (the settings as resolved), ``log.csv``, ``samples/``,
``checkpoints/`` and ``model/``, the bundle. A run killed at any moment goes on from its newest
checkpoint and ends with the same bytes as one that was never interrupted (on the same machine's
CPU): all that is random in an update is a function of the seed and the update's number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from geotranslate.errors import ChipsError, OutputError, SettingError, TrainingError
from geotranslate.networks.norms import reestimate_statistics
from geotranslate.raster.output import RECORD_NAME, explained
from geotranslate.translation.batch import Batch
from geotranslate.translation.bundle import FOLDER as MODEL
from geotranslate.translation.bundle import save_bundle
from geotranslate.translation.checkpoint import (
    drop_old_checkpoints,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from geotranslate.translation.config import WITHOUT_EFFECT, TrainConfig, make_config
from geotranslate.translation.data import (
    Preparation,
    TrainingBatches,
    draw_for_pools,
    load_batches,
)
from geotranslate.translation.log import NAME as LOG_NAME
from geotranslate.translation.log import Log
from geotranslate.translation.models import Model, build_model
from geotranslate.translation.plan import (
    Plan,
    discriminator_spec,
    generator_spec,
    loss_config,
    plan_training,
)
from geotranslate.translation.precision import computing
from geotranslate.translation.run_folder import (
    CONFIG_NAME,
    SAMPLES,
    claim_run,
    read_config,
    read_job,
)
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
    """

    update: int
    updates: int
    losses: Mapping[str, float]
    figures: Mapping[str, float]
    best: int


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


def plan_resumption(run: Path, **settings: Any) -> Plan:
    """The plan of a run by what its folder says.

    Raises:
        OutputError: the folder is none of a run.
        SettingError: a setting is given that a run cannot be continued with another value of.
        ChipsError: the chips are gone.
    """
    fixed = sorted(settings.keys() - WITHOUT_EFFECT)
    if fixed:
        raise SettingError(
            f"{', '.join(fixed)} cannot be given to --resume: a run goes on with the settings it "
            f"was begun with. Leave out all but {', '.join(sorted(WITHOUT_EFFECT))}, or begin "
            "another run."
        )
    job = read_job(run)
    if job is None:
        raise OutputError(
            f"{run} holds no {RECORD_NAME}, so it is no run to go on with. Give the folder that "
            "`geotranslate train` wrote."
        )
    chips = Path(job["chips"])
    if not chips.exists():
        raise ChipsError(
            f"the chips of this run were in {chips}, which is gone. If they were moved, say "
            f"`geotranslate train CHIPS -o {run}` with their new place and the settings of "
            f"{run / CONFIG_NAME} (--config)."
        )
    return plan_training(chips, make_config(read_config(run) | settings))


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
                raise SettingError(_too_large(plan, run)) from error


def _too_large(plan: Plan, run: Path) -> str:
    """What to do when memory runs out: a run goes on with the settings of its checkpoints only."""
    found = list_checkpoints(run)
    what = (
        f"{plan.config.batch} crops of {plan.crop} px at once do not fit into the memory of "
        f"{plan.device}"
    )
    if not found:
        return f"{what}. Choose a smaller --batch, --crop or --width."
    return (
        f"{what}, though they did up to the checkpoint of update {found[0][0]}: most likely "
        "another program takes its share. End that and run the same command again, or go on "
        f"elsewhere with `geotranslate train --resume {run} --device ...`. A smaller --batch, "
        "--crop or --width is another run: say --overwrite as well to start over, or choose "
        "another folder."
    )


class _Average:
    """Generator weights averaged over the latest updates, without those of the first steps.

    ``average = keep * average + (1 - keep) * weights`` after each update. ``keep`` grows with the
    updates done, so that the random weights of the start are soon forgotten.
    """

    def __init__(self, network: nn.Module, updates: int) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self._keep = max(1 - 1 / updates, 0.0) if updates >= 1 else 0.0

    @torch.no_grad()
    def follow(self, network: nn.Module, update: int) -> None:
        keep = min(self._keep, update / (update + 9))
        average = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
        average(list(self.network.parameters()), list(network.parameters()), None)
        for ours, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)


class _Losses:
    """Losses of the latest updates; they stay on the device, so that no update waits for them."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._waiting: list[tuple[int, dict[str, Tensor]]] = []
        self._known: list[dict[str, float]] = []

    def add(self, update: int, losses: dict[str, Tensor]) -> None:
        self._waiting.append((update, losses))

    def fetch(self) -> None:
        """Bring the losses home.

        Raises:
            TrainingError: one of them is no number.
        """
        if not self._waiting:
            return
        names = list(self._waiting[0][1])
        values = torch.stack([torch.stack(list(each.values())) for _, each in self._waiting])
        for (update, _), row in zip(self._waiting, values.float().tolist(), strict=True):
            losses = dict(zip(names, row, strict=True))
            for name, value in losses.items():
                if not abs(value) < float("inf"):
                    raise _went_wrong(self._run, f"the loss {name} is {value}", update)
            self._known.append(losses)
        self._waiting.clear()

    def mean(self) -> dict[str, float]:
        """Of the losses since the last call."""
        known, self._known = self._known, []
        return {name: sum(losses[name] for losses in known) / len(known) for name in known[0]}


def _went_wrong(run: Path, what: str, update: int) -> TrainingError:
    found = [(number, path) for number, path in list_checkpoints(run) if number < update]
    good = f"The last good checkpoint is {found[0][1]}" if found else "There is no checkpoint yet"
    anew = ", and say --overwrite or choose another folder" if found else ""
    return TrainingError(
        f"{what} at update {update}, so nothing more can be learned and the run was stopped. "
        f"{good}. It would come to the same again: begin with a lower --learning-rate, or with "
        f"--precision float32{anew}."
    )


class _Run:
    """A model on its device with all that changes while it learns, and where it is written."""

    def __init__(self, plan: Plan, run: Path, state: dict[str, Any] | None) -> None:
        config, folder = plan.config, plan.folder
        self.plan, self.run = plan, run
        self.update, self.seconds, self.best, self.best_figure = 0, 0.0, 0, float("nan")
        self.figures: dict[str, float] = {}

        self.model: Model = build_model(
            loss_config(config),
            generator_spec(config),
            discriminator_spec(config),
            bands_a=len(folder.domain_a.bands),
            bands_b=len(folder.domain_b.bands),
            seed=config.seed,
        )
        for network in self.model.networks.values():
            network.to(plan.device).to(memory_format=torch.channels_last)
        self.generators = self.model.generators
        self.averages = {
            name: _Average(network, round(config.average_over * config.updates))
            for name, network in self.generators.items()
        }
        if state is not None:
            self._load(state)
        self._hand_to_fabric()

        self.prepare = Preparation(folder.domain_a, folder.domain_b, plan.device)
        self.batches = TrainingBatches(
            folder,
            paired=config.model == "pix2pix",
            crop=plan.crop,
            batch=config.batch,
            seed=config.seed,
            augment=config.augment,
        )
        stride = next(iter(self.generators.values())).stride
        assert isinstance(stride, int)
        side = folder.chip_size // stride * stride
        self.show = Show(folder, "val", side, self.prepare)
        split = "val" if folder.files("a", "val") and folder.files("b", "val") else "train"
        self.shown = Show(folder, split, side, self.prepare)
        self.losses = _Losses(run)
        self.log = Log(run / LOG_NAME)

    def _hand_to_fabric(self) -> None:
        """Let Fabric run networks and optimizers, in the arithmetic chosen."""
        device = self.plan.device
        # Each Fabric would tell what arithmetic it uses, under a logger of lightning.pytorch.
        for name in ("lightning.fabric", "lightning.pytorch"):
            logging.getLogger(name).setLevel(logging.WARNING)
        fabric = Fabric(
            accelerator=device.type,
            devices=[device.index] if device.type == "cuda" else 1,
            precision="bf16-mixed" if self.plan.arithmetic == "bf16" else "32-true",
        )
        networks, optimizers = self.model.networks, self.model.optimizers
        wrapped: dict[str, Any] = {k: fabric.setup_optimizers(v) for k, v in optimizers.items()}
        self.model.optimizers = wrapped
        self.model.networks = {k: fabric.setup_module(v) for k, v in networks.items()}
        self.model.backward = fabric.backward

    def go(self) -> Iterator[Progress]:
        """Learn to the end."""
        config = self.plan.config
        updates = range(self.update + 1, config.updates + 1)
        begun = time.monotonic() - self.seconds
        losses: dict[str, float] = {}
        pin = self.plan.device.type == "cuda"
        for update, stored in zip(
            updates,
            load_batches(self.batches, updates, workers=self.plan.workers, pin=pin),
            strict=True,
        ):
            self._learn(update, self.prepare(stored))
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
            if logging_now:
                self.seconds = time.monotonic() - begun
                losses = self.losses.mean()
                self._log(losses, self.figures if saving else {})
            if saving:
                self._save(generators)
            yield Progress(update, config.updates, losses, self.figures, self.best)

    def _learn(self, update: int, batch: Batch) -> None:
        config = self.plan.config
        rate = config.learning_rate * rate_factor(update, config.updates, config.decay_from)
        for optimizer in self.model.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        draws = draw_for_pools(config.seed, update, config.batch, self.model.draws_per_sample)
        self.losses.add(update, self.model.step(batch, draws))
        for name, average in self.averages.items():
            average.follow(self.generators[name], update)
        self.update = update

    def _averaged(self) -> dict[str, nn.Module]:
        """Copies of the averaged generators, with statistics of their own."""
        generators = {name: deepcopy(each.network) for name, each in self.averages.items()}
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
            self.figures = measure_generators(self.model, generators, self.show)

    def _draw(self, generators: Mapping[str, nn.Module]) -> None:
        folder = self.run / SAMPLES
        with explained(folder):
            folder.mkdir(exist_ok=True)
        with computing(self.plan.arithmetic, self.plan.device):
            draw_samples(folder / f"{self.update:09d}.png", self.model, generators, self.shown)

    def _log(self, losses: dict[str, float], figures: dict[str, float]) -> None:
        config = self.plan.config
        row = {
            "update": self.update,
            "seconds": round(self.seconds, 1),
            "learning_rate": next(iter(self.model.optimizers.values())).param_groups[0]["lr"],
            **losses,
        }
        names = figure_names(config.model, paired=self.plan.folder.paired)
        self.log.write([*row, *names], row | figures)

    def _save(self, generators: Mapping[str, nn.Module]) -> None:
        """Write the bundle if these generators are the best so far, then the checkpoint.

        In this order, so that a run killed in between writes the bundle again.
        """
        config, folder = self.plan.config, self.plan.folder
        for name, network in generators.items():
            if not all(bool(values.isfinite().all()) for values in network.parameters()):
                raise _went_wrong(self.run, f"a weight of {name} is no number", self.update)
        figure = self.figures.get(BEST[config.model], float("nan"))
        if not self.best or not is_better(config.model, self.best_figure, figure):
            self.best, self.best_figure = self.update, figure
            save_bundle(
                self.run / MODEL,
                generators,
                model=config.model,
                updates=self.update,
                generator=generator_spec(config),
                domain_a=folder.domain_a,
                domain_b=folder.domain_b,
                chip_size=self.plan.crop,
                attribution=config.attribution,
                figures=self.figures,
            )
            log.info("%s holds the generators of update %d", self.run / MODEL, self.update)
        save_checkpoint(self.run, self.update, self._state(), best=self.best)

    def _state(self) -> dict[str, Any]:
        return {
            "update": self.update,
            "seconds": self.seconds,
            "best": self.best,
            "best_figure": self.best_figure,
            "figures": self.figures,
            "model": self.model.state_dict(),
            "averages": {name: each.network.state_dict() for name, each in self.averages.items()},
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.update, self.seconds = state["update"], state["seconds"]
        self.best, self.best_figure = state["best"], state["best_figure"]
        self.figures = state["figures"]
        self.model.load_state_dict(state["model"])
        for name, each in self.averages.items():
            each.network.load_state_dict(state["averages"][name])


def rate_factor(update: int, updates: int, decay_from: float) -> float:
    """Share of the learning rate at an update: 1 at first, then in a straight line to zero.

    Args:
        update: from 1.
        updates: how many there are; one more would have 0.
        decay_from: share of them after which the line starts.
    """
    done = (update - 1) / updates
    return 1.0 if done < decay_from or decay_from == 1 else (1 - done) / (1 - decay_from)

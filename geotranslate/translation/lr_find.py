"""Which learning rate to take, by trying: the range test of Smith (2017) in fastai's way.

A throw-away copy of the model learns for some updates while the rate grows by the same factor each
time. Too low a rate changes nothing, a good one lets the loss fall, too high a one makes it rise.
Nothing is written, and no run is touched.

Smith, L. N. (2017): Cyclical learning rates for training neural networks. WACV.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from geotranslate.errors import SettingError
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.data import Preparation, load_batches, training_batches
from geotranslate.translation.learner import Learner
from geotranslate.translation.plan import Plan

LOWEST, HIGHEST = 1e-6, 1.0
UPDATES = 100

FEWEST = 10
"""Trials from which something can be said."""

DIVERGED = 4.0
"""Times the lowest loss so far at which a rate is too high for good, and the test ends."""

FORGET = 0.8
"""Share of the earlier losses in the mean that decides on the end."""

SMOOTHED = 0.04
"""Standard deviation of the smoothing along the rates, in parts of all updates."""

RISEN = 2.0
"""Times the lowest smoothed loss so far from which on nothing counts: outputs have their limits, so
a network that is broken by a high rate comes to rest, and its loss may even fall."""

UNCHANGED = 0.1
"""Share of the updates, the first ones, whose rates are too low to change the loss."""

SMALLEST_FALL = 0.1
"""Share of the first loss by which it must fall for a rate to be advised."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """One update of the test.

    Attributes:
        update: from 1.
        updates: how many there are to be, unless the loss grows beyond measure before.
        rate: it was done with.
        loss: of the generators before it.
    """

    update: int
    updates: int
    rate: float
    loss: float


@dataclass(frozen=True)
class Advice:
    """What the trials say.

    Attributes:
        valley: the rate at which the loss has come half of its whole way down.
        steepest: the rate at which it falls quickest, in the middle half of that way.
        rates: of all trials.
        losses: smoothed.
    """

    valley: float
    steepest: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]


def try_rates(
    plan: Plan, *, lowest: float = LOWEST, highest: float = HIGHEST, updates: int = UPDATES
) -> Iterator[Trial]:
    """Learn with rates from ``lowest`` to ``highest`` until the loss grows beyond measure.

    The loss is the one the generators' optimizer goes down: all its parts with their weights.

    Args:
        plan: of a run, whose learning rate and schedule are not used.
        lowest: rate of the first update.
        highest: rate of the last one.
        updates: how many to do.

    Yields:
        A trial after each update.

    Raises:
        SettingError: the rates do not rise, or there are too few updates.
    """
    if not 0 < lowest < highest or updates < 2:
        raise SettingError(
            f"rates from {lowest:g} to {highest:g} in {updates} updates do not rise, so nothing "
            "can be compared. Choose a lowest rate above 0, a higher highest one, and 2 updates or "
            "more."
        )
    # So few updates do not pay for compiling.
    plan = replace(plan, compiled=False)
    learner, weights = Learner(plan), loss_weights(plan.config)
    prepare = Preparation(plan.folder.domain_a, plan.folder.domain_b, plan.device)
    numbers = range(1, updates + 1)
    mean = best = math.inf
    stored = load_batches(
        training_batches(plan), numbers, workers=plan.workers, pin=plan.device.type == "cuda"
    )
    for update, batch in zip(numbers, stored, strict=True):
        rate = lowest * (highest / lowest) ** ((update - 1) / (updates - 1))
        losses = learner.learn(prepare(batch), rate=rate)
        loss = sum(weights[name] * float(losses[name]) for name in weights.keys() & losses.keys())
        yield Trial(update, updates, rate, loss)
        mean = loss if update == 1 else FORGET * mean + (1 - FORGET) * loss
        best = min(best, mean)
        if not mean <= DIVERGED * best:  # also when it is no number
            return


def loss_weights(config: TrainConfig) -> Mapping[str, float]:
    """How much each loss counts in what the generators' optimizer goes down."""
    if config.model == "pix2pix":
        return {"gan": 1.0, "l1": config.l1, "pool_l2": config.pool_l2}
    identity = config.cycle * config.identity
    return {
        **dict.fromkeys(("gan_ab", "gan_ba"), 1.0),
        **dict.fromkeys(("cycle_a", "cycle_b"), config.cycle),
        **dict.fromkeys(("idt_a", "idt_b"), identity),
    }


def advise(trials: Sequence[Trial]) -> Advice:
    """The rates to take, by how the loss went.

    Args:
        trials: in their order.

    Raises:
        SettingError: the loss falls nowhere.
    """
    known = [trial for trial in trials if math.isfinite(trial.loss)]
    rates = np.array([trial.rate for trial in known])
    losses = np.array([trial.loss for trial in known])
    if len(known) >= FEWEST:
        unchanged = float(losses[: max(1, round(UNCHANGED * len(known)))].mean())
        width = SMOOTHED * known[-1].updates
        smooth = gaussian_filter1d(losses, width, mode="nearest")
        # A slope feels noise more than a level does.
        slope = gaussian_filter1d(losses, 2 * width, order=1, mode="nearest")
        sound = _before_it_rises(smooth)
        fall = unchanged - float(sound.min())
        if fall >= SMALLEST_FALL * unchanged:
            fallen = (unchanged - sound) / fall
            half, end = int(np.argmax(fallen >= 0.5)), int(np.argmax(fallen >= 0.75))
            above = np.flatnonzero(fallen[:end] < 0.25)
            start = int(above[-1]) if above.size else 0
            quickest = start + int(slope[start : end + 1].argmin())
            return Advice(
                valley=float(rates[half]),
                steepest=float(rates[quickest]),
                rates=tuple(rates.tolist()),
                losses=tuple(smooth.tolist()),
            )
    raise SettingError(
        f"the loss does not fall clearly at any of {len(known)} rates, so none can be advised: "
        "updates of few crops differ much. Try a larger --batch, or keep the default "
        "--learning-rate."
    )


def _before_it_rises(losses: Numbers) -> Numbers:
    risen = losses > RISEN * np.minimum.accumulate(losses)
    return losses[: int(risen.argmax())] if risen.any() else losses

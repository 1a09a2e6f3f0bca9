"""Guards: they watch a run and say in a sentence what goes wrong, why it matters, what to do.

A guard that keeps firing says so once; when it was silent in between, it says so again. What they
said is kept in ``guards.csv`` of the run. Nothing heavy is imported here.
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from geotranslate.choices import DiscriminatorNorm, GanLoss
from geotranslate.translation.log import Log

if TYPE_CHECKING:
    from geotranslate.translation.signs import Signs

NAME = "guards.csv"
COLUMNS = ("update", "guard", "sentence")

NO_NUMBER = "no number"
"""The guard that stops a run: a loss or a weight is no number any more."""

GRACE = 200
"""Updates in which translations may look like anything: networks begin with noise."""

FEWEST = 4
"""Chips that say something about all of them."""

ROWS = 50
"""Rows of the log that losses are judged by: 1,000 updates."""

SOME_ROWS = 5
"""Rows that say what is usual."""

WON_ROWS = 25
WON = 0.05
"""Share of the loss of guessing below which a discriminator has won."""

LOST = 0.97
"""Share of the loss of guessing above which a discriminator guesses."""

CHANCE: dict[GanLoss, float] = {"lsgan": 0.25, "bce": math.log(2)}
"""The loss of a discriminator that gives everything the same score, halfway between its targets."""

EXPLODED = 10
"""Times its usual value that a loss explodes at."""

USUAL_LEAST = 0.05
"""A distance to something that is usually smaller than this is taken to be usually this."""

NO_CLOSER = 0.8
"""Share of the input's own distance to the truth that a copy does not come below."""

SHOWN = 0.5
"""Share of a flat picture's distance to the input that a copy stays below."""

HIDDEN = 3.0
"""Times by which rounding to 8 bits makes the way back worse where a copy hides in small steps."""

ALIKE = 0.95
"""Correlation with the input above which a translation is the input."""

TRULY_ALIKE = 0.8
"""Correlation of truth and input above which a translation may be that much like the input."""

COLLAPSED = 0.1
"""Share of the real images' spread below which all translations are one."""

VARIED = 0.02
"""Spread of inputs that do differ, in [-1, 1]."""

INVERTED = -0.4
"""Correlation below which dark and bright are exchanged, and not by chance."""

MIRRORED = 0.5
"""Share of the distance between histograms that is left where dark and bright are exchanged."""

FAR = 0.2
"""Distance between histograms of brightness that is large, in [-1, 1]."""

SATURATED = 0.1
"""Share of values at the ends of the range that is much, unless twice the real images' is more."""

CLIPPED = 0.05
"""Share of values outside the range of the normalization that is much."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Warned:
    """A guard that fired.

    Attributes:
        update: at which.
        guard: its name.
        sentence: what it saw, why it matters, and what to do.
    """

    update: int
    guard: str
    sentence: str


def input_copy(signs: Signs) -> str | None:
    """The translation is nearer to the input than to the truth, and is a copy.

    A copy shows what varies in the input, which a flat picture does not, and comes no closer to the
    truth than the input, as translations do where both sides look alike. Where they are alike from
    the beginning, what is still further from the input than the truth is was not copied from it.
    """
    nearer = signs.to_input < min(signs.to_truth, signs.input_to_truth)
    copied = signs.to_input < SHOWN * signs.input_to_flat
    no_closer = signs.to_truth >= NO_CLOSER * signs.input_to_truth
    if not (nearer and copied and no_closer):
        return None
    mend = "a higher --l1 and --pool-l2" if math.isnan(signs.cycle) else "a lower --cycle"
    return (
        f"what {signs.way} makes is nearer to its input than to the truth (mean distances "
        f"{signs.to_input:.2g} and {signs.to_truth:.2g}), so that images are passed through "
        f"instead of translated: look at samples/, and if they stay so begin anew with {mend}"
    )


def hidden_copy(signs: Signs) -> str | None:
    """The input hides in the translation, in steps too small to see (Chu et al. 2017)."""
    if not signs.rounded_cycle > HIDDEN * signs.cycle:
        return None
    return (
        f"the way back from {signs.way} misses by {signs.rounded_cycle / signs.cycle:.1f} times as "
        "much once the translation is rounded to 8 bits, so that the input hides in steps too "
        "small to see and the content need not be right: begin anew with a lower --cycle"
    )


def passed_through(signs: Signs) -> str | None:
    """The translation correlates with the input as only the input does."""
    right = signs.true_likeness > TRULY_ALIKE
    if not signs.likeness > ALIKE or right or input_copy(signs):
        return None
    mend = "a lower --cycle or --identity 0" if math.isnan(signs.true_likeness) else "more --blocks"
    return (
        f"what {signs.way} makes is its input in other shades (correlation "
        f"{signs.likeness:.2f}), so that nothing is translated unless A and B do look that alike: "
        f"look at samples/, and if they stay so begin anew with {mend}"
    )


def collapse(signs: Signs) -> str | None:
    """All translations are alike though their inputs differ."""
    differ = signs.chips >= FEWEST and signs.input_spread > VARIED
    if not differ or not signs.spread < COLLAPSED * signs.real_spread:
        return None
    return (
        f"what {signs.way} makes hardly differs from chip to chip (spread {signs.spread:.2g}, of "
        f"real images {signs.real_spread:.2g}), so that it tells nothing of the place: look at "
        "samples/, and if they stay so begin anew with a lower --learning-rate or another --seed"
    )


def inversion(signs: Signs) -> str | None:
    """Dark and bright are exchanged."""
    if signs.chips < FEWEST:
        return None
    known = {name: value for name, value in signs.bands.items() if not math.isnan(value)}
    worst = min(known, key=lambda name: known[name], default="")
    if worst and known[worst] < INVERTED:
        seen = f"dark and bright are exchanged in band {worst} (correlation {known[worst]:.2f})"
    elif signs.likeness > ALIKE:
        return None  # a copy has the brightness of its input, which may be mirrored
    elif signs.off > FAR and signs.mirrored_off < MIRRORED * signs.off:
        seen = "the brightness is that of real images with dark and bright exchanged"
    else:
        return None
    return (
        f"in what {signs.way} makes {seen}, so that colours mean the opposite: look at samples/, "
        "check that bands are in the same order and unit in all chips, and begin anew with another "
        "--seed"
    )


def saturation(signs: Signs) -> str | None:
    """Many values lie at the ends of the range."""
    if not signs.at_ends > max(SATURATED, 2 * signs.real_at_ends):
        return None
    return (
        f"{signs.at_ends:.0%} of the values that {signs.way} makes lie at the ends of the range, "
        f"of real images {signs.real_at_ends:.0%}, so that detail is lost there and nothing more "
        "is learned: begin anew with a lower --learning-rate"
    )


OF_SIGNS: dict[str, Callable[[Signs], str | None]] = {
    "input copy": input_copy,
    "hidden copy": hidden_copy,
    "passed through": passed_through,
    "collapse": collapse,
    "inversion": inversion,
    "saturation": saturation,
}
"""What looks at translations, by name."""


def clipping(shares: Mapping[str, float]) -> str | None:
    """The normalization cuts off too much of the chips.

    Args:
        shares: of the values that are cut off, by band and domain.
    """
    worst = max(shares, key=lambda name: shares[name], default="")
    if not worst or not shares[worst] > CLIPPED:
        return None
    return (
        f"{shares[worst]:.0%} of the values of {worst} lie outside the range that becomes -1 to 1, "
        "so that the network cannot tell them apart: cut the chips anew with `geotranslate tile`, "
        "which takes the range from the training chips, and check that no --nodata is missing"
    )


Row = Mapping[str, float]


def explosion(losses: Sequence[Row], chance: float) -> dict[str, str]:
    """By loss: what is said of one that is far above what it usually is.

    Args:
        losses: rows of the log, the newest last.
        chance: the loss of a discriminator that guesses.
    """
    *rows, now = losses
    adversarial = [*_discriminators(losses), *(name for name in now if name.startswith("gan"))]
    said = {}
    for name, value in now.items():
        before = _values(rows, name)
        usual = max(median(before or [value]), chance if name in adversarial else USUAL_LEAST)
        if len(before) >= SOME_ROWS and value > EXPLODED * usual:
            said[name] = (
                f"the loss {name} rose to {value:.3g}, usual is {usual:.2g}, so that what was "
                "learned may be lost: if it does not come back, begin anew with a lower "
                "--learning-rate, or go on with one by --resume RUN --set learning_rate=..."
            )
    return said


def won(
    losses: Sequence[Row], chance: float, norm: DiscriminatorNorm = "spectral"
) -> dict[str, str]:
    """By loss: what is said of a discriminator that is never wrong.

    Args:
        losses: rows of the log, the newest last.
        chance: the loss of a discriminator that guesses.
        norm: the discriminator's.
    """
    if len(losses) < WON_ROWS:
        return {}
    calmer = "a lower --learning-rate" if norm == "spectral" else "--discriminator-norm spectral"
    return {
        name: f"the discriminator has won: its loss {name} has stayed below {WON * chance:.2g} for "
        f"{WON_ROWS} rows of the log, so that the generator learns nothing more from it: begin "
        f"anew with a smaller --discriminator-width, {calmer}, or more chips"
        for name in _discriminators(losses)
        if max(_values(losses[-WON_ROWS:], name)) < WON * chance
    }


def lost(losses: Sequence[Row], chance: float) -> dict[str, str]:
    """By loss: what is said of a discriminator that guesses."""
    if len(losses) < ROWS:
        return {}
    return {
        name: f"the discriminator has lost: its loss {name} has been that of guessing, "
        f"{chance:.2g}, for {ROWS} rows of the log, so that it teaches the generator nothing: "
        "begin anew with a wider --discriminator-width or a lower --learning-rate"
        for name in _discriminators(losses)
        if min(_values(losses, name)) > LOST * chance
    }


def _discriminators(losses: Sequence[Row]) -> list[str]:
    """The losses of discriminators among those of the newest row."""
    return [name for name in losses[-1] if name == "d" or name.startswith("d_")]


def _values(losses: Sequence[Row], name: str) -> list[float]:
    """Of one loss, in the rows that have it: a change of settings may have brought it in."""
    return [row[name] for row in losses if name in row]


OF_LOSSES: dict[str, Callable[[Sequence[Row], float], dict[str, str]]] = {
    "explosion": explosion,
    "discriminator won": won,
    "discriminator lost": lost,
}
"""What looks at the rows of the log, by name."""


class Guards:
    """What watches one run, and remembers what it needs to go on as if never interrupted."""

    def __init__(
        self,
        run: Path,
        gan_loss: GanLoss,
        state: Mapping[str, Any] | None = None,
        *,
        norm: DiscriminatorNorm = "spectral",
    ) -> None:
        """Begin to watch.

        Args:
            run: the run folder.
            gan_loss: what the discriminators are asked.
            state: a `state` to go on from.
            norm: in the discriminators; none that they have already is advised.
        """
        self._log = Log(run / NAME)
        self._chance = CHANCE[gan_loss]
        self._of_losses = OF_LOSSES | {"discriminator won": partial(won, norm=norm)}
        self._losses: list[dict[str, float]] = list(state["losses"]) if state else []
        self._firing: set[str] = set(state["firing"]) if state else set()

    def state(self) -> dict[str, Any]:
        """What they remember: lists, numbers and strings."""
        return {"losses": list(self._losses), "firing": sorted(self._firing)}

    def see_losses(self, update: int, losses: Mapping[str, float]) -> list[Warned]:
        """Judge a row of the log; gives what there is to say that was not said before."""
        self._losses = [*self._losses, dict(losses)][-ROWS:]
        said = {
            (guard, name): sentence
            for guard, look in self._of_losses.items()
            for name, sentence in look(self._losses, self._chance).items()
        }
        return self._tell(update, OF_LOSSES, said)

    def see_signs(
        self, update: int, signs: Iterable[Signs], clipped: Mapping[str, float]
    ) -> list[Warned]:
        """Judge translated validation chips; gives what there is to say that was not said before.

        Args:
            update: after which they were translated.
            signs: of each way.
            clipped: by band, the share of values that the normalization cuts off.
        """
        said = {("clipping", ""): clipping(clipped)}
        for each in signs if update > GRACE else ():
            said |= {(guard, each.way): look(each) for guard, look in OF_SIGNS.items()}
        found = {key: sentence for key, sentence in said.items() if sentence}
        return self._tell(update, ("clipping", *OF_SIGNS), found)

    def tell(self, warned: Warned) -> None:
        """Keep what was said, and log it."""
        self._log.write(COLUMNS, vars(warned))
        log.warning("update %d, %s: %s", warned.update, warned.guard, warned.sentence)

    def _tell(
        self, update: int, guards: Iterable[str], said: Mapping[tuple[str, str], str]
    ) -> list[Warned]:
        """Say what begins now, and remember what goes on, of these guards."""
        names = {f"{guard}/{of}": (guard, sentence) for (guard, of), sentence in said.items()}
        judged = tuple(f"{guard}/" for guard in guards)
        silent = {name for name in self._firing if name.startswith(judged)} - names.keys()
        news = [
            Warned(update, guard, f"{sentence[0].upper()}{sentence[1:]}.")
            for name, (guard, sentence) in names.items()
            if name not in self._firing
        ]
        self._firing = (self._firing - silent) | names.keys()
        for each in news:
            self.tell(each)
        return news


def read_guards(run: Path) -> list[Warned]:
    """What the guards of a run have said, in their order."""
    path = run / NAME
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Warned(int(row["update"]), row["guard"], row["sentence"])
            for row in csv.DictReader(file)
        ]

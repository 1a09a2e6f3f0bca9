"""How good a run's generators are: figures on validation chips, and signs for the guards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geotranslate.chips.folder import ChipFolder
from geotranslate.choices import ModelName
from geotranslate.networks.context import Context
from geotranslate.raster.domain import Domain, to_physical
from geotranslate.translation.batch import Batch, hide
from geotranslate.translation.data import StoredBatch
from geotranslate.translation.kid import distances, read_features
from geotranslate.translation.learning import predicting
from geotranslate.translation.losses import masked_l1
from geotranslate.translation.metrics import Figures, ValueRange, measure, summarize
from geotranslate.translation.models import Model
from geotranslate.translation.show import Show, array_of, valid_of
from geotranslate.translation.signs import (
    Observer,
    Shown,
    Signs,
    share_clipped,
    shared_by_name,
)

MEASURED_CHIPS = 32
"""Validation chips, at most, that figures are taken from."""

ROUNDED_EVERY = 4
"""Of so many chips the way back is taken once more, from a translation rounded to 8 bits."""

PAIR_FIGURES = ("psnr", "psnr8", "ssim", "sam", "color_bias", "contrast", "sharpness", "corr8")
"""Those of `metrics.FIGURES` that a run follows where there are pairs."""

SCORE = "score"
TOLERANCE = 1.5
"""Decibels by which contrast and sharpness may miss the truth's: a factor of 0.71 to 1.41."""

CYCLE = "cycle"
NEAR_ENOUGH = 0.1
"""Distance there and back, of A and B together, below which it is no merit to come closer."""

KID = {"b": ("kid", "kid_floor"), "a": ("kid_a", "kid_a_floor")}
"""The distance of translations from real images of a domain, and what chance makes of it."""

CYCLE_SCORE = "cycle_score"

BEST: dict[ModelName, str] = {"pix2pix": SCORE, "cyclegan": CYCLE_SCORE}
"""The figure by which the best generators are kept; higher is better."""


def figure_names(model: ModelName, *, paired: bool) -> list[str]:
    """The figures that `measure_generators` can give."""
    names = [*PAIR_FIGURES, SCORE] if paired else []
    if model == "pix2pix":
        return [*names, *KID["b"]]
    return [*names, *KID["b"], *KID["a"], CYCLE, CYCLE_SCORE]


def score(figures: Figures) -> float:
    """One figure for a translation beside its truth, in decibels: higher is better.

    PSNR rewards the right colour in the right place, of 8 x 8 px means also where pairs lie a few
    pixels off each other; but both reward blur. So what contrast and sharpness miss of the truth's
    beyond `TOLERANCE` is taken off:
    ``(psnr + psnr8) / 2 - excess(contrast) - excess(sharpness)`` with
    ``excess(ratio) = max(|10 log10 ratio| - TOLERANCE, 0)``.
    """
    missed = sum(
        max(abs(10 * math.log10(max(ratio, 1e-6))) - TOLERANCE, 0.0)
        for ratio in (figures.contrast, figures.sharpness)
        if not math.isnan(ratio)
    )
    return (figures.psnr + figures.psnr8) / 2 - missed


def cycle_score(figures: Mapping[str, float]) -> float:
    """One figure for translations without a truth, in decibels: higher is better.

    To come back to the same image is easiest for who hides it in the translation, and to look real
    is easiest for who makes things up. So it is
    ``-10 log10 max(cycle, NEAR_ENOUGH)`` less the mean over both ways of
    ``10 log10(1 + max(kid, 0) / kid_floor)``, where these are known.
    """
    missed = [
        10 * math.log10(1 + max(figures[kid], 0) / figures[floor])
        for kid, floor in KID.values()
        if figures.get(floor, 0) > 0
    ]
    nearness = -10 * math.log10(max(figures[CYCLE], NEAR_ENOUGH))
    return nearness - (sum(missed) / len(missed) if missed else 0)


@dataclass(frozen=True)
class Measured:
    """What generators make of validation chips.

    Attributes:
        figures: those of `figure_names` that have a value.
        signs: of each way, for the guards; empty without chips.
        clipped: by band, the share of its values that the normalization cuts off.
    """

    figures: dict[str, float]
    signs: tuple[Signs, ...] = ()
    clipped: Mapping[str, float] = field(default_factory=dict)


def measure_generators(
    model: Model,
    generators: Mapping[str, nn.Module],
    show: Show,
    kid_features: str | None = None,
) -> Measured:
    """Figures and signs of generators, over valid pixels; empty without chips.

    Figures of pairs are medians over chips. ``cycle`` is a mean over chips: the mean distance in
    [-1, 1] of A from A over B and back, plus that of B. KID is one figure of all chips.

    Args:
        model: which way of learning; nothing in it changes.
        generators: by name, such as averaged ones.
        show: what to measure on.
        kid_features: as `read_features` takes it, for images of B.
    """
    folder, pairs, cycles = show.folder, list[Figures](), list[float]()
    ways = [_Way("a", "b", folder, kid_features)]
    if "g_ba" in generators:
        ways.append(_Way("b", "a", folder))
    clipped = _Clipped(folder)
    for number, stored in enumerate(show.stored(MEASURED_CHIPS)):
        clipped.see(stored)
        batch = show.prepare(stored)
        pictures = {"real_a": batch.real_a, "real_b": batch.real_b}
        pictures |= model.pictures(batch, generators)
        if folder.paired and (batch.valid_b is None or batch.valid_b.any()):
            pairs.append(_compare(pictures["fake_b"], batch, folder.domain_b))
        for way in ways:
            way.see(pictures, batch)
        if "rec_a" in pictures:
            again = generators if number % ROUNDED_EVERY == 0 else None
            cycles.append(sum(way.see_way_back(pictures, batch, again) for way in ways))
    if not ways[0].chips:
        return Measured({})
    figures: dict[str, float] = {}
    if pairs:
        # Contrast and sharpness are ratios, and that of a chip of still water can be any number.
        summary = summarize(pairs, np.median)
        figures = {name: getattr(summary, name) for name in PAIR_FIGURES}
        figures[SCORE] = score(summary)
    for way in ways:
        figures |= way.distances()
    figures = {name: value for name, value in figures.items() if not math.isnan(value)}
    if cycles:
        figures[CYCLE] = float(np.mean(cycles))
        figures[CYCLE_SCORE] = cycle_score(figures)
    return Measured(figures, tuple(way.signs() for way in ways), clipped.shares())


class _Way:
    """One way of translating, from the domain ``source`` to ``target``, chip by chip."""

    def __init__(
        self, source: str, target: str, folder: ChipFolder, kid_features: str | None = None
    ) -> None:
        domains = {"a": folder.domain_a, "b": folder.domain_b}
        self._source, self._target, self._paired = source, target, folder.paired
        self._observer = Observer(
            f"{source.upper()} to {target.upper()}",
            domains[target],
            paired=folder.paired,
            shared=shared_by_name(domains[source], domains[target]),
        )
        self._looks = read_features(
            None if kid_features is None else Path(kid_features), len(domains[target].bands)
        )
        self._fake: list[Tensor] = []
        self._real: list[Tensor] = []
        self.chips = 0

    def see(self, pictures: Mapping[str, Tensor], batch: Batch) -> None:
        """Take in a chip and its translation."""
        valid = {"a": batch.valid_a, "b": batch.valid_b}
        given, fake = pictures[f"real_{self._source}"], pictures[f"fake_{self._target}"]
        real = pictures[f"real_{self._target}"]
        shown = Shown(
            given=array_of(given),
            fake=array_of(fake),
            real=array_of(real),
            given_valid=valid_of(valid[self._source], given),
            real_valid=valid_of(valid[self._target], real),
        )
        self._observer.see(shown)
        self._looks.to(fake.device)
        if shown.given_valid.any():
            self._fake.append(self._looks(fake, valid[self._source]))
        if shown.real_valid.any():
            self._real.append(self._looks(real, valid[self._target]))
        self.chips += 1

    def see_way_back(
        self,
        pictures: Mapping[str, Tensor],
        batch: Batch,
        again: Mapping[str, nn.Module] | None,
    ) -> float:
        """How far a chip is from itself there and back.

        Args:
            pictures: of the chip.
            batch: the chip.
            again: generators to take the way back once more with, from a rounded translation.
        """
        valid = batch.valid_a if self._source == "a" else batch.valid_b
        given = pictures[f"real_{self._source}"]
        cycle = float(masked_l1(pictures[f"rec_{self._source}"], given, valid))
        if again is not None:
            back = again[f"g_{self._target}{self._source}"]
            with predicting(back):
                rounded = _rounded(pictures[f"fake_{self._target}"])
                rec = hide(back(hide(rounded, valid), Context(valid)), valid)
            self._observer.see_way_back(cycle, float(masked_l1(rec, given, valid)))
        return cycle

    def distances(self) -> dict[str, float]:
        """KID and its floor, by their names."""
        if not self._fake or not self._real:
            return {}
        fake, real = (torch.cat(each).cpu().double().numpy() for each in (self._fake, self._real))
        found = distances(fake, real, same_places=self._paired)
        return dict(zip(KID[self._target], found, strict=True))

    def signs(self) -> Signs:
        """What the guards look at."""
        return self._observer.signs()


def _rounded(images: Tensor) -> Tensor:
    """Images in [-1, 1] as 8 bits would keep them."""
    return ((images.float() + 1) * 127.5).round() / 127.5 - 1


class _Clipped:
    """How much of the chips their normalization cuts off."""

    def __init__(self, folder: ChipFolder) -> None:
        self._domains = folder.domain_a, folder.domain_b
        self._shares: tuple[list[NDArray[np.float64]], ...] = ([], [])

    def see(self, batch: StoredBatch) -> None:
        """Take in chips of both domains, one of each."""
        for domain, shares, stored in zip(
            self._domains, self._shares, (batch.a, batch.b), strict=True
        ):
            pixels = stored.pixels[0].numpy()
            valid = valid_of(stored.valid, stored.pixels)
            if valid.any():
                shares.append(share_clipped(pixels, valid, domain))

    def shares(self) -> dict[str, float]:
        """By band: the share of values outside the range, of these chips or of those learned from.

        The larger one counts.
        """
        found = {}
        for letter, domain, shares in zip("AB", self._domains, self._shares, strict=True):
            seen = np.mean(shares, axis=0) if shares else np.zeros(len(domain.bands))
            known = domain.clipped or (0.0,) * len(domain.bands)
            for name, here, there in zip(domain.names, seen, known, strict=True):
                found[f"{name} of {letter}"] = max(float(here), there)
        return found


def _compare(fake_b: Tensor, batch: Batch, domain: Domain) -> Figures:
    normalization = domain.normalization()

    def physical(images: Tensor) -> NDArray[np.float64]:
        return to_physical(normalization.inverse(array_of(images)), domain.bands)

    ends = zip(domain.low, domain.high, strict=True)
    limits = ValueRange(domain.low, tuple(high if high > low else low + 1 for low, high in ends))
    valid = valid_of(batch.valid_b, batch.real_b)
    return measure(physical(fake_b), physical(batch.real_b), valid, limits)

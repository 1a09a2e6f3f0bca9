"""What a run shows of its generators: figures on validation chips, and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from geotranslate.chips.folder import ChipFolder
from geotranslate.choices import ModelName
from geotranslate.raster.domain import Domain, to_physical
from geotranslate.raster.pictures import choose_stretch, write_grid
from geotranslate.translation.batch import Batch
from geotranslate.translation.data import Draw, Preparation, StoredBatch, read_images, read_pairs
from geotranslate.translation.losses import masked_l1
from geotranslate.translation.metrics import Figures, ValueRange, measure, summarize
from geotranslate.translation.models import Model

MEASURED_CHIPS = 32
"""Validation chips, at most, that figures are taken from."""

SHOWN_CHIPS = 4

MIDDLE = Draw(chip=0, row=0.5, col=0.5, turn=0)
"""The only file given, cropped in its middle, as it lies."""

PAIR_FIGURES = ("psnr", "psnr8", "ssim", "color_bias", "contrast", "sharpness", "corr8")
"""Those of `metrics.FIGURES` that a run follows where there are pairs."""

SCORE = "score"
TOLERANCE = 1.5
"""Decibels by which contrast and sharpness may miss the truth's: a factor of 0.71 to 1.41."""

CYCLE = "cycle"

BEST: dict[ModelName, str] = {"pix2pix": SCORE, "cyclegan": CYCLE}
"""The figure by which the best generators are kept."""


class Column(NamedTuple):
    """A column of the samples.

    Attributes:
        title: over it.
        picture: what it shows, by name.
        kind: "a" or "b", whose stretch it has.
        source: "a" or "b", whose valid pixels it has.
    """

    title: str
    picture: str
    kind: str
    source: str


COLUMNS = (
    Column("A", "real_a", "a", "a"),
    Column("A to B", "fake_b", "b", "a"),
    Column("and back", "rec_a", "a", "a"),
    Column("B", "real_b", "b", "b"),
    Column("B to A", "fake_a", "a", "b"),
    Column("and back", "rec_b", "b", "b"),
)


def figure_names(model: ModelName, *, paired: bool) -> list[str]:
    """What `measure_generators` gives."""
    names = [*PAIR_FIGURES, SCORE] if paired else []
    return [*names, CYCLE] if model == "cyclegan" else names


def is_better(model: ModelName, new: float, old: float) -> bool:
    """Whether one value of the model's `BEST` figure is better than another."""
    return new < old if BEST[model] == CYCLE else new > old


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


@dataclass(frozen=True)
class Show:
    """Chips that generators are tried on.

    Attributes:
        folder: whose chips.
        split: which of them.
        side: of the squares taken from their middle, in pixels.
        prepare: brings them onto the device.
    """

    folder: ChipFolder
    split: str
    side: int
    prepare: Preparation

    def batches(self, limit: int) -> Iterator[Batch]:
        """Up to ``limit`` chips of each domain, spread over the split; one a batch."""
        files_a, files_b = (self.folder.files(domain, self.split) for domain in "ab")
        numbers_a, numbers_b = spread(len(files_a), limit), spread(len(files_b), limit)
        for number_a, number_b in zip(numbers_a, numbers_b, strict=False):
            chosen_a, chosen_b = [files_a[number_a]], [files_b[number_b]]
            if self.folder.paired:
                pairs = list(zip(chosen_a, chosen_b, strict=True))
                stored = read_pairs(pairs, [MIDDLE], self.side)
            else:
                stored = StoredBatch(
                    read_images(chosen_a, [MIDDLE], self.side),
                    read_images(chosen_b, [MIDDLE], self.side),
                )
            yield self.prepare(stored)


def spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` of the numbers below ``count``, at even distances."""
    wanted = min(count, limit)
    return [index * count // wanted for index in range(wanted)]


def measure_generators(
    model: Model, generators: Mapping[str, nn.Module], show: Show
) -> dict[str, float]:
    """The figures of `figure_names`, over valid pixels; empty without chips.

    Those of pairs are medians over chips. ``cycle`` is a mean over chips: the mean distance in
    [-1, 1] of A from A over B and back, plus that of B.

    Args:
        model: which way of learning; nothing in it changes.
        generators: by name, such as averaged ones.
        show: what to measure on.
    """
    pairs, cycles = [], []
    for batch in show.batches(MEASURED_CHIPS):
        pictures = model.pictures(batch, generators)
        if show.folder.paired and (batch.valid_b is None or batch.valid_b.any()):
            pairs.append(_compare(pictures["fake_b"], batch, show.folder.domain_b))
        if "rec_a" in pictures:
            there_and_back = masked_l1(pictures["rec_a"], batch.real_a, batch.valid_a)
            back_and_there = masked_l1(pictures["rec_b"], batch.real_b, batch.valid_b)
            cycles.append(float(there_and_back + back_and_there))
    figures: dict[str, float] = {}
    if pairs:
        # Contrast and sharpness are ratios, and that of a chip of still water can be any number.
        summary = summarize(pairs, np.median)
        figures = {name: getattr(summary, name) for name in PAIR_FIGURES}
        figures[SCORE] = score(summary)
    if cycles:
        figures[CYCLE] = float(np.mean(cycles))
    return figures


def _compare(fake_b: Tensor, batch: Batch, domain: Domain) -> Figures:
    normalization = domain.normalization()

    def physical(images: Tensor) -> NDArray[np.float64]:
        return to_physical(normalization.inverse(_array(images)), domain.bands)

    ends = zip(domain.low, domain.high, strict=True)
    limits = ValueRange(domain.low, tuple(high if high > low else low + 1 for low, high in ends))
    valid = _valid(batch.valid_b, batch.real_b)
    return measure(physical(fake_b), physical(batch.real_b), valid, limits)


def draw_samples(path: Path, model: Model, generators: Mapping[str, nn.Module], show: Show) -> None:
    """Draw a few chips as a PNG: A, translated, B, and the way back where the model learns it.

    Real and translated images of a domain have the same stretch: that of the real ones.

    Args:
        path: the PNG.
        model: which way of learning; nothing in it changes.
        generators: by name, such as averaged ones.
        show: what to draw.

    Raises:
        OutputError: the file cannot be written.
    """
    batches = list(show.batches(SHOWN_CHIPS))
    shown = [
        {"real_a": batch.real_a, "real_b": batch.real_b, **model.pictures(batch, generators)}
        for batch in batches
    ]
    valid = [
        {"a": _valid(batch.valid_a, batch.real_a), "b": _valid(batch.valid_b, batch.real_b)}
        for batch in batches
    ]
    stretches = {
        kind: choose_stretch(
            domain.bands,
            [
                (_array(pictures[f"real_{kind}"]), seen[kind])
                for pictures, seen in zip(shown, valid, strict=True)
            ],
        )
        for kind, domain in (("a", show.folder.domain_a), ("b", show.folder.domain_b))
    }
    columns = [column for column in COLUMNS if column.picture in shown[0]]
    write_grid(
        path,
        [column.title for column in columns],
        [
            [
                stretches[column.kind].paint(_array(pictures[column.picture]), seen[column.source])
                for column in columns
            ]
            for pictures, seen in zip(shown, valid, strict=True)
        ],
    )


def _array(images: Tensor) -> NDArray[Any]:
    """The one image of a batch, (bands, rows, cols)."""
    return images[0].float().cpu().numpy()


def _valid(valid: Tensor | None, images: Tensor) -> NDArray[np.bool_]:
    """Where the one image of a batch is valid, (rows, cols)."""
    if valid is None:
        return np.ones(images.shape[-2:], bool)
    return np.asarray(valid[0, 0].cpu().numpy() > 0)

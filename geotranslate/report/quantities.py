"""What the columns of a run's log mean to whoever looks at their curves."""

from __future__ import annotations

from collections.abc import Iterable

from geotranslate.translation.metrics import FIGURES, Figure

LOSSES = {
    "d": "how far the discriminator is from telling true from translated; 0 means that it has won",
    "d_a": "the same for the discriminator of A",
    "d_b": "how far the discriminator of B is from telling true from translated",
    "gan": "how far the generator is from passing for true; rises as the discriminator improves",
    "gan_ab": "how far A to B is from passing for true B",
    "gan_ba": "how far B to A is from passing for true A",
    "l1": "mean distance to the truth, pixel by pixel",
    "pool_l2": "squared distance to the truth of 8 x 8 px means",
    "cycle_a": "distance of A from A, there and back",
    "cycle_b": "distance of B from B, there and back",
    "idt_a": "what is changed of images that are A already",
    "idt_b": "what is changed of images that are B already",
}
"""Every loss of every model; `tests/report/test_quantities.py` holds that it is."""

OTHERS = {
    "score": Figure(
        "score",
        "dB",
        "higher",
        "mean of PSNR and PSNR 8 x 8, less what contrast and sharpness miss; the best is kept",
    ),
    "cycle_score": Figure(
        "cycle score",
        "dB",
        "higher",
        "how near A and B come back, less how far translations are from looking real; the best is "
        "kept",
    ),
    "cycle": Figure("cycle", "", "lower", "distance of A and B from themselves, there and back"),
    "kid": Figure(
        "KID",
        "",
        "lower",
        "how far translations as a whole are from looking like real images of B; blind to whether "
        "each shows the right place",
    ),
    "kid_floor": Figure("KID floor", "", "", "what KID is of real images of B, by chance"),
    "kid_a": Figure("KID of A", "", "lower", "the same for translations to A"),
    "kid_a_floor": Figure("KID floor of A", "", "", "what KID is of real images of A, by chance"),
}
"""Figures of a run that `evaluate` does not have."""

LEARNING_RATE = "learning_rate"
NOT_DRAWN = frozenset({"update", "seconds"})


def figure_of(name: str) -> Figure | None:
    """What a column means; None of a loss, and of what is not known here."""
    return OTHERS.get(name) or FIGURES.get(name)


def is_loss(name: str) -> bool:
    """Whether a column belongs to the losses, among which the learning rate stands."""
    return name in LOSSES or name == LEARNING_RATE


def in_reading_order(columns: Iterable[str]) -> list[str]:
    """Those that make a curve: first what decides on the model, last the learning rate."""
    drawn = [name for name in columns if name not in NOT_DRAWN]
    return sorted(drawn, key=lambda name: (name == LEARNING_RATE, name not in OTHERS))

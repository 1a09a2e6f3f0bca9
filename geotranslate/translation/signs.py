"""Signs of what can go wrong, measured on translated validation chips; `guards` judges them.

All images are in [-1, 1], as networks see them: (bands, rows, cols), beside valid (rows, cols).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotranslate.raster.domain import Domain
from geotranslate.translation.metrics import cell_means

Image = NDArray[Any]
Valid = NDArray[np.bool_]

CELLS = 8
"""Cells along each side of a chip, whose means are compared."""

QUANTILES = np.linspace(0.01, 0.99, 50)
END = 0.99
"""A value further from 0 lies at an end of the range."""

NAN = float("nan")


@dataclass(frozen=True)
class Signs:
    """How translations one way stand to what they were made from and to what they shall look like.

    What cannot be known is NaN or missing. Grey is the mean over bands.

    Attributes:
        way: "A to B" or "B to A".
        chips: how many were translated.
        to_input: mean distance from the input, in grey.
        to_truth: mean distance from the truth, in grey.
        input_to_truth: mean distance of the input from the truth, in grey.
        input_to_flat: mean distance of the input from its own mean, in grey.
        likeness: correlation with the input in grey, mean over chips.
        true_likeness: that of the truth with the input.
        bands: by band, the correlation of cells' means with the truth, or without one with the
            same band of the input.
        spread: standard deviation from chip to chip, over cells and bands.
        input_spread: the same of the inputs.
        real_spread: the same of real images of the kind that is made.
        at_ends: share of values at the ends of the range.
        real_at_ends: the same of real images.
        off: mean distance between quantiles of grey and those of real images.
        mirrored_off: the same, dark and bright of the translations exchanged.
        cycle: mean distance of the input from itself, there and back.
        rounded_cycle: the same where the translation is rounded to 8 bits.
    """

    way: str
    chips: int
    to_input: float = NAN
    to_truth: float = NAN
    input_to_truth: float = NAN
    input_to_flat: float = NAN
    likeness: float = NAN
    true_likeness: float = NAN
    bands: Mapping[str, float] = field(default_factory=dict)
    spread: float = NAN
    input_spread: float = NAN
    real_spread: float = NAN
    at_ends: float = NAN
    real_at_ends: float = NAN
    off: float = NAN
    mirrored_off: float = NAN
    cycle: float = NAN
    rounded_cycle: float = NAN


@dataclass(frozen=True)
class Shown:
    """One chip on its way.

    Attributes:
        given: what was translated.
        fake: what came of it.
        real: an image of the kind that is made: the truth of pairs.
        given_valid: where ``given`` and ``fake`` hold data.
        real_valid: where ``real`` does; for pairs, where both do.
    """

    given: Image
    fake: Image
    real: Image
    given_valid: Valid
    real_valid: Valid


class Observer:
    """Takes in chips one by one, and gives their signs."""

    def __init__(
        self, way: str, target: Domain, *, paired: bool, shared: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Begin to observe one way.

        Args:
            way: "A to B" or "B to A".
            target: what images become.
            paired: ``real`` is the truth.
            shared: numbers of the bands, from 0, that input and output have in common.
        """
        self._way, self._names = way, target.names
        self._paired, self._shared = paired, shared
        self._distances: list[list[float]] = []
        self._likeness: list[float] = []
        self._true_likeness: list[float] = []
        self._cells: dict[str, list[np.ma.MaskedArray[Any, Any]]] = {
            "given": [],
            "fake": [],
            "real": [],
        }
        self._ends: dict[str, list[float]] = {"fake": [], "real": []}
        self._grey: dict[str, list[NDArray[Any]]] = {"fake": [], "real": []}
        self._cycles: list[tuple[float, float]] = []

    def see(self, shown: Shown) -> None:
        """Take in a chip."""
        images = {
            "given": (shown.given, shown.given_valid),
            "fake": (shown.fake, shown.given_valid),
            "real": (shown.real, shown.real_valid),
        }
        for name, (pixels, valid) in images.items():
            self._cells[name].append(_cells(pixels, valid))
            if name in self._ends and valid.any():
                values = pixels[:, valid]
                self._ends[name].append(float(np.mean(np.abs(values) > END)))
                self._grey[name].append(np.quantile(values.mean(axis=0), QUANTILES))
        if shown.given_valid.any():
            given, fake = (
                each.mean(axis=0)[shown.given_valid] for each in (shown.given, shown.fake)
            )
            self._likeness.append(_correlation(given, fake))
        if self._paired and shown.real_valid.any():
            given, fake, real = (
                each.mean(axis=0)[shown.real_valid]
                for each in (shown.given, shown.fake, shown.real)
            )
            pairs = (fake, given), (fake, real), (given, real), (given, given.mean())
            self._distances.append([float(np.mean(np.abs(x - y))) for x, y in pairs])
            self._true_likeness.append(_correlation(given, real))

    def see_way_back(self, cycle: float, rounded: float) -> None:
        """Take in how far a chip was from itself, there and back, without rounding and with."""
        self._cycles.append((cycle, rounded))

    def signs(self) -> Signs:
        """Of all chips so far."""
        to_input, to_truth, input_to_truth, input_to_flat = _means(self._distances, 4)
        cycle, rounded = _means(self._cycles, 2)
        off, mirrored = self._histogram()
        spreads = {name: _spread(chips) for name, chips in self._cells.items()}
        return Signs(
            way=self._way,
            chips=len(self._cells["fake"]),
            to_input=to_input,
            to_truth=to_truth,
            input_to_truth=input_to_truth,
            input_to_flat=input_to_flat,
            likeness=_mean(self._likeness),
            true_likeness=_mean(self._true_likeness),
            bands=self._bands(),
            spread=spreads["fake"],
            input_spread=spreads["given"],
            real_spread=spreads["real"],
            at_ends=_mean(self._ends["fake"]),
            real_at_ends=_mean(self._ends["real"]),
            off=off,
            mirrored_off=mirrored,
            cycle=cycle,
            rounded_cycle=rounded,
        )

    def _bands(self) -> dict[str, float]:
        if self._paired:
            other, numbers = "real", [(band, band) for band in range(len(self._names))]
        else:
            other, numbers = "given", list(self._shared)
        if not self._cells["fake"]:
            return {}
        fakes, others = (np.ma.stack(self._cells[name]) for name in ("fake", other))
        found = {}
        for of_other, of_fake in numbers:
            fake, same = fakes[:, of_fake], others[:, of_other]
            known = ~(np.ma.getmaskarray(fake) | np.ma.getmaskarray(same))
            found[self._names[of_fake]] = _correlation(fake.data[known], same.data[known])
        return found

    def _histogram(self) -> tuple[float, float]:
        """How far the brightness is from that of real images, as it is and mirrored."""
        if not self._grey["fake"] or not self._grey["real"]:
            return NAN, NAN
        fake, real = (
            np.quantile(np.concatenate(self._grey[name]), QUANTILES) for name in ("fake", "real")
        )
        return float(np.mean(np.abs(fake - real))), float(np.mean(np.abs(-fake[::-1] - real)))


def share_clipped(stored: Image, valid: Valid, domain: Domain) -> NDArray[np.float64]:
    """Share of each band's valid values that the normalization cuts off, (bands,).

    Args:
        stored: (bands, rows, cols), as the file holds them.
        valid: (rows, cols).
        domain: whose normalization it is.
    """
    line = domain.normalization()
    scaled = stored[:, valid].astype(np.float64) * line.gain[..., 0] + line.bias[..., 0]
    # What lies on an end may leave it by the rounding of float32.
    return np.asarray(np.mean(np.abs(scaled) > 1 + 1e-4, axis=1))


def shared_by_name(a: Domain, b: Domain) -> list[tuple[int, int]]:
    """Bands that have one name in both domains, by number from 0; a mere "band 1" is no name."""
    return [
        (number_a, number_b)
        for number_a, name_a in enumerate(a.names)
        for number_b, name_b in enumerate(b.names)
        if name_a == name_b and not name_a.lower().startswith("band")
    ]


def _cells(pixels: Image, valid: Valid) -> np.ma.MaskedArray[Any, Any]:
    """Means of cells (bands, rows, cols), masked where half of a cell is not valid."""
    cell = max(1, min(valid.shape) // CELLS)
    means, counts = cell_means(np.where(valid, pixels, 0.0).astype(np.float64), valid, cell)
    hidden = np.broadcast_to(~counts, means.shape)
    found: np.ma.MaskedArray[Any, Any] = np.ma.array(means, mask=hidden)
    return found


def _spread(chips: Sequence[np.ma.MaskedArray[Any, Any]]) -> float:
    if len(chips) < 2:
        return NAN
    variance = np.ma.stack(chips).var(axis=0).mean()
    return NAN if variance is np.ma.masked else float(np.sqrt(variance))


def _correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Pearson's; NaN where one of them does not vary."""
    if x.size < 2:
        return NAN
    x, y = x - x.mean(dtype=np.float64), y - y.mean(dtype=np.float64)
    scale = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    return float(np.sum(x * y)) / scale if scale > 1e-9 * x.size else NAN


def _mean(values: Sequence[float]) -> float:
    """Of the values that are numbers; NaN where none is."""
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else NAN


def _means(rows: Sequence[Sequence[float]], columns: int) -> list[float]:
    return [_mean([row[column] for row in rows]) for column in range(columns)]

"""How the values of one scene are changed to match the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotranslate.raster.domain import Band


@dataclass(frozen=True)
class Adjustment:
    """A growing curve per band, from physical values to matched ones.

    ``v * factor + shift(v)``, where the shift is drawn in straight lines between knots and goes
    on as it is beyond the first and the last.

    Attributes:
        factor: of each band.
        knots: of each band, growing; one at least.
        shifts: of each band, at its knots.
    """

    factor: tuple[float, ...]
    knots: tuple[tuple[float, ...], ...]
    shifts: tuple[tuple[float, ...], ...]

    def apply(self, stored: NDArray[Any], bands: Sequence[Band]) -> NDArray[np.floating[Any]]:
        """Stored values (bands, rows, cols) as they would have been stored when matched."""
        kind = np.float32 if np.can_cast(stored.dtype, np.float32) else np.float64
        matched: NDArray[np.floating[Any]] = stored.astype(kind)
        for number, band in enumerate(bands):
            factor, shifts = self.factor[number], np.array(self.shifts[number])
            if factor == 1 and not shifts.any():
                continue
            physical = stored[number] * band.scale + band.offset
            moved = physical * factor + np.interp(physical, self.knots[number], shifts)
            matched[number] = (moved - band.offset) / band.scale
        return matched


def constant(factors: Sequence[float], shifts: Sequence[float]) -> Adjustment:
    """One factor and one shift a band, the same for all values."""
    return Adjustment(tuple(factors), ((0.0,),) * len(factors), tuple((s,) for s in shifts))

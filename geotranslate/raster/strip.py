"""A strip that rolls down a scene: overlapping cores are blended in the memory of one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotranslate.raster.cores import Core


class Strip:
    """Blends the cores of a lattice, laid row by row and in each row from left to right.

    A pixel is the sum of its values in all cores, each times the core's share, as float32. It is
    finished with the last core that has a share in it, so no more is held than a row of cores:
    bands x rows of a core x width of the part, 4 bytes each.
    """

    def __init__(self, rows: Sequence[Sequence[Core]], bands: int) -> None:
        """Start above the first of some rows of cores, all as wide as the part wanted."""
        cols = [core.cols for core in rows[0]]
        self._left = cols[0].core_start
        self._top = rows[0][0].rows.core_start
        height = max(row[0].rows.core_end - row[0].rows.core_start for row in rows)
        self._sums = np.zeros((bands, height, cols[-1].core_end - self._left), np.float32)

    def lay(self, core: Core, values: NDArray[Any] | None) -> NDArray[np.float32]:
        """Add a core's values (bands, rows, cols); returns those of the pixels written with it.

        Args:
            core: the next in order.
            values: of all its pixels; None where no pixel of it is wanted.
        """
        self._roll_to(core.rows.core_start)
        if values is not None:
            shares = core.rows.shares[:, None] * core.cols.shares
            self._sums[:, *self._place(core, core.rows.core_end, core.cols.core_end)] += (
                shares * values
            )
        return self._sums[:, *self._place(core, core.rows.end, core.cols.end)].copy()

    def _place(self, core: Core, bottom: int, right: int) -> tuple[slice, slice]:
        """From a core's first pixel to ``bottom`` and ``right``, counted inside the strip."""
        return (
            slice(core.rows.core_start - self._top, bottom - self._top),
            slice(core.cols.core_start - self._left, right - self._left),
        )

    def _roll_to(self, top: int) -> None:
        done = top - self._top
        if not done:
            return
        kept = max(self._sums.shape[1] - done, 0)
        # Row by row, since a copy of the rows that are kept may be as large as the strip.
        for row in range(kept):
            self._sums[:, row] = self._sums[:, row + done]
        self._sums[:, kept:] = 0
        self._top = top

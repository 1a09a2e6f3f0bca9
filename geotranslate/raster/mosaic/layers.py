"""The scenes of a mosaic as they lie on its grid: cut, matched, resampled, weighed."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geotranslate.raster.blend import Place, Weights
from geotranslate.raster.edges import (
    DISTANCE_BYTES,
    Extent,
    distance_inside,
    find_extent,
    with_rim,
)
from geotranslate.raster.mosaic.adjustment import Adjustment
from geotranslate.raster.mosaic.plan import MosaicPlan, Piece
from geotranslate.raster.scene import Chip, open_scene
from geotranslate.raster.warp import (
    RESAMPLINGS,
    as_numbers,
    number_bytes,
    pixel_scales,
    warp_onto,
    where_valid,
)

OPEN_AT_ONCE = 64

# Pixels of the mosaic over which a scene fades out along an edge inside its raster, and the most
# of the scene's own, since as many more are read around each window.
FEATHER_PX = 128
FEATHER_SOURCE_PX = 256


@dataclass(frozen=True)
class Part:
    """What a scene gives to a window of the mosaic.

    Attributes:
        place: rows and columns of that window.
        pixels: (bands, rows, cols), as stored, or as floats where resampled or matched.
        valid: (rows, cols).
        weights: (rows, cols), for the plan's blend; 1 where it needs none.
    """

    place: Place
    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    weights: Weights


class Layers:
    """Reads a plan's scenes, of which those used last stay open. Not for several threads.

    Thousands open at once would exceed what the system allows.
    """

    def __init__(
        self,
        plan: MosaicPlan,
        adjustments: Sequence[Adjustment | None],
        extents: MutableMapping[str, Extent],
    ) -> None:
        """Open nothing yet.

        Args:
            plan: whose pieces are read.
            adjustments: of each piece's values.
            extents: of valid pixels by path, kept for all who read.
        """
        self._plan = plan
        self._adjustments = adjustments
        self._extents = extents
        self._open: OrderedDict[int, _Layer] = OrderedDict()

    def read(self, index: int, window: Window, *, weighted: bool = True) -> Part | None:
        """What a piece gives to a window of the mosaic, which it meets; None where nothing.

        Args:
            index: of the piece.
            window: of the mosaic's grid.
            weighted: weights are wanted.
        """
        plan, piece = self._plan, self._plan.pieces[index]
        shared = piece.window.intersection(window)
        layer = self._get(index)
        if piece.resampled:
            resampling = RESAMPLINGS[plan.settings.resampling]
            numbers = warp_onto(
                piece.grid,
                plan.grid,
                shared,
                resampling,
                lambda needed: layer.numbers(needed, weighted),
                pixel_bytes=layer.pixel_bytes,
                rim=layer.rim if weighted else 0,
            )
            if numbers is None:
                return None
            valid = where_valid(numbers)
            pixels, weights = numbers[: len(plan.bands)], numbers[-1] if weighted else 1.0
        else:
            pixels, valid, weights = layer.read(moved(shared, piece.window), weighted)
        return Part(moved(shared, window).toslices(), pixels, valid, weights)

    def close(self) -> None:
        """Close all scenes."""
        while self._open:
            self._open.popitem()[1].close()

    def _get(self, index: int) -> _Layer:
        layer = self._open.pop(index, None)
        if layer is None:
            layer = _Layer(
                self._plan, self._plan.pieces[index], self._adjustments[index], self._extents
            )
        self._open[index] = layer
        if len(self._open) > OPEN_AT_ONCE:
            self._open.popitem(last=False)[1].close()
        return layer


class _Layer:
    """One scene on its own pixels, cut, matched and weighed."""

    def __init__(
        self,
        plan: MosaicPlan,
        piece: Piece,
        adjustment: Adjustment | None,
        extents: MutableMapping[str, Extent],
    ) -> None:
        self._piece = piece
        self._adjustment = adjustment
        self._extents = extents
        self._bands = plan.bands
        self._dtype = np.dtype(plan.dtype)
        self._weighing = plan.blend.weights
        self._fade = 1
        if self._weighing == "distance":
            # How many of the mosaic's pixels one of the scene's is long.
            scale = math.sqrt(math.prod(pixel_scales(piece.grid, plan.grid)))
            self._fade = min(max(round(FEATHER_PX / scale), 1), FEATHER_SOURCE_PX)
        self._scene = open_scene(piece.path, bands=plan.asked_bands)
        self.close = self._scene.close

    def read(
        self, window: Window, weighted: bool
    ) -> tuple[NDArray[Any], NDArray[np.bool_], Weights]:
        """Pixels (bands, rows, cols), valid and weights (rows, cols) of a window of the scene."""
        rim = self.rim if weighted else 0
        wide = with_rim(window, rim, self._piece.grid)
        chip = self._read(wide)
        place = moved(window, wide).toslices()
        weights: Weights = 1.0
        if weighted and self._weighing == "distance":
            weights = self._extent.tents(window)
            if rim:
                weights *= distance_inside(chip.valid, self._fade)[place] / np.float32(self._fade)
        elif weighted and self._weighing == "quality":
            weights = chip.pixels[-1][place]
        # A band of quality that holds fractions is read together with them, as floats.
        pixels = chip.pixels[: len(self._bands), *place].astype(self._dtype, copy=False)
        if self._adjustment is not None:
            pixels = self._adjustment.apply(pixels, self._bands)
        return pixels, chip.valid[place], weights

    def numbers(self, window: Window, weighted: bool) -> NDArray[np.floating[Any]]:
        """The pixels of a window as floats and, last, weights; NaN in all where invalid."""
        pixels, valid, weights = self.read(window, weighted)
        return as_numbers(pixels, valid, weights if weighted else None)

    @property
    def rim(self) -> int:
        """Pixels around a window that are read to weigh it."""
        return self._fade + 1 if self._weighing == "distance" and not self._always_valid else 0

    @property
    def pixel_bytes(self) -> int:
        """What reading a pixel takes for a while."""
        bands = len(self._scene.bands) + 1
        matched = 0 if self._adjustment is None else bands * 8
        return number_bytes(bands, self._scene.dtype) + matched + (self.rim and DISTANCE_BYTES)

    @property
    def _always_valid(self) -> bool:
        return self._piece.validity == "nowhere" and self._piece.cutline is None

    @property
    def _extent(self) -> Extent:
        grid, path = self._piece.grid, self._piece.path
        if self._always_valid:
            return Extent(0, grid.height, 0, grid.width)
        if path not in self._extents:
            self._extents[path] = find_extent(lambda window: self._read(window).valid, grid)
        return self._extents[path]

    def _read(self, window: Window) -> Chip:
        chip = self._scene.read(window)
        if self._piece.cutline is not None:
            chip.valid[~self._piece.cutline.inside(chip.grid)] = False
        return chip


def moved(window: Window, origin: Window) -> Window:
    """A window counted from the first pixel of another on the same grid."""
    return Window(
        col_off=window.col_off - origin.col_off,
        row_off=window.row_off - origin.row_off,
        width=window.width,
        height=window.height,
    )

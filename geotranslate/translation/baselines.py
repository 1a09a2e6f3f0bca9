"""Two predictions that need no network: what a model has to beat to have learned anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geotranslate.errors import GridError
from geotranslate.raster.scene import Chip

Pixels = NDArray[np.float64]


class Baseline(Protocol):
    """Something that predicts each pixel from the source's pixel at the same place."""

    def predict(self, source: NDArray[Any]) -> Pixels:
        """From the source's (bands, rows, cols) to the truth's."""


@dataclass(frozen=True)
class MeanColor:
    """One colour everywhere: the flat prediction with the smallest squared error.

    Attributes:
        color: (bands,) of the truth, in the units it was fitted in.
    """

    color: Pixels

    def predict(self, source: NDArray[Any]) -> Pixels:
        """The colour at each of the source's pixels, whatever they hold, even no band."""
        return np.broadcast_to(self.color[:, None, None], (len(self.color), *source.shape[1:]))


@dataclass(frozen=True)
class Linear:
    """``weights @ source + offset`` at each pixel: what brightness alone tells.

    Attributes:
        weights: (truth bands, source bands).
        offset: (truth bands,).
    """

    weights: Pixels
    offset: Pixels

    def predict(self, source: NDArray[Any]) -> Pixels:
        """From the source's (bands, rows, cols) to the truth's, in the units of the fit."""
        slope = np.tensordot(self.weights, source, axes=1)
        return np.asarray(slope + self.offset[:, None, None])


def fit_mean(truths: Iterable[Chip]) -> MeanColor:
    """The mean colour of all valid pixels.

    Args:
        truths: chips of one kind; read one at a time.

    Raises:
        GridError: no pixel is valid.
    """
    mean, _ = _gather(truth.pixels[:, truth.valid] for truth in truths)
    return MeanColor(mean)


def fit_linear(pairs: Iterable[tuple[Chip, Chip]]) -> Linear:
    """The line from source to truth with the least squared error over all valid pixels.

    A source band that is constant, or follows from the others, is no harm.

    Args:
        pairs: source and truth of the same place; read one at a time.

    Raises:
        GridError: no pixel is valid in both.
    """
    source_bands = 0

    def samples() -> Iterable[NDArray[Any]]:
        nonlocal source_bands
        for source, truth in pairs:
            source_bands = len(source.pixels)
            valid = source.valid & truth.valid
            yield np.concatenate([source.pixels[:, valid], truth.pixels[:, valid]])

    mean, scatter = _gather(samples())
    x, y = slice(None, source_bands), slice(source_bands, None)
    # Solved on correlations, so that bands in unlike units count alike; bands that say the same
    # twice are told from rounding by the cut-off.
    size = np.sqrt(np.diagonal(scatter)[x])[:, None]
    size[size == 0] = 1.0
    slope = np.linalg.lstsq(scatter[x, x] / (size * size.T), scatter[x, y] / size, rcond=1e-10)[0]
    weights = (slope / size).T
    return Linear(weights, mean[y] - weights @ mean[x])


def _gather(parts: Iterable[NDArray[Any]]) -> tuple[Pixels, Pixels]:
    """Mean and scatter matrix of samples that come in parts of (variables, samples).

    Merged as in Chan et al., "Updating formulae and a pairwise algorithm", 1979: a sum of raw
    squares would lose the small variance of large values.
    """
    count, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for part in parts:
        fresh = part.shape[1]
        if not fresh:
            continue
        values = part.astype(np.float64)
        fresh_mean = values.mean(axis=1)
        centred = values - fresh_mean[:, None]
        if not count:
            mean, scatter = np.zeros(len(values)), np.zeros((len(values), len(values)))
        step = fresh_mean - mean
        total = count + fresh
        scatter += centred @ centred.T + np.outer(step, step) * count * fresh / total
        mean += step * fresh / total
        count = total
    if not count:
        raise GridError(
            "no pixel is valid in the images the baselines are to be fitted on. Check that source "
            "and truth show the same place and that their nodata values are right."
        )
    return mean, scatter

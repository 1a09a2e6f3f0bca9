"""How far a set of translated images is from a set of real ones: the kernel distance, KID.

Bińkowski et al., "Demystifying MMD GANs", 2018: the squared maximum mean discrepancy between two
sets of features with the kernel k(x, y) = (x . y / d + 1)^3. It asks whether translations look
like real images as a whole, not whether each shows what its truth does. Inception's features know
three bands of photographs; ours are those of `networks.features`, for any bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from geotranslate.errors import SettingError, reason
from geotranslate.networks.features import SIDE, Features, random_features

Vectors = NDArray[np.float64]

SPLITS = 50
"""Times that real images are divided in halves, for the floor."""

FEWEST = 4
"""Images of a set that a distance can be measured with: two in each half."""

LEAST_SPREAD = 1e-3
"""A feature that varies less among real images is taken to vary by this much."""


def kid(fake: Vectors, real: Vectors, *, same_places: bool = False) -> float:
    """Unbiased estimate of the squared kernel distance of two sets; it can fall below 0.

    This is equation 4 of the paper. Where the n-th images of both sets show the same place, they
    depend on each other, and equation 4 would fall far below 0 for translations that are perfect.
    Then the n-th is not compared with the n-th either, which is unbiased for such pairs (Gretton et
    al., "A kernel two-sample test", 2012, equation 4), and 0 where both sets are the same.

    Args:
        fake: features (images, features); two images at least.
        real: features (images, features); two images at least.
        same_places: the n-th images of both sets belong together.
    """
    between = _kernel(fake, real)
    across = _mean_of_others(between) if same_places else float(between.mean())
    return _mean_of_others(_kernel(fake, fake)) + _mean_of_others(_kernel(real, real)) - 2 * across


def kid_floor(real: Vectors, *, splits: int = SPLITS, seed: int = 0) -> float:
    """By how much the distance of real images from real images misses 0: the mean over splits.

    Real images are divided in halves at random; the estimate between these would be 0 if there
    were enough of them. A distance of one floor is therefore none that could be told from chance.
    """
    random = np.random.default_rng(seed)
    half = len(real) // 2
    orders = (random.permutation(len(real)) for _ in range(splits))
    return float(np.mean([abs(kid(real[each[:half]], real[each[half:]])) for each in orders]))


def _kernel(x: Vectors, y: Vectors) -> Vectors:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def _mean_of_others(kernel: Vectors) -> float:
    """Mean of a square matrix without its diagonal."""
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def compared_with(features: Vectors, real: Vectors) -> Vectors:
    """Features in spreads of the real ones, asinh((x - mean) / standard deviation).

    So each of them counts alike, whatever its unit, and none that is far off drowns the others.
    """
    spread = np.maximum(real.std(axis=0), LEAST_SPREAD)
    return np.asarray(np.arcsinh((features - real.mean(axis=0)) / spread))


def distances(fake: Vectors, real: Vectors, *, same_places: bool) -> tuple[float, float]:
    """KID of two sets of features as `Features` gives them, and its floor.

    Both are NaN where there are fewer than `FEWEST` images of either.
    """
    if min(len(fake), len(real)) < FEWEST:
        return float("nan"), float("nan")
    fake, real = compared_with(fake, real), compared_with(real, real)
    return kid(fake, real, same_places=same_places), kid_floor(real)


def read_features(path: Path | None, bands: int) -> Features:
    """The network whose features are compared.

    Args:
        path: a safetensors file with ``layers.0.weight`` (out, bands, 3, 3), ``layers.0.bias``
            (out,), ``layers.1.weight`` and so on, which holds numbers and no code; None for
            drawn weights.
        bands: of the images.

    Raises:
        SettingError: the file cannot be read, is another network's, or for other bands.
    """
    if path is None:
        return random_features(bands)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SettingError(
            f"{path} cannot be read as safetensors ({reason(error)}), so there are no features to "
            "measure KID with. Give a file of layers.0.weight, layers.0.bias and so on, or leave "
            "out --kid-features for a network with random weights."
        ) from error
    layers = [
        (tensors[f"layers.{number}.weight"], tensors[f"layers.{number}.bias"])
        for number in range(len(tensors) // 2)
        if {f"layers.{number}.weight", f"layers.{number}.bias"} <= tensors.keys()
    ]
    wrong = next(_misfits(layers, bands), "")
    if not layers or 2 * len(layers) != len(tensors):
        wrong = f"its tensors are {', '.join(sorted(tensors)[:4]) or 'none'}"
    if wrong:
        raise SettingError(
            f"{path} holds no features for images of {bands} band{'s' * (bands != 1)}: {wrong}. "
            f"Give layers.0.weight of shape (out, {bands}, {SIDE}, {SIDE}), layers.0.bias of shape "
            "(out,), layers.1.weight that takes what layer 0 gives, and so on, or leave out "
            "--kid-features for a network with random weights."
        )
    return Features([(weight.float(), bias.float()) for weight, bias in layers])


def _misfits(layers: list[tuple[torch.Tensor, torch.Tensor]], bands: int) -> Iterator[str]:
    """What does not fit together, layer by layer."""
    channels = bands
    for number, (weight, bias) in enumerate(layers):
        if tuple(weight.shape[1:]) != (channels, SIDE, SIDE) or bias.shape != weight.shape[:1]:
            shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
            yield f"weight and bias of layer {number} have the shapes {shapes}"
        channels = len(weight)

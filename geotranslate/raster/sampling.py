"""A look at the values of a scene of any size: pixels from places all over it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geotranslate.raster.grid import split_window
from geotranslate.raster.scene import Scene

SAMPLED_PIXELS = 100_000
PLACE = 256  # side of the windows looked at
PLACES = 40  # at least as many, so that no single place decides
MOST_PLACES = 400  # at most as many, where most of the scene is invalid


def sample_pixels(scene: Scene, part: Window) -> NDArray[np.float64]:
    """Valid pixels (bands, pixels) from places all over a part of a scene, as stored.

    About 100,000, or all there are; fewer where nearly everything is invalid. Always the same.
    """
    places = list(split_window(part, PLACE, PLACE))
    order = np.random.default_rng(0).permutation(len(places))
    quota = -(-SAMPLED_PIXELS // min(len(places), PLACES))
    found: list[NDArray[Any]] = []
    for index in order[:MOST_PLACES]:
        chip = scene.read(places[index])
        pixels = chip.pixels[:, chip.valid].astype(np.float64)
        found.append(pixels[:, :: max(1, -(-pixels.shape[1] // quota))])
        if sum(part.shape[1] for part in found) >= SAMPLED_PIXELS:
            break
    return np.concatenate(found, axis=1)

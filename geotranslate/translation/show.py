"""Chips that a run's generators are tried on, and their images as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geotranslate.chips.folder import ChipFolder
from geotranslate.translation.batch import Batch
from geotranslate.translation.data import Draw, Preparation, StoredBatch, read_images, read_pairs

MIDDLE = Draw(chip=0, row=0.5, col=0.5, turn=0)
"""The only file given, cropped in its middle, as it lies."""


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
        return map(self.prepare, self.stored(limit))

    def stored(self, limit: int) -> Iterator[StoredBatch]:
        """The same as their files hold them."""
        files_a, files_b = (self.folder.files(domain, self.split) for domain in "ab")
        numbers_a, numbers_b = spread(len(files_a), limit), spread(len(files_b), limit)
        for number_a, number_b in zip(numbers_a, numbers_b, strict=False):
            chosen_a, chosen_b = [files_a[number_a]], [files_b[number_b]]
            if self.folder.paired:
                pairs = list(zip(chosen_a, chosen_b, strict=True))
                yield read_pairs(pairs, [MIDDLE], self.side)
            else:
                yield StoredBatch(
                    read_images(chosen_a, [MIDDLE], self.side),
                    read_images(chosen_b, [MIDDLE], self.side),
                )


def spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` of the numbers below ``count``, at even distances."""
    wanted = min(count, limit)
    return [index * count // wanted for index in range(wanted)]


def array_of(images: Tensor) -> NDArray[Any]:
    """The one image of a batch, (bands, rows, cols)."""
    return images[0].float().cpu().numpy()


def valid_of(valid: Tensor | None, images: Tensor) -> NDArray[np.bool_]:
    """Where the one image of a batch is valid, (rows, cols)."""
    if valid is None:
        return np.ones(images.shape[-2:], bool)
    return np.asarray(valid[0, 0].cpu().numpy() > 0)

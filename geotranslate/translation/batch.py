"""What a model learns from at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MaskedImages = tuple[Tensor, Tensor | None]
"""Images (N, C, H, W) and their valid pixels (N, 1, H, W), None where all are."""


@dataclass(frozen=True)
class Batch:
    """Images of A and of B: pairs for pix2pix, two unrelated lots for CycleGAN.

    Where all pixels are valid, say so with None: this is known before the batch is on the device,
    and normalization is several times faster with it.

    Attributes:
        real_a: (N, C_a, H, W) in [-1, 1].
        real_b: (N, C_b, H, W) in [-1, 1].
        valid_a: (N, 1, H, W), 1 where A holds data and 0 elsewhere; None if it does everywhere.
            For pairs, where both sides hold data.
        valid_b: the same for B. For pairs it is `valid_a`.
    """

    real_a: Tensor
    real_b: Tensor
    valid_a: Tensor | None = None
    valid_b: Tensor | None = None

    def hidden(self) -> Batch:
        """The batch with 0 at all invalid pixels, whatever stood there."""
        return Batch(
            hide(self.real_a, self.valid_a),
            hide(self.real_b, self.valid_b),
            self.valid_a,
            self.valid_b,
        )

    def parts(self, count: int) -> list[Batch]:
        """The batch in ``count`` equal parts, in their order."""
        a = parts_of((self.real_a, self.valid_a), count)
        b = parts_of((self.real_b, self.valid_b), count)
        return [
            Batch(real_a, real_b, valid_a, valid_b)
            for (real_a, valid_a), (real_b, valid_b) in zip(a, b, strict=True)
        ]


def parts_of(images: MaskedImages, count: int) -> list[MaskedImages]:
    """Images in ``count`` equal parts, in their order."""
    pixels, valid = images
    masks = [None] * count if valid is None else valid.chunk(count)
    return list(zip(pixels.chunk(count), masks, strict=True))


def hide(images: Tensor, valid: Tensor | None) -> Tensor:
    """0 at invalid pixels: nothing, not even NaN, comes through, and no gradient goes back."""
    return images if valid is None else torch.where(valid > 0, images, 0.0)


def joined(first: MaskedImages, second: MaskedImages) -> MaskedImages:
    """Two lots of images as one batch, the first before the second."""
    images = torch.cat([first[0], second[0]])
    if first[1] is None and second[1] is None:
        return images, None
    masks = [
        torch.ones_like(each[:, :1]) if valid is None else valid for each, valid in (first, second)
    ]
    return images, torch.cat(masks)

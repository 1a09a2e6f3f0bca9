"""Translated images of earlier updates, so that a discriminator does not forget them."""

from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from geotranslate.networks.collective import own_share, whole_batch

Kept = tuple[Tensor, Tensor | None]
"""An image (C, H, W) and its valid pixels (1, H, W), None where all are."""


class ImagePool:
    """Keeps ``size`` images and gives out an old one for half of the new ones (Shrivastava 2017).

    What it does is decided by numbers from outside, so that it is a function of seed, update and
    sample.

    Attributes:
        size: images kept; with 0 each image comes straight back.
    """

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self._kept: list[Kept] = []

    def exchange(
        self, images: Tensor, valid: Tensor | None, draws: ArrayLike
    ) -> tuple[Tensor, Tensor | None]:
        """Take in images, one after the other, and give out as many, new or old.

        Processes that share a batch have the same pool each: all of it goes through every one of
        them, and each is given its share of what comes out.

        Args:
            images: (N, C, H, W) without gradient. Where they are of another size than those kept,
                the pool begins anew.
            valid: (N, 1, H, W) or None where all is valid; goes with the images.
            draws: (N, 2) uniform in [0, 1): an image is exchanged for an old one if its first is
                below 0.5 and the pool is full; the second says for which. Where processes share a
                batch, they are those of all its samples.
        """
        images, valid = whole_batch(images), None if valid is None else whole_batch(valid)
        masks: Iterable[Tensor | None] = [None] * len(images) if valid is None else valid
        numbers = torch.as_tensor(draws).tolist()
        chosen = [
            self._one(kept, *pair)
            for kept, pair in zip(zip(images, masks, strict=True), numbers, strict=True)
        ]
        images, valid = _joined(chosen, like=images)
        return own_share(images), None if valid is None else own_share(valid)

    def _one(self, new: Kept, swap: float, place: float) -> Kept:
        """What is given out for one image."""
        if self._kept and self._kept[0][0].shape != new[0].shape:
            self._kept.clear()
        if len(self._kept) < self.size:
            self._kept.append(_copy(new))
            return new
        if swap >= 0.5 or self.size == 0:
            return new
        index = int(place * self.size)
        old, self._kept[index] = self._kept[index], _copy(new)
        return old

    def state_dict(self) -> dict[str, Any]:
        """The images kept, as tensors."""
        if not self._kept:
            return {"kept": 0}
        images, valid = _joined(self._kept, like=torch.stack([image for image, _ in self._kept]))
        whole = torch.tensor([mask is None for _, mask in self._kept])
        state: dict[str, Any] = {"kept": len(self._kept), "images": images, "whole": whole}
        return state if valid is None else state | {"valid": valid}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Take over the images of a `state_dict`."""
        self._kept = []
        for index in range(state["kept"]):
            whole = bool(state["whole"][index])
            mask = None if whole else state["valid"][index].to(device)
            self._kept.append(_copy((state["images"][index].to(device), mask)))


def _copy(kept: Kept) -> Kept:
    image, mask = kept
    return image.clone(), None if mask is None else mask.clone()


def _joined(chosen: list[Kept], like: Tensor) -> tuple[Tensor, Tensor | None]:
    """Images as a batch in the memory layout of ``like``, and their valid pixels."""
    images = torch.empty_like(like).copy_(torch.stack([image for image, _ in chosen]))
    if all(mask is None for _, mask in chosen):
        return images, None
    ones = torch.ones_like(images[0, :1])
    return images, torch.stack([ones if mask is None else mask for _, mask in chosen])

"""Losses that count valid pixels only, in float32. Where ``valid`` is None, all pixels are.

Where several processes share a batch, what they divide by is the count of the whole batch, and what
comes out is this process's part of the loss: the parts add up to it (`networks.collective`).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from geotranslate.choices import GanLoss
from geotranslate.networks import collective
from geotranslate.networks.context import Context
from geotranslate.networks.geometry import ReceptiveField
from geotranslate.networks.statistics import precise
from geotranslate.translation.batch import MaskedImages, hide, joined

CELL = 8
"""Side in pixels of the cells whose means are compared."""


def masked_l1(fake: Tensor, real: Tensor, valid: Tensor | None) -> Tensor:
    """Mean absolute difference over the valid pixels of the whole batch; 0 where there are none.

    Args:
        fake: (N, C, H, W).
        real: (N, C, H, W).
        valid: (N, 1, H, W) of 0 and 1.
    """
    difference = hide(fake - real, valid)
    return difference.abs().sum() / _values(fake, valid)


def pooled_l2(fake: Tensor, real: Tensor, valid: Tensor | None, cell: int = CELL) -> Tensor:
    """Mean squared difference between the means over cells of ``cell`` x ``cell`` px.

    It forgives pairs that lie a few pixels off each other. Only valid pixels enter a mean, and a
    cell weighs by their number. Cells at the right and lower rim may be smaller.
    """
    sums, pixels = _cell_sums(fake - real, valid, cell)
    return (sums.square() / pixels).sum() / _values(fake, valid)


def detail_of(fake: Tensor, real: Tensor, valid: Tensor | None, cell: int = CELL) -> Tensor:
    """The detail of ``fake`` on the coarse colours of ``real``.

    Coarse colours are the means over cells of ``cell`` x ``cell`` px, interpolated between the
    centres of the cells so that no edges show. ``real`` itself comes back as it is.

    Args:
        fake: (N, C, H, W).
        real: (N, C, H, W).
        valid: (N, 1, H, W) of 0 and 1; only valid pixels enter a mean.
        cell: side of the cells in pixels.
    """
    rows, cols = fake.shape[-2:]
    sums, pixels = _cell_sums(real - fake, valid, cell)
    shift = functional.interpolate(sums / pixels, scale_factor=cell, mode="bilinear")
    return hide(fake + shift[..., :rows, :cols], valid)


def _cell_sums(images: Tensor, valid: Tensor | None, cell: int) -> tuple[Tensor, Tensor]:
    """Sums over the valid pixels of each cell, and how many they are, at least 1."""
    counts = torch.ones_like(images[:, :1]) if valid is None else valid.to(images.dtype)
    sums, pixels = (
        functional.avg_pool2d(each, cell, ceil_mode=True, divisor_override=1)
        for each in (hide(images, valid), counts)
    )
    return sums, pixels.clamp(min=1)


def _values(images: Tensor, valid: Tensor | None) -> Tensor | int:
    """How many values of the whole batch are valid, at least 1."""
    if valid is None:
        return images.numel() * collective.processes()
    count: Tensor = collective.total(valid.sum()) * images.shape[1]
    return count.clamp(min=1)


def part_of(part: Tensor | None, whole: Tensor | None, parts: int) -> Tensor | float:
    """What the mean over a part of a batch counts in the mean over the whole.

    Args:
        part: weights of what the mean is over; None where all weigh the same.
        whole: those of the whole batch.
        parts: how many equal ones there are.
    """
    if parts == 1:
        return 1.0
    if part is None or whole is None:
        return 1 / parts
    total = collective.total(whole.sum())
    share: Tensor = collective.total(part.sum()) / torch.where(total > 0, total, 1.0)
    return share


def valid_share(valid: Tensor | None, field: ReceptiveField) -> Tensor | None:
    """Valid share of the pixels that each score of a discriminator judges: (N, 1, rows, cols).

    Pixels of a patch that lie outside the image do not count.
    """
    if valid is None:
        return None
    return functional.avg_pool2d(
        valid, field.size, field.stride, field.padding, count_include_pad=False
    )


def least_squares(scores: Tensor, target: float) -> Tensor:
    """Squared distance of each score to its target (Mao et al. 2017)."""
    return (scores - target).square()


def cross_entropy(scores: Tensor, target: float) -> Tensor:
    """Cross-entropy of each score, taken as a logit, with its target (Goodfellow et al. 2014)."""
    targets = torch.full_like(scores, target)
    return functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")


ADVERSARIAL: dict[GanLoss, Callable[[Tensor, float], Tensor]] = {
    "lsgan": least_squares,
    "bce": cross_entropy,
}


class Judgement:
    """How far a discriminator's scores are from saying real, or from saying fake.

    Each score weighs by the valid share of the patch it judges.
    """

    def __init__(self, gan_loss: GanLoss, field: ReceptiveField) -> None:
        self._distance = ADVERSARIAL[gan_loss]
        self._field = field

    def as_real(self, scores: Tensor, valid: Tensor | None) -> Tensor:
        """Mean distance of the scores to 1; ``valid`` is that of the images."""
        distances = self._distance(precise(scores), 1.0)
        return weighted_mean(distances, valid_share(valid, self._field))

    def part_of(self, part: Tensor | None, whole: Tensor | None, parts: int) -> Tensor | float:
        """What the scores of a part count in the mean over a batch, by their valid pixels."""
        if parts == 1:
            return 1.0
        return part_of(valid_share(part, self._field), valid_share(whole, self._field), parts)

    def of_both(
        self,
        d: nn.Module,
        real: MaskedImages,
        fake: MaskedImages,
        counting: tuple[Tensor | float, Tensor | float] = (1.0, 1.0),
    ) -> Tensor:
        """How far a discriminator is from telling ``real`` images from ``fake`` ones.

        Both go through it in one call, as groups of their own: so they meet the same weights, and
        spectral norm takes one step of its power method an update (Miyato et al. 2018).

        Args:
            d: the discriminator.
            real: images and their valid pixels.
            fake: as many, and theirs.
            counting: what real and fake count, where they are a part of a batch.
        """
        images, valid = joined(real, fake)
        d_real, d_fake = d(images, Context(valid, groups=2)).chunk(2)
        missed = counting[0] * self.as_real(d_real, real[1])
        fell_for = counting[1] * self.as_fake(d_fake, fake[1])
        return (missed + fell_for) / 2

    def as_fake(self, scores: Tensor, valid: Tensor | None) -> Tensor:
        """Mean distance of the scores to 0; ``valid`` is that of the images."""
        distances = self._distance(precise(scores), 0.0)
        return weighted_mean(distances, valid_share(valid, self._field))


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of ``values`` by their weights; 0 where all weights are 0."""
    if weights is None:
        return values.mean() / collective.processes()
    total = collective.total(weights.sum())
    return (values * weights).sum() / torch.where(total > 0, total, 1.0)

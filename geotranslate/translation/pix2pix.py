"""Learning from pairs: pix2pix (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from numpy.typing import ArrayLike
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.optim import Optimizer

from geotranslate.choices import GanLoss, Judge
from geotranslate.networks.context import Context
from geotranslate.networks.patchgan import PatchGAN
from geotranslate.translation.batch import Batch, hide
from geotranslate.translation.learning import (
    Backward,
    Sums,
    adam,
    descend,
    frozen,
    load_state,
    predicting,
    state_of,
)
from geotranslate.translation.losses import Judgement, detail_of, masked_l1, part_of, pooled_l2


class Pix2PixConfig(BaseModel, frozen=True, extra="forbid"):
    """What pix2pix strives for.

    The paper has 100 for `l1` beside a discriminator with batch norm. On SAR that leaves the
    picture grey: the defaults were measured with spectral norm, see the docs on training.
    """

    gan_loss: GanLoss = "lsgan"
    """What the discriminator is asked: least squares, or binary cross-entropy as in the paper."""

    judge: Judge = "detail"
    """What the discriminator sees of a translation: its detail on the coarse colours of the truth,
    so that these answer to `pool_l2` alone; or the whole image, as in the paper."""

    l1: float = Field(default=5.0, ge=0)
    """Weight of the mean absolute difference to the truth, beside 1 for the discriminator."""

    pool_l2: float = Field(default=60.0, ge=0)
    """Weight of the mean squared difference between means over 8 x 8 px.

    It forgives pairs a few pixels off and, unlike `l1`, asks for the mean colour of what cannot be
    told apart, not for its median.
    """

    learning_rate: float = Field(default=2e-4, gt=0)
    """Of Adam, for the generator and for the discriminator."""


class Pix2Pix:
    """A generator that learns from pairs, and the discriminator that compares them.

    Attributes:
        networks: ``g_ab`` and ``d_b``, which judges (A, B) pairs. Wrapped ones may be put in place.
        optimizers: ``g`` and ``d``. Wrapped ones may be put in place.
        backward: how gradients are computed from a loss.
        parts: equal ones in which a batch is computed, one after the other.
        draws_per_sample: random numbers that `step` needs for each sample.
    """

    draws_per_sample = 0

    def __init__(self, g_ab: nn.Module, d_b: PatchGAN, config: Pix2PixConfig) -> None:
        self.config = config
        self.networks: dict[str, nn.Module] = {"g_ab": g_ab, "d_b": d_b}
        self.optimizers: dict[str, Optimizer] = {
            "g": adam([g_ab], config.learning_rate),
            "d": adam([d_b], config.learning_rate),
        }
        self.backward: Backward = Tensor.backward
        self.parts = 1
        self.judgement = Judgement(config.gan_loss, d_b.field)

    @property
    def generators(self) -> dict[str, nn.Module]:
        """The networks that are kept for prediction."""
        return {"g_ab": self.networks["g_ab"]}

    def step(self, batch: Batch, draws: ArrayLike = ()) -> dict[str, Tensor]:
        """Learn from one batch of pairs; the losses come back detached.

        Args:
            batch: pairs, whose `valid_b` is valid for both sides.
            draws: not used, as there is no pool.
        """
        batch, losses = batch.hidden(), Sums()
        parts, made = batch.parts(self.parts), list[Tensor]()
        descend(self.optimizers["d"], self._verdicts(parts, batch, made, losses), self.backward)
        descend(self.optimizers["g"], self._distances(parts, batch, made, losses), self.backward)
        return losses

    def _verdicts(
        self, parts: list[Batch], batch: Batch, made: list[Tensor], losses: Sums
    ) -> Iterator[Tensor]:
        """How far the discriminator is from telling pairs from translations, by parts.

        Args:
            parts: of the batch.
            batch: the whole.
            made: filled with the translation, with its gradients, of a batch in one part. The
                graphs of several would not fit into memory: they are made again.
            losses: to add to.
        """
        for part in parts:
            valid = part.valid_b
            with torch.set_grad_enabled(len(parts) == 1):
                fake_b = self._translate(part, track=True)
                judged = self._judged(fake_b, part)
            if len(parts) == 1:
                made.append(fake_b)
            true = torch.cat([part.real_a, part.real_b], dim=1), valid
            false = torch.cat([part.real_a, judged.detach()], dim=1), valid
            share = self.judgement.part_of(valid, batch.valid_b, len(parts))
            d = self.judgement.of_both(self.networks["d_b"], true, false, (share, share))
            losses.add(d=d)
            yield d

    def _distances(
        self, parts: list[Batch], batch: Batch, made: list[Tensor], losses: Sums
    ) -> Iterator[Tensor]:
        """How far the generator is from what it strives for, by parts; see `_verdicts`."""
        d_b = self.networks["d_b"]
        for part in parts:
            real_a, real_b, valid = part.real_a, part.real_b, part.valid_b
            fake_b = made.pop() if made else self._translate(part, track=False)
            with frozen(d_b):
                judged = self._judged(fake_b, part)
                d_fake = d_b(torch.cat([real_a, judged], dim=1), Context(valid))
            pixels = part_of(valid, batch.valid_b, len(parts))
            share = self.judgement.part_of(valid, batch.valid_b, len(parts))
            gan = self.judgement.as_real(d_fake, valid) * share
            l1 = masked_l1(fake_b, real_b, valid) * pixels
            pool_l2 = pooled_l2(fake_b, real_b, valid) * pixels
            losses.add(gan=gan, l1=l1, pool_l2=pool_l2)
            yield gan + self.config.l1 * l1 + self.config.pool_l2 * pool_l2

    def _translate(self, part: Batch, *, track: bool) -> Tensor:
        valid = part.valid_b
        return hide(self.networks["g_ab"](part.real_a, Context(valid, track=track)), valid)

    def _judged(self, fake_b: Tensor, part: Batch) -> Tensor:
        """What the discriminator sees of a translation."""
        if self.config.judge == "image":
            return fake_b
        return detail_of(fake_b, part.real_b, part.valid_b)

    def pictures(
        self, batch: Batch, generators: Mapping[str, nn.Module] | None = None
    ) -> dict[str, Tensor]:
        """What the generator makes of a batch, as in prediction: ``fake_b``.

        Args:
            batch: pairs.
            generators: other ones than the model's own, such as averaged ones.
        """
        g_ab = (generators or self.generators)["g_ab"]
        batch = batch.hidden()
        with predicting(g_ab):
            return {"fake_b": hide(g_ab(batch.real_a, Context(batch.valid_a)), batch.valid_a)}

    def state_dict(self) -> dict[str, Any]:
        """All that learning has changed: tensors, numbers and strings."""
        return state_of(self.networks, self.optimizers)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        load_state(state, self.networks, self.optimizers)

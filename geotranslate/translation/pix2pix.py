"""Learning from pairs: pix2pix (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
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
    adam,
    descend,
    detached,
    frozen,
    load_state,
    predicting,
    state_of,
)
from geotranslate.translation.losses import Judgement, detail_of, masked_l1, pooled_l2


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
        g_ab, d_b = self.networks["g_ab"], self.networks["d_b"]
        as_real, as_fake = self.judgement.as_real, self.judgement.as_fake
        batch = batch.hidden()
        real_a, real_b, valid = batch.real_a, batch.real_b, batch.valid_b
        fake_b = hide(g_ab(real_a, Context(valid, track=True)), valid)
        judged = detail_of(fake_b, real_b, valid) if self.config.judge == "detail" else fake_b

        d_real = d_b(torch.cat([real_a, real_b], dim=1), Context(valid))
        d_fake = d_b(torch.cat([real_a, judged.detach()], dim=1), Context(valid))
        d_loss = (as_real(d_real, valid) + as_fake(d_fake, valid)) / 2
        descend(self.optimizers["d"], d_loss, self.backward)

        with frozen(d_b):
            d_fake = d_b(torch.cat([real_a, judged], dim=1), Context(valid))
        fooled = as_real(d_fake, valid)
        l1, pool_l2 = masked_l1(fake_b, real_b, valid), pooled_l2(fake_b, real_b, valid)
        g_loss = fooled + self.config.l1 * l1 + self.config.pool_l2 * pool_l2
        descend(self.optimizers["g"], g_loss, self.backward)
        return detached(d=d_loss, gan=fooled, l1=l1, pool_l2=pool_l2)

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

"""Learning without pairs: CycleGAN (Zhu et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from numpy.typing import ArrayLike
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.optim import Optimizer

from geotranslate.choices import GanLoss
from geotranslate.errors import SettingError
from geotranslate.networks.build import Generator
from geotranslate.networks.context import Context
from geotranslate.networks.patchgan import PatchGAN
from geotranslate.translation.batch import Batch, MaskedImages, hide, parts_of
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
from geotranslate.translation.losses import Judgement, masked_l1, part_of
from geotranslate.translation.pool import ImagePool

Pairs = list[tuple[int, int]]
"""Channels, counted from 0, that are the same band on both sides."""


class CycleGANConfig(BaseModel, frozen=True, extra="forbid"):
    """What CycleGAN strives for; the defaults are the paper's."""

    gan_loss: GanLoss = "lsgan"
    """What the discriminators are asked: least squares as in the paper, or cross-entropy."""

    cycle: float = Field(default=10.0, ge=0)
    """Weight of coming back to the same image, from A over B and from B over A."""

    identity: float = Field(default=0.5, ge=0)
    """Weight of leaving images alone that already are what they should become, times `cycle`."""

    identity_bands: tuple[tuple[int, int], ...] | None = None
    """Bands that both sides share, each as (number in A, number in B), counted from 1.

    Unset, they are all bands in their order where both sides have equally many, else none, and
    there is no identity loss.
    """

    image_pool: int = Field(default=50, ge=0)
    """Earlier translated images that each discriminator is shown again."""

    learning_rate: float = Field(default=2e-4, gt=0)
    """Of Adam, for the generators and for the discriminators."""


class CycleGAN:
    """Two generators that undo each other, and a discriminator for each side.

    Identity, as in the paper, means that ``g_ab`` leaves alone what already is an image of B.
    Where the sides have different bands, no image of B can go into ``g_ab``. What can is its
    translation to A in which the bands that both sides share are B's own again; what comes out is
    compared in these bands. With all bands shared this is the paper's identity loss, with none it
    would be the cycle loss, which is there already.

    Attributes:
        networks: ``g_ab``, ``g_ba``, ``d_a``, ``d_b``. Wrapped ones may be put in place.
        optimizers: ``g`` and ``d``, each for both directions. Wrapped ones may be put in place.
        backward: how gradients are computed from a loss.
        parts: equal ones in which a batch is computed, one after the other.
        draws_per_sample: random numbers that `step` needs for each sample.
    """

    draws_per_sample = 4

    def __init__(
        self,
        g_ab: Generator,
        g_ba: Generator,
        d_a: PatchGAN,
        d_b: PatchGAN,
        config: CycleGANConfig,
    ) -> None:
        self.config = config
        self.networks: dict[str, nn.Module] = {"g_ab": g_ab, "g_ba": g_ba, "d_a": d_a, "d_b": d_b}
        self.optimizers: dict[str, Optimizer] = {
            "g": adam([g_ab, g_ba], config.learning_rate),
            "d": adam([d_a, d_b], config.learning_rate),
        }
        self.backward: Backward = Tensor.backward
        self.parts = 1
        self.pools = {side: ImagePool(config.image_pool) for side in "ab"}
        self.judgement = Judgement(config.gan_loss, d_b.field)
        self._shared = shared_channels(config, g_ab.in_channels, g_ab.out_channels)

    @property
    def generators(self) -> dict[str, nn.Module]:
        """The networks that are kept for prediction."""
        return {name: self.networks[name] for name in ("g_ab", "g_ba")}

    def step(self, batch: Batch, draws: ArrayLike) -> dict[str, Tensor]:
        """Learn from one batch; the losses come back detached.

        Args:
            batch: images of A and as many of B, which need not belong together.
            draws: (N, 4) uniform in [0, 1), for the pools; in the host's memory.
        """
        batch, losses = batch.hidden(), Sums()
        fakes = self._teach_generators(batch, losses)
        self._teach_discriminators(batch, fakes, torch.as_tensor(draws), losses)
        return losses

    def _teach_generators(self, batch: Batch, losses: Sums) -> list[tuple[Tensor, Tensor]]:
        """One step of both generators; gives what they made of each part, of A and of B."""
        fakes = []

        def of_each_part() -> Iterator[Tensor]:
            for part in batch.parts(self.parts):
                fake_a, fake_b, of_part = self._generator_losses(part, batch)
                fakes.append((fake_a.detach(), fake_b.detach()))
                losses.add(**of_part)
                yield self._weighted(of_part)

        descend(self.optimizers["g"], of_each_part(), self.backward)
        return fakes

    def _weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        """What the generators strive for, together."""
        cycle, identity = self.config.cycle, self.config.cycle * self.config.identity
        total = (
            losses["gan_ab"] + losses["gan_ba"] + cycle * (losses["cycle_a"] + losses["cycle_b"])
        )
        return total + identity * (losses["idt_a"] + losses["idt_b"]) if self._shared else total

    def _generator_losses(
        self, part: Batch, batch: Batch
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What the generators make of a part of a batch, and what that adds to the losses."""
        g_ab, g_ba, d_a, d_b = self.networks.values()
        real_a, real_b, valid_a, valid_b = part.real_a, part.real_b, part.valid_a, part.valid_b

        # A translated image holds data where its source does: fake_b has the valid pixels of A.
        fake_b = hide(g_ab(real_a, Context(valid_a, track=True)), valid_a)
        fake_a = hide(g_ba(real_b, Context(valid_b, track=True)), valid_b)
        cycle_a, idt_a = self._distances_back(g_ba, fake_b, real_a, valid_a, flipped(self._shared))
        cycle_b, idt_b = self._distances_back(g_ab, fake_a, real_b, valid_b, self._shared)
        with frozen(d_a, d_b):
            d_fake_a, d_fake_b = d_a(fake_a, Context(valid_b)), d_b(fake_b, Context(valid_a))
        gan_ba = self.judgement.as_real(d_fake_a, valid_b)
        gan_ab = self.judgement.as_real(d_fake_b, valid_a)

        pixels_a = part_of(valid_a, batch.valid_a, self.parts)
        pixels_b = part_of(valid_b, batch.valid_b, self.parts)
        losses = {
            "gan_ab": gan_ab * self.judgement.part_of(valid_a, batch.valid_a, self.parts),
            "gan_ba": gan_ba * self.judgement.part_of(valid_b, batch.valid_b, self.parts),
            "cycle_a": cycle_a * pixels_a,
            "cycle_b": cycle_b * pixels_b,
        }
        if self._shared:
            losses |= {"idt_a": idt_a * pixels_a, "idt_b": idt_b * pixels_b}
        return fake_a, fake_b, losses

    def _distances_back(
        self, back: nn.Module, fake: Tensor, real: Tensor, valid: Tensor | None, shared: Pairs
    ) -> tuple[Tensor, Tensor]:
        """Distances to ``real`` after the way there and back, and of the identity.

        Both images go through the generator in one call, as groups with their own statistics.

        Args:
            back: the generator that makes images like ``real``.
            fake: what the other one made of ``real``.
            real: the images to come back to.
            valid: valid pixels of both.
            shared: channels of ``fake`` and ``real`` that are the same band; if none, there is no
                identity and its distance is 0.
        """
        if not shared:
            return masked_l1(back(fake, Context(valid)), real, valid), fake.new_zeros(())
        already = fake.detach().clone()
        for channel_of_fake, channel_of_real in shared:
            already[:, channel_of_fake] = real[:, channel_of_real]
        both = None if valid is None else torch.cat([valid, valid])
        rec, idt = back(torch.cat([fake, already]), Context(both, groups=2)).chunk(2)
        kept, wanted = (
            torch.stack([images[:, channel] for _, channel in shared], dim=1)
            for images in (idt, real)
        )
        return masked_l1(rec, real, valid), masked_l1(kept, wanted, valid)

    def _teach_discriminators(
        self, batch: Batch, fakes: list[tuple[Tensor, Tensor]], draws: Tensor, losses: Sums
    ) -> None:
        """One step of both discriminators, which see new and earlier translations."""
        fake_a, fake_b = (torch.cat(each) for each in zip(*fakes, strict=True))
        shown_a = self.pools["a"].exchange(fake_a, batch.valid_b, draws[:, :2])
        shown_b = self.pools["b"].exchange(fake_b, batch.valid_a, draws[:, 2:])

        def of_each_part() -> Iterator[Tensor]:
            of_a = self._verdicts("d_a", (batch.real_a, batch.valid_a), shown_a)
            of_b = self._verdicts("d_b", (batch.real_b, batch.valid_b), shown_b)
            for d_a, d_b in zip(of_a, of_b, strict=True):
                losses.add(d_a=d_a, d_b=d_b)
                yield d_a + d_b

        descend(self.optimizers["d"], of_each_part(), self.backward)

    def _verdicts(self, name: str, real: MaskedImages, fake: MaskedImages) -> Iterator[Tensor]:
        """How far a discriminator is from telling real images from translated ones, by parts."""
        d, share = self.networks[name], self.judgement.part_of
        parts = (parts_of(images, self.parts) for images in (real, fake))
        for of_real, of_fake in zip(*parts, strict=True):
            counting = (
                share(of_real[1], real[1], self.parts),
                share(of_fake[1], fake[1], self.parts),
            )
            yield self.judgement.of_both(d, of_real, of_fake, counting)

    def pictures(
        self, batch: Batch, generators: Mapping[str, nn.Module] | None = None
    ) -> dict[str, Tensor]:
        """What the generators make of a batch, as in prediction.

        Args:
            batch: images of A and as many of B.
            generators: other ones than the model's own, such as averaged ones.

        Returns:
            ``fake_b``, ``rec_a`` (A and back), ``fake_a``, ``rec_b`` (B and back).
        """
        both = generators or self.generators
        g_ab, g_ba = both["g_ab"], both["g_ba"]
        batch = batch.hidden()
        valid_a, valid_b = batch.valid_a, batch.valid_b
        with predicting(g_ab, g_ba):
            fake_b = hide(g_ab(batch.real_a, Context(valid_a)), valid_a)
            fake_a = hide(g_ba(batch.real_b, Context(valid_b)), valid_b)
            rec_a = hide(g_ba(fake_b, Context(valid_a)), valid_a)
            rec_b = hide(g_ab(fake_a, Context(valid_b)), valid_b)
        return {"fake_b": fake_b, "rec_a": rec_a, "fake_a": fake_a, "rec_b": rec_b}

    def state_dict(self) -> dict[str, Any]:
        """All that learning has changed: tensors, numbers and strings."""
        return state_of(self.networks, self.optimizers) | {
            "pools": {side: pool.state_dict() for side, pool in self.pools.items()}
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        load_state(state, self.networks, self.optimizers)
        device = next(self.networks["g_ab"].parameters()).device
        for side, pool in self.pools.items():
            pool.load_state_dict(state["pools"][side], device)


def shared_channels(config: CycleGANConfig, bands_a: int, bands_b: int) -> Pairs:
    """Channels of A and B that identity compares, counted from 0; none where it is off.

    Raises:
        SettingError: a band is not there.
    """
    if config.identity == 0 or config.cycle == 0:
        return []
    if config.identity_bands is None:
        return [(band, band) for band in range(bands_a)] if bands_a == bands_b else []
    for a, b in config.identity_bands:
        if not (1 <= a <= bands_a and 1 <= b <= bands_b):
            raise SettingError(
                f"identity band {a}={b} is not there, so nothing can be compared. "
                f"Name a band of A from 1 to {bands_a} and the same band of B from 1 to {bands_b}."
            )
    return [(a - 1, b - 1) for a, b in config.identity_bands]


def flipped(pairs: Pairs) -> Pairs:
    """The same pairs, seen from the other side."""
    return [(second, first) for first, second in pairs]

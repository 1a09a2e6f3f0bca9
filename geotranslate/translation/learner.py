"""A model on its device with all that changes while it learns, and one update of it."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from geotranslate.networks import collective
from geotranslate.networks.recomputing import save_memory
from geotranslate.translation.averages import AveragedNetwork
from geotranslate.translation.batch import Batch
from geotranslate.translation.compiling import compile_networks, explained_compiling
from geotranslate.translation.data import draw_for_pools
from geotranslate.translation.models import Model, build_model
from geotranslate.translation.plan import Plan, discriminator_spec, generator_spec, loss_config
from geotranslate.translation.starting_weights import begin_with


class Learner:
    """A model that learns, update by update; nothing of it is written here.

    Attributes:
        update: the last one done, 0 at first.
        model: on the plan's device, run by Fabric.
        generators: those of the model, as they were before Fabric wrapped them.
        averages: of the generators, by name.
    """

    def __init__(self, plan: Plan, state: dict[str, Any] | None = None) -> None:
        """Build a model on its device.

        Args:
            plan: what to build.
            state: a `state_dict` to go on from.
        """
        config, folder = plan.config, plan.folder
        self._plan = plan
        self.update = 0
        self.model: Model = build_model(
            loss_config(config),
            generator_spec(config),
            discriminator_spec(config),
            bands_a=len(folder.domain_a.bands),
            bands_b=len(folder.domain_b.bands),
            seed=config.seed,
        )
        if state is None and plan.start is not None:
            begin_with(plan.start, self.model.generators, folder.domain_a, folder.domain_b)
        for network in self.model.networks.values():
            network.to(plan.device).to(memory_format=torch.channels_last)
        self.generators = self.model.generators
        self.averages = {
            name: AveragedNetwork(network, round(config.average_over * config.updates))
            for name, network in self.generators.items()
        }
        if state is not None:
            self._load(state)
        self.model.parts = config.accumulate
        if config.save_memory:
            for network in self.generators.values():
                save_memory(network)
        if plan.compiled:
            compile_networks(self.model.networks.values(), plan.device)
        if plan.device.type == "cuda":
            # Shapes do not change, so trying each convolution once pays.
            torch.backends.cudnn.benchmark = True
        self._hand_to_fabric()

    def _hand_to_fabric(self) -> None:
        """Let Fabric run networks and optimizers, in the arithmetic chosen."""
        device = self._plan.device
        # Each Fabric would tell what arithmetic it uses, under a logger of lightning.pytorch.
        for name in ("lightning.fabric", "lightning.pytorch"):
            logging.getLogger(name).setLevel(logging.WARNING)
        fabric = Fabric(
            accelerator=device.type,
            devices=[device.index] if device.type == "cuda" else 1,
            precision="bf16-mixed" if self._plan.arithmetic == "bf16" else "32-true",
        )
        networks, optimizers = self.model.networks, self.model.optimizers
        wrapped: dict[str, Any] = {k: fabric.setup_optimizers(v) for k, v in optimizers.items()}
        self.model.optimizers = wrapped
        self.model.networks = {k: fabric.setup_module(v) for k, v in networks.items()}
        self.model.backward = fabric.backward

    @property
    def rate(self) -> float:
        """The learning rate of the last update."""
        rate: float = next(iter(self.model.optimizers.values())).param_groups[0]["lr"]
        return rate

    def learn(self, batch: Batch, *, rate: float | None = None) -> dict[str, Tensor]:
        """Do the next update, with its batch; gives the losses, which stay on the device.

        Args:
            batch: the update's; where processes learn together, this one's share of it. They then
                come to the same weights and losses, those of the whole batch.
            rate: the learning rate; unset, that of the plan's schedule.

        Raises:
            SettingError: the networks cannot be compiled, as their first update shows.
        """
        config, update = self._plan.config, self.update + 1
        if rate is None:
            rate = config.learning_rate * rate_factor(update, config.updates, config.decay_from)
        for optimizer in self.model.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        draws = draw_for_pools(config.seed, update, config.batch, self.model.draws_per_sample)
        if self._plan.compiled:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        explained = explained_compiling() if self._plan.compiled else nullcontext()
        with explained, collective.exchanging(self._plan.processes.count > 1):
            losses = self.model.step(batch, draws)
            sums = collective.total(torch.stack(list(losses.values())))
        losses = dict(zip(losses, sums.unbind(), strict=True))
        for name, average in self.averages.items():
            average.follow(self.generators[name], update)
        self.update = update
        return losses

    def state_dict(self) -> dict[str, Any]:
        """All that learning has changed: tensors, numbers and strings."""
        return {
            "update": self.update,
            "model": self.model.state_dict(),
            "averages": {name: each.network.state_dict() for name, each in self.averages.items()},
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.update = state["update"]
        self.model.load_state_dict(state["model"])
        for name, each in self.averages.items():
            each.network.load_state_dict(state["averages"][name])


def rate_factor(update: int, updates: int, decay_from: float) -> float:
    """Share of the learning rate at an update: 1 at first, then in a straight line to zero.

    Args:
        update: from 1.
        updates: how many there are; one more would have 0.
        decay_from: share of them after which the line starts.
    """
    done = (update - 1) / updates
    return 1.0 if done < decay_from or decay_from == 1 else (1 - done) / (1 - decay_from)

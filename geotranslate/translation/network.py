"""A translator with what is decided about its use: where, in which arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from geotranslate.raster.domain import Domain
from geotranslate.translation.bundle import Translator
from geotranslate.translation.engine import Engine
from geotranslate.translation.precision import Arithmetic
from geotranslate.translation.scene_plan import ScenePlan


@dataclass(frozen=True)
class Network:
    """What translates scenes.

    Attributes:
        translator: one direction of a model.
        device: where it computes.
        arithmetic: of its convolutions.
    """

    translator: Translator
    device: torch.device
    arithmetic: Arithmetic

    @property
    def target(self) -> Domain:
        """What comes out."""
        return self.translator.target

    def engine(self, plan: ScenePlan, folder: Path) -> Engine:
        """The generator at work on a scene."""
        return Engine(
            self.translator.generator,
            self.translator.source,
            self.translator.target,
            bands=plan.bands,
            device=self.device,
            arithmetic=self.arithmetic,
        )

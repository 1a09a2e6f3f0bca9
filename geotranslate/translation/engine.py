"""A generator at work: pixels of one domain in, values of the other out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geotranslate.errors import SettingError
from geotranslate.networks.context import PLAIN, Context
from geotranslate.raster.domain import Domain, Normalization
from geotranslate.raster.scene import Scene
from geotranslate.translation.bundle import Translator
from geotranslate.translation.precision import Arithmetic, computing

Translate: TypeAlias = Callable[[NDArray[Any], NDArray[np.bool_]], NDArray[np.float32]]
"""From a scene's pixels (N, bands, rows, cols) and where they are valid (N, rows, cols) to values
(N, bands, rows, cols) as the target stores them, but not rounded. What lies under invalid pixels
changes nothing."""


class Engine:
    """A translator on its device, in its arithmetic.

    Attributes:
        source: what it takes.
        target: what it gives.
        device: where it computes.
        arithmetic: that of its convolutions.
    """

    def __init__(
        self, translator: Translator, device: torch.device, arithmetic: Arithmetic
    ) -> None:
        self.source = translator.source
        self.target = translator.target
        self.device = device
        self.arithmetic = arithmetic
        generator = translator.generator.to(device)
        self._generator = generator.to(memory_format=torch.channels_last)
        self._outward = self._on_device(self.target)

    def on(self, scene: Scene) -> Translate:
        """What translates pixels as this scene stores them, whatever its scales and offsets.

        Raises:
            SettingError: from the result, when a batch does not fit into the device's memory.
        """
        inward = self._on_device(self.source.model_copy(update={"bands": scene.bands}))
        return partial(self._translate, inward)

    def _translate(
        self, inward: Normalization[Tensor], pixels: NDArray[Any], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        try:
            with torch.inference_mode(), computing(self.arithmetic, self.device):
                stored = torch.from_numpy(pixels.astype(np.float32)).to(self.device)
                seen = torch.from_numpy(valid).to(self.device)[:, None]
                scaled = torch.where(seen, inward.forward(stored), 0.0)
                # Statistics that instance norm takes of a window are those of its valid pixels.
                context = PLAIN if valid.all() else Context(seen.float())
                translated = self._generator(
                    scaled.contiguous(memory_format=torch.channels_last), context
                )
                values: NDArray[np.float32] = self._outward.inverse(translated).cpu().numpy()
        except torch.OutOfMemoryError as error:
            count, _, rows, cols = pixels.shape
            mend = f"--batch {count // 2}" if count > 1 else "a smaller --size and --overwrite"
            raise SettingError(
                f"{count} window{'s' * (count > 1)} of {cols} x {rows} px at once do not fit into "
                f"the memory of {self.device}. Say {mend}, or --device cpu and --overwrite."
            ) from error
        return values

    def _on_device(self, domain: Domain) -> Normalization[Tensor]:
        return domain.normalization(lambda column: torch.from_numpy(column).to(self.device))

"""A generator at work: pixels of one domain in, values of the other out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geotranslate.errors import SettingError
from geotranslate.networks.context import Context
from geotranslate.raster.domain import Band, Domain, Normalization
from geotranslate.raster.scene import Chip
from geotranslate.translation.memory import ran_out
from geotranslate.translation.precision import Arithmetic, computing

ROUNDED_BYTES = 2
"""Integers of at most so many bytes are rounded on the device: there are fewer bytes to carry."""

BATCH_PIXELS = 1024 * 1024
"""What the cores of one batch hold on a GPU, which needs as many to be busy."""

Place = tuple[slice, slice]


def good_batch(size: int, device: torch.device) -> int:
    """Windows with cores of ``size`` px that are translated at once unless a number is given.

    On a CPU that is one: 16 of 256 px at once took 0.92 of the time, which is not worth the memory
    of their layers (ResNet-6 of width 32 and ResNet-9 of width 64, bf16).
    """
    return 1 if device.type == "cpu" else max(1, BATCH_PIXELS // size**2)


class Engine:
    """A generator on its device, in its arithmetic, between a scene and a target.

    Attributes:
        target: what it gives.
        device: where it computes.
        arithmetic: that of its convolutions.
    """

    def __init__(
        self,
        generator: nn.Module,
        source: Domain,
        target: Domain,
        *,
        bands: Sequence[Band],
        device: torch.device,
        arithmetic: Arithmetic,
    ) -> None:
        """Bring a generator to its device.

        Args:
            generator: in evaluation mode.
            source: what it takes.
            target: what it gives.
            bands: the scene's own, in the source's order: scales and offsets may be others.
            device: where to compute.
            arithmetic: of the convolutions.
        """
        self.target = target
        self.device = device
        self.arithmetic = arithmetic
        self._generator = generator.to(device).to(memory_format=torch.channels_last)
        self._inward = self._on_device(source.model_copy(update={"bands": tuple(bands)}))
        self._outward = self._on_device(target)
        stored = np.dtype(target.dtype)
        small = np.issubdtype(stored, np.integer) and stored.itemsize <= ROUNDED_BYTES
        self._rounded = stored if small else None

    def prepare(self, chips: Sequence[Chip]) -> tuple[Tensor, Tensor]:
        """Pixels as the network takes them, and where they are valid.

        Args:
            chips: of one shape, as the scene stores them.

        Returns:
            (N, bands, rows, cols) in [-1, 1], float32, 0 at invalid pixels; (N, 1, rows, cols)
            bool. Both on the device.
        """
        stored = np.stack([chip.pixels for chip in chips])
        if stored.dtype.itemsize > 4:
            # What no float32 can hold becomes infinite, and then an end of the range.
            with np.errstate(over="ignore"):
                stored = stored.astype(np.float32)
        pixels = torch.from_numpy(stored).to(self.device).float()
        valid = torch.from_numpy(np.stack([chip.valid for chip in chips])).to(self.device)[:, None]
        scaled = torch.where(valid, self._inward.forward(pixels), 0.0)
        return scaled.contiguous(memory_format=torch.channels_last), valid

    @torch.inference_mode()
    def translate(
        self,
        chips: Sequence[Chip],
        origins: Sequence[tuple[int, int]],
        places: Sequence[Place],
        *,
        rounded: bool,
    ) -> list[NDArray[Any]]:
        """Values (bands, rows, cols) as the target stores them; invalid pixels change none.

        Args:
            chips: of one shape, as the scene stores them.
            origins: row and column in the scene of each one's first pixel.
            places: rows and columns of each one that are wanted.
            rounded: round to the target's dtype, where that is an integer of one or two bytes;
                else they are float32, and not rounded.

        Raises:
            SettingError: the windows do not fit into the device's memory.
        """
        count = len(chips)
        mend = f"--batch {count // 2}" if count > 1 else "a smaller --size and --overwrite"
        with self.within_memory(count, chips[0].grid.shape, mend):
            pixels, valid = self.prepare(chips)
            # Statistics that instance norm takes of a window are those of its valid pixels.
            whole = all(chip.valid.all() for chip in chips)
            context = Context(None if whole else valid.float(), origin=origins)
            with computing(self.arithmetic, self.device):
                translated = self._generator(pixels, context)
            values = self._outward.inverse(translated.float())
            if rounded and self._rounded:
                values = _rounded(values, self._rounded)
            return [
                value[:, rows, cols].cpu().numpy()
                for value, (rows, cols) in zip(values, places, strict=True)
            ]

    @contextmanager
    def within_memory(self, count: int, shape: tuple[int, int], mend: str) -> Iterator[None]:
        """Say it in a sentence when windows do not fit into the device's memory.

        Args:
            count: windows that are computed at once.
            shape: rows and columns of each.
            mend: words to say instead; beside a GPU those for the CPU follow.

        Raises:
            SettingError: in place of torch's error.
        """
        if self.device.type != "cpu":
            mend += ", or --device cpu and --overwrite"
        try:
            yield
        except RuntimeError as error:
            if not ran_out(error, self.device):
                raise
            raise SettingError(
                f"{count} window{'s' * (count > 1)} of {shape[1]} x {shape[0]} px at once do not "
                f"fit into the memory of {self.device}. Say {mend}."
            ) from error

    def _on_device(self, domain: Domain) -> Normalization[Tensor]:
        return domain.normalization(lambda column: torch.from_numpy(column).to(self.device))


def _rounded(values: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Values as integers of a dtype, as :func:`geotranslate.raster.domain.to_dtype` makes them."""
    limits = np.iinfo(dtype)
    inside = values.round().clamp(int(limits.min), int(limits.max))
    return inside.to(getattr(torch, dtype.name))

"""Where a network computes, and in which arithmetic."""

from __future__ import annotations

from typing import Literal

import torch

from geotranslate.choices import PRECISIONS, Precision
from geotranslate.errors import SettingError

Arithmetic = Literal["float32", "bf16"]

AMPERE = 8
"""Compute capability of the first NVIDIA GPUs with bf16 convolutions."""

CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Instructions for bf16, on x86 and on ARM: without them it is slower than float32."""


def choose_device(name: str = "auto") -> torch.device:
    """The device a name stands for; ``auto`` is the first GPU, else the CPU.

    Raises:
        SettingError: the name stands for nothing, or for hardware that is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if device is None or (device.index or 0) >= there.get(device.type, 0):
        found = [f"{kind}:{i}" for kind in ("cuda", "mps") for i in range(there[kind])]
        raise SettingError(
            f"device {name!r} is not on this machine, which has {', '.join(['cpu', *found])}. "
            "Choose one of these, or auto."
        )
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", 0)
    return device


def choose_arithmetic(precision: Precision, device: torch.device) -> Arithmetic:
    """What ``auto`` stands for on a device: bf16 where its hardware has it.

    Raises:
        SettingError: the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise SettingError(
            f"precision {precision!r} is unknown. Choose one of {', '.join(PRECISIONS)}."
        )
    if precision != "auto":
        return precision
    return "bf16" if _has_bf16(device) else "float32"


def computing(arithmetic: Arithmetic, device: torch.device) -> torch.autocast:
    """A context in which convolutions on ``device`` compute in ``arithmetic``."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=arithmetic == "bf16")


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.get_device_capability(device)[0] >= AMPERE)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in CPU_BF16)
    return False

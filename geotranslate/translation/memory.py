"""Memory: kept from one layer to the next, how much was held at most, and whether it ran out."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from geotranslate.raster.disk import spell_bytes

if TYPE_CHECKING:
    import torch

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Parameters of mallopt(3)."""

NEVER = -1
"""As a threshold: nothing is trimmed."""

USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
"""What the library comes to by itself in a process that has freed large pieces."""

OWN_WORDS = "GLIBC_TUNABLES", "MALLOC_"
"""How variables begin by which a user tells the library himself."""

_bodies = 0
"""Bodies of `kept_memory` that are under way, in whatever order they end."""


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Keep what layers free for the next ones, and give it back at the end.

    The GNU C library gives every piece of more than 32 MB back to the system as soon as it is free,
    and trims what lies free at the end of its heap. A layer then gets its memory anew, which the
    system fills with zeros page by page while nothing computes: a window of 1,024 px through a
    generator of width 64 takes a million pages. With another C library, where a GPU computes, and
    where the environment says how memory is kept, nothing is done; outside the main thread it
    helps little.

    Args:
        device: where the network computes.
    """
    global _bodies
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc" or _is_told():
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(MMAP_MAX, 0)
    library.mallopt(TRIM_THRESHOLD, NEVER)
    _bodies += 1
    try:
        yield
    finally:
        _bodies -= 1
        if not _bodies:
            for parameter, value in USUAL.items():
                library.mallopt(parameter, value)
            library.malloc_trim(0)


def _is_told() -> bool:
    return any(name.startswith(OWN_WORDS) for name in os.environ)


def ran_out(error: RuntimeError, device: torch.device) -> bool:
    """Whether torch says that a device's memory is used up; for a CPU it has no own class."""
    import torch

    if device.type == "cpu":
        return "DefaultCPUAllocator" in str(error)
    return isinstance(error, torch.OutOfMemoryError)


def memory_in_words(device: torch.device) -> str:
    """How much memory this process held at most, as a sentence; "" where no system tells."""
    held, beside = peak_memory(), peak_device_memory(device)
    words = [] if held is None else [spell_bytes(held)]
    if beside is not None:
        words.append(f"{spell_bytes(beside)} of the GPU's")
    return f"It held at most {' and '.join(words)} of memory." if words else ""


def peak_device_memory(device: torch.device) -> int | None:
    """Bytes of a GPU's memory that this process held at most; None without one."""
    import torch

    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


def peak_memory() -> int | None:
    """Bytes of main memory that this process held at most; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak

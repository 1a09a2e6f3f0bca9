"""Memory: kept from one layer to the next, how much was held at most, and whether it ran out."""

from __future__ import annotations

import ctypes
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

NEVER = 2**31 - 1
"""So much may lie free at the end of the heap; the parameter is a C int."""

USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
"""What the library comes to by itself in a process that has freed large pieces."""


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Keep what layers free for the next ones, and give it back at the end.

    The GNU C library gives every piece of more than 32 MB back to the system as soon as it is free,
    and trims what lies free at the end of its heap. A layer then gets its memory anew, which the
    system fills with zeros page by page while nothing computes: a window of 1,024 px through a
    generator of width 64 takes a million pages, a quarter of its time. With another C library, and
    where a GPU computes, nothing is done.

    Args:
        device: where the network computes.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(MMAP_MAX, 0)
    library.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        for parameter, value in USUAL.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)


def ran_out(error: Exception) -> bool:
    """Whether an error says that memory is used up; torch has no class for it on a CPU."""
    import torch

    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "DefaultCPUAllocator" in str(error)


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

"""Memory of a network's layers, kept from one layer to the next instead of given back.

The GNU C library gives every piece of more than 32 MB back to the system as soon as it is free, and
trims what lies free at the end of its heap. A layer then gets its memory anew, which the system
fills with zeros page by page while nothing computes: a window of 1,024 px through a generator of
width 64 takes a million pages, a quarter of its time.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

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

    With another C library, and where a GPU computes, nothing is done.

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

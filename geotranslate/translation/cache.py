"""Chips that stay in memory once they were read, as they are stored."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock

import numpy as np

from geotranslate.chips.file import ChipPixels, read_chip
from geotranslate.chips.folder import ChipFolder

FREE_SHARE = 0.25
"""Share of the free memory that chips may fill, where the user names no limit."""

UNKNOWN = 4 * 10**9
"""Bytes taken to be free where the system does not tell."""

UNLIMITED = 2**63
"""Bytes, more than any machine has."""


class ChipCache:
    """Reads chips and keeps them until they fill the memory they may.

    In an epoch each chip is read once, so throwing out old ones for new ones would serve nobody:
    those that were kept stay, the others are read again each time. Threads may share it.

    Attributes:
        limit: bytes that may be kept.
        used: bytes kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._kept: dict[Path, ChipPixels] = {}
        self._counting = Lock()

    def read(self, path: Path) -> ChipPixels:
        """The pixels of a chip's file, as `read_chip` gives them; not to be written to.

        Raises:
            ChipsError: the file is missing or damaged.
        """
        kept = self._kept.get(path)
        if kept is not None:
            return kept
        chip = _compact(read_chip(path))
        size = chip.pixels.nbytes + (chip.valid.size if chip.valid.strides != (0, 0) else 0)
        with self._counting:
            # Another thread may have read the same chip meanwhile.
            if path not in self._kept and self.used + size <= self.limit:
                self._kept[path] = chip
                self.used += size
        return chip


def _compact(chip: ChipPixels) -> ChipPixels:
    """A chip that is valid everywhere with one True in place of as many as there are pixels."""
    if not chip.valid.all():
        return chip
    return ChipPixels(chip.pixels, np.broadcast_to(np.True_, chip.valid.shape))


def chip_bytes(folder: ChipFolder) -> int:
    """Bytes that all training chips take in memory at most: each with a mask of missing pixels."""
    return sum(
        len(folder.files(name, "train"))
        * folder.chip_size**2
        * (len(domain.bands) * np.dtype(domain.dtype).itemsize + np.dtype(bool).itemsize)
        for name, domain in (("a", folder.domain_a), ("b", folder.domain_b))
    )


def cache_limit(cache_gb: float | None) -> int:
    """Bytes that chips may fill: as the user says, else a share of what is free."""
    return int(FREE_SHARE * free_memory() if cache_gb is None else 1e9 * cache_gb)


def free_memory() -> int:
    """Bytes of main memory that this process can still have."""
    return min(_free_on_machine(), _free_in_groups())


def _free_on_machine() -> int:
    known = Path("/proc/meminfo")
    if known.exists():
        for line in known.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return UNKNOWN


def _free_in_groups(root: Path = Path("/")) -> int:
    """What the limits of Linux's control groups leave: those of a container, of a SLURM job.

    A process may take as much as its own group and each group above it have left.

    Args:
        root: holds ``proc`` and ``sys``.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return UNLIMITED
    free, mounted = UNLIMITED, root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, names = mounted, ("memory.max", "memory.current")
        elif controllers == "memory":
            top, names = mounted / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # A container may see its own group as the top while the path is that of the machine.
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                free = min(free, _left_in_group(folder, *names))
    return free


def _left_in_group(folder: Path, limit: str, used: str) -> int:
    """What one control group has left, by the names of its files."""
    try:
        most = (folder / limit).read_text(encoding="utf-8").strip()
        taken = (folder / used).read_text(encoding="utf-8").strip()
    except OSError:
        return UNLIMITED
    return UNLIMITED if most == "max" else max(int(most) - int(taken), 0)

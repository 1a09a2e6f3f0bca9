"""A clock for promises of seconds, on machines that are busy with other things."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path


class FairClock:
    """Counts the seconds in which this process and others could have worked.

    While one of their threads is ready to run and others have the processors, it stands still; it
    goes on while they work, sleep, or wait for anything else. Where the system does not tell how
    long threads waited for a processor (only Linux does), it is an ordinary clock.
    """

    def __init__(self, *others: int) -> None:
        """Start it.

        Args:
            others: process numbers.
        """
        self._start = time.monotonic()
        self._before = {pid: _kept_waiting(pid) for pid in (os.getpid(), *others)}
        self._last = dict(self._before)

    def read(self) -> float:
        """Seconds; of a process that has ended counts what it had waited at the last reading."""
        for pid, last in self._last.items():
            self._last[pid] = max(last, _kept_waiting(pid))
        waited = sum(self._last.values()) - sum(self._before.values())
        return time.monotonic() - self._start - waited


def _kept_waiting(pid: int) -> float:
    """Seconds that a process's threads were ready and had no processor, by Linux's schedstats."""
    waited = 0
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                waited += int((thread / "schedstat").read_text().split()[1])
    return waited / 1e9

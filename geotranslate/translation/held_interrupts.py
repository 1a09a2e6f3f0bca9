"""Ctrl-C and SIGTERM made to wait for the end of what must not be left half done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

SIGNALS = signal.SIGINT, signal.SIGTERM


_bodies = 0
"""Bodies of `held_interrupts` that are under way, one inside the other."""


def holding() -> bool:
    """Whether something is under way that must not be left half done; any thread may ask."""
    return _bodies > 0


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Let an interrupt come after the body, not into it.

    Python raises KeyboardInterrupt between any two steps of the main thread: so between a
    discriminator's step and its generator's, which leaves a state that no update ends with. Signals
    that nobody listens to in Python still end the process at once, as a kill does.
    """
    global _bodies
    if current_thread() is not main_thread():
        yield  # signals are the main thread's business
        return
    listeners = {
        number: listener for number in SIGNALS if callable(listener := signal.getsignal(number))
    }
    came: list[int] = []
    outside = _bodies

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)

    try:
        for number in listeners:
            signal.signal(number, remember)
        _bodies = outside + 1
        yield
    finally:
        _bodies = outside
        for number, listener in listeners.items():
            signal.signal(number, listener)
    for each in came:
        listeners[signal.Signals(each)](each, None)

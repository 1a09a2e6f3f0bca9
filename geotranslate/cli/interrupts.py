"""Ctrl-C and SIGTERM: answered at once and obeyed soon, whatever a library is busy with."""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread, current_thread, main_thread
from types import FrameType

import click

from geotranslate.translation.held_interrupts import holding

GRACE_SECONDS = 10.0
"""How long work may take to end tidily, where nothing would be left half done."""

GLANCE_SECONDS = 0.1
"""How often it is looked whether something still would."""

STOPPING = (
    "Stopping: what is begun ends first, in {:.0f} s at most. Ctrl-C then leaves at once, and "
    "nothing finished is lost either way."
)
STOPPING_UPDATE = (
    "Stopping: the update under way ends first, however long it takes. Ctrl-C then leaves at once, "
    "back to the newest checkpoint."
)
STOPPED = "Stopped. Run the same command again to go on from here."


@dataclass
class Interruption:
    """Whether the work was asked to end.

    Attributes:
        signal: the first that asked, SIGINT (Ctrl-C) or SIGTERM (a scheduler); None so far.
    """

    signal: int | None = None

    @property
    def status(self) -> int:
        """The exit status that shells have for it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)


@contextmanager
def answered_interrupts() -> Iterator[Interruption]:
    """Answer Ctrl-C within a moment, and let the process outlive it by `GRACE_SECONDS` at most.

    Only an update of a network that is under way gets the time it takes, because all that was
    learned since the last checkpoint would go with it.

    Python raises KeyboardInterrupt when the main thread is back from a library, and then the work
    ends tidily. Translating a window takes a library seconds, and joining a large raster minutes.
    So a thread listens that is never busy. In the end it leaves as a kill would, from which every
    command goes on. SIGTERM, by which schedulers ask a job to end, is the same as Ctrl-C.

    Yields:
        What was asked so far.
    """
    asked = Interruption()
    if current_thread() is not main_thread():
        yield asked  # signals are the main thread's business
        return
    ear, bell = socket.socketpair()
    bell.setblocking(False)
    before = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
    terminated = signal.signal(signal.SIGTERM, _interrupt_once())
    listener = Thread(target=_listen, args=(ear, asked), daemon=True)
    listener.start()
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, terminated)
        signal.set_wakeup_fd(before)
        bell.close()
        listener.join()
        ear.close()


def _interrupt_once() -> Callable[[int, FrameType | None], None]:
    """A listener that raises KeyboardInterrupt the first time it is called.

    SIGTERM often comes twice, to a process and to its group, and the second must not fall into what
    ends tidily.
    """
    called = False

    def listen(number: int, frame: FrameType | None) -> None:
        nonlocal called
        if not called:
            called = True
            raise KeyboardInterrupt

    return listen


def _listen(ear: socket.socket, asked: Interruption) -> None:
    """Wait until the work is asked to end, and then for its end, Ctrl-C, or the end of patience."""
    asked.signal = _hear(ear, {signal.SIGINT, signal.SIGTERM})
    if asked.signal is None:
        return
    until = time.monotonic() + GRACE_SECONDS
    patient, again = holding(), False
    click.echo(STOPPING_UPDATE if patient else STOPPING.format(GRACE_SECONDS), err=True)
    while not again and time.monotonic() < until:
        if patient and holding():
            until = time.monotonic() + GRACE_SECONDS
        with suppress(TimeoutError):
            if _hear(ear, {signal.SIGINT}, until=time.monotonic() + GLANCE_SECONDS) is None:
                return
            again = True
    click.echo(STOPPED, err=True)
    os._exit(asked.status)


def _hear(ear: socket.socket, wanted: set[signal.Signals], until: float = math.inf) -> int | None:
    """Wait for one of some signals; None when the bell is taken away instead.

    Raises:
        TimeoutError: none came until then.
    """
    while True:
        left = until - time.monotonic()
        ear.settimeout(None if left == math.inf else max(left, 0.001))
        number = ear.recv(1)
        if not number:
            return None
        if number[0] in wanted:
            return number[0]

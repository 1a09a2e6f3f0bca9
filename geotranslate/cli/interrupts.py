"""Ctrl-C: answered at once and obeyed soon, whatever a library is busy with."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread, current_thread, main_thread

import click

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

GRACE_SECONDS = 10.0
"""How long work may take to end tidily."""

STOPPING = (
    f"Stopping: what is begun ends first, in {GRACE_SECONDS:.0f} s at most. Ctrl-C again leaves at "
    "once, and nothing finished is lost either way."
)
STOPPED = "Stopped. Run the same command again to go on from here."


@contextmanager
def answered_interrupts() -> Iterator[Event]:
    """Answer Ctrl-C within a moment, and let the process outlive it by `GRACE_SECONDS` at most.

    Python raises KeyboardInterrupt when the main thread is back from a library, and then the work
    ends tidily. Translating a window takes a library seconds, and joining a large raster minutes.
    So a thread listens that is never busy. In the end it leaves as a kill would, from which every
    command goes on.

    Yields:
        An event that is set once Ctrl-C was pressed.
    """
    asked = Event()
    if current_thread() is not main_thread():
        yield asked  # signals are the main thread's business
        return
    ear, bell = socket.socketpair()
    bell.setblocking(False)
    before = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
    listener = Thread(target=_listen, args=(ear, asked), daemon=True)
    listener.start()
    try:
        yield asked
    finally:
        signal.set_wakeup_fd(before)
        bell.close()
        listener.join()
        ear.close()


def _listen(ear: socket.socket, asked: Event) -> None:
    """Wait for Ctrl-C, and then for the work's end, another Ctrl-C, or the end of all patience."""
    if not _heard_interrupt(ear):
        return
    asked.set()
    click.echo(STOPPING, err=True)
    ear.settimeout(GRACE_SECONDS)
    with suppress(TimeoutError):
        if not _heard_interrupt(ear):
            return
    click.echo(STOPPED, err=True)
    os._exit(INTERRUPTED)


def _heard_interrupt(ear: socket.socket) -> bool:
    """Wait for Ctrl-C; False when the bell is taken away instead."""
    while numbers := ear.recv(1):
        if signal.SIGINT in numbers:
            return True
    return False

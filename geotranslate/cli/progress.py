"""What a person sees while a command works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

PLAIN_SECONDS = 10.0


class Bar(Protocol):
    """A progress display that is told how far the work is."""

    def update(self, done: float, note: str = "") -> None:
        """Show that ``done`` of the total is done, with a short note beside it."""


@contextmanager
def progress(text: str, total: float, *, quiet: bool = False) -> Iterator[Bar]:
    """Show the progress of long work on stderr, so that stdout stays for results.

    Args:
        text: what is being done.
        total: how much there is to do.
        quiet: show nothing, as for ``--json``.
    """
    if quiet:
        yield _Silent()
    elif sys.stderr.isatty():
        yield from _rich_bar(text, total)
    else:
        yield _Plain(text, total)


def say(sentence: str, *, quiet: bool = False) -> None:
    """Tell the person something beside the results."""
    if not quiet:
        click.echo(sentence, err=True)


def finish(sentence: str, record: dict[str, Any], *, as_json: bool) -> None:
    """Say at the end what was written: a sentence, or one line of JSON."""
    click.echo(json.dumps(record, default=str) if as_json else sentence)


def counted(count: int, noun: str) -> str:
    """1 pair, 2 pairs."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class _Silent:
    def update(self, done: float, note: str = "") -> None:
        pass


class _Plain:
    """A line now and then, for logs and pipes."""

    def __init__(self, text: str, total: float) -> None:
        self._text, self._total = text, total
        self._last = time.monotonic()

    def update(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last < PLAIN_SECONDS and done < self._total:
            return
        self._last = now
        click.echo(f"{self._text}: {done:g} of {self._total:g} {note}".rstrip(), err=True)


def _rich_bar(text: str, total: float) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(text, total=total, note="")

        class Rich:
            def update(self, done: float, note: str = "") -> None:
                display.update(task, completed=done, note=note)

        yield Rich()

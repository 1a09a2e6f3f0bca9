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

RATED_SECONDS = 300.0
"""Of the latest work, from which a bar tells the pace and the time left."""


class Bar(Protocol):
    """A progress display that is told how far the work is."""

    def update(self, done: float, note: str = "") -> None:
        """Show that ``done`` of the total is done, with a short note beside it."""


@contextmanager
def progress(text: str, total: float, *, unit: str = "", quiet: bool = False) -> Iterator[Bar]:
    """Show the progress of long work on stderr, so that stdout stays for results.

    Args:
        text: what is being done.
        total: how much there is to do.
        unit: what is counted, as "update", to tell how many of them a second takes.
        quiet: show nothing, as for ``--json``.
    """
    if quiet:
        yield _Silent()
    elif sys.stderr.isatty():
        yield from _rich_bar(text, total, unit)
    else:
        yield _Plain(text, total, unit)


def say(sentence: str, *, quiet: bool = False) -> None:
    """Tell the person something beside the results."""
    if not quiet:
        # Not through click, which goes past what a bar puts in the place of stderr meanwhile.
        print(sentence, file=sys.stderr)


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


def pace(rate: float | None, unit: str) -> str:
    """How quick work goes: 3.2 updates a second, 8.1 s an update; "" where nobody knows."""
    if not rate or not unit:
        return ""
    if rate >= 1:
        number = f"{rate:.3g}"
        return f"{number} {unit}{'s' * (number != '1')} a second"
    return f"{duration(1 / rate)} {'an' if unit[0] in 'aeiou' else 'a'} {unit}"


class _Silent:
    def update(self, done: float, note: str = "") -> None:
        pass


class _Plain:
    """A line now and then, for logs and pipes."""

    def __init__(self, text: str, total: float, unit: str) -> None:
        self._text, self._total, self._unit = text, total, unit
        self._last = time.monotonic()
        self._shown = 0.0
        self._first: tuple[float, float] | None = None

    def update(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        # The end is said at once, but not again by each step that comes after all is counted.
        ended = self._shown < self._total <= done
        if now - self._last < PLAIN_SECONDS and not ended:
            return
        self._last, self._shown = now, done
        parts = [f"{self._text}: {done:g} of {self._total:g}", *self._outlook(now, done)]
        click.echo(f"{', '.join(parts)}  {note}".rstrip(), err=True)

    def _outlook(self, now: float, done: float) -> list[str]:
        """How quick it goes and how long it will take, as soon as that can be said."""
        assert self._first is not None
        since, before = self._first
        if not self._unit or done <= before or now <= since:
            return []
        rate = (done - before) / (now - since)
        rest = (self._total - done) / rate
        return [pace(rate, self._unit), *([f"{duration(rest)} left"] if rest else [])]


def _rich_bar(text: str, total: float, unit: str) -> Iterator[Bar]:
    from rich.console import Console, RenderableType
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Display(Progress):
        """A bar, and below it a line of its own for the note, which may be long."""

        def get_renderables(self) -> Iterator[RenderableType]:
            for task in self.tasks:
                task.fields["pace"] = pace(task.speed, unit)
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if task.fields["note"]:
                    yield Text(task.fields["note"], style="dim")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Display(*columns, console=console, speed_estimate_period=RATED_SECONDS) as display:
        task = display.add_task(text, total=total, note="", pace="")

        class Rich:
            def update(self, done: float, note: str = "") -> None:
                display.update(task, completed=done, note=note)

        yield Rich()

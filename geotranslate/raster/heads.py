"""The heads of many raster files: what is known of a scene before a pixel is read.

Most of the time that goes into a head is taken by decoding its CRS, during which Python computes
nothing else. So where there are thousands, other processes look at a part of them: this module,
run as a program, which is sent paths and answers with heads.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from geotranslate.errors import GeotranslateError
from geotranslate.raster.grid import Grid
from geotranslate.raster.reading import Validity, many_files, open_many
from geotranslate.raster.scene import Scene, open_scene
from geotranslate.raster.warp import check_same_kind

Asked: TypeAlias = "tuple[int | str, ...] | None"
"""Bands by number or name; None for all that hold data."""

Question: TypeAlias = "tuple[str, Asked, Sequence[str]]"
"""The file that others have to be like, the bands asked for, and the files."""

# They hide the time that a disk far away takes to answer; more would only wait for each other.
MOST_THREADS = 4

# Of fewer a process has hardly begun to look when the others are done.
MANY = 2000
MOST_PROCESSES = 8

# Files that a process is sent at once.
BATCH = 50

# What an answer begins with.
ANSWER = b"heads of rasters:"


@dataclass(frozen=True)
class Head:
    """What the head of a scene's file says.

    Attributes:
        path: as given.
        grid: where its pixels lie.
        validity: where it says which pixels are invalid.
        nodata: stored value for "nothing here".
        geotiff: it is one.
        striped_bytes: of :attr:`Scene.striped_bytes`.
        unseen_alpha: of :attr:`Scene.has_unseen_alpha`.
        identity: of :meth:`Scene.identity`.
    """

    path: str
    grid: Grid
    validity: Validity
    nodata: float | None
    geotiff: bool
    striped_bytes: int
    unseen_alpha: bool
    identity: dict[str, Any]


def read_heads(paths: Sequence[str], asked: Asked = None) -> list[Head]:
    """The heads of scenes, which are checked to be of one kind, in their order.

    Args:
        paths: of at least one scene.
        asked: bands to ask of each.

    Raises:
        RasterError: a file cannot be read.
        BandError: a band is missing, or bands, scales or types of two scenes differ.
    """
    cores = os.cpu_count() or 1
    others = min(cores, MOST_PROCESSES) - 1 if len(paths) >= MANY and _is_python() else 0
    waiting = deque(paths[start : start + BATCH] for start in range(0, len(paths), BATCH))
    found: dict[str, Head] = {}
    started: list[subprocess.Popen[bytes]] = []
    with open_scene(paths[0], bands=asked) as first:

        def look() -> None:
            while batch := _next(waiting):
                for path in batch:
                    found[path] = _read_head(path, first, asked)

        def ask() -> None:
            # Whatever becomes of the other process, what it leaves is looked at here.
            with suppress(Exception), _another_process() as process:
                started.append(process)
                while batch := _next(waiting):
                    heads = _ask(process, (paths[0], asked, batch))
                    found.update((head.path, head) for head in heads)
            look()

        work = [look] * (1 if others else min(cores, MOST_THREADS)) + [ask] * others
        with ThreadPoolExecutor(len(work), initializer=open_many) as threads:
            try:
                for done in [threads.submit(each) for each in work]:
                    done.result()
            finally:
                # Left early, by an error or by the user: nobody waits for the rest.
                waiting.clear()
                for process in started:
                    process.kill()
        # What another process could not read is looked at here, so that it is said why.
        with many_files():
            return [found.get(path) or _read_head(path, first, asked) for path in paths]


def _next(waiting: deque[Sequence[str]]) -> Sequence[str] | None:
    with suppress(IndexError):
        return waiting.popleft()
    return None


def _read_head(path: str, first: Scene, asked: Asked) -> Head:
    with open_scene(path, bands=asked) as scene:
        check_same_kind(first, scene)
        grid = scene.grid
        if grid.crs == first.grid.crs:
            # As one and the same it is compared, and sent, in no time.
            grid = replace(grid, crs=first.grid.crs)
        return Head(
            path=path,
            grid=grid,
            validity=scene.validity,
            nodata=scene.nodata,
            geotiff=scene.is_geotiff,
            striped_bytes=scene.striped_bytes,
            unseen_alpha=scene.has_unseen_alpha,
            identity=scene.identity(),
        )


def _is_python() -> bool:
    """Whether this program starts Python; within ArcGIS Pro it would start that once more."""
    return Path(sys.executable or "").stem.lower().startswith("python")


@contextmanager
def _another_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs :func:`answer`, with the modules that we have."""
    # Without -P a file in the folder we are in could stand for one of Python's modules.
    command = [sys.executable, "-P", "-c", f"import {__name__} as heads; heads.answer()"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _ask(process: subprocess.Popen[bytes], question: Question) -> list[Head]:
    """The heads of a batch, but for files that the process cannot read.

    Raises:
        EOFError: the process is there no more, or something else writes where it answers.
        OSError: likewise.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    pickle.dump(question, process.stdin)
    process.stdin.flush()
    if process.stdout.read(len(ANSWER)) != ANSWER:
        raise EOFError
    heads: list[Head] = pickle.load(process.stdout)  # noqa: S301 - from a process of ours
    return heads


def answer() -> None:
    """As a program: look at what is asked for until nobody asks any more."""
    # Ctrl-C is meant for who asks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What else is printed shall not come between the answers.
    with os.fdopen(os.dup(1), "wb") as answers, many_files(), suppress(OSError, EOFError):
        os.dup2(2, 1)
        while True:
            question: Question = pickle.load(sys.stdin.buffer)  # noqa: S301 - from who started us
            first_path, asked, batch = question
            heads = []
            with open_scene(first_path, bands=asked) as first:
                for path in batch:
                    with suppress(GeotranslateError):
                        heads.append(_read_head(path, first, asked))
            answers.write(ANSWER)
            pickle.dump(heads, answers)
            answers.flush()

"""Other processes of this machine that run the same command, and an eye on each other.

The first one starts them with the command it was started with. It knows them as its children; they
know it by their standard input, which ends when it dies. Who is left alone may hang in the library
that exchanges tensors, so after a while it is ended from outside.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from geotranslate.errors import SettingError

SECONDS_TO_END = 30.0
"""That a process has to end by itself after another one died."""

MARK = "GEOTRANSLATE_COMPANION"
"""Environment variable of the processes that were started here."""

_started: list[subprocess.Popen[bytes]] = []
_waiting = False


class StartedHere(LightningEnvironment):
    """Tells Fabric where processes meet that it has not to start."""

    @property
    def creates_processes_externally(self) -> bool:
        """Yes: `start` does."""
        return True


def start(count: int, environment: LightningEnvironment, world_size: int) -> None:
    """Start the other processes of this machine.

    Args:
        count: how many.
        environment: where they meet.
        world_size: of all machines together.

    Raises:
        SettingError: there is no command that could be run again.
    """
    command = _same_command()
    variables = os.environ | {
        "MASTER_ADDR": environment.main_address,
        "MASTER_PORT": str(environment.main_port),
        "NODE_RANK": str(environment.node_rank()),
        "WORLD_SIZE": str(world_size),
        MARK: "1",
    }
    _started.extend(
        subprocess.Popen(
            command,
            env=variables | {"LOCAL_RANK": str(local)},
            stdin=subprocess.PIPE,
            # Ctrl-C goes to the first one alone, which tells the others.
            start_new_session=True,
        )
        for local in range(1, count + 1)
    )
    atexit.register(_end)


@contextmanager
def waiting() -> Iterator[None]:
    """What is done in here may have to wait for another process."""
    global _waiting
    before, _waiting = _waiting, True
    try:
        yield
    finally:
        _waiting = before


def watch() -> None:
    """From now on end this process where it would wait forever for one that is gone."""
    parent = threading.Event()
    if os.environ.pop(MARK, None):
        _in_background(lambda: _outlive_parent(parent))
    elif not _started:
        return

    def look() -> None:
        waited = 0.0
        while waited < SECONDS_TO_END:
            time.sleep(0.5)
            alone = parent.is_set() or who_died() is not None
            waited = waited + 0.5 if alone and _waiting else 0.0
        died = who_died() or "the first process of this machine died"
        os.write(2, f"Error: {died}, and without it this one cannot go on.\n".encode())
        os._exit(1)

    _in_background(look)


def _outlive_parent(parent: threading.Event) -> None:
    # A pipe that nothing is ever written to: reading it ends when the other side dies. Not through
    # sys.stdin, whose lock would be held when Python ends.
    os.read(0, 1)
    parent.set()


def _in_background(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def who_died(seconds: float = 0.0) -> str | None:
    """Which process of this machine ended badly, and how, for the beginning of a sentence.

    Args:
        seconds: to wait until one has.
    """
    until = time.monotonic() + seconds
    while True:
        for number, process in enumerate(_started, start=1):
            status = process.poll()
            if status:
                how = f"killed by {_name(-status)}" if status < 0 else f"exit status {status}"
                return f"process {number} of {len(_started) + 1} on this machine died ({how})"
        if time.monotonic() >= until:
            return None
        time.sleep(0.05)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end() -> None:
    """Let the others end, which this process has told to, or which notice that it is gone."""
    until = time.monotonic() + SECONDS_TO_END
    for process in _started:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()


def _same_command() -> list[str]:
    """How this process was started."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return [sys.executable, "-m", main.__spec__.name, *sys.argv[1:]]
    if Path(sys.argv[0]).stem == "geotranslate":  # on Windows no script, but a program
        return [sys.executable, "-m", "geotranslate", *sys.argv[1:]]
    if not Path(sys.argv[0]).is_file():
        raise SettingError(
            "more than one process can learn together from the command line and from scripts only, "
            "because each runs the same command: here there is none. Say `geotranslate train "
            "--devices ...`, or learn on one device."
        )
    return [sys.executable, str(Path(sys.argv[0]).resolve()), *sys.argv[1:]]

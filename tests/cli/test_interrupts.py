"""Ctrl-C and SIGTERM while a library is busy, which Python itself would not hear."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from geotranslate.cli.interrupts import answered_interrupts
from geotranslate.cli.main import run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has other signals")

# A command that a library keeps busy for minutes, or for as long as it takes to be interrupted.
BUSY = """
import hashlib, sys, threading, time
import click
from geotranslate.cli import interrupts, tile
from geotranslate.cli.main import run
from geotranslate.translation.held_interrupts import held_interrupts

grace, work = float(sys.argv[1]), sys.argv[2]

@click.command()
def busy():
    threading.Timer(0.2, print, ["there"], {"flush": True}).start()
    if work == "deaf":
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
    try:
        if work == "updates":
            with held_interrupts():
                end = time.monotonic() + 2
                while time.monotonic() < end:
                    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000)
                print("updated", flush=True)
        time.sleep(600)
    finally:
        print("tidying", flush=True)
        if work == "tidies long":
            time.sleep(0.5)
        print("tidied", flush=True)
        if work == "fails":
            raise ValueError("was interrupted")

interrupts.GRACE_SECONDS = grace
tile.tile = busy
run(["tile"])
"""


class Busy:
    """A command that is busy, as a process of its own."""

    def __init__(self, folder, grace, work):
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        with self._stdout.open("w") as stdout, self._stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", BUSY, str(grace), work],
                stdout=stdout,
                stderr=stderr,
                # A shell's background jobs ignore Ctrl-C, and so would what they start.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        wait_for(lambda: self.printed == "there\n")

    @property
    def printed(self):
        return self._stdout.read_text()

    @property
    def said(self):
        return self._stderr.read_text()

    def interrupt(self, number=signal.SIGINT):
        """Press Ctrl-C or do what a scheduler does, and wait for the answer."""
        self.process.send_signal(number)
        wait_for(lambda: "Ctrl-C then leaves at once, " in self.said)

    def end(self, within=5):
        """Exit status and the last words."""
        status = self.process.wait(timeout=within)
        return status, self.said.splitlines()[-1]


def wait_for(condition, *, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path):
    started = []

    def start(grace, work):
        started.append(Busy(tmp_path, grace, work))
        return started[-1]

    yield start
    for busy in started:
        busy.process.kill()
        busy.process.wait()


LAST_WORDS = "Stopped. Run the same command again to go on from here."
STOPPED = 130, LAST_WORDS
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.parametrize(("number", "status"), SIGNALS.items())
def test_what_can_end_tidily_does(start, number, status):
    busy = start(60, "hears")
    busy.interrupt(number)
    assert busy.end() == (status, LAST_WORDS)
    assert busy.printed == "there\ntidying\ntidied\n"


def test_a_second_sigterm_does_not_fall_into_the_tidying(start):
    busy = start(60, "tidies long")
    busy.interrupt(signal.SIGTERM)
    wait_for(lambda: "tidying" in busy.printed)
    busy.process.send_signal(signal.SIGTERM)
    assert busy.end() == (143, LAST_WORDS)
    assert busy.printed == "there\ntidying\ntidied\n"


def test_what_fails_because_it_was_interrupted_is_no_fault(start):
    busy = start(60, "fails")
    busy.interrupt()
    assert busy.end() == STOPPED


@pytest.mark.parametrize(("number", "status"), SIGNALS.items())
def test_a_library_that_is_busy_is_waited_for_no_longer_than_said(start, number, status):
    busy = start(1, "deaf")
    asked = time.monotonic()
    busy.interrupt(number)
    assert "in 1 s at most" in busy.said
    assert time.monotonic() - asked < 1
    assert busy.process.poll() is None
    assert busy.end() == (status, LAST_WORDS)
    assert busy.printed == "there\n"


def test_what_must_not_be_left_half_done_is_waited_for_longer(start):
    busy = start(0.5, "updates")
    busy.interrupt()
    assert "the update under way ends first, however long it takes." in busy.said
    assert busy.end(within=20) == STOPPED
    assert busy.printed == "there\nupdated\ntidying\ntidied\n"


def test_a_second_time_it_leaves_at_once(start):
    busy = start(60, "deaf")
    busy.interrupt()
    busy.process.send_signal(signal.SIGINT)
    assert busy.end() == STOPPED


def test_afterwards_all_is_as_it_was():
    threads, before = threading.active_count(), signal.set_wakeup_fd(-1)
    with answered_interrupts() as asked:
        assert asked.signal is None
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(before) == -1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_in_another_thread_a_command_works_too(capsys):
    thread = threading.Thread(target=run, args=[["--version"]])
    thread.start()
    thread.join()
    assert "geotranslate" in capsys.readouterr().out

"""Ctrl-C while a library is busy, which Python itself would not hear."""

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

grace, work = float(sys.argv[1]), sys.argv[2]

@click.command()
def busy():
    threading.Timer(0.2, print, ["there"], {"flush": True}).start()
    if work == "deaf":
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
    try:
        time.sleep(600)
    finally:
        print("tidied", flush=True)
        if work == "fails":
            raise ValueError("was interrupted")

interrupts.GRACE_SECONDS = grace
tile.tile = busy
run(["tile"])
"""


@pytest.fixture
def start():
    processes = []

    def start(grace, work):
        process = subprocess.Popen(
            [sys.executable, "-c", BUSY, str(grace), work],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs ignore Ctrl-C, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        processes.append(process)
        assert process.stdout.readline() == "there\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def interrupt(process):
    """Press Ctrl-C; gives how long the answer took."""
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    answer = process.stderr.readline().strip() or process.stderr.readline()
    assert answer.startswith("Stopping: what is begun ends first, in 10 s")
    return time.monotonic() - asked


def test_what_can_end_tidily_does(start):
    process = start(60, "hears")
    assert interrupt(process) < 1
    out, said = process.communicate(timeout=5)
    assert process.returncode == 130
    assert out == "tidied\n"
    assert said.lstrip("\n") == "Stopped. Run the same command again to go on from here.\n"


def test_what_fails_because_it_was_interrupted_is_no_fault(start):
    process = start(60, "fails")
    interrupt(process)
    _, said = process.communicate(timeout=5)
    assert process.returncode == 130
    assert said.lstrip("\n") == "Stopped. Run the same command again to go on from here.\n"


def test_a_library_that_is_busy_is_waited_for_no_longer_than_said(start):
    process = start(0.5, "deaf")
    assert interrupt(process) < 1
    _, said = process.communicate(timeout=5)
    assert process.returncode == 130
    assert said == "Stopped. Run the same command again to go on from here.\n"


def test_a_second_time_it_leaves_at_once(start):
    process = start(60, "deaf")
    interrupt(process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=5)
    assert process.returncode == 130
    assert said == "Stopped. Run the same command again to go on from here.\n"


def test_afterwards_all_is_as_it_was():
    threads, before = threading.active_count(), signal.set_wakeup_fd(-1)
    with answered_interrupts() as asked:
        assert not asked.is_set()
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(before) == -1


def test_in_another_thread_a_command_works_too(capsys):
    thread = threading.Thread(target=run, args=[["--version"]])
    thread.start()
    thread.join()
    assert "geotranslate" in capsys.readouterr().out

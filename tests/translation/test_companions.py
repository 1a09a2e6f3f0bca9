"""Processes of one machine that outlive each other, or do not."""

import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import os, sys, time
from geotranslate.translation import companions

companions.SECONDS_TO_END = 0.5
if "LOCAL_RANK" not in os.environ:
    companions.start(1, companions.StartedHere(), 2)
    print(companions._started[0].pid, flush=True)
companions.watch()
if os.environ.get("LOCAL_RANK") == sys.argv[1]:
    sys.exit(3)
with companions.waiting():  # in a library that never comes back
    time.sleep(100)
"""


@pytest.fixture
def start(tmp_path):
    """Starts two processes, of which that of the rank given ends; gives both."""
    running = []

    def two(ending):
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        words = [sys.executable, str(program), ending]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        first = subprocess.Popen(words, **pipes)
        running.append(first)
        return first, int(first.stdout.readline())

    yield two
    for process in running:
        process.kill()
        process.communicate()


def ends(pid, seconds=60):
    """Whether a process that is no child of ours ends in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_who_waits_for_a_companion_that_died_ends_and_says_so(start):
    first, _ = start("1")
    _, said = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "process 1 of 2 on this machine died (exit status 3)" in said


def test_a_companion_ends_after_the_process_that_started_it_is_killed(start):
    first, companion = start("none")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert ends(companion)

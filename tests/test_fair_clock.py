from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.fair_clock import FairClock

BUSY = "print(flush=True)\nwhile True: pass"


def test_it_counts_sleep():
    clock = FairClock()
    time.sleep(0.2)
    assert clock.read() > 0.15


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be bound")
def test_it_stands_still_while_another_process_has_the_processor():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # what is started inherits it
    try:
        with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as other:
            other.stdout.readline()
            clock, start, worked = FairClock(), time.monotonic(), time.process_time()
            while time.process_time() - worked < 0.2:
                pass
            seconds, read = time.monotonic() - start, clock.read()
            other.kill()
    finally:
        os.sched_setaffinity(0, before)
    assert read < 0.2 + (seconds - 0.2) / 2

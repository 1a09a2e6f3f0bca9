import os
import subprocess
import sys

import pytest

from geotranslate.cli import progress as module
from geotranslate.cli.progress import pace, progress


def test_the_pace_is_said_by_the_second_or_by_the_piece():
    assert pace(3.24, "update") == "3.24 updates a second"
    assert pace(0.125, "update") == "8.0 s an update"
    assert pace(1 / 90, "row") == "1 min 30 s a row"
    assert pace(None, "update") == pace(3.0, "") == ""


def test_plain_lines_tell_pace_and_time_left(capsys, monkeypatch):
    clock = iter([0.0, 0.0, 20.0, 40.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("Training", 100, unit="update") as bar:
        bar.update(41)  # a run that goes on after update 40
        bar.update(61, "d 0.5")
        bar.update(100)
    assert capsys.readouterr().err.splitlines() == [
        "Training: 61 of 100, 1 update a second, 39.0 s left  d 0.5",
        "Training: 100 of 100, 1.48 updates a second",
    ]


def test_without_a_unit_there_is_no_pace(capsys, monkeypatch):
    clock = iter([0.0, 0.0, 20.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("Cutting", 4) as bar:
        bar.update(1)
        bar.update(2, "2 kept")
    assert capsys.readouterr().err == "Cutting: 2 of 4  2 kept\n"


def test_the_end_is_said_once_though_steps_come_after_all_is_counted(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 3.0, 14.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("Translating", 4) as bar:
        bar.update(3, "a.tif")
        bar.update(4, "joining a.tif")
        bar.update(4, "a.tif")
        bar.update(4, "checked a.tif")
    assert capsys.readouterr().err.splitlines() == [
        "Translating: 4 of 4  joining a.tif",
        "Translating: 4 of 4  checked a.tif",
    ]


def test_quiet_is_quiet(capsys):
    with progress("Training", 2, unit="update", quiet=True) as bar:
        bar.update(2, "d 0.5")
    assert capsys.readouterr().err == ""


ON_A_TERMINAL = """
import logging, time
from geotranslate.cli.main import _Echo
from geotranslate.cli.progress import progress, say
logging.basicConfig(handlers=[_Echo()])
with progress("Training", 40, unit="update") as bar:
    for update in range(21, 41):
        bar.update(update, "d 0.125  l1 0.5")
        if update == 30:
            logging.warning("guard: all alike")
            say("An update takes 20 ms.")
        time.sleep(0.02)
"""


def test_a_terminal_shows_pace_time_left_and_losses_and_a_warning_tears_nothing():
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", ON_A_TERMINAL]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert "40/40" in text
    assert "updates a second" in text
    assert "0:00:00" in text
    assert "d 0.125  l1 0.5" in text
    for said in ("WARNING:root:guard: all alike", "An update takes 20 ms."):
        before, _, after = text.partition(said)
        assert before.endswith("\x1b[2K"), "the bar was taken away before"
        assert after.startswith("\r\n")

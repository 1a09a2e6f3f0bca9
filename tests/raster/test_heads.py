from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from geotranslate.errors import BandError, RasterError
from geotranslate.raster import heads
from geotranslate.raster.heads import read_heads
from geotranslate.raster.scene import open_scene
from tests.conftest import NORTH_UP


@pytest.fixture
def files(make_raster):
    """Rasters in two zones, some with nodata, some with a mask."""
    pixels = np.ones((2, 8, 9), np.uint8)
    words = [{}, {"nodata": 0}, {"crs": "EPSG:32634"}, {"valid": np.eye(8, 9) > 0}]
    return [
        str(
            make_raster(
                f"{number}.tif",
                pixels,
                transform=NORTH_UP @ NORTH_UP.translation(9 * number, 0),
                **words[number % len(words)],
            )
        )
        for number in range(24)
    ]


@pytest.fixture
def many(monkeypatch):
    """Few are many, in batches of two, and each processor has a process of its own."""
    monkeypatch.setattr(heads, "MANY", 4)
    monkeypatch.setattr(heads, "BATCH", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)


@pytest.fixture
def answers(monkeypatch, many):
    """How many heads came from another process."""
    came = []
    load = heads.pickle.load

    def load_and_count(file):
        answer = load(file)
        came.extend(head.path for head in answer)
        return answer

    monkeypatch.setattr(heads.pickle, "load", load_and_count)
    return came


def slow_here(monkeypatch):
    """What this process looks at itself takes it so long that others do the rest."""
    read_head = heads._read_head

    def read_slowly(*words):
        time.sleep(0.2)
        return read_head(*words)

    monkeypatch.setattr(heads, "_read_head", read_slowly)


def test_other_processes_say_the_same(files, answers, monkeypatch):
    here = [read_heads([path])[0] for path in files]
    slow_here(monkeypatch)
    assert read_heads(files) == here
    assert len(answers) > 8
    for head in here:
        with open_scene(head.path) as scene:
            assert (head.grid, head.nodata) == (scene.grid, scene.nodata)
            assert (head.validity, head.identity) == (scene.validity, scene.identity())


def test_bands_are_asked_for_everywhere(files, many, monkeypatch):
    slow_here(monkeypatch)
    assert {tuple(head.identity["bands"]) for head in read_heads(files, (2,))} == {(2,)}


@pytest.mark.parametrize("odd", [3, 23])
def test_what_cannot_be_read_is_named_whoever_looks(files, make_raster, many, monkeypatch, odd):
    slow_here(monkeypatch)
    Path(files[odd]).write_bytes(b"no raster")
    with pytest.raises(RasterError, match=rf"/{odd}\.tif cannot be opened"):
        read_heads(files)
    make_raster(f"{odd}.tif", np.ones((3, 8, 9), np.uint8))
    with pytest.raises(BandError, match=rf"/{odd}\.tif has other bands"):
        read_heads(files)


def test_processes_that_end_early_are_done_without(files, many, monkeypatch):
    here = [read_heads([path])[0] for path in files]
    started = []
    popen = subprocess.Popen

    def dying(*words, **more):
        process = popen(*words, **more)
        started.append(process)
        process.kill()
        return process

    monkeypatch.setattr(subprocess, "Popen", dying)
    assert read_heads(files) == here
    assert len(started) == 2


def test_a_program_that_is_not_python_is_not_started(files, many, monkeypatch):
    monkeypatch.setattr(sys, "executable", "C:/ArcGIS/Pro/bin/ArcGISPro.exe")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it was started"))
    assert [head.path for head in read_heads(files)] == files


@pytest.mark.skipif(os.name != "posix", reason="Windows has other signals")
def test_who_answers_ends_with_who_asks_and_not_by_ctrl_c(files):
    command = [sys.executable, "-c", "import geotranslate.raster.heads as heads; heads.answer()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for batch in (files[:2], [files[2], "missing.tif"]):
            heads.pickle.dump((files[0], None, batch), process.stdin)
            process.stdin.flush()
            answer = heads.pickle.load(process.stdout)
            assert answer == [read_heads([path])[0] for path in batch if path in files]
            process.send_signal(signal.SIGINT)
        process.stdin.close()
        assert process.wait(60) == 0

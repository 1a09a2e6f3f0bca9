from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from functools import partial
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
def answered(monkeypatch, many):
    """Paths whose heads came from another process; before, this one gets nowhere."""
    came, first_came = [], threading.Event()
    ask, read_head = heads._ask, heads._read_head

    def ask_and_note(*words):
        answer = ask(*words)
        came.extend(head.path for head in answer)
        first_came.set()
        return answer

    def read_when_asked_others(*words):
        assert first_came.wait(60)
        return read_head(*words)

    monkeypatch.setattr(heads, "_ask", ask_and_note)
    monkeypatch.setattr(heads, "_read_head", read_when_asked_others)
    return came


@pytest.fixture
def here(files):
    """The heads as this process reads them, one by one."""
    return [read_heads([path])[0] for path in files]


def test_other_processes_say_the_same(here, files, answered):
    assert read_heads(files) == here
    assert answered
    for head in here:
        with open_scene(head.path) as scene:
            assert (head.grid, head.nodata) == (scene.grid, scene.nodata)
            assert (head.validity, head.identity) == (scene.validity, scene.identity())


def test_bands_are_asked_for_everywhere(files, answered):
    assert {tuple(head.identity["bands"]) for head in read_heads(files, (2,))} == {(2,)}
    assert answered


@pytest.mark.parametrize("odd", [3, 23])
def test_what_cannot_be_read_is_named_whoever_looks(files, make_raster, answered, odd):
    Path(files[odd]).write_bytes(b"no raster")
    with pytest.raises(RasterError, match=rf"/{odd}\.tif cannot be opened"):
        read_heads(files)
    make_raster(f"{odd}.tif", np.ones((3, 8, 9), np.uint8))
    with pytest.raises(BandError, match=rf"/{odd}\.tif has other bands"):
        read_heads(files)
    assert answered


def ended(popen, *words, **more):
    process = popen(*words, **more)
    process.kill()
    process.wait()
    return process


def missing(*_, **__):
    raise FileNotFoundError("python")


@pytest.mark.parametrize("how", [partial(ended, subprocess.Popen), missing])
def test_processes_that_end_early_are_done_without(here, files, many, monkeypatch, how):
    tried = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: tried.append(1) or how(*a, **k))
    assert read_heads(files) == here
    assert len(tried) == 2


def test_what_a_process_prints_before_it_answers_is_no_answer(
    here, files, many, monkeypatch, tmp_path
):
    (tmp_path / "sitecustomize.py").write_text("print('BBBBBBBBBBBBBBB', flush=True)")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert read_heads(files) == here


def test_a_program_that_is_not_python_is_not_started(files, many, monkeypatch):
    monkeypatch.setattr(sys, "executable", "C:/ArcGIS/Pro/bin/ArcGISPro.exe")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it was started"))
    assert [head.path for head in read_heads(files)] == files


@pytest.mark.skipif(os.name != "posix", reason="Windows has other signals")
def test_who_answers_ends_with_who_asks_and_not_by_ctrl_c(files):
    with heads._another_process() as process:
        for batch in (files[:2], [files[2], "missing.tif"]):
            answer = heads._ask(process, (files[0], None, batch))
            assert answer == [read_heads([path])[0] for path in batch if path in files]
            process.send_signal(signal.SIGINT)
        process.stdin.close()
        assert process.wait(60) == 0

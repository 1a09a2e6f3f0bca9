from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest
import torch

from geotranslate.chips.file import read_chip
from geotranslate.chips.folder import open_chips
from geotranslate.translation import cache as module
from geotranslate.translation.cache import (
    UNLIMITED,
    ChipCache,
    _free_in_groups,
    chip_bytes,
    free_memory,
)
from geotranslate.translation.data import TrainingBatches, load_batches
from geotranslate.translation.plan import GPU_WORKERS, plan_training
from tests.translation.runs import FOLDERS, config


def same_chip(one, other):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


def test_a_chip_is_read_from_its_file_once(make_raster):
    pixels = np.arange(2 * 8 * 8, dtype="uint16").reshape(2, 8, 8)
    valid = np.ones((8, 8), bool)
    valid[:3] = False
    whole, partly = make_raster("whole.tif", pixels), make_raster("partly.tif", pixels, valid=valid)
    expected = {path: read_chip(path) for path in (whole, partly)}
    cache = ChipCache(10**6)
    for path, chip in expected.items():
        assert same_chip(cache.read(path), chip)
        path.unlink()
        assert same_chip(cache.read(path), chip)
    # As they are stored, with a mask only where one is needed.
    assert cache.used == 2 * pixels.nbytes + valid.nbytes


def test_no_more_is_kept_than_may_be(make_raster):
    paths = [make_raster(f"{n}.tif", np.full((1, 8, 8), n, "uint8")) for n in range(5)]
    cache = ChipCache(3 * 64)
    for _ in range(2):
        assert [int(cache.read(path).pixels[0, 0, 0]) for path in paths] == [0, 1, 2, 3, 4]
    assert cache.used == 3 * 64


def test_a_chip_that_two_threads_read_is_counted_once(make_raster, monkeypatch):
    path = make_raster("0.tif", np.ones((1, 8, 8), "uint8"))
    both_read = Barrier(2)

    def read_together(path):
        both_read.wait(timeout=60)
        return read_chip(path)

    monkeypatch.setattr(module, "read_chip", read_together)
    cache = ChipCache(10**6)
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(cache.read, [path, path])
    assert same_chip(one, other)
    assert cache.used == 64


def test_all_chips_fit_into_the_bytes_that_are_said_even_where_pixels_are_missing(make_raster):
    valid = np.ones((8, 8), bool)
    valid[0, 0] = False
    for name in FOLDERS["pairs"]:
        for number in range(3):
            pixels = np.full((2, 8, 8), number, "uint16")
            path = make_raster(f"chips/{name}/{number}.tif", pixels, valid=valid, col=50 * number)
    folder = open_chips(path.parents[1])
    kept = ChipCache(10**6)
    files = [file for name in "ab" for file in folder.files(name, "train")]
    for file in files:
        kept.read(file)
    assert files
    assert kept.used == chip_bytes(folder) == len(files) * 64 * (2 * 2 + 1)


def test_batches_are_the_same_whether_kept_or_not(make_chips):
    folder = open_chips(make_chips())
    words = {"paired": True, "crop": 16, "batch": 3, "seed": 1}
    plain, kept = TrainingBatches(folder, **words), ChipCache(10**6)
    cached = TrainingBatches(folder, **words, cache=kept)
    updates = range(1, 9)
    for update, batch in zip(
        updates, load_batches(cached, updates, workers=0, pin=False), strict=True
    ):
        for one, other in zip(batch, plain[update], strict=True):
            assert torch.equal(one.pixels, other.pixels)
            assert (one.valid, one.turns) == (other.valid, other.turns)
    assert kept.used == len(folder.files("a", "train")) * 36**2 * (2 * 4 + 3)


def test_workers_read_only_what_does_not_fit_into_memory(make_chips):
    plan = plan_training(make_chips(), config())
    needed = chip_bytes(plan.folder)
    on_gpu = replace(plan, device=torch.device("cuda", 0))
    assert replace(on_gpu, cache_bytes=needed).workers == 0
    assert replace(on_gpu, cache_bytes=needed - 1).workers == GPU_WORKERS
    assert replace(plan, cache_bytes=0).workers == 0
    assert "all" in replace(plan, cache_bytes=needed).reading
    assert "50%" in replace(plan, cache_bytes=needed // 2).reading
    assert plan_training(plan.folder.path, config(cache_gb=1.5)).cache_bytes == 1.5e9


LIMIT_AND_USED = {
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}


@pytest.fixture
def make_system(tmp_path):
    """Writes what Linux tells of a process's groups: its line, and (limit, used) by path."""

    def make(line, groups, *, controller=""):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(f"9:cpu,cpuacct:/elsewhere\n{line}\n")
        for path, figures in groups.items():
            folder = tmp_path / "sys/fs/cgroup" / controller / path
            folder.mkdir(parents=True, exist_ok=True)
            for name, figure in zip(LIMIT_AND_USED[controller], figures, strict=True):
                (folder / name).write_text(f"{figure}\n")
        return tmp_path

    return make


JOB = "system.slice/slurmstepd.scope/job_7"


@pytest.mark.parametrize(
    ("groups", "free"),
    [
        ({JOB: (5000, 2000), f"{JOB}/step_0/task_0": ("max", 2000)}, 3000),
        ({JOB: (5000, 2000), f"{JOB}/step_0/task_0": (2500, 1900)}, 600),
        ({"system.slice": (10**6, 10**6 - 50), JOB: (5000, 2000)}, 50),
        ({JOB: (5000, 5001)}, 0),
        ({f"{JOB}/step_1": (10, 10), "system.slice/else": (10, 10), JOB: (5000, 1)}, 4999),
        ({"": (7000, 2000)}, 5000),  # a container that sees its own group alone
        ({"": ("max", 2000), JOB: ("max", 2000)}, UNLIMITED),
        ({}, UNLIMITED),
    ],
)
def test_the_least_that_groups_have_left_counts(make_system, groups, free):
    assert _free_in_groups(make_system(f"0::/{JOB}/step_0/task_0", groups)) == free


def test_groups_of_version_1_count(make_system):
    groups = {"": (2**63 - 4096, 9000), "slurm/job_7": (5000, 2000), "slurm/job_8": (1, 1)}
    system = make_system("4:memory:/slurm/job_7/step_0", groups, controller="memory")
    assert _free_in_groups(system) == 3000


def test_this_machine_has_free_memory_within_its_groups(tmp_path):
    assert 0 < free_memory() <= _free_in_groups()
    assert _free_in_groups(tmp_path) == UNLIMITED

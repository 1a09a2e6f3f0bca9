from dataclasses import replace

import numpy as np
import torch

from geotranslate.chips.file import read_chip
from geotranslate.chips.folder import open_chips
from geotranslate.translation.cache import ChipCache, _free_in_container, chip_bytes, free_memory
from geotranslate.translation.data import TrainingBatches, load_batches
from geotranslate.translation.plan import GPU_WORKERS, plan_training
from tests.translation.runs import config


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
    assert kept.used == chip_bytes(folder)


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


def test_a_containers_limit_counts(tmp_path):
    assert 0 < free_memory() <= _free_in_container()
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert _free_in_container(tmp_path) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert _free_in_container(tmp_path) > 10**18

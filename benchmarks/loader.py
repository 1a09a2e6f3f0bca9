"""How many chips a second the loader gives, beside how many a step uses.

    python benchmarks/loader.py [--size 256] [--chips 200] [--workers 0 1 2] [--device auto]

Made-up pairs of chips, 3 bands of uint8, deflated as `tile` writes them; batches of 4 as
pix2pix's default has them, cropped, brought to the device, normalized and turned there. The loader
runs alone:

* cached: chips are in memory, which a run reaches after its first epoch
* N workers: each chip from its file each time, by N processes; 0 is a thread of this one

The step is that of a pix2pix of ResNet-9, width 64, which is the quickest of the defaults. Aim: the
loader alone gives at least 3 times what the step uses.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from made_chips import make_chips

from geotranslate.translation.cache import chip_bytes
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.data import (
    AHEAD,
    Preparation,
    StoredBatch,
    load_batches,
    training_batches,
)
from geotranslate.translation.learner import Learner
from geotranslate.translation.plan import Plan, plan_training

STEPS = 3
AIM = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--chips", type=int, default=200)
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="auto")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chips = make_chips(Path(folder), side=words.size, count=words.chips)
        config = TrainConfig(crop=words.size, device=words.device, compile="off")
        plan = plan_training(chips, config)
        used = rate_of_step(plan)
        print(f"A step uses {used:.2f} pairs/s ({plan.device}, {plan.arithmetic}).\n")
        print(f"| loader alone, pairs of {words.size} px | pairs/s | times what the step uses |")
        print("|---|---|---|")
        memory = replace(plan, cache_bytes=2 * chip_bytes(plan.folder))
        report("cached", cached_rate(memory), used)
        for workers in words.workers:
            setting = plan.config.model_copy(update={"workers": workers})
            from_files = replace(plan, config=setting, cache_bytes=0)
            report(f"{workers} workers", rate_of_loader(from_files), used)


def report(name: str, rate: float, used: float) -> None:
    print(f"| {name} | {rate:.0f} | {rate / used:.0f} |", flush=True)
    if rate < AIM * used:
        print(f"| | | less than the aim of {AIM} |")


def rate_of_step(plan: Plan) -> float:
    """Pairs a second that an update learns from."""
    learner, prepare, batches = Learner(plan), prepared_by(plan), training_batches(plan)
    batch = prepare(batches[1])
    learner.learn(batch)
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        losses = learner.learn(batch)
        sum(float(loss) for loss in losses.values())
        times.append(time.perf_counter() - start)
    return plan.config.batch / median(times)


def cached_rate(plan: Plan) -> float:
    """Pairs a second once all chips are in memory."""
    prepare, batches = prepared_by(plan), training_batches(plan)
    epoch = -(-len(plan.folder.files("a", "train")) // plan.config.batch)
    loaded = load_batches(batches, range(1, 3 * epoch + 1), workers=0, pin=False)
    with closing(loaded):
        for stored in islice(loaded, epoch + AHEAD):
            prepare(stored)
        return rate_of(loaded, prepare, plan)


def rate_of_loader(plan: Plan) -> float:
    """Pairs a second that come from files."""
    prepare, batches = prepared_by(plan), training_batches(plan)
    epoch = -(-len(plan.folder.files("a", "train")) // plan.config.batch)
    workers = plan.workers
    loaded = load_batches(batches, range(1, 3 * epoch + 1), workers=workers, pin=False)
    with closing(loaded):
        # What was read ahead while the processes started is not the loader's pace.
        for stored in islice(loaded, AHEAD * max(workers, 1) + 1):
            prepare(stored)
        return rate_of(loaded, prepare, plan)


def rate_of(loaded: Iterator[StoredBatch], prepare: Preparation, plan: Plan) -> float:
    """Pairs a second of the batches that are left."""
    count, start = 0, time.perf_counter()
    for stored in loaded:
        prepare(stored)
        count += 1
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return count * plan.config.batch / (time.perf_counter() - start)


def prepared_by(plan: Plan) -> Preparation:
    return Preparation(plan.folder.domain_a, plan.folder.domain_b, plan.device)


if __name__ == "__main__":
    main()

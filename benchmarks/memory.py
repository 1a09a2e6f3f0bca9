"""What --accumulate and --save-memory save in memory, and what they cost in time.

    python benchmarks/memory.py [--model pix2pix] [--size 256] [--batch 4] [--width 32]

Each setting does two updates in a process of its own. It prints, in Markdown, the peak of memory
less what the process held before its first update, and the seconds of the second update.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from made_chips import make_chips

from geotranslate.translation.config import TrainConfig
from geotranslate.translation.data import Preparation, training_batches
from geotranslate.translation.learner import Learner
from geotranslate.translation.memory import kept_memory, peak_memory
from geotranslate.translation.plan import plan_training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pix2pix")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        print(json.dumps(measure(TrainConfig(**json.loads(words.one)))))
        return
    base = {"model": words.model, "crop": words.size, "batch": words.batch, "width": words.width}
    base |= {"compile": "off"}
    parts = {"accumulate": words.batch}
    print(f"{words.model}, {words.batch} crops of {words.size} px, width {words.width}\n")
    print("| | MB | of the first | seconds an update | of the first |")
    print("|---|---|---|---|---|")
    first = None
    for name, settings in (
        ("as it is", {}),
        (f"--accumulate {words.batch}", parts),
        ("--save-memory", {"save_memory": True}),
        ("both", parts | {"save_memory": True}),
    ):
        command = [sys.executable, __file__, "--one", json.dumps(base | settings)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        memory, seconds = json.loads(done.stdout.splitlines()[-1])
        first = first or (memory, seconds)
        print(
            f"| {name} | {memory / 1e6:.0f} | {memory / first[0]:.2f} | {seconds:.2f} | "
            f"{seconds / first[1]:.2f} |",
            flush=True,
        )


def measure(config: TrainConfig) -> tuple[int, float]:
    """Bytes at the peak beyond those before the first update, and seconds of the second one."""
    with tempfile.TemporaryDirectory() as folder:
        assert config.crop is not None
        plan = plan_training(make_chips(Path(folder), side=config.crop), config)
        prepare = Preparation(plan.folder.domain_a, plan.folder.domain_b, plan.device)
        batch = prepare(training_batches(plan)[1])
    learner = Learner(plan)
    on_gpu = plan.device.type == "cuda"
    before = torch.cuda.memory_allocated() if on_gpu else peak_memory()
    with kept_memory(plan.device):
        learner.learn(batch)
        start = time.perf_counter()
        losses = learner.learn(batch)
        sum(float(loss) for loss in losses.values())
        seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_memory()
    assert peak is not None
    assert before is not None
    return peak - before, seconds


if __name__ == "__main__":
    main()

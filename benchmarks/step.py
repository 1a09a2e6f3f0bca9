"""How long an update takes: our step beside the plain recipe (`plain.py`), the same mathematics.

    python benchmarks/step.py [--model pix2pix cyclegan] [--size 128 256] [--batch 1 8]
                              [--rounds 3] [--compile off on] [--norms papers|defaults]

ResNet-9 generators of width 64, discriminators of width 64, 3 bands on both sides; by default
crops of 128 px, one an update. Norms are those of the papers, instance norm everywhere, or those
that `geotranslate train` has by default: batch norm in the generator of Pix2Pix, spectral norm in
discriminators (with crops one by one, batch norm is instance norm). Each contender has a process of
its own, in which ours keeps memory between layers, as `train` does on a CPU. In each round all do
an update in turn, and the machine multiplies two matrices in our arithmetic, so that what else the
machine does meets all of them:

* plain: eager, float32, contiguous, torch's own norms, an own call for each image, plain Adam
* ours: the learner of `geotranslate train`, with its defaults but for norms and --compile
* ours, compiled: the same with --compile on; the seconds that compiling took stand beside it

It prints, in Markdown, medians of the rounds; ratios are medians of the rounds' own. The share of
the matrix rate counts the operations of our step's convolutions and products once, as
`torch.utils.flop_counter` does for the plain step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import plain
import torch
from made_chips import make_chips
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from geotranslate.translation.batch import Batch
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.data import Preparation, draw_for_pools, training_batches
from geotranslate.translation.learner import Learner
from geotranslate.translation.memory import kept_memory
from geotranslate.translation.plan import Plan, plan_training

WIDTH, BLOCKS = 64, 9
MATRIX = 2048
SEED = 0

COUNT = 0
"""In place of an update's number: count its operations."""

NORMS = {"papers": {"norm": "instance", "discriminator_norm": "instance"}, "defaults": {}}


class Contender:
    """What does updates, in a process of its own, as users have it; and how long they took."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name = name
        self.seconds: list[float] = []
        spawn = multiprocessing.get_context("spawn")
        self._line, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs, name, plan), daemon=True)
        self._process.start()
        theirs.close()
        self._line.recv()  # its chips are read
        self.first = self._ask(1)
        self._ask(2)

    def go(self, number: int) -> None:
        """Do an update that counts."""
        self.seconds.append(self._ask(number))

    def operations(self) -> float:
        """What an update multiplies and adds in convolutions and products."""
        return self._ask(COUNT)

    def _ask(self, what: int) -> float:
        self._line.send(what)
        answer: float = self._line.recv()
        return answer

    def end(self) -> None:
        self._line.close()
        self._process.join()


def serve(line: Connection, name: str, plan: Plan) -> None:
    """Do the updates whose numbers come, and send back how long each took."""
    batches = list(prepared(plan, 4))
    with nullcontext() if name == "plain" else kept_memory(plan.device):
        update = plain_step(plan, batches) if name == "plain" else our_step(plan, batches)
        line.send(0.0)
        while True:
            try:
                number = line.recv()
            except EOFError:
                return
            counter = FlopCounterMode(display=False) if number == COUNT else nullcontext()
            start = time.perf_counter()
            with counter:
                update(number)
            wait()
            seconds = time.perf_counter() - start
            line.send(counter.get_total_flops() if number == COUNT else seconds)


def main() -> None:
    words = arguments()
    print(f"{platform.platform(terse=True)}, torch {torch.__version__}, {torch.get_num_threads()}")
    print("threads. Times are medians of seconds.\n")
    print("| model | px | batch | | step | pairs/s | plain / it | of matrix rate | first update |")
    print("|---|---|---|---|---|---|---|---|---|")
    for model in words.model:
        for size in words.size:
            for batch in words.batch:
                compare(model, size, batch, words)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["pix2pix", "cyclegan"])
    parser.add_argument("--size", nargs="+", type=int, default=[128])
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", nargs="+", choices=("off", "on"), default=["off", "on"])
    parser.add_argument("--norms", choices=NORMS, default="papers")
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    return parser.parse_args()


def compare(model: str, size: int, batch: int, words: argparse.Namespace) -> None:
    """Print the lines of one model at one size."""
    with tempfile.TemporaryDirectory() as folder:
        chips = make_chips(Path(folder), side=size)
        settings = {"model": model, "batch": batch, "crop": size, "width": words.width}
        settings |= {"blocks": words.blocks} | NORMS[words.norms]
        settings |= {"judge": "image", "pool_l2": 0, "l1": 100} if model == "pix2pix" else {}
        plans = [
            plan_training(chips, TrainConfig(**settings, compile=each)) for each in words.compile
        ]
        contenders = [Contender("plain", plans[0])]
        contenders += [Contender(name_of(plan), plan) for plan in plans]
    operations = contenders[0].operations()
    rates = []
    for number in range(3, 3 + words.rounds):
        rates.append(matrix_rate(plans[0]))
        for contender in contenders:
            contender.go(number)
    for each in contenders:
        step = median(each.seconds)
        pairs = zip(contenders[0].seconds, each.seconds, strict=True)
        ratio = median(slow / quick for slow, quick in pairs)
        share = median(
            operations / seconds / rate for seconds, rate in zip(each.seconds, rates, strict=True)
        )
        print(
            f"| {model} | {size} | {batch} | {each.name} | {step:.2f} | {batch / step:.2f} | "
            f"{ratio:.2f} | {share:.2f} | {each.first:.1f} |",
            flush=True,
        )
    print(
        f"| | | | {plans[0].arithmetic} products of {MATRIX} x {MATRIX}: "
        f"{median(rates) / 1e9:.0f} GFLOP/s; {operations / 1e9:.0f} GFLOP a step | | | | | |"
    )
    for each in contenders:
        each.end()


def name_of(plan: Plan) -> str:
    return "ours, compiled" if plan.compiled else "ours"


def prepared(plan: Plan, count: int) -> Iterator[Batch]:
    prepare = Preparation(plan.folder.domain_a, plan.folder.domain_b, plan.device)
    batches = training_batches(plan)
    return (prepare(batches[update]) for update in range(1, count + 1))


def our_step(plan: Plan, batches: list[Batch]) -> Callable[[int], None]:
    learner = Learner(plan)

    def update(number: int) -> None:
        fetched(learner.learn(batches[number % len(batches)]))

    return update


def plain_step(plan: Plan, batches: list[Batch]) -> Callable[[int], None]:
    config = plan.config
    make = plain.Pix2Pix if config.model == "pix2pix" else plain.CycleGAN
    model = make(
        *(len(domain.bands) for domain in (plan.folder.domain_a, plan.folder.domain_b)),
        width=config.width,
        blocks=config.blocks,
        discriminator_width=config.discriminator_width,
        norm=config.norm,
        discriminator_norm=config.discriminator_norm,
    )
    for network in model.networks.values():
        network.to(plan.device)
    contiguous = [(each.real_a.contiguous(), each.real_b.contiguous()) for each in batches]

    def update(number: int) -> None:
        draws = draw_for_pools(SEED, number, config.batch, 4)
        model.step(*contiguous[number % len(contiguous)], draws=draws)

    return update


def fetched(losses: dict[str, Tensor]) -> list[float]:
    return [float(loss) for loss in losses.values()]


def matrix_rate(plan: Plan) -> float:
    """Operations a second of a large matrix product in our arithmetic."""
    dtype = torch.bfloat16 if plan.arithmetic == "bf16" else torch.float32
    one = torch.randn(MATRIX, MATRIX, device=plan.device, dtype=dtype)
    one @ one
    times = []
    for _ in range(3):
        wait()
        start = time.perf_counter()
        one @ one
        wait()
        times.append(time.perf_counter() - start)
    return 2 * MATRIX**3 / min(times)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

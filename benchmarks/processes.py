"""What processes that learn together exchange in an update, and how long that takes.

Nothing is computed but the exchanges themselves, of a model as it is by default: so the figures are
what each update takes more than its share of the computing, at most. Two processes on this machine
by gloo, over its loopback:

    python benchmarks/processes.py
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn

from geotranslate.networks import collective
from geotranslate.networks.build import (
    DiscriminatorSpec,
    GeneratorSpec,
    build_discriminator,
    build_generator,
)
from geotranslate.networks.norms import BatchNorm

BANDS_A, BANDS_B = 2, 3


def main() -> None:
    """Start the processes, of which the first one prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    words = parser.parse_args()
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
        compare(words.repeats)
        distributed.destroy_process_group()
        return
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(words.processes)}
    running = [
        subprocess.Popen([sys.executable, *sys.argv], env=os.environ | where | {"RANK": str(rank)})
        for rank in range(words.processes)
    ]
    for process in running:
        process.wait()


def compare(repeats: int) -> None:
    """Time each kind of exchange of a pix2pix and of a CycleGAN."""
    generator = build_generator(GeneratorSpec(norm="batch"), BANDS_A, BANDS_B)
    pair = build_discriminator(DiscriminatorSpec(), BANDS_A + BANDS_B)
    norms = [each for each in generator.modules() if isinstance(each, BatchNorm)]
    fakes = torch.zeros(2, BANDS_B, 256, 256)
    rows = [
        ("gradients of a generator", parameters(generator), lambda: exchange_gradients(generator)),
        ("the same by DistributedDataParallel", parameters(generator), in_pieces(generator)),
        ("gradients of a discriminator", parameters(pair), lambda: exchange_gradients(pair)),
        (
            f"statistics of {len(norms)} batch norms, there and back",
            sum(4 * len(norm.weight) for norm in norms),
            lambda: exchange_statistics(norms),
        ),
        ("2 translated images of 256 px for a pool", fakes.numel(), lambda: pool(fakes)),
        ("agreement before an update", 3, lambda: collective.gathered(torch.zeros(3))),
    ]
    first = distributed.get_rank() == 0
    if first:
        print("| exchanged | MB | ms, least | ms, median |\n|---|---|---|---|")
    for name, numbers, exchange in rows:
        times = [1000 * seconds for seconds in timed(exchange, repeats)]
        if first:
            least, median = min(times), statistics.median(times)
            print(f"| {name} | {4 * numbers / 1e6:.2f} | {least:.1f} | {median:.1f} |")


def parameters(network: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(each.numel() for each in network.parameters())


def exchange_gradients(network: nn.Module) -> None:
    """As after a backward pass."""
    for each in network.parameters():
        each.grad = torch.ones_like(each) if each.grad is None else each.grad
    collective.add_gradients(network.parameters())


class Trivial(nn.Module):
    """Has the parameters of a network, and computes next to nothing with them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            nn.Parameter(each.detach().clone()) for each in network.parameters()
        )

    def forward(self) -> Tensor:
        """The sum of all."""
        return torch.stack([each.sum() for each in self.weights]).sum()


def in_pieces(network: nn.Module) -> Callable[[], object]:
    """What exchanges the gradients of a network while they come; computing them is within."""
    wrapped = nn.parallel.DistributedDataParallel(Trivial(network))
    return lambda: wrapped().backward()


def exchange_statistics(norms: list[BatchNorm]) -> None:
    """As in a forward and a backward pass where all is valid."""
    for norm in norms:
        channels = len(norm.weight)
        collective.gathered(torch.zeros(1, 1 + 2 * channels))
    for norm in norms:
        collective.total(torch.zeros(2, 1, len(norm.weight)))


def pool(fakes: Tensor) -> None:
    """As before translated images are exchanged for earlier ones."""
    collective.whole_batch(fakes)


def timed(exchange: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each time, after one that does not count."""
    seconds = []
    with collective.exchanging():
        for _ in range(repeats + 1):
            distributed.barrier()
            began = time.perf_counter()
            exchange()
            seconds.append(time.perf_counter() - began)
    return seconds[1:]


if __name__ == "__main__":
    main()

"""What two processes do together, once for all tests of it: run as a program, this is one of them.

``python -m tests.translation.sharing FOLDER RANK PORT`` leaves what came of it in FOLDER.
"""

import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed

from geotranslate.errors import ChipsError, GeotranslateError
from geotranslate.networks import collective
from geotranslate.networks.build import DiscriminatorSpec, GeneratorSpec
from geotranslate.networks.norms import BatchRenorm
from geotranslate.translation import train as module
from geotranslate.translation.batch import Batch
from geotranslate.translation.checkpoint import load_checkpoint
from geotranslate.translation.crew import Crew
from geotranslate.translation.cyclegan import CycleGANConfig
from geotranslate.translation.data import TrainingBatches, draw_for_pools
from geotranslate.translation.models import build_model
from geotranslate.translation.pix2pix import Pix2Pix, Pix2PixConfig
from geotranslate.translation.processes import Processes
from geotranslate.translation.train import resume, train
from tests.translation.runs import config
from tests.translation.steps import smooth

BATCH, POOL = 4, 4


@dataclass(frozen=True)
class Case:
    """One update to compare.

    Attributes:
        masked: which halves of the batch have invalid pixels, the first image of it being wholly
            invalid where it is "both".
        parts: in which each process computes its share, one after the other. Batch norm has
            statistics and spectral norm a step of its own in each, so that with these more
            processes do another update.
    """

    model: str
    norm: str
    masked: str = "none"
    exact: bool = True
    discriminator_norm: str = "spectral"
    parts: int = 1


CASES = {
    "pix2pix": Case("pix2pix", "batch"),
    "pix2pix, partly valid": Case("pix2pix", "batch", "both"),
    "pix2pix, partly valid on one side": Case("pix2pix", "renorm", "first"),
    "pix2pix, renorm": Case("pix2pix", "renorm"),
    "pix2pix, float32": Case("pix2pix", "batch", "both", exact=False),
    "pix2pix, in parts": Case("pix2pix", "channel", "both", discriminator_norm="instance", parts=2),
    "cyclegan": Case("cyclegan", "batch"),
    "cyclegan, in parts": Case("cyclegan", "instance", discriminator_norm="instance", parts=2),
    "cyclegan, partly valid": Case("cyclegan", "instance", "both", discriminator_norm="instance"),
    "cyclegan, partly valid on one side": Case("cyclegan", "batch", "first"),
    "cyclegan, float32": Case("cyclegan", "channel", "both", exact=False),
}


@contextmanager
def in_float64():
    """Rounding is out of the way: what differs then, differs in mathematics.

    In float32 a difference in the last bit turns a gradient of L1 or ReLU around here and there.
    """
    kept = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.Tensor.float = kept
        torch.set_default_dtype(torch.float32)


def one_update(case, processes):
    """Losses, gradients and state after this process's part of one update."""
    if case.exact:
        with in_float64():
            return _one_update(case, processes)
    return _one_update(case, processes)


def _one_update(case, processes):
    losses = Pix2PixConfig() if case.model == "pix2pix" else CycleGANConfig(image_pool=POOL)
    generator = GeneratorSpec(width=8, blocks=2, norm=case.norm)
    discriminator = DiscriminatorSpec(width=8, norm=case.discriminator_norm)
    model = build_model(losses, generator, discriminator, bands_a=2, bands_b=3, seed=1)
    model.parts = case.parts
    for network in model.networks.values():
        network.to(memory_format=torch.channels_last)
    for norm in (each for net in model.networks.values() for each in net.modules()):
        if isinstance(norm, BatchRenorm):
            norm.tracked.fill_(600)  # the correction is under way
            norm.running_mean.fill_(0.1)
    gradients = {}
    for name, optimizer in model.optimizers.items():
        optimizer.register_step_pre_hook(lambda each, *_, name=name: keep(gradients, name, each))
    draws = draw_for_pools(0, 7, BATCH, 4)
    if case.model == "cyclegan":
        fill_pools(model)
    crew = Crew(processes)
    share, many = share_of(batch_of(case), processes), processes.count > 1
    with crew.together(share) as batch, collective.exchanging(many):
        values = model.step(batch, draws)
        sums = collective.total(torch.stack(list(values.values())))
    return {"losses": sums, "gradients": gradients, "state": model.state_dict()}


def keep(gradients, name, optimizer):
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    gradients[name] = [parameter.grad.clone() for parameter in parameters]


def fill_pools(model):
    random = torch.Generator().manual_seed(2)
    for side, bands in (("a", 2), ("b", 3)):
        model.pools[side].exchange(smooth(POOL, bands, random), None, [(0.9, 0.0)] * POOL)


def batch_of(case):
    random = torch.Generator().manual_seed(3)
    a, b = smooth(BATCH, 2, random), smooth(BATCH, 3, random)
    if case.masked == "none":
        return Batch(a, b)
    valid_a = torch.ones(BATCH, 1, 32, 32)
    valid_a[0, :, :20] = 0
    if case.masked == "both":
        valid_a[0] = 0
        valid_a[2, :, :, 3:5] = 0
    if case.model == "pix2pix":
        return Batch(a, b, valid_a, valid_a)
    valid_b = valid_a.flip(2)
    return Batch(a, b, valid_a, valid_b)


def share_of(batch, processes):
    """This process's samples, without masks where these say nothing."""
    samples = processes.share(BATCH)
    parts = [
        None if each is None else each[samples.start : samples.stop]
        for each in (batch.real_a, batch.real_b, batch.valid_a, batch.valid_b)
    ]
    return Batch(*parts[:2], *(None if v is None or v.all() else v for v in parts[2:]))


def two(**settings):
    """Settings of a run of two processes."""
    return config(devices=2, updates=6, checkpoint_every=3, **settings)


def outcome(steps):
    """What a run comes to, in words."""
    try:
        updates = [step.update for step in steps]
    except (KeyboardInterrupt, GeotranslateError) as error:
        return f"{type(error).__name__}: {error}"
    return f"done {updates}"


def failing(original, action, call):
    """The function, with something that happens at its n-th call."""
    calls = []

    def function(*args):
        calls.append(1)
        if len(calls) == call:
            action()
        return original(*args)

    return function


@contextmanager
def disturbed(owner, name, action, call, *, here):
    """Where it is to happen ``here``, something happens at the n-th call of a method."""
    original = getattr(owner, name)
    if here:
        setattr(owner, name, failing(original, action, call))
    try:
        yield
    finally:
        setattr(owner, name, original)


def miss_a_chip():
    raise ChipsError("a chip is missing")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt():
    signal.raise_signal(signal.SIGINT)


def work(folder, rank):
    """All that two processes do together; gives what this one saw."""
    module.STATISTICS_IMAGES = 8
    processes = Processes(per_machine=2, local=rank)
    seen = {"updates": {name: one_update(case, processes) for name, case in CASES.items()}}
    pairs, heaps = folder / "pairs", folder / "heaps"
    seen["pix2pix"] = outcome(train(pairs, folder / "pix2pix", two()))
    seen["again"] = outcome(train(pairs, folder / "pix2pix", two()))
    seen["other words"] = outcome(train(pairs, folder / "pix2pix", two(l1=1.0)))
    seen["cyclegan"] = outcome(train(heaps, folder / "cyclegan", two(model="cyclegan", batch=2)))

    half = resume(folder / "half", devices=2)
    for step in half:  # the second process has no steps of its own
        if step.update == 4:
            half.close()
            break

    for name, owner, method, action, call in (
        ("interrupted", Pix2Pix, "step", interrupt, 5),
        ("missing", TrainingBatches, "__getitem__", miss_a_chip, 5),
        ("killed", Pix2Pix, "step", die, 5),
    ):
        with disturbed(owner, method, action, call, here=rank == 1):
            began = time.monotonic()
            seen[name] = outcome(train(pairs, folder / name, two()))
            seen[f"{name}, seconds"] = time.monotonic() - began
        if rank == 0:
            state = load_checkpoint(folder / name)
            seen[f"{name}, kept"] = state["update"], state["recorded"]
        torch.save(seen, folder / f"seen-{rank}.pt")


def main(folder, rank, port):
    """Be one of two processes."""
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = rank
    where = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=where, rank=int(rank), world_size=2)
    work(Path(folder), int(rank))


if __name__ == "__main__":
    main(*sys.argv[1:])

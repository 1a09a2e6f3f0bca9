"""Processes that learn together: how many, which of them this is, and how they meet.

They are started by this library on one machine, or by torchrun or SLURM on any number of them.
Fabric knows how to find the others in each case.
"""

from __future__ import annotations

import atexit
import logging
import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import distributed

from geotranslate.errors import LostError, SettingError
from geotranslate.translation import companions

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others, as while the first one measures and draws."""


@dataclass(frozen=True)
class Processes:
    """How many processes learn together, and which of them this is.

    Attributes:
        per_machine: on each machine.
        machines: how many there are.
        machine: number of this one, from 0.
        local: number of this process among those of its machine, from 0.
        given: whether something else has started them: torchrun, SLURM, or this library.
    """

    per_machine: int = 1
    machines: int = 1
    machine: int = 0
    local: int = 0
    given: bool = False

    @property
    def count(self) -> int:
        """Of all machines together."""
        return self.per_machine * self.machines

    @property
    def rank(self) -> int:
        """Number of this process among all, from 0."""
        return self.machine * self.per_machine + self.local

    @property
    def first(self) -> bool:
        """Whether this process is the one that measures, draws, writes and speaks."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """The samples of a batch that are this process's."""
        each = batch // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def device(self, device: torch.device) -> torch.device:
        """Where this process computes: on a GPU of its own."""
        if self.count == 1 or device.type != "cuda":
            return device
        return torch.device("cuda", self.local)


ALONE = Processes()


def choose_processes(devices: int, nodes: int, device: torch.device, *, name: str) -> Processes:
    """The processes that settings ask for, or torchrun has started.

    Args:
        devices: on each machine, -1 for all GPUs.
        nodes: machines.
        device: that was chosen for a single process.
        name: by which it was chosen.

    Raises:
        SettingError: they cannot be had on this machine.
    """
    if TorchElasticEnvironment.detect():
        each = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // each
    else:
        each = torch.cuda.device_count() if devices == -1 and device.type == "cuda" else devices
    _require_devices(each, nodes, device, name)
    if each * nodes == 1:
        return ALONE
    environment = _environment()
    known = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys()
    if nodes > 1 and isinstance(environment, LightningEnvironment) and not known:
        raise SettingError(
            f"nodes is {nodes}, but nothing says where the other machines are. Say "
            f"`torchrun --nnodes {nodes} ... -m geotranslate train ...` on each machine, run it "
            "with srun, or set MASTER_ADDR, MASTER_PORT and NODE_RANK."
        )
    return Processes(
        per_machine=each,
        machines=nodes,
        machine=environment.node_rank(),
        local=environment.local_rank(),
        given=not isinstance(environment, LightningEnvironment) or "LOCAL_RANK" in os.environ,
    )


def _require_devices(each: int, nodes: int, device: torch.device, name: str) -> None:
    if each in (-1, 0):
        raise SettingError(
            f"devices is {each}, which means nothing on {device.type}. Say how many processes to "
            "learn with, such as --devices 2."
        )
    if each * nodes == 1:
        return
    if ":" in name:
        raise SettingError(
            f"device is {name}, which names one, but {each * nodes} processes are to learn. Say "
            f"--device {device.type}, or leave out --devices and --nodes."
        )
    there = torch.cuda.device_count() if device.type == "cuda" else None
    if device.type == "mps" or (there is not None and each > there):
        raise SettingError(
            f"{each} processes are to learn on this machine, which has {there or 1} "
            f"{device.type} device{'s' * ((there or 1) != 1)}. Choose --devices {there or 1}, or "
            "--device cpu."
        )


def require_shares(processes: Processes, batch: int, parts: int = 1) -> None:
    """Refuse a batch that cannot be divided evenly, to processes and then to parts of each.

    Raises:
        SettingError: it cannot be.
    """
    if batch % processes.count:
        above = -(-batch // processes.count) * processes.count
        below = above - processes.count
        raise SettingError(
            f"batch is {batch} crops an update, which {processes.count} processes cannot share "
            "evenly: it is the batch of all of them together. Choose a --batch of "
            f"{f'{below} or ' if below else ''}{above}."
        )
    share = batch // processes.count
    if share % parts:
        fitting = " or ".join(str(each) for each in range(1, share + 1) if share % each == 0)
        raise SettingError(
            f"accumulate is {parts}, but each of {processes.count} processes has {share} of the "
            f"{batch} crops of an update, which are not {parts} equal parts. Choose an accumulate "
            f"of {fitting}."
        )


def _environment() -> ClusterEnvironment:
    """What has started this process, or will start the others.

    Raises:
        SettingError: SLURM has started them in a way that Fabric does not know.
    """
    try:
        for kind in (TorchElasticEnvironment, SLURMEnvironment):
            if kind.detect():
                return kind()
    except RuntimeError as error:
        raise SettingError(f"the processes that SLURM has started cannot meet ({error})") from error
    return companions.StartedHere()


def join(processes: Processes, device: torch.device) -> None:
    """Bring the processes together, and start those of this machine that nobody has started.

    They stay together as long as they live, since a script that trains twice is run by all of them.

    Args:
        processes: how many, and which this is.
        device: where this one computes.

    Raises:
        LostError: not all of them came.
        SettingError: SLURM has started another number of them.
    """
    if processes.count == 1 or distributed.is_initialized():
        return
    environment = _environment()
    if not processes.given:
        assert isinstance(environment, LightningEnvironment)
        companions.start(processes.per_machine - 1, environment, processes.count)
    companions.watch()
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Agreements are between hosts, so that no host waits for its GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    fabric = Fabric(
        accelerator=device.type,
        devices=processes.per_machine,
        num_nodes=processes.machines,
        strategy=DDPStrategy(process_group_backend=backend, timeout=PATIENCE),
        plugins=[environment],
    )
    try:
        with companions.waiting():
            fabric.launch()
    except ValueError as error:
        raise SettingError(
            f"the processes that were started are not those that were asked for ({error}). Say "
            "--devices and --nodes as the scheduler was told."
        ) from error
    except RuntimeError as error:
        raise LostError(f"not all of {processes.count} processes came ({error})") from error
    atexit.register(_part)


def _part() -> None:
    """Take leave of the others; NCCL complains about who goes without."""
    with companions.waiting():
        distributed.destroy_process_group()

"""Who worked on a run and how: ``sessions.json``, with an entry for each process that went on.

It says what a table of losses does not: on what hardware, how long, with how much memory.
"""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, TypeAdapter, ValidationError

from geotranslate import __version__
from geotranslate.raster.output import write_bytes
from geotranslate.translation.memory import peak_device_memory, peak_memory

if TYPE_CHECKING:
    import torch

NAME = "sessions.json"


class Session(BaseModel, frozen=True):
    """What one process did for a run, up to its newest checkpoint."""

    began: datetime
    first_update: int
    last_update: int
    seconds: float = 0.0
    """Since it began to learn."""
    device: str
    """By its maker's name."""
    processes: int = 1
    """That learned together; what is said of hardware and memory is the first one's."""
    cores: int
    """Of the CPU, that the process may use."""
    precision: str
    """Arithmetic of the convolutions."""
    compiled: bool = False
    """Whether the networks were."""
    memory_bytes: int | None = None
    """Main memory at its peak; None where the system does not tell."""
    device_memory_bytes: int | None = None
    """Memory of the GPU at its peak; None without one."""
    system: str
    versions: dict[str, str]


_LIST = TypeAdapter(list[Session])


def begin_session(
    device: torch.device,
    precision: str,
    first_update: int,
    *,
    processes: int = 1,
    compiled: bool = False,
) -> Session:
    """A session that has done nothing yet, of this process and those that learn with it."""
    import torch

    return Session(
        began=datetime.now(UTC),
        first_update=first_update,
        last_update=first_update - 1,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        processes=processes,
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        precision=precision,
        compiled=compiled,
        system=platform.platform(aliased=True, terse=True),
        versions={
            "geotranslate": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    )


def keep_session(run: Path, session: Session, device: torch.device, update: int) -> None:
    """Write that a session came to an update, in place of what it said earlier.

    Args:
        run: the run folder.
        session: as it began.
        device: where it computes.
        update: the last one that is safe.

    Raises:
        OutputError: the folder cannot be written.
    """
    now = session.model_copy(
        update={
            "last_update": update,
            "seconds": round((datetime.now(UTC) - session.began).total_seconds(), 1),
            "memory_bytes": peak_memory(),
            "device_memory_bytes": peak_device_memory(device),
        }
    )
    # The run may have been cut back into what earlier sessions did.
    last = now.first_update - 1
    before = [
        each.model_copy(update={"last_update": min(each.last_update, last)})
        for each in read_sessions(run)
        if each.first_update <= last
    ]
    write_bytes(run / NAME, _LIST.dump_json([*before, now], indent=1) + b"\n")


def read_sessions(run: Path) -> list[Session]:
    """The sessions of a run in their order; none where the file is missing or damaged."""
    try:
        return _LIST.validate_json((run / NAME).read_bytes())
    except (OSError, ValidationError):
        return []


def cpu_name() -> str:
    """The CPU by its maker's name, as far as the system tells it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

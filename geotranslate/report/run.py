"""What a run folder holds, read for a page about it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geotranslate.report.pictures import Sample, read_samples
from geotranslate.translation.guards import Warned, read_guards
from geotranslate.translation.log import NAME as LOG_NAME
from geotranslate.translation.log import read_log
from geotranslate.translation.run_record import SAMPLES, read_config, require_job
from geotranslate.translation.sessions import Session, read_sessions

MODEL_RECORD = "model/model.json"


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it.

    Attributes:
        path: the folder.
        settings: by name.
        chips: the folder of chips, which may be gone.
        rows: of the log, each with the values it has.
        columns: of the log, in their order.
        best: update whose generators ``model/`` holds; None before the first checkpoint.
        figures: of these generators.
        samples: pictures, the newest first.
        warnings: of the guards, in their order.
        sessions: the processes that worked on it.
    """

    path: Path
    settings: dict[str, Any]
    chips: Path
    rows: list[dict[str, float]]
    columns: list[str]
    best: int | None
    figures: dict[str, float]
    samples: list[Sample]
    warnings: list[Warned]
    sessions: list[Session]

    @property
    def updates(self) -> int:
        """How many are logged."""
        return int(self.rows[-1]["update"]) if self.rows else 0


def read_run(path: Path) -> RunRecord:
    """Read what there is; a run that is not finished, or has hardly begun, has less of it.

    Raises:
        SettingError: the folder is none of a run.
    """
    job = require_job(path)
    log = path / LOG_NAME
    rows = read_log(log) if log.exists() else []
    model = _read_model(path / MODEL_RECORD)
    return RunRecord(
        path=path,
        settings=read_config(path),
        chips=Path(job["chips"]),
        rows=rows,
        columns=list(dict.fromkeys(name for row in rows for name in row)),
        best=model.get("updates"),
        figures=model.get("figures", {}),
        samples=read_samples(path / SAMPLES),
        warnings=read_guards(path),
        sessions=read_sessions(path),
    )


def _read_model(path: Path) -> dict[str, Any]:
    """The record of the bundle as it stands there: to check it would take its networks."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record

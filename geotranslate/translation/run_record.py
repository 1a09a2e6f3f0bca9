"""What a run folder says about its run, for whoever only reads it: nothing heavy is needed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from geotranslate.errors import OutputError, SettingError
from geotranslate.raster.output import RECORD_NAME

CONFIG_NAME = "config.toml"
SAMPLES = "samples"
REPORT_NAME = "report.html"


def read_job(run: Path) -> dict[str, Any] | None:
    """What a run's folder says: its chips, its work, and the changes on the way.

    Returns:
        ``chips``, their folder; ``work``, what must be the same to go on; ``changes``, each with
        the last update before it (``after_update``) and, for each of its ``settings``, what it
        ``was`` and ``is``. None where the folder is none of a run.
    """
    try:
        job = json.loads((run / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return job if isinstance(job, dict) and {"chips", "work", "changes"} <= job.keys() else None


def require_job(run: Path) -> dict[str, Any]:
    """What a run's folder says, as `read_job` gives it.

    Raises:
        SettingError: the folder is none of a run.
    """
    job = read_job(run)
    if job is None:
        found = f"holds no {RECORD_NAME} of a run" if run.exists() else "does not exist"
        raise SettingError(
            f"{run} {found}, so there is no run to read. Give the folder that `geotranslate train` "
            "wrote."
        )
    return job


def read_config(run: Path) -> dict[str, Any]:
    """The settings of a run.

    Raises:
        OutputError: the file is missing or no TOML.
    """
    path = run / CONFIG_NAME
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OutputError(
            f"{path} cannot be read ({error}), so the settings of the run are unknown. Say "
            f"`geotranslate train CHIPS -o {run}` with the words it was begun with."
        ) from error

"""Going on with a run by what its folder says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geotranslate.errors import ChipsError, OutputError, SettingError
from geotranslate.raster.output import RECORD_NAME
from geotranslate.translation.config import WITHOUT_EFFECT, TrainConfig
from geotranslate.translation.plan import Plan, plan_training
from geotranslate.translation.run_record import CONFIG_NAME, read_config, read_job


def plan_resumption(run: Path, **settings: Any) -> Plan:
    """The plan of a run by what its folder says.

    Raises:
        OutputError: the folder is none of a run.
        SettingError: a setting is given that a run cannot be continued with another value of.
        ChipsError: the chips are gone.
    """
    fixed = sorted(settings.keys() - WITHOUT_EFFECT)
    if fixed:
        raise SettingError(
            f"{', '.join(fixed)} cannot be given to --resume: a run goes on with the settings it "
            f"was begun with. Leave out all but {', '.join(sorted(WITHOUT_EFFECT))}, or begin "
            "another run."
        )
    job = read_job(run)
    if job is None:
        raise OutputError(
            f"{run} holds no {RECORD_NAME}, so it is no run to go on with. Give the folder that "
            "`geotranslate train` wrote."
        )
    chips = Path(job["chips"])
    if not chips.exists():
        raise ChipsError(
            f"the chips of this run were in {chips}, which is gone. If they were moved, say "
            f"`geotranslate train CHIPS -o {run}` with their new place and the settings of "
            f"{run / CONFIG_NAME} (--config)."
        )
    return plan_training(chips, TrainConfig(**read_config(run) | settings))

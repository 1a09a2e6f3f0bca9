"""``geotranslate train --lr-find``: which learning rate to take, by trying."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geotranslate.cli.progress import finish, progress
from geotranslate.errors import SettingError

if TYPE_CHECKING:
    from geotranslate.translation.config import TrainConfig

PICTURE = Path("lr_find.svg")
"""In the folder one is in, unless -o says otherwise."""


def show_rates(
    chips: Path, config: TrainConfig, picture: Path, *, quiet: bool, as_json: bool
) -> None:
    """Try rates on a throw-away copy, say which to take, and draw why."""
    from geotranslate.report.rates import draw_rates
    from geotranslate.translation.lr_find import UPDATES, advise, try_rates
    from geotranslate.translation.plan import plan_training

    plan = plan_training(chips, config)
    if plan.processes.count > 1:
        raise SettingError(
            "--lr-find tries with one process, and a rate that it finds holds for any number "
            "of them with the same --batch. Leave out --devices, --nodes and torchrun."
        )
    trials = []
    with progress("Trying rates", UPDATES, unit="update", quiet=quiet) as bar:
        for trial in try_rates(plan):
            trials.append(trial)
            bar.update(trial.update, f"rate {trial.rate:.1e}  loss {trial.loss:.3g}")
    advice = advise(trials)
    draw_rates(advice, picture)
    finish(
        f"Take a --learning-rate of {advice.valley:.1e}, where half of the fall is done, or "
        f"{advice.steepest:.1e}, where it falls quickest. {picture} shows it.",
        {"valley": advice.valley, "steepest": advice.steepest, "picture": picture},
        as_json=as_json,
    )

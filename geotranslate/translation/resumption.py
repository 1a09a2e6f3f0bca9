"""Going on with a run by what its folder says, with changes or without."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from geotranslate.errors import ChipsError, SettingError
from geotranslate.translation.checkpoint import list_checkpoints
from geotranslate.translation.config import BUILT_IN, WITHOUT_EFFECT, TrainConfig
from geotranslate.translation.plan import Plan, plan_training
from geotranslate.translation.run_record import CONFIG_NAME, read_config, require_job
from geotranslate.translation.starting_weights import Start


def plan_resumption(
    run: Path, *, changes: Mapping[str, Any] | None = None, **settings: Any
) -> Plan:
    """The plan of a run by what its folder says.

    Args:
        run: the folder.
        changes: settings that shall be others from here on.
        settings: those of `WITHOUT_EFFECT` may be others; the rest must be as they are.

    Raises:
        SettingError: the folder is none of a run, a setting is another without being among the
            changes, one is to be changed that cannot be, or nothing would be learned with them.
        ChipsError: the chips are gone.
    """
    job = require_job(run)
    chips = Path(job["chips"])
    if not chips.exists():
        raise ChipsError(
            f"the chips of this run were in {chips}, which is gone. If they were moved, say "
            f"`geotranslate train CHIPS -o {run}` with their new place and the settings of "
            f"{run / CONFIG_NAME} (--config)."
        )
    kept = read_config(run)
    now = TrainConfig(**kept | settings)
    _refuse_unsaid(run, _differing(TrainConfig(**kept), now) - WITHOUT_EFFECT, now)
    changes = dict(changes or {})
    config = TrainConfig(**kept | settings | changes)
    _refuse_unchangeable(run, _differing(now, config), config)
    done = list_checkpoints(run)
    if done:
        _refuse_vain_changes(run, done[0][0], job["work"], config, changes.keys() - WITHOUT_EFFECT)
    # Past its beginning a run needs the model no more, which may be gone.
    start = Start(job["work"]["init_from"]) if done and "init_from" in job["work"] else None
    return replace(plan_training(chips, config, start=start), changed=frozenset(changes))


def _differing(before: TrainConfig, now: TrainConfig) -> frozenset[str]:
    one, other = before.settings(), now.settings()
    return frozenset(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _refuse_unsaid(run: Path, names: frozenset[str], config: TrainConfig) -> None:
    """Refuse another setting that is not among the changes."""
    for name in sorted(names):
        _refuse_unchangeable(run, frozenset({name}), config)
        raise SettingError(
            f"{name} is another one than {run} goes on with, and would change what it learns. Say "
            f"--set {name}={getattr(config, name)} to change it from here on, or leave it out."
        )


def _refuse_unchangeable(run: Path, names: frozenset[str], config: TrainConfig) -> None:
    """Refuse changes that no run can go on with."""
    for name in sorted(names & BUILT_IN):
        flag = "--" + name.replace("_", "-")
        raise SettingError(
            f"{name} decides which weights there are, and those of {run} have been learned with "
            f"another one, so it cannot go on with {getattr(config, name)}. Leave it out, or begin "
            f"another run with {flag} {getattr(config, name)}."
        )
    if "init_from" in names:
        raise SettingError(
            f"init_from says what a run begins with, and {run} has begun. Leave it out, or begin "
            "another run with --init-from."
        )


def _refuse_vain_changes(
    run: Path, done: int, work: Mapping[str, Any], config: TrainConfig, names: Set[str]
) -> None:
    """Refuse changes after which no update would follow."""
    settings = config.settings()
    changed = [name for name in sorted(names) if settings.get(name) != work.get(name)]
    if changed and config.updates <= done:
        raise SettingError(
            f"{run} has done {done} updates and is to have {config.updates}, so nothing would be "
            f"learned with another {' and '.join(changed)}. Say --set updates=N with more than "
            f"{done}."
        )

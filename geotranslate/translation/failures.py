"""What is said when a run cannot go on: what happened, what is kept, what to do."""

from __future__ import annotations

import shlex
from pathlib import Path

from geotranslate.errors import LostError, SettingError, TrainingError
from geotranslate.translation.checkpoint import list_checkpoints
from geotranslate.translation.plan import Plan


def out_of_memory(plan: Plan, run: Path) -> SettingError:
    """Memory ran out; past a checkpoint a run goes on with the same crops and networks only."""
    found, config = list_checkpoints(run), plan.config
    share = len(plan.processes.share(config.batch))
    crops = share // config.accumulate
    many, they = ("crop", "it") if crops == 1 else ("crops", "they")
    what = (
        f"{crops} {many} of {plan.crop} px at once {'does' if crops == 1 else 'do'} not fit into "
        f"the memory of {plan.device}"
    )
    saving = []
    if not config.save_memory:
        saving.append("--save-memory" + " --compile off" * (config.compile == "on"))
    finer = [each for each in range(config.accumulate + 1, share + 1) if share % each == 0]
    if not found:
        saving += [f"--accumulate {each}" for each in finer[:1]]
        ways = f"Say {' or '.join(saving)}, or choose" if saving else "Choose"
        return SettingError(f"{what}. {ways} a smaller --batch, --crop or --width.")
    saving += [f"--set accumulate={each}" for each in finer[:1]]
    sparing = f", with less memory ({' or '.join(saving)})" if saving else ""
    return SettingError(
        f"{what}, though {they} did up to the checkpoint of update "
        f"{found[0][0]}: most likely another program takes its share. End that and run the same "
        f"command again, or go on with `geotranslate train --resume {shlex.quote(str(run))}`"
        f"{sparing} or elsewhere (--device). A smaller --batch, --crop or --width is another run: "
        "say --overwrite as well to start over, or choose another folder."
    )


def went_wrong(run: Path, what: str, update: int) -> TrainingError:
    """A number is none any more.

    Args:
        run: the run folder.
        what: is no number, as the beginning of a sentence.
        update: at which.
    """
    found = [(number, path) for number, path in list_checkpoints(run) if number < update]
    good = f"The last good checkpoint is {found[0][1]}" if found else "There is no checkpoint yet"
    anew = ", and say --overwrite or choose another folder" if found else ""
    return TrainingError(
        f"{what} at update {update}, so nothing more can be learned and the run was stopped. "
        f"{good}. It would come to the same again: begin with a lower --learning-rate, or with "
        f"--precision float32{anew}."
    )


def left_alone(run: Path, error: LostError, died: str | None) -> LostError:
    """Another process is gone, or failed.

    Args:
        run: the run folder.
        error: what was noticed.
        died: which process it was, where that is known.
    """
    found = list_checkpoints(run)
    kept, how = "There is no checkpoint yet", "begin anew"
    if found:
        kept, how = f"The state after update {found[0][0]} is kept", "go on from there"
    return LostError(
        f"{died or error}, so the others cannot go on without its share of the batch and the run "
        f"was stopped. {kept}: say the same words again to {how}."
    )

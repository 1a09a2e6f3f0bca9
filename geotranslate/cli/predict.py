"""``geotranslate predict``: whole scenes through a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geotranslate.cli.options import (
    config_option,
    json_option,
    overwrite_option,
    setting_options,
)
from geotranslate.cli.progress import duration, finish, progress, say
from geotranslate.translation.predict_config import PredictConfig

if TYPE_CHECKING:
    from geotranslate.translation.seam_check import SeamCheck


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("scenes", nargs=-1, required=True, metavar="SCENE...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="A GeoTIFF for one scene, or a folder: NAME.tif for each scene.",
)
@setting_options(PredictConfig)
@overwrite_option
@json_option
@config_option
def predict(
    model: Path,
    scenes: tuple[str, ...],
    output: Path,
    overwrite: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Translate each SCENE with MODEL and write it on the scene's own grid.

    MODEL is the folder of a run, or a bundle. A SCENE is a raster, a folder or a quoted glob.
    Interrupted, the same command goes on where it was.
    """
    from geotranslate.translation.predict import predict_scenes

    start = time.monotonic()
    given = {name: value for name, value in settings.items() if value is not None}
    config = PredictConfig(**given)
    measured = config.statistics is not None and not config.statistics.exists()
    steps = predict_scenes(model, scenes, output, config, overwrite=overwrite)
    first = next(steps)
    made: dict[str, list[str]] = {"written": [], "unchanged": []}
    checks: dict[str, SeamCheck | None] = {}
    pixels = 0
    with progress("Translating", first.total, quiet=as_json) as bar:
        for step in steps:
            pixels += step.pixels
            if step.state in made:
                made[step.state].append(str(step.output))
            if step.state == "checked":
                checks[str(step.output)] = step.seams
            doing = f"{step.state} " if step.state in ("measuring", "joining") else ""
            bar.update(step.done, doing + step.output.name)
    seconds = time.monotonic() - start
    for name, check in checks.items():
        say(_seam_sentence(name, check, config), quiet=as_json)
    record = {**made, "pixels": pixels, "seconds": seconds, "pixels_per_second": pixels / seconds}
    if config.check_seams:
        record["seams"] = {name: check and check.to_dict() for name, check in checks.items()}
    sentence = _sentence(made["written"], made["unchanged"], pixels, seconds)
    if config.statistics is not None:
        record["statistics"] = {"file": str(config.statistics), "measured": measured}
        did = "measured and written to" if measured else "read from"
        sentence += f" The statistics were {did} {config.statistics}."
    finish(sentence, record, as_json=as_json)


def _seam_sentence(output: str, check: SeamCheck | None, config: PredictConfig) -> str:
    if check is None:
        return f"{output}: one window holds all of it, so there are no seams."
    return f"{output}: {_spell_cut(check, config)} {_spell_lines(check)}"


def _spell_cut(check: SeamCheck, config: PredictConfig) -> str:
    """Whether the result depends on the cut, by how much, and what mends it."""
    if check.mismatch is None or check.largest is None:
        return (
            "whether the result depends on the cut is not known: most places where windows meet "
            "hold no valid pixel, so none was translated again."
        )
    figures = (
        f"in other windows, pixels change by {check.mismatch:.2g} of their standard deviation on "
        f"average, {check.largest:.2g} at most ({check.pixels:,} translated again)."
    )
    if not check.depends_on_cut:
        return f"the result does not depend on the cut: {figures}"
    mend = ""
    if config.seams == "tile":
        mend = " `--seams scene` mends that."
    elif config.blend != "crop":
        mend = " `--blend crop` mends that."
    elif config.precision != "float32":
        mend = " `--precision float32` rounds less."
    return f"the result depends on the cut: {figures}{mend}"


def _spell_lines(check: SeamCheck) -> str:
    """Whether the lines where windows meet stand out, against which limit."""
    from geotranslate.raster.seams import VISIBLE_CHANCE

    if check.score is None or check.chance is None:
        return "Too little data lies at the lines where windows meet to score them."
    shown = "show" if check.visible else "do not show"
    return (
        f"The lines where windows meet {shown}: their seam score is {check.score:.1f}, which lines "
        f"that mean nothing reach in up to {100 * check.chance:.2g} % of rasters (they show at "
        f"{100 * VISIBLE_CHANCE:g} % and less)."
    )


def _sentence(written: list[str], unchanged: list[str], pixels: int, seconds: float) -> str:
    kept = (
        f"{_list(unchanged)} {'were' if unchanged[1:] else 'was'} there already, from the same "
        "model, input and words: nothing to do."
        if unchanged
        else ""
    )
    if not written:
        return kept
    done = (
        f"Wrote {_list(written)} in {duration(seconds)}: {_count(pixels)} translated, "
        f"{pixels / seconds:,.0f} a second."
    )
    return f"{done} {kept}".rstrip()


def _count(pixels: int) -> str:
    if pixels < 1_000_000:
        return f"{pixels:,} pixel{'s' * (pixels != 1)}"
    return f"{pixels / 1e6:.3g} million pixels"


def _list(files: list[str]) -> str:
    if len(files) <= 3:
        return " and ".join(files)
    return f"{len(files)} files into {Path(files[0]).parent}"

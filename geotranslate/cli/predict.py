"""``geotranslate predict``: whole scenes through a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geotranslate.choices import (
    PREDICT_BLENDS,
    PREDICT_DECIBELS,
    SEAMS,
    Precision,
    PredictBlend,
    PredictDecibel,
    Seams,
)
from geotranslate.cli.options import (
    config_option,
    device_option,
    json_option,
    overwrite_option,
    precision_option,
)
from geotranslate.cli.progress import duration, finish, progress, say

if TYPE_CHECKING:
    from geotranslate.translation.seam_check import SeamCheck


def _edges(
    ctx: click.Context,
    param: click.Parameter,
    value: Any,
) -> tuple[float, ...] | None:
    """Four numbers, from a string on the command line or a list in a TOML file."""
    if value is None:
        return None
    edges = value.split(",") if isinstance(value, str) else value
    try:
        left, bottom, right, top = map(float, edges)
    except (TypeError, ValueError) as error:
        raise click.BadParameter(
            f"{value!r} is not four numbers. Write left,bottom,right,top."
        ) from error
    return left, bottom, right, top


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
@click.option(
    "--direction",
    type=click.Choice(["ab", "ba"]),
    default="ab",
    show_default=True,
    help="From A to B, or the way back if the model learned it.",
)
@click.option(
    "--size",
    type=int,
    default=1024,
    show_default=True,
    help="Side in pixels of what is written at once; more is read around it. Larger is faster "
    "and takes more memory.",
)
@click.option(
    "--blend",
    type=click.Choice(PREDICT_BLENDS),
    default="crop",
    show_default=True,
    help="How windows become one raster: each core as it is, or cores that overlap by a quarter, "
    "faded into each other. For deep U-Nets and --seams tile.",
)
@click.option(
    "--seams",
    type=click.Choice(SEAMS),
    help="Mode for models with instance norm: its statistics are those of each window, of a sample "
    "of the scene, or of a coarse grid over the scene.  [default: scene]",
)
@click.option(
    "--statistics",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the statistics of --seams scene: read if it is there, so that scenes match; "
    "else measured over all SCENEs and written.",
)
@click.option(
    "--batch", type=int, help="Windows translated at once.  [default: 1 on a CPU, else a megapixel]"
)
@device_option
@precision_option
@click.option(
    "--bands",
    help="Bands of the scenes in the model's order, by number or name: VV,VH.  "
    "[default: those named like the model's, else all]",
)
@click.option("--nodata", type=float, help="One more value of the scenes for nothing here.")
@click.option(
    "--decibel",
    type=click.Choice(PREDICT_DECIBELS),
    help="How to turn linear values into decibels.  [default: as the model's data was]",
)
@click.option("--aoi", help="Polygons in a vector file of any CRS; outside, nothing is written.")
@click.option(
    "--bounds",
    type=click.UNPROCESSED,
    callback=_edges,
    metavar="LEFT,BOTTOM,RIGHT,TOP",
    help="Part to be translated, in the scene's CRS.",
)
@click.option(
    "--check-seams",
    is_flag=True,
    help="Translate a sample of each scene again with other cores and say whether cores show.",
)
@click.option("--force", is_flag=True, help="Go on with values and pixel sizes unknown to MODEL.")
@overwrite_option
@json_option
@config_option
def predict(
    model: Path,
    scenes: tuple[str, ...],
    output: Path,
    direction: str,
    size: int,
    blend: PredictBlend,
    seams: Seams | None,
    statistics: Path | None,
    batch: int | None,
    device: str,
    precision: Precision,
    bands: str | None,
    nodata: float | None,
    decibel: PredictDecibel | None,
    aoi: str | None,
    bounds: tuple[float, float, float, float] | None,
    check_seams: bool,
    force: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Translate each SCENE with MODEL and write it on the scene's own grid.

    MODEL is the folder of a run, or a bundle. A SCENE is a raster, a folder or a quoted glob.
    Interrupted, the same command goes on where it was.
    """
    from geotranslate.translation.predict import predict_scenes

    start = time.monotonic()
    measured = statistics is not None and not statistics.exists()
    steps = predict_scenes(
        model,
        scenes,
        output,
        direction="ba" if direction == "ba" else "ab",
        size=size,
        blend=blend,
        seams=seams,
        statistics=statistics,
        batch=batch,
        device=device,
        precision=precision,
        bands=bands,
        nodata=nodata,
        decibel=decibel,
        aoi=aoi,
        bounds=bounds,
        check_seams=check_seams,
        overwrite=overwrite,
        force=force,
    )
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
        say(_seam_sentence(name, check), quiet=as_json)
    record = {**made, "pixels": pixels, "seconds": seconds, "pixels_per_second": pixels / seconds}
    if check_seams:
        record["seams"] = {name: check and check.to_dict() for name, check in checks.items()}
    sentence = _sentence(made["written"], made["unchanged"], pixels, seconds)
    if statistics is not None:
        record["statistics"] = {"file": str(statistics), "measured": measured}
        did = "measured and written to" if measured else "read from"
        sentence += f" The statistics were {did} {statistics}."
    finish(sentence, record, as_json=as_json)


def _seam_sentence(output: str, check: SeamCheck | None) -> str:
    if check is None:
        return f"{output}: one window holds all of it, so there are no seams."
    if check.mismatch is None or check.largest is None:
        cut = "most places where windows meet hold no valid pixel, so none was translated again"
    else:
        cut = (
            f"cut in other windows, pixels change by {check.mismatch:.2g} of their standard "
            f"deviation on average, {check.largest:.2g} at most ({check.pixels:,} translated again)"
        )
    if check.score is None:
        return (
            f"{output}: {cut}; too little data lies at the lines where windows meet to score them."
        )
    shown = "show" if check.visible else "do not show"
    return f"{output}: {cut}; the lines where windows meet {shown} (seam score {check.score:.1f})."


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

"""``geotranslate mosaic``: many rasters on one grid joined into one."""

from __future__ import annotations

import time
from pathlib import Path

import click

from geotranslate.choices import MOSAIC_BLENDS, MosaicBlend
from geotranslate.cli.options import config_option, json_option, overwrite_option
from geotranslate.cli.progress import counted, duration, finish, progress


@click.command()
@click.argument("rasters", nargs=-1, required=True, metavar="RASTER...")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The GeoTIFF to be.",
)
@click.option(
    "--blend",
    type=click.Choice(MOSAIC_BLENDS),
    default="feather",
    show_default=True,
    help="What becomes of pixels that several rasters hold: their mean, weighted by the distance "
    "to each raster's rim; the first or last valid one in the order given; their plain mean.",
)
@overwrite_option
@json_option
@config_option
def mosaic(
    rasters: tuple[str, ...],
    output: Path,
    blend: MosaicBlend,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Join each RASTER, a file, a folder or a quoted glob, into one cloud-optimized GeoTIFF.

    They need one kind of bands, one CRS and one pixel size, and their pixels must lie on each
    other; they may overlap or leave holes. Interrupted, the same command goes on where it was.
    """
    from geotranslate.raster.mosaic import plan_mosaic, write_mosaic

    start = time.monotonic()
    plan = plan_mosaic(rasters, output, blend=blend)
    done = 0
    with progress("Joining", plan.steps, quiet=as_json) as bar:
        for done in write_mosaic(plan, output, overwrite=overwrite):
            bar.update(done, output.name)
    seconds = time.monotonic() - start
    rows, cols = plan.grid.shape
    joined = counted(len(plan.pieces), "raster")
    finish(
        f"Joined {joined} into {output}, {cols} x {rows} px, in {duration(seconds)}."
        if done
        else f"{output} is there already, from the same rasters and words: nothing to do.",
        {
            "output": str(output),
            "unchanged": not done,
            "rasters": len(plan.pieces),
            "width": cols,
            "height": rows,
            "seconds": seconds,
        },
        as_json=as_json,
    )

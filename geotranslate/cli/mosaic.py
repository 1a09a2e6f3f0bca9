"""``geotranslate mosaic``: many scenes joined into one raster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geotranslate.choices import MOSAIC_BLENDS, MOSAIC_MATCHES, RESAMPLINGS
from geotranslate.cli.options import (
    bounds_option,
    config_option,
    json_option,
    listed,
    overwrite_option,
)
from geotranslate.cli.progress import counted, duration, finish, progress

if TYPE_CHECKING:
    from geotranslate.raster.mosaic import MosaicPlan


def _pixel_size(
    ctx: click.Context, param: click.Parameter, value: Any
) -> tuple[float, float] | None:
    """One number for square pixels, or two; from a string or a list in a TOML file."""
    if value is None:
        return None
    try:
        sizes = [float(size) for size in listed(value)]
        x, y = sizes * 2 if len(sizes) == 1 else sizes
    except (TypeError, ValueError) as error:
        raise click.BadParameter(
            f"{value!r} is not a pixel size. Write one number, or width,height."
        ) from error
    return x, y


@click.command()
@click.argument("rasters", nargs=-1, required=True, metavar="RASTER...")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The GeoTIFF to be; with --virtual a .vrt or .gti.gpkg.",
)
@click.option(
    "--blend",
    type=click.Choice(MOSAIC_BLENDS),
    default="feather",
    show_default=True,
    help="What becomes of pixels that several rasters hold: their mean, weighted by the distance "
    "to each raster's valid edge; the first or last valid one in the order given; their mean; "
    "their median; the one of the best quality.",
)
@click.option("--bands", help="Bands of the mosaic, by number or name.  [default: all]")
@click.option("--quality", help="Band by which best chooses, by number or name; highest wins.")
@click.option(
    "--match",
    type=click.Choice(MOSAIC_MATCHES),
    help="First bring the rasters' brightness together, as their overlaps say: by one gain a band, "
    "or by histograms.",
)
@click.option("--anchor", metavar="RASTER", help="The raster that --match leaves as it is.")
@click.option("--crs", help="Of the mosaic.  [default: the first raster's]")
@click.option(
    "--resolution",
    type=click.UNPROCESSED,
    callback=_pixel_size,
    metavar="SIZE",
    help="Pixel size in units of the CRS, or width,height.  [default: the first raster's]",
)
@bounds_option("Part to be joined, in the mosaic's CRS.  [default: around all rasters]")
@click.option(
    "--snap",
    metavar="first|multiples|bounds|RASTER",
    help="Where pixel edges lie: as the first raster's; on multiples of the pixel size; at the "
    "left top corner of the bounds; as those of another raster.  [default: first where its CRS "
    "and pixel size are kept, else multiples]",
)
@click.option(
    "--resampling",
    type=click.Choice(RESAMPLINGS),
    default="bilinear",
    show_default=True,
    help="How rasters that do not lie on the mosaic's pixels come there.",
)
@click.option("--cutline", help="Vector file with a polygon a raster, outside of which it is cut.")
@click.option("--aoi", help="Vector file with polygons; outside, the mosaic is empty.")
@click.option("--virtual", is_flag=True, help="Write an index of the rasters, and no pixels.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be written, and write only the rasters' footprints.",
)
@overwrite_option
@json_option
@config_option
def mosaic(
    rasters: tuple[str, ...],
    output: Path,
    virtual: bool,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Join each RASTER, a file, a folder or a quoted glob, into one cloud-optimized GeoTIFF.

    They need one kind of bands, and may differ in CRS and pixel size, overlap, or leave holes.
    Where their pixels lie on each other, nothing is resampled. Interrupted, the same command goes
    on where it was.
    """
    from geotranslate.raster.mosaic import (
        MosaicSettings,
        check_mosaic,
        check_virtual,
        plan_mosaic,
        read_match,
        write_mosaic,
        write_virtual,
    )

    start = time.monotonic()
    plan = plan_mosaic(rasters, output, MosaicSettings(**settings))
    if dry_run:
        (check_virtual if virtual else check_mosaic)(plan, output, overwrite=overwrite)
        _tell_plan(plan, output, overwrite=overwrite, as_json=as_json)
        return
    if virtual:
        done = int(write_virtual(plan, output, overwrite=overwrite))
    else:
        done = 0
        with progress("Joining", plan.steps, quiet=as_json) as bar:
            for done in write_mosaic(plan, output, overwrite=overwrite):
                bar.update(done, output.name)
    seconds = time.monotonic() - start
    matched = {} if plan.settings.match is None else read_match(output)
    joined = counted(len(plan.pieces), "raster")
    finish(
        f"Joined {joined} into {output}, {_size(plan)}, in {duration(seconds)}{_resampled(plan)}."
        f"{_spell_match(matched)}"
        if done
        else f"{output} is there already, from the same rasters and words: nothing to do.",
        {
            "output": str(output),
            "unchanged": not done,
            **_record(plan),
            **({"match": matched} if matched else {}),
            "seconds": seconds,
        },
        as_json=as_json,
    )


def _tell_plan(plan: MosaicPlan, output: Path, *, overwrite: bool, as_json: bool) -> None:
    """Say what a mosaic would be, and draw where its rasters lie."""
    from geotranslate.raster.mosaic.cutlines import write_footprints

    footprints = output.with_suffix(".footprints.gpkg")
    write_footprints(footprints, plan, overwrite=overwrite)
    bounds = ",".join(f"{edge:.10g}" for edge in plan.grid.bounds)
    joined = counted(len(plan.pieces), "raster")
    finish(
        f"{output} would hold {joined}, {_size(plan)} of {len(plan.bands)} {plan.dtype} "
        f"{'band' if len(plan.bands) == 1 else 'bands'}, {plan.size_bytes / 1e6:,.1f} MB without "
        f"compression, {_spell_grid(plan)}, bounds {bounds}{_resampled(plan)}. Footprints are in "
        f"{footprints}.",
        {
            "output": str(output),
            **_record(plan),
            "crs": plan.grid.crs.to_string(),
            "resolution": plan.grid.resolution,
            "bounds": plan.grid.bounds,
            "bytes": plan.size_bytes,
            "footprints": str(footprints),
        },
        as_json=as_json,
    )


def _record(plan: MosaicPlan) -> dict[str, Any]:
    rows, cols = plan.grid.shape
    return {
        "rasters": len(plan.pieces),
        "resampled": plan.resampled,
        "width": cols,
        "height": rows,
    }


def _spell_match(matched: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Which rasters were changed most, as a sentence; nothing where none was."""
    changes = [
        (change, f"{Path(raster).name}, {band}")
        for raster, bands in matched.items()
        for band, change in bands.items()
    ]
    spelled = []
    for noun, least, most in (
        ("gains", "gain", "gain"),
        ("shifts", "least_shift", "most_shift"),
    ):
        low = min(((c[least], where) for c, where in changes if least in c), default=None)
        high = max(((c[most], where) for c, where in changes if most in c), default=None)
        if low and high and low[0] != high[0]:
            spelled.append(f"{noun} from {low[0]:.4g} ({low[1]}) to {high[0]:.4g} ({high[1]})")
    return f" Matched by {' and '.join(spelled)}." if spelled else ""


def _size(plan: MosaicPlan) -> str:
    rows, cols = plan.grid.shape
    return f"{cols} x {rows} px"


def _spell_grid(plan: MosaicPlan) -> str:
    x, y = plan.grid.resolution
    size = f"{x:.10g}" if x == y else f"{x:.10g} x {y:.10g}"
    return f"{plan.grid.crs.to_string()} with pixels of {size}"


def _resampled(plan: MosaicPlan) -> str:
    """How many rasters did not lie on the mosaic's pixels, as the end of a sentence."""
    if not plan.resampled:
        return ""
    return (
        f"; {plan.resampled} of them resampled ({plan.settings.resampling}) onto "
        f"{_spell_grid(plan)}"
    )

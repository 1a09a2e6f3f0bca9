"""``geotranslate tile``: scenes to a folder of chips."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geotranslate.choices import DECIBELS, LAYOUTS, RESAMPLINGS
from geotranslate.cli.options import config_option, json_option, overwrite_option, seed_option
from geotranslate.cli.progress import counted, duration, finish, progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geotranslate.chips.index import TileRecord
    from geotranslate.chips.plan import TilePlan

MOST_WORKERS = 8

SCENE_FLAGS = "--a", "--b"


def _listing(
    ctx: click.Context,
    param: click.Parameter,
    value: Any,
) -> tuple[str, ...] | None:
    """Values with commas between them on the command line, or a list in a TOML file."""
    if value is None:
        return None
    items = value.split(",") if isinstance(value, str) else value
    return tuple(str(item).strip() for item in items)


class SceneCommand(click.Command):
    """Takes many scenes after one flag, as a shell makes them of a glob without quotes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read ``--a 1.tif 2.tif`` as ``--a 1.tif --a 2.tif``."""
        words: list[str] = []
        flag, values = "", 0
        for word in args:
            if word.startswith("-"):
                flag, given, _ = word.partition("=")
                values = len(given)
            else:
                if flag in SCENE_FLAGS and values:
                    words.append(flag)
                values += 1
            words.append(word)
        return super().parse_args(ctx, words)


@click.command(cls=SceneCommand)
@click.option(
    "--a", multiple=True, required=True, help="Scenes of domain A: rasters, globs, folders."
)
@click.option("--b", multiple=True, required=True, help="Scenes of domain B.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the chips.",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default="pix2pix",
    show_default=True,
    help="pix2pix and train_a_b: pairs of one place; cyclegan: each domain alone.",
)
@click.option("--size", type=int, default=256, show_default=True, help="Side of a chip in pixels.")
@click.option(
    "--stride",
    type=int,
    help="Pixels from one chip to the next.  [default: half of the size]",
)
@click.option(
    "--bands-a",
    type=click.UNPROCESSED,
    callback=_listing,
    help="Bands of A by number or name, such as VV,VH.",
)
@click.option(
    "--bands-b", type=click.UNPROCESSED, callback=_listing, help="Bands of B, such as 4,3,2."
)
@click.option("--nodata-a", type=float, help="One more value of A for nothing here.")
@click.option("--nodata-b", type=float, help="One more value of B for nothing here.")
@click.option(
    "--decibel-a",
    type=click.Choice(DECIBELS),
    help="Turn A's linear values into decibels, -50 dB at least.",
)
@click.option("--decibel-b", type=click.Choice(DECIBELS), help="The same for B.")
@click.option(
    "--resampling",
    type=click.Choice(RESAMPLINGS),
    default="bilinear",
    show_default=True,
    help="How B comes onto A's grid.",
)
@click.option(
    "--min-valid",
    type=float,
    default=1.0,
    show_default=True,
    help="Least share of valid pixels; in a pair, of pixels valid in both.",
)
@click.option("--aoi", help="Vector file with polygons; only chips wholly inside are cut.")
@click.option("--aoi-touching", is_flag=True, help="Chips that touch the polygons as well.")
@click.option(
    "--split",
    type=click.UNPROCESSED,
    callback=_listing,
    default="0.8,0.1,0.1",
    show_default=True,
    help="Shares of train, val and test, each by blocks of the map.",
)
@seed_option
@click.option("--limit", type=int, help="At most so many pairs, or chips of each domain.")
@click.option("--dry-run", is_flag=True, help="Say what would be cut, and write nothing.")
@click.option(
    "--workers",
    type=int,
    default=lambda: min(os.cpu_count() or 1, MOST_WORKERS),
    help=f"Threads that cut.  [default: one per core, at most {MOST_WORKERS}]",
)
@overwrite_option
@json_option
@config_option
def tile(
    output: Path, dry_run: bool, workers: int, overwrite: bool, as_json: bool, **settings: Any
) -> None:
    """Cut scenes of two kinds, A and B, into chips to learn from.

    Pairs come from place, not from names: B is resampled onto A's grid, from as many scenes as
    cover the chip. Stopped and run again, it cuts what is missing.
    """
    from geotranslate.chips.config import TileConfig
    from geotranslate.chips.index import read_tile_record
    from geotranslate.chips.plan import plan_tiles
    from geotranslate.chips.tile import find_finished, tile_scenes

    start = time.monotonic()
    plan = plan_tiles(TileConfig(**settings))
    if dry_run:
        _tell_plan(plan, as_json=as_json)
        return
    if not overwrite and (record := find_finished(plan, output)):
        there = _spell(record.paired, record.counts)
        finish(
            f"{output} is complete already, with {there}: nothing to do.",
            _line(output, record, unchanged=True),
            as_json=as_json,
        )
        return
    with progress("Cutting", plan.total, quiet=as_json) as bar:
        for state in tile_scenes(plan, output, workers=workers, overwrite=overwrite):
            bar.update(state.done, f"{state.kept} kept")
    record = read_tile_record(output)
    seconds = time.monotonic() - start
    sentence = (
        f"{output} holds {_spell(record.paired, record.counts)}, after {duration(seconds)}."
        f"{_spell_dropped(record.dropped)}\n"
        f"Next: geotranslate train {shlex.quote(str(output))} -o RUN"
    )
    finish(
        sentence,
        _line(output, record, unchanged=False) | {"seconds": round(seconds, 1)},
        as_json=as_json,
    )


def _line(output: Path, record: TileRecord, *, unchanged: bool) -> dict[str, Any]:
    return {
        "output": str(output),
        "unchanged": unchanged,
        "counts": record.counts,
        "dropped": record.dropped,
    }


def _spell(paired: bool, counts: Mapping[str, Mapping[str, int]]) -> str:
    """How many chips, by domain and split."""
    if paired:
        return _spell_splits(counts["a"], "pair")
    return " and ".join(
        _spell_splits(splits, "chip", f" of {domain.upper()}") for domain, splits in counts.items()
    )


def _spell_splits(counts: Mapping[str, int], noun: str, whose: str = "") -> str:
    parts = " + ".join(f"{count} {split}" for split, count in counts.items() if count)
    return f"{counted(sum(counts.values()), noun)}{whose} ({parts})"


def _spell_dropped(dropped: Mapping[str, int]) -> str:
    if not dropped:
        return ""
    lost = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
    return f" Left out: {lost}."


def _tell_plan(plan: TilePlan, *, as_json: bool) -> None:
    """What a dry run says."""
    counts = plan.counts
    finish(
        f"At most {_spell(plan.layout.paired, counts)}, {plan.bytes / 1e6:,.1f} MB before "
        "compression; which pixels are valid shows only when they are read."
        f"{_spell_dropped(plan.dropped)}",
        {"counts": counts, "dropped": dict(plan.dropped), "bytes": plan.bytes},
        as_json=as_json,
    )

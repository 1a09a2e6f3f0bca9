"""Cut scenes into a folder of chips: the whole job, with the rule for running again."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from geotranslate import __version__
from geotranslate.chips.arcgis import (
    ACCUMULATED,
    MAP,
    MODEL_DEFINITION,
    NORMALIZATION_CACHE,
    SUMMARY,
    write_metadata,
)
from geotranslate.chips.cut import Cutter, in_order
from geotranslate.chips.index import (
    CHIPS_NAME,
    MOSAIC_NAMES,
    PARTS_NAME,
    TILE_NAME,
    ChipRecord,
    TileRecord,
    read_tile_record,
    write_index,
    write_tile_record,
)
from geotranslate.chips.layout import LAYOUTS, TEST_ROOT, root_of
from geotranslate.chips.limits import Tally
from geotranslate.chips.plan import BEYOND_LIMIT, INVALID, TilePlan, count_splits, nothing_left
from geotranslate.errors import ChipsError, OutputError, SettingError, TakenError
from geotranslate.raster.disk import check_room
from geotranslate.raster.domain import Domain
from geotranslate.raster.job import begun_record, refuse_unknown
from geotranslate.raster.output import (
    LOCK_NAME,
    RECORD_NAME,
    as_read,
    check_same_work,
    check_unchanged,
    explained,
    locked,
    write_text,
)

logger = logging.getLogger(__name__)

# A chip, its world file, and what map programs write beside a chip they show.
CHIP_FILE = re.compile(r"\d{9}\.(tif|tfw)(\.part|\.aux\.xml|\.ovr)?")

# What describes chips, finished or not. GeoPackages are begun under another kind of name, and GDAL
# builds their spatial index in a file beside them.
DESCRIPTIONS = (
    TILE_NAME,
    CHIPS_NAME,
    *MOSAIC_NAMES.values(),
    MODEL_DEFINITION,
    ACCUMULATED,
    MAP,
    SUMMARY,
)
FOLDER_FILE = re.compile(
    rf"(\.part\.)?({'|'.join(map(re.escape, DESCRIPTIONS))})"
    r"(\.part|-journal|\.tmp_rtree_\w+\.db(-journal)?)?"
)


@dataclass(frozen=True)
class Progress:
    """How far the cutting is.

    Attributes:
        done: of :attr:`TilePlan.total`.
        kept: pairs, or chips of both domains, that are in the folder.
    """

    done: int
    kept: int


def find_finished(plan: TilePlan, folder: Path) -> TileRecord | None:
    """The record of a folder that is complete already; None where there is work to do.

    What a process left in it that died between its last two steps is removed.

    Raises:
        TakenError: it was made with other settings or scenes.
    """
    if not (folder / TILE_NAME).exists():
        return None
    record = read_tile_record(folder)
    check_same_work(folder, record.settings, dict(plan.record))
    _forget_job(folder)
    return record


def tile_scenes(
    plan: TilePlan, folder: Path, *, workers: int = 1, overwrite: bool = False
) -> Iterator[Progress]:
    """Cut what is planned and complete the folder; ``read_tile_record`` tells what it became.

    Chips that an interrupted run has finished stay as they are. The same plan gives the same
    files, to the byte, however often it was interrupted and whatever the number of workers. A
    folder that is complete already is not touched.

    Args:
        plan: from :func:`~geotranslate.chips.plan.plan_tiles`.
        folder: the chip folder; made where it is missing.
        workers: threads that read, resample and write.
        overwrite: remove the chips that are there, but for those that these words have begun.

    Raises:
        RasterError: a scene is damaged.
        ChipsError: no chip for training is left.
        OutputError: the folder is another's work, in use, or cannot be written.
        SettingError: there are no workers.
    """
    if workers < 1:
        raise SettingError(f"workers is {workers}: nobody would work. Choose 1 or more.")
    if not overwrite and find_finished(plan, folder):
        return
    with _claimed(folder, plan.record, overwrite=overwrite):
        check_room(folder, plan.bytes)
        _make_folders(plan, folder)
        cutter = Cutter(
            folder,
            plan.layout,
            plan.sources,
            min_valid=plan.settings.min_valid,
            resampling=plan.settings.resampling,
        )
        dropped = Counter(plan.dropped)
        records: list[ChipRecord] = []
        done = kept = 0
        try:
            for domain, chips in plan.chips.items():
                taken = 0
                for cut in _cut(plan, domain, cutter, workers):
                    taken += 1
                    kept += bool(cut)
                    done += bool(cut) or plan.settings.limit is None
                    dropped[INVALID] += not cut
                    records += cut
                    yield Progress(done, kept)
                dropped[BEYOND_LIMIT] += len(chips) - taken
        finally:
            cutter.close()
        for sources in plan.sources.values():
            check_unchanged(folder, sources.files)
        records.sort(key=lambda record: (record.domain, record.file))
        _complete(plan, folder, records, +dropped, cutter.tallies)


def _cut(
    plan: TilePlan, domain: str, cutter: Cutter, workers: int
) -> Iterator[tuple[ChipRecord, ...]]:
    """What becomes of each planned chip, until there are as many as the limit allows."""
    waiting = plan.drawn(plan.chips[domain])
    missing = plan.at_most(waiting)
    while waiting and missing:
        # In the order of the scenes, so that each is opened once.
        batch = sorted(waiting[:missing], key=lambda chip: chip.number)
        waiting = waiting[missing:]
        for records in in_order(cutter, batch, workers):
            missing -= bool(records)
            yield records


def _complete(
    plan: TilePlan,
    folder: Path,
    records: Sequence[ChipRecord],
    dropped: Mapping[str, int],
    tallies: Mapping[str, Tally],
) -> None:
    """Write what describes the chips, and last the record by which the folder is complete."""
    counts = {
        domain: count_splits(record.split for record in records if record.domain == domain)
        for domain in plan.sources
    }
    for domain, found in counts.items():
        if not found["train"]:
            total = sum(dropped.values()) + sum(found.values())
            raise ChipsError(nothing_left(f"chip of {domain.upper()} to train on", total, dropped))
        for split, share in zip(found, plan.settings.split, strict=True):
            if share and not found[split]:
                logger.warning(
                    "no chip of %s for %s: the scenes show too few places that lie apart. Give "
                    "more scenes, smaller chips, or another --seed.",
                    domain.upper(),
                    split,
                )
    domains = {domain: _domain(plan, domain, tally) for domain, tally in tallies.items()}
    write_index(folder, records, domains)
    write_metadata(folder, plan.layout, records, domains["a"], domains["b"])
    record = TileRecord(
        version=__version__,
        layout=plan.layout.name,
        paired=plan.layout.paired,
        settings=dict(plan.record),
        domain_a=domains["a"],
        domain_b=domains["b"],
        counts=counts,
        dropped=dict(dropped),
    )
    write_tile_record(folder, record)


def _domain(plan: TilePlan, name: str, tally: Tally) -> Domain:
    sources = plan.sources[name]
    grids = plan.sources["a" if plan.layout.paired else name].grids
    limits = tally.limits()
    return Domain(
        bands=sources.bands,
        dtype=sources.dtype,
        nodata=sources.nodata,
        resolution_m=grids[0].resolution_m,
        decibel=sources.decibel,
        low=tuple(limit.low for limit in limits),
        high=tuple(limit.high for limit in limits),
        clipped=tuple(limit.outside for limit in limits),
    )


@contextmanager
def _claimed(folder: Path, record: Mapping[str, object], *, overwrite: bool) -> Iterator[None]:
    """Hold a chip folder for this process; what is in it belongs to the same work, or goes.

    When the body fails, finished chips stay for the next try; a folder that got none goes.

    Raises:
        OutputError: another process works on it, it holds other work, or it cannot be written.
    """
    _refuse_foreign(folder)
    existed = folder.exists()
    parts = folder / PARTS_NAME
    job = parts / RECORD_NAME
    with explained(folder):
        parts.mkdir(parents=True, exist_ok=True)
    try:
        with locked(parts / LOCK_NAME, folder):
            begun = begun_record(parts)
            if begun is not None and not overwrite:
                check_same_work(folder, begun, dict(record), begun=True)
            elif not overwrite:
                refuse_unknown(parts)
            if begun != as_read(record):
                # Others are to be overwritten; without a record, chips are of unknown make.
                job.unlink(missing_ok=True)
                _clear(folder)
                write_text(job, json.dumps(record, indent=1))
            try:
                yield
            except BaseException as error:
                if isinstance(error, ChipsError) or not _has_chips(folder):
                    _clear(folder)
                    job.unlink()
                raise
            job.unlink()
    finally:
        with suppress(OSError):
            parts.rmdir()
            if not existed:
                folder.rmdir()


def _forget_job(folder: Path) -> None:
    """Remove the record of a job that is finished, unless its process is about to."""
    parts = folder / PARTS_NAME
    if parts.is_dir():
        with suppress(OutputError, OSError):
            with locked(parts / LOCK_NAME, folder):
                for name in (RECORD_NAME, RECORD_NAME + ".part"):
                    (parts / name).unlink(missing_ok=True)
            parts.rmdir()


def _refuse_foreign(folder: Path) -> None:
    """Nothing is overwritten, and nothing added to, that this command has not made."""
    if folder.is_dir():
        ours = (folder / TILE_NAME).exists() or (folder / PARTS_NAME).exists()
        if ours or not any(folder.iterdir()):
            return
        found = "is a folder that holds other files than chips of this command"
    elif folder.exists():
        found = "is a file"
    else:
        return
    raise TakenError(
        f"{folder} {found}, and they could be lost. Choose another output, or remove it yourself."
    )


def _make_folders(plan: TilePlan, folder: Path) -> None:
    chips = [chip for planned in plan.chips.values() for chip in planned]
    with explained(folder):
        for root in {root_of(chip.split) for chip in chips}:
            for domain in plan.sources:
                path = folder / root / plan.layout.folder(domain)
                path.mkdir(parents=True, exist_ok=True)


def _chip_folders(folder: Path) -> set[Path]:
    """Where chips of any layout lie in a folder."""
    return {
        folder / root / chips
        for layout in LAYOUTS.values()
        for chips in (layout.a, layout.b)
        for root in ("", TEST_ROOT)
    }


def _has_chips(folder: Path) -> bool:
    return any(
        CHIP_FILE.fullmatch(file.name)
        for place in _chip_folders(folder)
        for file in place.glob("*.tif")
    )


def _clear(folder: Path) -> None:
    """Remove the files that this command makes, and the folders that are empty then.

    What else a person keeps in them stays. The record goes first: without it the folder counts
    as unfinished.
    """
    chips = _chip_folders(folder)
    above = {place for chip in chips for place in chip.parents if place.is_relative_to(folder)}
    deepest_first = sorted(chips | above, key=lambda place: len(place.parts), reverse=True)
    with explained(folder):
        (folder / TILE_NAME).unlink(missing_ok=True)
        for place in filter(Path.is_dir, deepest_first):
            ours = CHIP_FILE if place in chips else FOLDER_FILE
            for path in list(place.iterdir()):
                if path.is_file() and (
                    ours.fullmatch(path.name) or path.match(NORMALIZATION_CACHE)
                ):
                    path.unlink()
            if place != folder and not any(place.iterdir()):
                place.rmdir()

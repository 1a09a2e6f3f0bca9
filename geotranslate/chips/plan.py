"""Which chips are to be cut: all that can be known before a pixel is read."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from geotranslate.chips.config import TileConfig
from geotranslate.chips.cut import PlannedChip
from geotranslate.chips.layout import LAYOUTS, SPLITS, Layout
from geotranslate.chips.sources import Sources, read_sources
from geotranslate.chips.splits import BETWEEN, draw_order, split_by_blocks
from geotranslate.chips.windows import (
    Windows,
    bounds_in,
    find_cover,
    find_inside,
    fits,
    lay_windows,
)
from geotranslate.errors import ChipsError, GridError, SettingError
from geotranslate.raster.area import read_area
from geotranslate.raster.grid import Grid, spell_place
from geotranslate.raster.writing import check_crs

logger = logging.getLogger(__name__)

UNCOVERED = "not covered by scenes of B"
OUTSIDE = "not inside the area of interest"
BETWEEN_SPLITS = "between two splits"
INVALID = "too few valid pixels"
BEYOND_LIMIT = "beyond the limit"

MENDS = {
    UNCOVERED: "Give scenes of B that cover more of A's, or a smaller --min-valid.",
    OUTSIDE: "Draw a larger area, take smaller chips with --size, or say --aoi-touching.",
    BETWEEN_SPLITS: "Give more scenes, take smaller chips with --size, or say --split 1,0,0.",
    INVALID: "Accept chips with fewer valid pixels by --min-valid, or check the nodata value.",
    BEYOND_LIMIT: "Allow more with --limit.",
}

NAMES_SHOWN = 5


@dataclass(frozen=True)
class TilePlan:
    """What is to be cut.

    Attributes:
        settings: as resolved.
        layout: how the chips will lie.
        sources: the scenes of "a" and "b".
        chips: by the domain on whose grids they lie; pairs stand under "a".
        dropped: windows that become no chip, by the reason.
        record: settings and scenes as JSON values: what must be the same to go on.
    """

    settings: TileConfig
    layout: Layout
    sources: Mapping[str, Sources]
    chips: Mapping[str, Sequence[PlannedChip]]
    dropped: Mapping[str, int]
    record: Mapping[str, object]

    @property
    def total(self) -> int:
        """Pairs, or chips of both domains, that there will be at most."""
        return sum(map(self.at_most, self.chips.values()))

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Chips that there will be at most, by domain and split."""
        counts = {
            domain: count_splits(chip.split for chip in self.drawn(chips)[: self.at_most(chips)])
            for domain, chips in self.chips.items()
        }
        return {"a": counts["a"], "b": counts.get("b", counts["a"])}

    @property
    def bytes(self) -> int:
        """Size of these chips' pixels, before compression."""
        area = self.settings.size**2
        return sum(
            sum(counts.values()) * area * self.sources[domain].pixel_bytes
            for domain, counts in self.counts.items()
        )

    def at_most(self, chips: Sequence[PlannedChip]) -> int:
        """How many of a domain's chips the limit leaves."""
        return min(len(chips), self.settings.limit or len(chips))

    def drawn(self, chips: Sequence[PlannedChip]) -> list[PlannedChip]:
        """A domain's chips in the order in which a limit takes them."""
        if self.settings.limit is None:
            return list(chips)
        splits = np.array([SPLITS.index(chip.split) for chip in chips])
        return [chips[index] for index in draw_order(splits, self.settings.seed)]


class Sieve:
    """Windows of a domain that pass one filter after the other.

    Attributes:
        windows: all that there are.
        kept: (n,) True where a window has passed so far.
        dropped: how many each filter took, by the reason.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.kept = np.ones(len(windows), bool)
        self.dropped: Counter[str] = Counter()

    def keep(self, passed: NDArray[np.bool_], reason: str) -> None:
        """Take out the windows that do not pass.

        Raises:
            ChipsError: none is left.
        """
        lost = self.kept & ~passed
        if lost.any():
            self.dropped[reason] += int(lost.sum())
            self.kept &= passed
            if not self.kept.any():
                raise ChipsError(nothing_left("chip", len(self.windows), self.dropped))


def plan_tiles(settings: TileConfig) -> TilePlan:
    """Find the scenes and decide which windows to cut; nothing is written.

    Raises:
        RasterError: a scene is missing, damaged, or of a kind that cannot be cut.
        BandError: a band is not there, or the scenes of a domain are not of one kind.
        GridError: A and B do not meet, pixel sizes within a domain do not go together, or a
            GeoTIFF cannot hold the CRS of chips.
        SettingError: no scene is as large as a chip, or the area of interest is of no use.
        ChipsError: no window is left.
    """
    layout = LAYOUTS[settings.layout]
    sources = {
        "a": read_sources(
            settings.a, bands=settings.bands_a, nodata=settings.nodata_a, decibel=settings.decibel_a
        ),
        "b": read_sources(
            settings.b, bands=settings.bands_b, nodata=settings.nodata_b, decibel=settings.decibel_b
        ),
    }
    domains = ["a"] if layout.paired else ["a", "b"]
    for domain in domains:
        for grid in sources[domain].grids:
            check_crs(grid)
    sieves = {domain: Sieve(_lay(domain, sources[domain], settings)) for domain in domains}
    partners: tuple[tuple[int, ...], ...] = ()
    if layout.paired:
        partners = _keep_covered(sieves["a"], sources, settings)
    if settings.aoi:
        _keep_inside(list(sieves.values()), settings.aoi, touching=settings.aoi_touching)
    chips = {}
    for domain, splits in zip(domains, _split(list(sieves.values()), settings), strict=True):
        sieve = sieves[domain]
        chips[domain] = [
            PlannedChip(
                domain=domain,
                number=number,
                scene=int(sieve.windows.scene[index]),
                window=sieve.windows.window(index),
                split=SPLITS[splits[index]],
                partners=partners[index] if partners else (),
            )
            for number, index in enumerate(np.flatnonzero(sieve.kept).tolist())
        ]
        if not any(chip.split == "train" for chip in chips[domain]):
            what = f"chip of {domain.upper()} to train on"
            raise ChipsError(nothing_left(what, len(sieve.windows), sieve.dropped))
    return TilePlan(
        settings=settings,
        layout=layout,
        sources=sources,
        chips=chips,
        dropped=sum((sieve.dropped for sieve in sieves.values()), Counter()),
        record=_record(settings, sources),
    )


def count_splits(splits: Iterable[str]) -> dict[str, int]:
    """How many there are of each split, also where there is none."""
    return {**dict.fromkeys(SPLITS, 0), **Counter(splits)}


def nothing_left(what: str, total: int, dropped: Mapping[str, int]) -> str:
    """The sentence for windows of which no filter left any."""
    most = max(dropped, key=lambda reason: dropped[reason], default=BETWEEN_SPLITS)
    lost = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none dropped"
    return f"no {what} is left of {total} windows: {lost}. {MENDS[most]}"


def _lay(domain: str, sources: Sources, settings: TileConfig) -> Windows:
    """The windows of a domain's scenes; says which scenes are too small for one."""
    size = settings.size
    small = [index for index, grid in enumerate(sources.grids) if not fits(grid, size)]
    if len(small) == len(sources.grids):
        most = max(min(grid.shape) for grid in sources.grids)
        raise SettingError(
            f"no scene of {domain.upper()} is as large as a chip of {size} px: the largest square "
            f"in one has {most} px. Choose --size {most} or less."
        )
    if small:
        names = [
            f"{sources.paths[index]} ({sources.grids[index].height} x "
            f"{sources.grids[index].width} px)"
            for index in small
        ]
        logger.warning("smaller than a chip of %d px, skipped: %s", size, _some(names))
    return lay_windows(sources.grids, size=size, stride=settings.stride)


def _keep_covered(
    sieve: Sieve, sources: Mapping[str, Sources], settings: TileConfig
) -> tuple[tuple[int, ...], ...]:
    """Keep windows that scenes of B may fill; gives the scenes under each window."""
    cover = find_cover(sieve.windows, sources["b"].grids)
    if not cover.share.any():
        places = [_place_of(sources[domain].grids) for domain in "ab"]
        raise GridError(
            f"no scene of B lies where one of A does: A covers {places[0]}, B covers {places[1]}. "
            "Without common ground there are no pairs: check the coordinate systems, or cut "
            "the domains alone with --layout cyclegan."
        )
    # The middle of a pixel at the rim may be covered though half of the pixel is not.
    least = settings.min_valid - 2 / settings.size
    sieve.keep((cover.share > 0) & (cover.share >= least), UNCOVERED)
    return cover.scenes


def _keep_inside(sieves: Sequence[Sieve], path: str, *, touching: bool) -> None:
    every = [grid for sieve in sieves for grid in sieve.windows.grids]

    @cache
    def area_in(crs: CRS) -> BaseGeometry:
        return read_area(path, crs, bounds_in(every, crs)).shape

    for sieve in sieves:
        grids = sieve.windows.grids
        if not find_inside(sieve.windows, area_in, touching=True).any():
            crs = grids[0].crs
            area = read_area(path, crs, bounds_in(every, crs))
            raise SettingError(
                f"the area of interest {path} lies outside the scenes: it covers "
                f"{spell_place([(area.drawn_crs, area.drawn_bounds)])}, they cover "
                f"{_place_of(grids)}. Draw it where the scenes are, or check its coordinate "
                "system."
            )
        sieve.keep(find_inside(sieve.windows, area_in, touching=touching), OUTSIDE)


def _split(sieves: Sequence[Sieve], settings: TileConfig) -> list[NDArray[np.int64]]:
    """The split of each window of each domain; those between two splits are taken out."""
    found = split_by_blocks(
        [sieve.windows.select(sieve.kept) for sieve in sieves], settings.split, settings.seed
    )
    every = []
    for sieve, splits in zip(sieves, found, strict=True):
        laid = np.full(len(sieve.windows), BETWEEN)
        laid[sieve.kept] = splits
        sieve.keep(laid != BETWEEN, BETWEEN_SPLITS)
        every.append(laid)
    return every


def _record(settings: TileConfig, sources: Mapping[str, Sources]) -> dict[str, object]:
    words = json.loads(settings.model_dump_json())
    for domain, found in sources.items():
        # By their place too: it decides a chip's number, and which scene of B lies on top.
        words[domain] = {
            f"{place} {identity['path']}": identity
            for place, identity in enumerate(found.identities, start=1)
        }
    if settings.aoi:
        grids = sources["a"].grids
        crs = grids[0].crs
        area = read_area(settings.aoi, crs, bounds_in(grids, crs))
        words["aoi"] = area.identity
    record: dict[str, object] = json.loads(json.dumps(words))
    return record


def _place_of(grids: Iterable[Grid]) -> str:
    """Where grids lie together, in words."""
    return spell_place((grid.crs, grid.bounds) for grid in grids)


def _some(names: Sequence[str]) -> str:
    """A list for a message, not longer than a person reads."""
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")

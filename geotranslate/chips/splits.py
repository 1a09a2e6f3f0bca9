"""Train, val and test by map blocks, so that no place is in two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geotranslate.chips.layout import SPLITS
from geotranslate.chips.windows import RIM, Windows, distinct_systems
from geotranslate.errors import GridError

# Cylindrical and of equal area: one plane for scenes whose CRSs differ, wherever they lie.
WORLD = CRS.from_epsg(6933)

BETWEEN = -1
"""The split of a window that reaches into map blocks of two splits."""

MAP_BLOCK_SIDES = (8, 6, 4, 3, 2, 1)
"""Sides of map blocks to try, in windows."""

DRAWS = 8
CLOSE_ENOUGH = 0.2

# No window is twice as wide as the widest, unless the map cuts it apart at 180 degrees.
LARGEST = 2.0


def split_by_blocks(
    domains: Sequence[Windows], shares: tuple[float, float, float], seed: int
) -> list[NDArray[np.int64]]:
    """Put windows into train, val and test so that no place on the map is in two of them.

    The map is divided into square map blocks, each block belongs to one split, and a window that
    reaches into blocks of two splits is left out. Large blocks lose fewer windows, small ones
    meet the shares better. So blocks of 8 windows a side are tried first, then smaller ones, with
    a few draws each, until every split has its share of the windows to within a fifth; where
    that is never so, the draw that comes closest counts.

    Args:
        domains: windows of one domain or two, none empty; all are split by the same blocks.
        shares: of train, val and test; their sum is 1.
        seed: of the draws.

    Returns:
        for each domain (n,) indexes into ``SPLITS``, or BETWEEN.

    Raises:
        GridError: scenes have no common map.
    """
    asked = np.flatnonzero(shares)
    if len(asked) == 1:
        return [np.full(len(windows), asked[0], np.int64) for windows in domains]
    maps = _on_one_map(domains)
    placed = [np.flatnonzero(np.isfinite(places).all(axis=1)) for places in maps]
    known = [places[here] for places, here in zip(maps, placed, strict=True)]
    best: list[NDArray[np.int64]] = []
    least = True, len(SPLITS), np.inf
    for side in MAP_BLOCK_SIDES:
        if least <= (False, 0, CLOSE_ENOUGH):
            break
        blocks = _lay_blocks(known, side, RIM / domains[0].size)
        for draw in range(DRAWS):
            owners = _deal(blocks.weights, shares, np.random.default_rng([seed, side, draw]))
            splits = [_split_of(reached, owners) for reached in blocks.reached]
            miss = _miss(splits, shares)
            if miss < least:
                best, least = splits, miss
    result = [np.full(len(windows), BETWEEN, np.int64) for windows in domains]
    for every, here, found in zip(result, placed, best, strict=True):
        every[here] = found
    return result


def draw_order(splits: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """An order in which any first part has about the same shares of splits as the whole.

    Args:
        splits: (n,) index of each item's split.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    place = np.zeros(len(splits))
    for split in np.unique(splits):
        members = np.flatnonzero(splits == split)
        place[members] = (generator.permutation(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")


@dataclass(frozen=True)
class _MapBlocks:
    """Square blocks of the map, and the windows of each domain in them.

    Attributes:
        weights: (blocks,) share of the windows that have their middle in a block.
        reached: for each domain (k, n) indexes of the blocks that a window reaches into; one
            that reaches into fewer than k is in some twice.
    """

    weights: NDArray[np.float64]
    reached: list[NDArray[np.int64]]


def _on_one_map(domains: Sequence[Windows]) -> list[NDArray[np.float64]]:
    """For each domain (n, 4) left, top, right, bottom, in sides of the largest window.

    They are counted to the right and down from the corner where the windows begin. A window
    without a place on the map, or one that the map cuts apart at 180 degrees, is NaN.
    """
    systems = distinct_systems([grid for windows in domains for grid in windows.grids])
    crs = systems[0] if len(systems) == 1 else WORLD
    bounds = [shapely.bounds(windows.outlines(crs)) for windows in domains]
    scenes = [
        box[windows.scene == scene]
        for windows, box in zip(domains, bounds, strict=True)
        for scene in np.unique(windows.scene)
    ]
    if any(np.isnan(box).all() for box in scenes):
        raise GridError(
            f"scenes lie in {len(systems)} coordinate systems, and not all have a place on the map "
            "of the world, so nobody knows which chips show the same ground. Give scenes of one "
            "coordinate system, or say --split 1,0,0."
        )
    width = max(float(np.nanmedian(box[:, 2] - box[:, 0])) for box in scenes)
    height = max(float(np.nanmedian(box[:, 3] - box[:, 1])) for box in scenes)
    left = min(float(np.nanmin(box[:, 0])) for box in bounds)
    top = max(float(np.nanmax(box[:, 3])) for box in bounds)
    maps = []
    for box in bounds:
        x, y = (box[:, [0, 2]] - left) / width, (top - box[:, [3, 1]]) / height
        places = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
        cut_apart = ~np.less_equal(places[:, 2:] - places[:, :2], LARGEST).all(axis=1)
        places[cut_apart] = np.nan
        maps.append(places)
    return maps


def _lay_blocks(maps: Sequence[NDArray[np.float64]], side: int, rim: float) -> _MapBlocks:
    """Map blocks of ``side`` by ``side`` windows; ``rim`` of a window may reach over unseen."""
    keys, homes = [], []
    for places in maps:
        first = np.floor((places[:, :2] + rim) / side).astype(np.int64)
        last = np.ceil((places[:, 2:] - rim) / side).astype(np.int64) - 1
        steps = range(int((last - first).max(initial=0)) + 1)
        reached = [np.minimum(first + np.array([x, y]), last) for x in steps for y in steps]
        keys.append(_key(np.stack(reached)))
        middle = (places[:, :2] + places[:, 2:]) / 2
        homes.append(_key(np.floor(middle / side).astype(np.int64)))
    every = np.unique(np.concatenate([key.ravel() for key in keys]))
    weights = np.zeros(len(every))
    for home in homes:
        weights += np.bincount(np.searchsorted(every, home), minlength=len(every)) / len(home)
    return _MapBlocks(weights, [np.searchsorted(every, key) for key in keys])


def _key(blocks: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for a map block's column and row, (..., 2)."""
    column, row = blocks[..., 0], blocks[..., 1]
    return (column << 32) + row


def _deal(
    weights: NDArray[np.float64], shares: tuple[float, float, float], generator: np.random.Generator
) -> NDArray[np.int64]:
    """The split of each map block: in random order, each goes to the split that lacks most.

    As long as there are blocks for it each split that was asked for gets one, train first.
    """
    share = np.array(shares)
    wanted = share * weights.sum()
    empty = share > 0
    owners = np.empty(len(weights), np.int64)
    for dealt, block in enumerate(generator.permutation(len(weights))):
        enough = len(weights) - dealt > empty.sum()
        owner = np.argmax(np.where(share > 0, wanted, -np.inf) if enough else empty)
        owners[block] = owner
        wanted[owner] -= weights[block]
        empty[owner] = False
    return owners


def _split_of(reached: NDArray[np.int64], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """The split of windows whose blocks all belong to it, else BETWEEN."""
    splits = owners[reached]
    return np.where((splits == splits[0]).all(axis=0), splits[0], BETWEEN)


def _miss(
    splits: Sequence[NDArray[np.int64]], shares: tuple[float, float, float]
) -> tuple[bool, int, float]:
    """How badly windows are divided: nothing to train on, empty splits, largest miss of a share.

    A miss is counted in parts of its share: 5 % instead of 10 % of the windows is 0.5.
    """
    asked = np.array(shares) > 0
    counts = np.array([np.bincount(s[s >= 0], minlength=len(SPLITS)) / len(s) for s in splits])
    empty = (counts == 0) & asked
    misses = np.abs(counts[:, asked] / np.array(shares)[asked] - 1)
    return bool(empty[:, 0].any()), int(empty.sum()), float(misses.max())

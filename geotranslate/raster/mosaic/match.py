"""Radiometric match: scenes agree where they overlap, by one solution for all of them.

Each scene has unknowns of its own: the logarithm of its gain, or shifts at knots of its histogram.
Each pair that overlaps says by how much the two should approach each other. All is solved at once
by least squares, reweighted so that pairs that contradict the rest count less (Huber 1964).
Balancing gains over all overlaps follows Brown and Lowe 2007 (Automatic panoramic image stitching
using invariant features, section 6), in logarithms, which makes it linear; moving histograms to
meet half-way is midway equalization (Delon 2004, J. Math. Imaging Vis. 21), for a network of
overlaps instead of one pair.

What all scenes could change in common is fixed by the anchor: it does not change; or, without one,
by the smallest change of all, whose mean over the scenes is none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from geotranslate.errors import SettingError
from geotranslate.raster.domain import Band, to_physical
from geotranslate.raster.mosaic.adjustment import Adjustment, constant
from geotranslate.raster.mosaic.layers import Layers
from geotranslate.raster.mosaic.plan import MosaicPlan, find_anchor
from geotranslate.raster.output import write_text
from geotranslate.raster.reading import open_dataset

MATCH_NAME = "match.json"
MATCH_TAG = "GEOTRANSLATE_MATCH"

# Of each overlap: windows of this side, in a fixed random order, until so many pixels are valid in
# both scenes, or so many windows were looked at.
PLACE = 64
SHARED_PIXELS = 50_000
MOST_PLACES = 256

# Side of the cells averaged before a gain judges what has changed. 16 pixels of one look against
# many take the skew to less than 0.2 %; larger cells would all hold a bit of what has changed.
CELL = 4

# An overlap with fewer says nothing.
LEAST_SHARED = 64

# Quantiles compared in each overlap, and knots of each scene's curve.
QUANTILES = np.linspace(0.01, 0.99, 33)
KNOTS = 17

# Against each pair's weight: how much the curve of a histogram is kept smooth, and how much all
# unknowns are drawn to no change, which decides only what the overlaps leave open.
SMOOTH = 1e-2
NO_CHANGE = 1e-9

ROUNDS = 8

# Residuals beyond so many robust standard deviations count less (95 % efficient for a normal).
HUBER = 1.345


# Physical values of two scenes, (2, bands, rows, cols), and where both are valid.
Look: TypeAlias = tuple[NDArray[np.float64], NDArray[np.bool_]]

# Levels and weights of Shared.
Levels: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Shared:
    """What two scenes say about the same places, in few numbers: there are many pairs.

    Attributes:
        one: index of the first scene.
        other: of the second.
        levels: (2, bands, levels), of both: what should become equal.
        weights: (bands,) pixels the levels rest on; 0 where they say nothing.
    """

    one: int
    other: int
    levels: NDArray[np.float64]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class _Equations:
    """Rows of ``matrix @ unknowns = wanted``, each with its weight."""

    matrix: Any
    wanted: NDArray[np.float64]
    weights: NDArray[np.float64]


def match_scenes(
    plan: MosaicPlan, scratch: Path
) -> Generator[int, None, Sequence[Adjustment | None]]:
    """Find out how each scene is changed, and keep it for a job that goes on.

    Args:
        plan: with pairs to be matched, or none.
        scratch: folder of the job.

    Yields:
        How many of the plan's pairs were looked at.

    Returns:
        How the values of each piece are changed; None where nothing is matched.

    Raises:
        SettingError: the scenes are not all joined by overlaps, or have values without a gain.
    """
    if plan.settings.match is None or len(plan.pieces) < 2:
        return [None] * len(plan.pieces)
    names = [piece.path for piece in plan.pieces]
    path = scratch / MATCH_NAME
    if path.exists():
        yield len(plan.pairs)
        return [Adjustment(**words) for words in json.loads(path.read_text())]
    shared = []
    # In one thread: of windows this small, four take longer.
    with closing(Layers(plan, [None] * len(plan.pieces), {})) as layers:
        for done, pair in enumerate(plan.pairs, start=1):
            if (found := _compare(plan, layers, *pair)) is not None:
                shared.append(found)
            yield done
    check_joined(names, [(each.one, each.other) for each in shared])
    anchor = find_anchor(plan.settings.anchor, names)
    solve = solve_gains if plan.settings.match == "gain" else solve_histograms
    solved = solve(plan, shared, anchor)
    write_text(path, json.dumps([asdict(each) for each in solved]))
    return solved


def match_tags(plan: MosaicPlan, adjustments: Sequence[Adjustment | None]) -> dict[str, str]:
    """The metadata by which a finished mosaic says how each scene was changed."""
    if plan.settings.match is None:
        return {}
    found = {
        piece.path: {
            band.name: _change(plan, adjustment, number) for number, band in enumerate(plan.bands)
        }
        for piece, adjustment in zip(plan.pieces, adjustments, strict=True)
        if adjustment is not None
    }
    return {MATCH_TAG: json.dumps(found)}


def read_match(mosaic: Path) -> dict[str, dict[str, dict[str, float]]]:
    """How scenes were changed for a finished mosaic: by path and band.

    ``gain`` is what physical values were multiplied by. Of decibels and of histograms it is not
    there, but ``least_shift`` and ``most_shift``, between which is what was added to physical
    values. Nothing where nothing was matched.
    """
    with open_dataset(mosaic) as dataset:
        found: dict[str, dict[str, dict[str, float]]] = json.loads(
            dataset.tags().get(MATCH_TAG, "{}")
        )
    return found


def _change(plan: MosaicPlan, adjustment: Adjustment, number: int) -> dict[str, float]:
    """What :func:`read_match` says of one band, in six digits."""
    shifts = adjustment.shifts[number]
    if plan.settings.match == "gain" and not plan.bands[number].in_decibels:
        said = {"gain": adjustment.factor[number]}
    else:
        said = {"least_shift": min(shifts), "most_shift": max(shifts)}
    return {name: float(f"{value:.6g}") for name, value in said.items()}


def solve_gains(plan: MosaicPlan, shared: Sequence[Shared], anchor: int | None) -> list[Adjustment]:
    """One gain a scene and band; of decibels a shift, which is a gain of what they stand for.

    Raises:
        SettingError: without overlaps whose values have no logarithm, scenes come apart.
    """
    count = len(plan.pieces)
    factors, shifts = np.ones((count, len(plan.bands))), np.zeros((count, len(plan.bands)))
    for number, band in enumerate(plan.bands):
        bright = [each for each in shared if each.weights[number] > 0]
        _check_bright(plan, band, shared, bright)
        one, other = np.array([each.levels[:, number, 0] for each in bright]).T
        equations = _Equations(
            _differences(bright, count),
            np.log(other / one),
            np.array([each.weights[number] for each in bright]),
        )
        unknowns = _solve(equations, _held(count, anchor, 1))
        if band.in_decibels:
            shifts[:, number] = 10 / math.log(10) * unknowns
        else:
            factors[:, number] = np.exp(unknowns)
    return [constant(*pair) for pair in zip(factors.tolist(), shifts.tolist(), strict=True)]


def solve_histograms(
    plan: MosaicPlan, shared: Sequence[Shared], anchor: int | None
) -> list[Adjustment]:
    """A growing curve for each scene and band, so that quantiles of overlaps agree."""
    count, bands = len(plan.pieces), len(plan.bands)
    curves = [_solve_curves(shared, count, number, anchor) for number in range(bands)]
    return [
        Adjustment(
            (1.0,) * bands,
            tuple(tuple(knots[scene].tolist()) for knots, _ in curves),
            tuple(tuple(shifts[scene].tolist()) for _, shifts in curves),
        )
        for scene in range(count)
    ]


def _compare(plan: MosaicPlan, layers: Layers, one: int, other: int) -> Shared | None:
    """What a pair says; None where hardly a pixel is shared."""
    levels_of = _mean_levels if plan.settings.match == "gain" else _quantile_levels
    found = levels_of(_look_at(plan, layers, one, other), plan.bands)
    return None if found is None else Shared(one, other, *found)


def _look_at(plan: MosaicPlan, layers: Layers, one: int, other: int) -> Iterator[Look]:
    """Two pieces at places all over their overlap, until enough pixels are valid in both."""
    overlap = plan.pieces[one].window.intersection(plan.pieces[other].window)
    overlap = overlap.intersection(plan.grid.whole)
    rows, cols = -(-int(overlap.height) // PLACE), -(-int(overlap.width) // PLACE)
    pixels = 0
    for index in np.random.default_rng(0).permutation(rows * cols)[:MOST_PLACES]:
        row, col = divmod(int(index), cols)
        place = Window(
            col_off=overlap.col_off + col * PLACE,
            row_off=overlap.row_off + row * PLACE,
            width=PLACE,
            height=PLACE,
        ).intersection(overlap)
        ours, theirs = (layers.read(piece, place, weighted=False) for piece in (one, other))
        if ours is None or theirs is None:
            continue
        stored = np.stack([ours.pixels, theirs.pixels])
        valid = ours.valid & theirs.valid
        if np.issubdtype(plan.dtype, np.integer):
            # What is saturated is darker than the scene was.
            valid &= (stored < np.iinfo(plan.dtype).max).all(axis=(0, 1))
        yield np.stack([to_physical(each, plan.bands) for each in stored]), valid
        pixels += int(valid.sum())
        if pixels >= SHARED_PIXELS:
            break


def _mean_levels(looks: Iterable[Look], bands: Sequence[Band]) -> Levels | None:
    """The mean of each band where nothing has changed, of decibels that of their power.

    What has changed is judged by the ratio of cells, since that of pixels is skewed where one
    scene has more speckle than the other, and leaving out its ends would shift the gain.
    """
    sums, counts = [np.zeros((2, len(bands), 0))], [np.zeros(0)]
    decibels = np.array([band.in_decibels for band in bands])
    for values, valid in looks:
        # What is invalid may be any number.
        numbers = np.where(valid, values, 0.0)
        numbers[:, decibels] = 10 ** (numbers[:, decibels] / 10) * valid
        sums.append(_cell_sums(numbers).reshape(2, len(bands), -1))
        counts.append(_cell_sums(valid.astype(float)).ravel())
    total, pixels = np.concatenate(sums, axis=-1), np.concatenate(counts)
    if pixels.sum() < LEAST_SHARED:
        return None
    levels, weights = np.ones((2, len(bands), 1)), np.zeros(len(bands))
    for number in range(len(bands)):
        bright = (total[:, number] > 0).all(axis=0)
        if pixels[bright].sum() < LEAST_SHARED:
            continue
        ours, theirs = total[:, number, bright]
        same = _unchanged(np.log(ours / theirs))
        weights[number] = pixels[bright][same].sum()
        levels[:, number, 0] = ours[same].sum(), theirs[same].sum()
        levels[:, number] /= weights[number]
    return levels, weights


def _cell_sums(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums (..., cells down, cells across) over squares of CELL pixels."""
    for axis in (-2, -1):
        starts = np.arange(0, numbers.shape[axis], CELL)
        numbers = np.add.reduceat(numbers, starts, axis=axis)
    return numbers


def _quantile_levels(looks: Iterable[Look], bands: Sequence[Band]) -> Levels | None:
    """QUANTILES of each band."""
    found = [values[..., valid] for values, valid in looks]
    pixels = sum(each.shape[-1] for each in found)
    if pixels < LEAST_SHARED:
        return None
    levels = np.quantile(np.concatenate(found, axis=-1), QUANTILES, axis=-1)
    return np.moveaxis(levels, 0, -1), np.full(len(bands), float(pixels))


def check_joined(names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> None:
    """Refuse scenes that nothing holds together.

    Raises:
        SettingError: there are several groups without an overlap between them.
    """
    groups = _groups(names, pairs)
    if len(groups) > 1:
        raise SettingError(
            f"the rasters fall into {len(groups)} groups without valid pixels in common "
            f"({_spell_groups(groups)}), so nothing says how bright one should be beside another. "
            "Match and join each group alone, add a raster that links them, or leave out --match."
        )


def _check_bright(
    plan: MosaicPlan, band: Band, shared: Sequence[Shared], bright: Sequence[Shared]
) -> None:
    """Refuse a band whose gains nothing holds together.

    Raises:
        SettingError: values above 0 join the scenes in several groups only.
    """
    groups = _groups(
        [piece.path for piece in plan.pieces], [(each.one, each.other) for each in bright]
    )
    if len(groups) > 1:
        raise SettingError(
            f"band {band.name!r} has hardly a value above 0 in {len(shared) - len(bright)} of "
            f"{len(shared)} overlaps, and without them the rasters fall into {len(groups)} groups "
            f"({_spell_groups(groups)}) that no gain can bring together. Choose --match "
            "histogram, or add a raster that links them. If the values are decibels, say so in "
            "each raster: `rio edit-info --bidx NUMBER --units dB "
            f"{plan.pieces[0].path}`, with the band's number."
        )


def _groups(names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[list[str]]:
    """Names in groups that pairs join, directly or by way of others."""
    ends = np.array(pairs, np.intp).reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(len(names),) * 2)
    count, group = connected_components(graph, directed=False)
    return [
        [name for name, g in zip(names, group, strict=True) if g == each] for each in range(count)
    ]


def _spell_groups(groups: Sequence[Sequence[str]]) -> str:
    return "; ".join(
        f"{members[0]}" + (f" and {len(members) - 1} more" if len(members) > 1 else "")
        for members in groups[:4]
    ) + ("; ..." if len(groups) > 4 else "")


def _unchanged(apart: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which differences lie within three robust standard deviations of their median."""
    away = np.abs(apart - np.median(apart))
    return np.asarray(away <= max(3 * 1.4826 * float(np.median(away)), 1e-12))


def _differences(shared: Sequence[Shared], count: int) -> Any:
    """(pairs, scenes): 1 for the first scene of a pair, -1 for the second."""
    rows = np.repeat(np.arange(len(shared)), 2)
    cols = np.array([(each.one, each.other) for each in shared]).ravel()
    signs = np.tile([1.0, -1.0], len(shared))
    return sparse.csr_array((signs, (rows, cols)), shape=(len(shared), count))


def _solve_curves(
    shared: Sequence[Shared], count: int, number: int, anchor: int | None
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Knots and shifts of each scene for one band."""
    seen: list[list[NDArray[np.float64]]] = [[] for _ in range(count)]
    quantiles = [each.levels[:, number] for each in shared]
    for each, (ours, theirs) in zip(shared, quantiles, strict=True):
        seen[each.one].append(ours)
        seen[each.other].append(theirs)
    levels = np.linspace(0, 1, KNOTS)
    knots = [np.unique(np.quantile(np.concatenate(values), levels)) for values in seen]
    starts = np.concatenate([[0], np.cumsum([len(each) for each in knots])])
    blocks, wanted, weights = [], [], []
    for each, (ours, theirs) in zip(shared, quantiles, strict=True):
        rows = _hats(ours, knots[each.one], starts[each.one], starts[-1])
        blocks.append(rows - _hats(theirs, knots[each.other], starts[each.other], starts[-1]))
        wanted.append(theirs - ours)
        weights.append(np.full(len(ours), each.weights[number] / len(ours)))
    typical = np.concatenate(weights).mean()
    steps = _neighbours(knots, starts)
    blocks.append(steps)
    wanted.append(np.zeros(steps.shape[0]))
    weights.append(np.full(steps.shape[0], SMOOTH * typical))
    equations = _Equations(
        sparse.vstack(blocks).tocsr(), np.concatenate(wanted), np.concatenate(weights)
    )
    held = np.zeros(starts[-1], bool)
    if anchor is not None:
        held[starts[anchor] : starts[anchor + 1]] = True
    unknowns = _solve(equations, held)
    shifts = []
    for scene, at in enumerate(knots):
        moved = at + unknowns[starts[scene] : starts[scene + 1]]
        # Darker stays darker.
        shifts.append(np.maximum.accumulate(moved) - at)
    return knots, shifts


def _hats(values: NDArray[np.float64], knots: NDArray[np.float64], start: int, width: int) -> Any:
    """(values, width): how much of the shift at each knot a value gets; constant beyond."""
    above = np.clip(np.searchsorted(knots, values), 1, max(len(knots) - 1, 1))
    below = above - 1
    above = np.minimum(above, len(knots) - 1)
    span = np.where(above > below, knots[above] - knots[below], 1.0)
    share = np.clip((values - knots[below]) / span, 0.0, 1.0)
    share = np.where(above > below, share, 0.0)
    rows = np.arange(len(values))
    return sparse.csr_array(
        (
            np.concatenate([1 - share, share]),
            (np.tile(rows, 2), np.concatenate([below, above]) + start),
        ),
        shape=(len(values), width),
    )


def _neighbours(knots: Sequence[NDArray[np.float64]], starts: NDArray[np.intp]) -> Any:
    """(steps, unknowns): the difference of shifts at neighbouring knots of each scene."""
    firsts = np.concatenate(
        [
            np.arange(start, start + len(at) - 1)
            for at, start in zip(knots, starts[:-1], strict=True)
        ]
    )
    rows = np.arange(len(firsts))
    return sparse.csr_array(
        (
            np.repeat([-1.0, 1.0], len(firsts)),
            (np.tile(rows, 2), np.concatenate([firsts, firsts + 1])),
        ),
        shape=(len(firsts), int(starts[-1])),
    )


def _held(count: int, anchor: int | None, each: int) -> NDArray[np.bool_]:
    held = np.zeros(count * each, bool)
    if anchor is not None:
        held[anchor] = True
    return held


def _solve(equations: _Equations, held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The unknowns that fulfil weighted equations best; those held are 0."""
    matrix = equations.matrix[:, ~held]
    weights = equations.weights.copy()
    unknowns = np.zeros(len(held))
    for _ in range(ROUNDS):
        weighted = matrix.T @ sparse.diags_array(weights)
        normal = (weighted @ matrix).tocsc()
        typical = weights.mean()
        normal = normal + NO_CHANGE * typical * sparse.eye_array(normal.shape[0], format="csc")
        found = np.atleast_1d(spsolve(normal.tocsc(), weighted @ equations.wanted))
        unknowns[~held] = found
        rest = np.abs(matrix @ found - equations.wanted)
        scale = HUBER * max(1.4826 * float(np.median(rest)), 1e-9)
        weights = equations.weights * np.minimum(1, scale / np.maximum(rest, scale))
    return unknowns

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
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from geotranslate.errors import SettingError
from geotranslate.raster.domain import to_physical
from geotranslate.raster.mosaic.adjustment import Adjustment, constant
from geotranslate.raster.mosaic.layers import Layers
from geotranslate.raster.mosaic.plan import MosaicPlan, names_of
from geotranslate.raster.output import write_text

MATCH_NAME = "match.json"

# Of each overlap: windows of this side, in a fixed random order, until so many pixels are valid in
# both scenes, or so many windows were looked at.
PLACE = 64
SHARED_PIXELS = 20_000
MOST_PLACES = 256

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


@dataclass(frozen=True)
class Shared:
    """What two scenes say about the same places.

    Attributes:
        one: index of the first scene.
        other: of the second.
        values: (2, bands, pixels), physical, of both.
    """

    one: int
    other: int
    values: NDArray[np.float64]


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
    _check_joined(names, plan.pairs)
    path = scratch / MATCH_NAME
    if path.exists():
        yield len(plan.pairs)
        return [Adjustment(**words) for words in json.loads(path.read_text())]
    shared = []
    with closing(Layers(plan, [None] * len(plan.pieces), {})) as layers:
        for done, pair in enumerate(plan.pairs, start=1):
            found = _look_at(plan, layers, *pair)
            if found.values.shape[-1] >= LEAST_SHARED:
                shared.append(found)
            yield done
    _check_joined(names, [(each.one, each.other) for each in shared])
    anchor = next(
        (i for i, name in enumerate(names) if plan.settings.anchor in names_of(name)), None
    )
    solve = solve_gains if plan.settings.match == "gain" else solve_histograms
    solved = solve(plan, shared, anchor)
    write_text(path, json.dumps([asdict(each) for each in solved]))
    return solved


def solve_gains(plan: MosaicPlan, shared: Sequence[Shared], anchor: int | None) -> list[Adjustment]:
    """One gain a scene and band; of decibels a shift, which is a gain of what they stand for.

    Raises:
        SettingError: a band has values without a logarithm.
    """
    count = len(plan.pieces)
    factors, shifts = np.ones((count, len(plan.bands))), np.zeros((count, len(plan.bands)))
    matrix = _differences(shared, count)
    weights = np.array([each.values.shape[-1] for each in shared], float)
    for number, band in enumerate(plan.bands):
        compare = _difference if band.in_decibels else _log_ratio
        apart = [compare(*each.values[:, number]) for each in shared]
        if None in apart:
            raise SettingError(
                f"band {band.name!r} has hardly a value above 0 where rasters overlap, so no gain "
                "can bring them together. Choose --match histogram; if the values are decibels, "
                "give the band its unit dB."
            )
        wanted = -np.array(apart, float)
        unknowns = _solve(_Equations(matrix, wanted, weights), _held(count, anchor, 1))
        if band.in_decibels:
            shifts[:, number] = unknowns
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


def _look_at(plan: MosaicPlan, layers: Layers, one: int, other: int) -> Shared:
    """Values of two pieces at places all over their overlap."""
    overlap = plan.pieces[one].window.intersection(plan.pieces[other].window)
    overlap = overlap.intersection(plan.grid.whole)
    places = list(_places(overlap))
    found: list[NDArray[np.float64]] = []
    for index in np.random.default_rng(0).permutation(len(places))[:MOST_PLACES]:
        parts = [layers.read(piece, places[index], weighted=False) for piece in (one, other)]
        if parts[0] is None or parts[1] is None:
            continue
        valid = parts[0].valid & parts[1].valid
        for part in parts:
            if part is not None and np.issubdtype(plan.dtype, np.integer):
                # What is saturated is darker than the scene was.
                valid &= (part.pixels < np.iinfo(plan.dtype).max).all(axis=0)
        found.append(
            np.stack(
                [
                    to_physical(p.pixels[:, valid][..., None], plan.bands)[..., 0]
                    for p in parts
                    if p is not None
                ]
            )
        )
        if sum(each.shape[-1] for each in found) >= SHARED_PIXELS:
            break
    nothing = np.zeros((2, len(plan.bands), 0))
    return Shared(one, other, np.concatenate([nothing, *found], axis=-1))


def _places(overlap: Window) -> Iterator[Window]:
    for row in range(0, int(overlap.height), PLACE):
        for col in range(0, int(overlap.width), PLACE):
            yield Window(
                col_off=overlap.col_off + col,
                row_off=overlap.row_off + row,
                width=min(PLACE, overlap.width - col),
                height=min(PLACE, overlap.height - row),
            )


def _check_joined(names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> None:
    """Refuse scenes that nothing holds together.

    Raises:
        SettingError: there are several groups without an overlap between them.
    """
    ends = np.array(pairs, np.intp).reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(len(names),) * 2)
    count, group = connected_components(graph, directed=False)
    if count == 1:
        return
    groups = [
        [name for name, g in zip(names, group, strict=True) if g == each] for each in range(count)
    ]
    spelled = "; ".join(
        f"{members[0]}" + (f" and {len(members) - 1} more" if len(members) > 1 else "")
        for members in groups[:4]
    ) + ("; ..." if count > 4 else "")
    raise SettingError(
        f"the rasters fall into {count} groups without valid pixels in common ({spelled}), so "
        "nothing says how bright one should be beside another. Match and join each group alone, "
        "add a raster that links them, or leave out --match."
    )


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """By how much ``one`` lies above ``other``, without what has changed on the ground."""
    apart = one - other
    return float(apart[_unchanged(apart)].mean())


def _log_ratio(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Logarithm of how many times as bright ``one`` is; None where hardly a value has one."""
    bright = (one > 0) & (other > 0)
    if bright.sum() < LEAST_SHARED:
        return None
    one, other = one[bright], other[bright]
    same = _unchanged(np.log(one / other))
    # Of sums, not of pixels: rounding to integers makes ratios of small ones unfair.
    return float(np.log(one[same].sum() / other[same].sum()))


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
    quantiles = [np.quantile(each.values[:, number], QUANTILES, axis=1).T for each in shared]
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
        weights.append(np.full(len(ours), each.values.shape[-1] / len(ours)))
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

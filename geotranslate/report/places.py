"""Where the chips of a folder lie, as small maps for a page: one of each group of neighbours.

Coordinates of a map are units of a drawing, (0, 0) in its upper left corner, north up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from geotranslate.chips.index import read_footprints
from geotranslate.chips.layout import SPLITS

WIDTH, HEIGHT = 360, 300
"""Of a map at most."""

MARGIN = 8

FOOT = 24
"""Room for the scale bar below the chips."""

NEIGHBOURS = 5.0
"""Chips less than twice so many sides apart share a map."""

MOST_MAPS = 9

MOST_CHIPS = 1500
"""On one map; where there are more, only the area that they cover is drawn."""

KM_A_DEGREE = 111.2
"""Of latitude, on a sphere with the Earth's mean radius."""

LINE_UNITS = 90
"""What a scale bar takes at most."""

Shapes = NDArray[np.object_]


@dataclass(frozen=True)
class PlaceMap:
    """A map of chips that lie near each other.

    Attributes:
        title: where on Earth its middle is.
        width: of the drawing.
        height: likewise.
        paths: outlines as SVG writes them, by split.
        counts: chips by split.
        bar: length of the scale bar in units of the drawing.
        bar_label: and on the ground.
    """

    title: str
    width: float
    height: float
    paths: dict[str, str]
    counts: dict[str, int]
    bar: float
    bar_label: str


@dataclass(frozen=True)
class PlaceMaps:
    """The maps of one domain's chips.

    Attributes:
        maps: those with the most chips.
        left_out: how many there are besides.
        nowhere: chips whose grid has no place on Earth.
    """

    maps: tuple[PlaceMap, ...]
    left_out: int
    nowhere: int


def map_chips(folder: Path, domain: str) -> PlaceMaps:
    """Draw where the chips of a domain lie, and to which split they belong.

    Args:
        folder: a chip folder with an index.
        domain: "a" or "b".

    Raises:
        ChipsError: the index is missing or damaged.
    """
    table = read_footprints(folder)
    table = table[table["domain"] == domain]
    nowhere = shapely.is_missing(table.geometry.to_numpy())
    shapes = np.array([_larger_part(shape) for shape in table.geometry[~nowhere]], dtype=object)
    splits = table["split"].to_numpy()[~nowhere]
    groups = group_neighbours(shapes)
    drawn = [
        _draw(shapes[group], splits[group])
        for group in sorted(groups, key=len, reverse=True)[:MOST_MAPS]
    ]
    return PlaceMaps(tuple(drawn), len(groups) - len(drawn), int(nowhere.sum()))


def _larger_part(shape: shapely.Geometry) -> shapely.Polygon:
    """Of a chip that lies across 180 degrees, and is cut there in two, one part is enough."""
    parts: list[shapely.Polygon] = shapely.get_parts(shape).tolist()
    return max(parts, key=lambda part: part.area)


def group_neighbours(shapes: Shapes) -> list[NDArray[np.int64]]:
    """Indexes of shapes by group: those of a group hang together, at some sides' distance."""
    if not len(shapes):
        return []
    left, bottom, right, top = shapely.bounds(shapes).T
    x_rim, y_rim = NEIGHBOURS * (right - left), NEIGHBOURS * (top - bottom)
    wide = shapely.box(left - x_rim, bottom - y_rim, right + x_rim, top + y_rim)
    areas = shapely.get_parts(shapely.union_all(wide))
    middles = shapely.points((left + right) / 2, (bottom + top) / 2)
    _, area = shapely.STRtree(areas).query(middles, predicate="within")
    return [np.flatnonzero(area == number) for number in range(len(areas))]


def _draw(shapes: Shapes, splits: NDArray[np.object_]) -> PlaceMap:
    """A map of shapes in degrees."""
    west, south, east, north = shapely.total_bounds(shapes).tolist()
    latitude, longitude = (south + north) / 2, (west + east) / 2
    # Degrees of longitude are shorter away from the equator.
    shrink = max(math.cos(math.radians(latitude)), 0.01)
    wide, high = max((east - west) * shrink, 1e-9), max(north - south, 1e-9)
    scale = min((WIDTH - 2 * MARGIN) / wide, (HEIGHT - 2 * MARGIN) / high)
    height = high * scale + 2 * MARGIN
    middle = np.array([WIDTH / 2, height / 2])

    def on_paper(points: NDArray[np.float64]) -> NDArray[np.float64]:
        placed: NDArray[np.float64] = middle + (points - [longitude, latitude]) * [
            shrink * scale,
            -scale,
        ]
        return placed

    placed = shapely.transform(shapes, on_paper)
    many = len(shapes) > MOST_CHIPS
    bar_km = _round_below(LINE_UNITS / scale * KM_A_DEGREE)
    return PlaceMap(
        title=_spell_place(longitude, latitude),
        width=WIDTH,
        height=round(height + FOOT, 1),
        paths={
            split: _path(placed[splits == split], joined=many)
            for split in SPLITS
            if (splits == split).any()
        },
        counts={split: int((splits == split).sum()) for split in SPLITS},
        bar=round(bar_km / KM_A_DEGREE * scale, 1),
        bar_label=f"{bar_km:g} km" if bar_km >= 1 else f"{1000 * bar_km:g} m",
    )


def _path(shapes: Shapes, *, joined: bool) -> str:
    """Outlines as one SVG path."""
    if joined:
        # On a grid, as the edges of neighbours miss each other by rounding.
        shapes = np.array([shapely.union_all(shapely.set_precision(shapes, 0.1))])
    rings = (
        ring for part in shapely.get_parts(shapes) for ring in (part.exterior, *part.interiors)
    )
    return "".join(
        "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ring.coords[:-1]) + "Z" for ring in rings
    )


def _round_below(number: float) -> float:
    """The largest 1, 2 or 5 with zeros that is not above a number."""
    size = 10.0 ** math.floor(math.log10(number))
    return max(each * size for each in (1, 2, 5) if each * size <= number)


def _spell_place(longitude: float, latitude: float) -> str:
    north_south, east_west = "NS"[latitude < 0], "EW"[longitude < 0]
    return f"{abs(latitude):.2f}° {north_south}, {abs(longitude):.2f}° {east_west}"

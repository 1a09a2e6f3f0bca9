"""Windows on many grids, as columns: where they lie, and what lies below and around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from geotranslate.raster.grid import Grid, plan_windows

# A thousandth of a pixel forgives places that were written with rounded decimals.
RIM = 1e-3

# A straight edge in one CRS is a curve in another: each edge gets corners in between.
EDGE_PARTS = 4

HALF_TURN = 180.0
"""Degrees; no window is wider."""


@dataclass(frozen=True)
class Windows:
    """Square windows on several grids, as columns of one length: there may be a million.

    Attributes:
        grids: of the scenes.
        size: side of a window.
        scene: (n,) index of the grid a window lies on.
        col: (n,) its first column.
        row: (n,) its first row.
    """

    grids: tuple[Grid, ...]
    size: int
    scene: NDArray[np.int64]
    col: NDArray[np.int64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scene)

    def window(self, index: int) -> Window:
        """One of the windows, on the grid of its scene."""
        return Window(
            col_off=int(self.col[index]),
            row_off=int(self.row[index]),
            width=self.size,
            height=self.size,
        )

    def select(self, keep: NDArray[np.bool_]) -> Windows:
        """The windows where ``keep`` is True."""
        return Windows(self.grids, self.size, self.scene[keep], self.col[keep], self.row[keep])

    def bounds(self) -> NDArray[np.float64]:
        """(n, 4) left, bottom, right, top, each in the CRS of its grid."""
        places = np.array([[*g.transform][:6] for g in self.grids]).reshape(-1, 6)[self.scene]
        step_x, left, step_y, top = places[:, 0], places[:, 2], places[:, 4], places[:, 5]
        x0, y0 = left + step_x * self.col, top + step_y * self.row
        x1, y1 = x0 + step_x * self.size, y0 + step_y * self.size
        return np.stack(
            [np.minimum(x0, x1), np.minimum(y0, y1), np.maximum(x0, x1), np.maximum(y0, y1)], axis=1
        )

    def outlines(self, crs: CRS) -> NDArray[np.object_]:
        """(n,) polygons in a CRS; empty where the CRS does not reach."""
        shapes = _boxes(self.bounds())
        for source in distinct_systems(self.grids):
            here = self.lie_in(source)
            if source != crs and here.any():
                shapes[here] = _reproject(shapes[here], source, crs)
        return shapes

    def lie_in(self, crs: CRS) -> NDArray[np.bool_]:
        """(n,) True where a window's grid has a CRS."""
        return np.array([grid.crs == crs for grid in self.grids], bool)[self.scene]


def lay_windows(grids: Sequence[Grid], *, size: int, stride: int) -> Windows:
    """Windows that cover every grid, scene by scene and row by row.

    The last row and column are pulled back to the edge. A grid smaller than a window gets none.
    """
    rows = [
        (index, window.col_off, window.row_off)
        for index, grid in enumerate(grids)
        if fits(grid, size)
        for window in plan_windows(grid.shape, size=size, stride=stride)
    ]
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    return Windows(tuple(grids), size, *columns)


def fits(grid: Grid, size: int) -> bool:
    """Whether a window fits into a grid."""
    return min(grid.shape) >= size


def find_inside(
    windows: Windows, area_in: Callable[[CRS], BaseGeometry], *, touching: bool
) -> NDArray[np.bool_]:
    """(n,) True where a window lies wholly inside an area or, if asked, touches it.

    Args:
        windows: the windows in question.
        area_in: gives the area in a CRS.
        touching: one common point within is enough.
    """
    inside = np.zeros(len(windows), bool)
    boxes = _boxes(_shrunk(windows))
    for crs in distinct_systems(windows.grids):
        area = area_in(crs)
        shapely.prepare(area)
        here = windows.lie_in(crs)
        judge = shapely.intersects if touching else shapely.covers
        inside[here] = judge(area, boxes[here])
    return inside


@dataclass(frozen=True)
class Cover:
    """Which scenes of another domain lie under some windows.

    Attributes:
        share: (n,) of each window that they cover, at most; scenes that overlap count twice.
        scenes: for each window their indexes, in order.
    """

    share: NDArray[np.float64]
    scenes: tuple[tuple[int, ...], ...]


def find_cover(windows: Windows, grids: Sequence[Grid]) -> Cover:
    """Which grids lie under each window, wherever their pixels and CRSs are.

    Args:
        windows: on grids of their own.
        grids: of the scenes to look for.
    """
    share = np.zeros(len(windows))
    found: list[list[int]] = [[] for _ in range(len(windows))]
    for crs in distinct_systems(grids):
        members = [index for index, grid in enumerate(grids) if grid.crs == crs]
        boxes = _boxes(np.array([grids[index].bounds for index in members]))
        outlines = windows.outlines(crs)
        window, box = shapely.STRtree(boxes).query(outlines, predicate="intersects")
        common = shapely.area(shapely.intersection(outlines[window], boxes[box]))
        common /= shapely.area(outlines[window])
        # Neighbours that only touch share no pixel.
        real = common > RIM / windows.size
        share += np.bincount(window[real], common[real], minlength=len(windows))
        for one, other in zip(window[real], box[real], strict=True):
            found[one].append(members[other])
    return Cover(share, tuple(tuple(sorted(scenes)) for scenes in found))


def distinct_systems(grids: Iterable[Grid]) -> list[CRS]:
    """The CRSs of grids, each once; spellings of one CRS count as one."""
    found: list[CRS] = []
    for grid in grids:
        if grid.crs not in found:
            found.append(grid.crs)
    return found


def bounds_in(grids: Iterable[Grid], crs: CRS) -> tuple[float, float, float, float]:
    """(left, bottom, right, top) of all grids that have a CRS; one at least does."""
    lefts, bottoms, rights, tops = zip(*(g.bounds for g in grids if g.crs == crs), strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def _shrunk(windows: Windows) -> NDArray[np.float64]:
    """(n, 4) bounds without a thousandth of a pixel on each side."""
    bounds = windows.bounds()
    steps = RIM / windows.size * (bounds[:, 2:] - bounds[:, :2])
    return np.concatenate([bounds[:, :2] + steps, bounds[:, 2:] - steps], axis=1)


def _boxes(bounds: NDArray[np.float64]) -> NDArray[np.object_]:
    return np.asarray(shapely.box(*bounds.T), object)


def _reproject(boxes: NDArray[np.object_], source: CRS, target: CRS) -> NDArray[np.object_]:
    """Boxes in another CRS, where their edges are bent; empty where it does not reach."""
    bent = shapely.segmentize(boxes, np.sqrt(shapely.area(boxes)) / EDGE_PARTS)
    series = gpd.GeoSeries(bent, crs=source.to_wkt())
    try:
        moved = np.array(series.to_crs(target.to_wkt()), object)
    except RuntimeError:  # the family of pyproj's errors: no way leads there from a local CRS
        return np.full(len(boxes), shapely.Polygon(), object)
    moved[~np.isfinite(shapely.bounds(moved)).all(axis=1)] = shapely.Polygon()
    if target.is_geographic:
        _cut_at_180(moved)
    # Where a CRS ends, an outline may fold over itself, and nobody knows what lies inside.
    moved[~shapely.is_valid(moved)] = shapely.Polygon()
    return moved


def _cut_at_180(outlines: NDArray[np.object_]) -> None:
    """Cut outlines that reach over 180 degrees into what lies west and east of it.

    Their corners have longitudes near -180 and near 180, as if they went around the world.
    """
    left, _, right, _ = shapely.bounds(outlines).T
    for index in np.flatnonzero(right - left > HALF_TURN):
        whole = shapely.transform(
            outlines[index], lambda points: points + [2 * HALF_TURN, 0] * (points[:, :1] < 0)
        )
        west = shapely.clip_by_rect(whole, 0, -HALF_TURN, HALF_TURN, HALF_TURN)
        east = shapely.clip_by_rect(whole, HALF_TURN, -HALF_TURN, 3 * HALF_TURN, HALF_TURN)
        outlines[index] = shapely.union(
            west, shapely.transform(east, lambda points: points - [2 * HALF_TURN, 0])
        )

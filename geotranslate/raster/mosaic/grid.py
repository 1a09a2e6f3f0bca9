"""The grid of a mosaic: chosen by the user, or the smallest that holds all scenes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform, transform_bounds

from geotranslate.choices import SNAPS
from geotranslate.errors import GridError, RasterError, SettingError
from geotranslate.raster.bounds import Bounds, spell_bounds
from geotranslate.raster.grid import Grid
from geotranslate.raster.mosaic.settings import MosaicSettings
from geotranslate.raster.scene import open_scene

if TYPE_CHECKING:
    from geotranslate.raster.area import Area

# So many of the mosaic's pixels for one of a scene's are no wish but a wrong unit.
MOST_PER_PIXEL = 10_000

# GDAL counts rows and columns in 32 bits with a sign.
LONGEST = 2**31 - 1


def choose_grid(
    first: Grid, grids: Sequence[Grid], settings: MosaicSettings
) -> tuple[Grid, Area | None]:
    """Where the pixels of a mosaic lie, and the area of interest in its CRS.

    Args:
        first: the scene's that counts where the settings do not say.
        grids: of all scenes.
        settings: CRS, resolution, bounds, snap and area of interest.

    Raises:
        GridError: the scenes cannot be brought into one CRS, bounds and scenes do not meet, or the
            mosaic would have too many pixels.
        SettingError: the CRS is unknown, scenes cannot be snapped as asked, or the area cannot be
            read or lies elsewhere.
    """
    asked = (settings.crs, settings.resolution, settings.bounds, settings.snap, settings.aoi)
    if not any(asked) and all(grids[0].is_aligned(grid) for grid in grids):
        _check_together(first, grids, [grid.bounds for grid in grids], first.crs)
        return _join_aligned(grids), None
    crs, lattice = choose_lattice(first, settings)
    base = Grid(crs, lattice, 1, 1)
    boxes = [grid_bounds(grid, crs) for grid in grids]
    if settings.bounds is None:
        _check_together(first, grids, boxes, crs)
    whole = _around(boxes)
    wanted = settings.bounds or whole
    if not any(_shared(box, wanted) for box in boxes):
        raise GridError(
            f"the bounds {spell_bounds(wanted)} meet none of the rasters, which cover "
            f"{spell_bounds(whole)} in {crs.to_string()}: nothing would be in the mosaic. Give "
            "bounds as left,bottom,right,top in the mosaic's CRS."
        )
    area = None
    if settings.aoi is not None:
        area = _read_area(settings.aoi, crs, wanted)
        wanted = _shared(wanted, area.bounds) or wanted
    grid = base.window_grid(base.window_around(wanted))
    _check_fineness(grid, grids, [_shared(box, wanted) for box in boxes])
    if area is not None:
        _check_held(area, grid)
    return _checked(grid), area


def _read_area(path: str | Path, crs: CRS, bounds: Bounds) -> Area:
    # It loads geopandas, which takes half a second that most mosaics need not wait for.
    from geotranslate.raster.area import read_area

    area = read_area(path, crs, bounds)
    if area.shape.is_empty or not _shared(area.bounds, bounds):
        raise SettingError(
            f"the area of interest {path}, which covers {spell_bounds(area.drawn_bounds)} in "
            f"{area.drawn_crs.to_string()}, lies outside the mosaic's {spell_bounds(bounds)} in "
            f"{crs.to_string()}: nothing would be left. Give an area that overlaps the rasters."
        )
    return area


def _check_held(area: Area, grid: Grid) -> None:
    """Refuse an area so small that it falls between the pixels.

    Raises:
        SettingError: with their size.
    """
    if not area.holds_pixel(grid):
        x, y = grid.resolution
        raise SettingError(
            f"the area of interest {area.path} holds the centre of no pixel of {x:g} by {y:g} in "
            f"units of {grid.crs.to_string()}: nothing would be left. Draw it larger, or choose "
            "smaller pixels with --resolution."
        )


def choose_lattice(first: Grid, settings: MosaicSettings) -> tuple[CRS, Affine]:
    """The CRS of a mosaic, and the transform of an endless grid that its own is a part of."""
    asked, sizes = settings.asked_crs, settings.resolution
    snap = settings.snap
    if snap is not None and snap not in SNAPS:
        model = _snapped_grid(snap)
        crs = asked or model.crs
        if crs != model.crs:
            raise SettingError(
                f"the pixels of {snap} lie in {model.crs.to_string()} and cannot be snapped to in "
                f"{crs.to_string()}. Leave out --crs, or snap to a raster in that CRS."
            )
        return crs, _stepping(model.transform, sizes)
    crs = asked or first.crs
    same = crs == first.crs
    if same and sizes is None:
        lattice = first.transform
    else:
        x, y = sizes or (first.resolution if same else _size_in(first, crs))
        lattice = Affine(x, 0.0, 0.0, 0.0, -y, 0.0)
    if snap == "first" and not same:
        raise SettingError(
            f"the pixels of the first raster lie in {first.crs.to_string()} and cannot be snapped "
            f"to in {crs.to_string()}. Choose --snap multiples, or leave out --crs."
        )
    if snap == "first":
        return crs, _stepping(first.transform, sizes)
    if snap == "multiples":
        return crs, Affine(lattice.a, 0.0, 0.0, 0.0, lattice.e, 0.0)
    if snap == "bounds" and settings.bounds:
        left, _, _, top = settings.bounds
        x, y = abs(lattice.a), abs(lattice.e)
        return crs, Affine(x, 0.0, left, 0.0, -y, top)
    if same and sizes is not None and np.allclose(sizes, first.resolution, rtol=1e-9):
        return crs, first.transform
    return crs, lattice


def _snapped_grid(snap: str) -> Grid:
    try:
        with open_scene(snap) as scene:
            return scene.grid
    except RasterError as error:
        raise SettingError(
            f"--snap {snap} is none of {', '.join(SNAPS)}, so it has to be a raster by whose "
            f"pixels those of the mosaic lie, but {error}"
        ) from error


def grid_bounds(grid: Grid, crs: CRS) -> Bounds:
    """(left, bottom, right, top) of a grid in another CRS.

    Raises:
        GridError: it has no place there.
    """
    if grid.crs == crs:
        return grid.bounds
    try:
        bounds: Bounds = transform_bounds(grid.crs, crs, *grid.bounds)
    except (RasterioError, CPLE_BaseError):
        bounds = (math.nan,) * 4
    left, _, right, _ = bounds
    if left > right or _is_torn(grid, crs, bounds):
        raise GridError(
            f"a raster in {grid.crs.to_string()}, which covers {spell_bounds(grid.bounds)}, lies "
            f"across the line where {crs.to_string()} begins and ends, so its halves would lie a "
            f"world apart. Choose a CRS that runs on there, such as {grid.crs.to_string()}, with "
            "--crs, or leave that raster out."
        )
    if not all(map(math.isfinite, bounds)):
        raise GridError(
            f"a raster in {grid.crs.to_string()}, which covers {spell_bounds(grid.bounds)}, has no "
            f"place in {crs.to_string()}, so they cannot become one mosaic. Choose a CRS that "
            "holds all of them with --crs, or leave that raster out."
        )
    return bounds


def _is_torn(grid: Grid, crs: CRS, bounds: Bounds) -> bool:
    """Whether neighbouring points of a grid's rim lie at opposite sides of its bounds in a CRS."""
    if crs.is_geographic or not all(map(math.isfinite, bounds)):
        return False  # of degrees GDAL says so by bounds whose left is beyond the right
    left, bottom, right, top = grid.bounds
    way = np.linspace(0, 1, 17)
    xs = np.concatenate([left + way * (right - left), right + 0 * way])
    ys = np.concatenate([bottom + 0 * way, bottom + way * (top - bottom)])
    xs, ys = np.append(xs, left + right - xs), np.append(ys, bottom + top - ys)
    moved = np.asarray(transform(grid.crs, crs, xs, ys))
    steps = np.abs(np.diff(moved)).max(axis=1)
    return bool((steps > np.array([bounds[2] - bounds[0], bounds[3] - bounds[1]]) / 2).any())


def _check_together(first: Grid, grids: Sequence[Grid], boxes: Sequence[Bounds], crs: CRS) -> None:
    """Refuse scenes that are near on the ground but lie at opposite ends of a CRS.

    Args:
        first: the scene's whose CRS is a way out.
        grids: of all scenes.
        boxes: their bounds in the CRS.
        crs: of the mosaic.

    Raises:
        GridError: the mosaic would be an empty giant.
    """
    left, _, right, _ = np.array(boxes).T
    west, east = int(left.argmin()), int(right.argmax())
    width = right[east] - left[west]
    if (right - left).sum() > width / 10:
        return
    # Of a scene is known what its width on the map is on the ground; so is that of the distance.
    (start, end), (_, other) = (_ground_diagonal(grids[index]) for index in (west, east))
    metres = math.dist(start, end)
    side = math.hypot(right[west] - left[west], boxes[west][3] - boxes[west][1])
    distance = math.dist(end, other)
    if not metres or not width > 10 * side * (1 + distance / metres):
        return
    way_out = first.crs.to_string() if first.crs != crs else "EPSG:3832 (Mercator around 150 E)"
    raise GridError(
        f"rasters that lie {distance / 1000:,.0f} km from each other lie at opposite ends of "
        f"{crs.to_string()}, so the mosaic would reach around the world and be empty but for its "
        f"rims. Choose a CRS that runs on there, such as {way_out}, with --crs, or give --bounds."
    )


def _ground_diagonal(grid: Grid) -> NDArray[np.float64]:
    """Two opposite corners of a grid as (x, y, z) in metres from the Earth's centre."""
    left, bottom, right, top = grid.bounds
    try:
        xyz = transform(grid.crs, CRS.from_epsg(4978), (left, right), (bottom, top), (0, 0))
    except (RasterioError, CPLE_BaseError):  # a local CRS lies nowhere on Earth
        return np.zeros((2, 3))
    return np.transpose(xyz)


def _check_fineness(grid: Grid, grids: Sequence[Grid], shares: Sequence[Bounds | None]) -> None:
    """Refuse pixels of which scenes could fill a share only, because their size is a mistake.

    Args:
        grid: of the mosaic.
        grids: of all scenes.
        shares: what each covers of the mosaic, in its CRS.

    Raises:
        GridError: with the sizes.
    """
    x, y = grid.resolution
    covered = sum((b[2] - b[0]) / x * (b[3] - b[1]) / y for b in shares if b is not None)
    given = sum(grid.width * grid.height for grid in grids)
    if covered > MOST_PER_PIXEL * given:
        raise GridError(
            f"the mosaic would have {grid.width:,} x {grid.height:,} pixels, "
            f"{grid.width * grid.height / 1e9:,.0f} GB a band of bytes, of rasters that have "
            f"{given:,} pixels in all. A pixel's size ({x:g} by {y:g}) counts in the units of "
            f"{grid.crs.to_string()}. Choose larger pixels with --resolution, or smaller --bounds."
        )


def _join_aligned(grids: Sequence[Grid]) -> Grid:
    """The smallest grid that holds all, whose pixels lie on each other."""
    windows = [grid.window_in(grids[0]) for grid in grids]
    left = min(window.col_off for window in windows)
    top = min(window.row_off for window in windows)
    # Its corner is taken from rasters that lie there, not computed: sums of floats are inexact.
    x = next(g.transform.c for g, w in zip(grids, windows, strict=True) if w.col_off == left)
    y = next(g.transform.f for g, w in zip(grids, windows, strict=True) if w.row_off == top)
    step = grids[0].transform
    width = max(window.col_off + window.width for window in windows) - left
    height = max(window.row_off + window.height for window in windows) - top
    transform = Affine(step.a, 0.0, x, 0.0, step.e, y)
    return _checked(Grid(grids[0].crs, transform, width, height))


def _checked(grid: Grid) -> Grid:
    if max(grid.shape) > LONGEST:
        raise GridError(
            f"the mosaic would have {grid.width:,} x {grid.height:,} pixels, more than a GeoTIFF "
            f"can count. Choose larger pixels with --resolution (they are "
            f"{grid.resolution[0]:g} in units of {grid.crs.to_string()}), or smaller --bounds."
        )
    return grid


def _stepping(transform: Affine, sizes: tuple[float, float] | None) -> Affine:
    """A transform with pixels of another size from the same corner."""
    if sizes is None:
        return transform
    x, y = (math.copysign(*pair) for pair in zip(sizes, (transform.a, transform.e), strict=True))
    return Affine(x, 0.0, transform.c, 0.0, y, transform.f)


def _size_in(grid: Grid, crs: CRS) -> tuple[float, float]:
    """The side of a square that is as large in another CRS as a grid's middle pixel."""
    grid_bounds(grid, crs)
    col, row = grid.width // 2, grid.height // 2
    corners = [grid.transform @ (col + x, row + y) for x, y in ((0, 0), (1, 0), (0, 1))]
    xs, ys = transform(grid.crs, crs, *zip(*corners, strict=True))
    along, down = ((xs[i] - xs[0], ys[i] - ys[0]) for i in (1, 2))
    side = math.sqrt(abs(along[0] * down[1] - along[1] * down[0]))
    return side, side


def _around(boxes: Iterable[Bounds]) -> Bounds:
    left, bottom, right, top = zip(*boxes, strict=True)
    return min(left), min(bottom), max(right), max(top)


def _shared(one: Bounds, other: Bounds) -> Bounds | None:
    left, bottom = max(one[0], other[0]), max(one[1], other[1])
    right, top = min(one[2], other[2]), min(one[3], other[3])
    return (left, bottom, right, top) if left < right and bottom < top else None

"""Where pixels lie: grids, and the windows that cover them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from geotranslate.errors import GridError, OutsideError, SettingError
from geotranslate.raster.bounds import Bounds, spell_bounds

LONGITUDE_LATITUDE = CRS.from_epsg(4326)

METRES_PER_DEGREE = 111_320.0

# Thousandths of a pixel are rounding errors: bounds are written with rounded decimals.
SLACK = 1e-3


@dataclass(frozen=True)
class Grid:
    """A raster's place on the map, without its pixels.

    Attributes:
        crs: coordinate reference system.
        transform: from (column, row) to (x, y); axis-parallel, but either axis may run backwards.
        width: columns.
        height: rows.
    """

    crs: CRS
    transform: Affine
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.transform.b or self.transform.d:
            raise GridError(
                "the raster is rotated against its map axes, so its windows are no rectangles on "
                "the map. Warp it to a north-up grid first, for example with "
                "`gdalwarp -t_srs EPSG:... rotated.tif north_up.tif`."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.height, self.width

    @property
    def whole(self) -> Window:
        """The window of all pixels."""
        return Window(col_off=0, row_off=0, width=self.width, height=self.height)

    @property
    def bounds(self) -> Bounds:
        """(left, bottom, right, top) in CRS units, whichever way the axes run."""
        x0, y0 = self.transform @ (0, 0)
        x1, y1 = self.transform @ (self.width, self.height)
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)

    @property
    def resolution(self) -> tuple[float, float]:
        """Width and height of a pixel in CRS units, both positive."""
        return abs(self.transform.a), abs(self.transform.e)

    @property
    def resolution_m(self) -> tuple[float, float]:
        """Width and height of a pixel in metres; of a geographic CRS at the grid's middle."""
        x, y = self.resolution
        if not self.crs.is_geographic:
            # rasterio does not tell the unit of a local CRS; it is hardly ever another one.
            metres = float(self.crs.linear_units_factor[1]) if self.crs.is_projected else 1.0
            return x * metres, y * metres
        _, bottom, _, top = self.bounds
        shrink = math.cos(math.radians((bottom + top) / 2))
        return x * METRES_PER_DEGREE * shrink, y * METRES_PER_DEGREE

    def window_grid(self, window: Window) -> Grid:
        """The grid of a window, which may reach beyond this grid."""
        shift = Affine.translation(window.col_off, window.row_off)
        return Grid(self.crs, self.transform @ shift, int(window.width), int(window.height))

    def window_around(self, bounds: Bounds) -> Window:
        """The smallest window of whole pixels that covers ``bounds``; it may leave this grid.

        At least a pixel on each side.

        Args:
            bounds: (left, bottom, right, top) in this grid's CRS.
        """
        left, bottom, right, top = bounds
        inverse = ~self.transform
        cols, rows = zip(inverse @ (left, bottom), inverse @ (right, top), strict=True)
        col, row = (math.floor(min(axis) + SLACK) for axis in (cols, rows))
        end_col, end_row = (math.ceil(max(axis) - SLACK) for axis in (cols, rows))
        return Window(
            col_off=col, row_off=row, width=max(end_col - col, 1), height=max(end_row - row, 1)
        )

    def window_of(self, bounds: Bounds) -> Window:
        """The smallest window of whole pixels that covers ``bounds`` and lies inside this grid.

        Args:
            bounds: (left, bottom, right, top) in this grid's CRS.

        Raises:
            OutsideError: the bounds and the grid share no pixel.
        """
        around = self.window_around(bounds)
        col, row = max(around.col_off, 0), max(around.row_off, 0)
        end_col = min(around.col_off + around.width, self.width)
        end_row = min(around.row_off + around.height, self.height)
        if end_col <= col or end_row <= row:
            raise OutsideError(
                f"the bounds {spell_bounds(bounds)} lie outside the raster, which covers "
                f"{spell_bounds(self.bounds)} in {self.crs}: nothing would be left. Give bounds as "
                "left,bottom,right,top in the raster's own coordinates."
            )
        return Window(col_off=col, row_off=row, width=end_col - col, height=end_row - row)

    def is_aligned(self, other: Grid, tolerance: float = SLACK) -> bool:
        """Whether the pixels of both grids lie on each other, give or take ``tolerance`` pixels.

        The grids may cover different places and still be aligned.
        """
        if self.crs != other.crs:
            return False
        (a, _, _, _, e, _), (other_a, _, _, _, other_e, _) = self._numbers, other._numbers
        steps = abs(other_a / a - 1) * other.width, abs(other_e / e - 1) * other.height
        col, row = self._place_of(other)
        return max(*steps, abs(col - round(col)), abs(row - round(row))) <= tolerance

    def window_in(self, other: Grid) -> Window:
        """The window of ``other`` that this grid covers; both must be aligned."""
        col, row = other._place_of(self)
        return Window(col_off=round(col), row_off=round(row), width=self.width, height=self.height)

    @property
    def _numbers(self) -> tuple[float, ...]:
        """Of the transform, as plain numbers: thousands of grids are compared."""
        return tuple(self.transform)[:6]

    def _place_of(self, other: Grid) -> tuple[float, float]:
        """(column, row) of another grid's corner, in pixels of this one."""
        (a, _, c, _, e, f), (_, _, x, _, _, y) = self._numbers, other._numbers
        return (x - c) / a, (y - f) / e


def spell_place(places: Iterable[tuple[CRS, Bounds]]) -> str:
    """Where bounds, each in its CRS, lie together: in degrees, so that places can be compared."""
    try:
        edges = [transform_bounds(crs, LONGITUDE_LATITUDE, *bounds) for crs, bounds in places]
    except (RasterioError, CPLE_BaseError):
        return "ground that only a local coordinate system knows"
    lefts, bottoms, rights, tops = zip(*edges, strict=True)
    return (
        f"longitude {min(lefts):.4f} to {max(rights):.4f}, "
        f"latitude {min(bottoms):.4f} to {max(tops):.4f}"
    )


def offsets(length: int, size: int, stride: int) -> list[int]:
    """Start of every window along one axis, so that each pixel is covered.

    The last window is pulled back to end on the edge, so no window leaves the raster.

    Args:
        length: pixels along the axis.
        size: pixels along one window.
        stride: pixels from one window's start to the next one's.

    Raises:
        SettingError: the stride leaves gaps between windows, or never moves on.
    """
    if not 0 < stride <= size:
        raise SettingError(
            f"stride is {stride} px but the window is {size} px: pixels between two "
            f"windows would never be read. Choose a stride from 1 to {size}."
        )
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def split_window(whole: Window, height: int, width: int) -> Iterator[Window]:
    """Windows side by side that fill a window, row by row; those at its ends may be smaller."""
    rows, cols = int(whole.height), int(whole.width)
    for row in range(0, rows, height):
        for col in range(0, cols, width):
            yield Window(
                col_off=whole.col_off + col,
                row_off=whole.row_off + row,
                width=min(width, cols - col),
                height=min(height, rows - row),
            )


def plan_windows(shape: tuple[int, int], *, size: int, stride: int) -> Iterator[Window]:
    """Square windows that cover a raster, row by row.

    Args:
        shape: (rows, cols) of the raster; a side shorter than ``size`` gets one window, which
            then reaches beyond the raster.
        size: side of a window.
        stride: pixels from one window's start to the next one's.
    """
    rows, cols = shape
    for row in offsets(rows, size, stride):
        for col in offsets(cols, size, stride):
            yield Window(col_off=col, row_off=row, width=size, height=size)

"""The made-up ground: what lies where, on one fine map grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.fft
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from scipy.ndimage import distance_transform_edt

from geotranslate.raster.grid import Grid

Floats = NDArray[np.float32]

MAP_GRID = Grid(
    CRS.from_epsg(32633), Affine(5, 0, 276_000, 0, -5, 5_372_000), width=1440, height=2432
)
"""The fine grid the landscape is drawn on: 5 m, 7.2 km by 12.2 km, on the rim of a UTM zone."""


@dataclass(frozen=True)
class Ground:
    """One kind of ground, and how both sensors see it on a day early in June.

    Attributes:
        color: red, green, blue on the land-cover map.
        reflectance: blue, green, red, near infrared; 0 to 1.
        backscatter: sigma nought of VV and VH in dB on level ground.
        height: what stands above the ground, in metres.
        grain: standard deviation of its texture, as a share of its brightness.
    """

    color: tuple[int, int, int]
    reflectance: tuple[float, float, float, float]
    backscatter: tuple[float, float]
    height: float
    grain: float


# The radar tells the crops apart by two numbers, but no line leads from those to a colour: wheat
# is darkest of the crops in VV, rape brightest in VH, bare soil has the widest gap between both.
GROUNDS = {
    "water": Ground((60, 110, 190), (0.050, 0.065, 0.042, 0.020), (-20.0, -30.0), 0, 0),
    "sand": Ground((235, 220, 170), (0.180, 0.220, 0.255, 0.310), (-14.0, -24.0), 0, 0.06),
    "conifers": Ground((20, 80, 50), (0.022, 0.036, 0.025, 0.190), (-9.6, -15.0), 22, 0.20),
    "broadleaves": Ground((50, 125, 50), (0.026, 0.060, 0.031, 0.400), (-8.0, -13.2), 17, 0.16),
    "meadow": Ground((150, 200, 110), (0.042, 0.092, 0.058, 0.360), (-12.6, -18.6), 0.2, 0.05),
    "wheat": Ground((120, 160, 80), (0.030, 0.068, 0.042, 0.430), (-15.4, -20.2), 0.8, 0.03),
    "barley": Ground((215, 200, 110), (0.065, 0.120, 0.130, 0.330), (-11.6, -16.0), 0.8, 0.03),
    "rape": Ground((240, 230, 60), (0.048, 0.175, 0.165, 0.450), (-11.2, -12.8), 1.2, 0.03),
    "sugar beet": Ground((90, 190, 70), (0.036, 0.090, 0.040, 0.500), (-9.0, -17.2), 0.3, 0.03),
    "bare soil": Ground((150, 115, 85), (0.072, 0.098, 0.128, 0.180), (-10.4, -21.2), 0, 0.05),
    "ploughed loess": Ground((205, 170, 125), (0.115, 0.165, 0.205, 0.270), (-6.8, -18.4), 0, 0.04),
    "stubble": Ground((225, 205, 160), (0.088, 0.135, 0.160, 0.260), (-14.0, -23.2), 0.1, 0.04),
    "garden": Ground((165, 190, 130), (0.046, 0.078, 0.062, 0.280), (-10.0, -15.5), 2, 0.18),
    "asphalt": Ground((110, 110, 115), (0.098, 0.108, 0.115, 0.130), (-16.0, -25.0), 0, 0.04),
    "gravel track": Ground((200, 195, 180), (0.130, 0.160, 0.180, 0.220), (-14.0, -22.0), 0, 0.06),
    "tiled roof": Ground((200, 90, 70), (0.085, 0.105, 0.190, 0.230), (-5.0, -11.5), 8, 0.15),
    "slate roof": Ground((130, 120, 130), (0.105, 0.112, 0.120, 0.140), (-5.0, -11.5), 9, 0.15),
    "hall": Ground((215, 215, 225), (0.230, 0.240, 0.245, 0.260), (-3.0, -12.0), 10, 0.12),
}
CODES = {name: code for code, name in enumerate(GROUNDS, start=1)}
"""The land-cover raster's value of each kind of ground; 0 is nodata."""

CROPS = {
    "meadow": 0.17,
    "wheat": 0.22,
    "barley": 0.13,
    "rape": 0.10,
    "sugar beet": 0.11,
    "bare soil": 0.12,
    "ploughed loess": 0.09,
    "stubble": 0.06,
}
"""Share of the fields under each crop."""

LAKES = ((1_700, 2_300, 400), (5_600, 5_200, 280), (2_450, 6_000, 160), (1_900, 10_700, 260))
"""Each lake's place, in metres from the map's left and top edge, and its radius in metres."""

PLACES = {
    "market": (5_200, 1_950),
    "mill": (2_000, 4_200),
    "church": (5_800, 6_300),
    "ford": (1_500, 6_550),
    "oaks": (2_700, 1_000),
    "harbour": (4_150, 9_350),
    "meadows": (2_000, 8_600),
    "west": (-200, 4_700),
    "east": (7_400, 700),
    "south-east": (7_400, 8_700),
    "south": (4_700, 12_400),
}
"""Towns, and where roads leave the map; in metres from its left and top edge."""

TOWNS = {
    "market": 820,
    "mill": 430,
    "church": 260,
    "ford": 240,
    "oaks": 220,
    "harbour": 560,
    "meadows": 240,
}
"""Each town's radius in metres."""

ROADS = (
    ("west", "mill", "market", "east"),
    ("market", "church", "harbour", "south"),
    ("oaks", "mill", "ford", "meadows", "harbour", "south-east"),
)
"""The places that each road joins."""


@dataclass(frozen=True)
class Landscape:
    """What lies where, on ``MAP_GRID``.

    Attributes:
        cover: (rows, cols) uint8, a code of ``CODES``.
        relief: (rows, cols) height of the ground in metres.
        vigor: (rows, cols) how lush each field stands; mean 0, standard deviation about 1.
    """

    cover: NDArray[np.uint8]
    relief: Floats
    vigor: Floats


def draw_landscape(rng: np.random.Generator) -> Landscape:
    """Draw the map: each step paints over what the earlier ones left."""
    river = _river(rng)
    relief = _relief(rng, river)
    parcels = _parcels(rng)
    cover, vigor = _fields(rng, parcels)
    _paint_woods(rng, cover, parcels, relief)
    _paint_towns(rng, cover, parcels)
    _paint_lanes(rng, cover, parcels.lanes)
    _paint_water(rng, cover, river)
    _paint_roads(rng, cover)
    vigor[cover == CODES["water"]] = 0
    return Landscape(cover, relief, vigor)


def _map_xy() -> tuple[Floats, Floats]:
    """Each pixel's distance from the map's left and top edge in metres, ready to broadcast."""
    pixel = MAP_GRID.transform.a
    x = (np.arange(MAP_GRID.width, dtype=np.float32) + 0.5) * pixel
    y = (np.arange(MAP_GRID.height, dtype=np.float32) + 0.5) * pixel
    return x[None, :], y[:, None]


def _paint(cover: NDArray[np.uint8], shapes: Sequence[shapely.Geometry], name: str) -> None:
    """Fill shapes, given in metres from the map's left and top edge, with one kind of ground."""
    pixel = MAP_GRID.transform.a
    rasterize(shapes, out=cover, transform=Affine.scale(pixel), default_value=CODES[name])


def _fractal(rng: np.random.Generator, longest_m: float, roughness: float) -> Floats:
    """Random hills and dents over the map; mean 0, standard deviation 1.

    Args:
        rng: where the randomness comes from.
        longest_m: wavelength in metres from which on the spectrum falls.
        roughness: power by which amplitudes fall with frequency; larger is smoother.
    """
    shape, pixel = MAP_GRID.shape, MAP_GRID.transform.a
    down = np.fft.fftfreq(shape[0], pixel)[:, None]
    across = np.fft.rfftfreq(shape[1], pixel)[None, :]
    falling = (down**2 + across**2 + longest_m**-2) ** (-roughness / 2)
    white = rng.standard_normal(shape, dtype=np.float32)
    hills = scipy.fft.irfft2(scipy.fft.rfft2(white) * falling.astype(np.float32), shape)
    hills -= hills.mean()
    return np.asarray(hills / hills.std(), np.float32)


def _river(rng: np.random.Generator) -> NDArray[np.float64]:
    """Points (x, y) along a meandering line: its direction swings as a sine of its length.

    Langbein and Leopold, River meanders - theory of minimum variance, USGS 422-H, 1966.
    """
    step = 10.0
    length = np.arange(0, 24_000, step)
    swing = 1.15 * np.sin(2 * np.pi * length / 2_600 + rng.uniform(0, 2 * np.pi))
    swing += 0.45 * np.sin(2 * np.pi * length / 1_130 + rng.uniform(0, 2 * np.pi))
    x, y = np.cumsum(np.sin(swing)) * step, np.cumsum(np.cos(swing)) * step
    # However far its swings carry it: it enters and leaves the map in the middle.
    x += 3_500 - np.linspace(x[0], x[-1], len(x))
    y = -300 + y * 12_800 / y[-1]
    return np.column_stack([x, y])


def _relief(rng: np.random.Generator, river: NDArray[np.float64]) -> Floats:
    """Height in metres: hills that grow to the east, and a flat valley along the river."""
    bed = np.zeros(MAP_GRID.shape, np.uint8)
    _paint(bed, [shapely.LineString(river)], "water")
    far = distance_transform_edt(bed == 0).astype(np.float32) * MAP_GRID.transform.a
    x, _ = _map_xy()
    hills = 30 + (14 + 0.006 * x) * _fractal(rng, 1_900, 2.7)
    return np.asarray(420 + (1 - np.exp(-((far / 900) ** 2))) * hills, np.float32)


@dataclass(frozen=True)
class Parcels:
    """The land in parcels of a few hundred metres, each with a direction of its own.

    Attributes:
        number: (rows, cols) of the parcel a pixel lies in.
        across: (rows, cols) metres along the first axis of the pixel's parcel.
        along: (rows, cols) metres along its second axis.
        lanes: the lines between parcels.
        count: how many parcels there are.
    """

    number: NDArray[np.int32]
    across: Floats
    along: Floats
    lanes: list[shapely.Geometry]
    count: int

    def spread(self, values: NDArray[np.float64]) -> Floats:
        """One value for each parcel, laid out on the map."""
        return values.astype(np.float32)[self.number]


def _parcels(rng: np.random.Generator) -> Parcels:
    """Cells around scattered points (a Voronoi diagram)."""
    pitch = 540.0
    left, bottom, right, top = MAP_GRID.bounds
    x, y = np.meshgrid(
        np.arange(-pitch, right - left + 2 * pitch, pitch),
        np.arange(-pitch, top - bottom + 2 * pitch, pitch),
    )
    x[::2] += pitch / 2
    points = np.column_stack([x.ravel(), y.ravel()])
    scattered = shapely.MultiPoint(points + rng.uniform(-0.36 * pitch, 0.36 * pitch, points.shape))
    cells = _in_order(shapely.voronoi_polygons(scattered))
    lanes = _in_order(shapely.voronoi_polygons(scattered, only_edges=True))
    number = rasterize(
        ((cell, number) for number, cell in enumerate(cells)),
        out_shape=MAP_GRID.shape,
        transform=Affine.scale(MAP_GRID.transform.a),
        dtype="int32",
    )
    angle = rng.choice([0.2, 0.2 + np.pi / 2, 0.75], len(cells))
    angle += rng.normal(0, 0.12, len(cells))
    sine, cosine = np.sin(angle).astype(np.float32), np.cos(angle).astype(np.float32)
    east, south = _map_xy()
    across = east * cosine[number] + south * sine[number]
    along = south * cosine[number] - east * sine[number]
    return Parcels(number, across, along, lanes, len(cells))


def _in_order(shapes: shapely.Geometry) -> list[shapely.Geometry]:
    """The parts of ``shapes`` by their middles, from left to right.

    GEOS promises no order, but each parcel and lane is to meet the same random draw everywhere.
    """
    parts = shapely.get_parts(shapes)
    x, y = shapely.get_coordinates(shapely.centroid(parts)).round(2).T
    return [parts[number] for number in np.lexsort((y, x))]


TABLE = 1 << 16
"""Entries of a table of random draws, one for each field or house."""


def _entry(
    first: NDArray[np.integer], second: NDArray[np.integer], third: NDArray[np.integer] | int = 0
) -> NDArray[np.int64]:
    """An entry of a table for each set of whole numbers (Teschner et al., VMV 2003)."""
    mixed = first * np.int64(73_856_093) ^ second * np.int64(19_349_663)
    return np.asarray((mixed ^ third * np.int64(83_492_791)) % TABLE, np.int64)


def _fields(rng: np.random.Generator, parcels: Parcels) -> tuple[NDArray[np.uint8], Floats]:
    """Each parcel cut into strips of one crop each; the crop and the field's vigor by pixel."""
    width = parcels.spread(rng.uniform(75, 230, parcels.count))
    length = parcels.spread(rng.uniform(240, 560, parcels.count))
    strip = np.floor(parcels.across / width).astype(np.int64)
    # Neighbouring strips end at different places.
    end = np.floor((parcels.along + strip % 3 * np.float32(130)) / length).astype(np.int64)
    field = _entry(parcels.number, strip, end)
    crop_of = rng.choice([CODES[name] for name in CROPS], TABLE, p=list(CROPS.values()))
    vigor_of = rng.normal(0, 0.8, TABLE).astype(np.float32)
    vigor = vigor_of[field] + 0.5 * _fractal(rng, 220, 1.8)
    return crop_of.astype(np.uint8)[field], vigor.astype(np.float32)


def _paint_woods(
    rng: np.random.Generator, cover: NDArray[np.uint8], parcels: Parcels, relief: Floats
) -> None:
    """Woods on whole parcels and across them, rather on high ground; conifers in patches."""
    of_parcel = parcels.spread(rng.normal(0, 0.5, parcels.count))
    high = (relief - relief.mean()) / relief.std()
    wooded = _fractal(rng, 2_000, 1.9) + of_parcel + 0.6 * high > 1.05
    conifers = _fractal(rng, 1_100, 2.0) + 0.5 * of_parcel > 0
    cover[wooded] = CODES["broadleaves"]
    cover[wooded & conifers] = CODES["conifers"]


def _paint_towns(rng: np.random.Generator, cover: NDArray[np.uint8], parcels: Parcels) -> None:
    """Streets, houses in gardens that thin out towards the fields, and some halls."""
    east, south = _map_xy()
    # From 0 in the middle of a town to 1 at its rim, which follows the parcels here and there.
    outward = np.full(cover.shape, np.inf, np.float32)
    for name, radius in TOWNS.items():
        x, y = PLACES[name]
        np.minimum(outward, np.hypot(east - x, south - y) / radius, out=outward)
    outward += 0.13 * _fractal(rng, 900, 1.6) + parcels.spread(rng.normal(0, 0.10, parcels.count))
    town = outward < 1
    edge, across, along = outward[town], parcels.across[town], parcels.along[town]

    ground = np.full(edge.shape, CODES["garden"], np.uint8)
    ground[_fractal(rng, 160, 1.5)[town] > 1.6] = CODES["broadleaves"]
    works = (edge > 0.3) & (_fractal(rng, 1_000, 2.0)[town] > 0.9)
    ground[works | (edge < 0.25)] = CODES["asphalt"]
    houses = _roofs(rng, across, along, lot=25, filled=1.9 * (1 - edge), names=HOUSES)
    halls = _roofs(rng, across, along, lot=75, filled=np.full_like(edge, 0.8), names=HALLS)
    roofs = np.where(works, halls, houses)
    ground = np.where(roofs > 0, roofs, ground)
    ground[(across % 150 < 9) | (along % 100 < 8)] = CODES["asphalt"]
    cover[town] = ground


HOUSES = ("tiled roof", "tiled roof", "slate roof")
HALLS = ("hall", "hall", "slate roof")


def _roofs(
    rng: np.random.Generator,
    u: Floats,
    v: Floats,
    *,
    lot: float,
    filled: Floats,
    names: Sequence[str],
) -> NDArray[np.uint8]:
    """The roof over each point, 0 where there is none: a building in the middle of each lot.

    Args:
        rng: where the randomness comes from.
        u: metres along the street.
        v: metres away from it.
        lot: side of a square lot in metres.
        filled: share of the lots that have a building, at each point.
        names: kinds of roof, each as likely as the others.
    """
    number = _entry(np.floor(u / lot).astype(np.int64), np.floor(v / lot).astype(np.int64))
    margin = rng.uniform(0.10, 0.28, TABLE).astype(np.float32)[number]
    inside = np.maximum(np.abs(u / lot % 1 - 0.5), np.abs(v / lot % 1 - 0.5)) < 0.5 - margin
    built = inside & (rng.random(TABLE, np.float32)[number] < filled)
    roof_of = rng.choice([CODES[name] for name in names], TABLE).astype(np.uint8)
    return np.where(built, roof_of[number], 0).astype(np.uint8)


def _paint_lanes(
    rng: np.random.Generator, cover: NDArray[np.uint8], lanes: list[shapely.Geometry]
) -> None:
    """Between parcels runs a gravel track, a hedge, or nothing at all."""
    kind = rng.random(len(lanes))
    hedges = [shapely.buffer(lane, 8) for lane, draw in zip(lanes, kind, strict=True) if draw < 0.2]
    tracks = [
        shapely.buffer(lane, 3.5) for lane, draw in zip(lanes, kind, strict=True) if draw > 0.35
    ]
    _paint(cover, hedges, "broadleaves")
    _paint(cover, tracks, "gravel track")


def _paint_water(
    rng: np.random.Generator, cover: NDArray[np.uint8], river: NDArray[np.float64]
) -> None:
    """The river, wider here and narrower there, between trees; and the lakes with their shores."""
    wide = rng.uniform(17, 36, 40)
    swell = np.interp(np.linspace(0, 39, len(river)), np.arange(40), wide)
    points = shapely.points(river)
    _paint(cover, list(shapely.buffer(points, 14 + 1.25 * swell)), "broadleaves")
    _paint(cover, list(shapely.buffer(points, swell)), "water")
    lakes = [_lake(rng, *place) for place in LAKES]
    _paint(cover, [lake.buffer(12) for lake in lakes], "sand")
    _paint(cover, lakes, "water")


def _lake(rng: np.random.Generator, x: float, y: float, radius: float) -> shapely.Polygon:
    """A round lake with a few bays."""
    turn = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    reach = np.full_like(turn, radius)
    for wave in range(2, 6):
        reach += radius * 0.32 / wave * np.cos(wave * turn + rng.uniform(0, 2 * np.pi))
    return shapely.Polygon(
        np.column_stack([x + reach * np.cos(turn), y + 0.75 * reach * np.sin(turn)])
    )


def _paint_roads(rng: np.random.Generator, cover: NDArray[np.uint8]) -> None:
    """Roads from place to place, each stretch with a bend of its own."""
    along = np.linspace(0, 1, 60)[:, None]
    stretches = []
    for road in ROADS:
        for start, end in pairwise(np.array([PLACES[name] for name in road], float)):
            way = end - start
            bends = rng.uniform(0.03, 0.08, 2) * rng.choice([-1, 1], 2)
            bow = bends[0] * np.sin(np.pi * along) + bends[1] * np.sin(2 * np.pi * along)
            stretches.append(shapely.LineString(start + along * way + bow * [way[1], -way[0]]))
    _paint(cover, [stretch.buffer(9) for stretch in stretches], "asphalt")

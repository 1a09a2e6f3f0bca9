"""What a radar and an optical sensor see of the made-up ground, each on its own grid."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject
from scipy.ndimage import gaussian_filter

from geotranslate.raster.grid import Grid
from geotranslate.sample.landscape import CODES, GROUNDS, MAP_GRID, Floats, Landscape

# The radar

LOOKS = 4.4
"""Looks of the speckle: the power's mean squared over its variance; about Sentinel-1's."""

INCIDENCE = math.radians(38)
"""Angle between the radar's view and the vertical."""

NOISE_FLOOR = 10 ** (-27 / 10)
"""Power the receiver adds itself: a noise-equivalent sigma nought of -27 dB."""

ROOFS = [CODES[name] for name in ("tiled roof", "slate roof", "hall")]


def backscatter(landscape: Landscape, rng: np.random.Generator) -> Floats:
    """Mean power (VV and VH, rows, cols) that the landscape sends back to a radar in the west."""
    gain = _slope_gain(landscape) * _wall_gain(landscape, rng)
    gain *= np.clip(1 + 1.5 * _texture(landscape, rng), 0.2, None)
    power = np.empty((2, *MAP_GRID.shape), np.float32)
    for band, lush in enumerate((0.3, 0.6)):
        decibel = _of_cover(landscape, [kind.backscatter[band] for kind in GROUNDS.values()])
        power[band] = 10 ** ((decibel + lush * landscape.vigor) / 10) * gain
    return power


def sar_view(power: Floats, grid: Grid, rng: np.random.Generator) -> Floats:
    """VV and VH in dB, in steps of 1/64, with speckle; NaN beyond the edge of the swath.

    Args:
        power: of :func:`backscatter`.
        grid: the radar's pixels, in the map's CRS.
        rng: where the speckle comes from, each pixel and band on its own.
    """
    mean = _seen_from(power, grid, blur=0.5) + NOISE_FLOOR
    speckle = rng.standard_gamma(LOOKS, mean.shape) / LOOKS
    decibel = np.round(64 * 10 * np.log10(mean * speckle)) / 64
    decibel[:, ~_in_swath(grid)] = np.nan
    return np.asarray(decibel, np.float32)


def _slope_gain(landscape: Landscape) -> Floats:
    """Slopes towards the radar send more back: the ratio of the areas that an echo gathers.

    Ulander, Radiometric slope correction of synthetic-aperture radar images, IEEE TGRS 34, 1996.
    """
    east, _ = _slopes(landscape)
    local = np.clip(INCIDENCE - np.arctan(east), math.radians(12), math.radians(75))
    return np.asarray(math.tan(INCIDENCE) / np.tan(local), np.float32)


def _wall_gain(landscape: Landscape, rng: np.random.Generator) -> Floats:
    """Walls that face the radar make a corner with the ground, and corners are bright."""
    built = np.isin(landscape.cover, ROOFS)
    facing = built & ~np.roll(built, 1, axis=1)
    return np.asarray(1 + facing * rng.exponential(5, built.shape), np.float32)


def _in_swath(grid: Grid) -> NDArray[np.bool_]:
    """Where the radar has looked: its swath's western edge runs from north-west to south-east."""
    left, _, _, top = MAP_GRID.bounds
    east = grid.transform.c - left + grid.transform.a * (np.arange(grid.width) + 0.5)
    south = top - grid.transform.f + grid.transform.a * (np.arange(grid.height) + 0.5)
    return np.asarray(east[None, :] > 560 + 0.075 * south[:, None])


# The optical sensor

SUN_AZIMUTH, SUN_ELEVATION = math.radians(152), math.radians(58)

STEP = 8
"""An 11-bit camera over reflectances from 0 to 1.6384 counts in steps of 0.0008."""


def reflected(landscape: Landscape, rng: np.random.Generator) -> Floats:
    """Reflectance (blue, green, red, near infrared, rows, cols) with the relief's light on it."""
    light = _light(landscape) * np.clip(1 + _texture(landscape, rng), 0.3, None)
    reflectance = np.empty((4, *MAP_GRID.shape), np.float32)
    for band, lush in enumerate((-0.08, -0.03, -0.12, 0.08)):
        level = _of_cover(landscape, [kind.reflectance[band] for kind in GROUNDS.values()])
        reflectance[band] = level * np.exp(lush * landscape.vigor) * light
    return reflectance


def optical_view(reflectance: Floats, grid: Grid, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Reflectance x 10000, with the sensor's blur and noise; never 0, which is nodata.

    Args:
        reflectance: of :func:`reflected`.
        grid: the sensor's pixels.
        rng: where the noise comes from.
    """
    seen = _seen_from(reflectance, grid, blur=0.45) * 10_000
    noise = rng.standard_normal(seen.shape, np.float32) * (2 + 0.003 * seen)
    return np.clip(STEP * np.round((seen + noise) / STEP), STEP, 2047 * STEP).astype(np.uint16)


def _light(landscape: Landscape) -> Floats:
    """Light on each slope, as a share of that on level ground; a fifth of it comes from the sky."""
    east, north = _slopes(landscape)
    towards = east * math.sin(SUN_AZIMUTH) + north * math.cos(SUN_AZIMUTH)
    cosine = math.sin(SUN_ELEVATION) - towards * math.cos(SUN_ELEVATION)
    direct = np.clip(cosine / np.sqrt(1 + east**2 + north**2), 0, None) / math.sin(SUN_ELEVATION)
    return np.asarray(0.2 + 0.8 * direct, np.float32)


# Both


def _of_cover(landscape: Landscape, values: list[float]) -> Floats:
    """The value of each pixel's kind of ground; ``values`` are in the order of ``GROUNDS``."""
    return np.asarray([0.0, *values], np.float32)[landscape.cover]


def _texture(landscape: Landscape, rng: np.random.Generator) -> Floats:
    """Fine random brightness around 0, as strong as the grain of what lies there."""
    noise = gaussian_filter(rng.standard_normal(MAP_GRID.shape, np.float32), 1.2)
    grain = _of_cover(landscape, [kind.grain for kind in GROUNDS.values()])
    return np.asarray(grain * noise / noise.std(), np.float32)


def _slopes(landscape: Landscape) -> tuple[Floats, Floats]:
    """How the ground, with what stands on it, rises towards the east and towards the north."""
    height = _of_cover(landscape, [kind.height for kind in GROUNDS.values()])
    surface = gaussian_filter(landscape.relief + height, 1.5)
    south, east = np.gradient(surface, MAP_GRID.transform.a)
    level = landscape.cover == CODES["water"]
    return np.where(level, 0, east), np.where(level, 0, -south)


def _seen_from(values: Floats, grid: Grid, *, blur: float) -> Floats:
    """What a sensor receives of (bands, rows, cols) on the map.

    Args:
        values: on ``MAP_GRID``.
        grid: the sensor's pixels.
        blur: standard deviation of its point spread function, in its own pixels.
    """
    sigma = blur * grid.transform.a / MAP_GRID.transform.a
    received = np.zeros((len(values), *grid.shape), np.float32)
    for band, seen in zip(values, received, strict=True):
        reproject(
            gaussian_filter(band, sigma),
            seen,
            src_transform=MAP_GRID.transform,
            src_crs=MAP_GRID.crs,
            dst_transform=grid.transform,
            dst_crs=grid.crs,
            resampling=Resampling.bilinear,
        )
    return received

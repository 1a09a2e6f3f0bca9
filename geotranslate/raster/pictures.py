"""Rasters as pictures for people: bands become colours, images stand side by side in a grid."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geotranslate.raster.domain import Band
from geotranslate.raster.output import write_bytes

PERCENTS = 1.0, 99.0
"""Of the valid values: what becomes black and what becomes white."""

GAP = 6
TITLE = 22
SMALLEST_SIDE = 192
"""Smaller images are enlarged by repeating pixels, all in pixels of the picture."""

NOTHING = 255
"""Grey level of invalid pixels: that of the paper."""


@dataclass(frozen=True)
class Stretch:
    """How the bands of one kind of imagery become colours, for all of its images alike.

    Attributes:
        bands: indexes from 0 of the bands shown: red, green and blue, or one as grey.
        low: value of each that becomes black.
        high: value of each that becomes white.
    """

    bands: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def paint(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """The colours (rows, cols, 3) of an image (bands, rows, cols); invalid pixels are white."""
        low, high = (np.array(end)[:, None, None] for end in (self.low, self.high))
        shown = np.where(valid, pixels[list(self.bands)], low)
        levels = np.rint((shown - low) / np.where(high > low, high - low, 1) * 255).clip(0, 255)
        levels = np.broadcast_to(np.where(valid, levels, NOTHING), (3, *valid.shape))
        return levels.transpose(1, 2, 0).astype(np.uint8)


def choose_stretch(
    bands: Sequence[Band], images: Iterable[tuple[NDArray[Any], NDArray[np.bool_]]]
) -> Stretch:
    """The stretch that shows real images of a kind well, and others beside them fairly.

    Args:
        bands: of the images; those that stand for red, green and blue are shown as such.
        images: pixels (bands, rows, cols) and where they are valid (rows, cols).
    """
    shown = display_bands(bands)
    samples = [pixels[list(shown)][:, valid] for pixels, valid in images]
    values = np.concatenate(samples, axis=1)
    if not values.size:
        return Stretch(shown, (0.0,) * len(shown), (1.0,) * len(shown))
    low, high = np.percentile(values, PERCENTS, axis=1)
    return Stretch(shown, tuple(map(float, low)), tuple(map(float, high)))


def display_bands(bands: Sequence[Band]) -> tuple[int, ...]:
    """Indexes from 0 of the bands for red, green and blue, or of the one shown as grey.

    Three or more bands without names for all three colours show their first three.
    """
    colors = [band.color for band in bands]
    if {"red", "green", "blue"} <= set(colors):
        return colors.index("red"), colors.index("green"), colors.index("blue")
    return (0, 1, 2) if len(bands) >= 3 else (0,)


def write_grid(
    path: Path, titles: Sequence[str], rows: Sequence[Sequence[NDArray[np.uint8]]]
) -> None:
    """Write images as a PNG in rows and columns with a title over each column.

    Args:
        path: the PNG, whose folder is there.
        titles: of the columns.
        rows: images (rows, cols, 3), as many in each row as there are titles.

    Raises:
        OutputError: the file cannot be written.
    """
    height = max(image.shape[0] for row in rows for image in row)
    width = max(image.shape[1] for row in rows for image in row)
    factor = -(-SMALLEST_SIDE // max(height, width))
    height, width = factor * height, factor * width
    sheet = Image.new(
        "RGB",
        (len(titles) * (width + GAP) + GAP, len(rows) * (height + GAP) + GAP + TITLE),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=TITLE * 2 // 3)
    for column, title in enumerate(titles):
        pen.text((GAP + column * (width + GAP), GAP), title, fill="black", font=font)
    for line, row in enumerate(rows):
        for column, image in enumerate(row):
            enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
            place = (GAP + column * (width + GAP), TITLE + GAP + line * (height + GAP))
            sheet.paste(Image.fromarray(enlarged), place)
    content = io.BytesIO()
    sheet.save(content, "PNG")
    write_bytes(path, content.getvalue())

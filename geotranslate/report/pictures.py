"""The samples of a run as pictures that a page carries in itself."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

EARLIER = 11
"""Pictures, at most, beside the newest one."""

SMALL_SIDE = 480
"""Of the earlier ones at most, in pixels."""

SMALL_QUALITY, FULL_QUALITY = 75, 90
"""Of WebP, which shrinks these pictures to a tenth of a PNG."""

LARGEST = 16_383
"""Side of a WebP picture at most, in pixels."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """A picture of validation chips and their translations.

    Attributes:
        update: after which it was drawn.
        uri: the picture itself, as a ``data:`` address.
        width: in pixels.
        height: likewise.
    """

    update: int
    uri: str
    width: int
    height: int


def read_samples(folder: Path) -> list[Sample]:
    """Pictures over time, the newest first and at its full size, earlier ones smaller.

    Of many, the first and some at even distances. One that cannot be read is left out.

    Args:
        folder: with PNGs named by their updates; it may be missing.
    """
    files = sorted((path for path in folder.glob("*.png") if path.stem.isdigit()), reverse=True)
    chosen = [*files[:1], *_spread(files[1:], EARLIER)]
    read = (_read(path, full=path == files[0]) for path in chosen)
    return [sample for sample in read if sample]


def _spread(files: Sequence[Path], most: int) -> list[Path]:
    """At most so many at even distances, with the first and the last."""
    if len(files) <= most:
        return list(files)
    return [files[round(index * (len(files) - 1) / (most - 1))] for index in range(most)]


def _read(path: Path, *, full: bool) -> Sample | None:
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        log.warning("%s cannot be read and is left out: %s", path, error)
        return None
    side = LARGEST if full else SMALL_SIDE
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=FULL_QUALITY if full else SMALL_QUALITY)
    coded = base64.b64encode(content.getvalue()).decode("ascii")
    return Sample(int(path.stem), f"data:image/webp;base64,{coded}", *picture.size)

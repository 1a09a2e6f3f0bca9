"""Whether a disk has room for what is to be written, before hours are spent on it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from geotranslate.errors import OutputError

logger = logging.getLogger(__name__)

DEFLATE_MOST = 1032
"""Bytes that one byte of DEFLATE stands for at most: a length of 258 takes no less than 2 bits."""


def check_room_for_cogs(output: Path, sizes: Sequence[int], passing: int) -> None:
    """Compare a disk's room with what :func:`~geotranslate.raster.writing.write_cog` needs.

    Args:
        output: a file or folder to be.
        sizes: bytes of the pixels of each raster, which are made one after the other.
        passing: bytes of the pixels in parts of one of them, at most, until they are joined.

    Raises:
        OutputError: however well all is packed, the disk will be full.
    """
    # Overviews are a third of the pixels. GDAL makes them in a file of their own, then copies them.
    most = sum(sizes) * 4 / 3 + max(sizes, default=0) / 3 + passing
    check_room(output, most, least=sum(sizes) / DEFLATE_MOST)


def check_room(output: Path, most: float, *, least: float = 0) -> None:
    """Warn where a disk may be too small for what is to be written, refuse where it must be.

    Args:
        output: a file or folder to be.
        most: bytes that will lie on the disk at once, if nothing can be compressed.
        least: bytes that will lie there in any case.

    Raises:
        OutputError: there is less room than the least that is needed.
    """
    folder = next(path for path in (output, *output.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if free < least:
        raise OutputError(
            f"{output} needs {spell_bytes(least)} at the very least, and its disk has room for "
            f"{spell_bytes(free)}: it would be full before the end. Make room, choose an output on "
            "another disk, or ask for a smaller part."
        )
    if free < most:
        logger.warning(
            "%s needs up to %s on the way, if its pixels hardly compress, and its disk has room "
            "for %s; should it become full, make room and run the same command again",
            output,
            spell_bytes(most),
            spell_bytes(free),
        )


def spell_bytes(size: float) -> str:
    """Bytes as people say them: 3.9 MB, 5.8 GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"

"""Folders of chips without an index, as ArcGIS or a person makes them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from geotranslate.chips.arcgis import MODEL_DEFINITION
from geotranslate.chips.file import ChipHeader, read_chip, read_header
from geotranslate.chips.layout import Layout
from geotranslate.chips.limits import Limits, Tally
from geotranslate.errors import ChipsError
from geotranslate.raster.domain import Domain
from geotranslate.raster.grid import Grid

logger = logging.getLogger(__name__)

CHIP_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".mrf", ".jp2", ".bmp"}

VAL_SHARE = 0.1
SAMPLED_CHIPS = 1000
"""Chips, at most, that the value range of a folder without statistics is taken from."""


def find_chips(folder: Path) -> list[ChipHeader]:
    """The headers of all chips below a folder, sorted by name without suffix.

    Raises:
        ChipsError: there are too few, one cannot be read, or they are not of one kind.
    """
    files = [
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in CHIP_SUFFIXES and not file.name.startswith(".")
    ]
    files.sort(key=lambda file: file.with_suffix(""))
    if len(files) < 2:
        raise ChipsError(
            f"{folder} holds {len(files)} chips, but learning needs at least 2: one to learn from "
            "and one to check with. Export more chips."
        )
    headers = [read_header(file) for file in files]
    first = headers[0]
    for header in headers:
        if header.kind != first.kind:
            raise ChipsError(
                f"{header.path} has {header.kind}, but {first.path} has {first.kind}: one network "
                "takes only chips of one kind. Remove the odd ones, or export all of them again "
                "with the same settings."
            )
    return headers


def why_unpaired(
    path: Path, layout: Layout, a: Sequence[ChipHeader], b: Sequence[ChipHeader]
) -> str:
    """Empty where the n-th chips of A and B show one place.

    Raises:
        ChipsError: the layout promises pairs and the chips are none.
    """
    if not layout.paired:
        return f"the folders {layout.a} and {layout.b} are for chips without partners"
    problem = _pair_problem(path, layout, a, b)
    # People lay out unpaired chips as train_a and train_b too; only "images2" promises pairs.
    if problem and layout.name == "pix2pix":
        raise ChipsError(
            f"the chips in {path} are no pairs: {problem}. A network would learn from the wrong "
            "partners. Export both rasters again in one go, remove chips without a partner, or "
            "move them to A/images and B/images to learn without pairs."
        )
    return problem


def _pair_problem(
    path: Path, layout: Layout, a: Sequence[ChipHeader], b: Sequence[ChipHeader]
) -> str:
    names_a, names_b = (
        [str((header.path.relative_to(path / folder)).with_suffix("")) for header in headers]
        for folder, headers in ((layout.a, a), (layout.b, b))
    )
    if names_a != names_b:
        alone = sorted(set(names_a) ^ set(names_b))
        example = f", and {alone[0]} is only in one of them" if alone else ""
        return f"{layout.a} holds {len(a)} chips and {layout.b} {len(b)}{example}"
    for ours, theirs in zip(a, b, strict=True):
        if ours.shape != theirs.shape:
            return f"{ours.path} has {ours.kind} and {theirs.path} has {theirs.kind}"
        if not _same_place(ours, theirs):
            return f"{ours.path} and {theirs.path} have one name but lie in different places"
    return ""


def _same_place(a: ChipHeader, b: ChipHeader) -> bool:
    """Whether two chips of one size lie on each other within half a pixel, or do not say."""
    if a.transform.is_identity or b.transform.is_identity:
        return True
    if a.crs and b.crs and a.crs != b.crs:
        return False
    rows, cols = a.shape
    to_a = ~a.transform @ b.transform
    return all(math.dist(to_a @ corner, corner) <= 0.5 for corner in ((0, 0), (cols, rows)))


def draw_val(headers: Sequence[ChipHeader], seed: int) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Files for training and for validation; the n-th chips of equal lists share their fate."""
    count = len(headers)
    order = np.random.default_rng(seed).permutation(count)
    drawn = set(order[: max(1, round(VAL_SHARE * count))].tolist())
    return (
        tuple(header.path for number, header in enumerate(headers) if number not in drawn),
        tuple(header.path for number, header in enumerate(headers) if number in drawn),
    )


def arcgis_statistics(path: Path, layout: Layout) -> tuple[Any, Any]:
    """What ArcGIS says of the bands of A and B; None where it says nothing."""
    if not layout.paired:
        sides = ((path / folder).parent / MODEL_DEFINITION for folder in (layout.a, layout.b))
        a, b = (_read_definition(file).get("AllTilesStats") for file in sides)
        return a, b
    definition = _read_definition(path / MODEL_DEFINITION)
    if "AllTilesStats2" not in definition:  # arcgis.learn, too, then takes neither
        return None, None
    return definition.get("AllTilesStats"), definition["AllTilesStats2"]


def _read_definition(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def chip_domain(header: ChipHeader, train: Sequence[Path], statistics: Any) -> Domain:
    """The domain of chips like one of them.

    Args:
        header: of the one.
        train: files to measure where the statistics are of no use.
        statistics: what ArcGIS says of the bands.

    Raises:
        ChipsError: there is no valid pixel to measure.
    """
    limits = _arcgis_limits(header, statistics) or _measured_limits(header, train)
    return Domain(
        bands=header.bands,
        dtype=header.dtype,
        nodata=header.nodata,
        resolution_m=_resolution_m(header),
        low=tuple(limit.low for limit in limits),
        high=tuple(limit.high for limit in limits),
        clipped=tuple(limit.outside for limit in limits),
    )


def _arcgis_limits(header: ChipHeader, statistics: Any) -> list[Limits] | None:
    """The extremes of each band; None where ArcGIS did not write usable ones."""
    if statistics is None:
        return None
    try:
        ends = [(float(band["Min"]), float(band["Max"])) for band in statistics]
    except (TypeError, KeyError, ValueError):
        ends = []
    usable = len(ends) == len(header.bands) and all(
        math.isfinite(low)
        and math.isfinite(high)
        and low <= high
        # An extreme that means "nothing here" was never a value.
        and header.nodata not in (low, high)
        for low, high in ends
    )
    if not usable:
        logger.warning(
            "ArcGIS's statistics do not fit the chips beside %s; their values are measured "
            "instead.",
            header.path,
        )
        return None
    limits = []
    for band, pair in zip(header.bands, ends, strict=True):
        low, high = sorted(stored * band.scale + band.offset for stored in pair)
        limits.append(Limits(low, high, 0.0))
    return limits


def _measured_limits(header: ChipHeader, files: Sequence[Path]) -> list[Limits]:
    tally = Tally(header.bands, header.dtype)
    if header.dtype == "uint8":  # takes its full range, whatever the pixels are
        return tally.limits()
    found = False
    for file in files[:: math.ceil(len(files) / SAMPLED_CHIPS)]:
        chip = read_chip(file)
        tally.add(chip)
        found = found or bool(chip.valid.any())
    if not found:
        raise ChipsError(
            f"no pixel of the chips in {files[0].parent} is valid, so there is nothing to learn "
            "from. Look at the chips' nodata value, or export others."
        )
    return tally.limits()


def _resolution_m(header: ChipHeader) -> tuple[float, float]:
    """Pixel size in metres; 1 m where nothing says it, a transform without a CRS is in metres."""
    t = header.transform
    if t.is_identity:
        logger.warning(
            "%s does not say how large its pixels are; 1 m is assumed, so `geotranslate predict` "
            "will ask for --force on other scenes.",
            header.path,
        )
    x, y = math.hypot(t.a, t.d), math.hypot(t.b, t.e)
    if header.crs is None:
        return x, y
    rows, cols = header.shape
    return Grid(header.crs, Affine(x, 0, t.c, 0, -y, t.f), cols, rows).resolution_m

"""Whether a scene is what a model learned from: its bands, pixel size and values."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geotranslate.choices import PredictDecibel
from geotranslate.errors import BandError, GridError, SettingError
from geotranslate.raster.domain import Band, Domain
from geotranslate.raster.sampling import sample_pixels
from geotranslate.raster.scene import DECIBEL_FLOOR, Scene, open_scene

logger = logging.getLogger(__name__)

PLACEHOLDER = re.compile(r"band \d+")
"""What a band is called where its file does not name it."""

WARN_OUTSIDE = 0.05
REFUSE_OUTSIDE = 0.5
WARN_FACTOR = 1.25
REFUSE_FACTOR = 2.0


def open_matching(
    path: str,
    domain: Domain,
    *,
    bands: str | Sequence[int | str] | None = None,
    nodata: float | None = None,
    decibel: PredictDecibel | None = None,
) -> Scene:
    """Open a scene with a domain's bands, in its order; use it in a ``with`` statement.

    Args:
        path: anything GDAL opens.
        domain: what the bands have to be.
        bands: numbers or names to take instead. By default the bands named like the domain's, or
            all bands in their order where not all of these names are there.
        nodata: value that means "nothing here", where the file does not say.
        decibel: how to turn linear values into decibels, if not as the domain says; "none" leaves
            the values as they are.

    Raises:
        BandError: there are not as many bands as the domain has.
        RasterError: it cannot be read as a georeferenced raster.
    """
    if bands is None:
        with open_scene(path) as scene:
            bands = _named_like(scene, domain)
    if decibel is None:
        decibel = domain.decibel
    scene = open_scene(
        path, bands=bands, nodata=nodata, decibel=None if decibel == "none" else decibel
    )
    if len(scene.bands) != len(domain.bands):
        scene.close()
        raise BandError(
            f"the model takes {_count(domain.names)} and {path} gives "
            f"{_count([band.name for band in scene.bands])}, so nobody knows which to use. Choose "
            "with --bands, by number or name in the model's order."
        )
    return scene


def check_scene(scene: Scene, domain: Domain, part: Window, *, force: bool = False) -> None:
    """Refuse a scene that the model would not recognize; warn of one that it hardly would.

    Warnings go to the log.

    Args:
        scene: opened with the domain's bands.
        domain: what the model learned from.
        part: the window that will be translated.
        force: warn where it would refuse.

    Raises:
        GridError: pixels are larger or smaller than those learned from, by a factor of 2.
        SettingError: more than half of a band's values lie outside what the model learned from,
            or are linear where it learned decibels.
    """
    _warn_of_names(scene, domain)
    for misfit in (_compare_pixel_size(scene, domain), _compare_values(scene, domain, part)):
        if misfit is None:
            continue
        if misfit.refused and not force:
            raise misfit.error(f"{misfit.sentence} {misfit.mend}, or say --force to go on.")
        logger.warning("%s %s.", misfit.sentence, misfit.mend)


@dataclass(frozen=True)
class Misfit:
    """How a scene differs from what a model learned from.

    Attributes:
        sentence: the difference, and why it matters.
        mend: what to do, without a full stop.
        refused: it is too large to go on.
        error: the class to refuse with.
    """

    sentence: str
    mend: str
    refused: bool
    error: type[GridError | SettingError]


def _named_like(scene: Scene, domain: Domain) -> list[int | str] | None:
    """Numbers in the file of the bands named like the domain's.

    None where it lacks one, or where the domain's bands have no names themselves.
    """
    names = [_known(band.name) for band in scene.bands]
    wanted = [_known(name) for name in domain.names]
    found_once = all(name and names.count(name) == 1 for name in wanted)
    if not found_once or len(set(wanted)) < len(wanted):
        return None
    numbers = scene.numbers_of(None)
    return [numbers[names.index(name)] for name in wanted]


def _known(name: str) -> str:
    """A band's name as it is compared; empty where it is none but a number."""
    name = name.strip().lower()
    return "" if PLACEHOLDER.fullmatch(name) else name


def _warn_of_names(scene: Scene, domain: Domain) -> None:
    """Say which band is taken for which, where both files name them and do not agree."""
    pairs = [
        (theirs.name, ours.name)
        for theirs, ours in zip(scene.bands, domain.bands, strict=True)
        if _known(theirs.name) and _known(ours.name) and _known(theirs.name) != _known(ours.name)
    ]
    if pairs:
        logger.warning(
            "%s: %s. Choose other bands with --bands if that is wrong.",
            scene.path,
            ", ".join(f"band {theirs!r} is taken for {ours!r}" for theirs, ours in pairs),
        )


def _compare_pixel_size(scene: Scene, domain: Domain) -> Misfit | None:
    theirs, ours = scene.grid.resolution_m, domain.resolution_m
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    worst = max(ratios, key=lambda ratio: max(ratio, 1 / ratio))
    factor = max(worst, 1 / worst)
    if factor <= WARN_FACTOR:
        return None
    looks, resampling = ("small", "bilinear") if worst > 1 else ("large", "average")
    x, y = (side / ratio for side, ratio in zip(scene.grid.resolution, ratios, strict=True))
    return Misfit(
        f"pixels of {scene.path} are {theirs[0]:.4g} x {theirs[1]:.4g} m and the model learned on "
        f"{ours[0]:.4g} x {ours[1]:.4g} m, so everything looks {factor:.2g} times too {looks} to "
        "it.",
        f"Resample the scene: `gdalwarp -tr {x:.6g} {y:.6g} -r {resampling} {scene.path} "
        "resampled.tif`",
        refused=factor >= REFUSE_FACTOR,
        error=GridError,
    )


def _compare_values(scene: Scene, domain: Domain, part: Window) -> Misfit | None:
    """Look at pixels all over the part, in physical units."""
    stored = sample_pixels(scene, part)
    if not stored.shape[1]:
        logger.warning(
            "no valid pixel was found in %s, and invalid ones stay invalid. If there should be "
            "some, look at its nodata value and mask, or at --nodata.",
            scene.path,
        )
        return None
    findings = [
        _compare_band(row * theirs.scale + theirs.offset, theirs, ours, low, high)
        for row, theirs, ours, low, high in zip(
            stored, scene.bands, domain.bands, domain.low, domain.high, strict=True
        )
    ]
    index, worst = max(enumerate(findings), key=lambda finding: finding[1].share)
    if worst.share <= WARN_OUTSIDE:
        return None
    unit = f" {domain.bands[index].unit}" if domain.bands[index].unit else ""
    return Misfit(
        f"band {scene.bands[index].name!r} of {scene.path} holds mostly {worst.first:.4g} to "
        f"{worst.last:.4g} and the model learned from {domain.low[index]:.4g} to "
        f"{domain.high[index]:.4g}{unit}: {worst.what}.",
        worst.mend,
        refused=worst.share > REFUSE_OUTSIDE,
        error=SettingError,
    )


@dataclass(frozen=True)
class BandFinding:
    """How the values of a band compare with those learned from.

    Attributes:
        share: of the values, that mean nothing to the model.
        first: 1st percentile of the values.
        last: 99th percentile of the values.
        what: the misfit, in a few words.
        mend: what to do, without a full stop.
    """

    share: float
    first: float
    last: float
    what: str
    mend: str


def _compare_band(
    values: NDArray[np.float64], theirs: Band, ours: Band, low: float, high: float
) -> BandFinding:
    slack = 1e-6 * max(abs(low), abs(high))
    share = float(np.mean((values < low - slack) | (values > high + slack)))
    what = f"{share:.0%} of its values lie outside, and become the ends of that"
    mend = "Give a scene in the units and calibration that the model learned from"
    in_decibels, learned_decibels = theirs.in_decibels, ours.in_decibels
    first, middle, last = map(float, np.percentile(values, [1, 50, 99]))
    # Decibels without a unit look like this: more of the range lies below 0 than above.
    mostly_negative = learned_decibels or (not ours.unit.strip() and low + high < 0)
    if mostly_negative and not in_decibels and low < 0 <= values.min():
        # Linear values may lie wholly inside the range of decibels: 0.05 is in -25 to 5.
        share, what = 1.0, "none of its values is negative, as decibels are"
        mend = (
            "It looks like linear backscatter: say --decibel power (or --decibel amplitude, if "
            "the values are not squared)"
        )
    elif learned_decibels and middle <= DECIBEL_FLOOR:
        mend = "It looks like decibels taken for linear values: say --decibel none"
    elif not learned_decibels and low >= 0 and (in_decibels or middle < 0):
        mend = "It looks like decibels: give the scene before it was turned into them"
    return BandFinding(share, first, last, what, mend)


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} band{'s' * (len(names) != 1)} ({', '.join(names)})"

"""Predictions beside the truth: what all images share, and the figures of each.

`plan_accuracy` opens every file, so that refusals come first; `measure_accuracy` does the work.
An image is read window by window, so memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from geotranslate.errors import BandError
from geotranslate.raster.domain import Band
from geotranslate.raster.scene import Chip
from geotranslate.raster.statistics import Histogram
from geotranslate.translation.baselines import Baseline, fit_linear, fit_mean
from geotranslate.translation.evaluate_config import EvaluateConfig
from geotranslate.translation.metrics import HALO, Figures, Sums, ValueRange, figures, sum_window
from geotranslate.translation.side_by_side import ImageFiles, Part, match_images, open_image

RANGE_PERCENTILES = 0.1, 99.9

CANDIDATES = {
    "prediction": "prediction",
    "mean_color": "mean colour",
    "linear": "linear regression",
}
"""What is measured against the truth: name in reports, title in tables."""


@dataclass(frozen=True)
class AccuracyPlan:
    """What the images of one evaluation share where they are held against the truth.

    Attributes:
        bands: of the truth.
        value_range: what counts as full range in PSNR, SSIM and their kin.
        range_origin: where that comes from, for people.
        fitted: baselines that all images share; empty when each image has its own.
        fit_origin: what the baselines are fitted on, for people.
        measured: identities of the files measured, by role and path, as JSON values.
        fitted_on: likewise of those that shared baselines are fitted on.
    """

    bands: tuple[Band, ...]
    value_range: ValueRange
    range_origin: str
    fitted: Mapping[str, Baseline]
    fit_origin: str
    measured: Mapping[str, Any]
    fitted_on: Mapping[str, Any]


@dataclass(frozen=True)
class Accuracy:
    """How near one image comes to the truth.

    Attributes:
        truth_grid: how the truth came onto the prediction's grid, for people.
        pixels: valid pixels measured, the same for every candidate.
        candidates: figures by the names of `CANDIDATES`.
    """

    truth_grid: str
    pixels: int
    candidates: Mapping[str, Figures]


def plan_accuracy(images: Sequence[ImageFiles], config: EvaluateConfig) -> AccuracyPlan:
    """Check that images can be compared with their truth, and settle what they share.

    Raises:
        RasterError: a file cannot be read.
        BandError: a prediction's bands are not those of the truth, or the images are not alike.
        GridError: an image and its truth or source do not overlap, or share no valid pixel.
        SettingError: the value range is empty.
    """
    kinds = [_open_kind(files) for files in images]
    _check_alike(images, kinds)
    limits, range_origin = _find_range(images, kinds, config.value_range)
    fitted: dict[str, Baseline] = {}
    fitted_on: dict[str, Any] = {}
    fit_origin = "fitted on the very image they are measured on, which flatters them"
    if config.fit_truth is not None:
        others = _fit_images(config.fit_truth, config)
        other_kinds = [_open_kind(files) for files in others]
        _check_alike((images[0], *others), (kinds[0], *other_kinds))
        fitted = _fit(others)
        fit_origin = f"fitted on other images: {len(others)} of {config.fit_truth}"
        fitted_on = _inputs(other_kinds)
    return AccuracyPlan(
        bands=kinds[0].bands,
        value_range=limits,
        range_origin=range_origin,
        fitted=fitted,
        fit_origin=fit_origin,
        measured=_inputs(kinds),
        fitted_on=fitted_on,
    )


def measure_accuracy(
    files: ImageFiles, plan: AccuracyPlan
) -> Iterator[tuple[float, Accuracy | None]]:
    """Measure one image beside its baselines: the share that is done, and at last what was found.

    Raises:
        GridError: the image and its truth or source share no valid pixel.
    """
    baselines = plan.fitted or _fit([files])
    sums: dict[str, Sums] = {}
    with open_image(files) as image:
        for part in image.parts(halo=HALO):
            yield part.before, None
            candidates = {"prediction": part.predicted}
            for name, baseline in baselines.items():
                candidates[name] = baseline.predict(part.source)
            for name, pixels in candidates.items():
                fresh = sum_window(pixels, part.truth, part.valid, plan.value_range, part.core)
                sums[name] = sums[name] + fresh if name in sums else fresh
        truth_grid = image.truth_grid
    accuracy = Accuracy(
        truth_grid=truth_grid,
        pixels=sums["prediction"].pixels.count,
        candidates={name: figures(each, plan.value_range) for name, each in sums.items()},
    )
    yield 1.0, accuracy


def _fit_images(truth: str, config: EvaluateConfig) -> tuple[ImageFiles, ...]:
    """The images that shared baselines are fitted on."""
    images = match_images(truth, truth, config.fit_source, bands=config.bands, nodata=config.nodata)
    # Here the truth itself stands for the prediction: it says where the pixels lie.
    return tuple(replace(files, predicted_bands=config.bands) for files in images)


@dataclass(frozen=True)
class _Kind:
    """What opening an image tells; in one evaluation the images must be alike."""

    bands: tuple[Band, ...]
    dtype: str
    source_bands: int
    identities: dict[str, Any]

    @property
    def scales(self) -> list[tuple[float, float]]:
        return [(band.scale, band.offset) for band in self.bands]


def _open_kind(files: ImageFiles) -> _Kind:
    with open_image(files) as image:
        return _Kind(
            bands=image.truth.bands,
            dtype=image.truth.dtype,
            source_bands=0 if image.source is None else len(image.source.bands),
            identities=image.identities,
        )


def _inputs(kinds: Sequence[_Kind]) -> dict[str, Any]:
    return {name: identity for kind in kinds for name, identity in kind.identities.items()}


def _check_alike(images: Sequence[ImageFiles], kinds: Sequence[_Kind]) -> None:
    """Refuse images that differ in what averages and shared baselines need alike."""
    first = kinds[0]
    for files, kind in zip(images, kinds, strict=True):
        for what, theirs, ours in (
            ("true bands", len(kind.bands), len(first.bands)),
            ("units", [b.unit for b in kind.bands], [b.unit for b in first.bands]),
            ("source bands", kind.source_bands, first.source_bands),
        ):
            if ours != theirs:
                raise BandError(
                    f"the images are not alike: {what} of {files.predicted} are {theirs}, of "
                    f"{images[0].predicted} {ours}, so their figures have no average and no "
                    "baseline fits both. Evaluate them apart."
                )


def _find_range(
    images: Sequence[ImageFiles], kinds: Sequence[_Kind], given: tuple[float, float] | None
) -> tuple[ValueRange, str]:
    """What counts as full range in each band, and where that comes from."""
    count = len(kinds[0].bands)
    if given is not None:
        return ValueRange((given[0],) * count, (given[1],) * count), "as given"
    if all(kind.dtype == "uint8" and kind.scales == kinds[0].scales for kind in kinds):
        ends = [sorted((offset, 255 * scale + offset)) for scale, offset in kinds[0].scales]
        return ValueRange(*zip(*ends, strict=True)), "all values of uint8"
    histograms = [Histogram() for _ in range(count)]
    for part in _all_parts(images):
        for histogram, band in zip(histograms, part.truth, strict=True):
            histogram.add(band[part.valid])
    low, high = (tuple(h.percentile(p) for h in histograms) for p in RANGE_PERCENTILES)
    origin = "{} to {} percentile of the measured true pixels".format(*RANGE_PERCENTILES)
    return ValueRange(low, high), origin


def _fit(images: Sequence[ImageFiles]) -> dict[str, Baseline]:
    """The baselines that the images' files allow for."""
    fitted: dict[str, Baseline] = {
        "mean_color": fit_mean(
            Chip(part.truth, part.valid, part.grid) for part in _all_parts(images)
        )
    }
    if images[0].source:
        fitted["linear"] = fit_linear(
            (Chip(part.source, part.valid, part.grid), Chip(part.truth, part.valid, part.grid))
            for part in _all_parts(images)
        )
    return fitted


def _all_parts(images: Sequence[ImageFiles]) -> Iterator[Part]:
    for files in images:
        with open_image(files) as image:
            yield from image.parts(halo=0)

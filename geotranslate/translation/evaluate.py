"""Predictions beside the truth: which images, on which grid, and the figures of each.

An image is read window by window, so memory does not grow with it. Refusals come first:
`plan_evaluation` opens every file and `measure_images` does the work.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotranslate.errors import BandError, SettingError
from geotranslate.raster.domain import Band
from geotranslate.raster.output import check_same_work, explained, locked, write_text
from geotranslate.raster.scene import Chip
from geotranslate.raster.statistics import Histogram
from geotranslate.translation.baselines import Baseline, fit_linear, fit_mean
from geotranslate.translation.metrics import (
    FIGURES,
    HALO,
    Figures,
    Sums,
    ValueRange,
    figures,
    sum_window,
    summarize,
)
from geotranslate.translation.side_by_side import ImageFiles, Part, match_images, open_image

RANGE_PERCENTILES = 0.1, 99.9

CANDIDATES = {
    "prediction": "prediction",
    "mean_color": "mean colour",
    "linear": "linear regression",
}
"""What is measured against the truth: name in reports, title in tables."""


@dataclass(frozen=True)
class Evaluation:
    """What `measure_images` has to know; made and checked by `plan_evaluation`.

    Attributes:
        images: what is measured.
        bands: of the truth.
        value_range: what counts as full range in PSNR, SSIM and their kin.
        range_origin: where that comes from, for people.
        fitted: baselines that all images share; empty when each image has its own.
        fit_origin: what the baselines are fitted on, for people.
        record: settings and inputs, as JSON values: what makes two reports the same.
    """

    images: tuple[ImageFiles, ...]
    bands: tuple[Band, ...]
    value_range: ValueRange
    range_origin: str
    fitted: Mapping[str, Baseline]
    fit_origin: str
    record: Mapping[str, Any]


@dataclass(frozen=True)
class ImageReport:
    """The figures of one image.

    Attributes:
        files: what was compared.
        truth_grid: how the truth came onto the prediction's grid, for people.
        pixels: valid pixels measured, the same for every candidate.
        candidates: figures by the names of `CANDIDATES`.
    """

    files: ImageFiles
    truth_grid: str
    pixels: int
    candidates: Mapping[str, Figures]


@dataclass(frozen=True)
class Progress:
    """How far `measure_images` is.

    Attributes:
        done: images, in parts.
        name: of the image at hand.
        report: its figures, once it is done.
    """

    done: float
    name: str
    report: ImageReport | None = None


@dataclass(frozen=True)
class Report:
    """What an evaluation found; each image counts the same in averages."""

    plan: Evaluation
    images: tuple[ImageReport, ...]

    def summary(self, how: Callable[[NDArray[np.float64]], Any] = np.mean) -> dict[str, Figures]:
        """The figures over all images, by the names of `CANDIDATES`.

        Args:
            how: np.mean or np.median.
        """
        return {
            name: summarize([image.candidates[name] for image in self.images], how)
            for name in self.images[0].candidates
        }

    def to_dict(self) -> dict[str, Any]:
        """The whole report as JSON values; a figure without a finite value is None."""
        plan = self.plan
        return {
            "bands": [{"name": band.name, "unit": band.unit} for band in plan.bands],
            "value_range": {
                "low": plan.value_range.low,
                "high": plan.value_range.high,
                "origin": plan.range_origin,
            },
            "baselines": plan.fit_origin,
            "job": dict(plan.record),
            "figures": {name: figure.meaning for name, figure in FIGURES.items()},
            "images": [
                {
                    "name": image.files.name,
                    "predicted": image.files.predicted,
                    "truth": image.files.truth,
                    "source": image.files.source,
                    "truth_grid": image.truth_grid,
                    "pixels": image.pixels,
                    "figures": _plain(image.candidates),
                }
                for image in self.images
            ],
            "mean": _plain(self.summary()),
            "median": _plain(self.summary(np.median)),
        }


def _plain(candidates: Mapping[str, Figures]) -> dict[str, dict[str, Any]]:
    return {
        name: {f.name: _finite(getattr(values, f.name)) for f in fields(values)}
        for name, values in candidates.items()
    }


def _finite(value: float | tuple[float, ...]) -> Any:
    if isinstance(value, tuple):
        return [_finite(band) for band in value]
    return value if math.isfinite(value) else None


def evaluate(
    predicted: str | Path,
    truth: str | Path,
    *,
    source: str | Path | None = None,
    bands: str | None = None,
    nodata: float | None = None,
    value_range: tuple[float, float] | None = None,
    fit_truth: str | Path | None = None,
    fit_source: str | Path | None = None,
) -> Report:
    """Measure predictions against the truth; the arguments are those of `plan_evaluation`."""
    plan = plan_evaluation(
        predicted,
        truth,
        source=source,
        bands=bands,
        nodata=nodata,
        value_range=value_range,
        fit_truth=fit_truth,
        fit_source=fit_source,
    )
    return Report(plan, tuple(step.report for step in measure_images(plan) if step.report))


def plan_evaluation(
    predicted: str | Path,
    truth: str | Path,
    *,
    source: str | Path | None = None,
    bands: str | None = None,
    nodata: float | None = None,
    value_range: tuple[float, float] | None = None,
    fit_truth: str | Path | None = None,
    fit_source: str | Path | None = None,
) -> Evaluation:
    """Find the images, check that they can be compared, and settle what they share.

    Args:
        predicted: a raster, or a folder or glob of rasters.
        truth: a raster, the same for every prediction; or a folder or glob: for one prediction
            the scenes of a mosaic, for several the rasters of the same file names.
        source: what the predictions were made from, found like the truth; adds the baseline of
            a linear regression.
        bands: those of the truth that the prediction's stand for, by number or name.
        nodata: of the truth, where its files do not say.
        value_range: physical low and high that count as full range in every band. Otherwise 0
            to 255 for a uint8 truth, and the 0.1 to 99.9 percentiles of all images' valid true
            pixels for other types.
        fit_truth: other images to fit the baselines on, such as those of the training.
        fit_source: their source, found like the truth.

    Raises:
        RasterError: a file cannot be read.
        BandError: a prediction's bands are not those of the truth.
        GridError: an image and its truth or source do not overlap, or share no valid pixel.
        SettingError: file names do not match, settings contradict, or the value range is empty.
    """
    _check_fit(source, fit_truth, fit_source)
    images = match_images(predicted, truth, source, bands=bands, nodata=nodata)
    kinds = [_open_kind(files) for files in images]
    _check_alike(images, kinds)
    limits, range_origin = _find_range(images, kinds, value_range)
    fitted: dict[str, Baseline] = {}
    fit_inputs: dict[str, Any] = {}
    fit_origin = "fitted on the very image they are measured on, which flatters them"
    if fit_truth is not None:
        # Here the truth itself stands for the prediction: it says where the pixels lie.
        others = tuple(
            replace(files, predicted_bands=bands)
            for files in match_images(fit_truth, fit_truth, fit_source, bands=bands, nodata=nodata)
        )
        other_kinds = [_open_kind(files) for files in others]
        _check_alike((images[0], *others), (kinds[0], *other_kinds))
        fitted = _fit(others)
        fit_origin = f"fitted on other images: {len(others)} of {fit_truth}"
        fit_inputs = _inputs(other_kinds)
    record = {
        "command": "evaluate",
        "bands": bands,
        "nodata": nodata,
        "value_range": value_range,
        "measured": _inputs(kinds),
        "fitted": fit_inputs,
    }
    return Evaluation(images, kinds[0].bands, limits, range_origin, fitted, fit_origin, record)


@contextmanager
def claim_report(output: Path, plan: Evaluation, *, overwrite: bool = False) -> Iterator[bool]:
    """Hold a report's file for this process; gives whether the report is there already.

    Args:
        output: the JSON file to be; missing folders are made.
        plan: what the report is to be about.
        overwrite: whatever is there is to be replaced.

    Raises:
        OutputError: the file is another report or none, another process writes it, or the folder
            cannot be written.
    """
    with explained(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    with locked(output.with_name(output.name + ".lock"), output):
        finished = output.exists() and not overwrite
        if finished:
            check_same_work(output, _read_record(output), dict(plan.record))
        yield finished


def write_report(report: Report, output: Path) -> None:
    """Write a report as JSON, complete or not at all.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    write_text(output, json.dumps(report.to_dict(), indent=1))


def _read_record(output: Path) -> dict[str, Any] | None:
    try:
        report = json.loads(output.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report.get("job") if isinstance(report, dict) else None


def measure_images(plan: Evaluation) -> Iterator[Progress]:
    """Measure one image after the other, each beside its baselines.

    Raises:
        GridError: an image and its truth or source share no valid pixel.
    """
    for number, files in enumerate(plan.images):
        baselines = plan.fitted or _fit([files])
        sums: dict[str, Sums] = {}
        with open_image(files) as image:
            for part in image.parts(halo=HALO):
                yield Progress(number + part.before, files.name)
                candidates = {"prediction": part.predicted}
                for name, baseline in baselines.items():
                    candidates[name] = baseline.predict(part.source)
                for name, pixels in candidates.items():
                    fresh = sum_window(pixels, part.truth, part.valid, plan.value_range, part.core)
                    sums[name] = sums[name] + fresh if name in sums else fresh
            truth_grid = image.truth_grid
        report = ImageReport(
            files=files,
            truth_grid=truth_grid,
            pixels=sums["prediction"].pixels.count,
            candidates={name: figures(each, plan.value_range) for name, each in sums.items()},
        )
        yield Progress(number + 1, files.name, report)


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


def _check_fit(
    source: str | Path | None, fit_truth: str | Path | None, fit_source: str | Path | None
) -> None:
    if fit_source is not None and (fit_truth is None or source is None):
        raise SettingError(
            "--fit-source alone fits no line: it needs the truth of the same images, and the "
            "source of the measured ones. Give --fit-truth and --source too."
        )
    if fit_truth is not None and source is not None and fit_source is None:
        raise SettingError(
            "--fit-truth would fit the mean colour on other images and leave the linear "
            "regression on the measured ones, which nobody could compare. Give --fit-source too."
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

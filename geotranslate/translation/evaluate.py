"""Evaluation of predictions: beside the truth, beside another prediction, on the lines of windows.

Refusals come first: `plan_evaluation` opens every file and `measure_images` does the work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotranslate.raster.output import check_same_work, explained, locked, write_text
from geotranslate.raster.scene import open_scene
from geotranslate.raster.seams import (
    Mismatch,
    SeamFigures,
    check_comparable,
    check_crossed,
    finite,
    measure_mismatch,
    measure_seams,
)
from geotranslate.translation.accuracy import (
    Accuracy,
    AccuracyPlan,
    measure_accuracy,
    plan_accuracy,
)
from geotranslate.translation.evaluate_config import EvaluateConfig
from geotranslate.translation.metrics import FIGURES, Figures, summarize
from geotranslate.translation.side_by_side import ImageFiles, match_images


@dataclass(frozen=True)
class Evaluation:
    """What `measure_images` has to know; made and checked by `plan_evaluation`.

    Attributes:
        config: what is asked.
        images: what is measured.
        accuracy: what holding them against the truth takes; None without a truth.
        record: settings and inputs, as JSON values: what makes two reports the same.
    """

    config: EvaluateConfig
    images: tuple[ImageFiles, ...]
    accuracy: AccuracyPlan | None
    record: Mapping[str, Any]


@dataclass(frozen=True)
class ImageReport:
    """What was found about one image; None where it was not asked.

    Attributes:
        files: what was compared.
        accuracy: how near it comes to the truth.
        seams: what is visible where its windows meet.
        mismatch: how it differs from the other prediction.
    """

    files: ImageFiles
    accuracy: Accuracy | None
    seams: SeamFigures | None
    mismatch: Mismatch | None

    def to_dict(self) -> dict[str, Any]:
        """Everything found, as JSON values."""
        found: dict[str, Any] = {"name": self.files.name, "predicted": self.files.predicted}
        if self.accuracy is not None:
            found |= {
                "truth": self.files.truth,
                "source": self.files.source,
                "truth_grid": self.accuracy.truth_grid,
                "pixels": self.accuracy.pixels,
                "figures": _plain(self.accuracy.candidates),
            }
        if self.seams is not None:
            found["seams"] = self.seams.to_dict()
        if self.mismatch is not None:
            found["against"] = self.mismatch.to_dict()
        return found


@dataclass(frozen=True)
class Progress:
    """How far `measure_images` is.

    Attributes:
        done: images, in parts.
        name: of the image at hand.
        report: what was found about it, once it is done.
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
        """The figures against the truth over all images, by the names of `CANDIDATES`.

        Args:
            how: np.mean or np.median.
        """
        found = [image.accuracy.candidates for image in self.images if image.accuracy]
        names = found[0] if found else ()
        return {name: summarize([each[name] for each in found], how) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """The whole report as JSON values; a figure without a finite value is None."""
        report: dict[str, Any] = {"job": dict(self.plan.record)}
        plan = self.plan.accuracy
        if plan is not None:
            report |= {
                "bands": [{"name": band.name, "unit": band.unit} for band in plan.bands],
                "value_range": {
                    "low": plan.value_range.low,
                    "high": plan.value_range.high,
                    "origin": plan.range_origin,
                },
                "baselines": plan.fit_origin,
                "figures": {name: figure.meaning for name, figure in FIGURES.items()},
                "mean": _plain(self.summary()),
                "median": _plain(self.summary(np.median)),
            }
        return report | {"images": [image.to_dict() for image in self.images]}


def _plain(candidates: Mapping[str, Figures]) -> dict[str, dict[str, Any]]:
    return {
        name: {f.name: _finite(getattr(values, f.name)) for f in fields(values)}
        for name, values in candidates.items()
    }


def _finite(value: float | tuple[float, ...]) -> Any:
    return [finite(band) for band in value] if isinstance(value, tuple) else finite(value)


def evaluate(config: EvaluateConfig) -> Report:
    """Measure predictions.

    Raises:
        RasterError: a file cannot be read.
        BandError: bands that are to be compared are not the same.
        GridError: rasters that are to be compared do not lie where they have to.
        SettingError: file names do not match, or a setting does not fit the files.
    """
    plan = plan_evaluation(config)
    return Report(plan, tuple(step.report for step in measure_images(plan) if step.report))


def plan_evaluation(config: EvaluateConfig) -> Evaluation:
    """Find the images, check that they can be measured, and settle what they share.

    Raises:
        RasterError: a file cannot be read.
        BandError: bands that are to be compared are not the same.
        GridError: rasters that are to be compared do not lie where they have to.
        SettingError: file names do not match, or a setting does not fit the files.
    """
    images = match_images(
        config.predicted,
        config.truth,
        config.source,
        against=config.against,
        bands=config.bands,
        nodata=config.nodata,
    )
    accuracy = plan_accuracy(images, config) if config.truth is not None else None
    identities: dict[str, Any] = {}
    for files in images:
        identities |= _check_image(files, config)
    record = {
        "command": "evaluate",
        "seams": [config.seams.size, config.seams.offset] if config.seams else None,
        "bands": config.bands,
        "nodata": config.nodata,
        "value_range": config.value_range,
        "measured": identities | (dict(accuracy.measured) if accuracy else {}),
        "fitted": dict(accuracy.fitted_on) if accuracy else {},
    }
    return Evaluation(config, images, accuracy, record)


def _check_image(files: ImageFiles, config: EvaluateConfig) -> dict[str, Any]:
    """Refuse what cannot be measured for seams or against another; identities of the files."""
    with open_scene(files.predicted, placed=files.against is not None) as scene:
        if config.seams is not None:
            check_crossed(config.seams, scene)
        identities = {f"predicted {scene.path}": scene.identity()}
        if files.against is not None:
            with open_scene(files.against) as other:
                check_comparable(scene, other)
                identities[f"against {other.path}"] = other.identity()
    return identities


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


def read_report(output: Path) -> dict[str, Any]:
    """A report that was written and has been claimed, as JSON values."""
    report: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return report


def _read_record(output: Path) -> dict[str, Any] | None:
    try:
        report = json.loads(output.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report.get("job") if isinstance(report, dict) else None


def measure_images(plan: Evaluation) -> Iterator[Progress]:
    """Measure one image after the other.

    Raises:
        GridError: rasters that are to be compared share no valid pixel, or none lies at the lines.
    """
    lines = plan.config.seams
    for number, files in enumerate(plan.images):
        yield Progress(number, files.name)
        mismatch, seams = None, None
        accuracy: Accuracy | None = None
        if files.against is not None:
            mismatch = measure_mismatch(files.predicted, files.against, lines)
        if lines is not None:
            seams = measure_seams(files.predicted, lines.size, lines.offset)
        if plan.accuracy is not None:
            for share, found in measure_accuracy(files, plan.accuracy):
                accuracy = found
                yield Progress(number + share, files.name)
        report = ImageReport(files, accuracy, seams, mismatch)
        yield Progress(number + 1, files.name, report)

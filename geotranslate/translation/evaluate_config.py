"""What `geotranslate evaluate` can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import field_validator, model_validator

from geotranslate.errors import SettingError
from geotranslate.raster.line_sums import Lines, parse_lines
from geotranslate.translation.settings import Settings

ABOUT_TRUTH = "source", "bands", "nodata", "value_range", "fit_truth", "fit_source"
"""Settings that say how a truth is read or used."""


class EvaluateConfig(Settings):
    """What is measured, and beside what."""

    predicted: str
    """A raster, or a folder or glob of rasters."""
    truth: str | None = None
    """A raster, the same for every prediction; or a folder or glob: for one prediction the scenes
    of a mosaic, for several the rasters of the same file names."""
    seams: Lines | None = None
    """Where the windows meet that the predictions were made of; also SIZE or (SIZE, OFFSET), as
    numbers or as the text SIZE,OFFSET."""
    against: str | None = None
    """A raster on the prediction's grid, or a folder or glob of rasters of the same file names."""
    source: str | None = None
    """What the predictions were made from, found like the truth; adds the baseline of a linear
    regression."""
    bands: str | None = None
    """Those of the truth that the prediction's stand for, by number or name."""
    nodata: float | None = None
    """Of the truth, where its files do not say."""
    value_range: tuple[float, float] | None = None
    """Physical low and high that count as full range in every band. Otherwise 0 to 255 for a
    uint8 truth, and the 0.1 to 99.9 percentiles of all valid true pixels for other types."""
    fit_truth: str | None = None
    """Other images to fit the baselines on, such as those of the training."""
    fit_source: str | None = None
    """Their source, found like the truth."""

    @field_validator(
        "predicted", "truth", "against", "source", "fit_truth", "fit_source", mode="before"
    )
    @classmethod
    def _spell_path(cls, path: Any) -> Any:
        return str(path) if isinstance(path, Path) else path

    @field_validator("seams", mode="before")
    @classmethod
    def _parse_seams(cls, seams: Any) -> Any:
        if isinstance(seams, str | int | float):
            seams = [seams]
        if isinstance(seams, list | tuple):
            return parse_lines(",".join(map(str, seams)))
        return seams

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.truth is None:
            if self.seams is None and self.against is None:
                raise SettingError(
                    f"nothing is named that {self.predicted} could be measured with. Give the "
                    "true image after it, --seams SIZE to look for seams, or --against OTHER to "
                    "compare two predictions."
                )
            for name in ABOUT_TRUTH:
                if getattr(self, name) is not None:
                    flag = "range" if name == "value_range" else name.replace("_", "-")
                    raise SettingError(
                        f"--{flag} says how predictions are measured against the true image, but "
                        f"none is given. Name it after {self.predicted}, or leave --{flag} out."
                    )
        if self.fit_source is not None and (self.fit_truth is None or self.source is None):
            raise SettingError(
                "--fit-source alone fits no line: it needs the truth of the same images, and the "
                "source of the measured ones. Give --fit-truth and --source too."
            )
        if self.fit_truth is not None and self.source is not None and self.fit_source is None:
            raise SettingError(
                "--fit-truth would fit the mean colour on other images and leave the linear "
                "regression on the measured ones, which nobody could compare. Give --fit-source "
                "too."
            )
        return self

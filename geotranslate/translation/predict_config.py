"""What `geotranslate predict` can be told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from geotranslate.choices import Direction, Precision, PredictBlend, PredictDecibel, Seams, Turns
from geotranslate.errors import SettingError
from geotranslate.raster.bounds import Bounds, check_bounds
from geotranslate.translation.settings import Settings


class PredictConfig(Settings):
    """How scenes are translated. The flags of ``geotranslate predict`` have the same names."""

    direction: Direction = "ab"
    """From A to B, or the way back if the model learned it."""

    size: int = 1024
    """Side in pixels of what is written at once, rounded up to what the generator and the output
    need; more is read around it. Larger is faster and takes more memory."""

    blend: PredictBlend = "crop"
    """How windows become one raster: each core as it is, or cores that overlap by a quarter, faded
    into each other, for deep U-Nets and --seams tile."""

    seams: Seams | None = None
    """For models with instance norm, whose statistics are those of each window (tile), of a sample
    of the scene (scene; the way if unset) or of a coarse grid over the scene (dense)."""

    statistics: Path | None = None
    """File of the statistics of --seams scene: read if it is there, so that scenes match; else
    measured over all scenes of the command, and written."""

    turns: Turns = 1
    """Ways in which each window is turned and mirrored, translated, and the mean taken: 1, 2, 4 or
    8. More are nearer to the truth and calmer, less sharp, and take as many times longer."""

    batch: int | None = Field(None, ge=1)
    """Windows translated at once; unset, 1 on a CPU, else so many that their cores are a
    megapixel."""

    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, mps."""

    precision: Precision = "auto"
    """Arithmetic of the convolutions: auto is bf16 where the hardware has it."""

    bands: str | tuple[int | str, ...] | None = None
    """Bands of the scenes in the model's order, by number or name: VV,VH; unset, those named like
    the model's, else all in their order."""

    nodata: float | None = None
    """One more value of the scenes for nothing here."""

    decibel: PredictDecibel | None = None
    """How to turn linear values into decibels; unset, as the model's data was."""

    aoi: str | Path | None = None
    """Polygons in a vector file of any CRS; pixels whose centre is outside come out invalid."""

    bounds: Bounds | None = None
    """Part to be translated, in each scene's CRS."""

    check_seams: bool = False
    """Translate a sample of each scene again with other cores and say whether cores show."""

    force: bool = False
    """Go on with values and pixel sizes unknown to the model."""

    @field_validator("nodata")
    @classmethod
    def _forget_nan(cls, nodata: float | None) -> float | None:
        # NaN is invalid anyway, and equals nothing, not even what was asked for the last time.
        return None if nodata is not None and math.isnan(nodata) else nodata

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.bounds is not None:
            check_bounds(self.bounds)
        if self.statistics is not None and self.seams not in (None, "scene"):
            raise SettingError(
                "a file of statistics holds those of whole scenes, which --seams "
                f"{self.seams} does not use. Say --seams scene, or leave out --statistics."
            )
        if self.turns > 1 and self.seams == "dense":
            raise SettingError(
                "--seams dense has statistics for each place of the scene as it lies, which a "
                "turned window would miss. Say --seams scene, or --turns 1."
            )
        return self

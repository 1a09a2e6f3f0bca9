"""What `geotranslate tile` can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, field_validator, model_validator

from geotranslate.choices import Decibel, LayoutName, Resampling
from geotranslate.errors import SettingError


class TileConfig(BaseModel, frozen=True, extra="forbid", ser_json_inf_nan="strings"):
    """How scenes become chips."""

    a: tuple[str, ...]
    """Scenes of domain A: rasters, globs, folders."""
    b: tuple[str, ...]
    """Scenes of domain B."""
    layout: LayoutName = "pix2pix"
    """How chips lie in their folder. Those of pix2pix and train_a_b are pairs of one place; with
    cyclegan each domain is cut alone."""
    size: int = 256
    """Side of a chip."""
    stride: int = 128
    """Pixels from one chip's start to the next one's; half of the size where it is not given."""
    bands_a: tuple[str, ...] | None = None
    """Bands of A by number or name; all when None."""
    bands_b: tuple[str, ...] | None = None
    """Bands of B."""
    nodata_a: float | None = None
    """Value that means "nothing here" in A, where the files do not say."""
    nodata_b: float | None = None
    """The same in B."""
    decibel_a: Decibel | None = None
    """Turn linear power or amplitude of A into decibels."""
    decibel_b: Decibel | None = None
    """The same for B."""
    resampling: Resampling = "bilinear"
    """How B comes onto A's grid, where pairs do not lie on one grid already."""
    min_valid: float = 1.0
    """Least share of valid pixels in a chip; in a pair, of pixels valid in both."""
    aoi: str | None = None
    """Vector file with polygons; chips lie wholly inside them."""
    aoi_touching: bool = False
    """Chips that touch the polygons count as well."""
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, val and test."""
    seed: int = 0
    """Decides which part of the map belongs to which split, and what a limit leaves."""
    limit: int | None = None
    """At most so many pairs or, without pairs, so many chips of each domain."""

    @model_validator(mode="before")
    @classmethod
    def _half_stride(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("stride") is None:
            size = values.get("size", 256)
            return {**values, "stride": max(size // 2, 1) if isinstance(size, int) else size}
        return values

    @field_validator("bands_a", "bands_b", mode="before")
    @classmethod
    def _split_at_commas(cls, bands: Any) -> Any:
        return tuple(bands.split(",")) if isinstance(bands, str) else bands

    @field_validator("split", mode="before")
    @classmethod
    def _check_shares(cls, split: Any) -> tuple[float, ...]:
        try:
            shares = tuple(map(float, split.split(",") if isinstance(split, str) else split))
        except (TypeError, ValueError):
            shares = ()
        # Asked for what holds, not for what does not: of NaN nothing holds.
        whole = len(shares) == 3 and shares[0] > 0 and abs(sum(shares) - 1) <= 1e-6
        if not whole or min(shares) < 0:
            spelled = ",".join(map(str, split)) if isinstance(split, list | tuple) else split
            raise SettingError(
                f"split is {spelled}, which does not divide the chips. Give the shares of train, "
                "val and test, with some for train and 1 as their sum, such as 0.8,0.1,0.1."
            )
        return shares

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size < 1:
            raise SettingError(f"size is {self.size} px: a chip needs pixels. Choose 1 or more.")
        if not 0 < self.stride <= self.size:
            raise SettingError(
                f"stride is {self.stride} px but chips have {self.size} px: pixels between two "
                f"chips would never be cut. Choose a stride from 1 to {self.size}."
            )
        if not 0 < self.min_valid <= 1:
            raise SettingError(
                f"min-valid is {self.min_valid:g}, but it is a share of a chip's pixels. Choose "
                "more than 0 and at most 1."
            )
        if self.aoi_touching and self.aoi is None:
            raise SettingError(
                "aoi-touching says how chips lie in an area, but there is none. Name it with --aoi."
            )
        if self.limit is not None and self.limit < 1:
            raise SettingError(f"limit is {self.limit}: nothing would be cut. Choose 1 or more.")
        for flag, scenes in (("--a", self.a), ("--b", self.b)):
            if not scenes:
                raise SettingError(
                    f"no scene is given with {flag}, and a translation has two sides. Name one."
                )
        return self

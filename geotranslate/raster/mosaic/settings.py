"""What a user can say about a mosaic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rasterio.crs import CRS

from geotranslate.choices import MOSAIC_MATCHES, RESAMPLINGS, MosaicBlend, MosaicMatch, Resampling
from geotranslate.errors import SettingError, reason
from geotranslate.raster.blend import BLENDS
from geotranslate.raster.bounds import Bounds, check_bounds


@dataclass(frozen=True)
class MosaicSettings:
    """How scenes become one raster.

    Raises:
        SettingError: a setting cannot work, alone or beside another.
    """

    blend: MosaicBlend = "feather"
    """What becomes of pixels that several scenes hold: ``feather`` (mean weighted by the distance
    to each scene's valid edge), ``mean``, ``median``, ``first`` or ``last`` in the order given,
    ``best`` (of the highest quality)."""

    bands: str | Sequence[int | str] | None = None
    """Numbers from 1 or names; all data bands when None, for ``best`` without the quality band."""

    quality: str | int | None = None
    """Number or name of the band by which ``best`` chooses; the highest value wins."""

    match: MosaicMatch | None = None
    """Bring the scenes' values together first: by one ``gain`` a band, or by ``histogram``."""

    anchor: str | None = None
    """The scene that ``match`` leaves as it is; the mean of all stays when None."""

    crs: str | None = None
    """Of the mosaic; the first scene's when None."""

    resolution: tuple[float, float] | None = None
    """Width and height of a pixel in CRS units; the first scene's when None."""

    bounds: Bounds | None = None
    """(left, bottom, right, top) in the mosaic's CRS; around all scenes when None."""

    snap: str | None = None
    """Where pixels' edges lie: on the ``first`` scene's, on ``multiples`` of the pixel size, at the
    left top corner of the ``bounds``, or on those of the raster of this path, whose CRS and pixel
    size count where none are given. When None, ``first`` if the mosaic has the first scene's CRS
    and pixel size, else ``multiples``."""

    resampling: Resampling = "bilinear"
    """How scenes that do not lie on the mosaic's pixels are brought there."""

    cutline: str | Path | None = None
    """Polygons, at least one a scene, outside of which it does not count."""

    aoi: str | Path | None = None
    """Polygons outside of which the mosaic is invalid, and around which it ends."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("blend", self.blend, tuple(BLENDS)),
            ("match", self.match, (None, *MOSAIC_MATCHES)),
            ("resampling", self.resampling, RESAMPLINGS),
        ):
            if value not in known:
                choices = ", ".join(filter(None, known))
                raise SettingError(f"{name} {value!r} is unknown. Choose one of {choices}.")
        if self.blend == "best" and self.quality is None:
            raise SettingError(
                "blend best takes the pixels of the highest quality, but no band says what that "
                "is. Name it with --quality, or choose another blend."
            )
        if self.quality is not None and self.blend != "best":
            raise SettingError(
                f"the quality band {self.quality!r} would not be used: blend {self.blend} weighs "
                "nothing by it. Choose --blend best, or leave out --quality."
            )
        if self.anchor is not None and self.match is None:
            raise SettingError(
                f"the anchor {self.anchor} would not be used, since nothing is matched. Add "
                "--match gain or --match histogram, or leave out --anchor."
            )
        sizes = self.resolution or (1.0, 1.0)
        if not all(math.isfinite(size) and size > 0 for size in sizes):
            raise SettingError(
                f"the resolution is {sizes[0]:g},{sizes[1]:g}: no pixel has that size. Give width "
                "and height above 0 in units of the mosaic's CRS, such as 10 or 10,10."
            )
        if self.bounds is not None:
            check_bounds(self.bounds)
        if self.snap == "bounds" and self.bounds is None:
            raise SettingError(
                "pixels cannot be snapped to bounds that are not given. Add --bounds, or choose "
                "--snap first or multiples."
            )

    @property
    def asked_crs(self) -> CRS | None:
        """The CRS by its name.

        Raises:
            SettingError: nobody knows it.
        """
        if self.crs is None:
            return None
        try:
            return CRS.from_user_input(self.crs)
        except ValueError as error:  # CRSError, or what int() says of EPSG:x
            known = f"EPSG:{self.crs}" if self.crs.isdigit() else "EPSG:32633"
            raise SettingError(
                f"the coordinate reference system {self.crs!r} is unknown ({reason(error)}). "
                f"Give it as {known}, as WKT, or as PROJ's words."
            ) from error

"""Bounds of rasters and areas. Nothing heavy is imported here: settings check them too."""

from __future__ import annotations

import math

from geotranslate.errors import SettingError

Bounds = tuple[float, float, float, float]
"""(left, bottom, right, top) in the units of a CRS."""


def check_bounds(bounds: Bounds) -> None:
    """Refuse bounds without an inside.

    Raises:
        SettingError: they are not finite, or an edge is not below the one opposite to it.
    """
    left, bottom, right, top = bounds
    if not all(map(math.isfinite, bounds)) or left >= right or bottom >= top:
        raise SettingError(
            f"the bounds {left:.10g},{bottom:.10g},{right:.10g},{top:.10g} hold nothing. "
            "Give left,bottom,right,top, with left below right and bottom below top."
        )


def spell_bounds(bounds: Bounds) -> str:
    """Bounds as a person reads them."""
    return "(" + ", ".join(f"{edge:.10g}" for edge in bounds) + ")"

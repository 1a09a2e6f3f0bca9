"""A picture of how the loss went while the learning rate grew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geotranslate.raster.output import write_text
from geotranslate.report.curves import draw_curve
from geotranslate.report.templates import fill

if TYPE_CHECKING:
    from geotranslate.translation.lr_find import Advice


def draw_rates(advice: Advice, path: Path) -> None:
    """Write an SVG: the smoothed loss over the rates, and the two rates that are advised.

    Raises:
        OutputError: the file cannot be written.
    """
    marks = advice.valley, advice.steepest
    curve = draw_curve(advice.rates, advice.losses, marks=marks, log_x=True)
    title = f"Loss: valley {marks[0]:.1e}, steepest {marks[1]:.1e}"
    write_text(path, fill("rates.svg.jinja", curve=curve, title=title))

"""The templates of this package, filled in so that nothing a user wrote becomes markup."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from geotranslate.report import curves


def fill(template: str, **values: Any) -> str:
    """A template with its values put in, escaped.

    Args:
        template: its file in this folder.
        values: by name; ``sheet``, the measures of a curve's drawing, is there already.
    """
    pages = Environment(
        loader=PackageLoader("geotranslate.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"duration": spell_duration, "bytes": spell_bytes, "value": spell_value}
    return pages.get_template(template).render(sheet=curves, **values)


def spell_value(value: Any) -> str:
    """A setting or a number as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def spell_duration(seconds: float) -> str:
    """Seconds as people read them in a table: 0:04:10, 1 day, 2:30:00."""
    return str(timedelta(seconds=round(seconds)))


def spell_bytes(count: float) -> str:
    """Bytes in the largest unit that leaves a number of one and more."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB"

"""``geotranslate info``: what a file or folder is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from geotranslate.cli.options import json_option

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPE_WIDTH = 120
"""Characters a line where nobody says how wide the paper is."""

UNSAID = {"unit": "", "scale": 1.0, "offset": 0.0, "color": "undefined"}
"""What a band is unless it says otherwise."""

LISTED = 6
"""Of a longer list, only the ends are shown."""


@click.command()
@click.argument("path")
@json_option
def info(path: str, as_json: bool) -> None:
    """Say what PATH is: a raster, a folder of chips, a run, or a model."""
    from geotranslate.info import describe

    record = describe(path)
    if as_json:
        click.echo(json.dumps(record, allow_nan=False))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    for part in _render(record):
        console.print(part)


def _render(record: Mapping[str, Any], title: str = "") -> list[RenderableType]:
    """A table of what is said in a word, and one for each list or group in it."""
    short = {name: value for name, value in record.items() if not _is_group(value)}
    parts: list[RenderableType] = [_two_columns(short, title)] if short else []
    for name, value in record.items():
        inner = f"{title} {_label(name)}".lstrip()
        if isinstance(value, Mapping):
            parts += _render(value, inner)
        elif _is_group(value):
            parts.append(_rows(value, inner))
    return parts


def _is_group(value: Any) -> bool:
    is_list_of_rows = isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
    return is_list_of_rows or isinstance(value, Mapping)


def _two_columns(values: Mapping[str, Any], title: str) -> RenderableType:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        if value not in (None, "", []):
            table.add_row(_label(name), Text(_spell(name, value)))
    return table


def _rows(rows: Sequence[Mapping[str, Any]], title: str) -> RenderableType:
    """A table of the columns in which some row says something that need not be guessed."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE)
    columns = [
        name for name in rows[0] if any(row[name] not in (None, UNSAID.get(name)) for row in rows)
    ]
    for name in columns:
        is_number = any(isinstance(row[name], int | float) for row in rows)
        table.add_column(_label(name), justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*(Text(_spell(name, row[name])) for name in columns))
    return table


def _label(name: str) -> str:
    return name.replace("_", " ")


def _spell(name: str, value: Any) -> str:
    """A value as a person reads it; the name says what kind of number it is."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        shown = [_spell(name, each) for each in value]
        if len(shown) > LISTED:
            shown = [*shown[:2], f"... ({len(shown)} in all)", shown[-1]]
        return ", ".join(shown)
    if name == "bytes":
        return _spell_bytes(value)
    if name.endswith("_share"):
        return f"{100 * value:.4g}%"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.10g}" if name == "bounds" else f"{value:.6g}"
    return str(value)


def _spell_bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB"

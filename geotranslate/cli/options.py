"""Options that several commands share, each declared once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from geotranslate.choices import PRECISIONS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _load_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Take a TOML file's values as defaults, so that flags win."""
    if path is None:
        return None
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(
            f"{path} is not valid TOML ({error}). Write one `name = value` a line."
        ) from error
    known = {name.name: name for name in ctx.command.params if name.name and name is not param}
    defaults = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            choices = ", ".join(sorted(key.replace("_", "-") for key in known))
            raise click.BadParameter(
                f"{path} sets {key!r}, which this command does not know. It knows: {choices}."
            )
        alone = known[name].multiple and isinstance(value, str)
        defaults[name] = [value] if alone else value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


config_option: Decorator = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_load_config,
    help="TOML file with settings, named like the flags; flags win.",
)

json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one machine-readable line at the end."
)

overwrite_option: Decorator = click.option(
    "--overwrite", is_flag=True, help="Start over, whatever is there."
)

device_option: Decorator = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."
)

precision_option: Decorator = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Arithmetic of the convolutions; auto is bf16 where the hardware has it.",
)

seed_option: Decorator = click.option(
    "--seed", type=int, default=0, show_default=True, help="Same seed, same result."
)

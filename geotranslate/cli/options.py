"""Options that several commands share, each declared once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from geotranslate.translation.settings import Settings

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


Kind = tuple[tuple[type, ...], str, str]
"""What a TOML file may hold for a flag: as types, in words, and as an example."""

TEXT: Kind = (str,), "text", '"..."'
LIST: Kind = (str, int, float), "a list", "[1, 2]"
NUMBERS_AND_FLAGS: dict[type[click.ParamType[Any]], Kind] = {
    click.types.BoolParamType: ((bool,), "true or false", "true"),
    click.types.IntParamType: ((int,), "a whole number", "1"),
    click.types.FloatParamType: ((int, float), "a number", "0.5"),
}


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
    known = {
        name.removeprefix("--"): each
        for each in ctx.command.params
        for name in each.opts
        if each is not param and (name.startswith("--") or not name.startswith("-"))
    }
    defaults = {}
    for key, value in values.items():
        setting = known.get(key.replace("_", "-")) or known.get(key)
        if setting is None:
            raise click.BadParameter(
                f"{path} sets {key!r}, which this command does not know. It knows: "
                f"{', '.join(sorted(known))}."
            )
        assert setting.name is not None
        defaults[setting.name] = _checked(setting, value, f"{path} sets {key} to {value!r}", key)
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


def _checked(setting: click.Parameter, value: Any, found: str, key: str) -> Any:
    """A value of a TOML file as click takes it for a flag; click itself would accept 1.5 as 1."""
    # A flag that takes unprocessed words splits text at its commas.
    splits = setting.type is click.UNPROCESSED
    if splits and isinstance(value, str):
        return value
    numbers = (kind for each, kind in NUMBERS_AND_FLAGS.items() if isinstance(setting.type, each))
    types, words, example = LIST if splits else next(numbers, TEXT)
    if isinstance(setting.type, click.Choice):
        words, example = f"one of {', '.join(setting.type.choices)}", f'"{setting.type.choices[0]}"'
    count = setting.nargs
    if count > 1:
        words, example = f"{count} times {words}", f"[{', '.join([example] * count)}]"
    is_list = splits or count != 1 or getattr(setting, "multiple", False)
    items = value if is_list and isinstance(value, list) else [value]
    if count not in (1, -1, len(items)) or any(type(item) not in types for item in items):
        raise click.BadParameter(f"{found}, but it takes {words}. Write `{key} = {example}`.")
    return items if is_list else value


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

quiet_option: Decorator = click.option(
    "--quiet", is_flag=True, help="Say nothing but what came of it, and warnings."
)

overwrite_option: Decorator = click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a file, or what this command made in a folder. Said again after an interrupt, it "
    "goes on.",
)


def listed(value: Any) -> list[Any]:
    """The items of an option: between commas on the command line, a list in a TOML file."""
    return value.split(",") if isinstance(value, str) else list(value)


def _edges(
    ctx: click.Context, param: click.Parameter, value: Any
) -> tuple[float, float, float, float] | None:
    if value is None:
        return None
    try:
        left, bottom, right, top = map(float, listed(value))
    except (TypeError, ValueError) as error:
        raise click.BadParameter(
            f"{value!r} is not four numbers. Write left,bottom,right,top."
        ) from error
    return left, bottom, right, top


def bounds_option(text: str) -> Decorator:
    """``--bounds`` with its help."""
    return click.option(
        "--bounds",
        type=click.UNPROCESSED,
        callback=_edges,
        metavar="LEFT,BOTTOM,RIGHT,TOP",
        help=text,
    )


seed_option: Decorator = click.option(
    "--seed", type=int, default=0, show_default=True, help="Same seed, same result."
)


def setting_options(settings: type[Settings]) -> Decorator:
    """A flag for each field, with its docstring as help; one that is not given is None."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(settings.model_fields.items()):
            command = _setting_option(name, field)(command)
        return command

    return decorate


def _setting_option(name: str, field: FieldInfo) -> Decorator:
    text = field.description or ""
    if name == "bounds":
        return bounds_option(text)
    flag = "--" + name.replace("_", "-")
    if field.annotation is bool:
        return click.option(flag, name, is_flag=True, default=None, help=text)
    if field.default_factory is None and field.default not in (None, ""):
        default = field.default
        text += (
            f"  [default: {default:.3g}]" if type(default) is float else f"  [default: {default}]"
        )
    return click.option(flag, name, type=_click_type(field.annotation), help=text)


def _click_type(annotation: Any) -> Any:
    """What click makes of a flag's text for a field: of several kinds the first."""
    kind = annotation
    if get_origin(annotation) in (Union, UnionType):
        kind = next(each for each in get_args(annotation) if each is not NoneType)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return click.Choice(choices) if isinstance(choices[0], str) else type(choices[0])
    return click.Path(dir_okay=False, path_type=Path) if kind is Path else kind

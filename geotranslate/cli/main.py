"""The command ``geotranslate``: finds its sub-commands, and says errors in one sentence."""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from collections.abc import Sequence

import click

from geotranslate import __version__
from geotranslate.errors import GeotranslateError

# name of the command: module in geotranslate.cli that holds a command of that name.
COMMANDS = ("tile", "train", "predict", "mosaic", "evaluate", "info", "demo")

INTERRUPTED = 130


class Commands(click.Group):
    """Imports a command's module only when it is asked for, so that help answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"geotranslate.cli.{cmd_name}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="geotranslate")
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    help="Show where in the code an error comes from; may stand after any command.",
)
def geotranslate() -> None:
    """Translate remote-sensing imagery: SAR to RGB, RGB to multispectral, satellite to map.

    The usual way: tile scenes into chips, train on them, predict whole scenes.
    `geotranslate demo` does all of it on made-up data in a few minutes.
    """


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status: 0, 1 (failure) or 2 (wrong words)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        geotranslate.main([word for word in words if word != "--debug"], standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _leave("Stopped. Run the same command again to go on from here.", INTERRUPTED)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, GeotranslateError):
            _leave(f"Error: {error}", error.exit_status)
        said = " ".join(f"{type(error).__name__}: {error}".split())
        _leave(
            f"Error: {said}. This is a fault of geotranslate, please report it"
            f"{'.' if debug else '; --debug shows where it is.'}",
            1,
        )


def _leave(sentence: str, status: int) -> None:
    click.echo(sentence, err=True)
    sys.exit(status)

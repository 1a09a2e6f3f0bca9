"""The command ``geotranslate``: finds its sub-commands, and says errors in one sentence."""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from collections.abc import Sequence

import click

from geotranslate import __version__
from geotranslate.cli.interrupts import STOPPED, Interruption, answered_interrupts
from geotranslate.cli.progress import say
from geotranslate.errors import GeotranslateError

# name of the command: module in geotranslate.cli that holds a command of that name.
COMMANDS = ("tile", "train", "report", "predict", "mosaic", "evaluate", "info", "demo")


class _Echo(logging.Handler):
    """Says what is logged so that it tears no bar."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


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
    """Run the command line.

    It leaves with status 1 (failure), 2 (wrong words), 130 (Ctrl-C) or 143 (SIGTERM).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[_Echo()]
    )
    with answered_interrupts() as asked:
        status, sentence = _carry_out(words)
    if status and asked.signal is not None:
        # A library that was interrupted may have said so in its own way.
        status, sentence = asked.status, STOPPED
    if sentence:
        click.echo(sentence, err=True)
    if status:
        sys.exit(status)


def _carry_out(words: Sequence[str]) -> tuple[int, str]:
    """Do what the words say; gives the exit status and what went wrong.

    Whatever was interrupted has been closed when this returns.
    """
    debug = "--debug" in words
    try:
        geotranslate.main([word for word in words if word != "--debug"], standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code, ""
    except (click.Abort, KeyboardInterrupt):
        return Interruption().status, STOPPED
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, GeotranslateError):
            return error.exit_status, f"Error: {error}"
        said = " ".join(f"{type(error).__name__}: {error}".split())
        mend = "." if debug else "; --debug shows where it is."
        return 1, f"Error: {said}. This is a fault of geotranslate, please report it{mend}"
    return 0, ""

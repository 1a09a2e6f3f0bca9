"""What every command has in common: how errors are said, and with which exit status."""

import click
import pytest

from geotranslate.cli.main import COMMANDS, geotranslate, run
from geotranslate.errors import OutputError, SettingError


@pytest.fixture
def fails(monkeypatch):
    """Let the command `tile` fail with an error."""

    def let(error):
        @click.command()
        def tile():
            raise error

        monkeypatch.setattr("geotranslate.cli.tile.tile", tile)

    return let


def leave(words, capsys):
    with pytest.raises(SystemExit) as left:
        run(words)
    return left.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (SettingError("too small. Choose 1."), 2, "Error: too small. Choose 1.\n"),
        (OutputError("the disk is full."), 1, "Error: the disk is full.\n"),
        (KeyboardInterrupt(), 130, "Stopped. Run the same command again to go on from here.\n"),
        (ValueError("no\nsuch thing"), 1, "Error: ValueError: no such thing. This is a fault of "),
    ],
)
def test_an_error_is_one_line_with_its_status(fails, capsys, error, status, said):
    fails(error)
    code, told = leave(["tile"], capsys)
    assert code == status
    told = told.lstrip("\n")
    assert told.startswith(said)
    assert told.count("\n") == 1


@pytest.mark.parametrize("words", [["--debug", "tile"], ["tile", "--debug"]])
@pytest.mark.parametrize(("error", "status"), [(SettingError("wrong"), 2), (ValueError("no"), 1)])
def test_debug_shows_where_wherever_it_stands(fails, capsys, words, error, status):
    fails(error)
    code, told = leave(words, capsys)
    assert code == status
    assert "Traceback" in told
    assert "raise error" in told
    assert "Error: " in told.splitlines()[-1]


def test_an_unexpected_error_says_how_to_find_its_place(fails, capsys):
    fails(ValueError("no"))
    assert leave(["tile"], capsys)[1].endswith("please report it; --debug shows where it is.\n")


def test_every_command_is_in_the_help():
    context = click.Context(geotranslate)
    assert geotranslate.list_commands(context) == list(COMMANDS)
    assert geotranslate.get_command(context, "paint") is None

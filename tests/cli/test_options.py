"""``--config``: settings from a TOML file, by the names of the flags."""

import json

import click
import pytest
from click.testing import CliRunner

from geotranslate.cli import options


@click.command()
@click.argument("rasters", nargs=-1)
@click.option("--a", multiple=True)
@click.option("-o", "--output", type=click.Path())
@click.option("--layout", type=click.Choice(["pairs", "alone"]))
@click.option("--min-valid", type=float)
@click.option("--range", "value_range", type=float, nargs=2)
@click.option("--split", type=click.UNPROCESSED)
@click.option("--dry-run", is_flag=True)
@options.seed_option
@options.json_option
@options.config_option
def command(**values):
    click.echo(json.dumps(values))


@pytest.fixture
def given(tmp_path):
    def call(content, *words):
        path = tmp_path / "settings.toml"
        path.write_text(content)
        return CliRunner().invoke(command, ["--config", str(path), *words])

    return call


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ("json = true", "as_json", True),
        ("range = [0, 1.5]", "value_range", [0, 1.5]),
        ("min-valid = 1", "min_valid", 1),
        ("min_valid = 0.5", "min_valid", 0.5),
        ('a = "1.tif"', "a", ["1.tif"]),
        ('a = ["1.tif", "2.tif"]', "a", ["1.tif", "2.tif"]),
        ('rasters = ["1.tif"]', "rasters", ["1.tif"]),
        ("split = [1, 0, 0]", "split", [1, 0, 0]),
        ('split = "1,0,0"', "split", "1,0,0"),
        ("split = 1", "split", [1]),
        ("dry-run = true", "dry_run", True),
        ("seed = 7", "seed", 7),
        ('layout = "alone"', "layout", "alone"),
    ],
)
def test_settings_are_named_like_the_flags(given, content, name, value):
    done = given(content)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)[name] == value


def test_flags_win(given):
    assert json.loads(given("seed = 7", "--seed", "3").output)["seed"] == 3


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        ("min-valid = [1]", "takes a number. Write `min-valid = 0.5`"),
        ('min-valid = "much"', "takes a number"),
        ("output = 3", 'takes text. Write `output = "..."`'),
        ("a = 1", "takes text"),
        ("seed = 1.5", "takes a whole number. Write `seed = 1`"),
        ("seed = true", "takes a whole number"),
        ("dry-run = 1", "takes true or false"),
        ("range = 3", "takes 2 times a number. Write `range = [0.5, 0.5]`"),
        ("range = [1, 2, 3]", "takes 2 times a number"),
        ("split = { train = 1 }", "takes a list"),
        ("layout = 1", 'takes one of pairs, alone. Write `layout = "pairs"`'),
        ("as_json = true", "does not know. It knows: a, dry-run, json, layout"),
        ("min-valid", "Write one `name = value` a line"),
    ],
)
def test_what_is_no_value_for_a_flag_is_refused_with_the_mend(given, content, mend):
    done = given(content)
    assert done.exit_code == 2
    assert mend in " ".join(done.output.split())
    assert "Traceback" not in done.output

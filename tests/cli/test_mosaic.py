from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from geotranslate.cli.main import run


@pytest.fixture
def tiles(make_raster, tmp_path):
    for index in range(3):
        pixels = np.full((1, 20, 20), 60 * index, np.uint8)
        make_raster(f"tiles/{index}.tif", pixels, col=10 * index)
    return tmp_path / "tiles"


def refused(words, capsys):
    """What is said, with which exit status, when words are refused."""
    with pytest.raises(SystemExit) as left:
        run(list(map(str, words)))
    return left.value.code, capsys.readouterr().err


def test_it_says_what_it_joined_and_then_that_there_is_nothing_to_do(tiles, tmp_path, capsys):
    output = tmp_path / "new" / "all.tif"
    run(["mosaic", str(tiles), "-o", str(output)])
    told = capsys.readouterr()
    assert told.out.startswith(f"Joined 3 rasters into {output}, 40 x 20 px, in ")
    assert "2 of 2" in told.err
    run(["mosaic", str(tiles), "-o", str(output)])
    assert capsys.readouterr().out.startswith(f"{output} is there already")


@pytest.mark.parametrize(
    ("blend", "value"), [("first", 0), ("last", 60), ("mean", 30), ("feather", 3)]
)
def test_the_blend_decides_about_overlaps(tiles, tmp_path, blend, value):
    output = tmp_path / f"{blend}.tif"
    run(["mosaic", str(tiles / "*.tif"), "-o", str(output), "--blend", blend])
    with rasterio.open(output) as file:
        assert file.read(1)[7, 10] == value


def test_one_line_of_json_on_demand(tiles, tmp_path, capsys):
    output = tmp_path / "all.tif"
    words = ["mosaic", str(tiles), "-o", str(output), "--json"]
    run(words)
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert told.err == ""
    assert record.pop("seconds") > 0
    assert record == {
        "output": str(output),
        "unchanged": False,
        "rasters": 3,
        "width": 40,
        "height": 20,
    }
    run(words)
    assert json.loads(capsys.readouterr().out)["unchanged"]


def test_a_settings_file_gives_way_to_flags(tiles, tmp_path):
    config = tmp_path / "mosaic.toml"
    config.write_text('blend = "last"\n')
    for words, value in (([], 60), (["--blend", "first"], 0)):
        output = tmp_path / f"{value}.tif"
        run(["mosaic", str(tiles), "-o", str(output), "--config", str(config), *words])
        with rasterio.open(output) as file:
            assert file.read(1)[7, 10] == value


@pytest.mark.parametrize(
    ("words", "status", "mend"),
    [
        (["missing.tif"], 2, "does not exist"),
        (["*.nothing"], 2, "Check the path"),
        (["{tiles}", "--blend", "median"], 2, "'feather', 'first', 'last', 'mean'"),
        ([], 2, "Missing argument"),
        (["{tiles}", "-o", "{tiles}/0.tif", "--overwrite", "{tiles}/0.tif"], 2, "another output"),
        (["{tiles}/0.tif", "-o", "{tiles}/1.tif"], 2, "--overwrite to replace it"),
    ],
)
def test_wrong_words_get_one_sentence_and_their_status(
    tiles, tmp_path, capsys, words, status, mend
):
    words = [word.format(tiles=tiles) for word in words]
    if "-o" not in words:
        words += ["-o", str(tmp_path / "out.tif")]
    before = sorted(tmp_path.rglob("*"))
    found, told = refused(["mosaic", *words], capsys)
    assert found == status
    assert mend in told
    assert "Traceback" not in told
    assert sorted(tmp_path.rglob("*")) == before


def test_a_raster_that_does_not_fit_is_named(tiles, tmp_path, make_raster, capsys):
    make_raster("tiles/odd.tif", np.ones((2, 20, 20), np.uint8))
    status, told = refused(["mosaic", tiles, "-o", tmp_path / "out.tif"], capsys)
    assert status == 2
    assert "odd.tif has other bands" in told

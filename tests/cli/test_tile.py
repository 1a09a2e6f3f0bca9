import json
import shlex

import numpy as np
import pytest

from geotranslate.chips.folder import open_chips
from geotranslate.chips.index import read_index
from geotranslate.cli.main import run


@pytest.fixture
def scenes(make_raster, tmp_path):
    """Two folders of two scenes each, beside each other."""
    for col in (0, 40):
        pixels = np.random.default_rng(col).integers(1, 200, (2, 48, 40))
        make_raster(f"sar/{col}.tif", pixels.astype("float32"), col=col)
        make_raster(f"optical/{col}.tif", pixels.astype("uint8"), col=col)
    return tmp_path


@pytest.fixture
def words(scenes):
    return [
        *("tile", "--a", f"{scenes}/sar", "--b", f"{scenes}/optical"),
        *("-o", f"{scenes}/chips", "--size", "16", "--workers", "1"),
    ]


def refused(words, capsys):
    """What is said, with which exit status, when words are refused."""
    with pytest.raises(SystemExit) as left:
        run(list(map(str, words)))
    return left.value.code, capsys.readouterr().err


def test_it_says_what_it_wrote_and_what_to_type_next(words, scenes, capsys):
    run(words)
    told = capsys.readouterr()
    folder = scenes / "chips"
    chips = open_chips(folder)
    counts = [len(chips.files("a", split)) for split in ("train", "val", "test")]
    splits = f"({counts[0]} train + {counts[1]} val + {counts[2]} test)"
    assert told.out.startswith(f"{folder} holds {sum(counts)} pairs {splits}, after ")
    assert f"{40 - sum(counts)} between two splits." in told.out
    assert told.out.endswith(f"Next: geotranslate train {folder} -o RUN\n")
    assert f"{sum(counts)} kept" in told.err

    run(words)
    assert capsys.readouterr().out == (
        f"{folder} is complete already, with {sum(counts)} pairs {splits}: nothing to do.\n"
    )


def test_what_to_type_next_may_be_pasted_though_names_have_spaces(words, scenes, capsys):
    folder = scenes / "my chips"
    run([*words, "-o", str(folder), "--limit", "1", "--split", "1,0,0"])
    told = capsys.readouterr().out
    assert told.startswith(f"{folder} holds 1 pair (1 train), after ")
    command = told.splitlines()[-1].removeprefix("Next: ")
    assert shlex.split(command) == ["geotranslate", "train", str(folder), "-o", "RUN"]


def test_a_dry_run_writes_nothing(words, scenes, capsys):
    run([*words, "--dry-run", "--split", "1,0,0"])
    told = capsys.readouterr().out
    assert told.startswith("At most 40 pairs (40 train), 0.1 MB before compression")
    assert not (scenes / "chips").exists()
    run([*words, "--dry-run", "--json", "--layout", "cyclegan", "--split", "1,0,0"])
    plan = json.loads(capsys.readouterr().out)
    assert plan["bytes"] == 40 * 16 * 16 * (2 * 4 + 2)
    assert plan["counts"]["b"] == {"train": 40, "val": 0, "test": 0}


def test_one_line_of_json_on_demand(words, scenes, capsys):
    for unchanged in (False, True):
        run([*words, "--json", "--layout", "cyclegan"])
        told = capsys.readouterr()
        record = json.loads(told.out)
        assert told.err == ""
        assert record["unchanged"] == unchanged
        assert record["output"] == str(scenes / "chips")
        for domain, counts in record["counts"].items():
            assert sum(counts.values()) + record["dropped"]["between two splits"] / 2 == 40, domain


def test_many_scenes_may_follow_one_flag(scenes, tmp_path, capsys):
    sar, optical = (
        [str(scenes / kind / f"{col}.tif") for col in (0, 40)] for kind in ("sar", "optical")
    )
    output = ["-o", f"{scenes}/chips", "--size", "16", "--split=1,0,0", "--dry-run", "--json"]
    told = []
    for words in (
        ["--a", *sar, "--b", *optical, *output],
        [*output, f"--a={sar[0]}", sar[1], "--b", optical[0], "--b", optical[1]],
    ):
        run(["tile", *words])
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1]
    assert told[0]["counts"]["a"]["train"] == 40


def test_settings_come_from_a_file_and_flags_win(scenes, capsys):
    (scenes / "tile.toml").write_text(
        f'a = "{scenes}/sar/0.tif"\nb = ["{scenes}/optical"]\noutput = "{scenes}/chips"\n'
        'size = 16\nstride = 16\nsplit = [1.0, 0.0, 0.0]\nbands-a = ["2"]\nlimit = 4\nworkers = 1\n'
    )
    run(["tile", "--config", str(scenes / "tile.toml"), "--limit", "3"])
    assert "3 pairs (3 train)" in capsys.readouterr().out
    records = read_index(scenes / "chips")
    assert {len(record.statistics) for record in records if record.domain == "a"} == {1}
    assert {record.window[0] for record in records} <= {0, 16, 24}


def test_scenes_that_do_not_meet_are_refused_with_exit_status_2(make_raster, tmp_path, capsys):
    pixels = np.ones((1, 32, 32), "uint8")
    a, b = make_raster("a.tif", pixels), make_raster("b.tif", pixels, col=900)
    words = ["tile", "--a", a, "--b", b, "-o", tmp_path / "chips", "--size", "16"]
    code, told = refused(words, capsys)
    assert code == 2
    assert "no scene of B lies where one of A does" in told
    assert "--layout cyclegan" in told


def test_an_area_outside_is_refused_with_both_places_and_exit_status_2(words, scenes, capsys):
    ring = [[10.0, 50.0], [11.0, 50.0], [11.0, 51.0], [10.0, 50.0]]
    area = scenes / "area.geojson"
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    code, told = refused([*words, "--aoi", area], capsys)
    assert code == 2
    assert "it covers longitude 10.0000 to 11.0000, latitude 50.0000 to 51.0000" in told
    assert "they cover longitude 15.0000 to 15.00" in told
    assert "Draw it where the scenes are" in told


@pytest.mark.parametrize(
    ("more", "status", "mend"),
    [
        (["--stride", "17"], 2, "Choose a stride from 1 to 16"),
        (["--stride", "0"], 2, "Choose a stride from 1 to 16"),
        (["--size", "0"], 2, "Choose 1 or more"),
        (["--size", "99"], 2, "Choose --size 40 or less"),
        (["--split", "0.8,0.3"], 2, "such as 0.8,0.1,0.1"),
        (["--aoi", "nowhere.gpkg"], 2, "Give a file of polygons"),
        (["--bands-b", "NIR"], 2, "give a number from 1 to 2"),
        (["--a", "missing.tif"], 2, "missing.tif does not exist"),
        (["--layout", "pix3pix"], 2, "'pix2pix', 'cyclegan', 'train_a_b'"),
        (["--workers", "0"], 2, "Choose 1 or more"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(words, scenes, capsys, more, status, mend):
    code, told = refused([*words, *more], capsys)
    assert code == status
    assert mend in told
    assert "Traceback" not in told
    assert not (scenes / "chips").exists()


def test_other_settings_are_refused_with_exit_status_2(words, scenes, capsys):
    run([*words, "--limit", "4"])
    code, told = refused([*words, "--limit", "5"], capsys)
    assert code == 2
    assert "limit was 4 and is now 5" in told
    run([*words, "--limit", "5", "--overwrite"])
    assert len(read_index(scenes / "chips")) == 10

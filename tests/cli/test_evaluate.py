"""``geotranslate evaluate``: its tables, its JSON and its refusals."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from geotranslate.cli.main import run
from geotranslate.raster.domain import Band


def picture(seed=0, bands=3, rows=40, cols=50):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (bands, rows, cols), dtype=np.uint8)


def noisy(pixels, seed=1):
    noise = np.random.default_rng(seed).normal(0, 20, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def command(*words):
    """Run the command line; gives its exit status."""
    try:
        run(["evaluate", *map(str, words)])
    except SystemExit as exit_:
        return exit_.code
    return 0


def test_the_command_prints_tables_that_a_person_reads(make_raster, capsys):
    bands = tuple(Band(name=f"[{color}]", unit="level") for color in ("red", "green", "blue"))
    for seed, name in enumerate(["north", "south"]):
        truth = make_raster(f"truth/{name}.tif", picture(seed), bands=bands)
        predicted = make_raster(f"predicted/{name}.tif", noisy(picture(seed)), bands=bands)
        source = make_raster(f"source/{name}.tif", picture(seed + 5, bands=2))
    status = command(predicted.parent, truth.parent, "--source", source.parent)
    text = capsys.readouterr().out
    assert status == 0
    for words in (
        "By band, in level (mean of 2 images)",
        "[blue]",
        "RMSE of linear regression",
        "PSNR 8 x 8, dB",
        "mean of 2 images",
        "north",
        "median",
        "0 to 255",
        "full range: all values of uint8",
        "pixels measured: 4,000",
        "Measured 2 images in",
    ):
        assert words in text, text


def test_the_command_writes_a_report_and_does_nothing_when_it_is_there(
    make_raster, tmp_path, capsys
):
    truth = make_raster("t.tif", picture())
    output = tmp_path / "report.json"
    assert command(truth, truth, "-o", output) == 0
    assert f"wrote {output}" in capsys.readouterr().out
    report = json.loads(output.read_text())
    assert report["mean"]["prediction"]["mae"] == [0, 0, 0]
    assert report["mean"]["prediction"]["psnr"] is None
    assert set(report["figures"]) == set(report["mean"]["prediction"])
    before = output.stat().st_mtime_ns
    assert command(truth, truth, "-o", output) == 0
    assert "there already" in capsys.readouterr().out
    assert output.stat().st_mtime_ns == before
    assert command(truth, truth, "-o", output, "--json") == 0
    assert json.loads(capsys.readouterr().out) == report


def test_json_is_one_line(make_raster, capsys):
    truth = make_raster("t.tif", picture())
    assert command(truth, truth, "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("\n") == 1
    assert json.loads(printed.out)["images"][0]["pixels"] == 2000


def test_the_command_refuses_in_one_sentence_with_status_2_and_writes_nothing(
    make_raster, tmp_path, capsys
):
    output = tmp_path / "report.json"
    status = command(make_raster("p.tif", picture()), tmp_path / "gone.tif", "-o", output)
    assert status == 2
    assert re.match(r"Error: .*gone\.tif does not exist", capsys.readouterr().err)
    assert {file.name for file in tmp_path.iterdir()} == {"p.tif"}


FULL_DISK = """
import resource, sys
from geotranslate.cli.main import run
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
run(sys.argv[1:])
"""


def test_a_full_disk_is_said_and_leaves_nothing(make_raster, tmp_path):
    pytest.importorskip("resource", reason="limits of a process, which Windows has not")
    truth, output = make_raster("t.tif", picture()), tmp_path / "reports" / "report.json"
    words = ["evaluate", truth, truth, "-o", output]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith(f"Error: writing {output} failed")
    assert "Make room and run the same command again" in sentence
    assert list(output.parent.iterdir()) == []
    assert command(truth, truth, "-o", output) == 0


RED, GREEN = Band(name="red"), Band(name="green")


def seamed(heights):
    """Noise in two bands, with windows of 32 px that step by ``heights`` in turn."""
    board = np.indices((4, 5)).sum(axis=0) % 2
    steps = np.kron(board, np.ones((32, 32)))[None] * np.reshape(heights, (-1, 1, 1))
    noise = np.random.default_rng(5).normal(100, 2, (2, 128, 160))
    return (noise + steps).astype(np.float32)


def test_it_says_which_bands_show_the_lines(make_raster, capsys):
    path = make_raster("p.tif", seamed([4, 0]), bands=(RED, GREEN))
    assert command(path, "--seams", "32") == 0
    text = capsys.readouterr().out
    assert "* seams: visible on the lines of 32 px in band red\n" in text
    for words in ("On the lines of 32 px", "elsewhere", "horizontal", "invisible", "Measured 1"):
        assert words in text, text
    assert "full range" not in text


def test_it_says_where_nothing_is_visible(make_raster, capsys):
    path = make_raster("p.tif", seamed([0, 0]))
    assert command(path, "--seams", "32,16") == 0
    assert "* seams: invisible on the lines of 32 px from 16\n" in capsys.readouterr().out


def test_it_says_that_windows_may_meet_elsewhere(make_raster, capsys):
    path = make_raster("p.tif", seamed([4, 0]))
    assert command(path, "--seams", "32,16") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "* seams: invisible on the lines of 32 px from 16, but gradients repeat as often in band "
        "1: windows were blended, or meet at another offset, or the landscape itself repeats so"
        in text
    )


def test_it_shows_how_two_rasters_differ(make_raster, capsys):
    files = make_raster("p.tif", seamed([4, 4])), make_raster("o.tif", seamed([0, 0]))
    assert command(files[0], "--against", files[1]) == 0
    text = capsys.readouterr().out
    assert "Against the other raster" in text
    assert "of the standard deviation, over 20,480 pixels" in " ".join(text.split())
    assert "gradient ratio" not in text
    assert command(files[0], "--against", files[1], "--seams", "32") == 0
    assert "gradient ratio" in capsys.readouterr().out


def test_several_images_are_told_apart(make_raster, capsys):
    make_raster("folder/flat.tif", seamed([0, 0]))
    path = make_raster("folder/tiled.tif", seamed([4, 4]))
    assert command(path.parent, "--seams", "32") == 0
    text = capsys.readouterr().out
    assert "* flat: seams: invisible on the lines of 32 px\n" in text
    assert "* tiled: seams: visible on the lines of 32 px in bands 1 and 2\n" in text


def test_a_report_of_seams_is_written_and_found_again(make_raster, tmp_path, capsys):
    path, output = make_raster("p.tif", seamed([4, 4])), tmp_path / "seams.json"
    words = path, "--seams", "32", "--against", path, "-o", output
    assert command(*words) == 0
    image = json.loads(output.read_text())["images"][0]
    assert image["seams"]["verdict"] == "visible on the lines of 32 px in bands 1 and 2"
    assert image["seams"]["bands"][0]["vertical"]["step"]["score"] > 3
    assert image["against"]["bands"][0]["gradient_ratio"] == {"vertical": 1, "horizontal": 1}
    capsys.readouterr()
    assert command(*words) == 0
    assert "there already" in capsys.readouterr().out


def test_settings_may_come_from_a_file(make_raster, tmp_path, capsys):
    path = make_raster("p.tif", seamed([4, 4]))
    (tmp_path / "seams.toml").write_text('seams = "32"')
    assert command(path, "--config", tmp_path / "seams.toml") == 0
    assert "visible on the lines of 32 px" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        ([], "Give the true image after it"),
        (["--seams", "3"], "Choose 4 px or more"),
        (["--seams", "32,32"], "Choose an offset from 0 to 31"),
        (["--seams", "32;5"], "such as 256"),
        (["--seams", "512"], "below 160 px"),
        (["--against", "gone.tif"], "gone.tif does not exist"),
        (["--seams", "32", "--source", "x.tif"], "leave --source out"),
    ],
)
def test_wrong_words_are_refused_in_one_line_with_status_2(make_raster, capsys, words, mend):
    assert command(make_raster("p.tif", seamed([0, 0])), *words) == 2
    told = capsys.readouterr().err
    assert told.startswith("Error: ")
    assert told.count("\n") == 1
    assert mend in told

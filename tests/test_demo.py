"""The demo: the whole way on sample data, and what it says of a model that learned nothing."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import rasterio
from PIL import Image

from geotranslate import demo
from geotranslate.demo import DECISIVE, Demo, run_demo
from geotranslate.sample.files import sample_paths

SAMPLE = Path(__file__).parents[1] / "sample_data"


def run_command(output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "geotranslate", "demo", "-o", str(output), *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_model_that_learned_nothing_makes_all_files_and_exit_status_1(tmp_path):
    done = run_command(tmp_path / "demo", "--updates", "1", "--json")
    assert done.returncode == 1, done.stderr
    line = json.loads(done.stdout)
    assert min(line["gains"].values()) < 0
    with Image.open(line["picture"]) as picture:
        assert picture.width > 3 * 300
    assert "finished after 1 update" in (tmp_path / "demo" / "run" / "report.html").read_text()
    with (
        rasterio.open(line["translated"]) as translated,
        rasterio.open(sample_paths(SAMPLE)["heldout_sar"]) as scene,
    ):
        assert translated.shape == scene.shape
        assert translated.transform == scene.transform
        assert translated.crs == scene.crs
        assert translated.descriptions == ("R", "G", "B")
        assert not (translated.read_masks(1) > scene.read_masks(1)).any()


def test_the_stages_name_their_commands_and_start_over_when_told(tmp_path, monkeypatch):
    taken = {}
    for step in ("tile_scenes", "train", "predict_scenes", "mosaic_rasters"):

        def note(*_, step=step, overwrite=False, **words):
            taken[step] = overwrite
            yield SimpleNamespace(update=1, updates=1)

        monkeypatch.setattr(demo, step, note)
    monkeypatch.setattr(demo, "_measure", lambda _: iter(["done"]))
    monkeypatch.setattr(demo, "write_run_report", lambda _: None)
    for overwrite in (True, False):
        *stages, last = run_demo(tmp_path / "a demo", overwrite=overwrite)
        assert last == "done"
        assert set(taken.values()) == {overwrite}
    assert [stage.command.split()[0] for stage in stages] == ["tile", "train", "predict", "mosaic"]
    chips = str(tmp_path / "a demo" / "chips")
    assert [shlex.split(stage.command).count(chips) for stage in stages] == [1, 1, 0, 0]


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    other = tmp_path / "demo" / "run" / "other.txt"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    done = run_command(tmp_path / "demo", "--updates", "1")
    assert done.returncode == 2
    assert "Choose another folder" in done.stderr
    assert other.read_text() == "mine"


def test_the_held_out_part_is_not_in_the_training_part():
    paths = sample_paths(SAMPLE)
    with (
        rasterio.open(paths["train_sar"]) as known,
        rasterio.open(paths["heldout_sar"]) as held_out,
    ):
        assert known.crs == held_out.crs
        assert rasterio.coords.disjoint_bounds(known.bounds, held_out.bounds)


@pytest.mark.slow
def test_the_demo_beats_both_baselines(tmp_path):
    *_, made = run_demo(tmp_path / "demo")
    assert isinstance(made, Demo)
    assert set(made.beaten) == {"mean_color", "linear"}
    assert min(made.beaten.values()) > 0, f"{DECISIVE}: {made.beaten}"

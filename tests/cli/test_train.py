import json
import re
import signal
import tomllib

import numpy as np
import pytest
from click.testing import CliRunner

from geotranslate.cli.train import train
from geotranslate.errors import SettingError, TrainingError
from geotranslate.translation import guards, lr_find
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.data import TrainingBatches
from geotranslate.translation.lr_find import Trial
from geotranslate.translation.pix2pix import Pix2Pix
from geotranslate.translation.sessions import read_sessions

TINY = "--width 4 --blocks 1 --discriminator-width 4 --crop 24 --device cpu --precision float32"


@pytest.fixture
def chips(make_raster, tmp_path):
    random = np.random.default_rng(0)
    for number in range(4):
        for folder, count in (("images", 1), ("images2", 3)):
            pixels = random.integers(0, 255, (count, 32, 32)).astype("uint8")
            make_raster(f"chips/{folder}/{number:09d}.tif", pixels, col=40 * number)
    return tmp_path / "chips"


def run(*words):
    line = [part for word in words for part in (word.split() if isinstance(word, str) else [word])]
    return CliRunner().invoke(train, [str(part) for part in line])


def test_there_is_a_flag_for_each_setting_and_it_says_what_it_does():
    flags = {option.name: option for option in train.params}
    for name, field in TrainConfig.model_fields.items():
        assert flags[name].opts == ["--" + name.replace("_", "-")]
        assert field.description
        assert flags[name].help.startswith(field.description)


def test_a_run_says_what_it_does_and_what_came_of_it(chips, tmp_path, monkeypatch):
    monkeypatch.setattr(guards, "CLIPPED", -1.0)  # so that a guard fires
    out = tmp_path / "run"
    done = run("-o", out, chips, TINY, "--updates 30 --checkpoint-every 30")
    assert done.exit_code == 0, done.output
    assert "pix2pix from 3 pairs: 30 updates of 4 x 24 px, on cpu in float32.\n" in done.stderr
    assert "\nChips: 0.0 MB, all kept in memory once read (limit " in done.stderr
    assert "compiled" not in done.stderr
    assert "the rest about" in done.stderr
    assert "Trained 30 updates in" in done.stdout
    assert re.search(r"It held at most [\d.]+ [MG]B of memory\.", done.stdout)
    assert "Guards fired: clipping. " in done.stdout
    assert f"{out / 'model'} holds the generators of update 30" in done.stdout
    assert f"geotranslate predict {out} SCENE" in done.stdout

    page = out / "report.html"
    assert f"{page} shows how it went." in done.stdout
    assert "<b>Update 30, clipping.</b>" in page.read_text()
    written = page.stat().st_mtime_ns

    again = run("--resume", out)
    assert again.exit_code == 0, again.output
    assert "finished before, by the same words: nothing to do" in again.stdout
    assert page.stat().st_mtime_ns == written
    page.unlink()  # as after a kill right at the end
    run("--resume", out)
    assert "finished after 30 updates" in page.read_text()


def test_a_run_that_goes_wrong_leaves_a_report_too(chips, tmp_path):
    out = tmp_path / "run"
    done = run("-o", out, chips, TINY, "--updates 60 --learning-rate 1e38")
    assert isinstance(done.exception, TrainingError)
    assert f"{out / 'report.html'} shows how it went." in done.stderr
    assert "There is no model yet" in (out / "report.html").read_text()


def test_json_is_one_line_and_nothing_else(chips, tmp_path):
    done = run("-o", tmp_path / "run", chips, TINY, "--updates 2 --json")
    assert done.stderr == ""
    record = json.loads(done.stdout)
    assert record["trained"] == record["updates"] == 2
    assert record["model"] == str(tmp_path / "run" / "model")
    assert record["report"] == str(tmp_path / "run" / "report.html")
    assert "psnr8" in record["figures"]
    (session,) = read_sessions(tmp_path / "run")
    assert record["memory_bytes"] >= session.memory_bytes > 0
    assert record["device_memory_bytes"] is None


def test_quiet_says_only_what_came_of_it_and_events_go_with_the_run(chips, tmp_path):
    out = tmp_path / "run"
    done = run("-o", out, chips, TINY, "--updates 2 --quiet --tensorboard")
    assert done.stderr == ""
    assert done.stdout.startswith("Trained 2 updates in ")
    assert len(list((out / "tensorboard").iterdir())) == 1
    run("-o", out, chips, TINY, "--updates 1 --quiet --overwrite")
    assert not (out / "tensorboard").exists()


def test_lr_find_says_which_rates_to_take_and_makes_no_run(chips, tmp_path, monkeypatch):
    losses = iter([10.0] * 40 + [4.0] * 60)
    trials = (Trial(n, 100, 10 ** (-6 + 0.06 * n), next(losses)) for n in range(1, 101))
    monkeypatch.setattr(lr_find, "try_rates", lambda plan: trials)
    picture = tmp_path / "rates.svg"
    done = run(chips, TINY, "--lr-find", "-o", picture, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["picture"] == str(picture)
    assert record["valley"] == pytest.approx(10**-3.6, rel=0.3)
    assert record["steepest"] == pytest.approx(10**-3.6, rel=0.3)
    assert picture.read_text().lstrip().startswith("<svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chips", "rates.svg"]
    for words in (["--resume", tmp_path], [chips, "--overwrite"], [chips, "-o", tmp_path]):
        refused = run(*words, "--lr-find")
        assert refused.exit_code == 2
        assert "Say `geotranslate train CHIPS --lr-find`" in refused.output


def test_settings_come_from_a_file_and_flags_win(chips, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run("-o", first, chips, TINY, "--updates 1 --seed 3 --l1 7")
    done = run("-o", second, chips, "--config", first / "config.toml", "--seed 4")
    assert done.exit_code == 0, done.output
    ours, theirs = (tomllib.loads((out / "config.toml").read_text()) for out in (second, first))
    assert ours == theirs | {"seed": 4}
    assert ours["l1"] == 7


def test_words_that_contradict_are_refused_with_the_mend(chips, tmp_path):
    assert "`geotranslate train CHIPS -o RUN`" in run(chips).output
    both = run(chips, "--resume", tmp_path)
    assert both.exit_code == 2
    assert "takes no CHIPS" in both.output
    refused = run(chips, "-o", tmp_path / "run", "--crop 30", "--updates 1")
    assert isinstance(refused.exception, SettingError)
    assert "Choose a crop of 28 or 32 px" in str(refused.exception)
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_says_how_to_go_on(chips, tmp_path, monkeypatch):
    out, original, calls = tmp_path / "a run", Pix2Pix.step, []

    def interrupted(self, batch, draws):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, draws)

    monkeypatch.setattr(Pix2Pix, "step", interrupted)
    words = "-o", out, chips, *TINY.split(), "--updates", "4"
    stopped = CliRunner().invoke(train, [str(word) for word in words])
    assert stopped.exit_code == 1  # of click alone; `geotranslate` leaves with 130
    assert "It held at most " in stopped.stderr
    assert "The state after update 3 is kept. To go on from there:\n" in stopped.stderr
    assert f"geotranslate train --resume '{out}'\n" in stopped.stderr
    again = CliRunner().invoke(train, [str(word) for word in words])
    assert "Going on after update 2." in again.stderr
    assert "Trained 2 updates in" in again.stdout


def test_a_run_stopped_before_its_first_update_says_that_there_is_nothing(chips, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(TrainingBatches, "__getitem__", interrupted)
        stopped = run("-o", tmp_path / "run", chips, TINY, "--updates 4")
    assert "No update was finished, so there is nothing to keep.\n" in stopped.stderr
    assert run("-o", tmp_path / "run", chips, TINY, "--updates 1").exit_code == 0


def test_a_setting_is_changed_by_set_and_said(chips, tmp_path):
    out = tmp_path / "run"
    run("-o", out, chips, TINY, "--updates 1")
    refused = run("--resume", out, "--learning-rate 0.001")
    assert isinstance(refused.exception, SettingError)
    assert "Say --set learning_rate=0.001 to change it from here on" in str(refused.exception)
    done = run("--resume", out, "--set updates=2", "--set learning-rate=1e-3")
    assert done.exit_code == 0, done.output
    assert "From here on with updates 2, learning_rate 0.001." in done.stderr
    assert "Trained 1 update in" in done.stdout
    settings = tomllib.loads((out / "config.toml").read_text())
    assert (settings["updates"], settings["learning_rate"]) == (2, 0.001)
    assert "Write NAME=VALUE, such as updates=40000" in run("--resume", out, "--set updates").output
    assert "so it goes with --resume RUN" in run(chips, "-o", out, "--set updates=3").output

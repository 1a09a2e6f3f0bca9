"""Settings of a run that was begun: which may change, how it is said, what is kept of it."""

import json

import pytest
import torch

from geotranslate.errors import OutputError, SettingError
from geotranslate.translation.checkpoint import load_checkpoint
from geotranslate.translation.run_record import read_config
from geotranslate.translation.train import resume, train
from tests.translation.runs import config, finish, rows_without_time, same

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(make_chips, tmp_path):
    finish(train(make_chips(), tmp_path / "run", config(updates=2, decay_from=1)))
    return tmp_path / "run"


def test_a_finished_run_is_extended_and_ends_as_if_it_had_been_longer_from_the_start(
    make_chips, tmp_path
):
    chips, extended, long = make_chips(), tmp_path / "extended", tmp_path / "long"
    # Without a decay and an average the total has no say in what an update does.
    words = {"decay_from": 1, "average_over": 0, "checkpoint_every": 1}
    finish(train(chips, extended, config(updates=2, **words)))
    assert finish(resume(extended, changes={"updates": 4})).update == 4
    finish(train(chips, long, config(updates=4, **words)))
    assert rows_without_time(extended) == rows_without_time(long)
    assert same(load_checkpoint(extended), load_checkpoint(long))


def test_the_rate_follows_the_new_total(make_chips, tmp_path):
    chips, run = make_chips(), tmp_path / "run"
    finish(train(chips, run, config(updates=2, decay_from=0)))
    steps = list(resume(run, changes={"updates": 4, "checkpoint_every": 1}))
    rates = [step.row["learning_rate"] for step in steps]
    assert rates == pytest.approx([2e-4 * 2 / 4, 2e-4 * 1 / 4])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    for folder, found in ((tmp_path, "holds no job.json"), (tmp_path / "no", "does not exist")):
        with pytest.raises(SettingError, match=f"{found}.* Give the folder that"):
            next(resume(folder))


def test_what_changed_and_when_is_kept(run):
    finish(resume(run, changes={"updates": 3, "learning_rate": 1e-3}))
    (change,) = json.loads((run / "job.json").read_text())["changes"]
    assert change == {
        "after_update": 2,
        "settings": {
            "learning_rate": {"was": 2e-4, "is": 1e-3},
            "updates": {"was": 2, "is": 3},
        },
    }
    assert read_config(run)["learning_rate"] == 1e-3
    assert finish(resume(run, changes={"updates": 4})).update == 4
    assert [each["after_update"] for each in json.loads((run / "job.json").read_text())["changes"]]


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"width": 8, "updates": 3}, "another run with --width 8"),
        ({"norm": "channel", "updates": 3}, "another run with --norm channel"),
        ({"init_from": "model"}, "begin another run with --init-from"),
        ({"learning_rate": 1e-3}, "Say --set updates=N with more than 2"),
        ({"updates": 1}, "Say --set updates=N with more than 2"),
        ({"tempo": 3}, "correct its spelling"),
        ({"updates": "many"}, "updates cannot be 'many'. Choose a whole number"),
    ],
)
def test_changes_that_no_run_can_go_on_with_are_refused_and_change_nothing(run, changes, mend):
    before = (run / "job.json").read_bytes(), (run / "config.toml").read_bytes()
    with pytest.raises(SettingError, match=mend):
        list(resume(run, changes=changes))
    assert before == ((run / "job.json").read_bytes(), (run / "config.toml").read_bytes())


def test_the_same_words_with_another_setting_are_refused_with_the_word_that_changes_it(
    make_chips, tmp_path
):
    chips = make_chips()
    finish(train(chips, tmp_path / "run", config(updates=1)))
    with pytest.raises(OutputError, match="--set l1=7"):
        next(train(chips, tmp_path / "run", config(updates=1, l1=7.0)))


def test_another_size_of_crops_begins_the_image_pool_anew(make_chips, tmp_path):
    run = tmp_path / "run"
    finish(train(make_chips("heaps"), run, config(model="cyclegan", updates=2)))
    assert finish(resume(run, changes={"updates": 3, "crop": 28})).update == 3
    pools = load_checkpoint(run)["model"]["pools"]
    assert {tuple(pool["images"].shape[-2:]) for pool in pools.values()} == {(28, 28)}
    assert all(torch.isfinite(pool["images"]).all() for pool in pools.values())

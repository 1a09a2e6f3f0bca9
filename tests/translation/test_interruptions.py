"""Runs that are interrupted or closed at every kind of moment, and what becomes of them."""

import signal
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from geotranslate.errors import TrainingError
from geotranslate.translation import guards
from geotranslate.translation import train as module
from geotranslate.translation.checkpoint import list_checkpoints, load_checkpoint
from geotranslate.translation.cyclegan import CycleGAN
from geotranslate.translation.log import Log
from geotranslate.translation.pix2pix import Pix2Pix
from geotranslate.translation.train import resume, train
from tests.translation.runs import KIND, config, finish, rows_without_time, same

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = {"pix2pix": Pix2Pix, "cyclegan": CycleGAN}
SETTINGS = {"updates": 6, "checkpoint_every": 3, "samples_every": 2, "checkpoint_minutes": 0}


@pytest.fixture(autouse=True)
def few_statistics(monkeypatch):
    monkeypatch.setattr(module, "STATISTICS_IMAGES", 8)
    monkeypatch.setattr(guards, "CLIPPED", -1.0)  # so that a guard fires at the first checkpoint


@pytest.fixture
def whole(make_chips, tmp_path):
    """Runs that nothing happens to, and what they were made from."""

    def make(model, **settings):
        chips, run = make_chips(KIND[model]), tmp_path / "whole"
        words = config(model=model, **SETTINGS | settings)
        finish(train(chips, run, words))
        return chips, run, words

    return make


def ends_alike(run, whole):
    """Whether two runs hold the same state, model, log and pictures."""
    return (
        same(load_checkpoint(run), load_checkpoint(whole))
        and rows_without_time(run) == rows_without_time(whole)
        and files(run) == files(whole)
    )


def files(run):
    paths = [path for name in ("model", "model-last", "samples") for path in (run / name).iterdir()]
    return {
        path.relative_to(run).as_posix(): path.read_bytes() for path in [*paths, run / "guards.csv"]
    }


# What a run is at, the call of it that Ctrl-C comes into, and the update that is kept then, with
# the update that was recorded.
MOMENTS = {
    "waiting for what is read": (Future, "result", 5, (4, 4)),
    "learning": ("step", 5, (5, 4)),
    "averaging": (module, "reestimate_statistics", 1, (2, 1)),
    "drawing": (module, "draw_samples", 2, (4, 3)),
    "measuring": (module, "measure_generators", 1, (3, 2)),
    "measuring at the end": (module, "measure_generators", 2, (6, 5)),
    "logging": (Log, "write", 1, (3, 3)),
    "writing the model": (module, "save_bundle", 1, (3, 3)),
    "writing a checkpoint": (module, "save_checkpoint", 1, (3, 3)),
}


def interrupt(monkeypatch, owner, name, call, *, before):
    """Press Ctrl-C before or after something is done for the n-th time."""
    original, calls = getattr(owner, name), []

    def disturbed(*args, **words):
        calls.append(1)
        if before and len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        result = original(*args, **words)
        if not before and len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(owner, name, disturbed)


@pytest.mark.parametrize("model", MODELS)
def test_interrupted_at_whatever_it_is_at_a_run_keeps_the_last_update_and_ends_alike(
    whole, tmp_path, model
):
    chips, undisturbed, words = whole(model)
    for number, (moment, (*where, call, kept)) in enumerate(MOMENTS.items()):
        run = tmp_path / moment
        owner, name = where if len(where) == 2 else (MODELS[model], *where)
        with pytest.MonkeyPatch.context() as patches:
            interrupt(patches, owner, name, call, before=number % 2)
            with pytest.raises(KeyboardInterrupt):
                finish(train(chips, run, words))
        state = load_checkpoint(run)
        assert (state["update"], state["recorded"]) == kept, moment
        assert not list(run.rglob("*.part")), moment
        steps = list(resume(run))
        assert [step.update for step in steps] == [*range(kept[1] + 1, 7)], moment
        assert ends_alike(run, undisturbed), moment


@pytest.mark.parametrize("model", MODELS)
def test_closed_after_any_update_a_run_keeps_it_and_ends_alike(whole, tmp_path, model):
    chips, undisturbed, words = whole(model)
    run = tmp_path / "run"
    for update in range(1, 6):
        steps = train(chips, run, words)
        assert next(steps).update == update
        steps.close()
        assert list_checkpoints(run)[0][0] == update
    finish(resume(run))
    assert ends_alike(run, undisturbed)


@pytest.mark.parametrize("model", MODELS)
def test_checkpoints_by_the_clock_change_nothing(whole, tmp_path, model):
    chips, undisturbed, _ = whole(model)
    run, often = tmp_path / "run", config(model=model, **SETTINGS | {"checkpoint_minutes": 1e-9})
    kept = []
    for number, step in enumerate(train(chips, run, often), start=1):
        kept.append([update for update, _ in list_checkpoints(run)])
        assert step.update == number
        if number < 3:
            assert not (run / "model").exists()
            assert step.figures == {}
    assert kept == [[1], [2, 1], [3, 2], [4, 3], [5, 4, 3], kept[-1]]
    assert ends_alike(run, undisturbed)

    # A kill leaves what the clock kept: the same as a fresh process finds it.
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(MODELS[model], "step", failing_at(MODELS[model].step, 6))
        with pytest.raises(OSError, match="power failure"):
            finish(train(chips, tmp_path / "killed", often))
    assert next(resume(tmp_path / "killed")).update == 6
    assert ends_alike(tmp_path / "killed", undisturbed)


def failing_at(original, call):
    calls = []

    def failing(*args, **words):
        calls.append(1)
        if len(calls) == call:
            raise OSError("power failure")
        return original(*args, **words)

    return failing


def test_the_clock_counts_from_the_last_checkpoint(make_chips, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    settings = {"updates": 12, "checkpoint_every": 5, "checkpoint_minutes": 10}
    run, seen = tmp_path / "run", set()
    for _ in train(make_chips(), run, config(**settings, keep_checkpoints=20)):
        now[0] += 4 * 60
        seen |= {update for update, _ in list_checkpoints(run)}
    # 12 minutes after the start, the fifth and its two followers, the tenth, the last.
    assert sorted(seen) == [4, 5, 8, 10, 12]


def test_a_run_that_has_gone_wrong_keeps_no_state_of_it(make_chips, tmp_path, monkeypatch):
    original, calls, run = Pix2Pix.step, [], tmp_path / "run"

    def spoiled(self, batch, draws):
        losses = original(self, batch, draws)
        calls.append(1)
        if len(calls) == 3:
            for weight in self.networks["g_ab"].parameters():
                weight.data.fill_(float("nan"))
            signal.raise_signal(signal.SIGINT)
        return losses

    monkeypatch.setattr(Pix2Pix, "step", spoiled)
    with pytest.raises(TrainingError, match=r"a weight of g_ab is no number at update 3"):
        finish(train(make_chips(), run, config(checkpoint_minutes=1e-9)))
    assert [update for update, _ in list_checkpoints(run)] == [2, 1]

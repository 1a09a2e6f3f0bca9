import json
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from geotranslate.errors import ChipsError, OutputError, SettingError, TrainingError
from geotranslate.networks.build import DiscriminatorSpec, GeneratorSpec
from geotranslate.translation import train as module
from geotranslate.translation.bundle import load_bundle, read_bundle_record
from geotranslate.translation.checkpoint import list_checkpoints, load_checkpoint
from geotranslate.translation.config import DECIDED, ONLY_FOR, TrainConfig
from geotranslate.translation.cyclegan import CycleGANConfig
from geotranslate.translation.failures import out_of_memory
from geotranslate.translation.log import read_log
from geotranslate.translation.pix2pix import Pix2Pix, Pix2PixConfig
from geotranslate.translation.plan import plan_training
from geotranslate.translation.precision import choose_arithmetic
from geotranslate.translation.predict import predict_scenes
from geotranslate.translation.predict_config import PredictConfig
from geotranslate.translation.run_folder import claim_run
from geotranslate.translation.run_record import read_config
from geotranslate.translation.sessions import read_sessions
from geotranslate.translation.train import learn, resume, train
from geotranslate.translation.validation import Measured
from tests.translation.runs import FOLDERS, KIND, TINY, config, finish, rows_without_time, same

pytestmark = pytest.mark.usefixtures("one_thread")

KILLED = """
import sys
from pathlib import Path
import torch
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.train import train

torch.set_num_threads(1)
alive = []
for settings, chips, run in eval(sys.argv[1]):
    steps = train(Path(chips), Path(run), TrainConfig(**settings))
    while next(steps).update < 27:
        pass
    alive.append(steps)
print("at work", flush=True)
sys.stdin.read()
"""


def test_a_killed_run_that_goes_on_ends_like_one_that_never_stopped(make_chips, tmp_path):
    chips = {model: make_chips(kind, name=kind) for model, kind in KIND.items()}
    # One of them in bf16, where the CPU has it: without, that would be slow.
    precision = {"pix2pix": choose_arithmetic("auto", torch.device("cpu")), "cyclegan": "float32"}
    settings = {
        model: TINY
        | {"model": model, "updates": 40, "checkpoint_every": 10, "precision": precision[model]}
        for model in KIND
    }
    settings["pix2pix"]["norm"] = "renorm"  # what it does depends on the updates done
    runs = [
        (settings[model], str(chips[model]), str(tmp_path / f"{model} killed")) for model in KIND
    ]
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, repr(runs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    whole = {model: tmp_path / f"{model} whole" for model in chips}
    for model, run in whole.items():
        finish(train(chips[model], run, TrainConfig(**settings[model])))
    with killed:
        assert killed.stdout.readline() == "at work\n"
        killed.send_signal(signal.SIGKILL)

    for workers, model in enumerate(KIND):
        run = tmp_path / f"{model} killed"
        assert load_checkpoint(run)["update"] == 20
        first = next(steps := resume(run, workers=workers))
        assert first.update == 21
        assert finish(steps).update == 40
        assert same(load_checkpoint(run), load_checkpoint(whole[model]))
        for bundle in ("model", "model-last"):
            for file in (whole[model] / bundle).iterdir():
                assert file.read_bytes() == (run / bundle / file.name).read_bytes()
        assert rows_without_time(run) == rows_without_time(whole[model])
        assert [row["update"] for row in read_log(run / "log.csv")] == [10, 20, 30, 40]
        sessions = [(each.first_update, each.last_update) for each in read_sessions(run)]
        assert sessions == [(1, 20), (21, 40)]


def test_a_run_leaves_all_that_is_promised(make_chips, tmp_path):
    chips, run = make_chips(), tmp_path / "far" / "run"
    steps = list(train(chips, run, config(checkpoint_every=2, samples_every=3)))
    assert [step.update for step in steps] == [1, 2, 3, 4]
    assert {path.name for path in run.iterdir()} == {
        *("config.toml", "job.json", "log.csv", "sessions.json"),
        *("checkpoints", "model", "model-last", "samples"),
    }
    assert [path.name for path in sorted((run / "samples").iterdir())] == [
        "000000003.png",
        "000000004.png",
    ]
    *_, last = read_log(run / "log.csv")
    assert {"update", "seconds", "learning_rate", "d", "l1", "psnr8", "contrast", "score"} <= set(
        last
    )
    bundle = load_bundle(run)
    assert bundle.record.updates == steps[-1].best
    assert bundle.record.chip_size == 32
    assert bundle.domain_b.dtype == "uint8"
    assert bundle.translator().generator(torch.zeros(1, 2, 16, 16)).shape == (1, 3, 16, 16)


def test_a_finished_run_is_not_touched(make_chips, tmp_path):
    chips, run = make_chips(), tmp_path / "run"
    finish(train(chips, run, config()))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert list(train(chips, run, config())) == []
    assert list(resume(run)) == []
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_a_checkpoint_that_a_killed_run_had_no_time_to_remove_goes(make_chips, tmp_path):
    chips, run = make_chips(), tmp_path / "run"
    finish(train(chips, run, config(checkpoint_every=1)))
    kept = list_checkpoints(run)
    stale = run / "checkpoints" / "000000000.pt"
    stale.write_bytes(kept[0][1].read_bytes())
    assert list(train(chips, run, config(checkpoint_every=1))) == []
    assert list_checkpoints(run) == kept


def test_other_settings_are_refused_and_overwrite_starts_over(make_chips, tmp_path):
    chips, run = make_chips(), tmp_path / "run"
    finish(train(chips, run, config()))
    with pytest.raises(OutputError, match=r"updates was 4 and is now 5.*--overwrite"):
        finish(train(chips, run, config(updates=5)))
    notes = [run / "my notes.txt", run / "model" / "notes.txt", run / "samples" / "best.png"]
    for file in notes:
        file.write_text("hello")
    last = finish(train(chips, run, config(updates=5, checkpoint_every=5), overwrite=True))
    assert last.update == 5
    assert [update for update, _ in list_checkpoints(run)] == [5]
    assert [file.read_text() for file in notes] == ["hello"] * 3


def first_update(steps):
    """The first update of a training, which is interrupted then."""
    update = next(steps).update
    steps.close()
    return update


def test_an_interrupted_overwrite_goes_on_and_a_finished_one_begins_anew(make_chips, tmp_path):
    chips, run = make_chips(), tmp_path / "run"
    finish(train(chips, run, config()))
    words = config(updates=5, checkpoint_every=2)
    steps = train(chips, run, words, overwrite=True)
    assert [next(steps).update for _ in range(3)] == [1, 2, 3]
    steps.close()
    assert [step.update for step in train(chips, run, words, overwrite=True)] == [4, 5]
    assert first_update(train(chips, run, words, overwrite=True)) == 1


def test_an_interrupted_run_begins_anew_where_settings_were_changed_on_the_way(
    make_chips, tmp_path
):
    chips, run = make_chips(), tmp_path / "run"
    finish(train(chips, run, config(updates=2)))
    first_update(resume(run, changes={"updates": 4}))
    assert first_update(train(chips, run, config(), overwrite=True)) == 1


def test_checkpoints_that_cannot_be_read_are_overwritten(make_chips, tmp_path):
    chips, run = make_chips(), tmp_path / "run"
    first_update(train(chips, run, config()))
    for _, path in list_checkpoints(run):
        path.write_bytes(b"")
    with pytest.raises(OutputError, match="Say --overwrite to start over"):
        next(train(chips, run, config()))
    assert first_update(train(chips, run, config(), overwrite=True)) == 1


@pytest.mark.parametrize("record", [None, "{", '{"version": 1}'])
def test_folders_of_others_are_refused_even_with_overwrite(make_chips, tmp_path, record):
    thesis = tmp_path / "run" / "model" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    if record:
        (tmp_path / "run" / "job.json").write_text(record)
    with pytest.raises(OutputError, match="or empty this one yourself"):
        next(train(make_chips(), tmp_path / "run", config(), overwrite=True))
    assert thesis.read_text() == "years of work"


def test_other_words_may_begin_a_run_anew_that_has_no_checkpoint(make_chips, tmp_path, monkeypatch):
    def failing(*_):
        raise OSError("the disk was unplugged")

    chips, run = make_chips(), tmp_path / "run"
    monkeypatch.setattr(module, "measure_generators", failing)
    with pytest.raises(OSError, match="unplugged"):
        finish(train(chips, run, config(samples_every=1, checkpoint_every=1)))
    monkeypatch.undo()
    assert [file.name for file in (run / "samples").iterdir()] == ["000000001.png"]
    assert finish(train(chips, run, config(seed=1))).update == 4
    assert "seed = 1" in (run / "config.toml").read_text()
    assert [file.name for file in (run / "samples").iterdir()] == ["000000004.png"]
    with pytest.raises(OutputError, match="seed was 1 and is now 0"):
        next(train(chips, run, config()))


def test_bands_that_are_not_there_are_refused_before_anything_is_written(make_chips, tmp_path):
    wrong = config(model="cyclegan", identity_bands="3=1")
    with pytest.raises(SettingError, match="Name a band of A from 1 to 2"):
        next(train(make_chips("heaps"), tmp_path / "run", wrong))
    assert not (tmp_path / "run").exists()


def test_the_record_holds_the_arithmetic_that_auto_stood_for(make_chips):
    plan = plan_training(make_chips(), config(precision="auto"))
    assert plan.work()["precision"] == plan.arithmetic == plan.config.precision != "auto"


@pytest.mark.parametrize("model", KIND)
def test_what_a_run_decides_for_itself_is_known(make_chips, model):
    opened = TrainConfig(model=model)
    settings = plan_training(make_chips(), opened).config.settings()
    before = opened.settings()
    assert {name for name in settings if settings[name] != before.get(name)} == DECIDED


def test_settings_without_effect_may_differ(make_chips, tmp_path):
    chips, run = make_chips(), tmp_path / "run"
    next(steps := train(chips, run, config(checkpoint_every=1)))
    steps.close()
    other = {"samples_every": 1, "keep_checkpoints": 1, "checkpoint_minutes": 0}
    assert finish(train(chips, run, config(checkpoint_every=1, **other))).update == 4
    assert TrainConfig(**read_config(run)).keep_checkpoints == 1


def test_other_chips_are_refused_and_the_same_ones_may_move(make_chips, tmp_path):
    chips, run = make_chips(), tmp_path / "run"
    next(steps := train(chips, run, config(checkpoint_every=1)))
    steps.close()
    moved = chips.rename(tmp_path / "elsewhere")
    with pytest.raises(ChipsError, match=r"which is gone\. If they were moved, say"):
        resume(run).__next__()
    assert finish(train(moved, run, config(checkpoint_every=1))).update == 4
    with pytest.raises(OutputError, match="chips was"):
        finish(train(make_chips(count=11), run, config(checkpoint_every=1)))


def test_settings_edited_in_the_run_are_noticed(make_chips, tmp_path):
    run = tmp_path / "run"
    finish(train(make_chips(), run, config()))
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("seed = 0", "seed = 1"))
    with pytest.raises(OutputError, match="seed was 0 and is now 1"):
        finish(resume(run))


def test_two_processes_do_not_share_a_run(make_chips, tmp_path):
    plan = plan_training(make_chips(), config())
    with claim_run(plan, tmp_path / "run"), pytest.raises(OutputError, match="another process"):
        next(learn(plan, tmp_path / "run"))


def test_a_folder_of_other_things_is_not_written_into(make_chips, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="was not made by this command"):
        next(train(make_chips(), tmp_path / "run", config()))
    with pytest.raises(SettingError, match=r"holds no job\.json"):
        next(resume(tmp_path / "run"))


def test_a_loss_that_is_no_number_stops_the_run_with_a_sentence(make_chips, tmp_path, monkeypatch):
    run = tmp_path / "run"
    original, calls = Pix2Pix.step, []

    def failing(self, batch, draws):
        losses = original(self, batch, draws)
        calls.append(1)
        return losses | ({"l1": losses["l1"] * float("nan")} if len(calls) == 7 else {})

    monkeypatch.setattr(Pix2Pix, "step", failing)
    with pytest.raises(TrainingError) as error:
        finish(train(make_chips(), run, config(updates=9, checkpoint_every=3)))
    assert "the loss l1 is nan at update 7" in str(error.value)
    assert str(run / "checkpoints" / "000000006.pt") in str(error.value)
    assert "--learning-rate" in str(error.value)
    assert [update for update, _ in list_checkpoints(run)][:2] == [6, 3]


@pytest.mark.parametrize(
    ("fails_at", "mend"),
    [
        (
            2,
            r"^4 crops .* memory of cpu\. Say --save-memory or --accumulate 2, or choose a smaller "
            r"--batch, --crop or --width\.$",
        ),
        (
            4,
            r"did up to the checkpoint of update 2.*run the same command again.* --resume .*run`, "
            r"with less memory \(--save-memory or --set accumulate=2\) or .* --overwrite",
        ),
    ],
)
def test_memory_that_runs_out_is_said_with_what_helps_then(
    make_chips, tmp_path, monkeypatch, fails_at, mend
):
    chips, run = make_chips(), tmp_path / "run"
    original, calls = Pix2Pix.step, []

    def failing(self, batch, draws):
        calls.append(1)
        if len(calls) == fails_at:
            torch.empty(2**50)
        return original(self, batch, draws)

    monkeypatch.setattr(Pix2Pix, "step", failing)
    with pytest.raises(SettingError, match=mend):
        finish(train(chips, run, config(checkpoint_every=2)))
    # What is advised does help.
    if fails_at == 2:
        settings = {"updates": 1, "save_memory": True, "accumulate": 2}
        assert finish(train(chips, run, config(**settings))).update == 1
        assert finish(train(chips, run, config(batch=2), overwrite=True)).update == 4
    else:
        assert next(resume(run, device="cpu")).update == 3
        assert next(resume(run, save_memory=True, changes={"accumulate": 2})).update == 4
        with pytest.raises(OutputError, match="batch was 4 and is now 2"):
            finish(train(chips, run, config(checkpoint_every=2, batch=2)))
        assert finish(train(chips, run, config(batch=2), overwrite=True)).update == 4


def test_what_does_not_fit_are_the_crops_of_one_part_of_one_process(make_chips, tmp_path):
    def said(**settings):
        plan = plan_training(make_chips(), config(batch=12, **settings))
        return str(out_of_memory(plan, tmp_path / "run"))

    assert said(accumulate=3).startswith("4 crops of 32 px at once do not fit")
    assert "--accumulate 4," in said(accumulate=3)
    assert said(accumulate=3, devices=2).startswith("2 crops ")
    assert "Say --save-memory or --accumulate 6, or" in said(accumulate=3, devices=2)
    last = said(accumulate=12, save_memory=True)
    assert last.startswith("1 crop of 32 px at once does not fit")
    assert last.endswith("cpu. Choose a smaller --batch, --crop or --width.")


def test_a_rate_far_too_high_is_caught_before_a_bad_model_is_kept(make_chips, tmp_path):
    with pytest.raises(TrainingError, match=r"is no number|is nan|is inf"):
        finish(train(make_chips(), tmp_path / "run", config(updates=60, learning_rate=1e38)))
    assert not list_checkpoints(tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_the_bundle_holds_the_best_generators_and_their_checkpoint_stays(
    make_chips, tmp_path, monkeypatch
):
    scores = iter([1.0, 5.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(module, "measure_generators", lambda *_: Measured({"score": next(scores)}))
    run = tmp_path / "run"
    last = finish(train(make_chips(), run, config(updates=5, checkpoint_every=1)))
    assert last.best == read_bundle_record(run).updates == 2
    assert read_bundle_record(run).figures == {"score": 5.0}
    assert read_bundle_record(run / "model-last").updates == 5
    assert [update for update, _ in list_checkpoints(run)] == [5, 4, 2]


def test_without_validation_chips_the_bundle_holds_the_last_generators(make_chips, tmp_path):
    plan = plan_training(make_chips(), config(checkpoint_every=2))
    chips = {key: files for key, files in plan.folder.chips.items() if key[1] == "train"}
    plan = replace(plan, folder=replace(plan.folder, chips=chips))
    last = finish(learn(plan, tmp_path / "run"))
    assert last.best == 4
    assert last.figures == {}
    assert (tmp_path / "run" / "samples" / "000000004.png").exists()


def test_cyclegan_learns_from_pairs_too_and_draws_the_way_back(make_chips, tmp_path):
    run = tmp_path / "run"
    last = finish(train(make_chips("pairs"), run, config(model="cyclegan")))
    assert {"cycle", "corr8"} <= set(last.figures)
    assert set(load_bundle(run).generators) == {"g_ab", "g_ba"}
    finish(train(make_chips("pairs"), tmp_path / "other", config()))
    assert picture_width(run) > 1.9 * picture_width(tmp_path / "other")


def test_what_cyclegan_learned_translates_a_scene_of_b_back_to_a(make_chips, tmp_path):
    chips, run = make_chips("heaps"), tmp_path / "run"
    finish(train(chips, run, config(model="cyclegan")))
    scene, output = chips / "B" / "images" / "000000003.tif", tmp_path / "back.tif"
    words = PredictConfig(direction="ba", device="cpu", precision="float32")
    assert finish(predict_scenes(run, [scene], output, words)).state == "written"
    a = load_bundle(run).domain_a
    with rasterio.open(scene) as given, rasterio.open(output) as back:
        assert (back.crs, back.transform, back.shape) == (given.crs, given.transform, given.shape)
        assert back.dtypes == ("float32", "float32")
        assert list(back.descriptions) == a.names
        for values, low, high in zip(back.read(), a.low, a.high, strict=True):
            assert values.std() > 0
            assert low - 1e-3 <= values.min() <= values.max() <= high + 1e-3


def picture_width(run):
    with Image.open(run / "samples" / "000000004.png") as picture:
        return picture.width


@pytest.mark.parametrize(
    "settings",
    [
        {"generator": "unet", "depth": 5, "norm": "instance", "upsample": "resize"},
        {"norm": "none", "discriminator_norm": "instance", "gan_loss": "bce", "average_over": 0},
        {"model": "cyclegan", "norm": "batch", "batch": 2, "identity_bands": "1=1"},
        {"model": "cyclegan", "norm": "channel", "image_pool": 1},
        {"model": "cyclegan", "norm": "renorm"},
        {"precision": "bf16"},
    ],
)
def test_other_settings_learn_too(make_chips, tmp_path, settings):
    given = {name: value for name, value in TINY.items() if name != "blocks"} | {"updates": 2}
    if "generator" not in settings:
        given["blocks"] = 1
    last = finish(train(make_chips(), tmp_path / "run", TrainConfig(**given | settings)))
    assert all(np.isfinite(value) for value in last.losses.values())
    assert load_bundle(tmp_path / "run").record.generator.norm == TrainConfig(**settings).norm


@pytest.mark.parametrize("model", ["pix2pix", "cyclegan"])
def test_what_lies_under_invalid_pixels_changes_nothing(make_raster, tmp_path, model):
    random = np.random.default_rng(0)
    chips = random.normal(size=(2, 4, 2, 32, 32)).astype("float32")
    valid = np.zeros((4, 32, 32), bool)
    valid[:, :, :20] = True
    valid[0] = False  # a chip without any data is no reason to fall
    for run, filler in (("one", np.nan), ("two", 1e6)):
        for domain, folder in enumerate(FOLDERS["pairs"]):
            for number in range(4):
                pixels = np.where(valid[number], chips[domain, number], filler)
                place = f"{run}/{folder}/{number}.tif"
                make_raster(place, pixels.astype("float32"), col=50 * number, valid=valid[number])
        finish(train(tmp_path / run, tmp_path / f"run {run}", config(model=model)))
    one, two = (load_bundle(tmp_path / f"run {run}") for run in ("one", "two"))
    assert one.record.weights == two.record.weights
    assert rows_without_time(tmp_path / "run one") == rows_without_time(tmp_path / "run two")


def test_pix2pix_on_heaps_is_refused_with_the_mend(make_chips):
    with pytest.raises(ChipsError, match="--model cyclegan"):
        plan_training(make_chips("heaps"), config())


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        ({"crop": 64}, "Choose a crop of at most 36 px"),
        ({"crop": 33}, "Choose a crop of 32 or 36 px"),
        ({"crop": 4}, "Choose a crop of 24 px"),
        (
            {"generator": "unet", "crop": None},
            "the chips are 36 px.*--size 256 or more, or choose a sm",
        ),
    ],
)
def test_a_crop_that_networks_cannot_take_is_refused_with_the_mend(make_chips, settings, mend):
    given = {k: v for k, v in (TINY | settings).items() if v is not None}
    if "generator" in settings:
        del given["blocks"]
    with pytest.raises(SettingError, match=mend):
        plan_training(make_chips(), TrainConfig(**given))


def test_an_unset_crop_is_the_largest_that_fits(make_chips):
    given = {name: value for name, value in TINY.items() if name != "crop"}
    assert plan_training(make_chips(side=38), TrainConfig(**given)).crop == 36


def test_shared_bands_are_pairs_of_numbers(make_chips):
    chips = make_chips("heaps")
    with pytest.raises(SettingError, match="such as 1=3,2=2,3=1"):
        plan_training(chips, config(model="cyclegan", identity_bands="red=3"))


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        ({"updates": 0}, "updates cannot be 0. Choose 1 or more"),
        ({"colour": 1}, "colour is no setting"),
        ({"generator": "unet", "blocks": 6}, "Leave out blocks, or choose generator resnet"),
        ({"model": "cyclegan", "l1": 6}, "Leave out l1, or choose model pix2pix"),
        ({"model": "diffusion"}, "'pix2pix' or 'cyclegan'"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_mend(settings, mend):
    with pytest.raises(SettingError, match=mend) as error:
        TrainConfig(**settings)
    assert "factory" not in str(error.value)


def test_the_defaults_are_those_of_the_parts():
    ours = TrainConfig()
    for part, names in (
        (GeneratorSpec(), {"kind": "generator"}),
        (DiscriminatorSpec(), {k: f"discriminator_{k}" for k in ("width", "layers", "norm")}),
        (Pix2PixConfig(), {}),
        (CycleGANConfig(), {}),
    ):
        for name, value in part:
            assert getattr(ours, names.get(name, name)) == value, name
    assert ONLY_FOR.keys() <= TrainConfig.model_fields.keys()
    assert TrainConfig(**ours.settings()) == ours


@pytest.mark.parametrize(
    ("updates", "stretch"), [(1, 1), (15, 15), (20, 20), (150, 20), (600, 60), (20_000, 1000)]
)
def test_a_short_run_stops_for_figures_and_pictures_every_20_updates_at_most(updates, stretch):
    config = TrainConfig(updates=updates)
    assert (config.checkpoint_every, config.samples_every) == (stretch, stretch)


def test_a_damaged_job_file_is_no_run(make_chips, tmp_path):
    run = tmp_path / "run"
    finish(train(make_chips(), run, config()))
    assert json.loads((run / "job.json").read_text())["work"]["updates"] == 4
    (run / "job.json").write_text("{")
    with pytest.raises(SettingError, match="so there is no run to read"):
        next(resume(run))

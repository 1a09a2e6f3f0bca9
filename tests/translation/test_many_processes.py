"""Two processes learn as one does."""

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geotranslate.errors import SettingError
from geotranslate.translation import train as module
from geotranslate.translation.checkpoint import load_checkpoint
from geotranslate.translation.plan import plan_training
from geotranslate.translation.processes import (
    ALONE,
    Processes,
    choose_processes,
    require_shares,
)
from geotranslate.translation.run_record import read_config
from geotranslate.translation.sessions import read_sessions
from geotranslate.translation.train import resume, train
from tests.translation.runs import FOLDERS, config, finish
from tests.translation.sharing import CASES, one_update
from tests.translation.steps import flat

ROOT = Path(__file__).parents[2]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
SIX = {"updates": 6, "checkpoint_every": 3}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def write_chips(folder, kind):
    """Ten chips of each domain; the fourth of A lacks its upper half."""
    random = np.random.default_rng(0)
    for number in range(10):
        a = random.normal(-12, 4, (2, 36, 36)).cumsum(axis=2).astype("float32")
        b = np.stack([a[0], a[1], a.mean(axis=0)])
        b = (255 * (b - b.min()) / np.ptp(b)).astype("uint8")
        if number == 3:
            a[:, :18] = np.nan  # not data
        for name, pixels in zip(FOLDERS[kind], (a, b), strict=True):
            path = folder / name / f"{number:09d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            place = Affine(10, 0, 500_000 + 500 * number, 0, -10, 4_000_000)
            shape = {"count": len(pixels), "height": 36, "width": 36, "dtype": pixels.dtype}
            with rasterio.open(path, "w", crs="EPSG:32633", transform=place, **shape) as file:
                file.write(pixels)


@pytest.fixture(scope="module")
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def together(tmp_path_factory, threads):
    """A folder in which two processes have done all they do together, and what each saw."""
    folder = tmp_path_factory.mktemp("together")
    write_chips(folder / "pairs", "pairs")
    write_chips(folder / "heaps", "heaps")
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(module, "STATISTICS_IMAGES", 8)
        steps = train(folder / "pairs", folder / "half", config(**SIX))
        assert next(steps).update == 1
        assert next(steps).update == 2
        steps.close()
    port = free_port()
    words = [sys.executable, "-m", "tests.translation.sharing", str(folder)]
    running = [
        subprocess.Popen(
            [*words, str(rank), port], cwd=ROOT, env=ONE_THREAD, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1].decode() for process in running]
    statuses = [process.returncode for process in running]
    assert statuses == [0, -signal.SIGKILL], said
    return folder, [torch.load(folder / f"seen-{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_an_update_of_two_processes_is_that_of_one_with_the_whole_batch(together, threads, name):
    _, (first, second) = together
    first, second = first["updates"][name], second["updates"][name]
    assert torch.equal(flat(first["state"]), flat(second["state"]))
    assert torch.equal(first["losses"], second["losses"])
    case = CASES[name]
    whole = one_update(case, ALONE)
    for_losses, for_gradients = (1e-12, 1e-9) if case.exact else (1e-5, 1e-4)
    torch.testing.assert_close(first["losses"], whole["losses"], rtol=for_losses, atol=0)
    for optimizer, gradients in whole["gradients"].items():
        largest = max(float(each.abs().max()) for each in gradients)
        for one, other in zip(gradients, first["gradients"][optimizer], strict=True):
            # A bias before a norm has no gradient but what rounding leaves.
            size = max(float(one.abs().max()), 1e-6 * largest)
            assert float((one - other).abs().max()) <= for_gradients * size
    for network, state in whole["state"]["networks"].items():
        for key, values in state.items():
            if "running" in key or "parametrizations" in key or "tracked" in key:
                found = first["state"]["networks"][network][key]
                torch.testing.assert_close(found, values, rtol=1e-4, atol=1e-6)
    if "pools" in whole["state"]:
        found, wanted = flat(first["state"]["pools"]), flat(whole["state"]["pools"])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def rows(run):
    with (run / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("model", "kind", "batch"), [("pix2pix", "pairs", 4), ("cyclegan", "heaps", 2)]
)
def test_a_run_of_two_processes_is_written_once_and_as_by_one(
    together, tmp_path, monkeypatch, threads, model, kind, batch
):
    folder, (first, second) = together
    monkeypatch.setattr(module, "STATISTICS_IMAGES", 8)
    alone = tmp_path / "alone"
    finish(train(folder / kind, alone, config(model=model, batch=batch, **SIX)))
    assert first[model] == "done [1, 2, 3, 4, 5, 6]"
    assert second[model] == "done []"
    assert [row["update"] for row in rows(folder / model)] == ["3", "6"]
    for ours, theirs in zip(rows(folder / model), rows(alone), strict=True):
        assert ours.keys() == theirs.keys()
        assert {name for name in ours if ours[name]} == {name for name in theirs if theirs[name]}
        for name in (name for name in ours if ours[name] and name != "seconds"):
            # Scores are decibels, and near 0 a share of one says nothing.
            near = 0.05 if name.endswith("score") else 2e-3
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=2e-2, abs=near), name
    assert {each.name for each in (folder / model).iterdir()} == {
        each.name for each in alone.iterdir()
    }
    assert [each.processes for each in read_sessions(folder / model)] == [2]
    assert read_config(folder / model)["devices"] == 2


def test_what_was_finished_is_not_touched_and_other_words_are_refused_by_all(together):
    _, (first, second) = together
    assert first["again"] == "done []"
    assert second["again"] == "done []"
    assert "l1 was 5.0 and is now 1.0" in first["other words"]
    assert first["other words"].startswith("TakenError")
    assert second["other words"] == "done []"


def test_a_run_goes_on_with_another_number_of_processes(together, tmp_path, monkeypatch, threads):
    folder, _ = together
    monkeypatch.setattr(module, "STATISTICS_IMAGES", 8)
    half = folder / "half"
    assert load_checkpoint(half)["update"] == 4
    assert [step.update for step in resume(half, devices=1)] == [5, 6]
    assert [(each.first_update, each.last_update) for each in read_sessions(half)] == [
        (1, 2),
        (3, 4),
        (5, 6),
    ]
    finish(train(folder / "pairs", tmp_path / "alone", config(**SIX)))
    ours, theirs = (load_checkpoint(run)["model"]["networks"] for run in (half, tmp_path / "alone"))
    # Adam makes much of the last bits at first, but no weight moves further than its rate.
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=0, atol=6 * 2e-4)


def test_when_one_process_is_interrupted_all_end_after_the_same_update(together):
    _, (first, second) = together
    assert first["interrupted"] == second["interrupted"] == "KeyboardInterrupt: "
    assert first["interrupted, kept"] == (5, 5)


def test_when_one_process_fails_between_updates_the_first_one_says_why_and_keeps_the_last(together):
    _, (first, second) = together
    assert second["missing"] == "ChipsError: a chip is missing"
    assert "process 1 of 2 failed (a chip is missing)" in first["missing"]
    assert "The state after update 4 is kept: say the same words again" in first["missing"]
    assert first["missing, kept"] == (4, 4)


def test_when_one_process_is_killed_the_other_ends_soon_with_a_good_checkpoint(together):
    _, (first, _) = together
    assert "one of the processes that learn together is gone" in first["killed"]
    assert "The state after update 3 is kept: say the same words again" in first["killed"]
    assert first["killed, kept"] == (3, 3)
    assert first["killed, seconds"] < 60
    folder, _ = together
    assert not list((folder / "killed").rglob("*.part"))


def command(*words, launcher=("-m", "geotranslate")):
    tiny = {"width": 4, "blocks": 1, "discriminator-width": 4, "crop": 32, "device": "cpu"}
    tiny |= {"batch": 2, "checkpoint-every": 2, "precision": "float32"}
    settings = [f"--{name}={value}" for name, value in tiny.items()]
    return [sys.executable, *launcher, "train", *map(str, words), *settings]


def test_the_command_starts_two_processes_says_who_died_and_goes_on(together, tmp_path):
    folder, _ = together
    run = tmp_path / "run"
    words = command(folder / "pairs", "-o", run, "--updates", 100_000, "--devices", 2)
    running = subprocess.Popen(words, cwd=ROOT, env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(run.glob("checkpoints/*.pt")):
        assert running.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    (companion,) = children(running.pid)
    os.kill(companion, signal.SIGKILL)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "in 2 processes in float32" in said
    assert "process 1 of 2 on this machine died (killed by SIGKILL)" in said
    (update,) = re.findall(r"The state after update (\d+) is kept: say the same words again", said)
    assert int(update) == load_checkpoint(run)["update"]


def children(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(number) for each in tasks for number in each.read_text().split()]


def test_torchrun_starts_them_as_well(together, tmp_path):
    folder, _ = together
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}")
    words = command(
        folder / "pairs",
        "-o",
        tmp_path / "run",
        "--updates",
        4,
        launcher=(*launcher, "-m", "geotranslate"),
    )
    done = subprocess.run(
        words, cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained 4 updates") == 1
    assert done.stderr.count("4 updates of 2 x 32 px, on cpu in 2 processes") == 1
    assert [row["update"] for row in rows(tmp_path / "run")] == ["2", "4"]


def test_shares_are_equal_and_together_the_batch():
    shares = [
        Processes(2, 2, machine, local).share(8) for machine in range(2) for local in range(2)
    ]
    assert np.concatenate([list(share) for share in shares]).tolist() == list(range(8))
    assert {len(share) for share in shares} == {2}


def test_a_batch_that_cannot_be_shared_is_refused_with_those_that_can():
    with pytest.raises(SettingError, match=r"Choose a --batch of 4 or 8"):
        require_shares(Processes(per_machine=4), 6)
    with pytest.raises(SettingError, match=r"Choose a --batch of 2\."):
        require_shares(Processes(per_machine=2), 1)


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        ({"devices": -1}, "such as --devices 2"),
        ({"devices": 2, "batch": 3}, "Choose a --batch of 2 or 4"),
        ({"nodes": 2}, "torchrun --nnodes 2"),
        ({"devices": 2, "device": "cpu:0"}, "Say --device cpu"),
    ],
)
def test_processes_that_cannot_be_are_refused(make_chips, settings, mend):
    with pytest.raises(SettingError, match=re.escape(mend)):
        plan_training(make_chips(), config(**settings))


SLURM = {
    **{"SLURM_NTASKS": 4, "SLURM_NTASKS_PER_NODE": 2, "SLURM_NNODES": 2, "SLURM_JOB_ID": 17},
    **{"SLURM_NODEID": 1, "SLURM_LOCALID": 1, "SLURM_PROCID": 3, "SLURM_JOB_NAME": "learn"},
}
TORCHRUN = {
    **{"TORCHELASTIC_RUN_ID": 1, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "RANK": 3},
    **{"LOCAL_RANK": 1, "GROUP_RANK": 1},
}
BY_HAND = {"MASTER_ADDR": "first", "MASTER_PORT": 29_500, "NODE_RANK": 1, "LOCAL_RANK": 1}


@pytest.mark.parametrize("variables", [SLURM, TORCHRUN, BY_HAND], ids=["slurm", "torchrun", "hand"])
def test_a_process_knows_its_place_by_whoever_started_it(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    found = choose_processes(2, 2, torch.device("cpu"), name="cpu")
    assert found == Processes(per_machine=2, machines=2, machine=1, local=1, given=True)
    assert (found.count, found.rank, found.first) == (4, 3, False)


def test_without_others_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert choose_processes(1, 1, torch.device("cpu"), name="cpu") == ALONE
    here = choose_processes(2, 1, torch.device("cpu"), name="auto")
    assert here == Processes(per_machine=2, given=False)


def test_each_process_of_a_machine_has_a_gpu_of_its_own():
    first = torch.device("cuda", 0)
    places = [Processes(4, 2, 1, local).device(first) for local in range(4)]
    assert places == [torch.device("cuda", local) for local in range(4)]
    assert ALONE.device(torch.device("cuda", 3)) == torch.device("cuda", 3)

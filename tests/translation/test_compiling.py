import os
import subprocess
import sys
import sysconfig
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from geotranslate.errors import SettingError
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.translation import compiling
from geotranslate.translation.checkpoint import load_checkpoint
from geotranslate.translation.compiling import (
    choose_compile,
    compile_networks,
    find_compiler,
    operations,
)
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.learner import Learner
from geotranslate.translation.plan import plan_training
from geotranslate.translation.resumption import plan_resumption
from geotranslate.translation.run_record import read_config
from geotranslate.translation.sessions import read_sessions
from geotranslate.translation.train import resume, train
from tests.translation.runs import config, finish, same
from tests.translation.test_same_mathematics import CASES, batch, draws

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture
def with_compiler(monkeypatch):
    monkeypatch.setattr(compiling, "find_compiler", lambda: "/usr/bin/c++")
    monkeypatch.setattr(compiling, "has_amx", lambda: True)


@pytest.fixture
def compiled_without_compiler(monkeypatch, with_compiler):
    """Networks are traced as they would be for compiling, which would take a minute more."""
    compile_it, calls = nn.Module.compile, []

    def compile_module(module, *, mode, **words):
        calls.append(module)
        compile_it(module, backend="aot_eager", **words)

    monkeypatch.setattr(nn.Module, "compile", compile_module)
    yield calls
    torch.compiler.reset()


@pytest.mark.parametrize("spec", [GeneratorSpec(width=4), GeneratorSpec(kind="unet", depth=5)])
def test_operations_are_those_torch_counts(spec):
    settings = TrainConfig(model="pix2pix", crop=64, batch=3)
    generator = build_generator(spec, 2, 3).train()
    with FlopCounterMode(display=False) as counter:
        generator(torch.zeros(1, 2, 64, 64)).sum().backward()
    # The first layer has no gradient to give back to what came in.
    counted = 3 * counter.get_total_flops()
    assert counted <= operations(settings, spec, (2, 3)) <= 1.1 * counted


def test_auto_compiles_where_it_pays_within_the_run(monkeypatch, with_compiler):
    spec = GeneratorSpec()

    def chosen(device=CPU, **settings):
        settings = TrainConfig(crop=128, **settings)
        return choose_compile(settings, spec, (3, 3), device)

    assert chosen(model="cyclegan", updates=20_000)
    assert not chosen(model="cyclegan", updates=100)
    assert not chosen(model="cyclegan", updates=20_000, compile="off")
    assert not chosen(model="cyclegan", updates=20_000, save_memory=True)
    # One thread needs half as many updates as two, and many threads need more.
    assert chosen(model="cyclegan", updates=500)
    torch.set_num_threads(2)
    assert not chosen(model="cyclegan", updates=500)
    assert chosen(model="cyclegan", updates=1000)
    torch.set_num_threads(4)
    assert not chosen(model="cyclegan", updates=1000)
    assert not chosen(torch.device("cuda"), model="cyclegan", updates=20_000)
    assert chosen(model="cyclegan", updates=100, compile="on")
    monkeypatch.setattr(compiling, "has_amx", lambda: False)
    assert not chosen(model="cyclegan", updates=20_000)
    monkeypatch.setattr(compiling, "has_amx", lambda: True)
    monkeypatch.setattr(compiling, "find_compiler", lambda: None)
    assert not chosen(model="cyclegan", updates=20_000)


def test_compiling_without_a_compiler_is_refused_with_the_mend(monkeypatch, make_chips):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SettingError, match="Install it, or say --compile off"):
        plan_training(make_chips(), config(compile="on"))


def test_a_compiler_without_pythons_headers_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", sys.executable)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert find_compiler() == sys.executable
    (tmp_path / "Python.h").unlink()
    assert find_compiler() is None


def test_as_many_programs_are_compiled_as_there_are_kinds_of_input():
    network, compiled = nn.Conv2d(1, 1, 1), []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    compile_networks([], CPU)
    network.compile(dynamic=False, backend=backend)
    for side in range(1, 21):
        network(torch.zeros(1, 1, side, side))
    torch.compiler.reset()
    assert len(compiled) == 20


@pytest.mark.slow
@pytest.mark.parametrize("good_calls", [0, 6])
def test_a_compiler_that_fails_is_said_with_the_mend(make_chips, tmp_path, good_calls):
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f"""#!/bin/sh
echo >> {tmp_path}/calls
[ $(wc -l < {tmp_path}/calls) -le {good_calls} ] && exec c++ "$@"
echo out of order >&2; exit 1
"""
    )
    compiler.chmod(0o755)
    words = ["train", make_chips(), "-o", tmp_path / "run", "--compile", "on"]
    words += ["--width", "4", "--blocks", "1", "--discriminator-width", "4", "--device", "cpu"]
    failed = subprocess.run(
        [sys.executable, "-m", "geotranslate", *words],
        env=os.environ | {"CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kept")},
        capture_output=True,
        text=True,
    )
    assert "The networks are compiled at the first update, which takes minutes." in failed.stderr
    assert "Error: compiling failed (" in failed.stderr
    assert failed.stderr.endswith("). Say --compile off.\n")
    assert failed.returncode == SettingError.exit_status


def test_compiling_beside_saving_memory_is_refused(make_chips, with_compiler):
    with pytest.raises(SettingError, match="Leave out save_memory, or say --compile off"):
        plan_training(make_chips(), config(compile="on", save_memory=True))


def test_compiling_beside_other_processes_is_refused(make_chips, with_compiler):
    with pytest.raises(SettingError, match="or learn with one process"):
        plan_training(make_chips(), config(compile="on", devices=2))


@pytest.mark.parametrize("name", ["pix2pix, partly valid", "cyclegan, spectral"])
def test_compiled_networks_learn_the_same(name, compiled_without_compiler, make_chips):
    case = CASES[name]
    settings = config(model=case.model, batch=case.batch)
    plan = plan_training(make_chips(), settings)
    if case.model == "cyclegan":
        case = replace(case, bands=(2, 3))
    models = []
    for compiled in (False, True):
        learner = Learner(replace(plan, compiled=compiled))
        for update in (1, 2):
            learner.model.step(batch(case, update), draws(case, update))
        models.append(learner.model)
    assert len(compiled_without_compiler) == len(models[0].networks)
    eager, compiled = (model.state_dict() for model in models)
    for network, weights in eager["networks"].items():
        assert weights.keys() == compiled["networks"][network].keys()
        for key, value in weights.items():
            torch.testing.assert_close(
                compiled["networks"][network][key], value, rtol=1e-4, atol=1e-5
            )


def test_a_compiled_run_goes_on_without_compiling(compiled_without_compiler, make_chips, tmp_path):
    run, settings = tmp_path / "run", {"updates": 4, "checkpoint_every": 2}
    steps = train(make_chips(), run, config(compile="on", **settings))
    while next(steps).update < 2:
        pass
    steps.close()
    assert finish(resume(run, compile="off")).update == 4
    assert load_checkpoint(run)["update"] == 4


def test_a_run_compiled_unasked_goes_on_where_that_cannot_be(
    compiled_without_compiler, make_chips, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    with monkeypatch.context() as patches:
        patches.setattr(compiling, "MARGIN", 0.0)
        next(train(make_chips(), run, config()))
    assert compiled_without_compiler
    assert read_config(run)["compile"] == "auto"
    assert plan_resumption(run, devices=2).processes.count == 2
    assert not plan_resumption(run, save_memory=True).compiled
    monkeypatch.setattr(compiling, "find_compiler", lambda: None)
    assert finish(resume(run)).update == 4
    assert [session.compiled for session in read_sessions(run)] == [True, False]


@pytest.mark.slow
def test_a_compiled_run_that_was_interrupted_ends_like_one_that_was_not(make_chips, tmp_path):
    chips, settings = make_chips(), config(compile="on", model="cyclegan", updates=4)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finish(train(chips, whole, settings))
    steps = train(chips, parts, settings)
    while next(steps).update < 2:
        pass
    steps.close()
    finish(train(chips, parts, settings))
    assert same(load_checkpoint(whole), load_checkpoint(parts))

"""Whether networks are compiled before they learn, and how.

`torch.compile` joins what lies between convolutions (norms, activations, padding, conversions) to
few passes over memory. It takes minutes first, so short runs are quicker without.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from geotranslate.choices import ModelName
from geotranslate.errors import SettingError
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.networks.geometry import strides_of
from geotranslate.translation.config import TrainConfig

IMAGES: dict[ModelName, int] = {"pix2pix": 1, "cyclegan": 6}
"""Images that go through generators for each pair of an update."""

PASSES = 3
"""Forward, backward to what came in, backward to the weights: each costs the same operations."""

RATE = 2.25e11
"""Operations a second of an update for each thread with bf16: half of what two cores did, where
`SAVED` and `SECONDS` were measured. A slower machine also compiles more slowly, so the rule holds
there too, about; with more cores updates are quicker, and compiling is not taken to be."""

SAVED = 0.2
"""Share of an update that compiling saves: 0.97 s became 0.77 s (CycleGAN, width 64, 128 px), when
padding and Adam still cost more without it; `MARGIN` has room for that."""

SECONDS: dict[ModelName, float] = {"pix2pix": 40.0, "cyclegan": 75.0}
"""What compiling takes on two cores; CycleGAN's was measured, it has twice the networks."""

PROGRAMS = 64
"""Most that one network's code is compiled to; beyond, torch would run it as it is and say nothing.
"""

MARGIN = 2.0
"""How many times what it takes compiling must save before it is done unasked."""


def choose_compile(
    config: TrainConfig,
    spec: GeneratorSpec,
    bands: tuple[int, int],
    device: torch.device,
    *,
    alone: bool = True,
) -> bool:
    """Whether to compile: ``auto`` decides by settings and machine alone, without a measurement.

    So a run that goes on with the same settings on the same machine does the same.

    Compiling pays where ``updates x seconds of an update x SAVED > MARGIN x SECONDS``; the seconds
    follow from the generators' operations, which are nine tenths of all. On CPUs without AMX, where
    convolutions take so long that the rest hardly counts, it saved nothing; beside a GPU what it
    saves was not measured: there it is off unless asked for.

    Args:
        config: with nothing left open but this.
        spec: of the generators.
        bands: of A and B.
        device: where to compute.
        alone: whether no other processes learn with this one.

    Raises:
        SettingError: it shall be on, and cannot.
    """
    if config.compile == "off":
        return False
    if config.compile == "on":
        _require_possible(config, device, alone=alone)
        return True
    if device.type != "cpu" or config.save_memory or not alone:
        return False
    if not has_amx() or find_compiler() is None:
        return False
    seconds = operations(config, spec, bands) / (RATE * torch.get_num_threads())
    return config.updates * seconds * SAVED > MARGIN * SECONDS[config.model]


def _require_possible(config: TrainConfig, device: torch.device, *, alone: bool) -> None:
    if config.save_memory:
        raise SettingError(
            "compile is on beside save_memory, but what is computed a second time is not "
            "compiled. Leave out save_memory, or say --compile off."
        )
    if not alone:
        raise SettingError(
            "compile is on, but several processes are to learn together, and what they exchange "
            "within a network cannot be compiled. Say --compile off, or learn with one process."
        )
    if device.type == "mps" or (device.type == "cpu" and find_compiler() is None):
        lacking = (
            "C++ compiler with Python's headers" if device.type == "cpu" else "CPU or NVIDIA GPU"
        )
        raise SettingError(
            f"compile is on, but there is no {lacking} here, which compiling "
            "needs. Install it, or say --compile off."
        )


def operations(config: TrainConfig, spec: GeneratorSpec, bands: tuple[int, int]) -> float:
    """Operations of the generators' convolutions in an update, about."""
    assert config.crop is not None
    with torch.device("meta"):
        generator = build_generator(spec, *bands)
    strides, products = strides_of(generator), 0.0
    for name, layer in generator.named_modules():
        # A convolution uses each weight at every position of what it gives, a transposed one at
        # every position of what it takes.
        if isinstance(layer, nn.Conv2d):
            side = config.crop / (strides[name] * layer.stride[0])
        elif isinstance(layer, nn.ConvTranspose2d):
            side = config.crop / strides[name]
        else:
            continue
        products += layer.weight.numel() * side**2
    return 2 * products * PASSES * IMAGES[config.model] * config.batch


def has_amx() -> bool:
    """Whether the CPU multiplies matrices of bf16 by itself."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def find_compiler() -> str | None:
    """The C++ compiler that torch will use; None without one, or without Python's headers."""
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return None
    named = os.environ.get("CXX")
    usual = ("cl",) if sys.platform == "win32" else ("g++", "clang++")
    return next(filter(None, map(shutil.which, [named] if named else usual)), None)


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Let networks be compiled when they are first called; names of weights stay as they are.

    Shapes do not change in a run, so code is made for these alone. Beside an NVIDIA GPU it is
    recorded as CUDA graphs, which spares starting each kernel (not tried on hardware yet).
    """
    import torch._dynamo

    # While tracing, torch looks at the gradient of every input, and warns of its own look.
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor", UserWarning)
    # And it looks for CUDA's compiler where there is no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # What else was compiled in this process counts towards a limit; beyond it networks would run as
    # they are, and a run that is gone on with would not end with the same bytes.
    torch.compiler.reset()
    # CycleGAN's generators come to 8 programs with missing pixels, torch's usual limit.
    torch._dynamo.config.recompile_limit = PROGRAMS
    mode = "reduce-overhead" if device.type == "cuda" else None
    for network in networks:
        network.compile(dynamic=False, mode=mode)


@contextmanager
def explained_compiling() -> Iterator[None]:
    """Say what to do where compiling fails, which it does when networks are first called.

    Raises:
        SettingError: it failed.
    """
    # Importing these takes 140 MB, which only those who compile need.
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    try:
        yield
    except (BackendCompilerFailed, CppCompileError, InvalidCxxCompiler) as error:
        why = str(error).strip().splitlines()[0].rstrip(".")
        raise SettingError(f"compiling failed ({why}). Say --compile off.") from error

"""Weights that a run's generators begin with: those of an earlier model.

It may be one of ours, or a ResNet generator of the CycleGAN and pix2pix authors' PyTorch code,
which keeps its layers in one sequence. That sequence is ours, number by number: reflection and a
7 x 7 convolution, two halvings, the blocks from 10 on, two doublings, reflection and a 7 x 7
convolution.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geotranslate.choices import Norm
from geotranslate.errors import BundleError, SettingError, reason
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.networks.layers import Convolution
from geotranslate.raster.domain import Domain
from geotranslate.translation.bundle import GENERATOR_OF, is_bundle, load_bundle

Weights = Mapping[str, Tensor]

COUNTERPARTS = {"_net_G_A": "_net_G_B", "_net_G_B": "_net_G_A"}
"""Endings of the two generators' files that CycleGAN's authors write side by side."""

ACCEPTED = "a bundle, a run folder, or a ResNet generator's *_net_G.pth"

FIRST_BLOCK = 10
"""Number of the first residual block among the layers, theirs and ours."""

AFTER_BLOCKS = 6
"""Layers of the two doublings between the last block and the last convolution's reflection."""

DROPOUT = 4
"""Number of the dropout in their blocks, where there is one."""

BLOCK = re.compile(r"model\.(\d+)\.conv_block\.")
IN_BLOCK = re.compile(r"model\.(\d+)\.conv_block\.(\d+)\.(\w+)")
IN_ROW = re.compile(r"model\.(\d+)\.(\w+)")

SECOND_CONVOLUTION = f"model.{FIRST_BLOCK}.conv_block.{{}}.weight"
"""The weights of the second convolution in their first block, by its number there."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """A model to begin with.

    Attributes:
        sha256: of all that it consists of.
        spec: architecture of its generators; None, and no generators, for a run past its start.
        generators: weights by name.
        bands_a: names of the bands that ``g_ab`` takes; None where nobody knows.
        bands_b: names of the bands that it gives.
    """

    sha256: str
    spec: GeneratorSpec | None = None
    generators: Mapping[str, Weights] = field(default_factory=dict)
    bands_a: Sequence[str] | None = None
    bands_b: Sequence[str] | None = None


def read_start(path: Path, spec: GeneratorSpec) -> Start:
    """Read a model to begin with, which must be built like the generators to be.

    Args:
        path: a bundle, a run folder, or a file of weights.
        spec: the architecture that is wanted.

    Raises:
        BundleError: it is none of these, or is damaged.
        SettingError: it is built in another way.
    """
    start = _read_bundle(path) if path.is_dir() or is_bundle(path) else _read_weight_files(path)
    assert start.spec is not None
    wanted, found = (_decisive(each) for each in (spec, start.spec))
    if wanted != found:
        differing = [name for name in found if found[name] != wanted.get(name)]
        there = ", ".join(f"{name} {found[name]}" for name in differing)
        here = ", ".join(f"{name} {wanted[name]}" for name in differing if name in wanted)
        words = " ".join(f"--{name} {found[name]}" for name in differing)
        raise SettingError(
            f"the generators of {path} are built with {there}, and those of this run with {here}: "
            f"weights of another architecture do not fit. Say {words}, or begin without it."
        )
    return start


def _decisive(spec: GeneratorSpec) -> dict[str, Any]:
    """What decides how a generator is built, by the flags' names."""
    unused = "depth" if spec.kind == "resnet" else "blocks"
    settings = {"generator" if name == "kind" else name: value for name, value in spec}
    return {name: value for name, value in settings.items() if name != unused}


def begin_with(
    start: Start, generators: Mapping[str, nn.Module], domain_a: Domain, domain_b: Domain
) -> None:
    """Give generators the weights to begin with, band by band.

    A band takes over what a band of the same name has learned. Where none has the same name, or
    the names are not known, bands of the same number belong together. What is left over of either
    is said in the log.

    Args:
        start: the model.
        generators: those to be, as `build_model` gives them.
        domain_a: what ``g_ab`` takes.
        domain_b: what ``g_ab`` gives.
    """
    names = {"a": (start.bands_a, domain_a.names), "b": (start.bands_b, domain_b.names)}
    for direction, name in GENERATOR_OF.items():
        if name not in generators:
            continue
        if name not in start.generators:
            log.warning("%s begins anew: the model to begin with has none", name)
            continue
        source, target = direction
        _take_over(name, generators[name], start.generators[name], names[source], names[target])


Names = tuple[Sequence[str] | None, Sequence[str]]
"""Those of the bands of the model to begin with, and of the one to be."""


def _take_over(name: str, generator: nn.Module, old: Weights, taken: Names, given: Names) -> None:
    convolutions = [
        (key, module)
        for key, module in generator.named_modules()
        if isinstance(module, Convolution)
    ]
    (first, _), (last, module) = convolutions[0], convolutions[-1]
    of_outputs = 1 if isinstance(module, nn.ConvTranspose2d) else 0
    bands = {
        (f"{first}.weight", 1): (taken, "takes"),
        (f"{last}.weight", of_outputs): (given, "gives"),
        (f"{last}.bias", 0): (given, ""),
    }
    weights = dict(old)
    new = generator.state_dict()
    for (key, axis), (names, does) in bands.items():
        pairs = _same_bands(names, old[key].shape[axis], new[key].shape[axis])
        if does:
            _say_what_does_not_fit(name, does, names, pairs, old[key].shape[axis])
        theirs = torch.tensor([there for there, _ in pairs])
        ours = torch.tensor([here for _, here in pairs])
        kept = old[key].to(new[key].dtype).index_select(axis, theirs)
        weights[key] = new[key].clone().index_copy_(axis, ours, kept)
    generator.load_state_dict(weights)


def _same_bands(names: Names, old: int, new: int) -> list[tuple[int, int]]:
    """Numbers, from 0, of the bands in both models that belong together."""
    theirs, ours = names
    if theirs is not None and set(theirs) & set(ours):
        return [(theirs.index(band), ours.index(band)) for band in ours if band in theirs]
    return [(number, number) for number in range(min(old, new))]


def _say_what_does_not_fit(
    name: str, does: str, names: Names, pairs: list[tuple[int, int]], old: int
) -> None:
    theirs, ours = names
    known = theirs if theirs is not None else [f"band {number + 1}" for number in range(old)]
    dropped = [band for n, band in enumerate(known) if n not in {there for there, _ in pairs}]
    fresh = [band for n, band in enumerate(ours) if n not in {here for _, here in pairs}]
    if dropped:
        log.warning("what %s learned of %s is dropped", name, ", ".join(dropped))
    if fresh:
        log.warning("%s %s %s, which it has not learned yet", name, does, ", ".join(fresh))


def _read_bundle(path: Path) -> Start:
    bundle = load_bundle(path)
    return Start(
        sha256=bundle.identity,
        spec=bundle.record.generator,
        generators={name: each.state_dict() for name, each in bundle.generators.items()},
        bands_a=bundle.domain_a.names,
        bands_b=bundle.domain_b.names,
    )


def _read_weight_files(path: Path) -> Start:
    """A generator from A to B, and the one beside it for the way back, if there is one."""
    files = {"g_ab": path}
    for ending, other in COUNTERPARTS.items():
        if path.stem.endswith(ending):
            beside = path.with_name(path.stem.removesuffix(ending) + other + path.suffix)
            if beside.exists():
                files["g_ba"] = beside
    known = hashlib.sha256()
    read = {}
    for name, file in files.items():
        content, weights = _load_weights(file)
        known.update(content)
        read[name] = translate_layout(file, weights)
    specs = [spec for spec, _ in read.values()]
    if len(set(specs)) > 1:
        raise BundleError(
            f"{' and '.join(map(str, files.values()))} are built in different ways, so they are "
            "not the two directions of one model. Move one of them to another folder."
        )
    return Start(
        sha256=known.hexdigest(),
        spec=specs[0],
        generators={name: weights for name, (_, weights) in read.items()},
    )


def _load_weights(file: Path) -> tuple[bytes, Weights]:
    """The bytes of a file, and the tensors in it by name; nothing of it is executed.

    Raises:
        BundleError: it cannot be read, or holds something else.
    """
    try:
        content = file.read_bytes()
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise BundleError(
            f"{file} cannot be read as weights ({reason(error)}), so nothing can begin with it. "
            f"Give {ACCEPTED}."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(each, Tensor) for each in found.values()):
        raise BundleError(
            f"{file} holds something else than the weights of one network by name, so nothing can "
            f"begin with it. Give {ACCEPTED}."
        )
    return content, found


def translate_layout(file: Path, theirs: Weights) -> tuple[GeneratorSpec, Weights]:
    """Weights of a ResNet generator of the papers' PyTorch code, named as ours.

    Padding leaves no trace in weights; it is taken to be their default, reflection. So is dropout,
    which does nothing in prediction: only the numbers of the layers behind it tell of it.

    Args:
        file: for the message.
        theirs: the state dict.

    Raises:
        BundleError: it is of another network.
    """
    first = theirs.get("model.1.weight")
    blocks = {int(match[1]) for key in theirs if (match := BLOCK.match(key))}
    if first is None or not blocks:
        raise _other_layout(file, f"it holds {next(iter(theirs), 'nothing')}")
    norm: Norm = "batch" if "model.2.weight" in theirs else "instance"
    unused = ["num_batches_tracked"]
    if norm == "instance":
        unused += ["running_mean", "running_var"]  # of an older torch, which never looked at them
    dropout = SECOND_CONVOLUTION.format(DROPOUT + 1) not in theirs
    weights = {
        _our_name(key, blocks=len(blocks), dropout=dropout): value
        for key, value in theirs.items()
        if key.rsplit(".", 1)[-1] not in unused
    }
    spec = GeneratorSpec(width=len(first), blocks=len(blocks), norm=norm)
    outputs = weights.get("head.1.bias")
    with torch.device("meta"):
        ours = build_generator(spec, first.shape[1], 1 if outputs is None else len(outputs))
    expected = {key: value.shape for key, value in ours.state_dict().items()}
    found = {key: value.shape for key, value in weights.items()}
    for key in [*expected, *found]:
        if expected.get(key) != found.get(key):
            wanted, there = (_shape(shapes.get(key)) for shapes in (expected, found))
            raise _other_layout(file, f"{key} should be {wanted} there and is {there}")
    return spec, weights


def _our_name(key: str, *, blocks: int, dropout: bool) -> str:
    """What a tensor of theirs is called here; names of other layouts come back as they are."""
    if match := IN_BLOCK.fullmatch(key):
        number, layer, tensor = int(match[1]), int(match[2]), match[3]
        layer -= dropout and layer > DROPOUT
        return f"body.layers.{number}.change.layers.{layer}.{tensor}"
    if match := IN_ROW.fullmatch(key):
        number, tensor = int(match[1]), match[2]
        head = FIRST_BLOCK + blocks + AFTER_BLOCKS
        if number >= head:
            return f"head.{number - head}.{tensor}"
        return f"body.layers.{number}.{tensor}"
    return key


def _shape(shape: torch.Size | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape)) or "one number"


def _other_layout(file: Path, what: str) -> BundleError:
    return BundleError(
        f"{file} holds no ResNet generator in the layout of the CycleGAN and pix2pix authors' "
        f"PyTorch code ({what}), so nobody knows where its weights belong. Give {ACCEPTED}."
    )

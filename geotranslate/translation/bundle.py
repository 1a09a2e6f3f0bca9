"""A bundle: the folder, or zip of one, that holds everything `predict` needs.

``model.json`` says what the networks are, what their bands mean and what the weight files hash
to; ``g_ab-HASH.safetensors`` and, for models that learn both ways, ``g_ba-HASH.safetensors`` hold
weights. Their names change with their content, so a new model can be written beside the one that
``model.json`` still names, and takes over in one step when that file is replaced. Nothing in it
is unpickled, and nothing of a zip is unpacked onto the disk.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from geotranslate import __version__
from geotranslate.choices import Direction, ModelName
from geotranslate.errors import BundleError
from geotranslate.networks.build import Generator, GeneratorSpec, build_generator
from geotranslate.raster.domain import Domain
from geotranslate.raster.output import explained, write_bytes

RECORD_FILE = "model.json"

FOLDER = "model"
"""Name of the bundle inside a run folder."""

LAST = "model-last"
"""Name of the bundle there whose generators are those that were measured last."""

FILES = re.compile(r"model\.json|g_(ab|ba)-[0-9a-f]{8}\.safetensors")
"""What the files of a bundle are called."""

GeneratorName = Literal["g_ab", "g_ba"]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

GENERATOR_OF: dict[Direction, GeneratorName] = {"ab": "g_ab", "ba": "g_ba"}

ReadFile = Callable[[str], bytes]
"""The content of a bundle's file by its name; raises one of `MISSING` where there is none."""

# A zip raises RuntimeError for files with a password, zlib.error for damaged ones.
MISSING = (KeyError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)


class BundleRecord(BaseModel, frozen=True, extra="forbid"):
    """What ``model.json`` says."""

    version: Literal[1] = 1
    """Of this format."""

    made_by: str = f"geotranslate {__version__}"

    model: ModelName
    """The way of learning."""

    updates: int
    """Steps of the generator's optimizer after which these weights were taken."""

    generator: GeneratorSpec
    """The architecture of the generators; their bands are those of the domains."""

    domain_a: Domain
    domain_b: Domain

    chip_size: int
    """Side in pixels of the crops the generators learned from."""

    attribution: str = ""
    """Whom the data is owed to, and under which licence."""

    figures: dict[str, float] = Field(default_factory=dict)
    """How good the generators were on chips they did not learn from, by `metrics.FIGURES`."""

    weights: dict[GeneratorName, Sha256]
    """SHA-256 of each generator's weight file."""

    def weight_file(self, name: GeneratorName) -> str:
        """What a generator's weight file is called."""
        return f"{name}-{self.weights[name][:8]}.safetensors"


@dataclass(frozen=True)
class Translator:
    """One direction of a bundle.

    Attributes:
        generator: in evaluation mode, float32, on the CPU.
        source: what it takes.
        target: what it gives.
    """

    generator: Generator
    source: Domain
    target: Domain


@dataclass(frozen=True)
class Bundle:
    """A model that was read, checked and built.

    Attributes:
        record: what ``model.json`` says.
        generators: by name; in evaluation mode, float32, on the CPU.
        identity: changes when anything in the bundle does.
    """

    record: BundleRecord
    generators: Mapping[GeneratorName, Generator]
    identity: str

    @property
    def domain_a(self) -> Domain:
        """What ``g_ab`` takes."""
        return self.record.domain_a

    @property
    def domain_b(self) -> Domain:
        """What ``g_ab`` gives."""
        return self.record.domain_b

    def translator(self, direction: Direction = "ab") -> Translator:
        """The generator of a direction, with the domains it goes between.

        Raises:
            BundleError: the model did not learn that direction.
        """
        name = GENERATOR_OF[direction]
        if name not in self.generators:
            raise BundleError(
                f"this model was trained by {self.record.model} and translates from A to B only, "
                "so it has no way back. Say --direction ab, or train with --model cyclegan, which "
                "learns both."
            )
        domains = self.domain_a, self.domain_b
        source, target = domains if direction == "ab" else reversed(domains)
        return Translator(self.generators[name], source, target)


def save_bundle(
    folder: Path,
    generators: Mapping[str, nn.Module],
    *,
    model: ModelName,
    updates: int,
    generator: GeneratorSpec,
    domain_a: Domain,
    domain_b: Domain,
    chip_size: int,
    attribution: str = "",
    figures: Mapping[str, float] | None = None,
) -> BundleRecord:
    """Write a bundle, or put another model in its place.

    At every moment the folder holds all of one model, the older or the new one, once it holds any;
    who was reading the older one reads again (`load_bundle`). The bytes depend on the arguments
    alone.

    Args:
        folder: the bundle to be.
        generators: ``g_ab`` and, if there is one, ``g_ba``, of the architecture ``generator``.
        model: the way of learning.
        updates: after which the weights were taken.
        generator: the architecture.
        domain_a: what ``g_ab`` takes.
        domain_b: what ``g_ab`` gives.
        chip_size: side in pixels of the crops the generators learned from.
        attribution: whom the data is owed to.
        figures: measured on chips not learned from; those that are no finite number are left out.

    Raises:
        OutputError: the folder cannot be written.
    """
    weights = {
        name: _weight_bytes(generators[name])
        for name in GENERATOR_OF.values()
        if name in generators
    }
    record = BundleRecord(
        model=model,
        updates=updates,
        generator=generator,
        domain_a=domain_a,
        domain_b=domain_b,
        chip_size=chip_size,
        attribution=attribution,
        figures={k: float(v) for k, v in (figures or {}).items() if math.isfinite(v)},
        weights={name: _hash(content) for name, content in weights.items()},
    )
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in weights.items():
        write_bytes(folder / record.weight_file(name), content)
    write_bytes(folder / RECORD_FILE, record.model_dump_json(indent=1).encode() + b"\n")
    _remove_others(folder, record)
    return record


def _remove_others(folder: Path, record: BundleRecord) -> None:
    """Remove the weights of models that were here before."""
    named = {RECORD_FILE, *map(record.weight_file, record.weights)}
    for file in folder.iterdir():
        if file.name not in named and FILES.fullmatch(file.name.removesuffix(".part")):
            # Windows keeps a file that someone reads; the next model's turn to remove it.
            with suppress(OSError):
                file.unlink()


def load_bundle(path: Path) -> Bundle:
    """Read a bundle and build its generators.

    A run that is learning may replace its model meanwhile; then the new one is read.

    Args:
        path: a bundle's folder, a zip of one, or a run folder, which stands for the bundle in it.

    Raises:
        BundleError: it is none, a part is missing, was changed, or does not fit the rest.
    """
    read = _open(path)
    text = _read_record_text(path, read)
    try:
        return _load(path, text, read)
    except BundleError:
        newer = _read_record_text(path, read)
        if newer == text:
            raise
        return _load(path, newer, read)


def _load(path: Path, text: bytes, read: ReadFile) -> Bundle:
    """The bundle that a certain ``model.json`` describes."""
    record = _parse(path, text)
    generators = {}
    for name, expected in record.weights.items():
        content = _read_weights(path, record.weight_file(name), read)
        if _hash(content) != expected:
            raise BundleError(
                f"{record.weight_file(name)} of {path} is not the file that was written with its "
                f"{RECORD_FILE} (its SHA-256 differs), so nobody knows what it would translate "
                "to. Copy the whole bundle again from where it was made."
            )
        generators[name] = _build(path, record, name, content)
    return Bundle(record, generators, _hash(text))


def read_bundle_record(path: Path) -> BundleRecord:
    """What a bundle says about itself, without building its networks.

    Args:
        path: as for `load_bundle`.

    Raises:
        BundleError: there is no bundle, or not one that this version reads.
    """
    return _parse(path, _read_record_text(path, _open(path)))


def is_bundle(path: Path) -> bool:
    """Whether a path looks like a bundle or a run folder that holds one."""
    try:
        _read_record_text(path, _open(path))
    except BundleError:
        return False
    return True


def _open(path: Path) -> ReadFile:
    if path.is_dir():
        folder = path if (path / RECORD_FILE).exists() else path / FOLDER
        return lambda name: (folder / name).read_bytes()
    if path.is_file() and zipfile.is_zipfile(path):
        return lambda name: _read_zipped(path, name)
    problem = "is neither a folder nor a zip" if path.exists() else "does not exist"
    raise BundleError(
        f"{path} {problem}, so there is no model to use. Give a run folder, or a bundle: a folder "
        f"with {RECORD_FILE}, or the same zipped."
    )


def _read_zipped(path: Path, name: str) -> bytes:
    """A file of a zipped bundle, which lies at the zip's root or in the one folder there."""
    with zipfile.ZipFile(path) as archive:
        roots = [
            member[: -len(RECORD_FILE)]
            for member in archive.namelist()
            if member.endswith("/" + RECORD_FILE) or member == RECORD_FILE
        ]
        if not roots:
            raise KeyError(name)
        return archive.read(min(roots, key=len) + name)


def _read_record_text(path: Path, read: ReadFile) -> bytes:
    try:
        return read(RECORD_FILE)
    except MISSING as error:
        raise BundleError(
            f"{path} holds no {RECORD_FILE}, so it is no model bundle. Give a run folder whose "
            "training has written its first model (at the first checkpoint), or a bundle."
        ) from error


def _parse(path: Path, text: bytes) -> BundleRecord:
    try:
        version = json.loads(text)["version"]
        if version != 1:
            raise BundleError(
                f"{path} is a bundle of format {version}, and geotranslate {__version__} reads "
                "format 1. Use the version of geotranslate that made it, or a newer one."
            )
        return BundleRecord.model_validate_json(text)
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{RECORD_FILE} of {path} cannot be understood ({_first(error)}): it was damaged or "
            "edited. Copy the whole bundle again from where it was made."
        ) from error


def _read_weights(path: Path, file: str, read: ReadFile) -> bytes:
    try:
        return read(file)
    except MISSING as error:
        raise BundleError(
            f"{path} lacks {file}, which its {RECORD_FILE} names: without the "
            "weights nothing can be translated. Copy the whole bundle again from where it was "
            "made."
        ) from error


def _build(path: Path, record: BundleRecord, name: GeneratorName, content: bytes) -> Generator:
    source, target = record.domain_a, record.domain_b
    if name == "g_ba":
        source, target = target, source
    # The weights drawn here are replaced at once, so torch's random numbers are left as they were.
    with torch.random.fork_rng(devices=[]):
        generator = build_generator(record.generator, len(source.bands), len(target.bands))
    try:
        generator.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(
            f"{record.weight_file(name)} of {path} does not fit the {record.generator.kind} "
            f"generator of width {record.generator.width} that its {RECORD_FILE} describes "
            f"({_first(error)}). Copy the whole bundle again from where it was made."
        ) from error
    return generator.eval()


def _weight_bytes(network: nn.Module) -> bytes:
    # safetensors takes contiguous tensors only, and networks in training are channels-last.
    tensors: dict[str, Tensor] = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    return save(tensors)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(":.")

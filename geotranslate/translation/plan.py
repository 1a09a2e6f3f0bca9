"""Settings and chips brought together: what a run will do, checked before anything is written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geotranslate.chips.folder import ChipFolder, open_chips
from geotranslate.errors import ChipsError, SettingError
from geotranslate.networks.build import (
    DiscriminatorSpec,
    GeneratorSpec,
    build_discriminator,
    build_generator,
)
from geotranslate.raster.disk import spell_bytes
from geotranslate.translation.cache import cache_limit, chip_bytes
from geotranslate.translation.compiling import choose_compile
from geotranslate.translation.config import LARGEST_CROP, WITHOUT_EFFECT, TrainConfig
from geotranslate.translation.cyclegan import CycleGANConfig, shared_channels
from geotranslate.translation.kid import read_features
from geotranslate.translation.pix2pix import Pix2PixConfig
from geotranslate.translation.precision import Arithmetic, choose_arithmetic, choose_device
from geotranslate.translation.processes import (
    ALONE,
    Processes,
    choose_processes,
    require_shares,
)
from geotranslate.translation.starting_weights import Start, read_start

GPU_WORKERS = 4


@dataclass(frozen=True)
class Plan:
    """A run whose settings and chips were found to fit each other.

    Attributes:
        config: with nothing left open but device, workers, and whether to compile, which another
            machine may answer otherwise.
        folder: the chips.
        device: where to compute.
        arithmetic: of the convolutions.
        processes: that learn together, and which of them this is.
        start: what the generators begin with; None where they begin with random weights.
        compiled: whether the networks are.
        cache_bytes: memory that chips may fill once they were read.
        changed: settings that a run which was begun with other values may go on with.
    """

    config: TrainConfig
    folder: ChipFolder
    device: torch.device
    arithmetic: Arithmetic
    processes: Processes = ALONE
    start: Start | None = None
    compiled: bool = False
    cache_bytes: int = 0
    changed: frozenset[str] = frozenset()

    @property
    def crop(self) -> int:
        """Side of the crops in pixels."""
        assert self.config.crop is not None
        return self.config.crop

    @property
    def workers(self) -> int:
        """Processes that read ahead.

        Beside a CPU that computes they would only be in its way, and chips that all fit into memory
        need to be read but once.
        """
        if self.config.workers is not None:
            return self.config.workers
        fits = chip_bytes(self.folder) <= self.cache_bytes
        return 0 if self.device.type == "cpu" or fits else GPU_WORKERS

    @property
    def reading(self) -> str:
        """How chips are read, as a sentence."""
        needed, limit = chip_bytes(self.folder), self.cache_bytes
        chips = f"Chips: {spell_bytes(needed)}"
        if self.workers:
            return f"{chips}, read ahead by other processes ({self.workers})."
        share = "all" if needed <= limit else f"{limit / needed:.0%} of them"
        return f"{chips}, {share} kept in memory once read (limit {spell_bytes(limit)})."

    def work(self) -> dict[str, Any]:
        """What must be the same for a run to be continued, as JSON values."""
        settings = self.config.settings()
        work = {name: settings[name] for name in settings if name not in WITHOUT_EFFECT}
        if self.start is not None:
            work["init_from"] = self.start.sha256
        return work | {"chips": _fingerprint(self.folder)}

    @property
    def fingerprint(self) -> int:
        """A number of 56 bits that changes when the work does."""
        known = json.dumps(self.work(), sort_keys=True).encode()
        return int.from_bytes(hashlib.sha256(known).digest()[:7])


def plan_training(chips: Path, config: TrainConfig, *, start: Start | None = None) -> Plan:
    """Open the chips and settle what the configuration leaves open.

    Whatever can be refused is refused here, before a run folder is claimed.

    Args:
        chips: as `open_chips` takes it.
        config: the settings.
        start: what `init_from` stands for, where that is known already.

    Raises:
        SettingError: a setting cannot work with these chips.
        BundleError: there is no model to begin with where the configuration says.
        ChipsError: there are no chips for training, or no pairs for a model that needs them.
    """
    folder = open_chips(chips, seed=config.seed)
    if config.model == "pix2pix":
        folder.require_pairs()
    for domain in "ab":
        if not folder.files(domain, "train"):
            raise ChipsError(
                f"{chips} holds no chips of {domain.upper()} for training, so there is nothing to "
                "learn from. Cut them with a --split whose first number is not 0."
            )
    device = choose_device(config.device)
    processes = choose_processes(config.devices, config.nodes, device, name=config.device)
    require_shares(processes, config.batch, config.accumulate)
    device = processes.device(device)
    arithmetic = choose_arithmetic(config.precision, device)
    config = config.model_copy(
        update={"crop": _choose_crop(config, folder), "precision": arithmetic}
    )
    bands = len(folder.domain_a.bands), len(folder.domain_b.bands)
    compiled = choose_compile(
        config, generator_spec(config), bands, device, alone=processes.count == 1
    )
    losses = loss_config(config)
    if isinstance(losses, CycleGANConfig):
        shared_channels(losses, *bands)
    if config.kid_features is not None:
        features = Path(config.kid_features).resolve()
        read_features(features, len(folder.domain_b.bands))
        config = config.model_copy(update={"kid_features": str(features)})
    if config.init_from is not None:
        model = Path(config.init_from).resolve()
        config = config.model_copy(update={"init_from": str(model)})
        start = start or read_start(model, generator_spec(config))
    # Several processes of one machine share its memory.
    limit = cache_limit(config.cache_gb) // processes.per_machine
    return Plan(config, folder, device, arithmetic, processes, start, compiled, limit)


def _fingerprint(folder: ChipFolder) -> str:
    """What changes when other chips are learned from, wherever the folder lies."""
    known = hashlib.sha256()
    for domain, kind in (("a", folder.domain_a), ("b", folder.domain_b)):
        known.update(kind.model_dump_json().encode())
        for split in ("train", "val"):
            for file in folder.files(domain, split):
                name = file.relative_to(folder.path).as_posix()
                known.update(f"{domain} {split} {name} {file.stat().st_size}\n".encode())
    return known.hexdigest()


def generator_spec(config: TrainConfig) -> GeneratorSpec:
    """The architecture of each generator."""
    return GeneratorSpec(
        kind=config.generator,
        width=config.width,
        blocks=config.blocks,
        depth=config.depth,
        norm=config.norm,
        upsample=config.upsample,
    )


def discriminator_spec(config: TrainConfig) -> DiscriminatorSpec:
    """The architecture of each discriminator."""
    return DiscriminatorSpec(
        width=config.discriminator_width,
        layers=config.discriminator_layers,
        norm=config.discriminator_norm,
    )


def loss_config(config: TrainConfig) -> Pix2PixConfig | CycleGANConfig:
    """What the model strives for.

    Raises:
        SettingError: the shared bands are not spelled as pairs of numbers.
    """
    if config.model == "pix2pix":
        return Pix2PixConfig(
            gan_loss=config.gan_loss,
            judge=config.judge,
            l1=config.l1,
            pool_l2=config.pool_l2,
            learning_rate=config.learning_rate,
        )
    return CycleGANConfig(
        gan_loss=config.gan_loss,
        cycle=config.cycle,
        identity=config.identity,
        identity_bands=_parse_bands(config.identity_bands),
        image_pool=config.image_pool,
        learning_rate=config.learning_rate,
    )


def _parse_bands(text: str | None) -> tuple[tuple[int, int], ...] | None:
    if text is None:
        return None
    try:
        pairs = [tuple(map(int, pair.split("="))) for pair in text.split(",")]
        return tuple((a, b) for a, b in pairs)
    except ValueError:
        raise SettingError(
            f"identity_bands is {text!r}, which does not say which band of A is which of B. Write "
            "pairs of numbers from 1, such as 1=3,2=2,3=1."
        ) from None


def _choose_crop(config: TrainConfig, folder: ChipFolder) -> int:
    """The side of the crops: the given one, or the largest up to 256 px that networks take.

    Raises:
        SettingError: the given one, or the chips themselves, do not fit.
    """
    with torch.device("meta"):
        generator = build_generator(generator_spec(config), 1, 1)
        discriminator = build_discriminator(
            DiscriminatorSpec(layers=config.discriminator_layers, norm="none"), 1
        )
    stride = generator.stride
    smallest = max(generator.minimum_side, discriminator.minimum_side)
    smallest += -smallest % stride
    largest = folder.chip_size // stride * stride
    networks = f"the {config.generator} generator"
    if config.generator == "unet":
        networks += f" of depth {config.depth}"
    if largest < smallest:
        shallower = "choose a smaller --depth or " if config.generator == "unet" else "choose "
        raise SettingError(
            f"the chips are {folder.chip_size} px, but {networks} and its discriminator take sides "
            f"of {smallest} px and more, in multiples of {stride} px. Cut the scenes with --size "
            f"{smallest} or more, or {shallower}fewer --discriminator-layers."
        )
    if config.crop is None:
        return max(min(largest, LARGEST_CROP // stride * stride), smallest)
    if config.crop > folder.chip_size:
        raise SettingError(
            f"crop is {config.crop} px but the chips are {folder.chip_size} px, so no crop fits "
            f"into one. Choose a crop of at most {largest} px."
        )
    if config.crop % stride or config.crop < smallest:
        below = max(config.crop // stride * stride, smallest)
        above = below if below >= config.crop else min(below + stride, largest)
        choices = " or ".join(map(str, sorted({below, above})))
        raise SettingError(
            f"crop is {config.crop} px, but {networks} and its discriminator take sides of "
            f"{smallest} px and more, in multiples of {stride} px. Choose a crop of {choices} px."
        )
    return config.crop

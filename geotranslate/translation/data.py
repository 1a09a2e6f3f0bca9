"""From chips on disk to batches on the device.

All that is random in update ``u`` is a function of (seed, u, sample): which chips, where they
are cropped, how they are turned. So neither the number of workers nor an interruption changes
what a network sees. Chips travel to the device as they are stored; they are normalized, turned and
mirrored there.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from geotranslate.chips.file import ChipPixels, read_chip
from geotranslate.chips.folder import ChipFolder
from geotranslate.choices import Augment
from geotranslate.errors import GeotranslateError
from geotranslate.networks.turns import TURNS, turned
from geotranslate.raster.domain import Domain
from geotranslate.translation.batch import Batch
from geotranslate.translation.cache import ChipCache
from geotranslate.translation.plan import Plan

# What random numbers are for: part of their key, so that no two uses share them.
ORDER, PLACE, POOL = 0, 1, 2

AHEAD = 4
"""Batches that each worker reads ahead."""

ReadChip = Callable[[Path], ChipPixels]


class Stored(NamedTuple):
    """Images as their files hold them.

    Attributes:
        pixels: (N, bands, rows, cols), in the stored type.
        valid: (N, 1, rows, cols) bool; None where every pixel is.
        turns: how each image shall be turned on the device, from 0 to 7.
    """

    pixels: Tensor
    valid: Tensor | None
    turns: tuple[int, ...]


class StoredBatch(NamedTuple):
    """Images of A and as many of B, as their files hold them."""

    a: Stored
    b: Stored


class Draw(NamedTuple):
    """How one sample of an update is taken.

    Attributes:
        chip: its number in the list of files.
        row: where the crop starts, from 0 for the chip's first row to 1 for the last possible one.
        col: likewise.
        turn: how it is turned, from 0 to 7.
    """

    chip: int
    row: float
    col: float
    turn: int


def draw_sample(
    seed: int, domain: int, update: int, sample: int, *, batch: int, chips: int
) -> Draw:
    """What a sample of an update is. An epoch of ``chips`` samples takes each chip once.

    Args:
        seed: of the run.
        domain: 0 or 1, so that A and B are drawn on their own; pairs are drawn together, by 0.
        update: from 1.
        sample: from 0.
        batch: samples an update.
        chips: files to choose from.
    """
    epoch, place = divmod((update - 1) * batch + sample, chips)
    random = np.random.default_rng([seed, PLACE, domain, update, sample])
    row, col = random.random(2)
    return Draw(
        chip=int(_order(seed, domain, epoch, chips)[place]),
        row=float(row),
        col=float(col),
        turn=int(random.integers(TURNS)),
    )


@lru_cache(maxsize=8)
def _order(seed: int, domain: int, epoch: int, chips: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, ORDER, domain, epoch]).permutation(chips)


def draw_for_pools(seed: int, update: int, batch: int, numbers: int) -> NDArray[np.float64]:
    """The (batch, numbers) uniform numbers in [0, 1) by which the pools of an update decide."""
    return np.stack(
        [
            np.random.default_rng([seed, POOL, update, sample]).random(numbers)
            for sample in range(batch)
        ]
    )


def training_batches(
    plan: Plan, samples: range | None = None, cache: ChipCache | None = None
) -> TrainingBatches:
    """The batches that a plan's settings ask for.

    Args:
        plan: whose.
        samples: those of each batch to read; unset, all.
        cache: shared with others; unset, one of its own.
    """
    if cache is None and not plan.workers:  # each worker would fill its own memory
        cache = ChipCache(plan.cache_bytes)
    config = plan.config
    return TrainingBatches(
        plan.folder,
        paired=config.model == "pix2pix",
        crop=plan.crop,
        batch=config.batch,
        seed=config.seed,
        augment=config.augment,
        samples=samples,
        cache=cache,
    )


class TrainingBatches(Dataset[StoredBatch]):
    """The batch of each update, by the update's number. It can be sent to another process."""

    def __init__(
        self,
        folder: ChipFolder,
        *,
        paired: bool,
        crop: int,
        batch: int,
        seed: int,
        augment: Augment = "d4",
        samples: range | None = None,
        cache: ChipCache | None = None,
    ) -> None:
        """Choose what to read; nothing is read yet.

        Args:
            folder: whose training chips.
            paired: take chips of A and B together, each with the other's valid pixels and turns.
            crop: side of the images in pixels.
            batch: images of each domain an update.
            seed: of all draws.
            augment: whether images are turned and mirrored.
            samples: those of each batch to read, counted from 0; unset, all.
            cache: keeps what was read; without it, chips are read from their files each time.
        """
        self._files = folder.files("a", "train"), folder.files("b", "train")
        self._pairs = list(zip(*self._files, strict=True)) if paired else None
        self._crop, self._batch, self._seed = crop, batch, seed
        self._turning = augment == "d4"
        self._samples = range(batch) if samples is None else samples
        self._read = read_chip if cache is None else cache.read

    def __getitem__(self, update: int) -> StoredBatch:
        """The images of an update, counted from 1."""
        if self._pairs:
            return read_pairs(self._pairs, self._draws(update, 0), self._crop, self._read)
        return StoredBatch(self.images_of(0, update), self.images_of(1, update))

    def images_of(self, domain: int, update: int) -> Stored:
        """The images of an update that are of A (0) or B (1), each with its own valid pixels."""
        draws = self._draws(update, 0 if self._pairs else domain)
        return read_images(self._files[domain], draws, self._crop, self._read)

    def _draws(self, update: int, domain: int) -> list[Draw]:
        chips = len(self._files[domain])
        draws = [
            draw_sample(self._seed, domain, update, sample, batch=self._batch, chips=chips)
            for sample in self._samples
        ]
        return draws if self._turning else [draw._replace(turn=0) for draw in draws]


def read_images(
    files: Sequence[Path], draws: Sequence[Draw], crop: int, read: ReadChip = read_chip
) -> Stored:
    """Read the drawn chips of one domain, cropped to ``crop`` pixels a side."""
    return _stack([cut(read(files[draw.chip]), draw, crop) for draw in draws], draws)


def read_pairs(
    pairs: Sequence[tuple[Path, Path]],
    draws: Sequence[Draw],
    crop: int,
    read: ReadChip = read_chip,
) -> StoredBatch:
    """Read drawn pairs, cropped alike; valid is where both chips hold data."""
    chips_a, chips_b = [], []
    for draw in draws:
        a, b = (cut(read(file), draw, crop) for file in pairs[draw.chip])
        valid = a.valid & b.valid
        chips_a.append(ChipPixels(a.pixels, valid))
        chips_b.append(ChipPixels(b.pixels, valid))
    return StoredBatch(_stack(chips_a, draws), _stack(chips_b, draws))


def cut(chip: ChipPixels, draw: Draw, crop: int) -> ChipPixels:
    """The drawn square of ``crop`` pixels a side."""
    rows, cols = chip.valid.shape
    row, col = (
        min(int(share * (side - crop + 1)), side - crop)
        for share, side in ((draw.row, rows), (draw.col, cols))
    )
    place = slice(row, row + crop), slice(col, col + crop)
    return ChipPixels(chip.pixels[:, *place], chip.valid[place])


def _stack(chips: Sequence[ChipPixels], draws: Sequence[Draw]) -> Stored:
    valid = np.stack([chip.valid for chip in chips])[:, None]
    return Stored(
        pixels=torch.from_numpy(np.stack([chip.pixels for chip in chips])),
        valid=None if valid.all() else torch.from_numpy(valid),
        turns=tuple(draw.turn for draw in draws),
    )


class Preparation:
    """Brings stored images onto a device, into [-1, 1] and into the memory layout of networks."""

    def __init__(self, domain_a: Domain, domain_b: Domain, device: torch.device) -> None:
        self._device = device
        self._normalizations = [
            domain.normalization(lambda column: torch.from_numpy(column).to(device))
            for domain in (domain_a, domain_b)
        ]

    def __call__(self, stored: StoredBatch) -> Batch:
        """What a model learns from: invalid pixels are 0, images lie as they were drawn."""
        real_a, valid_a = self.images_of(0, stored.a)
        real_b, valid_b = self.images_of(1, stored.b)
        return Batch(real_a, real_b, valid_a, valid_b)

    def images_of(self, domain: int, stored: Stored) -> tuple[Tensor, Tensor | None]:
        """Images of A (0) or B (1) likewise, and where they are valid; None where all is."""
        # Apple's GPUs take neither float64 nor all of the integers.
        pixels = stored.pixels.float() if self._device.type == "mps" else stored.pixels
        pixels = pixels.to(self._device, non_blocking=True).float()
        images = _turned(self._normalizations[domain].forward(pixels), stored.turns)
        if stored.valid is None:
            return images.contiguous(memory_format=torch.channels_last), None
        valid = _turned(stored.valid.to(self._device, non_blocking=True), stored.turns)
        # Not a product: what lies under an invalid pixel may be NaN.
        images = torch.where(valid, images, 0.0)
        return images.contiguous(memory_format=torch.channels_last), valid.float()


def _turned(images: Tensor, turns: Sequence[int]) -> Tensor:
    if not any(turns):
        return images
    return torch.stack([turned(image, turn) for image, turn in zip(images, turns, strict=True)])


def load_batches(
    batches: TrainingBatches, updates: Sequence[int], *, workers: int, pin: bool
) -> Iterator[StoredBatch]:
    """The batches of updates in their order, read ahead by a thread or by other processes.

    Args:
        batches: where they come from.
        updates: their numbers.
        workers: processes that read; with 0 a thread of this one does.
        pin: put them into memory that a GPU can fetch from by itself.

    Raises:
        ChipsError: a chip is missing or damaged.
    """
    if not workers:
        yield from _read_ahead(batches, updates, pin=pin)
        return
    loader: DataLoader[StoredBatch | GeotranslateError] = DataLoader(
        _Carrier(batches),
        batch_size=None,
        sampler=updates,
        num_workers=workers,
        # Forked processes would inherit GDAL's and torch's threads in whatever state they are.
        multiprocessing_context="spawn",
        worker_init_fn=_leave_signals_to_parent,
        prefetch_factor=AHEAD,
        pin_memory=pin,
        # A loader draws a seed for its workers: not from the numbers that others rely on.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, GeotranslateError):
            raise batch
        yield batch


def _read_ahead(
    batches: TrainingBatches, updates: Sequence[int], *, pin: bool
) -> Iterator[StoredBatch]:
    """The batches of updates in their order, read by one thread while others are learned from."""

    def read(update: int) -> StoredBatch:
        batch = batches[update]
        return StoredBatch(*(_pinned(each) for each in batch)) if pin else batch

    with ThreadPoolExecutor(1, thread_name_prefix="chips") as reader:
        waiting: deque[Future[StoredBatch]] = deque()
        try:
            for update in updates:
                waiting.append(reader.submit(read, update))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _pinned(stored: Stored) -> Stored:
    """The same in memory that a GPU can fetch from by itself."""
    valid = None if stored.valid is None else stored.valid.pin_memory()
    return stored._replace(pixels=stored.pixels.pin_memory(), valid=valid)


class _Carrier(Dataset[StoredBatch | GeotranslateError]):
    """Carries errors home as values: raised in a worker, they would arrive as a traceback."""

    def __init__(self, batches: TrainingBatches) -> None:
        self._batches = batches

    def __getitem__(self, update: int) -> StoredBatch | GeotranslateError:
        try:
            return self._batches[update]
        except GeotranslateError as error:
            return error


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C, and often SIGTERM, goes to the whole group; a worker ends when its parent does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

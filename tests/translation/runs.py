"""What the tests of runs are made of: tiny settings, and what two runs have in common."""

import csv

import torch

from geotranslate.translation.config import TrainConfig

FOLDERS = {"pairs": ("images", "images2"), "heaps": ("A/images", "B/images")}
KIND = {"pix2pix": "pairs", "cyclegan": "heaps"}
TINY = {
    "width": 4,
    "blocks": 1,
    "discriminator_width": 4,
    "crop": 32,
    "updates": 4,
    "checkpoint_every": 1,
    "samples_every": 20,
    "device": "cpu",
    "precision": "float32",
}


def config(**settings):
    return TrainConfig(**TINY | settings)


def finish(steps):
    *_, last = steps
    return last


def same(one, other):
    """Whether two checkpoints hold the same, but for the clock."""
    if isinstance(one, dict):
        keys = one.keys() - {"seconds"}
        return keys == other.keys() - {"seconds"} and all(same(one[k], other[k]) for k in keys)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return one == other or (one != one and other != other)


def rows_without_time(run):
    with (run / "log.csv").open(newline="") as file:
        return [[*row[:1], *row[2:]] for row in csv.reader(file)]

"""How much of an optical image a radar image tells, whatever network looks at it.

    python benchmarks/told_by_radar.py DATA

The yardstick for the figures of docs/first-light.md: a small network without a discriminator learns
the mean colour of each 8 x 8 px cell from what the radar image looks like around it, and nothing
but this is measured. What it sees of a cell are the mean, spread and roughness of squares of
several sizes around it. DATA is the folder that holds volkov-s1s2-1024. Prints a table in Markdown:
decibels of PSNR after averaging over 8 x 8 px, above flat mean colour, on the five images of the
study, each beside what it would be if somebody told the mean colour of each of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import rasterio
import torch
from first_light import HELD_OUT, SCENE, print_table
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import nn
from torch.nn import functional

CELL = 8
SQUARES = {"8 px": (1,), "8 to 24 px": (1, 3), "8 to 120 px": (1, 3, 7, 15)}
"""Sides of the squares around a cell, in cells."""

BRIGHT = 180
SECOND_TILE = {"127", "142", "156", "168", "196", "208", "214", SCENE}
"""Images from Sentinel-2 tile T11SMT, whose values were scaled apart from those of T11SLT."""

EPOCHS, BATCH, WIDTH, SEEDS = 3, 2048, 64, (0, 1)

Numbers = NDArray[np.float32]
Images = Mapping[str, tuple[Numbers, Numbers]]


def read_images(data: Path) -> Images:
    """Radar (rows, cols) and optical image (3, rows, cols) of each place, 0 to 255."""
    folder = data / "volkov-s1s2-1024"
    files = {path.stem: (path, folder / "opt" / path.name) for path in folder.glob("sar/*.tif")}
    files[SCENE] = folder / SCENE / "sar.tif", folder / SCENE / "opt.tif"
    images = {}
    for name, (radar, optical) in sorted(files.items()):
        with rasterio.open(radar) as a, rasterio.open(optical) as b:
            images[name] = a.read(1).astype(np.float32), b.read().astype(np.float32)
    return images


def in_cells(image: Numbers) -> Numbers:
    """Means over cells."""
    rows, cols = (side // CELL for side in image.shape[-2:])
    squares = image[..., : rows * CELL, : cols * CELL].reshape(
        *image.shape[:-2], rows, CELL, cols, CELL
    )
    return np.asarray(squares.mean((-3, -1)))


def look(radar: Numbers, squares: Sequence[int]) -> Numbers:
    """What a cell and its surroundings look like: (rows, cols, features)."""
    steps = np.abs(np.diff(radar, axis=0, prepend=radar[:1]))
    steps += np.abs(np.diff(radar, axis=1, prepend=radar[:, :1]))
    bright = (radar > BRIGHT).astype(np.float32)
    mean, square, rough, bright = map(in_cells, (radar, radar**2, steps, bright))
    features = []
    for side in squares:
        middle, power, cells, rougher, brighter = (
            uniform_filter(each, side, mode="reflect")
            for each in (mean, square, mean**2, rough, bright)
        )
        spread = np.sqrt(np.maximum(power - middle**2, 0))
        spread_of_cells = np.sqrt(np.maximum(cells - middle**2, 0))
        features += [middle, spread, spread_of_cells, rougher, brighter]
    return np.stack(features, axis=-1)


def learn(seen: Numbers, colours: Numbers, seed: int) -> nn.Module:
    """A network from features (N, F) to colours (N, 3)."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Linear(seen.shape[1], WIDTH), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(0.2), nn.Linear(WIDTH, 3)),
    )
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-4)
    inputs, targets = torch.from_numpy(seen), torch.from_numpy(colours)
    updates = EPOCHS * (len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, updates)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(inputs))[: updates // EPOCHS * BATCH].split(BATCH):
            loss = functional.mse_loss(network(inputs[chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def psnr(image: Numbers, truth: Numbers) -> float:
    """Of values from 0 to 1."""
    return float(-10 * np.log10(np.mean((image - truth) ** 2)))


def study(images: Images, squares: Sequence[int], seed: int, *, tile: bool) -> list[float]:
    """Decibels above flat mean colour for each image held out; their mean; that with means told."""
    held_out = (*HELD_OUT, SCENE)
    truths = {n: in_cells(optical).transpose(1, 2, 0) / 255 for n, (_, optical) in images.items()}
    looks = {}
    for name, (radar, _) in images.items():
        seen = look(radar, squares)
        in_second = np.full((*seen.shape[:2], 1), name in SECOND_TILE, np.float32)
        looks[name] = np.concatenate([seen, in_second], axis=2) if tile else seen
    known = [name for name in images if name not in held_out]
    seen, colours = (
        np.concatenate([each[name].reshape(-1, each[name].shape[-1]) for name in known])
        for each in (looks, truths)
    )
    middle, spread = seen.mean(0), seen.std(0) + 1e-6
    flat = colours.mean(0)
    network = learn((seen - middle) / spread, colours - flat, seed)
    gains, told = [], []
    for name in held_out:
        with torch.inference_mode():
            guess = network(torch.from_numpy((looks[name] - middle) / spread)).numpy() + flat
        truth = truths[name]
        baseline = psnr(flat, truth)
        gains.append(psnr(guess, truth) - baseline)
        told.append(psnr(guess - guess.mean((0, 1)) + truth.mean((0, 1)), truth) - baseline)
    return [*gains, float(np.mean(gains)), float(np.mean(told))]


def main() -> None:
    """Print the table."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("data", type=Path)
    images = read_images(words.parse_args().data)
    rows = []
    for (title, squares), tile, seed in product(SQUARES.items(), (False, True), SEEDS):
        figures = study(images, squares, seed, tile=tile)
        tells = "and which Sentinel-2 tile" if tile else ""
        rows.append((f"{title} {tells}".strip(), str(seed), *(f"{each:+.2f}" for each in figures)))
    print_table(("sees", "seed", *HELD_OUT, SCENE, "mean", "mean colours told"), rows)


if __name__ == "__main__":
    main()

"""What KID sees: real optical images, spoilt in known ways, in floors.

    python benchmarks/kid.py DATA

DATA is the folder that holds volkov-s1s2-1024. From each of its 28 optical images one square of
256 px is taken. A floor is what KID is between halves of these, by chance. Spoilt images are
compared with the same places, as in a run with pairs; other squares of the same images as in one
without. It prints a table in Markdown, and what KID costs beside the rest of a validation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.raster.scene import open_scene
from geotranslate.translation.kid import distances, read_features
from geotranslate.translation.metrics import ValueRange, measure

SIDE = 256
Images = NDArray[np.float64]
"""(images, bands, rows, cols) in [-1, 1]; the full range of 8 bits is 2 wide."""


def blur(sigma: float) -> Callable[[Images], Images]:
    return lambda images: gaussian_filter(images, (0, 0, sigma, sigma), mode="mirror")


def noise(share: float) -> Callable[[Images], Images]:
    random = np.random.default_rng(0)
    return lambda images: images + random.normal(0, 2 * share, images.shape)


def contrast(factor: float) -> Callable[[Images], Images]:
    def change(images: Images) -> Images:
        mean = images.mean((2, 3), keepdims=True)
        return mean + factor * (images - mean)

    return change


def cells(side: int) -> Callable[[Images], Images]:
    def change(images: Images) -> Images:
        count, bands, rows, cols = images.shape
        means = images.reshape(count, bands, rows // side, side, cols // side, side).mean((3, 5))
        return means.repeat(side, 2).repeat(side, 3)

    return change


def flat(images: Images) -> Images:
    return np.broadcast_to(images.mean((0, 2, 3), keepdims=True), images.shape)


SPOILT: Mapping[str, Callable[[Images], Images]] = {
    "nothing": lambda images: images,
    "blur of 0.5 px": blur(0.5),
    "blur of 1 px": blur(1),
    "blur of 2 px": blur(2),
    "noise of 5 % of the range": noise(0.05),
    "noise of 10 %": noise(0.1),
    "brighter by 5 %": lambda images: images + 0.1,
    "contrast x 0.7": contrast(0.7),
    "one colour for each 8 x 8 px": cells(8),
    "flat mean colour": flat,
    "red and blue exchanged": lambda images: images[:, ::-1],
    "dark and bright exchanged": lambda images: -images,
}


def squares(files: list[Path], row: int, col: int) -> Images:
    """The same square of each image."""
    place = Window(col_off=col, row_off=row, width=SIDE, height=SIDE)
    pixels = []
    for file in files:
        with open_scene(file) as scene:
            pixels.append(scene.read(place).pixels)
    return np.stack(pixels) / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data / "volkov-s1s2-1024"
    files = sorted((folder / "opt").glob("*.tif"))
    looks = read_features(None, 3)

    def described(images: Images) -> NDArray[np.float64]:
        pixels = torch.from_numpy(np.clip(images, -1, 1).astype(np.float32))
        return torch.cat([looks(each) for each in pixels.split(1)]).double().numpy()

    images = squares(files, 0, 0)
    real = described(images)
    _, floor = distances(real, real, same_places=True)
    rows = {
        name: distances(described(spoil(images)), real, same_places=True)[0]
        for name, spoil in SPOILT.items()
    }
    radar = squares([folder / "sar" / file.name for file in files], 0, 0).repeat(3, axis=1)
    rows["the radar image as grey"] = distances(described(radar), real, same_places=True)[0]
    other = described(squares(files, 512, 512))
    rows["other squares of the same images"] = distances(other, real, same_places=False)[0]

    print(f"{len(images)} images of {SIDE} px; the floor is {floor:.3f}\n")
    print("| what was done to real images | KID | in floors |\n|---|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.3f} | {value / floor:.1f} |")
    print_cost(images, described)


def print_cost(images: Images, described: Callable[[Images], Any]) -> None:
    """Say what one image costs: its features, its other figures, its translation."""
    full, pixels = ValueRange((0.0,) * 3, (255.0,) * 3), 127.5 * (images[0] + 1)
    valid = np.ones((SIDE, SIDE), bool)
    generator, batch = build_generator(GeneratorSpec(), 1, 3).eval(), torch.zeros(1, 1, SIDE, SIDE)
    with torch.no_grad():
        works = {
            "its features": lambda: described(images[:1]),
            "PSNR, SSIM and the like": lambda: measure(pixels, pixels[:, ::-1], valid, full),
            "its translation by a ResNet-9 of width 64": lambda: generator(batch),
        }
        print("\nSeconds of a core for an image:")
        for name, work in works.items():
            work()
            start = time.process_time()
            work()
            print(f"* {name}: {time.process_time() - start:.3f}")


if __name__ == "__main__":
    main()

"""The pictures of docs/seams.md, from made-up data: one network, one scene, cut in several ways.

    python benchmarks/seam_pictures.py OUT PICTURE.jpg

A network with instance norm learns on the sample's radar scene; the held-out one is then translated
in windows of 128 px, as each mode of ``predict`` does it, and in one window. Above are the
translations, below what differs from the one window of the mode. Stopped, the same words go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from first_light import exhaust
from numpy.typing import NDArray
from PIL import Image

from geotranslate.chips.config import TileConfig
from geotranslate.chips.plan import plan_tiles
from geotranslate.chips.tile import tile_scenes
from geotranslate.demo import COLORS, find_sample
from geotranslate.raster.pictures import choose_stretch, write_grid
from geotranslate.raster.scene import Chip, open_scene
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.predict import predict_scenes
from geotranslate.translation.predict_config import PredictConfig
from geotranslate.translation.train import train

CUT, WHOLE = 128, 512
"""Cores of the cut, and the one that holds the scene whole."""

MODES: dict[str, dict[str, Any]] = {
    "--seams tile": {"seams": "tile"},
    "--seams tile --blend hann": {"seams": "tile", "blend": "hann"},
    "--seams scene": {"seams": "scene"},
    "--seams dense": {"seams": "dense"},
}

MAGNIFIED = 4
"""How much stronger differences are shown than the translations."""


def learn(out: Path, sample: dict[str, Path], updates: int) -> Path:
    """A run with instance norm on the sample's training scenes."""
    chips, run = out / "chips", out / "run"
    cutting = TileConfig(
        a=(str(sample["train_sar"]),),
        b=(str(sample["train_optical"]),),
        bands_b=COLORS,
        size=128,
        stride=64,
        split=(0.9, 0.1, 0),
    )
    exhaust(tile_scenes(plan_tiles(cutting), chips))
    config = TrainConfig(
        norm="instance", upsample="resize", width=24, blocks=4, crop=128, updates=updates
    )
    exhaust(train(chips, run, config))
    return run


def translate(run: Path, scene: Path, output: Path, size: int, words: dict[str, Any]) -> Chip:
    """The scene through the run's generator in windows of one size."""
    config = PredictConfig(size=size, precision="float32", **words)
    exhaust(predict_scenes(run, [scene], output, config))
    with open_scene(output) as translated:
        return translated.read(translated.grid.whole)


def draw(run: Path, scene: Path, out: Path, picture: Path) -> None:
    """All modes side by side, with their differences below."""
    cut, apart = {}, {}
    for title, words in MODES.items():
        name = title.replace("--", "").replace(" ", "-")
        cut[title] = translate(run, scene, out / f"{name}-cut.tif", CUT, words)
        one = {key: value for key, value in words.items() if key != "blend"}
        whole = translate(run, scene, out / f"{name}-whole.tif", WHOLE, one)
        apart[title] = cut[title].pixels.astype(float) - whole.pixels
        share = np.abs(apart[title]).mean() / whole.pixels[:, whole.valid].std()
        print(f"{title}: differs by {share:.2g} of the standard deviation")
    with open_scene(out / "seams-scene-whole.tif") as translated:
        look = choose_stretch(translated.bands, [(c.pixels, c.valid) for c in cut.values()])
    middle = np.add(look.high, look.low)[:, None, None] / 2

    def difference(values: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        return look.paint(values * MAGNIFIED + middle, valid)

    sheet = out / "sheet.png"
    write_grid(
        sheet,
        list(MODES),
        [
            [look.paint(chip.pixels, chip.valid) for chip in cut.values()],
            [difference(apart[title], cut[title].valid) for title in MODES],
        ],
    )
    Image.open(sheet).save(picture, quality=88)


def main() -> None:
    """Learn, translate, draw."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("out", type=Path)
    words.add_argument("picture", type=Path)
    words.add_argument("--updates", type=int, default=600)
    chosen = words.parse_args()
    sample = find_sample(chosen.out / "data")
    run = learn(chosen.out, sample, chosen.updates)
    draw(run, sample["heldout_sar"], chosen.out, chosen.picture)


if __name__ == "__main__":
    main()

"""The main job on made-up data: what radar sees of a landscape, turned into colour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import geotranslate
from geotranslate.chips.config import TileConfig
from geotranslate.chips.plan import plan_tiles
from geotranslate.chips.tile import tile_scenes
from geotranslate.raster.mosaic import mosaic_rasters
from geotranslate.raster.pictures import choose_stretch, write_grid
from geotranslate.raster.scene import open_scene
from geotranslate.raster.warp import WarpedScenes
from geotranslate.sample.files import make_sample, sample_paths
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.evaluate import Report, evaluate, write_report
from geotranslate.translation.predict import predict_scenes
from geotranslate.translation.train import train

COLORS = "R,G,B"
OVERLAP = 40
"""Pixels by which the two predicted halves of the scene overlap, for the mosaic to blend."""

DECISIVE = "psnr8"
"""The figure in which the model must beat both baselines."""


@dataclass(frozen=True)
class Stage:
    """One step of the demo, while it goes on.

    Attributes:
        name: what is being done.
        command: the command that does the same.
        done: share of the step, from 0 to 1.
    """

    name: str
    command: str
    done: float


@dataclass(frozen=True)
class Demo:
    """The files of a demo, and how well its model did.

    Attributes:
        picture: SAR, translation and truth of the part that was not trained on, side by side.
        translated: the georeferenced raster.
        report: figures of the model and of the baselines, which know the training part only.
    """

    picture: Path
    translated: Path
    report: Report

    @property
    def beaten(self) -> dict[str, float]:
        """By how many dB the model is better than each baseline in the decisive figure."""
        figures = {name: getattr(f, DECISIVE) for name, f in self.report.summary().items()}
        model = figures.pop("prediction")
        return {name: model - value for name, value in figures.items()}


def find_sample(folder: Path) -> dict[str, Path]:
    """The sample data of a checkout; where there is none, the same data made in ``folder``."""
    beside_the_package = Path(geotranslate.__file__).parents[1] / "sample_data"
    for place in (Path("sample_data"), beside_the_package, folder):
        paths = sample_paths(place)
        if all(path.exists() for path in paths.values()):
            return paths
    return make_sample(folder)


def run_demo(folder: Path, *, updates: int = 500, seed: int = 0) -> Iterator[Stage | Demo]:
    """Tile, train, predict, mosaic and evaluate; interrupted, it goes on where it was.

    Args:
        folder: for all that comes of it.
        updates: steps of training.
        seed: of the training.

    Yields:
        Stages as they go on, and at last the demo.
    """
    data = find_sample(folder / "data")
    chips, run, halves = folder / "chips", folder / "run", folder / "halves"
    sar, optical = data["heldout_sar"], data["heldout_optical"]
    translated = folder / "translated.tif"

    cutting = TileConfig(
        a=(str(data["train_sar"]),),
        b=(str(data["train_optical"]),),
        bands_b=COLORS,
        size=128,
        stride=64,
        split=(0.9, 0.1, 0),
        seed=seed,
    )
    words = f"tile --a {data['train_sar']} --b {data['train_optical']} --bands-b {COLORS}"
    cut = Stage("Cutting chips", f"{words} --size 128 --split 0.9,0.1,0 -o {chips}", 0)
    yield cut
    for _ in tile_scenes(plan_tiles(cutting), chips):
        pass

    learning = TrainConfig(width=24, blocks=4, updates=updates, crop=96, seed=seed)
    words = f"train {chips} --width 24 --blocks 4 --crop 96 --updates {updates} -o {run}"
    for step in train(chips, run, learning):
        yield Stage("Training", words, step.update / step.updates)

    yield Stage("Translating", f"predict {run} {sar} -o {translated}", 0)
    parts = []
    for side, bounds in _halves(sar).items():
        parts.append(halves / f"{side}.tif")
        for _ in predict_scenes(run, [sar], parts[-1], bounds=bounds):
            pass
    yield Stage("Joining", f"mosaic {halves} -o {translated}", 0)
    for _ in mosaic_rasters(parts, translated):
        pass

    yield Stage("Measuring", f"evaluate {translated} {optical} --bands {COLORS} --source {sar}", 0)
    report = evaluate(
        translated,
        optical,
        source=sar,
        bands=COLORS,
        fit_truth=chips / "images2",
        fit_source=chips / "images",
    )
    write_report(report, folder / "report.json")
    picture = folder / "demo.png"
    draw_side_by_side(picture, sar, translated, optical)
    yield Demo(picture, translated, report)


def draw_side_by_side(picture: Path, source: Path, translated: Path, truth: Path) -> None:
    """Write a PNG of a scene, its translation and the truth, all on the translation's grid."""
    with (
        open_scene(translated) as shown,
        open_scene(source) as given,
        open_scene(truth, bands=[band.name for band in shown.bands]) as real,
    ):
        whole = shown.grid.whole
        chips = {
            "SAR": (given.bands, WarpedScenes([given], shown.grid).read(whole)),
            "translated": (shown.bands, shown.read(whole)),
            "true": (real.bands, WarpedScenes([real], shown.grid).read(whole)),
        }
    valid = chips["translated"][1].valid
    looks = {
        title: choose_stretch(bands, [(chip.pixels, chip.valid & valid)])
        for title, (bands, chip) in chips.items()
    }
    # What is made is shown as what is real, so that a wrong colour looks wrong.
    looks["translated"] = looks["true"]
    images = [looks[t].paint(chip.pixels, chip.valid & valid) for t, (_, chip) in chips.items()]
    write_grid(picture, list(chips), [images])


def _halves(scene: Path) -> dict[str, tuple[float, float, float, float]]:
    """Bounds of the western and the eastern half of a scene, overlapping in the middle."""
    with open_scene(scene) as opened:
        left, bottom, right, top = opened.grid.bounds
        pixel = opened.grid.resolution[0]
    middle = left + pixel * float(np.floor((right - left) / pixel / 2))
    rim = OVERLAP / 2 * pixel
    return {
        "west": (left, bottom, middle + rim, top),
        "east": (middle - rim, bottom, right, top),
    }

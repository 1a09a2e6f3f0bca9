"""The main job on made-up data: what radar sees of a landscape, turned into colour."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from geotranslate.report.page import write_report as write_run_report
from geotranslate.sample.files import make_sample, sample_paths
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.evaluate import Report, evaluate, write_report
from geotranslate.translation.evaluate_config import EvaluateConfig
from geotranslate.translation.predict import predict_scenes
from geotranslate.translation.predict_config import PredictConfig
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


@dataclass(frozen=True)
class _Work:
    """What goes into a demo, and where what comes of it lies.

    Attributes:
        data: the sample's files by name.
        folder: for all that comes of it.
        overwrite: start over, whatever is there.
    """

    data: dict[str, Path]
    folder: Path
    overwrite: bool

    @property
    def chips(self) -> Path:
        """The folder of chips."""
        return self.folder / "chips"

    @property
    def run(self) -> Path:
        """The folder of the training."""
        return self.folder / "run"

    @property
    def halves(self) -> Path:
        """The folder of the translation's two halves."""
        return self.folder / "halves"

    @property
    def translated(self) -> Path:
        """Both halves joined."""
        return self.folder / "translated.tif"


def run_demo(
    folder: Path, *, updates: int = 500, seed: int = 0, overwrite: bool = False
) -> Iterator[Stage | Demo]:
    """Tile, train, predict, mosaic and evaluate; interrupted, it goes on where it was.

    Args:
        folder: for all that comes of it.
        updates: steps of training.
        seed: of the training.
        overwrite: start over, whatever is there.

    Yields:
        Stages as they go on, and at last the demo.
    """
    work = _Work(find_sample(folder / "data"), folder, overwrite)
    yield from _cut(work, seed)
    yield from _learn(work, updates, seed)
    yield from _translate(work)
    yield from _join(work)
    yield from _measure(work)


def _cut(work: _Work, seed: int) -> Iterator[Stage]:
    sar, optical = str(work.data["train_sar"]), str(work.data["train_optical"])
    settings = TileConfig(
        a=(sar,), b=(optical,), bands_b=COLORS, size=128, stride=64, split=(0.9, 0.1, 0), seed=seed
    )
    words = ["tile", "--a", sar, "--b", optical, "--bands-b", COLORS, "--size", "128"]
    yield _stage("Cutting chips", *words, "--split", "0.9,0.1,0", "-o", work.chips)
    for _ in tile_scenes(plan_tiles(settings), work.chips, overwrite=work.overwrite):
        pass


def _learn(work: _Work, updates: int, seed: int) -> Iterator[Stage]:
    settings = TrainConfig(width=24, blocks=4, updates=updates, crop=96, seed=seed)
    words = ["--width", "24", "--blocks", "4", "--crop", "96", "--updates", str(updates)]
    stage = _stage("Training", "train", work.chips, *words, "-o", work.run)
    for step in train(work.chips, work.run, settings, overwrite=work.overwrite):
        yield replace(stage, done=step.update / step.updates)
    write_run_report(work.run)


def _translate(work: _Work) -> Iterator[Stage]:
    scene = work.data["heldout_sar"]
    yield _stage("Translating", "predict", work.run, scene, "-o", work.translated)
    for side, bounds in _halves(scene).items():
        half = work.halves / f"{side}.tif"
        for _ in predict_scenes(
            work.run, [scene], half, PredictConfig(bounds=bounds), overwrite=work.overwrite
        ):
            pass


def _join(work: _Work) -> Iterator[Stage]:
    yield _stage("Joining", "mosaic", work.halves, "-o", work.translated)
    for _ in mosaic_rasters([work.halves], work.translated, overwrite=work.overwrite):
        pass


def _measure(work: _Work) -> Iterator[Stage | Demo]:
    source, truth = work.data["heldout_sar"], work.data["heldout_optical"]
    asked = "--bands", COLORS, "--source", source
    yield _stage("Measuring", "evaluate", work.translated, truth, *asked)
    config = EvaluateConfig(
        predicted=str(work.translated),
        truth=str(truth),
        source=str(source),
        bands=COLORS,
        fit_truth=str(work.chips / "images2"),
        fit_source=str(work.chips / "images"),
    )
    report = evaluate(config)
    write_report(report, work.folder / "report.json")
    picture = work.folder / "demo.png"
    draw_side_by_side(picture, source, work.translated, truth)
    yield Demo(picture, work.translated, report)


def _stage(name: str, *words: str | Path) -> Stage:
    """A stage at its start, with its command as a shell takes it."""
    return Stage(name, shlex.join(map(str, words)), 0)


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

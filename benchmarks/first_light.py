"""The figures of docs/first-light.md: real Sentinel data, from scenes to measured translations.

    python benchmarks/first_light.py DATA OUT sar-to-rgb [--updates N]
    python benchmarks/first_light.py DATA OUT unpaired [--updates N]
    python benchmarks/first_light.py DATA OUT multispectral [--updates N]

DATA is the folder that holds volkov-s1s2-1024 and terramesh-examples. Interrupted, the same words
go on. It prints tables in Markdown and writes OUT/NAME.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio.shutil

from geotranslate.chips.config import TileConfig
from geotranslate.chips.plan import plan_tiles
from geotranslate.chips.tile import tile_scenes
from geotranslate.demo import draw_side_by_side
from geotranslate.translation.bundle import load_bundle
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.data import Preparation
from geotranslate.translation.evaluate import Report, evaluate
from geotranslate.translation.evaluate_config import EvaluateConfig
from geotranslate.translation.metrics import Figures
from geotranslate.translation.models import build_model
from geotranslate.translation.plan import (
    discriminator_spec,
    generator_spec,
    loss_config,
    plan_training,
)
from geotranslate.translation.predict import predict_scenes
from geotranslate.translation.predict_config import PredictConfig
from geotranslate.translation.show import Show
from geotranslate.translation.train import train
from geotranslate.translation.validation import measure_generators

HELD_OUT = ("014", "142", "156", "168")
SCENE = "scene_3072"
FIGURES = ("psnr", "psnr8", "ssim", "color_bias", "contrast", "sharpness", "corr8")
ATTRIBUTION = "Contains modified Copernicus Sentinel data 2020; dataset of the GitHub user VolkovVl"


def sar_to_rgb(data: Path, out: Path, updates: int) -> None:
    """Pix2Pix, ResNet-6 width 32, 4 x 128 px an update; five images nobody trained on."""
    chips, run = out / "chips", out / "sar-to-rgb"
    tile_volkov(data, chips)
    config = TrainConfig(
        blocks=6,
        width=32,
        upsample="resize",
        discriminator_width=32,
        batch=4,
        crop=128,
        updates=updates,
        pool_l2=100,
        checkpoint_every=updates // 20,
        attribution=ATTRIBUTION,
    )
    seconds = learn(chips, run, config)
    show(
        compare(data, out, run, chips),
        out / "sar-to-rgb.json",
        title=f"Pix2Pix, {updates} updates, {seconds / 60:.0f} min",
    )


def unpaired(data: Path, out: Path, updates: int) -> None:
    """CycleGAN on the same chips without their pairs, ResNet-6 width 32, 1 x 128 px an update."""
    chips, run = out / "chips", out / "unpaired"
    tile_volkov(data, chips)
    config = TrainConfig(
        model="cyclegan",
        blocks=6,
        width=32,
        batch=1,
        crop=128,
        updates=updates,
        attribution=ATTRIBUTION,
    )
    seconds = learn(chips, run, config)
    show(
        compare(data, out, run, chips),
        out / "unpaired.json",
        title=f"CycleGAN, {updates} updates, {seconds / 60:.0f} min",
    )
    before, after = cycle_errors(data, out, config, run)
    print(
        f"\nCycle error on chips of the images held out: {before:.3f} untrained, {after:.3f} after"
    )
    back = out / "unpaired-back"
    optical = [data / "volkov-s1s2-1024" / "opt" / f"{name}.tif" for name in HELD_OUT]
    exhaust(predict_scenes(run, optical, back, PredictConfig(direction="ba")))
    truth = link(optical_to_sar(data), out / "truth-back")
    report = evaluate(EvaluateConfig(predicted=str(back), truth=str(truth)))
    print("\nThe way back, RGB to SAR:\n")
    print_images(report)


def multispectral(data: Path, out: Path, updates: int) -> None:
    """Two SAR bands to twelve optical bands: three places to learn from, one to measure."""
    folder = data / "terramesh-examples"
    places = sorted(path.name for path in (folder / "S1RTC").glob("*.tif"))
    held_out, known = places[0], places[1:]
    chips, run = out / "multispectral-chips", out / "multispectral"
    config = TileConfig(
        a=tuple(str(folder / "S1RTC" / name) for name in known),
        b=tuple(str(folder / "S2L2A" / name) for name in known),
        size=128,
        stride=32,
        split=(1, 0, 0),
    )
    exhaust(tile_scenes(plan_tiles(config), chips))
    seconds = learn(
        chips,
        run,
        TrainConfig(
            blocks=6,
            width=32,
            batch=4,
            crop=128,
            updates=updates,
            attribution="TerraMesh, CC-BY-SA-4.0; contains modified Copernicus Sentinel data",
        ),
    )
    predicted = out / "multispectral-predicted"
    exhaust(predict_scenes(run, [folder / "S1RTC" / held_out], predicted))
    measuring = EvaluateConfig(
        predicted=str(predicted / held_out),
        truth=str(folder / "S2L2A" / held_out),
        source=str(folder / "S1RTC" / held_out),
        fit_truth=str(chips / "images2"),
        fit_source=str(chips / "images"),
    )
    report = evaluate(measuring)
    print(f"\n2 > 12 bands, {updates} updates, {seconds / 60:.0f} min, held out: {held_out}\n")
    print_summary(report.summary(), ("psnr", "psnr8", "sam", "ergas", "contrast", "corr8"))
    write_json(report, out / "multispectral.json")


def tile_volkov(data: Path, chips: Path) -> None:
    """Pairs of all images but those held out, a tenth of them for choosing the checkpoint."""
    folder = data / "volkov-s1s2-1024"
    known = sorted(
        path.name for path in (folder / "sar").glob("*.tif") if path.stem not in HELD_OUT
    )
    config = TileConfig(
        a=tuple(str(folder / "sar" / name) for name in known),
        b=tuple(str(folder / "opt" / name) for name in known),
        split=(0.9, 0.1, 0),
    )
    exhaust(tile_scenes(plan_tiles(config), chips))


def learn(chips: Path, run: Path, config: TrainConfig) -> float:
    """Train, saying now and then how far it is; seconds taken by this call."""
    start = time.monotonic()
    for step in train(chips, run, config):
        if step.update % 100 == 0:
            losses = "  ".join(f"{name} {value:.3f}" for name, value in step.losses.items())
            print(f"{step.update}/{step.updates}  {losses}", flush=True)
    return time.monotonic() - start


def compare(data: Path, out: Path, run: Path, chips: Path) -> Report:
    """Translate the images held out and measure them; baselines know the training chips."""
    sar = {name: data / "volkov-s1s2-1024" / "sar" / f"{name}.tif" for name in HELD_OUT}
    opt = {name: data / "volkov-s1s2-1024" / "opt" / f"{name}.tif" for name in HELD_OUT}
    sar[SCENE] = data / "volkov-s1s2-1024" / SCENE / "sar.tif"
    opt[SCENE] = data / "volkov-s1s2-1024" / SCENE / "opt.tif"
    sources, truths = link(sar, out / "sources"), link(opt, out / "truths")
    predicted, pictures = out / f"{run.name}-predicted", out / f"{run.name}-pictures"
    pictures.mkdir(exist_ok=True)
    for name in sar:
        target = predicted / f"{name}.tif"
        exhaust(predict_scenes(run, [sar[name]], target))
        draw_side_by_side(pictures / f"{name}.png", sar[name], target, opt[name])
    measuring = EvaluateConfig(
        predicted=str(predicted),
        truth=str(truths),
        source=str(sources),
        fit_truth=str(chips / "images2"),
        fit_source=str(chips / "images"),
    )
    report = evaluate(measuring)
    return replace(report, images=tuple(sorted(report.images, key=lambda i: i.files.name)))


def cycle_errors(data: Path, out: Path, config: TrainConfig, run: Path) -> tuple[float, float]:
    """Mean distance in [-1, 1] there and back, both ways added: of the untrained, of the model."""
    folder, chips = data / "volkov-s1s2-1024", out / "held-out-chips"
    cutting = TileConfig(
        a=tuple(str(folder / "sar" / f"{name}.tif") for name in HELD_OUT),
        b=tuple(str(folder / "opt" / f"{name}.tif") for name in HELD_OUT),
        stride=256,
        split=(1, 0, 0),
    )
    exhaust(tile_scenes(plan_tiles(cutting), chips))
    plan = plan_training(chips, config)
    model = build_model(
        loss_config(config),
        generator_spec(config),
        discriminator_spec(config),
        bands_a=1,
        bands_b=3,
        seed=config.seed,
    )
    bundle = load_bundle(run)
    for network in (*model.networks.values(), *bundle.generators.values()):
        network.to(plan.device)
    prepare = Preparation(bundle.domain_a, bundle.domain_b, plan.device)
    show = Show(plan.folder, "train", plan.folder.chip_size, prepare)
    before = measure_generators(model, model.generators, show).figures["cycle"]
    after = measure_generators(model, bundle.generators, show).figures["cycle"]
    return before, after


def optical_to_sar(data: Path) -> Mapping[str, Path]:
    """The true SAR image of each optical image held out."""
    return {name: data / "volkov-s1s2-1024" / "sar" / f"{name}.tif" for name in HELD_OUT}


def link(files: Mapping[str, Path], folder: Path) -> Path:
    """A folder in which virtual rasters give files other names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        rasterio.shutil.copy(path, folder / f"{name}.vrt", driver="VRT")
    return folder


def show(report: Report, output: Path, *, title: str) -> None:
    """Print a report as Markdown and keep it."""
    print(f"\n{title}, on {platform.processor() or platform.machine()}\n")
    print_images(report)
    print("\nMeans over the images:\n")
    print_summary(report.summary(), FIGURES)
    print("\nMedians over the images:\n")
    print_summary(report.summary(np.median), FIGURES)
    write_json(report, output)


def print_images(report: Report) -> None:
    """A row for each image with the model's figures."""
    print_table(
        ("image", *FIGURES),
        (
            (image.files.name, *row(image.accuracy.candidates["prediction"], FIGURES))
            for image in report.images
            if image.accuracy
        ),
    )


def print_summary(summary: Mapping[str, Figures], names: Iterable[str]) -> None:
    """A row for the model and for each baseline."""
    names = tuple(names)
    print_table(("", *names), ((who, *row(values, names)) for who, values in summary.items()))


def row(figures: Figures, names: Iterable[str]) -> list[str]:
    """Figures by name, as text."""
    return [f"{getattr(figures, name):.3f}" for name in names]


def print_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table in Markdown."""
    head = tuple(head)
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


def write_json(report: Report, output: Path) -> None:
    """Keep all figures."""
    output.write_text(json.dumps(report.to_dict(), indent=1))


def exhaust(steps: Iterable[object]) -> None:
    """Run a job to its end."""
    for _ in steps:
        pass


STUDIES = {"sar-to-rgb": sar_to_rgb, "unpaired": unpaired, "multispectral": multispectral}
UPDATES = {"sar-to-rgb": 8000, "unpaired": 1500, "multispectral": 600}


def main() -> None:
    """Run one study."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("data", type=Path)
    words.add_argument("out", type=Path)
    words.add_argument("study", choices=STUDIES)
    words.add_argument("--updates", type=int)
    words.add_argument("--fresh", action="store_true", help="forget what is in OUT")
    chosen = words.parse_args()
    if chosen.fresh:
        shutil.rmtree(chosen.out, ignore_errors=True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    STUDIES[chosen.study](chosen.data, chosen.out, chosen.updates or UPDATES[chosen.study])


if __name__ == "__main__":
    main()

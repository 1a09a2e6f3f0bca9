"""Which norm a generator should have: the figures of docs/seams.md, on real Sentinel data.

    python benchmarks/norms.py DATA OUT [--tier cpu|gpu|cost] [--minutes N]

DATA is the folder that holds volkov-s1s2-1024. Each norm learns the same from the same crops; then
the images held out are translated in windows of 256 px and in one window, in each way that the norm
allows. Whatever is finished is kept in OUT: stopped, or out of minutes, the same words go on.
It prints tables in Markdown and writes OUT/norms.json. Of the tier ``cost``, which learns nothing,
only ``seconds`` means something: what translating the images takes in windows of 256 px, with the
networks of the tier ``cpu``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from first_light import HELD_OUT, exhaust, learn, link, print_table, tile_volkov

from geotranslate.choices import NORMS, SEAMS
from geotranslate.raster.line_sums import Lines
from geotranslate.raster.seams import measure_mismatch, measure_seams
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.evaluate import evaluate
from geotranslate.translation.evaluate_config import EvaluateConfig
from geotranslate.translation.predict import predict_scenes
from geotranslate.translation.predict_config import PredictConfig

WINDOW, WHOLE = 256, 1024
"""Cores that a scene is usually cut into here, and the one that holds an image whole."""

FIGURES = ("psnr", "psnr8", "color_bias", "contrast", "sharpness", "corr8")


@dataclass(frozen=True)
class Tier:
    """How much is learned; CycleGAN is left out where that is nothing."""

    blocks: int
    width: int
    crop: int
    updates: int
    cyclegan_updates: int
    seeds: tuple[int, ...]


TIERS = {
    "cpu": Tier(6, 32, 128, 1200, 1500, (0, 1)),
    "gpu": Tier(9, 64, 256, 6000, 6000, (0, 1, 2)),
    "cost": Tier(6, 32, 128, 1, 0, (0,)),
}


@dataclass(frozen=True)
class Study:
    """Where the data lies, where results go, how much is learned."""

    data: Path
    out: Path
    tier: Tier

    def config(self, model: str, norm: str, seed: int) -> TrainConfig:
        """The same for all norms; crops are turned, so that each sees all it can."""
        paired = model == "pix2pix"
        return TrainConfig(
            model=model,
            norm=norm,
            seed=seed,
            blocks=self.tier.blocks,
            width=self.tier.width,
            crop=self.tier.crop,
            updates=self.tier.updates if paired else self.tier.cyclegan_updates,
        )

    def measure(self, model: str, norm: str, seed: int) -> Iterator[dict[str, Any]]:
        """Train, and translate in each way that the norm allows; a row of figures for each."""
        name = f"{model}-{norm}-{seed}"
        learn(self.out / "chips", self.out / name, self.config(model, norm, seed))
        for seams in SEAMS if norm == "instance" else (None,):
            folder = self.out / "-".join(filter(None, (name, seams)))
            words = {"model": model, "norm": norm, "seed": seed, "seams": seams}
            yield words | self.translate(self.out / name, folder, seams)

    def translate(self, run: Path, folder: Path, seams: str | None) -> dict[str, Any]:
        """Figures of one way of translating, means over the images held out."""
        sar = [self.data / "volkov-s1s2-1024" / "sar" / f"{name}.tif" for name in HELD_OUT]
        cut, whole = folder / "cut", folder / "whole"
        start = time.monotonic()
        exhaust(predict_scenes(run, sar, cut, PredictConfig(size=WINDOW, seams=seams)))
        seconds = time.monotonic() - start
        exhaust(predict_scenes(run, sar, whole, PredictConfig(size=WHOLE, seams=seams)))
        report = evaluate(EvaluateConfig(predicted=cut, truth=self.truths()))
        lines = Lines(WINDOW)
        apart = [measure_mismatch(cut / path.name, whole / path.name, lines) for path in sar]
        seen = [measure_seams(cut / path.name, WINDOW) for path in sar]
        means = report.summary()["prediction"]
        return {
            **{name: getattr(means, name) for name in FIGURES},
            "gradient_ratio": float(
                np.mean([[b.vertical, b.horizontal] for each in apart for b in each.bands])
            ),
            "mismatch": float(np.mean([each.share for each in apart])),
            "score": max(
                figures.gradient.score
                for each in seen
                for band in each.bands
                for _, figures in band.directions()
            ),
            "seconds": seconds,
        }

    def truths(self) -> Path:
        """A folder of the true images held out."""
        opt = self.data / "volkov-s1s2-1024" / "opt"
        return link({name: opt / f"{name}.tif" for name in HELD_OUT}, self.out / "truths")


def run(study: Study, minutes: float) -> list[dict[str, Any]]:
    """All rows there are; none is begun after so many minutes."""
    end = time.monotonic() + 60 * minutes
    path = study.out / "norms.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    pairs = (("pix2pix", norm, seed) for seed in study.tier.seeds for norm in NORMS)
    unpaired = (("cyclegan", norm, 0) for norm in ("instance", None) if study.tier.cyclegan_updates)
    for model, norm, seed in (*pairs, *unpaired):
        norm = norm or winner(rows)
        if any((r["model"], r["norm"], r["seed"]) == (model, norm, seed) for r in rows):
            continue
        if time.monotonic() > end:
            print("\nOut of minutes: run it again to go on.")
            break
        print(f"\n{model}, {norm}, seed {seed}", flush=True)
        rows += study.measure(model, norm, seed)
        path.write_text(json.dumps(rows, indent=1))
    return rows


def winner(rows: Iterable[Mapping[str, Any]]) -> str:
    """The norm whose pix2pix translations, in the default way, have the highest mean PSNR.

    The mean is over full size and 8 x 8 px means, over seeds, as in the score that a run keeps its
    best weights by.
    """
    by_norm: dict[str, list[float]] = {}
    for row in rows:
        if row["model"] == "pix2pix" and row["seams"] in (None, "scene"):
            by_norm.setdefault(row["norm"], []).append((row["psnr"] + row["psnr8"]) / 2)
    return max(by_norm, key=lambda norm: float(np.mean(by_norm[norm])))


def show(rows: Iterable[Mapping[str, Any]]) -> None:
    """A line for each model, norm and way: the mean over the seeds, and half their span."""
    names = (*FIGURES, "gradient_ratio", "mismatch", "score", "seconds")
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["norm"], row["seams"] or ""), []).append(row)
    print()
    print_table(
        ("model", "norm", "--seams", "seeds", *names),
        (
            (*group, str(len(each)), *(spell([row[name] for row in each]) for name in names))
            for group, each in groups.items()
        ),
    )


def spell(values: list[float]) -> str:
    """The mean, and half the span where there are several."""
    mean, half = np.mean(values), (max(values) - min(values)) / 2
    return f"{mean:.3g}" if len(values) == 1 else f"{mean:.4g} ± {half:.2g}"


def main() -> None:
    """Run the study, or go on with it."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("data", type=Path)
    words.add_argument("out", type=Path)
    words.add_argument("--tier", choices=TIERS, default="cpu")
    words.add_argument("--minutes", type=float, default=100)
    chosen = words.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    tile_volkov(chosen.data, chosen.out / "chips")
    show(run(Study(chosen.data, chosen.out, TIERS[chosen.tier]), chosen.minutes))


if __name__ == "__main__":
    main()

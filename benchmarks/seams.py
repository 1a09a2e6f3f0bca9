"""Whether a result depends on how a scene is cut: the bars and tables of docs/seams.md.

    python benchmarks/seams.py DATA OUT resnet [--side 3072] [--updates N]
    python benchmarks/seams.py DATA OUT unet [--side 1536] [--updates N]

DATA is the folder that holds volkov-s1s2-1024. Small networks learn for a minute on a few images,
then translate the middle of a scene that they have not seen, cut in several ways, and each cut is
held against the translation in one window:

* resnet: batch norm, and instance norm in all modes, in cores of 256 and 1,024 px; of all but
  ``tile``, the tile mismatch has to be 1e-4 at most and the gradient ratio within 0.005 of 1
* unet: depths 7 and 8, whose halos are 256 and 512 px, with each blend: what remains visible
  where a core is read with less than its halo, and what reading all of it costs

Learned networks are kept in OUT: the same words translate again. It prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rasterio
from first_light import HELD_OUT, exhaust, learn, print_table
from rasterio.windows import Window

from geotranslate.chips.config import TileConfig
from geotranslate.chips.plan import plan_tiles
from geotranslate.chips.tile import tile_scenes
from geotranslate.choices import PredictBlend, Seams
from geotranslate.raster.cores import core_step
from geotranslate.raster.line_sums import Lines
from geotranslate.raster.seams import measure_mismatch
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.predict import predict_scenes
from geotranslate.translation.predict_config import PredictConfig

IMAGES = 8
"""Of 1,024 px, which networks learn from."""

CORES = 256, 1024
DEEP_CORES = 256, 512

MOST_MISMATCH, MOST_OFF = 1e-4, 0.005
"""Bars: tile mismatch, and distance of the gradient ratio from 1."""


@dataclass(frozen=True)
class Cut:
    """One way of translating with a run, whose generator has a stride."""

    run: Path
    size: int
    seams: Seams | None = None
    blend: PredictBlend = "crop"
    stride: int = 4

    @property
    def exact(self) -> bool:
        """Whether the result may not depend on the cut."""
        return self.seams != "tile" and self.blend == "crop"

    @property
    def lines(self) -> Lines:
        """Where cores meet, or begin to fade."""
        if self.blend == "crop":
            return Lines(self.size)
        return Lines(core_step(self.size, stride=self.stride))

    @property
    def config(self) -> PredictConfig:
        """In the words of `predict`."""
        return PredictConfig(size=self.size, seams=self.seams, blend=self.blend)


@dataclass(frozen=True)
class Place:
    """Where the scene lies, where results go, how much is learned."""

    out: Path
    scene: Path
    side: int
    updates: int

    def learned(self, name: str, config: TrainConfig) -> Path:
        """The run of that name, trained now if it is not there."""
        run = self.out / name
        learn(self.out / "chips", run, config)
        return run

    def translate(self, cut: Cut) -> tuple[Path, float]:
        """The scene as it comes out, and the seconds that took."""
        words = filter(None, (cut.run.name, cut.seams, cut.blend, str(cut.size)))
        output = self.out / f"{'-'.join(words)}-of-{self.side}.tif"
        start = time.monotonic()
        exhaust(predict_scenes(cut.run, [self.scene], output, cut.config, overwrite=True))
        return output, time.monotonic() - start

    def rows(self, cuts: list[Cut]) -> Iterator[tuple[Cut, float, list[float], float]]:
        """Of each cut the tile mismatch, the gradient ratios, and the seconds."""
        whole: dict[tuple[Path, Seams | None], Path] = {}
        for cut in cuts:
            key = cut.run, cut.seams
            if key not in whole:
                whole[key], _ = self.translate(Cut(cut.run, self.side, cut.seams))
            output, seconds = self.translate(cut)
            apart = measure_mismatch(output, whole[key], cut.lines)
            ratios = [ratio for band in apart.bands for ratio in (band.vertical, band.horizontal)]
            yield cut, apart.share, [ratio for ratio in ratios if ratio is not None], seconds


def resnet(place: Place) -> None:
    """The bars: whatever the norm, in two sizes of cores."""
    cuts = []
    for norm, modes in (("batch", (None,)), ("instance", ("tile", "scene", "dense"))):
        config = TrainConfig(
            norm=norm, blocks=6, width=16, discriminator_width=16, batch=4, crop=128,
            updates=place.updates, samples_every=place.updates,
        )  # fmt: skip
        run = place.learned(f"resnet-{norm}-{place.updates}", config)
        cuts += [Cut(run, size, seams) for seams in modes for size in CORES if size < place.side]
    show(place, cuts)


def unet(place: Place) -> None:
    """What remains visible where less is read than the halo, beside what all of it costs."""
    cuts = []
    for depth in (7, 8):
        config = TrainConfig(
            generator="unet", norm="batch", depth=depth, width=8, discriminator_width=8, batch=1,
            crop=256, updates=place.updates, samples_every=place.updates,
        )  # fmt: skip
        run = place.learned(f"unet-{depth}-{place.updates}", config)
        cuts += [
            Cut(run, size, None, blend, stride=2**depth)
            for blend in ("crop", "linear", "hann")
            for size in DEEP_CORES
            # Blended cores are two strides wide at least.
            if size < place.side and (blend == "crop" or size >= 2 * 2**depth)
        ]
    show(place, cuts)


def show(place: Place, cuts: list[Cut]) -> None:
    """A line for each cut, and whether the bars are kept."""
    lines, worst, farthest = [], 0.0, 0.0
    for cut, mismatch, ratios, seconds in place.rows(cuts):
        if cut.exact:
            worst = max(worst, mismatch)
            farthest = max(farthest, *(abs(ratio - 1) for ratio in ratios))
        lines.append(
            (
                *(cut.run.name, cut.seams or "", cut.blend, str(cut.size)),
                f"{mismatch:.2g}",
                f"{min(ratios):.3f} to {max(ratios):.3f}",
                f"{seconds:.1f}",
            )
        )
    print(f"\n{place.side:,} x {place.side:,} px of a real scene:\n")
    print_table(
        ("network", "--seams", "--blend", "cores", "tile mismatch", "gradient ratio", "seconds"),
        lines,
    )
    print()
    for what, found, bar in (
        ("tile mismatch", worst, MOST_MISMATCH),
        ("gradient ratio off 1 by", farthest, MOST_OFF),
    ):
        told = "kept" if found <= bar else "MISSED"
        print(f"With crop and without tile, {what} {found:.2g} at most; bar {bar:g}: {told}.")


def tile_few(data: Path, chips: Path) -> None:
    """Pairs of a few images, none of them held out elsewhere."""
    folder = data / "volkov-s1s2-1024"
    known = sorted(
        path.name for path in (folder / "sar").glob("*.tif") if path.stem not in HELD_OUT
    )[:IMAGES]
    config = TileConfig(
        a=tuple(str(folder / "sar" / name) for name in known),
        b=tuple(str(folder / "opt" / name) for name in known),
        size=256,
        stride=256,
        split=(0.9, 0.1, 0),
    )
    exhaust(tile_scenes(plan_tiles(config), chips))


def cut_middle(data: Path, side: int, path: Path) -> None:
    """The middle of the scene that no network learned from."""
    with rasterio.open(data / "volkov-s1s2-1024" / "scene_3072" / "sar.tif") as file:
        start = (file.width - side) // 2
        window = Window(col_off=start, row_off=start, width=side, height=side)
        profile = file.profile | {
            "width": side,
            "height": side,
            "transform": file.window_transform(window),
        }
        with rasterio.open(path, "w", **profile) as cut:
            cut.write(file.read(window=window))
            cut.descriptions = file.descriptions


STUDIES = {"resnet": resnet, "unet": unet}
SIDES = {"resnet": 3072, "unet": 1536}


def main() -> None:
    """Learn, translate in all ways, compare."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("data", type=Path)
    words.add_argument("out", type=Path)
    words.add_argument("study", choices=STUDIES)
    words.add_argument("--side", type=int, help="pixels of the scene's middle along an edge")
    words.add_argument("--updates", type=int, default=150)
    chosen = words.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    tile_few(chosen.data, chosen.out / "chips")
    side = chosen.side or SIDES[chosen.study]
    scene = chosen.out / f"scene-{side}.tif"
    cut_middle(chosen.data, side, scene)
    STUDIES[chosen.study](Place(chosen.out, scene, side, chosen.updates))


if __name__ == "__main__":
    main()

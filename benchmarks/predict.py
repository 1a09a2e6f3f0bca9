"""How fast `predict` is, in what memory, and how much shows where windows meet.

    python benchmarks/predict.py [DATA] [--quick] [--norm batch|instance] [--whole]

DATA is the folder that holds volkov-s1s2-1024; without it the scene is made up. Contenders
translate the same scene with the same untrained ResNet (9 blocks, width 64; in --quick 3 blocks,
width 16), in turn, each in a process of its own, on all cores:

* ours: `predict` with its defaults
* monai: `sliding_window_inference` of windows of 256 px that overlap by a quarter, gaussian
  weights, between a read and a write of the whole raster (`pip install geotranslate[bench]`)
* loop: windows of 256 px side by side, read and written one by one

and then what the whole command adds to its network, and what our way of computing gains at equal
windows. It prints tables in Markdown: medians, and ratios to ours. --whole takes all of the real
scene, 3,072 px, not a cut of 1,024.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from torch import Tensor, nn

from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.networks.context import PLAIN, Chain
from geotranslate.networks.fold import fold
from geotranslate.networks.norms import BatchNorm, InstanceNorm
from geotranslate.raster.domain import Band, Domain
from geotranslate.raster.seams import measure_seams
from geotranslate.translation.bundle import load_bundle, save_bundle
from geotranslate.translation.precision import choose_arithmetic, choose_device, computing
from geotranslate.translation.predict import predict_scenes
from geotranslate.translation.predict_config import PredictConfig

WINDOW = 256
MONAI_STEP = 192
REPEATS = 3
EQUAL_WINDOW = 512


def domain(names: Sequence[str]) -> Domain:
    return Domain(
        bands=tuple(Band(name=name) for name in names),
        dtype="uint8",
        resolution_m=(10.0, 10.0),
        low=(0.0,) * len(names),
        high=(255.0,) * len(names),
    )


SAR, RGB = domain(["VH"]), domain(["red", "green", "blue"])


# ------------------------------------------------------------------------------- what is measured


def make_work(folder: Path, data: Path | None, *, norm: str, quick: bool, whole: bool) -> None:
    """A scene and a model."""
    spec = GeneratorSpec(
        kind="resnet", width=16 if quick else 64, blocks=3 if quick else 9, norm=norm
    )
    torch.manual_seed(0)
    generator = build_generator(spec, 1, 3)
    for weight in generator.parameters():
        if weight.ndim > 1:
            nn.init.xavier_normal_(weight)  # strong enough that windows differ
    save_bundle(
        folder / "model",
        {"g_ab": generator},
        model="cyclegan",
        updates=0,
        generator=spec,
        domain_a=SAR,
        domain_b=RGB,
        chip_size=WINDOW,
    )
    pixels, profile = made_scene() if data is None else real_scene(data, whole=whole)
    with rasterio.open(folder / "scene.tif", "w", **profile) as file:
        file.write(pixels)
        file.descriptions = ("VH",)


def made_scene(side: int = 768) -> tuple[np.ndarray, dict[str, Any]]:
    """Speckle whose level changes over the scene."""
    rows, cols = np.indices((side, side)) / side
    level = 40 + 60 * np.sin(3 * rows + 5 * cols) ** 2
    pixels = np.random.default_rng(0).gamma(4, level / 4).clip(0, 255).astype(np.uint8)[None]
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 4_000_000)
    return pixels, profile_of(pixels, crs="EPSG:32633", transform=transform)


def real_scene(data: Path, *, whole: bool) -> tuple[np.ndarray, dict[str, Any]]:
    """The real scene, or the cut in its middle."""
    with rasterio.open(data / "volkov-s1s2-1024" / "scene_3072" / "sar.tif") as file:
        side = file.width if whole else 1024
        start = (file.width - side) // 2
        window = Window(col_off=start, row_off=start, width=side, height=side)
        pixels = file.read(window=window)
        transform = file.window_transform(window)
        return pixels, profile_of(pixels, crs=file.crs, transform=transform)


def profile_of(pixels: np.ndarray, **where: Any) -> dict[str, Any]:
    count, height, width = pixels.shape
    shape = {"count": count, "height": height, "width": width, "dtype": "uint8"}
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    return {"driver": "GTiff", **shape, **blocks, **where}


# ---------------------------------------------------------------------------------- the contenders


def ours(work: Path, output: Path) -> None:
    for _ in predict_scenes(work / "model", [work / "scene.tif"], output):
        pass


def monai(work: Path, output: Path) -> None:
    from monai.inferers import sliding_window_inference

    generator, device = generator_of(work), choose_device()
    with rasterio.open(work / "scene.tif") as file:
        pixels, profile = file.read(), file.profile | {"count": 3}
    values = torch.from_numpy(pixels).float()[None] / 127.5 - 1
    with torch.inference_mode():
        translated = sliding_window_inference(
            values.to(device),
            roi_size=WINDOW,
            sw_batch_size=4,
            predictor=generator.to(device),
            overlap=1 - MONAI_STEP / WINDOW,
            mode="gaussian",
        )
    with rasterio.open(output, "w", **profile) as file:
        file.write(to_uint8(translated)[0])


def loop(work: Path, output: Path) -> None:
    device = choose_device()
    generator = generator_of(work).to(device)
    with (
        torch.inference_mode(),
        rasterio.open(work / "scene.tif") as scene,
        rasterio.open(output, "w", **scene.profile | {"count": 3}) as file,
    ):
        for _, window in scene.block_windows(1):
            values = torch.from_numpy(scene.read(window=window)).float()[None] / 127.5 - 1
            file.write(to_uint8(generator(values.to(device)))[0], window=window)


CONTENDERS: dict[str, Callable[[Path, Path], None]] = {"ours": ours, "monai": monai, "loop": loop}
PERIODS = {"ours": 1024, "monai": MONAI_STEP, "loop": WINDOW}


def generator_of(work: Path) -> nn.Module:
    return load_bundle(work / "model").translator().generator


def to_uint8(values: Tensor) -> np.ndarray:
    return ((values + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()


def run_one(name: str, work: Path, output: Path) -> dict[str, float]:
    """Seconds from the scene's file to the output's, and the process's peak memory."""
    if name == "monai":
        import monai.inferers  # noqa: F401 - imports are nobody's speed
    start = time.perf_counter()
    CONTENDERS[name](work, output)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Not getrusage: on Linux a process inherits the peak of the one that started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1e3


def compare(work: Path, repeats: int) -> None:
    """All contenders in turn, each time in a process of its own."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for number in range(repeats):
        for name, found in results.items():
            output = work / f"{name}{number}.tif"
            command = [sys.executable, __file__, "--contender", name, work, output]
            done = subprocess.run(
                list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
    with rasterio.open(work / "scene.tif") as scene:
        pixels = scene.width * scene.height
    base = median(run["seconds"] for run in results["ours"])
    print("| | seconds | pixels a second | time / ours | peak MB | worst seam score |")
    print("|---|---|---|---|---|---|")
    for name, found in results.items():
        seconds = median(run["seconds"] for run in found)
        peak = median(run["peak_mb"] for run in found)
        score = worst_seam(work / f"{name}0.tif", PERIODS[name])
        print(
            f"| {name} | {seconds:.1f} | {pixels / seconds:,.0f} | {seconds / base:.2f} | "
            f"{peak:,.0f} | {score} |"
        )


def worst_seam(path: Path, period: int) -> str:
    """The highest score of any band and direction; docs/evaluate.md says what it means."""
    with rasterio.open(path) as file:
        if period >= max(file.shape):
            return "one window"
    figures = [each for band in measure_seams(path, period).bands for _, each in band.directions()]
    return f"{max(max(each.gradient.score, each.step.score) for each in figures):.1f}"


# -------------------------------------------------------------------------------------- the bars


def whole_command(work: Path, repeats: int) -> None:
    """What reading, writing and all the rest add to the network."""
    device = choose_device()
    arithmetic = choose_arithmetic("auto", device)
    generator = network_as_we_run_it(generator_of(work), device)
    windows = windows_of(work, generator_of(work).halo)
    bare, whole = [], []
    for number in range(repeats):
        start = time.perf_counter()
        with torch.inference_mode(), computing(arithmetic, device):
            for window in windows:
                generator(window.to(device), PLAIN).cpu()
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        config = PredictConfig(seams="tile" if has_instance_norm(work) else None)
        list(
            predict_scenes(
                work / "model", [work / "scene.tif"], work / f"whole{number}.tif", config
            )
        )
        whole.append(time.perf_counter() - start)
    print(
        f"\nNetwork alone {median(bare):.2f} s, whole command {median(whole):.2f} s: "
        f"{median(bare) / median(whole):.2f} of the network's throughput ({arithmetic}).\n"
    )


def windows_of(work: Path, halo: int, size: int = 1024) -> list[Tensor]:
    """The windows that `predict` reads of the scene, in [-1, 1]."""
    with rasterio.open(work / "scene.tif") as file:
        pixels = file.read()
    mirrored = np.pad(pixels, ((0, 0), (halo, halo), (halo, halo)), mode="reflect")
    values = torch.from_numpy(mirrored).float()[None] / 127.5 - 1
    rows, cols = pixels.shape[1:]
    return [
        values[
            ...,
            row : min(row + size, rows) + 2 * halo,
            col : min(col + size, cols) + 2 * halo,
        ].contiguous(memory_format=torch.channels_last)
        for row in range(0, rows, size)
        for col in range(0, cols, size)
    ]


def network_as_we_run_it(generator: nn.Module, device: torch.device) -> nn.Module:
    return fold(generator).to(device).to(memory_format=torch.channels_last)


def has_instance_norm(work: Path) -> bool:
    return any(isinstance(part, InstanceNorm) for part in generator_of(work).modules())


def equal_windows(work: Path, repeats: int, side: int) -> None:
    """Our way of computing against the plain one, both with one window of one size."""
    device = choose_device()
    values = windows_of(work, halo=0)[0][..., :side, :side].contiguous().to(device)
    plain = plain_network(generator_of(work)).to(device)
    fast = network_as_we_run_it(generator_of(work), device)
    ways: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: plain(values, PLAIN),
        "float32": lambda: fast(values.contiguous(memory_format=torch.channels_last), PLAIN),
        "bf16": lambda: in_bf16(fast, values, device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, translate in ways.items():
                start = time.perf_counter()
                translate().cpu()
                seconds[name].append(time.perf_counter() - start)
    base = median(seconds["plain"][1:])
    print(f"One window of {side} px in memory; plain is eager, float32, contiguous, torch's norms.")
    print("\n| | seconds | plain / it |")
    print("|---|---|---|")
    for name, found in seconds.items():
        print(f"| {name} | {median(found[1:]):.2f} | {base / median(found[1:]):.2f} |")


def in_bf16(generator: nn.Module, values: Tensor, device: torch.device) -> Tensor:
    with computing("bf16", device):
        translated: Tensor = generator(values.contiguous(memory_format=torch.channels_last), PLAIN)
    return translated


class Plain(nn.Module):
    """A norm of torch's own, where ours takes a context."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (N, C, h, w)."""
        normalized: Tensor = self.norm(x)
        return normalized


def plain_network(generator: nn.Module) -> nn.Module:
    """The generator with torch's own norms, as published code has it."""
    for chain in [part for part in generator.modules() if isinstance(part, Chain)]:
        for index, layer in enumerate(chain.layers):
            if isinstance(layer, InstanceNorm):
                chain.layers[index] = Plain(nn.InstanceNorm2d(len(layer.one)))
            elif isinstance(layer, BatchNorm):
                norm = nn.BatchNorm2d(len(layer.weight))
                norm.load_state_dict(layer.state_dict(), strict=False)
                chain.layers[index] = Plain(norm.eval())
    return generator


@contextmanager
def said_time(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"\n({what}: {time.perf_counter() - start:.0f} s)\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What predict costs, beside other ways.")
    parser.add_argument("data", nargs="?", type=Path, help="folder of volkov-s1s2-1024")
    parser.add_argument("--quick", action="store_true", help="a small network: under a minute")
    parser.add_argument("--norm", choices=["batch", "instance"], default="batch")
    parser.add_argument("--whole", action="store_true", help="all of the real scene")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--contender", nargs=3, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.contender:
        name, work, output = words.contender
        print(json.dumps(run_one(name, Path(work), Path(output))))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_work(work, words.data, norm=words.norm, quick=words.quick, whole=words.whole)
        threads = torch.get_num_threads()
        print(f"{platform.processor() or platform.machine()}, {threads} threads, {words.norm}\n")
        with said_time("contenders"):
            compare(work, words.repeats)
        with said_time("whole command"):
            whole_command(work, words.repeats)
        with said_time("equal windows"):
            equal_windows(work, words.repeats, side=EQUAL_WINDOW // (2 if words.quick else 1))


if __name__ == "__main__":
    main()

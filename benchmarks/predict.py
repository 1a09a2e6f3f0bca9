"""How fast `predict` is, in what memory, and how much shows where windows meet.

    python benchmarks/predict.py [DATA] [--quick] [--norm batch|instance] [--whole]
    python benchmarks/predict.py [DATA] [--quick] [--norm batch|instance] --stages [SIDE]

DATA is the folder that holds volkov-s1s2-1024; without it the scene is made up. Contenders
translate the same scene with the same untrained ResNet (9 blocks, width 64; in --quick 3 blocks,
width 16), in turn, each in a process of its own, on all cores, in the same arithmetic:

* ours: `predict` with its defaults
* ours256: the same in cores of 256 px
* monai: `sliding_window_inference` of windows of 256 px that overlap by a quarter, gaussian
  weights, between a read and a write of the whole raster; left out where it is not installed
  (`pip install geotranslate[bench]`)
* loop: windows of 256 px side by side, read and written one by one

and then what the whole command adds to its network, what our way of computing gains at equal
windows, and what the default windows gain. Each is held against the same network's translation in
one window: tile mismatch and gradient ratio, as docs/evaluate.md has them. It prints tables in
Markdown: medians, and ratios to ours, and whether bars are kept. --whole takes all of the real
scene, 3,072 px, not a cut of 1,024.

--stages measures reading, the network and writing each alone and the whole command on a scene of
SIDE px (10,000), which repeats the other one.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
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
from geotranslate.networks.scene_statistics import (
    has_window_statistics,
    measure_statistics,
    with_statistics,
)
from geotranslate.raster.domain import Band, Domain
from geotranslate.raster.line_sums import Lines
from geotranslate.raster.scene import open_scene
from geotranslate.raster.seams import Mismatch, measure_mismatch, measure_seams
from geotranslate.raster.vrt import Source
from geotranslate.raster.writing import GeoTiff, write_cog
from geotranslate.translation.bundle import load_bundle, save_bundle
from geotranslate.translation.memory import kept_memory
from geotranslate.translation.precision import choose_arithmetic, choose_device, computing
from geotranslate.translation.predict import predict_scenes
from geotranslate.translation.predict_config import PredictConfig

WINDOW = 256
MONAI_STEP = 192
REPEATS = 3
EQUAL_WINDOW = 512
CORE = 1024

BARS = {
    "tile mismatch of ours256": 1e-4,
    "gradient ratio of ours256, off 1 by": 0.005,
    "network's time over the whole command's (counts with --whole)": 0.9,
    "plain over float32": 1.2,
    "plain over bf16": 2.0,
    "whole command over its slowest stage (counts on a GPU, 10,000 px)": 1.3,
}
"""At most for the first two and the last, at least for the others."""

AT_LEAST = ("network's", "plain")


def show_bar(what: str, found: float) -> None:
    kept = found >= BARS[what] if what.startswith(AT_LEAST) else found <= BARS[what]
    print(f"{what}: {found:.2g}; bar {BARS[what]:g}: {'kept' if kept else 'MISSED'}.")


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


def ours(work: Path, output: Path, **words: Any) -> None:
    config = PredictConfig(**words)
    for _ in predict_scenes(work / "model", [work / "scene.tif"], output, config):
        pass


def ours256(work: Path, output: Path) -> None:
    ours(work, output, size=WINDOW)


def one_window(work: Path, output: Path) -> None:
    """What the others are held against."""
    ours(work, output, size=scene_side(work))


def one_tile(work: Path, output: Path) -> None:
    """The same with the window's own statistics, as windows side by side have them."""
    seams = "tile" if has_window_statistics(generator_of(work)) else None
    ours(work, output, size=scene_side(work), seams=seams)


def monai(work: Path, output: Path) -> None:
    from monai.inferers import sliding_window_inference

    device = choose_device()
    generator = fold(generator_of(work)).to(device).to(memory_format=torch.channels_last)
    with rasterio.open(work / "scene.tif") as file:
        pixels, profile = file.read(), file.profile | {"count": 3}
    values = torch.from_numpy(pixels).float()[None] / 127.5 - 1
    with torch.inference_mode(), computing(choose_arithmetic("auto", device), device):
        translated = sliding_window_inference(
            values.to(device),
            roi_size=WINDOW,
            sw_batch_size=4,
            predictor=generator,
            overlap=1 - MONAI_STEP / WINDOW,
            mode="gaussian",
        )
    with rasterio.open(output, "w", **profile) as file:
        file.write(to_uint8(translated)[0])


def loop(work: Path, output: Path) -> None:
    device = choose_device()
    generator = fold(generator_of(work)).to(device).to(memory_format=torch.channels_last)
    with (
        torch.inference_mode(),
        computing(choose_arithmetic("auto", device), device),
        rasterio.open(work / "scene.tif") as scene,
        rasterio.open(output, "w", **scene.profile | {"count": 3}) as file,
    ):
        for _, window in scene.block_windows(1):
            values = torch.from_numpy(scene.read(window=window)).float()[None] / 127.5 - 1
            file.write(to_uint8(generator(values.to(device)))[0], window=window)


CONTENDERS: dict[str, Callable[[Path, Path], None]] = {
    "ours": ours,
    "ours256": ours256,
    "monai": monai,
    "loop": loop,
}
PERIODS = {"ours": CORE, "ours256": WINDOW, "monai": MONAI_STEP, "loop": WINDOW}


def scene_side(work: Path) -> int:
    with rasterio.open(work / "scene.tif") as file:
        return max(file.shape)


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


def run_alone(*words: object) -> dict[str, float]:
    """What this script finds with other words, in a process of its own."""
    command = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(work: Path, repeats: int) -> None:
    """All contenders in turn, each time in a process of its own."""
    names = [name for name in CONTENDERS if name != "monai" or find_spec("monai")]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(repeats):
        for name, found in results.items():
            found.append(run_alone("--contender", name, work, work / f"{name}{number}.tif"))
    with rasterio.open(work / "scene.tif") as scene:
        pixels = scene.width * scene.height
    one_window(work, work / "one_window.tif")
    one_tile(work, work / "one_tile.tif")
    base = median(run["seconds"] for run in results["ours"])
    least = median(run["peak_mb"] for run in results["ours"])
    print(
        "| | seconds | pixels a second | time / ours | peak MB | peak / ours | worst seam score "
        "| tile mismatch | gradient ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, found in results.items():
        seconds = median(run["seconds"] for run in found)
        peak = median(run["peak_mb"] for run in found)
        print(
            f"| {name} | {seconds:.1f} | {pixels / seconds:,.0f} | {seconds / base:.2f} | "
            f"{peak:,.0f} | {peak / least:.2f} | {' | '.join(spell_seams(work, name))} |"
        )
    apart = against_one_window(work, "ours256")
    print()
    show_bar("tile mismatch of ours256", apart.share)
    show_bar(
        "gradient ratio of ours256, off 1 by", max(abs(ratio - 1) for ratio in ratios_of(apart))
    )


def spell_seams(work: Path, name: str) -> tuple[str, str, str]:
    """Worst seam score, tile mismatch, and the least and largest gradient ratio."""
    if PERIODS[name] >= scene_side(work):
        return "one window", "0", "1"
    apart, score = (
        against_one_window(work, name),
        measure_seams(work / f"{name}0.tif", PERIODS[name]).score,
    )
    ratios = ratios_of(apart)
    return f"{score:.1f}", f"{apart.share:.2g}", f"{min(ratios):.3f} to {max(ratios):.3f}"


def against_one_window(work: Path, name: str) -> Mismatch:
    other = "one_window" if name.startswith("ours") else "one_tile"
    return measure_mismatch(work / f"{name}0.tif", work / f"{other}.tif", Lines(PERIODS[name]))


def ratios_of(apart: Mismatch) -> list[float]:
    """Gradient ratios of all bands and directions."""
    ratios = [ratio for band in apart.bands for ratio in (band.vertical, band.horizontal)]
    return [ratio for ratio in ratios if ratio is not None]


# -------------------------------------------------------------------------------------- the bars


def whole_command(work: Path, repeats: int) -> None:
    """What reading, writing and all the rest add to the network."""
    device = choose_device()
    arithmetic = choose_arithmetic("auto", device)
    generator = network_as_we_run_it(work, device)
    windows = windows_of(work, generator_of(work).halo)
    bare, whole = [], []
    for number in range(repeats + 1):
        bare.append(seconds_of(lambda: run_network(generator, windows, device), device))
        output = work / f"whole{number}.tif"
        whole.append(seconds_of(lambda output=output: ours(work, output), device))
    # The first round warms up.
    alone, all_of_it = median(bare[1:]), median(whole[1:])
    print(f"Network alone {alone:.2f} s, whole command {all_of_it:.2f} s ({arithmetic}).")
    show_bar("network's time over the whole command's (counts with --whole)", alone / all_of_it)


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """How long work takes, until the device has done all of it."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def run_network(generator: nn.Module, windows: Iterable[Tensor], device: torch.device) -> None:
    arithmetic = choose_arithmetic("auto", device)
    with torch.inference_mode(), computing(arithmetic, device), kept_memory(device):
        for window in windows:
            generator(window.to(device), PLAIN)


def windows_of(work: Path, halo: int, size: int = CORE) -> list[Tensor]:
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


def network_as_we_run_it(work: Path, device: torch.device) -> nn.Module:
    """As `predict` runs it by default: instance norms have the scene's statistics."""
    generator = generator_of(work)
    if has_window_statistics(generator):
        sample = windows_of(work, halo=0)[0][..., :WINDOW, :WINDOW]
        generator = with_statistics(generator, measure_statistics(generator, sample))
    return fold(generator).to(device).to(memory_format=torch.channels_last)


def equal_windows(work: Path, repeats: int, side: int) -> None:
    """Our way of computing against the plain one, with one window of one size.

    All in turn, each time in a process of its own: how memory is kept for one would serve the next.
    """
    seconds: dict[str, list[float]] = {"plain": [], "float32": [], "bf16": []}
    for _ in range(repeats):
        for name, found in seconds.items():
            found.append(run_alone("--way", name, work, side)["seconds"])
    base = median(seconds["plain"])
    print(f"One window of {side} px in memory; plain is eager, float32, contiguous, torch's norms.")
    print("\n| | seconds | plain / it |")
    print("|---|---|---|")
    for name, found in seconds.items():
        print(f"| {name} | {median(found):.2f} | {base / median(found):.2f} |")
    print()
    for name in ("float32", "bf16"):
        show_bar(f"plain over {name}", base / median(seconds[name]))


def run_way(name: str, work: Path, side: int) -> dict[str, float]:
    """Seconds of one window in one way of computing, after one that warms up."""
    device = choose_device()
    values = windows_of(work, halo=0)[0][..., :side, :side].contiguous().to(device)
    generator = plain_network(generator_of(work)).to(device)
    if name != "plain":
        generator = network_as_we_run_it(work, device)
    translate = {"plain": as_it_comes, "float32": in_float32, "bf16": in_bf16}[name]
    kept = nullcontext() if name == "plain" else kept_memory(device)
    with torch.inference_mode(), kept:
        translate(generator, values, device)
        return {"seconds": seconds_of(lambda: translate(generator, values, device), device)}


def default_windows(work: Path, repeats: int) -> None:
    """What cores of the default size gain: less of what is around them is read twice."""
    device = choose_device()
    fast, halo = network_as_we_run_it(work, device), generator_of(work).halo
    windows = {size: windows_of(work, halo, size) for size in (CORE, WINDOW)}
    seconds: dict[int, list[float]] = {size: [] for size in windows}
    for _ in range(repeats + 1):
        for size, found in windows.items():
            seconds[size].append(
                seconds_of(lambda found=found: run_network(fast, found, device), device)
            )
    large, small = (median(each[1:]) for each in seconds.values())
    print(
        f"The scene in cores of {CORE} px with halo {large:.2f} s, of {WINDOW} px with halo "
        f"{small:.2f} s: {small / large:.2f} times as long, network alone."
    )


# ------------------------------------------------------------------------------------ the stages


def stages(work: Path, side: int) -> None:
    """Reading, network and writing, each alone, and the whole command, on a scene of a side."""
    repeat_scene(work, side)
    device = choose_device()
    generator, halo = network_as_we_run_it(work, device), generator_of(work).halo
    cores = list(cores_of(side))
    run_network(generator, [window_for(cores[0], halo, device)], device)
    found = {
        "reading": seconds_of(lambda: read_alone(work, cores, halo), device),
        "network": seconds_of(
            lambda: run_network(
                generator, (window_for(core, halo, device) for core in cores), device
            ),
            device,
        ),
        "whole command": seconds_of(lambda: ours(work, work / "out.tif"), device),
        "writing": write_alone(work, work / "out.tif"),
    }
    print(f"{side:,} x {side:,} px, {device}:\n\n| | seconds |\n|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {seconds:.2f} |")
    whole = found.pop("whole command")
    print()
    show_bar(
        "whole command over its slowest stage (counts on a GPU, 10,000 px)",
        whole / max(found.values()),
    )


def repeat_scene(work: Path, side: int) -> None:
    """Put a scene in the place of the other one that repeats it."""
    with rasterio.open(work / "scene.tif") as file:
        pixels, profile = file.read(), file.profile
    times = -(-side // pixels.shape[1])
    with rasterio.open(
        work / "scene.tif", "w", **profile | {"width": side, "height": side}
    ) as file:
        file.write(np.tile(pixels, (1, times, times))[:, :side, :side])
        file.descriptions = ("VH",)


def cores_of(side: int) -> Iterator[Window]:
    whole = Window(col_off=0, row_off=0, width=side, height=side)
    for row in range(0, side, CORE):
        for col in range(0, side, CORE):
            yield Window(col_off=col, row_off=row, width=CORE, height=CORE).intersection(whole)


def window_for(core: Window, halo: int, device: torch.device) -> Tensor:
    """Values as large as what is read for a core."""
    shape = (1, 1, int(core.height) + 2 * halo, int(core.width) + 2 * halo)
    return torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)


def read_alone(work: Path, cores: Iterable[Window], halo: int) -> None:
    with open_scene(work / "scene.tif") as scene:
        for core in cores:
            scene.read_reflected(
                Window(
                    col_off=core.col_off - halo,
                    row_off=core.row_off - halo,
                    width=core.width + 2 * halo,
                    height=core.height + 2 * halo,
                )
            )


def write_alone(work: Path, translated: Path) -> float:
    """Seconds of writing a translation again, as `predict` does: rows of cores, then joined."""
    seconds, sources = 0.0, []
    with open_scene(translated) as scene:
        bands, dtype, side = scene.bands, scene.dtype, scene.grid.width
        for row in range(0, side, CORE):
            strip = Window(col_off=0, row_off=row, width=side, height=min(CORE, side - row))
            chip, path = scene.read(strip), work / f"row{row}.tif"
            start = time.perf_counter()
            with GeoTiff(path, chip.grid, bands=bands, dtype=dtype) as file:
                for col in range(0, side, CORE):
                    cols = slice(col, min(col + CORE, side))
                    place = Window(
                        col_off=col, row_off=0, width=cols.stop - col, height=strip.height
                    )
                    file.write(place, chip.pixels[..., cols], chip.valid[:, cols])
            seconds += time.perf_counter() - start
            sources.append(Source(path, strip))
        start = time.perf_counter()
        write_cog(work / "again.tif", sources, scene.grid, bands=bands, dtype=dtype, scratch=work)
    return seconds + time.perf_counter() - start


# ------------------------------------------------------------------------------------ the networks


def as_it_comes(generator: nn.Module, values: Tensor, device: torch.device) -> Tensor:
    translated: Tensor = generator(values, PLAIN)
    return translated


def in_float32(generator: nn.Module, values: Tensor, device: torch.device) -> Tensor:
    return as_it_comes(generator, values.contiguous(memory_format=torch.channels_last), device)


def in_bf16(generator: nn.Module, values: Tensor, device: torch.device) -> Tensor:
    with computing("bf16", device):
        return in_float32(generator, values, device)


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
    parser.add_argument(
        "--stages", nargs="?", type=int, const=10_000, metavar="SIDE", help="the stages alone"
    )
    parser.add_argument("--contender", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--way", nargs=3, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.contender:
        name, work, output = words.contender
        print(json.dumps(run_one(name, Path(work), Path(output))))
        return
    if words.way:
        name, work, side = words.way
        print(json.dumps(run_way(name, Path(work), int(side))))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_work(work, words.data, norm=words.norm, quick=words.quick, whole=words.whole)
        threads = torch.get_num_threads()
        print(f"{platform.processor() or platform.machine()}, {threads} threads, {words.norm}\n")
        if words.stages:
            with said_time("stages"):
                stages(work, words.stages)
            return
        with said_time("contenders"):
            compare(work, words.repeats)
        with said_time("whole command"):
            whole_command(work, words.repeats)
        few = min(words.repeats, 1 if words.quick else 2)
        with said_time("equal windows"):
            equal_windows(work, few, side=EQUAL_WINDOW // (2 if words.quick else 1))
        with said_time("default windows"):
            default_windows(work, few)


if __name__ == "__main__":
    main()

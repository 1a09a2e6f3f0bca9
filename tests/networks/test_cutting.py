"""A result does not depend on how the scene was cut, whatever generator and norm."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geotranslate.choices import UPSAMPLES, Norm
from geotranslate.networks.build import Generator
from geotranslate.networks.context import Context
from geotranslate.networks.norms import BatchNorm, ChannelNorm
from geotranslate.networks.resnet import ResnetGenerator
from geotranslate.networks.scene_statistics import (
    StatisticsGrid,
    measure_cells,
    measure_statistics,
    with_statistics,
    with_statistics_grid,
)
from geotranslate.networks.unet import UnetGenerator

few = settings(deadline=None, max_examples=6)

CELL = 23
"""Side of a cell of the statistics: no multiple of anything."""

FORMS: tuple[str, ...] = ("batch", "renorm", "channel", "none", "scene", "dense")
"""The norms whose result is a fixed function of the pixels around; instance norm is in two."""

MAKERS: dict[str, Callable[[Norm], Generator]] = {
    "resnet": lambda norm: ResnetGenerator(2, 3, width=4, blocks=1, norm=norm),
    "resnet, resize": lambda norm: ResnetGenerator(
        2, 3, width=4, blocks=1, norm=norm, upsample="resize"
    ),
    "unet": lambda norm: UnetGenerator(2, 3, width=4, depth=2, norm=norm),
    "unet, resize": lambda norm: UnetGenerator(
        2, 3, width=4, depth=3, norm=norm, upsample="resize"
    ),
}


def lively(network: Generator, seed: int) -> Generator:
    """Random weights with which every layer matters, as after training."""
    draw = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            spread = 1.5 / module.weight[0].numel() ** 0.5
            nn.init.normal_(module.weight, 0.0, spread, draw)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.2, draw)
        elif isinstance(module, BatchNorm):
            nn.init.normal_(module.running_mean, 0.0, 0.2, draw)
            nn.init.uniform_(module.running_var, 0.5, 2.0, draw)
        elif isinstance(module, ChannelNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, draw)
    return network.eval().requires_grad_(False)


def scene_of(rows: int, cols: int, seed: int) -> Tensor:
    """(1, 2, rows, cols): noise that is stronger and brighter towards one corner."""
    noise = torch.randn(1, 2, rows, cols, generator=torch.Generator().manual_seed(seed))
    down, right = torch.linspace(0, 1, rows)[:, None], torch.linspace(0, 1, cols)
    return noise * (0.1 + 0.4 * down) + right - down


def fixed(kind: str, form: str, scene: Tensor, seed: int = 0) -> Generator:
    """A generator that has all its statistics, those of instance norm from ``scene``."""
    if form not in ("scene", "dense"):
        return lively(MAKERS[kind](form), seed)  # type: ignore[arg-type]
    network = lively(MAKERS[kind]("instance"), seed)
    rows, cols = scene.shape[-2:]
    grid = StatisticsGrid(network, (rows, cols), CELL)
    windows = [
        (row, col, read(scene, row * CELL, col * CELL, 32, 32))
        for row in range(grid.shape[0])
        for col in range(grid.shape[1])
    ]
    if form == "scene":
        return with_statistics(
            network, measure_statistics(network, torch.cat([w[2] for w in windows]))
        )
    for row, col, window in windows:
        grid.put(row, col, measure_cells(network, window)[0])
    return with_statistics_grid(network, grid)


def read(scene: Tensor, top: int, left: int, rows: int, cols: int) -> Tensor:
    """A window that may leave the scene, which is reflected as often as it takes."""

    def inside(start: int, length: int, side: int) -> Tensor:
        place = torch.arange(start, start + length).remainder(2 * side - 2)
        return torch.minimum(place, 2 * side - 2 - place)

    height, width = scene.shape[-2:]
    return scene[..., inside(top, rows, height), :][..., inside(left, cols, width)]


def translate(network: Generator, scene: Tensor, size: int, *, shift: int = 0) -> Tensor:
    """Core by core, each read with its halo, as `predict` does it."""
    stride, halo = network.stride, network.halo
    sides = [-(-side // stride) * stride for side in scene.shape[-2:]]
    result = torch.full((3, *sides), torch.nan)
    for top in range(-shift, sides[0], size):
        for left in range(-shift, sides[1], size):
            rows, cols = (min(s + size, e) - s for s, e in zip((top, left), sides, strict=True))
            origin = top - halo, left - halo
            window = read(scene, *origin, rows + 2 * halo, cols + 2 * halo)
            core = network(window, Context(origin=[origin]))[
                0, :, halo : halo + rows, halo : halo + cols
            ]
            above, before = max(-top, 0), max(-left, 0)
            result[:, top + above : top + rows, left + before : left + cols] = core[
                :, above:, before:
            ]
    return result[:, : scene.shape[-2], : scene.shape[-1]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", MAKERS)
@few
@given(
    rows=st.integers(17, 70),
    cols=st.integers(17, 70),
    strides=st.integers(2, 6),
    shift=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_any_cutting_gives_what_the_whole_scene_gives_at_once(
    kind, form, rows, cols, strides, shift, seed
) -> None:
    scene = scene_of(rows, cols, seed)
    network = fixed(kind, form, scene, seed)
    whole = translate(network, scene, 128)
    cut = translate(network, scene, strides * network.stride, shift=shift * network.stride)
    assert whole.std() > 0.05
    torch.testing.assert_close(cut, whole, atol=2e-5, rtol=0)  # 1e-5 of the range, [-1, 1]


def test_instance_norm_itself_depends_on_the_cutting() -> None:
    scene = scene_of(60, 60, seed=0)
    network = lively(MAKERS["resnet"]("instance"), seed=0)
    difference = translate(network, scene, 16) - translate(network, scene, 128)
    assert difference.abs().mean() > 0.05


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_core_depends_on_its_halo_to_the_edge_and_on_nothing_beyond(kind, form) -> None:
    """Each side is looked at by itself: it is the first columns of a scene turned so often."""
    network = fixed(kind, form, scene_of(60, 60, seed=0))
    stride, halo = network.stride, network.halo
    start, stop = halo + 2 * stride, halo + 3 * stride
    edge = start - halo
    x = scene_of(stop + start, stop + start, seed=1)

    def core(turns: int = 0, columns: slice = slice(0), value: float = 0.0) -> Tensor:
        changed = x.rot90(turns, (-2, -1)).clone()
        changed[..., columns] = value
        scene = changed.rot90(-turns, (-2, -1)).contiguous()
        return network(scene, Context(origin=[(-3, 5)]))[..., start:stop, start:stop]

    before = core()
    reached = []
    for turns in range(4):
        torch.testing.assert_close(core(turns, slice(edge), 50.0), before, atol=1e-6, rtol=0)
        # The halo is rounded up to the stride: its last pixel read lies in the last stride.
        at_edge = [core(turns, slice(edge, edge + stride), value) for value in (-50.0, 50.0)]
        reached.append(any(not torch.allclose(x, before, atol=1e-4, rtol=0) for x in at_edge))
    # With `resize` a core reaches further to the left than to the right; the halo is the wider.
    assert reached[0] or reached[2]
    assert reached[1] or reached[3]


@few
@given(
    make=st.one_of(
        st.builds(partial, st.just(ResnetGenerator), blocks=st.integers(1, 9)),
        st.builds(partial, st.just(UnetGenerator), depth=st.integers(2, 5)),
    ),
    upsample=st.sampled_from(UPSAMPLES),
)
def test_the_halo_is_what_gradients_reach_rounded_up_to_the_stride(make, upsample) -> None:
    """Of a core, through layers of equal weights above 0, in which nothing cancels or dies."""
    network = make(in_channels=1, out_channels=1, width=4, norm="none", upsample=upsample).eval()
    for name, weight in network.named_parameters():
        nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1 / weight[0].numel())
    stride, halo = network.stride, network.halo
    start, stop = halo + 2 * stride, halo + 3 * stride
    x = torch.full((1, 1, start + stop, start + stop), 1e-4, requires_grad=True)
    network(x)[..., start:stop, start:stop].sum().backward()
    read = x.grad[0, 0] != 0
    for axis in range(2):
        places = read.any(dim=axis).nonzero()
        reach = max(start - int(places[0]), int(places[-1]) + 1 - stop)
        assert halo == -(-reach // stride) * stride

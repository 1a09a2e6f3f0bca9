"""Statistics of a scene in the place of those of a window."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geotranslate.choices import GENERATORS, NORMS
from geotranslate.errors import SettingError
from geotranslate.networks.build import Generator, GeneratorSpec, build_generator
from geotranslate.networks.context import PLAIN, Context
from geotranslate.networks.norms import InstanceNorm
from geotranslate.networks.resnet import ResnetGenerator
from geotranslate.networks.scene_statistics import (
    CellStatistics,
    GridNorm,
    LayerStatistics,
    Moments,
    StatisticsGrid,
    has_window_statistics,
    measure_cells,
    measure_statistics,
    with_statistics,
    with_statistics_grid,
)
from geotranslate.networks.statistics import valid_statistics

few = settings(deadline=None, max_examples=20)


def generator(kind: str = "resnet", norm: str = "instance", width: int = 4) -> Generator:
    torch.manual_seed(0)
    spec = GeneratorSpec(kind=kind, width=width, blocks=2, depth=5, norm=norm)
    network = build_generator(spec, 2, 3).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, module.weight[0].numel() ** -0.5)
    return network


def windows(count: int = 3, *, share: float | None = None) -> tuple[Tensor, Tensor | None]:
    draw = torch.Generator().manual_seed(count)
    images = torch.randn(count, 2, 64, 64, generator=draw) * torch.rand(
        count, 2, 1, 1, generator=draw
    )
    if share is None:
        return images, None
    valid = (torch.rand(count, 1, 64, 64, generator=draw) < share).float()
    return images * valid, valid


def test_only_instance_norm_depends_on_the_window() -> None:
    assert [norm for norm in NORMS if has_window_statistics(generator(norm=norm))] == ["instance"]
    network = generator()
    assert not has_window_statistics(
        with_statistics(network, measure_statistics(network, windows()[0]))
    )


@pytest.mark.parametrize("share", [None, 0.7])
@pytest.mark.parametrize("kind", GENERATORS)
def test_windows_measured_as_one_batch_come_out_normalized_at_each_layer(kind, share) -> None:
    """With the statistics found, what each norm gives has mean 0 and variance 1 over them."""
    network, (images, valid) = generator(kind), windows(share=share)
    fixed = with_statistics(network, measure_statistics(network, images, valid))
    norms = [name for name, module in network.named_modules() if isinstance(module, InstanceNorm)]
    for name in norms:
        fixed.get_submodule(name).register_forward_hook(
            lambda norm, args, result: given.append(valid_statistics(result, valid, groups=1))
        )
    given: list = []
    fixed(images, Context(valid))
    assert len(given) == len(norms)
    for _, mean, variance in given:
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
        torch.testing.assert_close(variance, torch.ones_like(variance), atol=0.02, rtol=0)


def test_what_stands_at_invalid_pixels_changes_no_statistics() -> None:
    network, (images, valid) = generator(), windows(share=0.7)
    first = network.get_submodule("body.layers.2")
    assert isinstance(first, InstanceNorm)
    images[:, :, :32], valid[:, :, :32] = 0, 0
    found = measure_statistics(network, images, valid).layers["body.layers.2"]
    entering = network.body.layers[1](network.body.layers[0](images)).double()
    kept = entering.permute(1, 0, 2, 3)[:, valid[:, 0] > 0]
    torch.testing.assert_close(found.mean, kept.mean(1).float(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        found.variance, kept.var(1, correction=0).float(), atol=1e-6, rtol=1e-5
    )


def test_measuring_leaves_the_generator_as_it_is() -> None:
    network, (images, _) = generator(), windows()
    before = network(images)
    measure_statistics(network, images)
    measure_cells(network, images)
    assert torch.equal(network(images), before)


def test_statistics_come_back_from_json_bit_for_bit() -> None:
    network, (images, _) = generator(), windows()
    measured = measure_statistics(network, images)
    read = LayerStatistics.from_lists(json.loads(json.dumps(measured.to_lists())))
    assert read.layers.keys() == measured.layers.keys()
    for name, moments in measured.layers.items():
        assert torch.equal(read.layers[name].mean, moments.mean)
        assert torch.equal(read.layers[name].variance, moments.variance)
    assert torch.equal(
        with_statistics(network, read)(images), with_statistics(network, measured)(images)
    )


def test_statistics_of_one_image_are_what_instance_norm_takes_of_it() -> None:
    network, (images, valid) = generator(), windows(share=0.8)
    cells = measure_cells(network, images, valid)
    for i, cell in enumerate(cells):
        one = images[i : i + 1], valid[i : i + 1]
        fixed = with_statistics(network, LayerStatistics(cell.layers))
        torch.testing.assert_close(
            fixed(one[0]), network(one[0], Context(one[1])), atol=1e-4, rtol=0
        )
        assert cell.positions["body.layers.2"] == valid[i].sum()


@pytest.mark.parametrize("other", [generator("unet"), generator(width=8), generator(norm="none")])
def test_statistics_of_another_generator_are_refused_with_the_mend(other) -> None:
    measured = measure_statistics(generator(), windows()[0])
    with pytest.raises(SettingError, match="measure them anew with this one"):
        with_statistics(other, measured)
    with pytest.raises(SettingError, match="measure them anew with this one"):
        with_statistics_grid(other, StatisticsGrid(generator(), (64, 64), 32))


@pytest.mark.parametrize("count", [0, 1])
def test_layers_without_valid_positions_are_left_as_they_are(count: int) -> None:
    images, _ = windows(1)
    valid = torch.zeros(1, 1, 64, 64)
    valid.view(-1)[:count] = 1
    network = generator()
    measured = measure_statistics(network, images * valid, valid)
    for mean, variance in measured.layers.values():
        assert not mean.any()
        assert (variance == 1).all()
    assert torch.isfinite(with_statistics(network, measured)(images)).all()


def random_grid(network: Generator, shape: tuple[int, int], cell: int) -> StatisticsGrid:
    grid, draw = StatisticsGrid(network, shape, cell), torch.Generator().manual_seed(1)
    for row in range(grid.shape[0]):
        for col in range(grid.shape[1]):
            layers = {
                name: Moments(
                    torch.randn(mean.shape[2], generator=draw),
                    torch.rand(mean.shape[2], generator=draw) + 0.1,
                )
                for name, mean in grid.mean.items()
            }
            grid.put(row, col, CellStatistics(layers, dict.fromkeys(layers, 100.0)))
    return grid


@few
@given(
    origin=st.tuples(st.integers(-40, 80), st.integers(-40, 80)),
    side=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    cells=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    cell=st.integers(5, 30),
    stride=st.sampled_from([1, 2, 4]),
)
def test_a_norm_on_a_grid_interpolates_between_the_centres_of_cells(
    origin, side, cells, cell, stride
) -> None:
    draw = np.random.default_rng(0)
    mean = draw.normal(size=(*cells, 3)).astype(np.float32)
    variance = draw.uniform(0.1, 2, size=(*cells, 3)).astype(np.float32)
    x = draw.normal(size=(3, *side)).astype(np.float32)

    def at(table, row, col):
        """Each pixel by itself, float64: from 0 at the first centre to cells - 1 at the last."""
        place = [
            np.clip((first + stride * (i + 0.5)) / cell - 0.5, 0, count - 1)
            for first, i, count in zip(origin, (row, col), cells, strict=True)
        ]
        (i, j), (u, v) = [int(p) for p in place], [p - int(p) for p in place]
        k, m = min(i + 1, cells[0] - 1), min(j + 1, cells[1] - 1)
        table = table.astype(np.float64)
        upper = table[i, j] * (1 - v) + table[i, m] * v
        lower = table[k, j] * (1 - v) + table[k, m] * v
        return upper * (1 - u) + lower * u

    expected = np.empty_like(x)
    for row in range(side[0]):
        for col in range(side[1]):
            spread = np.sqrt(at(variance, row, col) + 1e-5)
            expected[:, row, col] = (x[:, row, col] - at(mean, row, col)) / spread
    norm = GridNorm(torch.from_numpy(mean), torch.from_numpy(variance), cell, stride)
    found = norm(torch.from_numpy(x)[None], Context(origin=[origin]))[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


@few
@given(
    origin=st.tuples(st.integers(-40, 40), st.integers(-40, 40)), stride=st.sampled_from([1, 2, 4])
)
def test_a_norm_on_a_grid_gives_a_place_the_same_bits_in_any_window(origin, stride) -> None:
    draw = torch.Generator().manual_seed(0)
    norm = GridNorm(
        torch.randn(4, 5, 8, generator=draw), torch.rand(4, 5, 8, generator=draw), 17, stride
    )
    x = torch.randn(1, 8, 40, 37, generator=draw)
    whole = norm(x, Context(origin=[origin]))
    rows, cols = slice(3, 36), slice(7, 30)
    inner = origin[0] + 3 * stride, origin[1] + 7 * stride
    assert torch.equal(norm(x[..., rows, cols], Context(origin=[inner])), whole[..., rows, cols])


def test_a_grid_of_one_statistic_is_that_of_the_scene() -> None:
    network, (images, _) = generator(), windows()
    measured = measure_statistics(network, images)
    grid = StatisticsGrid(network, (130, 200), 64)
    for row in range(3):
        for col in range(4):
            positions = dict.fromkeys(measured.layers, 100.0)
            grid.put(row, col, CellStatistics(measured.layers, positions))
    found = with_statistics_grid(network, grid)(images, Context(origin=[(0, 0), (-64, 64), (9, 7)]))
    torch.testing.assert_close(found, with_statistics(network, measured)(images), atol=1e-5, rtol=0)


def test_each_norm_of_a_grid_knows_its_stride() -> None:
    for kind, expected in (
        ("resnet", [1, 2] + 5 * [4] + [2, 1]),
        ("unet", [4, 8, 16, 16, 8, 4, 2]),
    ):
        network = generator(kind)
        on_grid = with_statistics_grid(network, random_grid(network, (64, 64), 32))
        assert [m.stride for m in on_grid.modules() if isinstance(m, GridNorm)] == expected


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_norm_on_a_grid_keeps_the_layout_and_rounds_bfloat16_once(layout) -> None:
    norm = GridNorm(torch.full((2, 2, 8), 30.0), torch.full((2, 2, 8), 4.0), 10, 1)
    x = (torch.randn(2, 8, 12, 12) * 2 + 30).bfloat16().contiguous(memory_format=layout)
    context = Context(origin=[(0, 0), (5, 5)])
    found = norm(x, context)
    assert found.is_contiguous(memory_format=layout)
    assert torch.equal(found, norm(x.float(), context).bfloat16())


def test_cells_without_data_take_the_statistics_of_the_nearest() -> None:
    network = generator()
    images, _ = windows(2)
    full, other = measure_cells(network, images)
    empty = measure_cells(network, images[:1] * 0, torch.zeros(1, 1, 64, 64))[0]
    grid = StatisticsGrid(network, (200, 330), 64)
    assert grid.shape == (4, 6)
    grid.put(0, 0, full)
    grid.put(0, 1, empty)
    grid.put(3, 5, other)
    grid.fill()
    for name, (mean, variance) in full.layers.items():
        assert torch.equal(grid.mean[name][0, 1], mean)
        assert torch.equal(grid.variance[name][2, 1], variance)
        assert torch.equal(grid.mean[name][2, 5], other.layers[name].mean)
    assert torch.isfinite(
        with_statistics_grid(network, grid)(images, Context(origin=[(0, 0), (64, 128)]))
    ).all()


def test_cells_with_a_handful_of_valid_pixels_are_not_trusted() -> None:
    network, (images, _) = generator(), windows(1)
    rim = torch.zeros(1, 1, 64, 64)
    rim[..., :4, :4] = 1
    cells = [measure_cells(network, images * valid, valid)[0] for valid in (rim, rim * 0 + 1)]
    grid = StatisticsGrid(network, (64, 128), 64)
    for col, cell in enumerate(cells):
        grid.put(0, col, cell)
    grid.fill()
    for name, (_, variance) in cells[1].layers.items():
        assert torch.equal(grid.variance[name][0, 0], variance)


@pytest.mark.parametrize("count", [0, 1, 4])  # 4 are enough for the first layers only
def test_a_grid_with_next_to_no_data_leaves_layers_as_they_are(count: int) -> None:
    network, (images, _) = generator(), windows(1)
    valid = torch.zeros(1, 1, 64, 64)
    valid.view(-1)[:count] = 1
    grid = StatisticsGrid(network, (64, 128), 64)
    grid.put(0, 1, measure_cells(network, images * valid, valid)[0])
    grid.fill()
    for name in grid.positions:
        assert not grid.mean[name].any()
        assert (grid.variance[name] == 1).all()


def test_a_window_that_does_not_say_where_it_lies_is_refused_with_the_mend() -> None:
    network = generator()
    on_grid = with_statistics_grid(network, random_grid(network, (64, 64), 32))
    with pytest.raises(SettingError, match="Give its first row and column"):
        on_grid(windows()[0], PLAIN)


def test_a_cell_takes_as_many_bytes_as_the_docs_say() -> None:
    with torch.device("meta"):
        network = ResnetGenerator(3, 3, norm="instance")
    grid = StatisticsGrid(network, (1, 1), 512)
    tensors = [*grid.mean.values(), *grid.variance.values(), *grid.positions.values()]
    assert sum(t.numel() * t.element_size() for t in tensors) == pytest.approx(42_000, rel=0.02)


def test_the_copies_are_for_evaluation() -> None:
    network, (images, _) = generator().train().requires_grad_(True), windows()
    on_grid = with_statistics_grid(network, random_grid(network, (64, 64), 32))
    for copy in (on_grid, with_statistics(network, measure_statistics(network, images))):
        assert not any(module.training for module in copy.modules())
        assert not any(parameter.requires_grad for parameter in copy.parameters())
        assert (copy.stride, copy.halo) == (network.stride, network.halo)

"""Instance norm with statistics of a scene, so that a result does not depend on how it was cut.

Instance norm makes each window its own world. Here its statistics are measured on the scene
first and then kept, in one of two ways:

* `measure_statistics`, `with_statistics`: one mean and variance a channel for the whole scene. The
  norm becomes a fixed affine, which :func:`geotranslate.networks.fold.fold` takes away.
* `measure_cells`, `StatisticsGrid`, `with_statistics_grid`: those of each cell of a coarse grid
  that is fixed to the scene, interpolated at each pixel. The idea is that of Ho et al. 2024,
  "Every Pixel Has its Moments: Ultra-High-Resolution Unpaired Image-to-Image Translation via Dense
  Normalization".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from geotranslate.errors import SettingError
from geotranslate.networks.build import Generator
from geotranslate.networks.context import Context, Contextual
from geotranslate.networks.geometry import strides_of
from geotranslate.networks.norms import BatchNorm, InstanceNorm
from geotranslate.networks.statistics import (
    ENOUGH,
    EPS,
    Statistics,
    pooled_statistics,
    standardize,
    valid_statistics,
)

Network = TypeVar("Network", bound=nn.Module)

CPU_PIECE, PIECE = 2**18, 2**26
"""Numbers that are normalized on a grid at once: on a CPU so many as stay in its cache, which is
twice as fast; elsewhere so many that what is computed on the way does not fill the memory."""


class Moments(NamedTuple):
    """Mean and variance of the channels that enter a layer.

    Attributes:
        mean: (C,) float32.
        variance: (C,) float32, around the mean.
    """

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """What instance norms are to take for the statistics of all windows.

    Attributes:
        layers: by the norm's name in its generator, on the CPU.
    """

    layers: Mapping[str, Moments]

    def to_lists(self) -> dict[str, dict[str, list[float]]]:
        """Plain numbers, for JSON: layer, then ``mean`` and ``variance``, then channel."""
        return {
            name: {"mean": moments.mean.tolist(), "variance": moments.variance.tolist()}
            for name, moments in self.layers.items()
        }

    @classmethod
    def from_lists(cls, lists: Mapping[str, Mapping[str, list[float]]]) -> Self:
        """The inverse of `to_lists`, bit for bit."""
        return cls(
            {
                name: Moments(torch.tensor(each["mean"]), torch.tensor(each["variance"]))
                for name, each in lists.items()
            }
        )


@dataclass(frozen=True, eq=False)
class CellStatistics:
    """Statistics of one image as its instance norms see it.

    Attributes:
        layers: by the norm's name.
        positions: by the norm's name, how many positions are valid; partly valid ones count by
            their share.
    """

    layers: Mapping[str, Moments]
    positions: Mapping[str, float]


def has_window_statistics(generator: nn.Module) -> bool:
    """Whether a result of ``generator`` depends on the window: it has instance norms."""
    return bool(_instance_norms(generator))


def norm_channels(generator: nn.Module) -> dict[str, int]:
    """How many channels each instance norm of ``generator`` has, by its name."""
    return {name: norm.channels for name, norm in _instance_norms(generator).items()}


@torch.no_grad()
def measure_statistics(
    generator: nn.Module, images: Tensor, valid: Tensor | None = None
) -> LayerStatistics:
    """Statistics of each instance norm over all of ``images`` together.

    Each layer is normalized by them before the next one is measured, so one pass is enough and
    the layers fit each other. A layer with too few valid positions is left as it is, by mean 0 and
    variance 1.

    Args:
        generator: as it was trained; it is left as it is.
        images: (N, C, H, W) windows of the scene, 0 at invalid pixels.
        valid: (N, 1, H, W) of 0 and 1; None where all pixels are valid.
    """
    found = _measure(generator, images, valid, pooled_statistics)
    return LayerStatistics(
        {name: Moments(each.mean[0], each.variance[0]) for name, each in found.items()}
    )


@torch.no_grad()
def measure_cells(
    generator: nn.Module, images: Tensor, valid: Tensor | None = None
) -> list[CellStatistics]:
    """Statistics of each image, as its instance norms see them.

    Args:
        generator: as it was trained; it is left as it is.
        images: (N, C, H, W), one cell each, 0 at invalid pixels.
        valid: (N, 1, H, W) of 0 and 1; None where all pixels are valid.
    """
    count = len(images)
    found = _measure(
        generator, images, valid, lambda x, valid: valid_statistics(x, valid, groups=count)
    )
    return [
        CellStatistics(
            {name: Moments(each.mean[i], each.variance[i]) for name, each in found.items()},
            {name: float(each.positions[i]) for name, each in found.items()},
        )
        for i in range(count)
    ]


def with_statistics(generator: Generator, statistics: LayerStatistics) -> Generator:
    """A copy for evaluation whose instance norms take these statistics, whatever the window.

    Raises:
        SettingError: the statistics were measured with another generator.
    """
    _require_layers(generator, {name: len(each.mean) for name, each in statistics.layers.items()})

    def fixed(name: str, norm: InstanceNorm) -> BatchNorm:
        # Instance norm with given statistics is what batch norm is in evaluation.
        layer = BatchNorm(norm.channels).to(norm.one.device)
        layer.running_mean.copy_(statistics.layers[name].mean)
        layer.running_var.copy_(statistics.layers[name].variance)
        return layer

    return _with_layers(generator, fixed)


class StatisticsGrid:
    """Statistics of the cells of a grid that begins at the scene's upper left pixel.

    A cell takes 8 bytes for each channel of each norm, and 4 for each norm: 42 kB for a resnet of
    9 blocks and width 64.

    Attributes:
        cell: side of a cell in pixels.
        shape: rows and columns of cells.
        mean: by the norm's name, (rows, cols, C) float32.
        variance: the same.
        positions: by the norm's name, (rows, cols) float32; 0 in cells that nothing was put into.
    """

    def __init__(self, generator: nn.Module, scene_shape: tuple[int, int], cell: int) -> None:
        """An empty grid.

        Args:
            generator: with the instance norms that statistics are kept of.
            scene_shape: rows and columns of the scene in pixels.
            cell: side of a cell in pixels.
        """
        rows, cols = (-(-length // cell) for length in scene_shape)
        channels = norm_channels(generator)
        self.cell = cell
        self.shape = rows, cols
        self.mean = {name: torch.zeros(rows, cols, c) for name, c in channels.items()}
        self.variance = {name: torch.ones(rows, cols, c) for name, c in channels.items()}
        self.positions = {name: torch.zeros(rows, cols) for name in channels}

    def put(self, row: int, col: int, statistics: CellStatistics) -> None:
        """Keep the statistics of the cell in a row and column of cells."""
        for name, (mean, variance) in statistics.layers.items():
            self.mean[name][row, col] = mean
            self.variance[name][row, col] = variance
            self.positions[name][row, col] = statistics.positions[name]

    def fill(self) -> None:
        """Give cells with few valid positions the statistics of the nearest cell with enough.

        Enough is a tenth of what the fullest cell has: a handful of pixels at the rim of the data
        may happen to be equal, and would then be blown up, here and half a cell around. Where no
        cell has enough in all layers, everything has mean 0 and variance 1.
        """
        enough = torch.stack(
            [each >= max(float(each.max()) / 10, ENOUGH) for each in self.positions.values()]
        ).all(0)
        if not enough.any():
            for name in self.positions:
                self.mean[name].zero_()
                self.variance[name].fill_(1)
            return
        nearest = distance_transform_edt(
            ~enough.numpy(), return_distances=False, return_indices=True
        )
        rows, cols = torch.from_numpy(nearest).long()
        for values in (self.mean, self.variance):
            for name, value in values.items():
                values[name] = value[rows, cols]


def with_statistics_grid(generator: Generator, grid: StatisticsGrid) -> Generator:
    """A copy for evaluation whose instance norms take statistics interpolated from a filled grid.

    At each pixel, mean and variance are interpolated bilinearly between the centres of the four
    cells around it; beyond the outermost centres they stay as there. A position of a deeper layer
    lies in the middle of the pixels it stands for. So they are the same for a pixel of the scene
    whatever the window, which has to say where it lies: ``Context.origin``.

    Raises:
        SettingError: the statistics were measured with another generator.
    """
    _require_layers(generator, {name: each.shape[2] for name, each in grid.mean.items()})
    strides = strides_of(generator)

    def on_grid(name: str, norm: InstanceNorm) -> GridNorm:
        layer = GridNorm(grid.mean[name], grid.variance[name], grid.cell, strides[name])
        return layer.to(norm.one.device)

    return _with_layers(generator, on_grid)


class GridNorm(Contextual):
    """Instance norm with statistics interpolated from a grid of cells; see `with_statistics_grid`.

    Attributes:
        cell: side of a cell in pixels of the scene.
        stride: pixels of the scene that a position of this layer stands for.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, mean: Tensor, variance: Tensor, cell: int, stride: int) -> None:
        super().__init__()
        self.cell, self.stride = cell, stride
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("variance", variance, persistent=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Normalize ``x`` (N, C, h, w)."""
        if context.origin is None:
            raise SettingError(
                "statistics on a grid need to know where a window lies in the scene. Give its "
                "first row and column as Context.origin."
            )
        normalized = torch.empty_like(x)
        piece = CPU_PIECE if x.device.type == "cpu" else PIECE
        rows = max(piece // (x.shape[1] * x.shape[3]), 1)
        for image, result, (row, col) in zip(x, normalized, context.origin, strict=True):
            for start in range(0, x.shape[2], rows):
                strip = slice(start, start + rows)
                self._normalize(image[:, strip], result[:, strip], row + start * self.stride, col)
        return normalized

    def _normalize(self, image: Tensor, result: Tensor, row: int, col: int) -> None:
        """Normalize ``image`` (C, h, w), which begins at ``row``, ``col``, into ``result``."""
        rows, cols, _ = self.mean.shape
        pixels, values = image.permute(1, 2, 0), result.permute(1, 2, 0)
        upper, row_share = self._places(row, pixels.shape[0], rows)
        left, col_share = self._places(col, pixels.shape[1], cols)
        lower, needed = (upper + 1).clamp(max=rows - 1), slice(int(left[0]), int(left[-1]) + 2)
        row_share, col_share = (each.to(image.device) for each in (row_share, col_share))
        # First between rows of cells, where there is little to compute: (h, cells, C).
        mean, variance = (
            _between(each[upper, needed], each[lower, needed], row_share[:, None, None])
            for each in (self.mean, self.variance)
        )
        start = 0
        for cell, count in enumerate(torch.bincount(left - left[0]).tolist()):
            band = slice(start, start + count)
            start += count
            beside = min(cell + 1, mean.shape[1] - 1)
            at_mean, at_variance = (
                _between(each[:, cell, None], each[:, beside, None], col_share[band, None])
                for each in (mean, variance)
            )
            scale = at_variance.add_(EPS).rsqrt_()
            values[:, band] = at_mean.neg_().add_(pixels[:, band]).mul_(scale)

    def _places(self, start: int, length: int, cells: int) -> tuple[Tensor, Tensor]:
        """For each position along an axis the cell whose centre lies before it, and how far behind.

        Counted in integers, so that a place in the scene gives the same numbers in any window.

        Args:
            start: pixel of the scene at which the first position begins.
            length: positions.
            cells: of the grid along this axis.

        Returns:
            (length,) int64; (length,) float32 from 0, at that centre, to 1, at the next one.
        """
        # In units of half a pixel, from the centre of the first cell.
        place = 2 * (start + self.stride * torch.arange(length)) + self.stride - self.cell
        place = place.clamp(0, 2 * self.cell * (cells - 1))
        index = place // (2 * self.cell)
        return index, (place - 2 * self.cell * index) / (2 * self.cell)


def _between(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    """From ``low`` to ``high``; `torch.lerp` rounds another way at the end of a row."""
    return (high - low).mul(share).add_(low)


def _instance_norms(generator: nn.Module) -> dict[str, InstanceNorm]:
    return {
        name: module
        for name, module in generator.named_modules()
        if isinstance(module, InstanceNorm)
    }


class _Measuring(Contextual):
    """Instance norm with statistics measured as it is told, which are kept.

    Attributes:
        found: those of the last call, on the CPU.
    """

    def __init__(self, measure: Callable[[Tensor, Tensor | None], Statistics]) -> None:
        super().__init__()
        self._measure = measure
        self.found: Statistics

    def forward(self, x: Tensor, context: Context) -> Tensor:
        statistics = self._measure(x, context.valid)
        self.found = Statistics(*(each.cpu() for each in statistics))
        return standardize(x, statistics)


def _measure(
    generator: nn.Module,
    images: Tensor,
    valid: Tensor | None,
    measure: Callable[[Tensor, Tensor | None], Statistics],
) -> dict[str, Statistics]:
    """Run a generator whose norms take what ``measure`` finds; gives that, by the norm's name."""
    measuring = _with_layers(generator, lambda name, norm: _Measuring(measure))
    measuring(images, Context(valid))
    layers = dict(measuring.named_modules())
    return {name: layers[name].found for name in _instance_norms(generator)}


def _with_layers(generator: Network, make: Callable[[str, InstanceNorm], nn.Module]) -> Network:
    """A copy for evaluation with other layers in the place of its instance norms."""
    copy = deepcopy(generator)
    for name, norm in _instance_norms(copy).items():
        copy.set_submodule(name, make(name, norm))
    return copy.eval().requires_grad_(False)


def _require_layers(generator: nn.Module, channels: Mapping[str, int]) -> None:
    """Refuse statistics of other layers than those at hand.

    Args:
        generator: with instance norms.
        channels: of the statistics, by the norm's name.
    """
    wanted = norm_channels(generator)
    if wanted != channels:
        differing = sorted(name for name, _ in wanted.items() ^ channels.items())
        raise SettingError(
            f"the statistics are of {len(channels)} layers and the generator has {len(wanted)} "
            f"instance norms; they differ in {differing[0]}. Statistics serve the model they were "
            "measured with: measure them anew with this one."
        )

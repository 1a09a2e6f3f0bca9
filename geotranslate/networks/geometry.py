"""Which pixels of the input a pixel of the output depends on, computed from the layers themselves.

Everything here is along one axis; the networks are the same along both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from torch import Tensor, nn

from geotranslate.errors import SettingError

DOUBLE = 2
"""The one factor by which networks here repeat pixels (``nn.Upsample``)."""


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that one score of a discriminator judges.

    Score ``i`` judges the ``size`` pixels from ``i * stride - padding`` on.
    """

    size: int
    stride: int
    padding: int


def layers_of(module: nn.Module) -> list[nn.Module]:
    """The layers inside ``module`` in the order of their making, which is that of computing."""
    return [part for part in module.modules() if not list(part.children())]


def total_stride(layers: Sequence[nn.Module]) -> int:
    """How many pixels of the input one pixel at the coarsest layer stands for."""
    return prod(layer.stride[0] for layer in layers if isinstance(layer, nn.Conv2d))


def strides_of(network: nn.Module) -> dict[str, int]:
    """By each layer's name, how many pixels of the input one position that enters it stands for.

    Position ``i`` stands for the pixels from ``i * stride`` to ``(i + 1) * stride - 1``.
    """
    strides: dict[str, int] = {}
    stride = 1
    for name, layer in network.named_modules():
        if list(layer.children()):
            continue
        strides[name] = stride
        match layer:
            case nn.Conv2d():
                stride *= layer.stride[0]
            case nn.ConvTranspose2d():
                stride //= layer.stride[0]
            case nn.Upsample():
                stride //= DOUBLE
    return strides


def pixels_read(layers: Sequence[nn.Module], first: int, last: int) -> tuple[int, int]:
    """First and last pixel of an endless input that the outputs ``first`` to ``last`` depend on.

    Layers that look at one position only are passed over. A skip connection reads less than the
    layers it skips, so the layers in a row are the widest way.
    """
    for layer in reversed(layers):
        match layer:
            case nn.ReflectionPad2d():
                first, last = first - layer.padding[0], last - layer.padding[0]
            case nn.Conv2d():
                (kernel, _), (stride, _), padding = layer.kernel_size, layer.stride, _zeros(layer)
                first, last = first * stride - padding, last * stride - padding + kernel - 1
            case nn.ConvTranspose2d():
                (kernel, _), (stride, _), padding = layer.kernel_size, layer.stride, _zeros(layer)
                first = ceil((first + padding - kernel + 1) / stride)
                last = (last + padding) // stride
            case nn.Upsample():
                first, last = first // DOUBLE, last // DOUBLE
    return first, last


def _zeros(layer: nn.Conv2d | nn.ConvTranspose2d) -> int:
    """Zeros that the layer itself puts around its input."""
    return layer.padding[0] if isinstance(layer.padding, tuple) else int(layer.padding)


def halo_of(layers: Sequence[nn.Module]) -> int:
    """How far around a core a generator has to read so that the core is exact.

    This is the reach of its convolutions from a core that starts and ends on multiples of the
    total stride, itself rounded up to a multiple, so that the window read starts on one as well.
    """
    stride = total_stride(layers)
    first, last = pixels_read(layers, 0, stride - 1)
    return ceil(max(-first, last - (stride - 1)) / stride) * stride


def receptive_field(layers: Sequence[nn.Module]) -> ReceptiveField:
    """The pixels that one score of the discriminator made of ``layers`` judges."""
    first, last = pixels_read(layers, 0, 0)
    return ReceptiveField(size=last - first + 1, stride=total_stride(layers), padding=-first)


def require_sides(x: Tensor, *, stride: int, minimum: int) -> None:
    """Refuse images that a generator would give back in another size.

    Args:
        x: (N, C, H, W).
        stride: each side must be a multiple of it.
        minimum: each side must be at least this.

    Raises:
        SettingError: a side does not fit; names the sides next to it that do.
    """
    rows, cols = x.shape[-2:]
    for side in (rows, cols):
        if side % stride or side < minimum:
            below, above = side // stride * stride, ceil(side / stride) * stride
            fitting = sorted({max(below, minimum), max(above, minimum)})
            raise SettingError(
                f"the image is {cols} x {rows} px, but the generator halves it until {stride} px "
                f"are one: each side must be a multiple of {stride} px and at least {minimum} px. "
                f"Choose {' or '.join(map(str, fitting))} px instead of {side}."
            )

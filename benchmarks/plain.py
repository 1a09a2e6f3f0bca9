"""Pix2Pix and CycleGAN the plain way: what the papers say, in torch's own modules, one call each.

It is what `benchmarks/step.py` compares our step with, and what tests hold its mathematics to:
eager, float32, contiguous, each image through its own call, Adam as it comes. Pixels that are not
valid count in no statistic and no loss, as in ours, written out plainly.

Isola et al. 2017 (pix2pix), Zhu et al. 2017 (CycleGAN), Johnson et al. 2016 (the generator),
Mao et al. 2017 (least squares), Miyato et al. 2018 (spectral norm), Shrivastava et al. 2017 (the
pool of earlier images).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

Valid = Tensor | None
"""(N, 1, H, W) of 0 and 1; None where all pixels are valid."""

EPS = 1e-5


# ---------------------------------------------------------------------------------- the networks


class InstanceNorm(nn.InstanceNorm2d):
    """Torch's own, or the same over the valid positions."""

    def forward(self, x: Tensor, valid: Valid = None) -> Tensor:
        return super().forward(x) if valid is None else normalized(x, valid, (2, 3))


class BatchNorm(nn.BatchNorm2d):
    """Torch's own, or the same over the valid positions; running statistics are not compared."""

    def forward(self, x: Tensor, valid: Valid = None) -> Tensor:
        if valid is None:
            return super().forward(x)
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        return normalized(x, valid, (0, 2, 3)) * weight + bias


def normalized(x: Tensor, valid: Tensor, over: tuple[int, ...]) -> Tensor:
    """``x`` to mean 0 and variance 1, each position weighed by the valid share of its pixels."""
    share = functional.adaptive_avg_pool2d(valid, x.shape[-2:])
    positions = share.sum(over, keepdim=True)
    mean = (x * share).sum(over, keepdim=True) / positions
    variance = ((x - mean).square() * share).sum(over, keepdim=True) / positions
    return (x - mean) / torch.sqrt(variance + EPS)


NORMS = {"instance": InstanceNorm, "batch": BatchNorm}


class Network(nn.Module):
    """Layers in a row; the norms among them are told where pixels are valid."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, valid: Valid = None) -> Tensor:
        for layer in self.layers:
            told = isinstance(layer, InstanceNorm | BatchNorm | Block)
            x = layer(x, valid) if told else layer(x)
        return x


class Block(Network):
    """A residual block of 3 x 3 convolutions."""

    def __init__(self, channels: int, norm: str) -> None:
        bias = norm == "instance"
        super().__init__(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            NORMS[norm](channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            NORMS[norm](channels),
        )

    def forward(self, x: Tensor, valid: Valid = None) -> Tensor:
        return x + super().forward(x, valid)


def resnet(bands_in: int, bands_out: int, width: int, blocks: int, norm: str) -> Network:
    """c7s1-width, d, d, blocks times R, u, u, c7s1, in the words of Zhu et al., appendix 7.2."""
    bias = norm == "instance"
    down = [
        layer
        for many in (width, 2 * width)
        for layer in (
            nn.Conv2d(many, 2 * many, 3, stride=2, padding=1, bias=bias),
            NORMS[norm](2 * many),
            nn.ReLU(),
        )
    ]
    up = [
        layer
        for many in (4 * width, 2 * width)
        for layer in (
            nn.ConvTranspose2d(
                many, many // 2, 3, stride=2, padding=1, output_padding=1, bias=bias
            ),
            NORMS[norm](many // 2),
            nn.ReLU(),
        )
    ]
    return Network(
        nn.ReflectionPad2d(3),
        nn.Conv2d(bands_in, width, 7, bias=bias),
        NORMS[norm](width),
        nn.ReLU(),
        *down,
        *(Block(4 * width, norm) for _ in range(blocks)),
        *up,
        nn.ReflectionPad2d(3),
        nn.Conv2d(width, bands_out, 7),
        nn.Tanh(),
    )


def patchgan(bands: int, width: int, norm: str) -> Network:
    """C64-C128-C256-C512 of 70 px: with the papers' instance norm, or with spectral norm."""
    widths = [width, 2 * width, 4 * width, 8 * width]
    convs = [nn.Conv2d(bands, width, 4, stride=2, padding=1)]
    convs += [
        nn.Conv2d(before, after, 4, stride=stride, padding=1)
        for before, after, stride in zip(widths, widths[1:], (2, 2, 1), strict=False)
    ]
    last = nn.Conv2d(widths[-1], 1, 4, padding=1)
    if norm == "spectral":
        convs, last = [spectral_norm(conv) for conv in convs], spectral_norm(last)
    layers: list[nn.Module] = [convs[0], nn.LeakyReLU(0.2)]
    for conv in convs[1:]:
        norms = [InstanceNorm(conv.out_channels)] if norm == "instance" else []
        layers += [conv, *norms, nn.LeakyReLU(0.2)]
    return Network(*layers, last)


# ------------------------------------------------------------------------------------ the losses


def hidden(images: Tensor, valid: Valid) -> Tensor:
    return images if valid is None else images * valid


def l1(one: Tensor, other: Tensor, valid: Valid) -> Tensor:
    if valid is None:
        return functional.l1_loss(one, other)
    return ((one - other).abs() * valid).sum() / (valid.sum() * one.shape[1])


def squares(scores: Tensor, target: float, valid: Valid) -> Tensor:
    """Least squares; a score weighs by the valid share of its patch of 70 px, 8 px apart."""
    distances = (scores - target) ** 2
    if valid is None:
        return distances.mean()
    weights = functional.avg_pool2d(valid, 70, stride=8, padding=23, count_include_pad=False)
    return (distances * weights).sum() / weights.sum()


def adam(*networks: nn.Module, rate: float) -> torch.optim.Adam:
    parameters = [each for network in networks for each in network.parameters()]
    return torch.optim.Adam(parameters, lr=rate, betas=(0.5, 0.999), foreach=False, fused=False)


def learning(network: nn.Module, *, yes: bool) -> None:
    for parameter in network.parameters():
        parameter.requires_grad_(yes)


def numbers(**losses: Tensor) -> dict[str, float]:
    return {name: loss.item() for name, loss in losses.items()}


# ------------------------------------------------------------------------------------- the steps


class Pix2Pix:
    """The discriminator sees A beside B; the generator is also held to B by L1."""

    def __init__(
        self,
        bands_a: int,
        bands_b: int,
        *,
        width: int,
        blocks: int,
        discriminator_width: int,
        norm: str = "batch",
        discriminator_norm: str = "spectral",
        l1: float = 100.0,
        rate: float = 2e-4,
    ) -> None:
        self.g = resnet(bands_a, bands_b, width, blocks, norm)
        self.d = patchgan(bands_a + bands_b, discriminator_width, discriminator_norm)
        self.networks = {"g_ab": self.g, "d_b": self.d}
        self.optimizers = {"g": adam(self.g, rate=rate), "d": adam(self.d, rate=rate)}
        self.l1 = l1

    def step(
        self, a: Tensor, b: Tensor, valid: Valid = None, _: Valid = None, draws: Any = ()
    ) -> dict[str, float]:
        a, b = hidden(a, valid), hidden(b, valid)
        fake = hidden(self.g(a, valid), valid)

        with one_weight(self.d):
            self.optimizers["d"].zero_grad()
            real_scores = self.d(torch.cat([a, b], dim=1), valid)
            fake_scores = self.d(torch.cat([a, fake.detach()], dim=1), valid)
            d_loss = (squares(real_scores, 1, valid) + squares(fake_scores, 0, valid)) / 2
            d_loss.backward()
        self.optimizers["d"].step()

        learning(self.d, yes=False)
        self.optimizers["g"].zero_grad()
        gan = squares(self.d(torch.cat([a, fake], dim=1), valid), 1, valid)
        distance = l1(fake, b, valid)
        (gan + self.l1 * distance).backward()
        self.optimizers["g"].step()
        learning(self.d, yes=True)
        return numbers(d=d_loss, gan=gan, l1=distance)


class CycleGAN:
    """There and back in both directions, and images of the target left alone."""

    def __init__(
        self,
        bands_a: int,
        bands_b: int,
        *,
        width: int,
        blocks: int,
        discriminator_width: int,
        norm: str = "instance",
        discriminator_norm: str = "spectral",
        cycle: float = 10.0,
        identity: float = 5.0,
        rate: float = 2e-4,
        pool: int = 50,
    ) -> None:
        self.g_ab = resnet(bands_a, bands_b, width, blocks, norm)
        self.g_ba = resnet(bands_b, bands_a, width, blocks, norm)
        self.d_a = patchgan(bands_a, discriminator_width, discriminator_norm)
        self.d_b = patchgan(bands_b, discriminator_width, discriminator_norm)
        self.networks = {"g_ab": self.g_ab, "g_ba": self.g_ba, "d_a": self.d_a, "d_b": self.d_b}
        self.optimizers = {
            "g": adam(self.g_ab, self.g_ba, rate=rate),
            "d": adam(self.d_a, self.d_b, rate=rate),
        }
        self.cycle, self.identity = cycle, identity if bands_a == bands_b else 0.0
        self.pools = {"a": Pool(pool), "b": Pool(pool)}

    def step(
        self, a: Tensor, b: Tensor, valid_a: Valid = None, valid_b: Valid = None, draws: Any = ()
    ) -> dict[str, float]:
        a, b = hidden(a, valid_a), hidden(b, valid_b)
        learning(self.d_a, yes=False)
        learning(self.d_b, yes=False)
        self.optimizers["g"].zero_grad()
        fake_b = hidden(self.g_ab(a, valid_a), valid_a)
        fake_a = hidden(self.g_ba(b, valid_b), valid_b)
        gan_ab = squares(self.d_b(fake_b, valid_a), 1, valid_a)
        gan_ba = squares(self.d_a(fake_a, valid_b), 1, valid_b)
        cycle_a = l1(self.g_ba(fake_b, valid_a), a, valid_a)
        cycle_b = l1(self.g_ab(fake_a, valid_b), b, valid_b)
        losses = {"gan_ab": gan_ab, "gan_ba": gan_ba, "cycle_a": cycle_a, "cycle_b": cycle_b}
        g_loss = gan_ab + gan_ba + self.cycle * (cycle_a + cycle_b)
        if self.identity:
            losses["idt_a"] = l1(self.g_ba(a, valid_a), a, valid_a)
            losses["idt_b"] = l1(self.g_ab(b, valid_b), b, valid_b)
            g_loss = g_loss + self.identity * (losses["idt_a"] + losses["idt_b"])
        g_loss.backward()
        self.optimizers["g"].step()

        learning(self.d_a, yes=True)
        learning(self.d_b, yes=True)
        shown_a = self.pools["a"].exchange(fake_a.detach(), valid_b, draws[:, :2])
        shown_b = self.pools["b"].exchange(fake_b.detach(), valid_a, draws[:, 2:])
        self.optimizers["d"].zero_grad()
        for name, d, real, valid, shown in (
            ("d_a", self.d_a, a, valid_a, shown_a),
            ("d_b", self.d_b, b, valid_b, shown_b),
        ):
            with one_weight(d):
                real_scores, fake_scores = d(real, valid), d(*shown)
            on_real, on_fake = squares(real_scores, 1, valid), squares(fake_scores, 0, shown[1])
            losses[name] = (on_real + on_fake) / 2
            losses[name].backward()
        self.optimizers["d"].step()
        return numbers(**losses)


def one_weight(network: nn.Module) -> Any:
    """One step of spectral norm's power method for the calls in here, as Miyato's algorithm 1."""
    return nn.utils.parametrize.cached()


class Pool:
    """Half of the images shown are earlier ones."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[tuple[Tensor, Valid]] = []

    def exchange(self, images: Tensor, valid: Valid, draws: Any) -> tuple[Tensor, Valid]:
        shown = []
        for number, (swap, place) in enumerate(draws):
            new = images[number], None if valid is None else valid[number]
            if len(self.kept) < self.size:
                self.kept.append(new)
            elif self.size and swap < 0.5:
                index = int(place * self.size)
                new, self.kept[index] = self.kept[index], new
            shown.append(new)
        whole = torch.ones_like(images[0, :1])
        masks = [whole if mask is None else mask for _, mask in shown]
        some = any(mask is not None for _, mask in shown)
        return torch.stack([image for image, _ in shown]), torch.stack(masks) if some else None


# ------------------------------------------------------------------------- the same state as ours


def copy_state(ours: Any, plain: Pix2Pix | CycleGAN) -> None:
    """Bring a plain model to the weights, optimizer states and pools of one of our models.

    Our layers come in the same order, so weights and momenta are matched by their order.
    """
    with torch.no_grad():
        for name, network in plain.networks.items():
            pairs = zip(network.parameters(), ours.networks[name].parameters(), strict=True)
            for weight, its in pairs:
                weight.copy_(its)
            for (_, mine), (_, its) in zip(
                singular_vectors(network), singular_vectors(ours.networks[name]), strict=True
            ):
                mine.copy_(its)
    for name, optimizer in plain.optimizers.items():
        its = ours.optimizers[name].state_dict()["state"]
        groups = optimizer.state_dict()["param_groups"]
        state = {
            number: {
                "step": values["step"].cpu().clone(),
                "exp_avg": values["exp_avg"].clone().contiguous(),
                "exp_avg_sq": values["exp_avg_sq"].clone().contiguous(),
            }
            for number, values in its.items()
        }
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    for side, pool in getattr(plain, "pools", {}).items():
        pool.kept = kept_by(ours.pools[side])


def singular_vectors(network: nn.Module) -> Sequence[tuple[str, Tensor]]:
    """The buffers of spectral norm, in their order."""
    return [
        (name, buffer)
        for name, buffer in network.named_buffers()
        if name.rsplit(".", 1)[-1] in ("u", "v", "_u", "_v")
    ]


def kept_by(pool: Any) -> list[tuple[Tensor, Valid]]:
    """The images of one of our pools, by its state."""
    state = pool.state_dict()
    return [
        (
            state["images"][number].clone(),
            None if state["whole"][number] else state["valid"][number].clone(),
        )
        for number in range(state["kept"])
    ]

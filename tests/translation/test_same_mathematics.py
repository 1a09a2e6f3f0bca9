"""Our quick way of learning computes what the papers say, written plainly (benchmarks/plain.py)."""

from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import pytest
import torch

from benchmarks import plain
from geotranslate.choices import NORM_OF_MODEL
from geotranslate.networks.build import DiscriminatorSpec, GeneratorSpec
from geotranslate.networks.norms import InstanceNorm
from geotranslate.translation.batch import Batch
from geotranslate.translation.cyclegan import CycleGANConfig
from geotranslate.translation.data import draw_for_pools
from geotranslate.translation.models import build_model
from geotranslate.translation.pix2pix import Pix2PixConfig
from tests.translation.steps import smooth

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH, BLOCKS, POOL = 6, 1, 4
STATES, APART = 10, 2
UPDATES, SEEDS, SMOOTHED = 50, 3, 10


@dataclass(frozen=True)
class Case:
    model: str
    discriminator_norm: str
    batch: int = 2
    valid: bool = False
    bands: tuple[int, int] = (3, 3)
    norm: str | None = None


CASES = {
    "pix2pix, spectral": Case("pix2pix", "spectral", bands=(2, 3)),
    "pix2pix, instance": Case("pix2pix", "instance", bands=(2, 3)),
    "pix2pix, partly valid": Case("pix2pix", "spectral", valid=True, bands=(2, 3)),
    "cyclegan, spectral": Case("cyclegan", "spectral", batch=1),
    "cyclegan, instance": Case("cyclegan", "instance"),
    "cyclegan, partly valid": Case("cyclegan", "instance", valid=True),
    "cyclegan, other bands": Case("cyclegan", "spectral", bands=(2, 3)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_update_computes_what_the_plain_recipe_does(case):
    for losses, gradients in differences(case, torch.float64):
        assert losses < 1e-9
        assert max(gradients) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_float32_is_as_near_as_rounding_lets_it(case):
    found = differences(case, torch.float32)
    assert max(losses for losses, _ in found) < 1e-5
    # Rounding now and then brings a value to the other side of a kink, of ReLU's or of L1's, where
    # gradients jump: so not in every state.
    for gradient in zip(*(gradients for _, gradients in found), strict=True):
        assert median(gradient) < 1e-4


@pytest.mark.parametrize("name", ["pix2pix, spectral", "cyclegan, spectral"])
def test_fifty_updates_stay_within_what_seeds_differ_by(name):
    case = CASES[name]
    ours = curves(quick(case), case)
    plain_ones = []
    for seed in range(SEEDS):
        model = recipe(case)
        plain.copy_state(quick(case, seed), model)
        plain_ones.append(curves(model, case))
    seeds = torch.stack(plain_ones)
    between_seeds = (seeds.amax(0) - seeds.amin(0)).mean(0)
    assert ((ours - seeds[0]).abs().mean(0) < between_seeds).all()


def curves(model, case):
    """The losses of 50 updates, each the mean of 10: (parts of the run, losses)."""
    rows = []
    for update in range(1, UPDATES + 1):
        numbers = draws(case, update)
        if isinstance(model, plain.Pix2Pix | plain.CycleGAN):
            losses = model.step(*pixels(case, update), draws=numbers)
        else:
            losses = model.step(batch(case, update), numbers)
        rows.append([float(losses[name]) for name in sorted(losses) if name != "pool_l2"])
    return torch.tensor(rows).reshape(-1, SMOOTHED, len(rows[0])).mean(1)


def differences(case, dtype):
    """Of losses, and of each tensor's gradient, relative to the largest, at states along a run."""
    ours, theirs = quick(case, dtype=dtype), recipe(case, dtype=dtype)
    found = []
    for state in range(STATES):
        for update in range(APART * state + 1, APART * (state + 1)):
            ours.step(batch(case, update, dtype), draws(case, update))
        update = APART * (state + 1)
        plain.copy_state(ours, theirs)
        expected = theirs.step(*pixels(case, update, dtype), draws=draws(case, update))
        losses = ours.step(batch(case, update, dtype), draws(case, update))
        found.append(
            (
                max(abs(losses[name].item() / value - 1) for name, value in expected.items()),
                [
                    difference
                    for name, network in ours.networks.items()
                    for difference in differences_of_gradients(network, theirs.networks[name])
                ],
            )
        )
    return found


def differences_of_gradients(ours, theirs):
    useless = biases_before_instance_norm(ours)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        # Of a bias that does nothing the gradient is what rounding left of nothing: small beside
        # the gradient of its layer's weight.
        scale = useless[one].grad if one in useless else other.grad
        yield float((one.grad - other.grad).abs().max() / scale.abs().max())


def biases_before_instance_norm(network):
    """Biases that do nothing, since the norm takes the mean away; with their layer's weight."""
    leaves = [part for part in network.modules() if not list(part.children())]
    return {
        before.bias: before.weight
        for before, norm in pairwise(leaves)
        if isinstance(norm, InstanceNorm)
    }


def quick(case, seed=0, dtype=torch.float32):
    config = (
        Pix2PixConfig(judge="image", l1=100, pool_l2=0)
        if case.model == "pix2pix"
        else CycleGANConfig(image_pool=POOL)
    )
    model = build_model(
        config,
        GeneratorSpec(width=WIDTH, blocks=BLOCKS, norm=case.norm or NORM_OF_MODEL[case.model]),
        DiscriminatorSpec(width=WIDTH, norm=case.discriminator_norm),
        bands_a=case.bands[0],
        bands_b=case.bands[1],
        seed=seed,
    )
    for network in model.networks.values():
        network.to(dtype).to(memory_format=torch.channels_last)
    return model


def recipe(case, dtype=torch.float32):
    words = {
        "width": WIDTH,
        "blocks": BLOCKS,
        "discriminator_width": WIDTH,
        "discriminator_norm": case.discriminator_norm,
    }
    model = (
        plain.Pix2Pix(*case.bands, **words)
        if case.model == "pix2pix"
        else plain.CycleGAN(*case.bands, pool=POOL, **words)
    )
    for network in model.networks.values():
        network.to(dtype)
    return model


def pixels(case, update, dtype=torch.float32):
    """The update's images as the plain recipe takes them: a, b, and where they are valid."""
    generator = torch.Generator().manual_seed(update)
    a, b = (smooth(case.batch, bands, generator).to(dtype) for bands in case.bands)
    if not case.valid:
        return a, b, None, None
    valid_a, valid_b = (torch.ones(case.batch, 1, 32, 32, dtype=dtype) for _ in "ab")
    valid_a[:, :, :9], valid_b[:, :, :, 20:] = 0, 0
    if case.model == "pix2pix":
        valid_a = valid_b = valid_a * valid_b
    return a, b, valid_a, valid_b


def batch(case, update, dtype=torch.float32):
    a, b, valid_a, valid_b = pixels(case, update, dtype)
    a, b = (each.contiguous(memory_format=torch.channels_last) for each in (a, b))
    return Batch(a, b, valid_a, valid_b)


def draws(case, update):
    return draw_for_pools(0, update, case.batch, 4)

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geotranslate.networks.context import Context
from geotranslate.networks.resnet import ResnetGenerator
from geotranslate.networks.turns import ORDER, TURNS, TurnedMean, turned, turned_back


def test_the_eight_turns_are_the_symmetries_of_a_square():
    square = torch.arange(9).reshape(1, 3, 3)
    seen = {tuple(turned(square, turn).flatten().tolist()) for turn in range(TURNS)}
    assert len(seen) == TURNS
    corners = {
        tuple(turned(square, turn)[0, ::2, ::2].flatten().sort()[0].tolist())
        for turn in range(TURNS)
    }
    assert corners == {(0, 2, 6, 8)}
    assert torch.equal(turned(square, 0), square)


@given(turn=st.integers(0, TURNS - 1), rows=st.integers(1, 5), cols=st.integers(1, 5))
def test_an_image_turned_back_lies_as_before(turn, rows, cols):
    image = torch.arange(2 * rows * cols).reshape(2, rows, cols)
    assert torch.equal(turned_back(turned(image, turn), turn), image)


def test_every_way_is_taken_once():
    assert sorted(ORDER) == list(range(TURNS))


def generator(seed: int = 0, norm: str = "batch") -> ResnetGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ResnetGenerator(2, 3, width=4, blocks=1, norm=norm).eval().requires_grad_(False)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_mean_is_that_of_images_turned_by_hand(count):
    network = generator()
    x = torch.randn(2, 2, 32, 48, generator=torch.Generator().manual_seed(1))
    by_hand = [x, x.rot90(2, (2, 3)), x.flip(3), x.flip(2)]
    back = [
        lambda y: y,
        lambda y: y.rot90(2, (2, 3)),
        lambda y: y.flip(3),
        lambda y: y.flip(2),
    ]
    across = [lambda y: y.mT, lambda y: y.rot90(2, (2, 3)).mT]
    across += [lambda y: y.flip(3).mT, lambda y: y.flip(2).mT]
    images = by_hand + [way(x) for way in across]
    back += [lambda y: y.mT, lambda y: y.mT.rot90(2, (2, 3))]
    back += [lambda y: y.mT.flip(3), lambda y: y.mT.flip(2)]
    wanted = [undo(network(image)) for image, undo in zip(images, back, strict=True)]
    mean = torch.stack(wanted[:count]).double().mean(0).float()
    torch.testing.assert_close(TurnedMean(network, count)(x), mean, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(turn=st.integers(0, TURNS - 1), seed=st.integers(0, 99))
def test_over_all_ways_the_scene_may_lie_as_it_likes(turn, seed):
    network = TurnedMean(generator(seed), TURNS)
    x = torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(turned(network(x), turn), network(turned(x, turn)), atol=1e-5)


def test_nothing_outside_the_halo_changes_a_core():
    network = TurnedMean(generator(), TURNS)
    halo, core = network.halo, 8
    side = 2 * halo + core
    x = torch.randn(1, 2, side + 16, side + 16, generator=torch.Generator().manual_seed(2))
    place = slice(8 + halo, 8 + halo + core)
    before = network(x)[..., place, place]
    hidden = torch.full_like(x, 7.0)
    hidden[..., 8:-8, 8:-8] = x[..., 8:-8, 8:-8]
    assert torch.allclose(network(hidden)[..., place, place], before, atol=1e-6)


def test_valid_pixels_are_turned_with_the_image():
    network = generator(norm="instance")
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.normal(size=(1, 2, 32, 32))).float()
    valid = torch.from_numpy(random.random((1, 1, 32, 32)) > 0.4).float()
    x = x * valid
    wanted = sum(
        turned_back(network(turned(x, turn), Context(turned(valid, turn))), turn)
        for turn in range(TURNS)
    )
    found = TurnedMean(network, TURNS)(x, Context(valid))
    torch.testing.assert_close(found, wanted / TURNS, rtol=0, atol=1e-5)

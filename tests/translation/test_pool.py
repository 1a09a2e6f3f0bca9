"""The image pool: a function of the numbers it is given."""

import numpy as np
import pytest
import torch
from torch import Tensor

from geotranslate.translation.pool import ImagePool

SWAP, STAY = 0.0, 0.9


def numbered(*values: float) -> Tensor:
    return torch.stack([torch.full((2, 4, 4), float(value)) for value in values])


def values(images: Tensor) -> list[float]:
    return [float(image.mean()) for image in images]


def test_until_it_is_full_images_come_straight_back() -> None:
    pool = ImagePool(3)
    for value in range(3):
        given, _ = pool.exchange(numbered(value), None, [[SWAP, 0.0]])
        assert values(given) == [value]
    given, _ = pool.exchange(numbered(7), None, [[SWAP, 0.5]])
    assert values(given) == [1]


def test_half_of_the_numbers_give_the_new_image_and_half_an_old_one() -> None:
    pool = ImagePool(10)
    draws = np.random.default_rng(0).random((4000, 2))
    new = 0
    for update, draw in enumerate(draws):
        given, _ = pool.exchange(numbered(update), None, draw[None])
        new += values(given) == [update]
    assert new / len(draws) == pytest.approx(0.5, abs=0.03)


def test_an_image_given_out_has_left_the_pool_and_the_new_one_is_in() -> None:
    pool = ImagePool(2)
    pool.exchange(numbered(0, 1), None, [[SWAP, 0.0]] * 2)
    given, _ = pool.exchange(numbered(2, 3, 4), None, [[SWAP, 0.0], [STAY, 0.0], [SWAP, 0.0]])
    assert values(given) == [0, 3, 2]
    given, _ = pool.exchange(numbered(5, 6), None, [[SWAP, 0.99], [SWAP, 0.0]])
    assert values(given) == [1, 4]


def test_without_room_each_image_comes_straight_back() -> None:
    given, _ = ImagePool(0).exchange(numbered(1, 2), None, [[SWAP, 0.0]] * 2)
    assert values(given) == [1, 2]


def test_valid_pixels_go_with_their_image() -> None:
    pool = ImagePool(1)
    left = torch.zeros(1, 1, 4, 4)
    left[..., :2] = 1
    pool.exchange(numbered(1), left, [[SWAP, 0.0]])
    given, valid = pool.exchange(numbered(2, 3), None, [[SWAP, 0.0], [STAY, 0.0]])
    assert values(given) == [1, 3]
    assert valid is not None
    assert torch.equal(valid, torch.cat([left, torch.ones_like(left)]))
    assert pool.exchange(numbered(4), left, [[SWAP, 0.0]])[1] is None


def test_what_is_kept_is_a_copy() -> None:
    pool, images = ImagePool(1), numbered(1)
    pool.exchange(images, None, [[SWAP, 0.0]])
    images.zero_()
    assert values(pool.exchange(numbered(2), None, [[SWAP, 0.0]])[0]) == [1]


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_a_pool_goes_on_from_its_state(kept, tmp_path) -> None:
    first, second = ImagePool(3), ImagePool(3)
    generator = np.random.default_rng(0)
    for value in range(kept):
        mask = None if value % 2 else torch.ones(1, 1, 4, 4) * (value > 1)
        first.exchange(numbered(value), mask, generator.random((1, 2)))
    torch.save(first.state_dict(), tmp_path / "pool.pt")
    second.load_state_dict(torch.load(tmp_path / "pool.pt", weights_only=True))
    for value in range(10, 20):
        draws = generator.random((1, 2))
        mine, my_valid = first.exchange(numbered(value), None, draws)
        theirs, their_valid = second.exchange(numbered(value), None, draws)
        assert torch.equal(mine, theirs)
        assert (my_valid is None) == (their_valid is None)
        assert my_valid is None or torch.equal(my_valid, their_valid)


def test_images_come_back_in_the_layout_they_came_in() -> None:
    pool = ImagePool(2)
    images = numbered(1, 2).to(memory_format=torch.channels_last)
    pool.exchange(numbered(3, 4), None, [[SWAP, 0.0]] * 2)
    given, _ = pool.exchange(images, None, [[SWAP, 0.0]] * 2)
    assert values(given) == [3, 1]
    assert given.is_contiguous(memory_format=torch.channels_last)

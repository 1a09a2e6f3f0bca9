import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from geotranslate.errors import SettingError
from geotranslate.networks.features import random_features
from geotranslate.translation.kid import distances, kid, kid_floor, read_features


def vectors(count, *, shift=0.0, seed=0, width=6):
    return np.random.default_rng(seed).normal(shift, 1, (count, width))


def by_definition(x, y, *, same_places):
    """Equation 4 of Bińkowski et al. 2018, written out sum by sum."""

    def k(one, other):
        return (sum(a * b for a, b in zip(one, other, strict=True)) / len(one) + 1) ** 3

    m, n = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    pairs = [(i, j) for i in range(m) for j in range(n) if not (same_places and i == j)]
    return xx + yy - 2 * sum(k(x[i], y[j]) for i, j in pairs) / len(pairs)


def test_the_estimate_is_that_of_the_paper():
    x, y = vectors(7), vectors(5, shift=0.4, seed=1)
    assert kid(x, y) == pytest.approx(by_definition(x, y, same_places=False))
    assert kid(x[:5], y, same_places=True) == pytest.approx(
        by_definition(x[:5], y, same_places=True)
    )


def test_the_estimate_is_unbiased_also_for_pairs_that_depend_on_each_other():
    alone, paired = [], []
    for seed in range(400):
        x = vectors(8, seed=seed)
        alone.append(kid(x, vectors(8, seed=1000 + seed)))
        paired.append(kid(x, 0.9 * x + 0.19**0.5 * vectors(8, seed=2000 + seed), same_places=True))
    for found in (alone, paired):
        assert abs(np.mean(found)) < 3 * np.std(found) / len(found) ** 0.5
    # Of which equation 4 knows nothing: it takes pairs for closer than chance.
    x = vectors(8)
    assert kid(x, x) < -0.1
    assert kid(x, x, same_places=True) == pytest.approx(0)


def test_the_floor_is_small_beside_a_real_difference_and_falls_with_more_images():
    few, many = kid_floor(vectors(16)), kid_floor(vectors(400))
    assert 0 < many < few / 5
    assert kid(vectors(16), vectors(16, shift=1, seed=1)) > 3 * few
    assert kid_floor(vectors(16)) == few


@pytest.fixture(scope="module")
def places():
    """Images of 32 x 32 px in two bands, rough and smooth, bright and dark."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(24):
        rough = gaussian_filter(random.normal(size=(2, 32, 32)), (0, *[random.uniform(0.5, 2)] * 2))
        made.append(np.tanh(rough / rough.std() * 0.4 + random.normal(0, 0.2)))
    return np.stack(made).astype("float32")


def described(pictures):
    return random_features(2)(torch.from_numpy(np.ascontiguousarray(pictures))).double().numpy()


def test_the_more_is_done_to_images_the_further_off_they_are(places):
    real = described(places)

    def floors(pictures):
        found, floor = distances(described(pictures), real, same_places=True)
        return found / floor

    blurs = [floors(gaussian_filter(places, (0, 0, s, s))) for s in (0.5, 1, 2)]
    noise = np.random.default_rng(1).normal(size=places.shape).astype("float32")
    noises = [floors(places + strength * noise) for strength in (0.05, 0.2)]
    assert 0 < blurs[0] < blurs[1] < blurs[2]
    assert noises[0] < noises[1]
    assert floors(-places + 0.5) > 5
    assert floors(np.broadcast_to(places.mean((0, 2, 3), keepdims=True), places.shape)) > 5
    assert floors(np.broadcast_to(places[:1], places.shape)) > 2  # all alike
    assert floors(places) == pytest.approx(0, abs=1e-6)


def test_other_real_images_are_no_further_off_than_chance(places):
    found, floor = distances(described(places[:12]), described(places[12:]), same_places=False)
    assert found < 3 * floor


def test_too_few_images_have_no_distance(places):
    real = described(places)
    assert np.isnan(distances(real[:3], real, same_places=False)).all()
    assert np.isfinite(distances(real[:4], real[:4], same_places=True)).all()


def tensors_of(features):
    return {
        f"layers.{number}.{name}": getattr(layer, name).detach().clone()
        for number, layer in enumerate(features.layers)
        for name in ("weight", "bias")
    }


def test_features_come_from_a_file(tmp_path):
    path, drawn = tmp_path / "features.safetensors", random_features(2, seed=3)
    save_file(tensors_of(drawn), path)
    shown = torch.rand(1, 2, 40, 40)
    assert torch.equal(read_features(path, 2)(shown), drawn(shown))
    with pytest.raises(
        SettingError, match=r"for images of 3 bands: weight and bias of layer 0 have"
    ):
        read_features(path, 3)


def test_a_file_of_other_things_is_refused_and_nothing_in_it_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    path = tmp_path / "features.pt"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(SettingError, match="leave out --kid-features"):
        read_features(path, 2)
    with pytest.raises(SettingError, match="leave out --kid-features"):
        read_features(tmp_path / "missing", 2)
    others = {"conv.weight": torch.zeros(3)}
    for tensors in (others, tensors_of(random_features(2)) | others):
        save_file(tensors, path)
        with pytest.raises(SettingError, match=r"its tensors are conv\.weight"):
            read_features(path, 2)

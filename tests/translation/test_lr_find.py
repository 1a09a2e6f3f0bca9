import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geotranslate.errors import SettingError
from geotranslate.networks.build import DiscriminatorSpec, GeneratorSpec
from geotranslate.translation.batch import Batch
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.learner import Learner
from geotranslate.translation.lr_find import Trial, advise, loss_weights, try_rates
from geotranslate.translation.models import build_model
from geotranslate.translation.plan import loss_config, plan_training

RATES = np.geomspace(1e-6, 1, 100)


@pytest.fixture
def plan(make_raster, tmp_path):
    random = np.random.default_rng(0)
    for number in range(3):
        for folder, count in (("images", 1), ("images2", 3)):
            pixels = random.integers(0, 255, (count, 24, 24)).astype("uint8")
            make_raster(f"chips/{folder}/{number:09d}.tif", pixels, col=40 * number)
    config = TrainConfig(
        **{"width": 4, "blocks": 1, "discriminator_width": 4, "discriminator_layers": 1},
        **{"crop": 24, "batch": 1, "device": "cpu", "precision": "float32"},
    )
    return plan_training(tmp_path / "chips", config)


def trials(losses):
    return [
        Trial(number, 100, float(rate), float(loss))
        for number, (rate, loss) in enumerate(zip(RATES, losses, strict=False), start=1)
    ]


def course(good, *, noise=0.0, seed=0):
    """A loss that falls from 10 to 4 around a rate, and explodes at 300 times that rate."""
    falling = 10 - 6 / (1 + (good / RATES) ** 2)
    exploded = falling + 30 / (1 + (300 * good / RATES) ** 4)
    return exploded * np.random.default_rng(seed).normal(1, noise, len(RATES))


@given(st.floats(1e-5, 1e-3), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_the_advice_finds_the_rate_around_which_a_noisy_loss_falls(good, seed):
    advice = advise(trials(course(good, noise=0.1, seed=seed)))
    assert good / 3 < advice.valley < good * 3
    assert good / 3 < advice.steepest < good * 3


def test_without_noise_both_are_the_middle_of_the_fall():
    advice = advise(trials(course(1e-4)))
    assert advice.valley == pytest.approx(1e-4, rel=0.3)
    assert advice.steepest == pytest.approx(1e-4, rel=0.3)
    assert advice.rates == pytest.approx(RATES)


def test_a_fall_after_the_explosion_counts_for_nothing():
    losses = course(1e-4)
    losses[90:] = 0.5  # outputs that have come to rest at their limits
    assert advise(trials(losses)).valley == pytest.approx(advise(trials(course(1e-4))).valley)


@pytest.mark.parametrize("losses", [np.full(100, 7.0), np.linspace(7, 20, 100), [3.0] * 4, []])
def test_where_no_rate_lets_the_loss_fall_none_is_advised(losses):
    with pytest.raises(SettingError, match="Try a larger --batch, or keep the default"):
        advise(trials(losses))


def test_rates_grow_by_the_same_factor_and_are_those_that_the_model_learns_with(
    plan, monkeypatch, tmp_path
):
    seen = []
    original = Learner.learn

    def learn(self, batch, *, rate=None):
        losses = original(self, batch, rate=rate)
        seen.append([g["lr"] for o in self.model.optimizers.values() for g in o.param_groups])
        return losses

    monkeypatch.setattr(Learner, "learn", learn)
    before = sorted(tmp_path.rglob("*"))
    state = torch.get_rng_state()
    done = list(try_rates(plan, lowest=1e-5, highest=1e-3, updates=5))
    assert [trial.rate for trial in done] == pytest.approx([1e-5, 10**-4.5, 1e-4, 10**-3.5, 1e-3])
    assert seen == [[trial.rate] * 2 for trial in done]
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(tmp_path.rglob("*")) == before
    again = list(try_rates(plan, lowest=1e-5, highest=1e-3, updates=5))
    assert [trial.loss for trial in again] == [trial.loss for trial in done]


@pytest.mark.parametrize("bad", [1e6, math.nan, math.inf])
def test_a_loss_beyond_measure_ends_the_test(plan, monkeypatch, bad):
    losses = iter([10.0, 9.0, 8.0, bad, 1.0])

    def learn(self, batch, *, rate):
        return {"gan": torch.tensor(next(losses)), "d": torch.tensor(0.0)}

    monkeypatch.setattr(Learner, "learn", learn)
    assert len(list(try_rates(plan, updates=5))) == 4


def test_rates_that_do_not_rise_are_refused_with_the_mend(plan):
    with pytest.raises(SettingError, match="a higher highest one"):
        next(try_rates(plan, lowest=0.1, highest=0.01))


@pytest.mark.parametrize(("model", "descent"), [("pix2pix", 1), ("cyclegan", 0)])
def test_the_loss_is_the_one_the_generators_go_down(model, descent):
    given = {"cycle": 7.0, "identity": 0.25} if model == "cyclegan" else {"l1": 3.0}
    config = TrainConfig(model=model, **given)
    learner = build_model(
        loss_config(config),
        GeneratorSpec(width=4, blocks=1),
        DiscriminatorSpec(width=4, layers=1),
        bands_a=2,
        bands_b=2,
        seed=0,
    )
    descended = []

    def backward(loss):
        descended.append(float(loss.detach()))
        Tensor.backward(loss)

    learner.backward = backward
    images = torch.rand(2, 1, 2, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    losses = learner.step(Batch(images[0], images[1], None, None), np.full((1, 4), 0.5))
    weights = loss_weights(config)
    assert weights.keys() < losses.keys()
    total = sum(weight * float(losses[name]) for name, weight in weights.items())
    assert total == pytest.approx(descended[descent], rel=1e-5)

"""By what figure the best generators are kept."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from geotranslate.errors import SettingError
from geotranslate.networks.features import random_features
from geotranslate.raster.domain import Band, Domain
from geotranslate.translation.batch import Batch
from geotranslate.translation.data import Preparation
from geotranslate.translation.learner import Learner
from geotranslate.translation.metrics import ValueRange, measure
from geotranslate.translation.plan import plan_training
from geotranslate.translation.show import Show, spread
from geotranslate.translation.validation import (
    BEST,
    NEAR_ENOUGH,
    TOLERANCE,
    _compare,
    cycle_score,
    figure_names,
    measure_generators,
    score,
)
from tests.translation.runs import config
from tests.translation.steps import flat

BYTES = ValueRange((0.0,), (255.0,))


def measured(fake, real):
    return measure(fake[None], real[None], np.ones(real.shape, bool), BYTES)


@pytest.fixture
def town():
    """Roofs of 16 px with some texture."""
    random = np.random.default_rng(0)
    roofs = random.uniform(40, 200, (8, 8)).repeat(16, 0).repeat(16, 1)
    return roofs + random.normal(0, 12, roofs.shape)


def test_nothing_is_taken_off_while_contrast_and_sharpness_are_near_the_truths(town):
    figures = measured(town + 5, town)
    assert figures.contrast == pytest.approx(1)
    assert score(figures) == pytest.approx((figures.psnr + figures.psnr8) / 2)


def test_a_grey_picture_loses_what_its_contrast_misses_beyond_the_tolerance(town):
    grey = town.mean() + 0.1 * (town - town.mean())
    figures = measured(grey, town)
    missed = 2 * (10 - TOLERANCE)  # a tenth of contrast and of sharpness is 10 dB each
    assert score(figures) == pytest.approx((figures.psnr + figures.psnr8) / 2 - missed)


def test_the_right_picture_a_pixel_off_scores_higher_than_a_flat_one(town):
    shifted = measured(np.roll(town, 1, axis=1), town)
    flat = measured(np.full_like(town, town.mean()), town)
    assert score(shifted) > score(flat) + 10


def test_a_run_measures_in_physical_units():
    bands = Band(name="red", scale=0.5, offset=-10), Band(name="height", unit="m")
    domain = Domain(
        bands=bands,
        dtype="float32",
        resolution_m=(10.0, 10.0),
        low=(0.0, -100.0),
        high=(1.0, 700.0),
    )
    real = torch.rand(1, 2, 32, 32) - 0.5
    batch = Batch(real, real, None, None)
    figures = _compare(real + 0.1, batch, domain)  # a twentieth of the range
    assert figures.psnr == pytest.approx(20 * np.log10(20), abs=1e-3)
    assert figures.bias == pytest.approx((0.05, 40), abs=1e-3)


def test_chips_are_taken_at_even_distances():
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 4) == [0, 1, 2]
    assert spread(0, 4) == []


# Without a truth ---------------------------------------------------------------------------------

UNPAIRED = {"cycle": 0.4, "kid": 0.9, "kid_floor": 0.1, "kid_a": 0.3, "kid_a_floor": 0.1}


def test_the_cycle_score_is_nearness_less_what_looks_unreal():
    expected = -10 * np.log10(0.4) - (10 * np.log10(10) + 10 * np.log10(4)) / 2
    assert cycle_score(UNPAIRED) == pytest.approx(expected)
    assert cycle_score({"cycle": 0.4}) == pytest.approx(-10 * np.log10(0.4))


@pytest.mark.parametrize(
    ("changes", "better"),
    [({"cycle": 0.2}, True), ({"kid": 0.3}, True), ({"kid_a": 0.6}, False), ({"kid": 2}, False)],
)
def test_the_cycle_score_rewards_both_ways_of_being_good(changes, better):
    assert (cycle_score(UNPAIRED | changes) > cycle_score(UNPAIRED)) is better


def test_neither_a_perfect_way_back_nor_luck_with_kid_is_rewarded():
    near = UNPAIRED | {"cycle": NEAR_ENOUGH}
    assert cycle_score(near | {"cycle": 0.001}) == cycle_score(near)
    # A copy comes back at once and looks like its input: it loses.
    assert cycle_score(UNPAIRED | {"cycle": 0.0, "kid": 8.0, "kid_a": 8.0}) < cycle_score(UNPAIRED)
    assert cycle_score(UNPAIRED | {"kid": -0.2}) == cycle_score(UNPAIRED | {"kid": 0})


def measured_of(plan, learner):
    """What the generators of a learner make of validation chips."""
    prepare = Preparation(plan.folder.domain_a, plan.folder.domain_b, plan.device)
    generators = {name: each.network for name, each in learner.averages.items()}
    show = Show(plan.folder, "val", 32, prepare)
    return measure_generators(learner.model, generators, show, plan.config.kid_features)


@pytest.mark.parametrize(("model", "kind"), [("pix2pix", "pairs"), ("cyclegan", "heaps")])
def test_every_run_has_its_figures(make_chips, model, kind):
    plan = plan_training(make_chips(kind, count=50), config(model=model))
    found = measured_of(plan, Learner(plan))
    assert set(found.figures) == set(figure_names(model, paired=plan.folder.paired))
    assert all(np.isfinite(value) for value in found.figures.values())
    assert found.figures["kid_floor"] > 0
    assert BEST[model] in found.figures
    ways = ["A to B", "B to A"] if model == "cyclegan" else ["A to B"]
    assert [each.way for each in found.signs] == ways
    assert set(found.clipped) == {
        f"{name} of {letter}"
        for letter, domain in (("A", plan.folder.domain_a), ("B", plan.folder.domain_b))
        for name in domain.names
    }
    if model == "cyclegan":
        total = sum(each.cycle for each in found.signs)
        assert found.figures["cycle"] == pytest.approx(total, rel=0.5)  # of one chip of four
        assert all(each.rounded_cycle < 2 * each.cycle for each in found.signs)


def test_measuring_draws_no_random_numbers_and_changes_nothing(make_chips):
    plan = plan_training(make_chips("heaps", count=50), config(model="cyclegan"))
    learner = Learner(plan)
    state, numbers = flat(learner.state_dict()), torch.get_rng_state()
    one, other = (measured_of(plan, learner) for _ in range(2))
    assert torch.equal(numbers, torch.get_rng_state())
    assert torch.equal(state, flat(learner.state_dict()))
    assert one.figures == other.figures
    assert str(one) == str(other)


def test_features_from_a_file_give_another_kid(make_chips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for bands in (2, 3):
        state = random_features(bands, seed=9).state_dict()
        save_file({name: each.contiguous() for name, each in state.items()}, f"{bands}.safetensors")
    chips = make_chips(count=50)
    plain = plan_training(chips, config())
    other = plan_training(chips, config(kid_features="3.safetensors"))
    assert other.config.kid_features == str(tmp_path / "3.safetensors")
    one, two = (measured_of(plan, Learner(plan)).figures for plan in (plain, other))
    assert {name for name in one if one[name] != two[name]} == {"kid", "kid_floor"}
    with pytest.raises(SettingError, match=r"no features for images of 3 bands.*shapes \(32, 2, 3"):
        plan_training(chips, config(kid_features="2.safetensors"))


def test_one_band_has_no_spectral_angle():
    bands = (Band(name="grey"),)
    domain = Domain(bands=bands, dtype="uint8", resolution_m=(1.0, 1.0), low=(0.0,), high=(255.0,))
    real = torch.rand(1, 1, 32, 32)
    assert np.isnan(_compare(real, Batch(real, real), domain).sam)

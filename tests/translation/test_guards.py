"""What goes wrong is said once, in a sentence, and nothing is said of what goes well."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from geotranslate.chips.file import read_chip
from geotranslate.choices import DISCRIMINATOR_NORMS
from geotranslate.errors import TrainingError
from geotranslate.raster.domain import Band, Domain
from geotranslate.translation import guards as module
from geotranslate.translation import train as train_module
from geotranslate.translation.batch import Batch
from geotranslate.translation.checkpoint import load_checkpoint
from geotranslate.translation.guards import (
    CHANCE,
    LOST,
    OF_SIGNS,
    ROWS,
    WON_ROWS,
    Guards,
    Warned,
    clipping,
    explosion,
    lost,
    read_guards,
    won,
)
from geotranslate.translation.pix2pix import Pix2Pix
from geotranslate.translation.plan import plan_training
from geotranslate.translation.signs import (
    Observer,
    Shown,
    share_clipped,
    shared_by_name,
)
from geotranslate.translation.train import learn, train
from geotranslate.translation.validation import _rounded, _Way
from tests.translation.runs import KIND, config, finish

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def few_statistics(monkeypatch):
    monkeypatch.setattr(train_module, "STATISTICS_IMAGES", 8)


LSGAN = CHANCE["lsgan"]


def domain(*names, low=0.0, high=255.0):
    return Domain(
        bands=tuple(Band(name=name) for name in names),
        dtype="uint8",
        resolution_m=(10.0, 10.0),
        low=(low,) * len(names),
        high=(high,) * len(names),
    )


@pytest.fixture(scope="module")
def places():
    """Radar of two bands and optical images of three, of 12 places: dark water, bright roofs."""
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(12):
        kinds = random.uniform(-0.7, 0.5, (6, 6)).repeat(8, 0).repeat(8, 1)
        tint = np.array([1.0, 0.8, 0.6])[:, None, None]
        optical = kinds * tint + random.normal(0, 0.08, (3, 48, 48))
        radar = np.stack([np.sqrt(np.abs(kinds)) - 0.3, 0.6 * kinds]) + random.normal(
            0, 0.3, (2, 48, 48)
        )
        pairs.append((radar.clip(-1, 1), optical.clip(-1, 1)))
    return pairs


def observed(places, translate, *, paired=True, shared=(), valid=None):
    """Signs of what ``translate`` makes of radar and of the truth."""
    observer = Observer("A to B", domain("R", "G", "B"), paired=paired, shared=shared)
    valid = np.ones(places[0][0].shape[1:], bool) if valid is None else valid
    for number, (radar, optical) in enumerate(places):
        other = places[number - 1][1]
        real = optical if paired else other
        observer.see(Shown(radar, translate(radar, optical), real, valid, valid))
    return observer.signs()


def fired(signs):
    return {name for name, look in OF_SIGNS.items() if look(signs)}


def blurred(optical):
    """What is learned by now: the right colours, without detail."""
    cells = optical.reshape(3, 12, 4, 12, 4).mean((2, 4))
    return 0.7 * cells.repeat(4, 1).repeat(4, 2)


HEALTHY = {
    "the truth": lambda _, optical: optical,
    "blurred": lambda _, optical: blurred(optical),
    "noisy": lambda _, optical: (
        blurred(optical) + np.random.default_rng(1).normal(0, 0.2, optical.shape)
    ),
    "half grey": lambda _, optical: 0.4 * blurred(optical) - 0.1,
}
BAD = {
    "input copy": lambda radar, _: np.stack([radar.mean(0)] * 3) + 0.02,
    "passed through": lambda radar, _: np.stack([0.5 * radar.mean(0) - 0.3] * 3),
    "collapse": lambda *_: np.linspace(-0.6, 0.4, 48) * np.ones((3, 48, 1)),
    "inversion": lambda _, optical: -optical - 0.2,
    "saturation": lambda _, optical: np.where(optical > -0.1, 1.0, -0.95),
}


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("paired", [True, False])
def test_nothing_is_said_of_a_translation_that_is_on_its_way(places, name, paired):
    assert fired(observed(places, HEALTHY[name], paired=paired)) == set()


@pytest.mark.parametrize("name", BAD)
def test_what_goes_wrong_is_noticed(places, name):
    assert fired(observed(places, BAD[name])) == {name}


@pytest.mark.parametrize("name", ["passed through", "collapse", "saturation"])
def test_what_needs_no_truth_is_noticed_without_pairs(places, name):
    assert fired(observed(places, BAD[name], paired=False)) == {name}


def test_real_radar_and_optical_images_are_told_apart(real_data):
    files = sorted((real_data / "volkov-s1s2-1024" / "opt").glob("*.tif"))[:12]
    radar, optical = (
        [
            read_chip(file.parents[1] / kind / file.name).pixels[:, 256:512, 256:512]
            for file in files
        ]
        for kind in ("sar", "opt")
    )
    pairs = [(a / 127.5 - 1, b / 127.5 - 1) for a, b in zip(radar, optical, strict=True)]
    for expected, translate in {
        "": lambda _, b: gaussian_filter(b, (0, 4, 4)),
        "input copy": lambda a, _: a.repeat(3, 0) * np.array([1, 0.8, 0.7])[:, None, None],
        "passed through": lambda a, _: a.repeat(3, 0) * 0.5 - 0.2,
        "collapse": lambda *_: pairs[3][1],
        "inversion": lambda _, b: -b,
        "saturation": lambda _, b: np.sign(b + 0.3),
    }.items():
        assert fired(observed(pairs, translate)) == {expected} - {""}


def test_values_under_invalid_pixels_are_no_sign(places):
    valid = np.ones((48, 48), bool)
    valid[:, 30:] = False

    def spoiled(value):
        return [(np.where(valid, a, value), np.where(valid, b, value)) for a, b in places]

    one, other = (
        observed(spoiled(value), lambda a, b: b + 0.1 * a[:1], valid=valid) for value in (0.0, 9.0)
    )
    assert one == pytest.approx(other, nan_ok=True) or str(one) == str(other)
    # A chip without any data is no reason to fall.
    nothing = observed(places, HEALTHY["blurred"], valid=np.zeros_like(valid))
    assert fired(nothing) == set()


def test_an_image_that_is_alike_on_both_sides_is_no_copy_as_long_as_it_gets_nearer(places):
    def near(optical):
        return 0.9 * optical + 0.02

    observer = Observer("A to B", domain("R", "G", "B"), paired=True)
    valid = np.ones((48, 48), bool)
    for _, optical in places:
        observer.see(Shown(near(optical), 0.97 * optical, optical, valid, valid))
    assert observer.signs().likeness > 0.99
    assert fired(observer.signs()) == set()


@pytest.mark.parametrize(("error", "found"), [(0.1, set()), (0.005, {"input copy"})])
def test_where_both_sides_are_nearly_one_image_only_what_is_nearer_is_a_copy(places, error, found):
    observer = Observer("A to B", domain("R", "G", "B"), paired=True)
    valid = np.ones((48, 48), bool)
    for _, optical in places:
        observer.see(Shown(optical, optical - error, optical + 0.02, valid, valid))
    assert observer.signs().to_input < observer.signs().to_truth
    assert fired(observer.signs()) == found


def test_exchanged_dark_and_bright_are_noticed_without_pairs_where_that_can_be_known(places):
    # By a band that both sides have.
    exchanged = observed(places, lambda radar, _: np.stack([-radar[1]] * 3), paired=False)
    assert "inversion" not in fired(exchanged)
    exchanged = observed(
        places, lambda radar, _: np.stack([-radar[1]] * 3), paired=False, shared=[(1, 0)]
    )
    assert exchanged.bands["R"] < -0.9
    assert fired(exchanged) == {"inversion"}
    # By the brightness: real images are dark, translations bright.
    dark = [(radar, optical - 0.4) for radar, optical in places]
    mirrored = observed(dark, BAD["inversion"], paired=False)
    assert mirrored.off > 3 * mirrored.mirrored_off
    assert fired(mirrored) == {"inversion"}


def test_bands_are_shared_by_name_but_not_by_number():
    a, b = domain("VV", "red", "band 1"), domain("band 1", "green", "red")
    assert shared_by_name(a, b) == [(1, 2)]


class Hides(nn.Module):
    """A to B: a coarse picture of something else that holds the input in less than 8 bits."""

    def forward(self, images, context):
        return (images.flip(-1) * 4).round() / 4 + images / 512


class Finds(nn.Module):
    """B to A: reads from a picture what `Hides` put there."""

    def forward(self, images, context):
        return ((images - (images * 4).round() / 4) * 512).clamp(-1, 1)


class Learned(nn.Module):
    """What can be seen is all there is."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, images, context):
        return self.factor * images


@pytest.mark.parametrize(
    ("there", "back", "found"),
    [
        (Hides(), Finds(), {"hidden copy"}),
        (Learned(-0.9), Learned(-1.1), set()),
        (Learned(0.95), Learned(0.95), {"passed through"}),
    ],
)
def test_a_copy_that_hides_is_found_by_rounding(make_chips, there, back, found):
    folder = plan_training(make_chips("heaps"), config(model="cyclegan")).folder
    way = _Way("a", "b", folder)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        radar, optical = torch.rand(2, 1, 3, 48, 48, generator=generator) * 1.6 - 0.8
        fake = there(radar, None)
        pictures = {"real_a": radar, "real_b": optical, "fake_b": fake, "rec_a": back(fake, None)}
        batch = Batch(radar, optical)
        way.see(pictures, batch)
        way.see_way_back(pictures, batch, {"g_ba": back})
    signs = way.signs()
    assert signs.cycle < 0.15
    assert fired(signs) == found


def test_rounding_is_that_of_8_bits():
    images = torch.rand(3, 3, 20, 20) * 2 - 1
    stored = ((images + 1) / 2 * 255).round().to(torch.uint8)
    torch.testing.assert_close(_rounded(images), stored.float() / 255 * 2 - 1)
    assert _rounded(images).unique().numel() <= 256


def test_what_the_normalization_cuts_off_is_counted_band_by_band():
    stored = np.stack([np.arange(100.0), np.full(100, 300.0)]).reshape(2, 10, 10)
    valid = np.ones((10, 10), bool)
    kind = domain("x", "y", low=10, high=89)
    np.testing.assert_allclose(share_clipped(stored, valid, kind), [0.2, 1])
    valid[5:] = False
    np.testing.assert_allclose(share_clipped(stored, valid, kind), [0.2, 1])
    # What lies on the ends is inside, also where float32 rounds it out.
    ends = domain("x", low=-0.1, high=0.7)
    assert share_clipped(np.float32([[[-0.1, 0.7]]]), np.ones((1, 2), bool), ends) == [0]
    said = clipping({"x of A": 0.2, "y of A": 0.01})
    assert said.startswith("20% of the values of x of A lie outside")
    assert clipping({"x of A": 0.002}) is None


# Rows of the log ----------------------------------------------------------------------------------


def swinging(count, *, level=0.2, seed=0):
    """Losses of a healthy run: they swing, and distances get smaller."""
    random = np.random.default_rng(seed)
    return [
        {
            "d": level * random.uniform(0.6, 1.2),
            "gan": 0.4 * random.uniform(0.7, 2),
            "l1": 0.3 / (1 + row / 20) * random.uniform(0.8, 1.3),
        }
        for row in range(count)
    ]


def said_of(rows, run, gan_loss="lsgan"):
    watch = Guards(run, gan_loss)
    return [
        each.guard
        for number, row in enumerate(rows, start=1)
        for each in watch.see_losses(20 * number, row)
    ]


@pytest.mark.parametrize("gan_loss", CHANCE)
@pytest.mark.parametrize("share", [0.15, 0.4, 0.8])
def test_nothing_is_said_of_losses_that_swing(tmp_path, gan_loss, share):
    rows = swinging(400, level=share * CHANCE[gan_loss])
    assert said_of(rows, tmp_path, gan_loss) == []
    assert not (tmp_path / "guards.csv").exists()


def test_a_loss_beyond_its_own_history_is_an_explosion(tmp_path):
    rows = [*swinging(30), {"d": 0.3, "gan": 0.5, "l1": 4.0}]
    assert set(explosion(rows, LSGAN)) == {"l1"}
    assert explosion([{"l1": 0.1}, {"l1": 50.0}], LSGAN) == {}  # of one row nothing is known
    # A small loss that grows is no explosion while it is below what guessing costs.
    assert explosion([*[{"d": 0.004}] * 20, {"d": 0.3}], LSGAN) == {}
    assert said_of([*rows, *rows], tmp_path) == ["explosion"] * 2


def test_a_discriminator_that_is_never_wrong_has_won(tmp_path):
    rows = [{"d_a": 0.2, "d_b": 0.001, "gan_ab": 1.0}] * WON_ROWS
    assert set(won(rows, LSGAN)) == {"d_b"}
    assert won(rows[1:], LSGAN) == {}
    assert won([{"d_b": 0.2}, *rows[1:]], LSGAN) == {}
    assert said_of(rows * 3, tmp_path) == ["discriminator won"]


@pytest.mark.parametrize("norm", DISCRIMINATOR_NORMS)
def test_a_norm_that_the_discriminator_has_is_not_advised(make_chips, tmp_path, monkeypatch, norm):
    monkeypatch.setattr(module, "WON_ROWS", 1)
    monkeypatch.setattr(module, "WON", math.inf)
    words = config(updates=1, discriminator_norm=norm)
    said = [each for step in train(make_chips(), tmp_path / "run", words) for each in step.warnings]
    (sentence,) = [each.sentence for each in said if each.guard == "discriminator won"]
    assert ("--discriminator-norm spectral" in sentence) == (norm != "spectral")
    assert ("--learning-rate" in sentence) == (norm == "spectral")


@pytest.mark.parametrize("gan_loss", CHANCE)
def test_a_discriminator_that_guesses_has_lost(gan_loss):
    guess = CHANCE[gan_loss]
    assert set(lost([{"d": guess * 1.001}] * ROWS, guess)) == {"d"}
    assert lost([{"d": guess}] * (ROWS - 1), guess) == {}
    assert lost([*[{"d": guess}] * (ROWS - 1), {"d": guess * LOST * 0.99}], guess) == {}


@pytest.mark.parametrize("gan_loss", CHANCE)
def test_guessing_costs_what_the_loss_says(gan_loss):
    from geotranslate.networks.patchgan import PatchGAN
    from geotranslate.translation.losses import Judgement

    judge = Judgement(gan_loss, PatchGAN(1, 4).field)
    halfway = 0.5 if gan_loss == "lsgan" else 0.0
    scores = torch.full((1, 1, 4, 4), halfway)
    cost = (judge.as_real(scores, None) + judge.as_fake(scores, None)) / 2
    assert float(cost) == pytest.approx(CHANCE[gan_loss])


# What is said ------------------------------------------------------------------------------------


def test_a_stretch_is_said_once_and_again_when_it_comes_again(places, tmp_path):
    good, bad = (observed(places, kind) for kind in (HEALTHY["blurred"], BAD["collapse"]))
    watch, said = Guards(tmp_path, "lsgan"), []
    for number, signs in enumerate([good, bad, bad, good, bad], start=1):
        update = module.GRACE + 100 * number
        said += watch.see_signs(update, [signs], {})
        watch.see_losses(update, {"d": 0.2})  # what other guards see ends no stretch
        watch = Guards(tmp_path, "lsgan", watch.state())  # nor does an interruption
    assert [(each.update, each.guard) for each in said] == [(400, "collapse"), (700, "collapse")]
    assert read_guards(tmp_path) == said


def test_networks_that_have_hardly_begun_may_make_anything(places, tmp_path):
    collapsed = observed(places, BAD["collapse"])
    assert Guards(tmp_path, "lsgan").see_signs(module.GRACE, [collapsed], {}) == []
    assert Guards(tmp_path, "lsgan").see_signs(module.GRACE + 1, [collapsed], {}) != []


def test_every_guard_says_what_why_and_what_to_do_in_one_sentence(places, tmp_path, caplog):
    watch, guess = Guards(tmp_path, "lsgan"), LSGAN
    bad = [observed(places, translate) for translate in BAD.values()]
    hidden = replace(bad[0], cycle=0.01, rounded_cycle=0.4, likeness=0.99)
    said = []
    for signs in [*bad, hidden]:
        said += watch.see_signs(1000, [signs], {"VV of A": 0.4})
        watch.see_signs(1000, [observed(places, HEALTHY["blurred"])], {})
    for row in [{"d": 0.001}] * WON_ROWS + [{"d": guess}] * ROWS + [{"d": 100.0}]:
        said += watch.see_losses(2000, row)
    names = {"clipping", *OF_SIGNS, *module.OF_LOSSES}
    assert {each.guard for each in said} == names
    for each in said:
        assert each.sentence.endswith(".")
        assert ". " not in each.sentence
        assert each.sentence[0].isupper() or each.sentence[0].isdigit()
        assert ", so that " in each.sentence
        assert ": " in each.sentence.split(", so that ")[1]
    assert len(caplog.messages) == len(said)
    assert "update 1000, input copy: What A to B makes is nearer" in caplog.text


# Through a run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", KIND)
def test_a_healthy_run_says_nothing(make_chips, tmp_path, monkeypatch, model):
    monkeypatch.setattr(module, "GRACE", 10)
    monkeypatch.setattr(train_module, "LOG_EVERY", 2)
    words = config(model=model, updates=2 * (ROWS + 10), checkpoint_every=60, samples_every=120)
    steps = list(train(make_chips(KIND[model], count=40), tmp_path / "run", words))
    assert sum(bool(step.row) for step in steps) == ROWS + 10
    assert [step.warnings for step in steps if step.warnings] == []
    assert not (tmp_path / "run" / "guards.csv").exists()


def test_a_rate_far_too_high_is_said_by_the_run(make_chips, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0)
    words = config(updates=30, learning_rate=3.0, checkpoint_every=10, norm="none")
    steps = list(train(make_chips(count=40), tmp_path / "run", words))
    said = [each for step in steps for each in step.warnings]
    assert said == read_guards(tmp_path / "run")
    assert {"saturation", "collapse"} & {each.guard for each in said}
    assert load_checkpoint(tmp_path / "run")["guards"]["firing"]


def test_chips_that_are_cut_off_are_said_by_the_run(make_chips, tmp_path):
    plan = plan_training(make_chips(), config())
    narrow = plan.folder.domain_b.model_copy(update={"high": (60.0, 255.0, 255.0)})
    plan = replace(plan, folder=replace(plan.folder, domain_b=narrow))
    said = [each for step in learn(plan, tmp_path / "run") for each in step.warnings]
    assert [(each.update, each.guard) for each in said] == [(1, "clipping")]
    assert "band 1 of B" in said[0].sentence


def test_a_run_that_stops_keeps_why(make_chips, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(TrainingError) as error:
        finish(train(make_chips(), run, config(updates=60, learning_rate=1e38)))
    (said,) = read_guards(run)
    assert (said.guard, said.sentence) == ("no number", str(error.value))
    assert str(said.update) in said.sentence
    assert math.isfinite(said.update)


def test_what_guards_said_is_a_table(tmp_path):
    watch = Guards(tmp_path, "bce")
    said = [Warned(20, "one, two", 'He said "no".'), Warned(40, "three", "It is 5 % of ä.")]
    for each in said:
        watch.tell(each)
    assert read_guards(tmp_path) == said


def test_what_was_said_after_the_last_checkpoint_is_said_once(make_chips, tmp_path, monkeypatch):
    def third_row(losses, chance):
        return {"d": "the third row came, so that it is said: go on"} if len(losses) == 3 else {}

    monkeypatch.setitem(module.OF_LOSSES, "third row", third_row)
    chips, run, words = make_chips(), tmp_path / "run", config(updates=45, checkpoint_every=30)
    original, calls = Pix2Pix.step, []

    def failing(self, batch, draws):
        calls.append(1)
        if len(calls) == 43:
            raise OSError("power failure")
        return original(self, batch, draws)

    monkeypatch.setattr(Pix2Pix, "step", failing)
    with pytest.raises(OSError, match="power failure"):
        finish(train(chips, run, words))
    assert load_checkpoint(run)["update"] == 30
    assert [(each.update, each.guard) for each in read_guards(run)] == [(40, "third row")]
    said = [each for step in train(chips, run, words) for each in step.warnings]
    assert read_guards(run) == said
    assert [(each.update, each.guard) for each in said] == [(40, "third row")]

"""CycleGAN: unequal bands, identity, masks, and going on exactly where it stopped."""

import numpy as np
import pytest
import torch
from torch import Tensor

from geotranslate.choices import NORMS
from geotranslate.errors import SettingError
from geotranslate.networks.build import DiscriminatorSpec, GeneratorSpec
from geotranslate.networks.norms import BatchNorm
from geotranslate.translation.batch import Batch
from geotranslate.translation.cyclegan import CycleGAN, CycleGANConfig
from geotranslate.translation.models import build_model
from tests.translation.steps import Waits, flat, gradients_at_outputs, same, smooth, spoiled

DRAWS = np.random.default_rng(0).random((20, 2, 4))


def small(
    bands: tuple[int, int] = (2, 2),
    norm: str = "instance",
    seed: int = 0,
    d_norm: str = "spectral",
    **settings,
) -> CycleGAN:
    model = build_model(
        CycleGANConfig(**{"image_pool": 3, **settings}),
        GeneratorSpec(width=4, blocks=1, norm=norm),
        DiscriminatorSpec(width=4, layers=2, norm=d_norm),
        bands_a=bands[0],
        bands_b=bands[1],
        seed=seed,
    )
    assert isinstance(model, CycleGAN)
    return model


def images(bands: tuple[int, int] = (2, 2), seed: int = 0, *, whole: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    real = [smooth(2, count, generator) for count in bands]
    valid = [(torch.rand(2, 1, 32, 32, generator=generator) < 0.8).float() for _ in bands]
    return Batch(*real) if whole else Batch(*real, *valid)


def test_the_way_there_and_back_gets_shorter() -> None:
    model, batch = small(learning_rate=3e-3), images()
    losses = [model.step(batch, DRAWS[update % 20]) for update in range(30)]
    for name in ("cycle_a", "cycle_b", "idt_a", "idt_b"):
        assert losses[-1][name] < losses[0][name] * 0.7
    assert not any(loss.requires_grad for loss in losses[0].values())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("d_norm", ["spectral", "instance"])
@pytest.mark.parametrize("bands", [(2, 2), (2, 3)])
def test_values_under_invalid_pixels_change_no_loss_and_no_gradient(norm, d_norm, bands) -> None:
    batch = images(bands, whole=False)
    one, other = (small(bands, norm, d_norm=d_norm, image_pool=1) for _ in range(2))
    for update, value in enumerate((-1.0, torch.nan)):
        mine = one.step(batch, DRAWS[update])
        theirs = other.step(spoiled(batch, value), DRAWS[update])
        assert same(mine, theirs)
    assert same(one.state_dict(), other.state_dict())
    assert flat(one.state_dict()).isfinite().all()


def test_what_is_painted_under_invalid_pixels_gets_no_gradient() -> None:
    model, batch = small(), images(whole=False)
    gradients = gradients_at_outputs(model.networks["g_ab"])
    model.step(batch, DRAWS[0])
    there, back = sorted(gradients, key=len)
    assert torch.equal(there.ne(0).any(dim=1, keepdim=True), batch.valid_a > 0)
    assert torch.equal(back.ne(0).any(dim=1, keepdim=True), batch.valid_b.repeat(2, 1, 1, 1) > 0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("d_norm", ["spectral", "instance"])
def test_a_mask_of_ones_is_as_no_mask(norm, d_norm) -> None:
    batch, ones = images(), torch.ones(2, 1, 32, 32)
    mine = small(norm=norm, d_norm=d_norm).step(batch, DRAWS[0])
    masked = Batch(batch.real_a, batch.real_b, ones, ones)
    theirs = small(norm=norm, d_norm=d_norm).step(masked, DRAWS[0])
    for name, loss in mine.items():
        torch.testing.assert_close(loss, theirs[name], atol=1e-4, rtol=1e-4)


def test_the_two_sides_may_have_different_masks() -> None:
    batch = images(whole=False)
    only_b = Batch(batch.real_a, batch.real_b, None, batch.valid_b)
    ones = torch.ones_like(batch.valid_b)
    both = Batch(batch.real_a, batch.real_b, ones, batch.valid_b)
    mine, theirs = small().step(only_b, DRAWS[0]), small().step(both, DRAWS[0])
    for name, loss in mine.items():
        torch.testing.assert_close(loss, theirs[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bands", [(2, 3), (3, 4), (12, 3)])
def test_bands_may_differ_and_identity_is_then_off(bands) -> None:
    model = small(bands, "batch")
    losses = model.step(images(bands), DRAWS[0])
    assert set(losses) == {"gan_ab", "gan_ba", "cycle_a", "cycle_b", "d_a", "d_b"}
    pictures = model.pictures(images(bands, whole=False))
    sizes = {name: len(picture[0]) for name, picture in pictures.items()}
    a, b = bands
    assert sizes == {"fake_b": b, "rec_a": a, "fake_a": a, "rec_b": b}


def calls_of(model: CycleGAN, name: str, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """What goes through a network in one step, and what comes out."""
    calls: list[tuple[Tensor, Tensor]] = []
    hook = model.networks[name].register_forward_hook(
        lambda module, args, result: calls.append((args[0].detach(), result.detach()))
    )
    model.step(batch, DRAWS[0])
    hook.remove()
    return calls


def test_with_all_bands_shared_identity_is_the_papers() -> None:
    batch, model = images(), small()
    (real_a, _), (cycle_and_identity, back) = calls_of(model, "g_ab", batch)
    assert torch.equal(real_a, batch.real_a)
    assert torch.equal(cycle_and_identity[2:], batch.real_b)
    idt_b = (back[2:] - batch.real_b).abs().mean()
    torch.testing.assert_close(small().step(batch, DRAWS[0])["idt_b"], idt_b)


def test_with_some_bands_shared_identity_is_about_these() -> None:
    bands, shared = (2, 3), ((1, 3),)
    batch, model = images(bands), small(bands, identity_bands=shared)
    _, (into_ab, out_of_ab) = calls_of(model, "g_ab", batch)
    fake_a, already_b = into_ab.chunk(2)
    assert torch.equal(already_b[:, 0], batch.real_b[:, 2])
    assert torch.equal(already_b[:, 1], fake_a[:, 1])
    idt_b = (out_of_ab[2:, 2] - batch.real_b[:, 2]).abs().mean()

    model = small(bands, identity_bands=shared)
    _, (into_ba, out_of_ba) = calls_of(model, "g_ba", batch)
    fake_b, already_a = into_ba.chunk(2)
    assert torch.equal(already_a[:, 2], batch.real_a[:, 0])
    assert torch.equal(already_a[:, :2], fake_b[:, :2])
    idt_a = (out_of_ba[2:, 0] - batch.real_a[:, 0]).abs().mean()

    losses = small(bands, identity_bands=shared).step(batch, DRAWS[0])
    torch.testing.assert_close(losses["idt_b"], idt_b)
    torch.testing.assert_close(losses["idt_a"], idt_a)


@pytest.mark.parametrize("setting", [{"identity": 0.0}, {"identity_bands": ()}])
def test_identity_can_be_turned_off(setting) -> None:
    assert "idt_a" not in small(**setting).step(images(), DRAWS[0])


@pytest.mark.parametrize("pair", [(0, 1), (3, 1), (1, 4)])
def test_an_identity_band_that_is_not_there_is_refused_with_the_mend(pair) -> None:
    with pytest.raises(SettingError, match="Name a band of A from 1 to 2"):
        small((2, 3), identity_bands=(pair,))


def test_only_real_images_of_the_source_move_the_running_statistics() -> None:
    model, batch = small(norm="batch"), images()
    seen: dict[str, list[Tensor]] = {"g_ab": [], "g_ba": []}
    norms = {}
    for name, inputs in seen.items():
        norm = next(m for m in model.networks[name].modules() if isinstance(m, BatchNorm))
        norm.register_forward_hook(lambda m, args, result, into=inputs: into.append(args[0]))
        norms[name] = norm
    model.step(batch, DRAWS[0])
    for name, norm in norms.items():
        real = seen[name][0]
        torch.testing.assert_close(norm.running_mean, 0.1 * real.mean(dim=(0, 2, 3)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_model_goes_on_from_its_state_bit_for_bit(layout, tmp_path) -> None:
    straight, first, second = small(), small(), small(seed=1)
    for model in (straight, first, second):
        for network in model.networks.values():
            network.to(memory_format=layout)
    batches = [images(seed=seed, whole=seed % 3 > 0) for seed in range(6)]
    for batch, draws in zip(batches, DRAWS, strict=False):
        straight.step(batch, draws)
    for batch, draws in zip(batches[:3], DRAWS, strict=False):
        first.step(batch, draws)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for batch, draws in zip(batches[3:], DRAWS[3:], strict=False):
        second.step(batch, draws)
    assert same(straight.state_dict(), second.state_dict())


def test_the_discriminators_see_earlier_images_as_the_draws_say() -> None:
    exchange = np.zeros((2, 4))
    with_pool, without = small(image_pool=2), small(image_pool=0)
    for seed in range(2):
        mine = with_pool.step(images(seed=seed), exchange)
        theirs = without.step(images(seed=seed), exchange)
        assert (mine["d_b"] == theirs["d_b"]) == (seed == 0)
        assert mine["gan_ab"] == theirs["gan_ab"]


def test_pictures_are_those_of_prediction_and_change_nothing() -> None:
    model, batch = small(norm="batch"), images(whole=False)
    model.step(batch, DRAWS[0])
    before = flat(model.state_dict())
    pictures = model.pictures(batch)
    for name, valid in (
        ("fake_b", batch.valid_a),
        ("rec_a", batch.valid_a),
        ("fake_a", batch.valid_b),
    ):
        assert pictures[name][valid.expand_as(pictures[name]) == 0].eq(0).all()
    assert torch.equal(flat(model.state_dict()), before)
    assert all(network.training for network in model.networks.values())


@pytest.mark.parametrize("whole", [True, False])
def test_a_step_never_waits_for_the_device(whole) -> None:
    model = small(image_pool=1)
    model.step(images(), DRAWS[0])
    with Waits() as waits:
        model.step(images(seed=1, whole=whole), DRAWS[1])
    assert waits.count == 0

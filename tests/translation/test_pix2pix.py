"""pix2pix: learns pairs, from valid pixels alone, and goes on exactly where it stopped."""

import copy

import pytest
import torch
from torch import Tensor

from geotranslate.choices import GAN_LOSSES, NORMS
from geotranslate.networks.build import DiscriminatorSpec, GeneratorSpec
from geotranslate.networks.norms import BatchNorm
from geotranslate.translation.batch import Batch
from geotranslate.translation.models import build_model
from geotranslate.translation.pix2pix import Pix2Pix, Pix2PixConfig
from tests.translation.steps import Waits, flat, gradients_at_outputs, same, smooth, spoiled

SMALL_D = DiscriminatorSpec(width=4, layers=2)


def small(norm: str = "batch", seed: int = 0, d_norm: str = "spectral", **settings) -> Pix2Pix:
    model = build_model(
        Pix2PixConfig(**settings),
        GeneratorSpec(width=4, blocks=1, norm=norm),
        SMALL_D.model_copy(update={"norm": d_norm}),
        bands_a=2,
        bands_b=3,
        seed=seed,
    )
    assert isinstance(model, Pix2Pix)
    return model


def pairs(seed: int = 0, *, whole: bool = True, count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    real_a = smooth(count, 2, generator)
    real_b = torch.cat([real_a, -real_a[:, :1]], dim=1) / 2
    valid = (torch.rand(count, 1, 32, 32, generator=generator) < 0.8).float()
    return Batch(real_a, real_b) if whole else Batch(real_a, real_b, valid, valid)


@pytest.mark.parametrize("gan_loss", GAN_LOSSES)
def test_the_distance_to_the_truth_falls(gan_loss) -> None:
    model, batch = small(gan_loss=gan_loss, learning_rate=1e-3), pairs()
    losses = [model.step(batch) for _ in range(50)]
    assert set(losses[0]) == {"d", "gan", "l1", "pool_l2"}
    assert losses[-1]["l1"] < losses[0]["l1"] / 2
    assert losses[-1]["pool_l2"] < losses[0]["pool_l2"] / 2
    assert not any(loss.requires_grad for loss in losses[0].values())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("d_norm", ["spectral", "instance"])
def test_values_under_invalid_pixels_change_no_loss_and_no_gradient(norm, d_norm) -> None:
    batch = pairs(whole=False)
    one, other = small(norm, d_norm=d_norm), small(norm, d_norm=d_norm)
    for value in (-1.0, torch.nan):
        mine, theirs = one.step(batch), other.step(spoiled(batch, value))
        assert same(mine, theirs)
    assert same(one.state_dict(), other.state_dict())
    assert flat(one.state_dict()).isfinite().all()


def test_a_discriminator_of_detail_pays_no_heed_to_coarse_colours() -> None:
    gradients = {}
    for judge in ("detail", "image"):
        model = small(judge=judge, l1=0, pool_l2=0, norm="none")
        seen = gradients_at_outputs(model.networks["g_ab"])
        model.step(pairs())
        (gradient,) = seen
        gradients[judge] = gradient
    coarse = {judge: each.mean((2, 3)).abs().max() for judge, each in gradients.items()}
    assert coarse["detail"] < coarse["image"] / 100


def test_what_is_painted_under_invalid_pixels_gets_no_gradient() -> None:
    model, batch = small(), pairs(whole=False)
    gradients = gradients_at_outputs(model.networks["g_ab"])
    model.step(batch)
    (gradient,) = gradients
    assert torch.equal(gradient.ne(0).any(dim=1, keepdim=True), batch.valid_b > 0)


def test_a_change_of_a_valid_pixel_does_change_the_losses() -> None:
    batch = pairs(whole=False)
    changed = batch.real_a.clone()
    changed[batch.valid_a.expand_as(changed) > 0] += 0.1
    mine = small().step(batch)
    theirs = small().step(Batch(changed, batch.real_b, batch.valid_a, batch.valid_b))
    assert all(mine[name] != theirs[name] for name in mine)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("d_norm", ["spectral", "instance"])
def test_a_mask_of_ones_is_as_no_mask(norm, d_norm) -> None:
    batch, ones = pairs(), torch.ones(2, 1, 32, 32)
    mine = small(norm, d_norm=d_norm).step(batch)
    theirs = small(norm, d_norm=d_norm).step(Batch(batch.real_a, batch.real_b, ones, ones))
    for name, loss in mine.items():
        torch.testing.assert_close(loss, theirs[name], atol=1e-4, rtol=1e-4)


def test_pairs_without_a_valid_pixel_teach_nothing_and_break_nothing() -> None:
    model, nothing = small(), torch.zeros(2, 1, 32, 32)
    batch = pairs()
    losses = model.step(Batch(batch.real_a, batch.real_b, nothing, nothing))
    assert all(loss == 0 for loss in losses.values())
    assert flat(model.state_dict()).isfinite().all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_model_goes_on_from_its_state_bit_for_bit(layout, tmp_path) -> None:
    straight, first, second = small(), small(), small(seed=1)
    for model in (straight, first, second):
        for network in model.networks.values():
            network.to(memory_format=layout)
    batches = [pairs(seed, whole=seed % 2 > 0) for seed in range(4)]
    for batch in batches:
        straight.step(batch)
    for batch in batches[:2]:
        first.step(batch)
    state = copy.deepcopy(first.state_dict())
    # Whatever layout the file had: the momenta take that of the parameters.
    for values in state["optimizers"]["g"]["state"].values():
        values["exp_avg"] = values["exp_avg"].contiguous()
    torch.save(state, tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for batch in batches[2:]:
        second.step(batch)
    assert same(straight.state_dict(), second.state_dict())


def test_a_loaded_model_leaves_the_state_it_was_loaded_from_alone() -> None:
    first, second = small(), small(seed=1)
    first.step(pairs())
    before = flat(first.state_dict())
    second.load_state_dict(first.state_dict())
    second.step(pairs(1))
    assert torch.equal(flat(first.state_dict()), before)


def test_the_seed_alone_decides_the_first_weights() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = small(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert same(one.state_dict(), small(seed=3).state_dict())
    assert not same(one.state_dict(), small(seed=4).state_dict())


def test_pictures_are_those_of_prediction_and_change_nothing() -> None:
    model, batch = small(), pairs(whole=False)
    model.step(batch)
    before = flat(model.state_dict())
    fake_b = model.pictures(batch)["fake_b"]
    assert fake_b.shape == (2, 3, 32, 32)
    assert fake_b[batch.valid_a.expand_as(fake_b) == 0].eq(0).all()
    alone = Batch(
        *(value[:1] for value in (batch.real_a, batch.real_b, batch.valid_a, batch.valid_b))
    )
    torch.testing.assert_close(model.pictures(alone)["fake_b"], fake_b[:1])
    assert torch.equal(flat(model.state_dict()), before)
    assert all(network.training for network in model.networks.values())
    other = {"g_ab": small(seed=1).networks["g_ab"]}
    assert not torch.equal(model.pictures(batch, other)["fake_b"], fake_b)


def test_only_real_images_of_a_move_the_running_statistics() -> None:
    model, batch = small(), pairs()
    g_ab = model.networks["g_ab"]
    inputs: list[Tensor] = []
    norm = next(module for module in g_ab.modules() if isinstance(module, BatchNorm))
    norm.register_forward_hook(lambda module, args, result: inputs.append(args[0]))
    model.step(batch)
    assert len(inputs) == 1
    torch.testing.assert_close(norm.running_mean, 0.1 * inputs[0].mean(dim=(0, 2, 3)))


@pytest.mark.parametrize("whole", [True, False])
def test_a_step_never_waits_for_the_device(whole) -> None:
    model = small()
    model.step(pairs())
    with Waits() as waits:
        model.step(pairs(1, whole=whole))
    assert waits.count == 0


def test_backward_and_wrapped_networks_come_from_outside() -> None:
    model, seen = small(), []

    class Wrapped(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *args):
            seen.append("forward")
            return self.inner(*args)

    def backward(loss):
        seen.append("backward")
        loss.backward()

    model.backward = backward
    for name, network in model.networks.items():
        model.networks[name] = Wrapped(network)
    model.step(pairs())
    assert seen.count("forward") == 3
    assert seen.count("backward") == 2

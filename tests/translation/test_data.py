import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geotranslate.chips.file import ChipPixels
from geotranslate.chips.folder import open_chips
from geotranslate.errors import ChipsError
from geotranslate.networks.turns import TURNS
from geotranslate.translation.data import (
    Draw,
    Preparation,
    Stored,
    TrainingBatches,
    cut,
    draw_for_pools,
    draw_sample,
    load_batches,
)

CPU = torch.device("cpu")
FOLDERS = {"pairs": ("images", "images2"), "heaps": ("A/images", "B/images")}


@pytest.fixture
def make_chips(make_raster, tmp_path):
    """Writes chips of A and B, arrays (bands, rows, cols), and opens their folder."""

    def make(kind, chips_a, chips_b, **profile):
        for folder, chips in zip(FOLDERS[kind], (chips_a, chips_b), strict=True):
            for number, pixels in enumerate(chips):
                make_raster(f"chips/{folder}/{number:09d}.tif", pixels, col=50 * number, **profile)
        return open_chips(tmp_path / "chips")

    return make


def ramps(count, *, bands=2, side=24, dtype="uint8"):
    """Chips in which no two pixels and no two chips are alike."""
    values = np.arange(bands * side * side).reshape(bands, side, side) % 199
    return [(values + number).astype(dtype) for number in range(count)]


@given(chips=st.integers(1, 30), batch=st.integers(1, 9), seed=st.integers(0, 2**40))
@settings(deadline=None, max_examples=30)
def test_an_epoch_takes_each_chip_once(chips, batch, seed):
    taken = [
        draw_sample(seed, 0, update, sample, batch=batch, chips=chips).chip
        for update in range(1, 2 * chips + 1)
        for sample in range(batch)
    ]
    for epoch in range(len(taken) // chips):
        assert sorted(taken[epoch * chips : (epoch + 1) * chips]) == list(range(chips))


def test_a_draw_is_a_function_of_seed_domain_update_and_sample():
    def draw(seed=1, domain=0, update=5, sample=2):
        return draw_sample(seed, domain, update, sample, batch=4, chips=1000)

    assert draw() == draw()
    others = [draw(seed=2), draw(domain=1), draw(update=6), draw(sample=3)]
    assert len({draw(), *others}) == 5
    assert len({each.row for each in (draw(), *others)}) == 5


def test_all_turns_are_drawn():
    draws = [draw_sample(0, 0, update, 0, batch=1, chips=3) for update in range(1, 100)]
    assert {draw.turn for draw in draws} == set(range(TURNS))
    assert 0.4 < np.mean([draw.row for draw in draws]) < 0.6


def test_without_augmentation_crops_lie_as_they_are(make_chips):
    folder = make_chips("pairs", ramps(5), ramps(5, bands=1))
    plain, varied = (
        TrainingBatches(folder, paired=True, crop=16, batch=8, seed=1, augment=augment)[1].a
        for augment in ("none", "d4")
    )
    assert not any(plain.turns)
    assert any(varied.turns)
    np.testing.assert_array_equal(plain.pixels, varied.pixels)


@pytest.mark.parametrize("kind", FOLDERS)
def test_one_side_of_an_update_is_what_its_batch_holds(make_chips, kind):
    folder = make_chips(kind, ramps(5), ramps(5, bands=1))
    batches = TrainingBatches(folder, paired=kind == "pairs", crop=16, batch=3, seed=1)
    for domain, side in enumerate(batches[2]):
        alone = batches.images_of(domain, 2)
        assert torch.equal(alone.pixels, side.pixels)
        assert alone.turns == side.turns


def test_a_gpu_of_apples_is_handed_nothing_wider_than_float32(make_chips, monkeypatch):
    folder = make_chips("pairs", ramps(5), ramps(5))
    prepare = Preparation(folder.domain_a, folder.domain_b, CPU)
    prepare._device = torch.device("mps")
    sent = []
    original = torch.Tensor.to

    def to(tensor, *words, **more):
        if words[:1] == (prepare._device,):
            sent.append(tensor.dtype)
            return tensor
        return original(tensor, *words, **more)

    monkeypatch.setattr(torch.Tensor, "to", to)
    wide = Stored(torch.zeros(1, 2, 8, 8, dtype=torch.float64), None, (0,))
    images, _ = prepare.images_of(0, wide)
    assert sent == [images.dtype] == [torch.float32]


def test_the_numbers_for_pools_belong_to_the_sample():
    numbers = draw_for_pools(3, update=7, batch=5, numbers=4)
    assert numbers.shape == (5, 4)
    assert np.array_equal(numbers[:2], draw_for_pools(3, update=7, batch=2, numbers=4))
    assert draw_for_pools(3, update=7, batch=5, numbers=0).shape == (5, 0)


@given(
    rows=st.integers(8, 20),
    cols=st.integers(8, 20),
    row=st.floats(0, 1),
    col=st.floats(0, 1),
)
@settings(deadline=None, max_examples=50)
def test_a_crop_lies_inside_its_chip(rows, cols, row, col):
    pixels = np.arange(rows * cols).reshape(1, rows, cols)
    crop = cut(ChipPixels(pixels, pixels[0] >= 0), Draw(0, row, col, 0), 8)
    assert crop.pixels.shape == (1, 8, 8)
    first = crop.pixels[0, 0, 0]
    assert np.array_equal(crop.pixels[0, :, 0], first + cols * np.arange(8))


def test_every_place_of_a_crop_is_possible():
    pixels = np.arange(100).reshape(1, 10, 10)
    chip = ChipPixels(pixels, pixels[0] >= 0)
    starts = {
        int(cut(chip, Draw(0, row, 0.0, 0), 8).pixels[0, 0, 0]) for row in np.linspace(0, 1, 50)
    }
    assert starts == {0, 10, 20}


def test_both_sides_of_a_pair_are_cropped_and_turned_alike(make_chips):
    folder = make_chips("pairs", ramps(5), ramps(5))
    batches = TrainingBatches(folder, paired=True, crop=16, batch=3, seed=1)
    prepare = Preparation(folder.domain_a, folder.domain_b, CPU)
    for update in range(1, 9):
        batch = prepare(batches[update])
        assert batch.real_a.shape == (3, 2, 16, 16)
        assert torch.equal(batch.real_a, batch.real_b)


def test_heaps_are_drawn_each_for_itself(make_chips):
    folder = make_chips("heaps", ramps(9), ramps(5))
    batches = TrainingBatches(folder, paired=False, crop=16, batch=2, seed=1)
    batch = batches[1]
    assert batch.a.turns != batch.b.turns
    assert not torch.equal(batch.a.pixels, batch.b.pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32"])
def test_stored_values_become_those_of_the_normalization(make_chips, dtype):
    chips = [50 * chip.astype(np.int64) % 60_000 for chip in ramps(4)]
    if dtype in ("uint8", "int16"):
        chips = [chip % np.iinfo(dtype).max for chip in chips]
    chips = [chip.astype(dtype) for chip in chips]
    folder = make_chips("pairs", chips, chips)
    stored = TrainingBatches(folder, paired=True, crop=24, batch=1, seed=0)[1]
    assert stored.a.pixels.numpy().dtype == dtype
    expected = folder.domain_a.normalization().forward(stored.a.pixels.numpy().astype("float32"))
    unturned = stored._replace(a=stored.a._replace(turns=(0,)))
    batch = Preparation(folder.domain_a, folder.domain_b, CPU)(unturned)
    assert batch.real_a.dtype == torch.float32
    assert np.allclose(batch.real_a.numpy(), expected, atol=1e-6)
    assert -1 <= batch.real_a.min() < -0.9
    assert 0.9 < batch.real_a.max() <= 1


def test_invalid_pixels_of_either_side_are_zero_in_both(make_chips):
    a = [chip.astype("float32") for chip in ramps(4)]
    b = [chip.astype("float32") for chip in ramps(4)]
    for chip_a, chip_b in zip(a, b, strict=True):
        chip_a[0, :5] = np.nan
        chip_b[1, :, :7] = np.nan
    folder = make_chips("pairs", a, b)
    stored = TrainingBatches(folder, paired=True, crop=24, batch=2, seed=0)[1]
    batch = Preparation(folder.domain_a, folder.domain_b, CPU)(stored)
    assert torch.equal(batch.valid_a, batch.valid_b)
    assert int(batch.valid_a[0].sum()) == (24 - 5) * (24 - 7)
    hidden = batch.valid_a[:, 0] == 0
    for images in (batch.real_a, batch.real_b):
        assert images.isfinite().all()
        assert not images.movedim(1, 0)[:, hidden].any()


def test_where_all_is_valid_no_mask_is_made(make_chips):
    folder = make_chips("pairs", ramps(4), ramps(4))
    stored = TrainingBatches(folder, paired=True, crop=16, batch=2, seed=0)[3]
    batch = Preparation(folder.domain_a, folder.domain_b, CPU)(stored)
    assert batch.valid_a is None
    assert batch.valid_b is None
    assert batch.real_a.is_contiguous(memory_format=torch.channels_last)


def test_workers_bring_the_same_batches_and_errors_as_sentences(make_chips):
    folder = make_chips("pairs", ramps(8), ramps(8))
    batches = TrainingBatches(folder, paired=True, crop=16, batch=2, seed=0)
    folder.files("b", "train")[0].unlink()
    lost = next(u for u in range(1, 9) if isinstance(_try(batches, u), ChipsError))
    loaded = load_batches(batches, range(1, 9), workers=1, pin=False)
    for update in range(1, lost):
        assert torch.equal(next(loaded).a.pixels, batches[update].a.pixels)
    with pytest.raises(ChipsError, match=r"^the chip .* cannot be read"):
        next(loaded)


def _try(batches, update):
    try:
        return batches[update]
    except ChipsError as error:
        return error


def test_reading_leaves_torchs_random_numbers_alone(make_chips):
    folder = make_chips("pairs", ramps(4), ramps(4))
    batches = TrainingBatches(folder, paired=True, crop=16, batch=2, seed=0)
    before = torch.random.get_rng_state()
    list(load_batches(batches, range(1, 4), workers=0, pin=False))
    assert torch.equal(before, torch.random.get_rng_state())

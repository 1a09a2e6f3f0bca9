from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from geotranslate.errors import SettingError
from geotranslate.raster.domain import Band, Domain, can_hold, encode, to_dtype, to_physical

INTEGERS = ["uint8", "uint16", "int16"]


def domain_of(
    dtype: str, low: float, high: float, *, scale: float = 1.0, offset: float = 0.0, **words: object
) -> Domain:
    """One band whose stored values from low to high fill the normalization's range."""
    ends = sorted((low * scale + offset, high * scale + offset))
    return Domain(
        bands=(Band(name="VV", unit="dB", scale=scale, offset=offset),),
        dtype=dtype,
        resolution_m=(10.0, 10.0),
        low=(ends[0],),
        high=(ends[1],),
        **words,
    )


def test_physical_values_are_those_of_each_bands_scale_and_offset() -> None:
    bands = Band(name="red", scale=0.1, offset=-5), Band(name="height", scale=2)
    stored = np.array([[[0, 255]], [[0, 255]]], np.uint8)
    assert to_physical(stored, bands).tolist() == [[[-5, 20.5]], [[0, 510]]]


def there_and_back(domain: Domain, stored: np.ndarray) -> np.ndarray:
    """Stored values through the network's range and into a file again."""
    line = domain.normalization()
    scaled = line.forward(stored.astype(np.float32))
    assert scaled.dtype == np.float32
    assert scaled.min() >= -1
    assert scaled.max() <= 1
    return domain.encode(line.inverse(scaled), np.ones(stored.shape[1:], bool))


@settings(deadline=None, max_examples=60)
@given(
    dtype=st.sampled_from(INTEGERS),
    scale=st.sampled_from([1.0, 1e-4, 2.5, -0.01]),
    offset=st.sampled_from([0.0, -0.1, 1000.0]),
    data=st.data(),
)
def test_every_integer_inside_the_range_comes_back(dtype, scale, offset, data):
    info = np.iinfo(dtype)
    low = data.draw(st.integers(info.min, info.max - 1))
    high = data.draw(st.integers(low + 1, info.max))
    stored = np.linspace(low, high, 4096).round().astype(dtype).reshape(1, 64, 64)
    domain = domain_of(dtype, low, high, scale=scale, offset=offset)
    np.testing.assert_array_equal(there_and_back(domain, stored), stored)


@settings(deadline=None, max_examples=40)
@given(
    low=st.floats(-60, 20, width=32),
    span=st.floats(1, 1000, width=32),
    scale=st.sampled_from([1.0, 0.1]),
    seed=st.integers(0, 99),
)
def test_floats_inside_the_range_come_back_to_a_millionth_of_it(low, span, scale, seed):
    values = np.random.default_rng(seed).uniform(low, low + span, (1, 8, 8)).astype(np.float32)
    domain = domain_of("float32", low, low + span, scale=scale, offset=-3.0)
    tolerance = 4e-7 * max(abs(low), abs(low + span), 3 / scale)
    np.testing.assert_allclose(there_and_back(domain, values), values, rtol=0, atol=tolerance)


def test_low_and_high_are_physical_and_become_the_ends():
    domain = domain_of("uint16", 100, 300, scale=1e-4, offset=-0.1)
    line = domain.normalization()
    stored = np.array([100, 200, 300, 0, 9000], np.float32).reshape(1, 1, 5)
    np.testing.assert_allclose(line.forward(stored)[0, 0], [-1, 0, 1, -1, 1], atol=1e-6)


def test_each_band_has_its_own_line():
    bands = (Band(name="red"), Band(name="nir"))
    domain = Domain(
        bands=bands, dtype="uint8", resolution_m=(10, 10), low=(0, 100), high=(100, 200)
    )
    pixels = np.full((2, 1, 1), 100, np.float32)
    assert domain.normalization().forward(pixels).ravel().tolist() == [1, -1]
    assert domain.names == ["red", "nir"]


def test_a_band_that_never_changes_does_not_divide_by_zero():
    stored = np.full((1, 2, 2), 7, np.uint8)
    domain = domain_of("uint8", 7, 7)
    np.testing.assert_array_equal(there_and_back(domain, stored), stored)


def test_torch_draws_the_same_line_as_numpy():
    torch = pytest.importorskip("torch")
    domain = domain_of("uint16", 0, 10_000, scale=1e-4)
    stored = np.random.default_rng(0).uniform(0, 12_000, (1, 5, 5)).astype(np.float32)
    ours, theirs = domain.normalization(), domain.normalization(torch.from_numpy)
    batch = torch.from_numpy(stored)[None].repeat(3, 1, 1, 1)
    np.testing.assert_array_equal(theirs.forward(batch)[2].numpy(), ours.forward(stored))
    scaled = theirs.forward(batch)
    np.testing.assert_array_equal(
        theirs.inverse(scaled)[1].numpy(), ours.inverse(ours.forward(stored))
    )


@settings(deadline=None)
@given(
    case=st.sampled_from(
        [(d, n) for d in INTEGERS for n in (0, 1, 255)]
        + [("int16", -32768), ("int16", -1), ("uint16", 65535), ("int16", 32767)]
        + [("float32", n) for n in (0.0, -9999.0, 3.5, -3.4028234663852886e38)]
    ),
    seed=st.integers(0, 99),
)
def test_a_valid_pixel_never_gets_the_nodata_value_and_an_invalid_one_always(case, seed):
    dtype, nodata = case
    rng = np.random.default_rng(seed)
    values = (nodata + rng.uniform(-2, 2, (2, 16, 16))).astype(np.float32)
    values[0, :2] = nodata
    valid = rng.random((16, 16)) < 0.7
    stored = encode(values, valid, dtype=dtype, nodata=nodata)
    assert stored.dtype == dtype
    assert (stored[:, valid] != nodata).all()
    assert (stored[:, ~valid] == nodata).all()
    wanted = to_dtype(values, np.dtype(dtype))
    moved = stored[:, valid].astype(float) - wanted[:, valid]
    assert np.abs(moved).max() <= 1 or abs(nodata) > 1e38


def test_without_a_nodata_value_invalid_pixels_are_zero_whatever_lay_there():
    values = np.array([[[1.0, np.nan, np.inf, 4.0]]])
    valid = np.array([[True, False, False, True]])
    for dtype in ("uint8", "float32"):
        assert encode(values, valid, dtype=dtype, nodata=None).ravel().tolist() == [1, 0, 0, 4]


def test_encoding_leaves_its_input_alone():
    values = np.full((1, 2, 2), 5, np.uint8)
    encode(values, np.eye(2, dtype=bool), dtype="uint8", nodata=5)
    assert (values == 5).all()


@pytest.mark.parametrize("number", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64"])
def test_numbers_beyond_a_type_stop_at_its_limits(dtype, number):
    info = np.iinfo(dtype)
    found = to_dtype(np.array([-1e30, 1e30], number), np.dtype(dtype))
    assert found[0] == info.min
    # The largest number both types can say: float32 knows no 2**31 - 1.
    assert found[1] > 0.9999 * info.max


def test_numbers_are_rounded_to_the_nearest_integer():
    values = np.array([0.49, 0.51, 1.5, 2.5, -0.51, 254.6])
    assert to_dtype(values, np.dtype("int16")).tolist() == [0, 1, 2, 2, -1, 255]


@pytest.mark.parametrize("word", ["colour", "gain"])
def test_a_band_refuses_words_it_does_not_know(word):
    with pytest.raises(ValidationError):
        Band(name="red", **{word: 1})


def test_a_domain_survives_json():
    domain = domain_of("float32", -25, 5, nodata=-9999.0, decibel="power")
    assert Domain.model_validate_json(domain.model_dump_json()) == domain


def test_nan_serves_as_nodata_of_floats():
    valid = np.array([[True, False]])
    stored = encode(np.ones((1, 1, 2)), valid, dtype="float32", nodata=float("nan"))
    np.testing.assert_array_equal(stored, [[[1.0, np.nan]]])


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("float32", -1e39), ("float32", 1e300), ("uint8", -1), ("int16", 0.5)]
)
def test_nodata_that_a_type_cannot_hold_is_refused(dtype, nodata):
    assert not can_hold(np.dtype(dtype), nodata)
    with pytest.raises(SettingError, match=f"Choose a nodata value that {dtype} can hold"):
        encode(np.ones((1, 1, 2)), np.array([[True, False]]), dtype=dtype, nodata=nodata)


@pytest.mark.parametrize("nodata", [-3.4028235e38, float(np.finfo("f4").min), np.nan, 0.1])
def test_floats_hold_what_rounds_to_one_of_them(nodata):
    assert can_hold(np.dtype("float32"), nodata)

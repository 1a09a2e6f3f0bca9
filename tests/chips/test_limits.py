import numpy as np
import pytest

from geotranslate.chips.file import ChipPixels
from geotranslate.chips.limits import Tally
from geotranslate.raster.domain import Band

BANDS = (Band(name="VV", scale=0.5, offset=-3), Band(name="VH", scale=2.0))


def test_limits_of_uint8_are_those_of_the_type_in_physical_units():
    tally = Tally(BANDS, "uint8")
    tally.add(ChipPixels(np.ones((2, 4, 4), np.uint8), np.ones((4, 4), bool)))
    assert tally.limits() == [(-3, 124.5, 0), (0, 510, 0)]


def test_limits_of_other_types_are_percentiles_of_valid_physical_values():
    tally = Tally(BANDS, "float32")
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(20):
        pixels, valid = rng.normal(-12, 4, (2, 24, 24)).astype("f4"), rng.random((24, 24)) > 0.3
        pixels[:, ~valid] = 1e6
        tally.add(ChipPixels(pixels, valid))
        kept.append(pixels[:, valid])
    values = np.concatenate(kept, axis=1) * [[0.5], [2.0]] + [[-3], [0]]
    for (low, high, outside), band in zip(tally.limits(), values, strict=True):
        assert np.percentile(band, 0.05) < low < np.percentile(band, 0.15)
        assert np.percentile(band, 99.85) < high < np.percentile(band, 99.95)
        assert 0 <= outside < 0.003
        assert outside == pytest.approx(((band < low) | (band > high)).mean(), abs=0.001)

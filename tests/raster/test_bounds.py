import math

import pytest

from geotranslate.errors import SettingError
from geotranslate.raster.bounds import check_bounds, spell_bounds


def test_bounds_with_an_inside_are_taken_wherever_they_lie():
    check_bounds((-10, -20, -9.5, 4_000_000))


@pytest.mark.parametrize(
    "bounds",
    [
        (5, 0, 3, 1),
        (0, 5, 1, 3),
        (0, 0, 0, 1),
        (0, 0, math.inf, 1),
        (math.nan, 0, 1, 1),
    ],
)
def test_bounds_without_an_inside_are_refused_with_the_mend(bounds):
    with pytest.raises(SettingError, match="with left below right and bottom below top"):
        check_bounds(bounds)


def test_bounds_are_spelled_without_a_loss_of_metres():
    assert spell_bounds((277_000.5, 5_360_323, 1e-3, 0)) == "(277000.5, 5360323, 0.001, 0)"

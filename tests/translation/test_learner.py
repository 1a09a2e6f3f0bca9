import numpy as np
import pytest

from geotranslate.translation.learner import rate_factor


def test_the_rate_is_constant_and_then_falls_to_zero_in_a_straight_line():
    factors = [rate_factor(update, 100, 0.5) for update in range(1, 102)]
    assert factors[:50] == [1.0] * 50
    assert np.allclose(np.diff(factors[50:]), -0.02)
    assert factors[100] == pytest.approx(0)
    assert {rate_factor(update, 100, 1.0) for update in range(1, 101)} == {1.0}

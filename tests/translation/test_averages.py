import numpy as np
import pytest
from torch import nn

from geotranslate.translation.averages import AveragedNetwork


def test_averaged_weights_follow_and_forget_the_start():
    network = nn.Linear(1, 1, bias=False)
    average = AveragedNetwork(network, updates=200)
    values = np.random.default_rng(0).normal(size=2000)
    expected = float(network.weight.detach())
    for update, value in enumerate(values, start=1):
        nn.init.constant_(network.weight, value)
        average.follow(network, update)
        keep = min(0.995, update / (update + 9))
        expected = keep * expected + (1 - keep) * value
    assert float(average.network.weight) == pytest.approx(expected, abs=1e-6)

    last = AveragedNetwork(network, updates=0)
    nn.init.constant_(network.weight, 3.0)
    last.follow(network, 1)
    assert float(last.network.weight) == 3.0

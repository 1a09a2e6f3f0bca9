import pytest
import torch
from torch import nn

from geotranslate.networks.layers import LastConvolution


@pytest.mark.parametrize("bands", [1, 3, LastConvolution.few, LastConvolution.few + 1])
@pytest.mark.parametrize("bias", [True, False])
def test_the_last_convolution_is_a_convolution(bands, bias):
    torch.manual_seed(0)
    ours = LastConvolution(5, bands, (7, 3), bias=bias, dtype=torch.float64)
    theirs = nn.Conv2d(5, bands, (7, 3), bias=bias, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 5, 20, 17, dtype=torch.float64)
    given = [images.clone().requires_grad_() for _ in range(2)]
    results = [layer(each) for layer, each in zip((ours, theirs), given, strict=True)]
    torch.testing.assert_close(*results)
    for result in results:
        result.square().sum().backward()
    torch.testing.assert_close(given[0].grad, given[1].grad)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)

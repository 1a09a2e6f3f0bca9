import pytest
import torch
from torch import nn

from geotranslate.networks.layers import LastConvolution, ReflectionPad


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


def test_padding_stays_in_the_arithmetic_it_is_in():
    layer, plain = ReflectionPad(2), nn.ReflectionPad2d(2)
    image = torch.randn(2, 8, 6, 5).to(torch.bfloat16, memory_format=torch.channels_last)
    image.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        copied = layer(image)
        assert plain(image).dtype == torch.float32  # what the layer is there for
    assert copied.dtype == torch.bfloat16
    assert copied.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(copied.float(), plain(image.float()))
    weights = torch.randn_like(copied)
    (found,) = torch.autograd.grad((copied * weights).sum(), image)
    precise = image.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad((plain(precise) * weights.double()).sum(), precise)
    torch.testing.assert_close(found.double(), wanted, rtol=0.02, atol=0.05)

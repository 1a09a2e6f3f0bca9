import pytest
import torch
from torch import nn

from geotranslate.translation.learning import adam, load_state, state_of

LAYERS = {
    "usual": lambda: nn.Conv2d(6, 4, 3),
    "one pixel": lambda: nn.Conv2d(6, 4, 1),
    "from one band": lambda: nn.Conv2d(1, 4, 3),
    "to one band": lambda: nn.Conv2d(4, 1, 3),
    "of equal sides": lambda: nn.Conv2d(4, 4, 4),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3),
}


def learn(layer, optimizer, steps):
    """Steps on a loss whose gradient is another one for each weight."""
    for step in range(steps):
        image = torch.randn(
            2, layer.in_channels, 7, 6, generator=torch.Generator().manual_seed(step)
        )
        optimizer.zero_grad()
        layer(image.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", LAYERS)
def test_adam_is_torchs_own_whatever_way_weights_lie(name, layout):
    torch.manual_seed(0)
    ours, theirs = LAYERS[name](), LAYERS[name]()
    theirs.load_state_dict(ours.state_dict())
    ours.to(memory_format=layout)
    learn(ours, adam([ours], 0.01), 3)
    plain = torch.optim.Adam(theirs.parameters(), 0.01, betas=(0.5, 0.999), fused=False)
    learn(theirs, plain, 3)
    for found, wanted in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_adam_goes_on_from_a_state_as_if_it_had_not_stopped():
    torch.manual_seed(0)
    whole = nn.Conv2d(6, 4, 3).to(memory_format=torch.channels_last)
    first = nn.Conv2d(6, 4, 3).to(memory_format=torch.channels_last)
    first.load_state_dict(whole.state_dict())
    second = nn.Conv2d(6, 4, 3).to(memory_format=torch.channels_last)
    learn(whole, adam([whole], 0.01), 4)
    begun, gone_on = adam([first], 0.01), adam([second], 0.01)
    learn(first, begun, 2)
    load_state(state_of({"g": first}, {"g": begun}), {"g": second}, {"g": gone_on})
    for step in (2, 3):
        image = torch.randn(2, 6, 7, 6, generator=torch.Generator().manual_seed(step))
        gone_on.zero_grad()
        second(image.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        gone_on.step()
    assert torch.equal(second.weight, whole.weight)
    assert torch.equal(second.bias, whole.bias)

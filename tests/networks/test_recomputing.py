from copy import deepcopy

import pytest
import torch

from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.networks.context import Context
from geotranslate.networks.norms import BatchRenorm
from geotranslate.networks.recomputing import save_memory

KINDS = {
    "resnet": GeneratorSpec(width=4, blocks=2, norm="batch"),
    "renorm": GeneratorSpec(width=4, blocks=2, norm="renorm"),
    "instance": GeneratorSpec(width=4, blocks=2, norm="instance", upsample="resize"),
    "unet": GeneratorSpec(kind="unet", width=4, depth=5, norm="batch"),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_running_statistics_are_the_same(kind, masked):
    torch.manual_seed(0)
    ours = build_generator(KINDS[kind], 2, 3).double()
    for norm in ours.modules():
        if isinstance(norm, BatchRenorm):  # as if learning had gone on for a while
            norm.tracked.fill_(600)
    theirs = deepcopy(ours)
    save_memory(ours)
    images = torch.randn(2, 2, 64, 64, dtype=torch.float64)
    valid = torch.ones(2, 1, 64, 64, dtype=torch.float64) if masked else None
    if masked:
        valid[:, :, 20:] = 0
    for network in (ours, theirs):
        first = network(images, Context(valid, track=True))
        # A second call before the way back, as CycleGAN has it.
        second = network(images.flip(-1), Context(valid))
        (first.square().sum() + (second - 0.5).abs().sum()).backward()
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, weight.grad)
    assert dict(ours.named_buffers()).keys() == dict(theirs.named_buffers()).keys()
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("kind", KINDS)
def test_less_is_kept_for_the_way_back(kind):
    images = torch.randn(1, 2, 64, 64)
    kept = []
    for saving in (False, True):
        network = build_generator(KINDS[kind], 2, 3)
        if saving:
            save_memory(network)
        tensors = {}

        def keep(tensor, tensors=tensors):
            tensors[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(images)
        weights = sum(each.nbytes for each in network.parameters())
        kept.append(sum(each.untyped_storage().nbytes() for each in tensors.values()) - weights)
    assert kept[1] < 0.7 * kept[0]

"""An update in parts is the update of the whole batch; and other ways to save memory."""

import pytest
import torch

from geotranslate.errors import SettingError
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.plan import plan_training
from geotranslate.translation.train import resume, train
from tests.translation.runs import config, finish
from tests.translation.steps import Waits
from tests.translation.test_same_mathematics import Case, batch, draws, quick

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("valid", [False, True])
@pytest.mark.parametrize("model", ["pix2pix", "cyclegan"])
def test_parts_add_up_to_the_update_of_the_whole_batch(model, valid):
    # Norms that look at one image alone; batch statistics are those of each part.
    case = Case(model, "instance", batch=4, valid=valid, norm="instance")
    whole, parts = (quick(case, dtype=torch.float64) for _ in range(2))
    parts.parts = 2
    for update in (1, 2, 3):
        images = batch(case, update, torch.float64)
        if valid:  # as many in each part would not tell by what is divided
            images.valid_a[0], images.valid_a[1, :, 5:] = 0, 0
        expected = whole.step(images, draws(case, update))
        losses = parts.step(images, draws(case, update))
        assert losses.keys() == expected.keys()
        for name, loss in losses.items():
            torch.testing.assert_close(loss, expected[name])
    for name, network in parts.networks.items():
        for one, other in zip(network.parameters(), whole.networks[name].parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-10)


def test_parts_of_a_batch_track_running_statistics_once_each():
    model = quick(Case("pix2pix", "spectral", batch=4, norm="renorm"))
    model.parts = 2
    model.step(batch(Case("pix2pix", "spectral", batch=4), 1))
    tracked = [
        int(buffer)
        for name, buffer in model.networks["g_ab"].named_buffers()
        if name.endswith("tracked")
    ]
    assert set(tracked) == {2}


@pytest.mark.parametrize("model", ["pix2pix", "cyclegan"])
def test_a_step_in_parts_never_waits_for_the_device(model):
    case = Case(model, "spectral", batch=2, valid=True)
    learning = quick(case)
    learning.parts = 2
    with Waits() as waits:
        learning.step(batch(case, 1), draws(case, 1))
    assert waits.count == 0


def test_less_is_kept_for_the_way_back():
    def kept(parts):
        case = Case("cyclegan", "instance", batch=4)
        model, held = quick(case), []
        model.parts = parts
        backward = model.backward

        def watch(loss):
            held.append(sum(sizes))
            sizes.clear()
            backward(loss)

        model.backward, sizes = watch, []

        def keep(tensor):
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.step(batch(case, 1), draws(case, 1))
        return max(held)

    assert kept(4) < kept(1) / 2


def test_a_run_learns_in_parts(make_chips, tmp_path):
    settings = config(batch=4, accumulate=2, updates=2)
    assert finish(train(make_chips(), tmp_path / "run", settings)).update == 2


def test_parts_that_are_not_equal_are_refused_with_the_mend(make_chips):
    with pytest.raises(SettingError, match="Choose an accumulate of 1 or 2 or 4, or another batch"):
        TrainConfig(batch=4, accumulate=3)
    assert plan_training(make_chips(), config(batch=4, accumulate=4)).config.accumulate == 4


def test_a_run_may_go_on_with_less_memory(make_chips, tmp_path):
    steps = train(make_chips(), tmp_path / "run", config(updates=4, checkpoint_every=2))
    while next(steps).update < 2:
        pass
    steps.close()
    assert finish(resume(tmp_path / "run", save_memory=True)).update == 4

import numpy as np
import pytest
import torch

from geotranslate.choices import MODELS
from geotranslate.networks.build import DiscriminatorSpec, GeneratorSpec
from geotranslate.report.quantities import figure_of, in_reading_order, is_loss
from geotranslate.translation.batch import Batch
from geotranslate.translation.cyclegan import CycleGANConfig
from geotranslate.translation.models import build_model
from geotranslate.translation.pix2pix import Pix2PixConfig
from geotranslate.translation.validation import figure_names

CONFIGS = {"pix2pix": Pix2PixConfig(), "cyclegan": CycleGANConfig()}


@pytest.mark.parametrize("name", MODELS)
def test_every_loss_and_every_figure_of_a_run_is_explained(name):
    model = build_model(
        CONFIGS[name],
        GeneratorSpec(width=4, blocks=1),
        DiscriminatorSpec(width=4, layers=1),
        bands_a=1,
        bands_b=1,
        seed=0,
    )
    images = torch.zeros(1, 1, 32, 32)
    losses = model.step(Batch(images, images, None, None), np.full((1, 4), 0.5))
    assert all(is_loss(each) and figure_of(each) is None for each in losses)
    figures = [each for paired in (True, False) for each in figure_names(name, paired=paired)]
    assert all(figure_of(each) and not is_loss(each) for each in figures)


def test_what_decides_comes_first_and_the_learning_rate_last():
    columns = ["update", "seconds", "learning_rate", "d", "l1", "psnr", "score", "new_one"]
    assert in_reading_order(columns) == ["score", "d", "l1", "psnr", "new_one", "learning_rate"]

import numpy as np
import pytest
import torch

from tests.translation.runs import FOLDERS


@pytest.fixture
def one_thread():
    """Sums come out the same only with the same threads; and tiny networks are quicker with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_chips(make_raster, tmp_path):
    """Writes chips of 2 float32 bands (A) and of 3 uint8 bands (B) that follow from them."""

    def make(kind="pairs", *, count=10, side=36, name="chips"):
        random = np.random.default_rng(0)
        for number in range(count):
            a = random.normal(-12, 4, (2, side, side)).cumsum(axis=2).astype("float32")
            b = np.stack([a[0], a[1], a.mean(axis=0)])
            b = (255 * (b - b.min()) / np.ptp(b)).astype("uint8")
            for folder, pixels in zip(FOLDERS[kind], (a, b), strict=True):
                make_raster(f"{name}/{folder}/{number:09d}.tif", pixels, col=50 * number)
        return tmp_path / name

    return make

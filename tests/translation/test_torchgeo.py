import numpy as np
import pytest
import rasterio
import torch
from torch.utils.data import DataLoader

from geotranslate.errors import ChipsError
from geotranslate.raster.domain import Band


@pytest.fixture
def chips(make_raster, tmp_path):
    """Four pairs: A float32 in dB with a nodata corner, B uint16 reflectance with a scale."""
    random = np.random.default_rng(0)
    red = (Band(name="red", scale=0.0001, offset=-0.1, color="red"),)
    for number in range(4):
        a = random.normal(-12, 3, (2, 16, 16)).astype("float32")
        a[:, :3, :3] = -99
        b = random.integers(1000, 9000, (1, 16, 16)).astype("uint16")
        make_raster(f"chips/images/{number:09d}.tif", a, col=20 * number, nodata=-99)
        make_raster(f"chips/images2/{number:09d}.tif", b, col=20 * number, bands=red)
    return tmp_path / "chips"


def test_a_chip_folder_is_a_torchgeo_dataset(chips):
    from torchgeo.datasets import NonGeoDataset

    from geotranslate.translation.torchgeo import ChipPairs

    dataset = ChipPairs(chips)
    assert isinstance(dataset, NonGeoDataset)
    assert len(dataset) + len(ChipPairs(chips, "val")) == 4
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert batch["image"].shape == (3, 2, 16, 16)
    assert batch["target"].shape == (3, 1, 16, 16)
    assert batch["image"].dtype == batch["target"].dtype == torch.float32
    assert batch["valid"].shape == (3, 1, 16, 16)
    assert batch["valid"].sum() == 3 * (256 - 9)

    file_a, file_b = (dataset.folder.files(domain, "train")[0] for domain in "ab")
    with rasterio.open(file_a) as a, rasterio.open(file_b) as b:
        valid = batch["valid"][0]
        stored = torch.from_numpy(a.read())
        physical = torch.from_numpy(b.read().astype("float64") * 0.0001 - 0.1).float()
        assert torch.equal(batch["image"][0], torch.where(valid, stored, 0.0))
        assert torch.equal(batch["target"][0], torch.where(valid, physical, 0.0))
        assert batch["bounds"][0].tolist() == list(a.bounds)
        assert rasterio.CRS.from_wkt(batch["crs"][0]) == a.crs


def test_samples_go_through_the_transforms(chips):
    from geotranslate.translation.torchgeo import ChipPairs

    dataset = ChipPairs(chips, transforms=lambda sample: sample | {"image": sample["image"] * 2})
    assert torch.equal(dataset[0]["image"], 2 * ChipPairs(chips)[0]["image"])


def test_a_split_without_pairs_is_refused_with_the_mend(chips):
    from geotranslate.translation.torchgeo import ChipPairs

    with pytest.raises(ChipsError, match="There are 3 in train, 1 in val: choose one of these"):
        ChipPairs(chips, "test")

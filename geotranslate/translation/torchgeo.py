"""A chip folder as a torchgeo dataset; torchgeo's one door into geotranslate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rasterio.transform import array_bounds
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from geotranslate.chips.file import read_chip, read_header
from geotranslate.chips.folder import open_chips
from geotranslate.errors import ChipsError
from geotranslate.raster.domain import Band, to_physical

Sample = dict[str, Any]


class ChipPairs(NonGeoDataset):
    """Pairs of chips in physical units, for any training code that takes torchgeo's datasets.

    A sample has

    * ``image``: A, (bands, rows, cols) float32 in the units of the bands, 0 where invalid;
    * ``target``: B, likewise;
    * ``valid``: (1, rows, cols) bool, True where both hold data;
    * ``bounds``: (left, bottom, right, top) float64, in the CRS;
    * ``crs``: as WKT, empty for chips that do not say where they lie.

    Samples of one folder have equal shapes, so torch's default collation makes batches of them.

    Attributes:
        folder: what `open_chips` found.
        split: "train", "val" or "test".
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transforms: Callable[[Sample], Sample] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        """Open a folder of pairs.

        Args:
            root: as `open_chips` takes it.
            split: "train", "val" or "test".
            transforms: what to make of each sample.
            seed: of the draw of validation chips, for a folder that has no index.

        Raises:
            ChipsError: the folder holds no pairs, or none in this split.
        """
        self.folder = open_chips(Path(root), seed=seed)
        self.folder.require_pairs()
        self.split = split
        self._transforms = transforms
        files = (self.folder.files(domain, split) for domain in "ab")
        self._pairs = list(zip(*files, strict=True))
        if not self._pairs:
            counts = {each: len(self.folder.files("a", each)) for each in ("train", "val", "test")}
            there = ", ".join(f"{count} in {name}" for name, count in counts.items() if count)
            raise ChipsError(
                f"{root} holds no pairs in the split {split!r}, so there is nothing to read. There "
                f"are {there}: choose one of these, or cut the scenes with another --split."
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        """A pair by its number from 0, as the class says."""
        path_a, path_b = self._pairs[index]
        a, b, header = read_chip(path_a), read_chip(path_b), read_header(path_a)
        valid = torch.from_numpy(a.valid & b.valid)[None]
        sample = {
            "image": _physical(a.pixels, self.folder.domain_a.bands, valid),
            "target": _physical(b.pixels, self.folder.domain_b.bands, valid),
            "valid": valid,
            "bounds": torch.tensor(
                array_bounds(*header.shape, header.transform), dtype=torch.float64
            ),
            "crs": header.crs.to_wkt() if header.crs else "",
        }
        return self._transforms(sample) if self._transforms else sample


def _physical(pixels: Any, bands: Sequence[Band], valid: Tensor) -> Tensor:
    values = torch.from_numpy(to_physical(pixels, bands).astype(np.float32))
    return torch.where(valid, values, 0.0)

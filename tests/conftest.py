"""What tests of several parts share: small rasters, made where they are needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.dtypes import _gdal_typename

from geotranslate.raster.domain import Band
from geotranslate.raster.writing import describe_bands

# Tests run on all cores at once: threads that wait for each other made them ten times slower.
# Commands that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"

NORTH_UP = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)

MakeRaster = Callable[..., Path]


@pytest.fixture
def make_raster(tmp_path: Path) -> MakeRaster:
    """Writes a GeoTIFF below ``tmp_path`` and returns its path.

    Pixels are (bands, rows, cols), the first at ``col``, ``row`` of a grid in EPSG:32633 with
    10 m a pixel unless said otherwise. ``valid`` becomes an internal mask; other words go to
    rasterio.
    """

    def make(
        name: str,
        pixels: NDArray[np.generic],
        *,
        col: int = 0,
        row: int = 0,
        crs: str | None = "EPSG:32633",
        transform: Affine = NORTH_UP,
        valid: NDArray[np.bool_] | None = None,
        bands: tuple[Band, ...] = (),
        **profile: object,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = pixels.shape
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                path,
                "w",
                driver="GTiff",
                crs=crs,
                transform=transform @ Affine.translation(col, row),
                count=count,
                height=height,
                width=width,
                dtype=pixels.dtype,
                **profile,
            ) as file,
        ):
            file.write(pixels)
            if bands:
                describe_bands(file, bands)
            if valid is not None:
                file.write_mask(valid)
        return path

    return make


STACKED_BAND = """<VRTRasterBand dataType="{kind}" band="{band}">
<Description>{name}</Description>{nodata}
<SimpleSource><SourceFilename relativeToVRT="1">{file}</SourceFilename></SimpleSource>
</VRTRasterBand>"""


@pytest.fixture
def stack_bands(tmp_path: Path) -> Callable[..., Path]:
    """Writes a VRT below ``tmp_path`` of the first bands of files beside it; returns its path.

    It keeps their types and nodata values, as `gdalbuildvrt -separate` does. Bands are given by
    their names.
    """

    def stack(name: str, **files: Path) -> Path:
        bands = []
        for band, (description, path) in enumerate(files.items(), start=1):
            with rasterio.open(path) as file:
                said = f"<NoDataValue>{file.nodata}</NoDataValue>" if file.nodata else ""
                kind = _gdal_typename(file.dtypes[0])
                crs, place = file.crs.to_wkt(), ", ".join(map(repr, file.transform.to_gdal()))
                rows, cols = file.shape
            words = {"kind": kind, "band": band, "name": description, "nodata": said}
            bands.append(STACKED_BAND.format(file=path.name, **words))
        head = f'<VRTDataset rasterXSize="{cols}" rasterYSize="{rows}"><SRS>{crs}</SRS>'
        place = f"<GeoTransform>{place}</GeoTransform>"
        (tmp_path / name).write_text(head + place + "".join(bands) + "</VRTDataset>")
        return tmp_path / name

    return stack


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Path]]:
    """Says how many bytes disks have room for; gives the folders for which that is asked."""
    asked: list[Path] = []

    def leave(free: int) -> list[Path]:
        def disk_usage(folder: Path) -> SimpleNamespace:
            asked.append(folder)
            return SimpleNamespace(free=free)

        monkeypatch.setattr("shutil.disk_usage", disk_usage)
        return asked

    return leave


@pytest.fixture
def real_data() -> Path:
    """The folder of real imagery beside the repository."""
    if not REAL_DATA.is_dir():
        pytest.skip("no real imagery at ../shared/data")
    return REAL_DATA

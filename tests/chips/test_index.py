import math
import subprocess
import sys
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from geotranslate.chips.index import (
    ChipRecord,
    TileRecord,
    read_index,
    read_tile_record,
    write_index,
    write_tile_record,
)
from geotranslate.errors import ChipsError
from geotranslate.raster.domain import Band, Domain
from geotranslate.raster.grid import Grid, plan_windows
from geotranslate.raster.reading import stored_bands
from geotranslate.raster.statistics import EMPTY, BandStatistics, band_statistics

NAMES = "chips.gpkg", "A.gti.gpkg", "B.gti.gpkg"
CRSS = [
    CRS.from_user_input(text)
    for text in ("EPSG:32633", "EPSG:4326", "+proj=laea +lat_0=50 +lon_0=4 +ellps=GRS80")
]
SITE = CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1]]')


def domain(*bands, dtype="uint8", nodata=None):
    return Domain(
        bands=bands,
        dtype=dtype,
        nodata=nodata,
        resolution_m=(10, 10),
        low=(0,) * len(bands),
        high=(1,) * len(bands),
    )


DOMAINS = dict.fromkeys("ab", domain(Band(name="VV")))

numbers = st.floats(-1e6, 1e6)
statistics = st.builds(
    BandStatistics,
    count=st.integers(1, 2**40),
    min=numbers,
    max=numbers,
    mean=numbers,
    m2=st.floats(0, 1e300),
)
grids = st.builds(
    lambda crs, x, y, size, pixel: Grid(crs, Affine(pixel, 0, x, 0, -pixel, y), size, size),
    st.sampled_from(CRSS),
    st.floats(-50, 50),
    st.floats(-50, 50),
    st.integers(1, 512),
    st.floats(1e-5, 1e-2),
)


@st.composite
def chip_records(draw):
    grid = draw(grids)
    offset = st.integers(0, 10**6)
    return ChipRecord(
        domain=draw(st.sampled_from("ab")),
        file=f"images/{draw(st.integers(0, 10**9 - 1)):09d}.tif",
        split=draw(st.sampled_from(["train", "val", "test"])),
        scenes=tuple(draw(st.lists(st.sampled_from(["a.tif", "s3://x/y, z.tif", 'ä "q".vrt'])))),
        window=(draw(offset), draw(offset), grid.width, grid.height),
        grid=grid,
        valid_share=draw(st.floats(0, 1)),
        statistics=tuple(draw(st.lists(statistics | st.just(EMPTY), min_size=1, max_size=4))),
    )


def record(number, crs=CRSS[0], domain="a"):
    grid = Grid(crs, Affine(10, 0, 500_000 + 80 * number, 0, -10, 5_000_000), 8, 8)
    stats = (BandStatistics(count=64, min=0.1, max=2.5, mean=1 / 3, m2=1e-300),)
    file = f"images/{number:09d}.tif"
    return ChipRecord(domain, file, "train", ("s.tif",), (8 * number, 0, 8, 8), grid, 1.0, stats)


def cut(
    folder, name, pixels, valid, *, crs="EPSG:32633", nodata=None, size=8, stride=6, domain="a"
):
    """Chips of an image that starts at (500000, 4000000); records of the files written."""
    whole = Grid(
        CRS.from_user_input(crs),
        Affine(10, 0, 500_000, 0, -10, 4_000_000),
        pixels.shape[2],
        pixels.shape[1],
    )
    size, records = 8, []
    for number, window in enumerate(plan_windows(pixels.shape[1:], size=size, stride=6)):
        place = window.toslices()
        grid = whole.window_grid(window)
        file = f"{name}/{number:09d}.tif"
        (folder / name).mkdir(parents=True, exist_ok=True)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                folder / file,
                "w",
                driver="GTiff",
                crs=grid.crs,
                transform=grid.transform,
                width=size,
                height=size,
                count=pixels.shape[0],
                dtype=pixels.dtype,
                nodata=nodata,
            ) as out,
        ):
            out.write(pixels[:, *place])
            if nodata is None and not valid[place].all():
                out.write_mask(valid[place])
        stats = band_statistics(pixels[:, *place], valid[place])
        split = ("train", "val", "test")[number % 3]
        place = (window.col_off, window.row_off, size, size)
        records.append(ChipRecord("a", file, split, (name,), place, grid, 1.0, stats))
    return records


@settings(deadline=None, max_examples=12)
@given(st.lists(chip_records(), max_size=5))
def test_an_index_gives_back_the_records_it_was_given(records):
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder), records, DOMAINS)
        assert read_index(Path(folder)) == records


def test_the_same_records_give_the_same_bytes(tmp_path):
    records = [record(0), record(1, CRSS[2]), record(2, domain="b")]
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        write_index(folder, records, DOMAINS)
    for name in NAMES:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert {file.name for file in first.iterdir()} == set(NAMES)


def test_the_clock_of_geopackages_runs_on_afterwards(tmp_path):
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2001-02-03T04:05:06.000Z"})
    try:
        write_index(tmp_path, [record(0)], DOMAINS)
        assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") == "2001-02-03T04:05:06.000Z"
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def test_footprints_of_chips_of_any_crs_lie_where_the_chips_do(tmp_path):
    records = [record(0), record(1, CRSS[2])]
    write_index(tmp_path, records, DOMAINS)
    table = gpd.read_file(tmp_path / "chips.gpkg")
    assert table.crs == "EPSG:4326"
    for each, outline in zip(records, table.geometry, strict=True):
        expected = transform_bounds(each.grid.crs, "EPSG:4326", *each.grid.bounds)
        np.testing.assert_allclose(outline.bounds, expected, atol=1e-5)


def test_chips_of_a_crs_without_a_place_on_earth_are_indexed_without_a_footprint(tmp_path):
    records = [record(0, SITE), record(1)]
    write_index(tmp_path, records, DOMAINS)
    assert read_index(tmp_path) == records
    assert list(gpd.read_file(tmp_path / "chips.gpkg").geometry.isna()) == [True, False]


@pytest.mark.parametrize("nodata", [None, 0])
def test_each_domain_opens_as_one_raster_with_the_chips_of_all_splits(nodata, tmp_path):
    random = np.random.default_rng(1)
    pixels = random.integers(1, 1000, (3, 20, 26)).astype("uint16")
    valid = random.random((20, 26)) < 0.7
    valid[:8, :8] = True  # so the first chip needs no mask
    pixels[:, ~valid] = 0
    folder = tmp_path / "chips"
    bands = (
        Band(name="B4 <red> & more", unit="reflectance", scale=1e-4, offset=-0.1, color="red"),
        Band(name="B8", color="nir"),
        Band(name="height", unit="m"),
    )
    records = cut(folder, "images", pixels, valid, nodata=nodata)
    write_index(folder, records, {"a": domain(*bands, dtype="uint16", nodata=nodata)})
    moved = folder.rename(tmp_path / "moved")
    with rasterio.open(moved / "A.gti.gpkg") as mosaic:
        assert mosaic.driver == "GTI"
        assert mosaic.nodata == nodata
        assert mosaic.dtypes == ("uint16",) * 3
        assert stored_bands(mosaic, mosaic.indexes) == bands
        assert mosaic.crs == "EPSG:32633"
        assert mosaic.transform == Affine(10, 0, 500_000, 0, -10, 4_000_000)
        np.testing.assert_array_equal(mosaic.read(), pixels)
        np.testing.assert_array_equal(mosaic.read_masks(1) > 0, valid)
    assert not (moved / "B.gti.gpkg").exists()


def test_the_raster_of_chips_of_two_crss_has_the_first_ones(tmp_path):
    flat = np.full((1, 8, 8), 7, "uint8")
    valid = np.ones((8, 8), bool)
    records = cut(tmp_path, "images", flat, valid)
    # The same coordinates one zone to the west lie six degrees further west.
    records += cut(tmp_path, "more", flat, valid, crs="EPSG:32632")
    write_index(tmp_path, records, DOMAINS)
    with rasterio.open(tmp_path / "A.gti.gpkg") as mosaic:
        assert mosaic.crs == "EPSG:32633"
        assert mosaic.res == (10, 10)
        assert mosaic.width > 50_000
        first = mosaic.window(*records[0].grid.bounds)
        assert (mosaic.read(window=first) == 7).all()


def test_a_domain_without_chips_loses_its_raster(tmp_path):
    write_index(tmp_path, [record(0), record(1, domain="b")], DOMAINS)
    write_index(tmp_path, [record(0)], DOMAINS)
    assert {file.name for file in tmp_path.iterdir()} == {"chips.gpkg", "A.gti.gpkg"}


@pytest.mark.parametrize("content", [None, b"", b"no geopackage" * 99])
def test_an_index_that_cannot_be_read_is_refused_with_the_mend(content, tmp_path):
    if content is not None:
        (tmp_path / "chips.gpkg").write_bytes(content)
    with pytest.raises(ChipsError, match="tile` command again with --overwrite"):
        read_index(tmp_path)


def test_an_index_of_another_make_is_refused_with_the_mend(tmp_path):
    gpd.GeoDataFrame({"file": ["x.tif"]}, geometry=[None], crs=4326).to_file(
        tmp_path / "chips.gpkg", layer="chips"
    )
    with pytest.raises(ChipsError, match="tile` command again with --overwrite"):
        read_index(tmp_path)


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_index import DOMAINS, record
from geotranslate.chips.index import write_index
from geotranslate.errors import OutputError

folder = Path({folder!r})
records = [record(number) for number in range(100)]
write_index(folder, records, DOMAINS)
size = (folder / "chips.gpkg").stat().st_size
for file in folder.iterdir():
    file.unlink()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (1000, size // 2, size - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_index(folder, records, DOMAINS)
    except OutputError as error:
        print(error, list(folder.iterdir()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    script = FULL_DISK.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done
    for line in lines:
        assert "Make room and run the same command again" in line
        assert line.endswith("[]")


def tile_record():
    domain = Domain(
        bands=(Band(name="VV", unit="dB"),),
        dtype="float32",
        nodata=-9999.0,
        resolution_m=(10, 10.5),
        low=(-25.1,),
        high=(1 / 3,),
        clipped=(0.002,),
    )
    return TileRecord(
        version="1.2",
        layout="pix2pix",
        paired=True,
        settings={"size": 256, "a": ["s1.tif"]},
        domain_a=domain,
        domain_b=domain,
        counts={"a": {"train": 3}, "b": {"train": 3}},
        dropped={"between two splits": 4},
    )


def test_a_tile_record_comes_back_as_it_was(tmp_path):
    write_tile_record(tmp_path, tile_record())
    assert read_tile_record(tmp_path) == tile_record()


def test_a_nodata_value_that_is_no_number_survives_the_record(tmp_path):
    domain = tile_record().domain_a.model_copy(update={"nodata": math.nan})
    write_tile_record(tmp_path, tile_record().model_copy(update={"domain_a": domain}))
    found = read_tile_record(tmp_path).domain_a.nodata
    assert found is not None
    assert math.isnan(found)


@pytest.mark.parametrize("content", [None, "", "{}", '{"version": "1", "more": 2}'])
def test_a_tile_record_that_cannot_be_read_is_refused_with_the_mend(content, tmp_path):
    if content is not None:
        (tmp_path / "tile.json").write_text(content)
    with pytest.raises(ChipsError, match="tile` command again with --overwrite"):
        read_tile_record(tmp_path)

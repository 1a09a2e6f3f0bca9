import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from geotranslate.chips.arcgis import WELL_KNOWN_KEY, world_file, write_metadata
from geotranslate.chips.index import ChipRecord
from geotranslate.chips.layout import LAYOUTS
from geotranslate.raster.domain import Band, Domain
from geotranslate.raster.grid import Grid
from geotranslate.raster.statistics import band_statistics

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = {"esri_model_definition.emd", "esri_accumulated_stats.json", "map.txt", "stats.txt"}
ROOTS = {"pix2pix": [""], "cyclegan": ["A/", "B/"], "train_a_b": [""]}


def domain(bands, **words):
    ends = {"low": (0.0,) * bands, "high": (1.0,) * bands}
    names = tuple(Band(name=f"band {n}", **words) for n in range(bands))
    return Domain(bands=names, dtype="float32", resolution_m=(10, 10), **ends)


def cut(layout, *, chips=4, size=8):
    """Records of random chips of 2 and 3 bands with holes, and the valid pixels of each."""
    random = np.random.default_rng(3)
    records, pixels = [], {}
    for number in range(chips):
        split = "test" if number == 0 else "train"
        for name, bands in (("a", 2), ("b", 3)):
            chip = random.normal(number, 10, (bands, size, size))
            valid = random.random((size, size)) < 0.8
            chip[:, ~valid] = -9999
            grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 80.0 * number, 0, -10, 0), size, size)
            file = layout.chip_file(name, split, number)
            records.append(
                ChipRecord(
                    name,
                    file,
                    split,
                    ("s.tif",),
                    (0, 0, size, size),
                    grid,
                    float(valid.mean()),
                    band_statistics(chip, valid),
                )
            )
            pixels[name, file] = chip[:, valid]
    return records, pixels


def write(folder, layout, records, a=None, b=None):
    for record in records:
        (folder / record.file).parent.mkdir(parents=True, exist_ok=True)
    write_metadata(folder, layout, records, a or domain(2), b or domain(3))


def read(path):
    return json.loads(path.read_text())


def texts(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_the_files_are_the_golden_copies(tmp_path):
    runpy.run_path(str(GOLDEN / "write_arcgis.py"))["write_layouts"](tmp_path)
    written, golden = texts(tmp_path), texts(GOLDEN / "arcgis")
    assert written.keys() == golden.keys()
    for name, content in golden.items():
        assert written[name] == content, f"{name}: see tests/golden/write_arcgis.py"


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_each_root_has_the_four_files_with_the_keys_that_arcgis_reads(layout, tmp_path):
    records, _ = cut(layout)
    write(tmp_path, layout, records)
    roots = [prefix + root for prefix in ("", "test/") for root in ROOTS[layout.name]]
    assert set(texts(tmp_path)) == {root + file for root in roots for file in FILES}
    for root in roots:
        definition = read(tmp_path / root / "esri_model_definition.emd")
        accumulated = read(tmp_path / root / "esri_accumulated_stats.json")
        mode = "CycleGAN" if layout.name == "cyclegan" else "Export_Tiles"
        assert definition["MetaDataMode"] == accumulated["MetaDataMode"] == mode
        assert ("AllTilesStats2" in definition) == layout.paired
        assert definition[WELL_KNOWN_KEY]
        assert definition["InputRastersProps"]["SensorName"] is not None
        assert definition["ImageSpaceUsed"] == "MAP_SPACE"
        assert definition["ImageHeight"] == accumulated["TileSizeY"] == 8
        assert definition["Classes"] == accumulated["Classes"] == []
        assert accumulated["NumBands"] == (3 if root.endswith("B/") else 2)
        assert accumulated["NumTiles"] == (1 if root.startswith("test/") else 3)


@pytest.mark.parametrize("prefix", ["", "test/"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_statistics_are_those_of_the_valid_pixels_below_the_same_root(layout, prefix, tmp_path):
    records, pixels = cut(layout)
    write(tmp_path, layout, records)
    for name in "ab":
        truth = np.concatenate(
            [
                values
                for (side, file), values in pixels.items()
                if side == name and file.startswith("test/") == bool(prefix)
            ],
            axis=1,
        )
        root, key = prefix, "AllTilesStats" + "2" * (name == "b")
        if not layout.paired:
            root, key = f"{prefix}{name.upper()}/", "AllTilesStats"
        stats = read(tmp_path / root / "esri_model_definition.emd")[key]
        figures = [[band[k] for k in ("Min", "Max", "Mean", "StdDev")] for band in stats]
        expected = [truth.min(axis=1), truth.max(axis=1), truth.mean(axis=1), truth.std(axis=1)]
        np.testing.assert_allclose(figures, np.transpose(expected), rtol=1e-12)


def test_the_map_names_each_pair_once_as_arcgis_writes_it(tmp_path):
    layout = LAYOUTS["pix2pix"]
    write(tmp_path, layout, cut(layout)[0])
    lines = (tmp_path / "map.txt").read_bytes().split(b"\n")
    assert lines[0] == rb"images\000000001.tif  images2\000000001.tif "
    assert len(lines) == 3 + 1


def test_what_arcgis_worked_out_from_earlier_chips_goes(tmp_path):
    layout = LAYOUTS["cyclegan"]
    stale = tmp_path / "A" / "esri_normalization_stats_a.json"
    kept = tmp_path / "A" / "notes.json"
    for file in (stale, kept):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    write(tmp_path, layout, cut(layout)[0])
    assert kept.exists()
    assert not stale.exists()


def test_only_an_rgb_image_gets_the_names_by_which_arcgis_knows_one(tmp_path):
    layout = LAYOUTS["cyclegan"]
    colors = ("red", "green", "blue")
    bands = tuple(Band(name=n, color=c) for n, c in zip(("B4", "B3", "B2"), colors, strict=True))
    rgb = domain(3).model_copy(update={"bands": bands})
    write(tmp_path, layout, cut(layout)[0], a=domain(2, color="red"), b=rgb)
    names = [
        read(tmp_path / side / "esri_model_definition.emd")["InputRastersProps"]["BandNames"]
        for side in "AB"
    ]
    assert names == [["band 0", "band 1"], ["red", "green", "blue"]]


def test_chips_without_a_valid_pixel_give_figures_that_json_can_hold(tmp_path):
    layout = LAYOUTS["pix2pix"]
    records, _ = cut(layout, chips=2)
    empty = band_statistics(np.zeros((3, 8, 8)), np.zeros((8, 8), bool))
    records[-1] = ChipRecord(**{**vars(records[-1]), "statistics": empty})
    write(tmp_path, layout, records)
    stats = read(tmp_path / "esri_model_definition.emd")["AllTilesStats2"]
    assert stats[0] == {"BandName": "band 0", "Min": 0, "Max": 0, "Mean": 0, "StdDev": 0}


def test_gdal_reads_the_grid_back_from_a_world_file(tmp_path):
    grid = Grid(CRS.from_epsg(32633), Affine(10.1, 0, 1 / 3, 0, -9.9, 4e6 + 0.7), 4, 4)
    Image.fromarray(np.ones((4, 4), np.uint8)).save(tmp_path / "chip.png")
    (tmp_path / "chip.pgw").write_text(world_file(grid))
    with rasterio.open(tmp_path / "chip.png") as file:
        assert file.transform.almost_equals(grid.transform, 1e-9)

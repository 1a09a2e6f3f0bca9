from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from geotranslate.chips.config import TileConfig
from geotranslate.chips.plan import plan_tiles
from geotranslate.chips.tile import tile_scenes
from geotranslate.cli.main import run
from geotranslate.info import describe
from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid
from geotranslate.raster.mosaic import mosaic_rasters
from geotranslate.raster.output import record_tags
from geotranslate.raster.writing import GeoTiff
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.train import train

TINY = {
    "width": 4,
    "blocks": 1,
    "discriminator_width": 4,
    "discriminator_layers": 1,
    "updates": 2,
    "checkpoint_every": 2,
    "samples_every": 2,
    "crop": 32,
    "batch": 1,
    "device": "cpu",
    "precision": "float32",
    "attribution": "Contains [modified] Copernicus data",
}


@pytest.fixture
def told(capsys):
    """What `info` says of a path, with the spaces of its tables made one; or its JSON."""

    def tell(path, *flags):
        run(["info", str(path), *flags])
        text = capsys.readouterr().out
        return json.loads(text) if "--json" in flags else " ".join(text.replace("─", "").split())

    return tell


@pytest.fixture
def chips(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    a = make_raster(
        "sar.tif",
        rng.normal(-12, 4, (2, 120, 120)).astype(np.float32),
        nodata=np.nan,
        bands=(Band(name="VV", unit="dB"), Band(name="VH", unit="dB")),
    )
    b = make_raster("opt.tif", rng.integers(0, 255, (3, 120, 120), np.uint8))
    config = TileConfig(a=(str(a),), b=(str(b),), size=32, stride=16, split=(0.6, 0.4, 0.0))
    list(tile_scenes(plan_tiles(config), tmp_path / "chips"))
    return tmp_path / "chips"


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A run of two updates on a few chips."""
    folder = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    for name, bands in (("images", 2), ("images2", 3)):
        (folder / "chips" / name).mkdir(parents=True)
        for number in range(4):
            grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 360 * number, 0, -10, 0), 36, 36)
            with GeoTiff(
                folder / "chips" / name / f"{number:09d}.tif",
                grid,
                bands=[Band(name=f"{name} {index}") for index in range(bands)],
                dtype="uint8",
            ) as file:
                whole = Window(col_off=0, row_off=0, width=36, height=36)
                pixels = rng.integers(0, 255, (bands, 36, 36), np.uint8)
                file.write(whole, pixels, np.ones((36, 36), bool))
    list(train(folder / "chips", folder / "run", TrainConfig(**TINY)))
    return folder / "run"


@pytest.fixture
def trained(finished_run, tmp_path):
    """A copy of that run, for the test alone."""
    return shutil.copytree(finished_run, tmp_path / "run")


class TestRasters:
    def test_it_says_where_a_raster_lies_and_what_its_values_are(self, make_raster, told):
        bands = (
            Band(name="B4", unit="reflectance", scale=1e-4, offset=-0.1, color="red"),
            Band(name="B8"),
        )
        pixels = np.random.default_rng(0).integers(1, 10_000, (2, 300, 700), np.uint16)
        pixels[:, :30] = 0
        path = make_raster("a.tif", pixels, nodata=0, bands=bands)
        record = told(path, "--json")
        assert record["kind"] == "raster"
        assert record["crs"] == "EPSG:32633"
        assert (record["columns"], record["rows"]) == (700, 300)
        assert record["bounds"] == [500_000, 3_997_000, 507_000, 4_000_000]
        assert record["valid_share"] == pytest.approx(0.9)
        assert record["sampled_pixels"] == 300 * 700
        physical = pixels[0, 30:] * 1e-4 - 0.1
        red, nir = record["bands"]
        assert red["mean"] == pytest.approx(physical.mean())
        assert (red["min"], red["max"]) == pytest.approx((physical.min(), physical.max()))
        assert red["std"] == pytest.approx(physical.std())
        assert nir["std"] == pytest.approx(pixels[1, 30:].std())

        text = told(path)
        for words in (
            "crs EPSG:32633",
            "orientation north up",
            "nodata 0",
            "valid share 90%",
            "B4 reflectance 0.0001 -0.1 red",
        ):
            assert words in text

    def test_a_large_raster_is_looked_at_in_places(self, make_raster, told):
        pixels = np.zeros((1, 40, 4000), np.uint8)
        pixels[..., -1], pixels[..., 0] = 9, 7
        record = told(make_raster("a.tif", pixels), "--json")
        assert record["sampled_pixels"] == 40 * 5 * 256
        assert record["bands"][0]["max"] == 9
        assert record["bands"][0]["mean"] > 0

    def test_nothing_valid_has_no_values(self, make_raster, told):
        path = make_raster("a.tif", np.full((1, 5, 5), np.nan, np.float32), nodata=np.nan)
        record = told(path, "--json")
        assert record["nodata"] == "nan"
        assert record["valid_share"] == 0
        assert record["bands"][0]["mean"] is None
        assert "nodata nan" in told(path)

    @pytest.mark.parametrize(
        ("words", "validity"),
        [
            ({}, "not told"),
            ({"nodata": 0}, "nodata value"),
            ({"valid": np.eye(5, dtype=bool)}, "mask"),
        ],
    )
    def test_it_says_how_pixels_are_known_to_be_valid(self, make_raster, told, words, validity):
        path = make_raster("a.tif", np.ones((1, 5, 5), np.uint8), **words)
        assert f"validity {validity}" in told(path)

    def test_it_says_which_work_made_a_raster(self, make_raster, tmp_path, told):
        path = make_raster("a.tif", np.ones((1, 5, 5), np.uint8))
        list(mosaic_rasters([path], tmp_path / "out.tif", blend="mean"))
        text = told(tmp_path / "out.tif")
        assert f"made by blend mean command mosaic rasters {path}" in text
        assert "cloud-optimized" in text
        assert "not cloud-optimized" not in told(path)

    def test_of_the_scene_that_was_translated_it_says_what_was_asked_for(self, make_raster, told):
        work = {"command": "predict", "scene": {"path": "s.tif", "bands": [2, 1], "files": [["s"]]}}
        path = make_raster("a.tif", np.ones((1, 5, 5), np.uint8))
        with rasterio.open(path, "r+") as file:
            file.update_tags(**record_tags(work))
        asked = {"path": "s.tif", "bands": [2, 1]}
        assert told(path, "--json")["made_by"] == {"command": "predict", "scene": asked}

    def test_a_raster_that_cannot_be_used_is_described_with_what_is_missing(
        self, make_raster, told
    ):
        path = make_raster(
            "a.tif", np.ones((2, 4, 5), np.uint8), crs=None, bands=(Band(name="VV"), Band(name="x"))
        )
        record = told(path, "--json")
        assert record["kind"] == "raster"
        assert "no coordinate reference system" in record["unusable"]
        assert "rio edit-info --crs" in record["unusable"]
        assert record["crs"] is None
        assert (record["columns"], record["rows"]) == (5, 4)
        assert record["transform"][:3] == [10, 0, 500_000]
        assert [band["name"] for band in record["bands"]] == ["VV", "x"]
        text = told(path)
        assert "unusable" in text
        assert "VV" in text

    @pytest.mark.parametrize("kind", ["complex64", "palette", "alpha"])
    def test_other_rasters_that_cannot_be_used_are_described_too(self, make_raster, told, kind):
        dtype = kind if kind == "complex64" else "uint8"
        words = {"photometric": "palette"} if kind == "palette" else {}
        bands = (Band(name="mask", color="alpha"),) if kind == "alpha" else ()
        path = make_raster("a.tif", np.ones((1, 4, 4), dtype), bands=bands, **words)
        record = told(path, "--json")
        assert record["unusable"]
        assert record["crs"] == "EPSG:32633"
        assert record["bands"][0]["type"] == dtype

    @pytest.mark.real
    def test_a_real_raster(self, real_data, told):
        text = told(next((real_data / "naip-rgbn-5m").glob("*2010*.tif")))
        assert "crs EPSG:26914" in text
        assert "cloud-optimized, blocks of 512 x 512 px, deflate" in text


class TestFolders:
    def test_chips_are_counted_and_their_domains_described(self, chips, told):
        record = told(chips, "--json")
        assert record["kind"] == "chips"
        assert (record["layout"], record["paired"], record["chip_size"]) == ("pix2pix", True, 32)
        counts = {row["split"]: (row["A"], row["B"]) for row in record["chips"]}
        for split, (a, b) in counts.items():
            assert a == b
            assert (a > 0) == (split != "test")
        assert [band["name"] for band in record["A"]["bands"]] == ["VV", "VH"]
        assert record["A"]["nodata"] == "nan"
        assert record["B"]["type"] == "uint8"
        assert record["settings"]["a"] == [str(chips.parent / "sar.tif")]

        text = told(chips)
        assert f"train {counts['train'][0]} {counts['train'][1]}" in text
        assert "A bands name unit color low high clipped share VV dB" in text
        assert "stride 16" in text

    def test_chips_by_hand_are_chips_too(self, make_raster, tmp_path, told):
        for folder in ("images", "images2"):
            for number in range(4):
                make_raster(f"hand/{folder}/{number}.tif", np.ones((1, 8, 8), np.uint8))
        text = told(tmp_path / "hand")
        assert "kind chips" in text
        assert "made by ArcGIS, or by hand" in text

    def test_a_run_says_how_far_it_is_and_how_good(self, trained, told):
        record = told(trained, "--json")
        assert record["kind"] == "run"
        assert (record["updates_logged"], record["updates_wanted"]) == (2, 2)
        assert record["checkpoints"] == [2]
        assert record["model_after_updates"] == 2
        assert record["latest"]["psnr"] > 0
        text = told(trained)
        assert "model pix2pix" in text
        assert "latest" in text
        assert "changes" not in text

    def test_a_run_that_has_just_begun_has_little_to_tell(self, trained, told):
        for name in ("model", "checkpoints"):
            shutil.rmtree(trained / name)
        (trained / "log.csv").unlink()
        record = told(trained, "--json")
        assert (record["updates_logged"], record["checkpoints"]) == (0, [])
        assert record["model_after_updates"] is None

    @pytest.mark.parametrize("zipped", [False, True])
    def test_a_model_says_what_it_translates(self, trained, tmp_path, told, zipped):
        path = trained / "model"
        if zipped:
            path = shutil.make_archive(tmp_path / "model", "zip", path)
        record = told(path, "--json")
        assert record["kind"] == "model"
        assert record["directions"] == ["A to B"]
        assert record["updates"] == 2
        assert record["parameters"] > 1000
        text = told(path)
        assert "generator resnet, 1 block, width 4, norm batch" in text
        assert "Contains [modified] Copernicus data" in text
        assert "halo 20" in text


class TestRefusals:
    def refuse(self, path, capsys):
        with pytest.raises(SystemExit) as left:
            run(["info", str(path)])
        assert left.value.code == 2
        told = capsys.readouterr()
        assert told.out == ""
        return told.err

    def test_what_is_not_there(self, tmp_path, capsys):
        assert "does not exist" in self.refuse(tmp_path / "a.tif", capsys)

    def test_a_folder_of_something_else(self, make_raster, tmp_path, capsys):
        make_raster("rasters/a.tif", np.ones((1, 4, 4), np.uint8))
        assert "no chips, run or model" in self.refuse(tmp_path / "rasters", capsys)

    def test_chips_that_are_not_complete(self, chips, capsys):
        (chips / "tile.json").unlink()
        assert "`geotranslate tile` was interrupted" in self.refuse(chips, capsys)

    def test_a_model_whose_weights_were_changed(self, trained, capsys):
        (weights,) = (trained / "model").glob("g_ab-*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
        assert "SHA-256 differs" in self.refuse(trained / "model", capsys)

    def test_a_zip_of_something_else(self, tmp_path, capsys):
        (tmp_path / "stuff").mkdir()
        path = shutil.make_archive(tmp_path / "stuff", "zip", tmp_path / "stuff")
        assert "a zip of 0 files (none) but no model" in self.refuse(path, capsys)

    def test_a_zip_of_rasters_says_how_to_name_one(self, make_raster, tmp_path, told, capsys):
        make_raster("stuff/a.tif", np.ones((1, 4, 4), np.uint8))
        path = shutil.make_archive(tmp_path / "stuff", "zip", tmp_path / "stuff")
        said = self.refuse(path, capsys)
        assert "a zip of 1 file (a.tif) but no model" in said
        assert told(said.split("name a raster in it as ")[1].replace("NAME.", "a.tif").strip())


def test_the_library_gives_the_same_record(make_raster, told):
    path = make_raster("a.tif", np.ones((1, 4, 4), np.uint8))
    assert json.loads(json.dumps(describe(path))) == told(path, "--json")

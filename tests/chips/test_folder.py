import json
import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from geotranslate.chips.arcgis import write_metadata
from geotranslate.chips.folder import open_chips, read_chip
from geotranslate.chips.index import ChipRecord, TileRecord, write_index, write_tile_record
from geotranslate.chips.layout import LAYOUTS
from geotranslate.errors import ChipsError
from geotranslate.raster.domain import Band, Domain
from geotranslate.raster.output import locked
from geotranslate.raster.scene import open_scene
from geotranslate.raster.statistics import band_statistics

SIZE = 8
SAR = Domain(
    bands=(Band(name="VV", unit="dB"),),
    dtype="float32",
    resolution_m=(10, 10),
    low=(-25.0,),
    high=(5.0,),
)
RGB = Domain(
    bands=tuple(Band(name=name) for name in "RGB"),
    dtype="uint8",
    resolution_m=(10, 10),
    low=(0.0,) * 3,
    high=(255.0,) * 3,
)


@pytest.fixture
def ours(make_raster, tmp_path):
    """Writes a folder as `geotranslate tile` does, of one chip per split given."""

    def make(layout="pix2pix", splits=("train", "train", "val", "test"), counts=None):
        random = np.random.default_rng(5)
        shape, records = LAYOUTS[layout], []
        for side, domain in (("a", SAR), ("b", RGB)):
            for number, split in enumerate((counts or {}).get(side, splits)):
                file = shape.chip_file(side, split, number)
                pixels = random.integers(1, 200, (len(domain.bands), SIZE, SIZE))
                path = make_raster(f"chips/{file}", pixels.astype(domain.dtype), col=SIZE * number)
                with open_scene(path) as scene:
                    grid = scene.grid
                stats = band_statistics(pixels, np.ones((SIZE, SIZE), bool))
                window = (SIZE * number, 0, SIZE, SIZE)
                records.append(ChipRecord(side, file, split, ("s",), window, grid, 1.0, stats))
        folder = tmp_path / "chips"
        folder.mkdir(exist_ok=True)
        write_metadata(folder, shape, records, SAR, RGB)
        write_index(folder, records, {"a": SAR, "b": RGB})
        record = TileRecord(
            version="1",
            layout=layout,
            paired=shape.paired,
            settings={},
            domain_a=SAR,
            domain_b=RGB,
            counts={},
            dropped={},
        )
        write_tile_record(folder, record)
        return folder

    return make


@pytest.fixture
def foreign(make_raster, tmp_path):
    """Writes chips of A (2 bands, int16, nodata -99) and B (1 band, uint8) without an index."""

    def make(layout="pix2pix", a=5, b=5, suffix=".tif"):
        random = np.random.default_rng(6)
        for folder, count, bands, dtype, nodata in (
            (LAYOUTS[layout].a, a, 2, "int16", -99),
            (LAYOUTS[layout].b, b, 1, "uint8", None),
        ):
            for number in range(count):
                pixels = random.integers(3, 200, (bands, SIZE, SIZE)).astype(dtype)
                name = f"chips/{folder}/{number:09d}{suffix}"
                make_raster(name, pixels, col=SIZE * number, nodata=nodata)
        return tmp_path / "chips"

    return make


def numbers(files):
    return [int(file.stem) for file in files]


def definition(**stats):
    return json.dumps({key: [{"Min": a, "Max": b} for a, b in ends] for key, ends in stats.items()})


# Ours.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_ours_has_what_was_written(layout, ours):
    path = ours(layout)
    folder = open_chips(path)
    assert (folder.domain_a, folder.domain_b, folder.chip_size) == (SAR, RGB, SIZE)
    assert (folder.layout, folder.paired) == (layout, LAYOUTS[layout].paired)
    for domain in "ab":
        for split, expected in (("train", [0, 1]), ("val", [2]), ("test", [3])):
            files = folder.files(domain, split)
            assert numbers(files) == expected
            assert all(LAYOUTS[layout].folder(domain) in file.as_posix() for file in files)
    assert pickle.loads(pickle.dumps(folder)) == folder  # noqa: S301 - loaders send it to workers


def test_splits_without_chips_are_empty(ours):
    assert open_chips(ours(splits=["train"])).files("a", "test") == []


def test_our_folder_can_be_moved(ours, tmp_path):
    moved = ours().rename(tmp_path / "moved")
    assert all(file.exists() for file in open_chips(moved).files("b", "train"))


@pytest.mark.parametrize("gone", ["images2/000000001.tif", "images"])
def test_a_missing_chip_is_refused_with_the_mend(gone, ours):
    folder = ours()
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ChipsError, match=rf"{gone}.*Copy the folder again"):
        open_chips(folder)


def test_an_interrupted_folder_is_refused_with_the_mend(ours):
    folder = ours()
    (folder / "tile.json").unlink()
    with pytest.raises(ChipsError, match="Run the same `geotranslate tile` command again"):
        open_chips(folder)
    (folder / "chips.gpkg").unlink()
    (folder / "tile.json.parts").mkdir()
    with pytest.raises(ChipsError, match="Run the same `geotranslate tile` command again"):
        open_chips(folder)


def test_a_folder_that_is_being_cut_is_refused_with_the_mend(ours):
    folder = ours()
    (folder / "tile.json").unlink()
    lock = folder / "tile.json.parts" / ".lock"
    lock.parent.mkdir()
    with locked(lock, folder), pytest.raises(ChipsError, match=r"still being cut.* Wait for it"):
        open_chips(folder)
    lock.touch()  # as a killed process leaves it
    with pytest.raises(ChipsError, match="Run the same `geotranslate tile` command again"):
        open_chips(folder)


def test_an_index_whose_pairs_do_not_match_is_refused(ours):
    folder = ours(counts={"b": ("train", "val", "train", "test")})
    with pytest.raises(ChipsError, match=r"the pairs are lost. Make the folder again"):
        open_chips(folder)


def test_a_folder_without_chips_is_refused_with_the_mend(ours):
    with pytest.raises(ChipsError, match="--min-valid"):
        open_chips(ours(splits=[]))


def test_a_layout_of_a_newer_version_is_refused(ours):
    folder = ours()
    record = (folder / "tile.json").read_text().replace('"pix2pix"', '"spiral"')
    (folder / "tile.json").write_text(record)
    with pytest.raises(ChipsError, match="Update geotranslate to 1 or newer"):
        open_chips(folder)


# Any other.


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".tif", ".TIF"])
def test_a_folder_without_an_index_is_read_by_its_layout(layout, suffix, foreign):
    folder = open_chips(foreign(layout, suffix=suffix))
    assert folder.paired == LAYOUTS[layout].paired
    assert folder.chip_size == SIZE
    assert folder.files("a", "test") == folder.files("b", "test") == []
    for domain in "ab":
        train, val = folder.files(domain, "train"), folder.files(domain, "val")
        assert len(val) == 1
        assert sorted(numbers(train + val)) == list(range(5))


def test_a_tenth_is_drawn_for_validation_by_the_seed_and_pairs_stay_together(foreign):
    path = foreign(a=20, b=20)
    first, again = open_chips(path), open_chips(path)
    assert len(first.files("a", "val")) == 2
    assert first.chips == again.chips
    assert {tuple(numbers(open_chips(path, seed=s).files("a", "val"))) for s in range(3)} != {
        tuple(numbers(first.files("a", "val")))
    }
    for split in ("train", "val"):
        assert numbers(first.files("a", split)) == numbers(first.files("b", split))


def test_bands_type_nodata_and_pixel_size_come_from_the_chips(foreign):
    folder = open_chips(foreign())
    a, b = folder.domain_a, folder.domain_b
    assert (a.names, a.dtype, a.nodata) == (["band 1", "band 2"], "int16", -99)
    assert (b.names, b.dtype, b.nodata) == (["band 1"], "uint8", None)
    assert a.resolution_m == pytest.approx((10, 10))


def test_without_statistics_bytes_get_their_full_range_and_the_rest_percentiles(foreign):
    path = foreign(a=20, b=20)
    folder = open_chips(path)
    assert (folder.domain_b.low, folder.domain_b.high) == ((0.0,), (255.0,))
    values = np.stack([read_chip(file).pixels for file in folder.files("a", "train")])
    expected = np.percentile(values, (0.1, 99.9), axis=(0, 2, 3))
    np.testing.assert_allclose([folder.domain_a.low, folder.domain_a.high], expected, atol=1)


def test_invalid_pixels_and_validation_chips_do_not_count_in_percentiles(foreign):
    path = foreign("cyclegan")
    held_out = open_chips(path).files("a", "val")[0]
    for file in (path / "A/images").iterdir():
        with rasterio.open(file, "r+") as chip:
            pixels = chip.read()
            pixels[:, 0] = -99
            pixels[:, 1:] = 30_000 if file == held_out else 5
            chip.write(pixels)
    domain = open_chips(path).domain_a
    assert domain.low == domain.high == (5.0, 5.0)


def test_arcgis_statistics_of_both_sides_set_the_range_of_pairs(foreign):
    path = foreign()
    emd = definition(AllTilesStats=[(1, 10), (-2, 20.5)], AllTilesStats2=[(4, 200)])
    (path / "esri_model_definition.emd").write_text(emd)
    folder = open_chips(path)
    assert (folder.domain_a.low, folder.domain_a.high) == ((1.0, -2.0), (10.0, 20.5))
    assert (folder.domain_b.low, folder.domain_b.high) == ((4.0,), (200.0,))


def test_arcgis_statistics_of_one_side_of_pairs_are_not_taken_for_both(foreign):
    path = foreign()
    (path / "esri_model_definition.emd").write_text(definition(AllTilesStats=[(1, 10), (-2, 20)]))
    assert open_chips(path).domain_b.high == (255.0,)


def test_unpaired_domains_have_statistics_of_their_own(foreign):
    path = foreign("cyclegan")
    # Windows programs begin a file with a byte order mark.
    for side, ends in (("A", [(1, 10), (2, 20)]), ("B", [(3, 30)])):
        emd = definition(AllTilesStats=ends)
        (path / side / "esri_model_definition.emd").write_text(emd, encoding="utf-8-sig")
    folder = open_chips(path)
    assert (folder.domain_a.high, folder.domain_b.high) == ((10.0, 20.0), (30.0,))


@pytest.mark.parametrize(
    "ends", [[(1, 10)], [(-99, 10), (1, 10)], [(1, float("inf")), (1, 10)], [("?", 1), (1, 1)], []]
)
def test_statistics_that_cannot_be_the_chips_are_measured_instead(ends, foreign, caplog):
    path = foreign("cyclegan")
    (path / "A" / "esri_model_definition.emd").write_text(definition(AllTilesStats=ends))
    with caplog.at_level(logging.WARNING):
        low = open_chips(path).domain_a.low
    assert len(low) == 2
    assert min(low) >= 3
    assert "measured instead" in caplog.text


def test_the_range_is_physical_and_right_way_up(foreign):
    path = foreign("cyclegan")
    for file in (path / "B/images").iterdir():
        with rasterio.open(file, "r+") as chip:
            chip.scales, chip.offsets = (-0.5,), (100.0,)
    domain = open_chips(path).domain_b
    assert (domain.low, domain.high) == ((100 - 127.5,), (100.0,))


def test_a_folder_of_ours_without_its_index_reads_as_arcgis_reads_it(ours):
    folder = ours()
    for name in ("tile.json", "chips.gpkg", "A.gti.gpkg", "B.gti.gpkg"):
        (folder / name).unlink()
    chips = open_chips(folder)
    values = np.stack([read_chip(file).pixels for file in (folder / "images").glob("*.tif")])
    assert chips.paired
    assert (chips.domain_a.low, chips.domain_a.high) == ((values.min(),), (values.max(),))


@pytest.mark.parametrize(("a", "b"), [(5, 4), (4, 5)])
def test_unequal_pairs_are_refused_with_the_mend(a, b, foreign):
    with pytest.raises(ChipsError, match=r"holds 5|holds 4") as refusal:
        open_chips(foreign(a=a, b=b))
    assert "000000004 is only in one of them" in str(refusal.value)
    assert "remove chips without a partner" in str(refusal.value)


def test_pairs_of_other_names_are_refused_with_the_mend(foreign):
    path = foreign()
    (path / "images/000000002.tif").rename(path / "images/000000009.tif")
    with pytest.raises(ChipsError, match=r"000000002 is only .* move them to A/images"):
        open_chips(path)


def test_shuffled_pairs_are_refused_by_their_places(foreign):
    path = foreign() / "images"
    (path / "000000002.tif").rename(path / "x.tif")
    (path / "000000003.tif").rename(path / "000000002.tif")
    (path / "x.tif").rename(path / "000000003.tif")
    with pytest.raises(ChipsError, match=r"000000002.tif .* lie in different places.*in one go"):
        open_chips(path.parent)


def test_pairs_in_two_crss_are_refused(foreign):
    path = foreign()
    for file in (path / "images2").iterdir():
        with rasterio.open(file, "r+") as chip:
            chip.crs = "EPSG:32634"
    with pytest.raises(ChipsError, match="lie in different places"):
        open_chips(path)


@pytest.mark.parametrize(("shift", "paired"), [(0.4, True), (0.6, False)])
def test_half_a_pixel_makes_no_other_place(shift, paired, foreign):
    path = foreign("train_a_b")
    for file in (path / "Images/train_b").iterdir():
        with rasterio.open(file, "r+") as chip:
            chip.transform = chip.transform @ Affine.translation(shift, 0)
    assert open_chips(path).paired == paired


def test_pairs_that_do_not_say_where_they_lie_are_paired_by_name(tmp_path):
    random = np.random.default_rng(1)
    for folder, suffix, shape in (("images", "png", (8, 8, 3)), ("images2", "JPG", (8, 8))):
        (tmp_path / folder).mkdir()
        for number in range(3):
            pixels = random.integers(0, 255, shape).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.{suffix}")
    folder = open_chips(tmp_path)
    assert folder.paired
    assert len(folder.domain_a.bands) == 3
    chip = read_chip(folder.files("b", "val")[0])
    assert chip.pixels.shape == (1, 8, 8)
    assert chip.valid.all()


def test_hand_made_folders_whose_names_differ_serve_unpaired_learning_only(foreign):
    folder = open_chips(foreign("train_a_b", a=5, b=3))
    assert len(folder.files("b", "train")) == 2
    with pytest.raises(ChipsError, match=r"holds 5 chips .* --layout pix2pix"):
        folder.require_pairs()


def test_pairs_are_not_asked_of_a_folder_that_has_none(ours):
    with pytest.raises(ChipsError, match=r"cut alone.* --model cyclegan"):
        open_chips(ours("cyclegan")).require_pairs()


def test_pairs_are_there_where_they_are_asked_for(ours):
    open_chips(ours("pix2pix")).require_pairs()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 8, 9), "int16"), ((3, 8, 8), "int16"), ((2, 8, 8), "float32")]
)
def test_the_chip_of_another_kind_is_named(shape, dtype, foreign, make_raster):
    path = foreign("cyclegan")
    make_raster("chips/A/images/000000003.tif", np.ones(shape, dtype))
    with pytest.raises(ChipsError, match=r"000000003.tif has .*Remove the odd ones"):
        open_chips(path)


def test_pairs_of_two_sizes_are_refused(foreign, make_raster):
    path = foreign()
    for number in range(5):
        make_raster(f"chips/images2/{number:09d}.tif", np.ones((1, 4, 4), "uint8"))
    with pytest.raises(ChipsError, match=r"8 x 8 px.*4 x 4 px"):
        open_chips(path)


def test_what_has_no_brightness_is_refused(foreign, make_raster):
    path = foreign("cyclegan")
    make_raster("chips/A/images/000000000.tif", np.ones((1, 8, 8), "complex64"))
    with pytest.raises(ChipsError, match="Export the chips as plain numbers"):
        open_chips(path)


def test_chips_without_a_valid_pixel_are_refused(foreign):
    path = foreign("cyclegan")
    for file in (path / "A/images").iterdir():
        with rasterio.open(file, "r+") as chip:
            chip.write(np.full((2, SIZE, SIZE), -99, "int16"))
    with pytest.raises(ChipsError, match="Look at the chips' nodata value"):
        open_chips(path)


def test_a_damaged_chip_is_named(foreign):
    path = foreign()
    (path / "images/000000004.tif").write_bytes(b"II*\0")
    with pytest.raises(ChipsError, match=r"000000004.tif cannot be read.*Copy it again"):
        open_chips(path)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_chips_are_refused(count, foreign):
    path = foreign("cyclegan", a=count)
    (path / "A/images").mkdir(parents=True, exist_ok=True)
    with pytest.raises(ChipsError, match=rf"holds {count} chips.*Export more chips"):
        open_chips(path)


def test_what_is_no_chip_folder_is_refused_with_the_mend(tmp_path):
    with pytest.raises(ChipsError, match="Cut scenes into chips with `geotranslate tile`"):
        open_chips(tmp_path)
    with pytest.raises(ChipsError, match=r"does not exist.*`geotranslate tile` wrote"):
        open_chips(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ChipsError, match="is a file"):
        open_chips(tmp_path / "file")


# Chips.


@pytest.mark.parametrize("words", [{"nodata": 7}, {"valid": np.eye(8, dtype=bool)}])
def test_a_chip_is_read_as_the_scene_reader_reads_it(words, make_raster):
    pixels = np.random.default_rng(2).integers(0, 9, (3, 8, 8)).astype("float32")
    pixels[0, 0, 0] = np.nan
    path = make_raster("chip.tif", pixels, **words)
    with open_scene(path) as scene:
        expected = scene.read(rasterio.windows.Window(col_off=0, row_off=0, width=8, height=8))
    chip = read_chip(path)
    np.testing.assert_array_equal(chip.pixels, expected.pixels)
    np.testing.assert_array_equal(chip.valid, expected.valid)
    assert not chip.valid.all()


def test_an_alpha_band_is_validity_and_no_band(tmp_path):
    pixels = np.full((8, 8, 4), 200, "uint8")
    pixels[0, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "chip.png")
    chip = read_chip(tmp_path / "chip.png")
    assert chip.pixels.shape == (3, 8, 8)
    assert not chip.valid[0].any()
    assert chip.valid[1:].all()


def test_a_chip_cut_off_in_the_middle_is_refused(make_raster):
    path = make_raster("chip.tif", np.ones((3, 64, 64)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ChipsError, match="make the folder again with --overwrite"):
        read_chip(path)


def test_a_missing_chip_is_refused():
    with pytest.raises(ChipsError, match="missing or damaged"):
        read_chip(Path("nowhere.tif"))

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geotranslate.chips.config import TileConfig
from geotranslate.chips.file import read_chip
from geotranslate.chips.folder import open_chips
from geotranslate.chips.index import read_index, read_tile_record
from geotranslate.chips.plan import plan_tiles
from geotranslate.chips.tile import Progress, tile_scenes
from geotranslate.errors import ChipsError, OutputError, RasterError, SettingError
from geotranslate.raster.domain import Band
from geotranslate.raster.output import LOCK_NAME, locked
from geotranslate.raster.scene import open_scene
from geotranslate.raster.warp import WarpedScenes
from tests.conftest import NORTH_UP

WORDS = {"size": 16, "stride": 8, "split": "0.6,0.2,0.2"}
VV_VH = (Band(name="VV", unit="dB", color="gray"), Band(name="VH", unit="dB"))
RGB = tuple(Band(name=name, color=name) for name in ("red", "green", "blue"))


def noise(bands, rows, cols, dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(1, 200, (bands, rows, cols)).astype(dtype)


def sar(rows, cols, seed=1):
    return np.random.default_rng(seed).normal(-12, 4, (2, rows, cols)).astype("float32")


def tile(folder, *, workers=1, overwrite=False, **words):
    """Cut, and give the index by the chips' files."""
    plan = plan_tiles(TileConfig(**WORDS | words))
    for _ in tile_scenes(plan, folder, workers=workers, overwrite=overwrite):
        pass
    return {record.file: record for record in read_index(folder)}


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def pairs_of(records, layout=("images/", "images2/")):
    """Each A chip's file with its B chip's."""
    return {file: file.replace(*layout) for file, record in records.items() if record.domain == "a"}


@pytest.fixture
def pair(make_raster):
    """A SAR scene and an optical one on the same grid, as words for tile."""
    return {
        "a": [str(make_raster("sar.tif", sar(56, 48), bands=VV_VH))],
        "b": [str(make_raster("optical.tif", noise(3, 56, 48), bands=RGB))],
    }


def test_a_disk_that_may_be_too_small_is_warned_of(pair, tmp_path, room, caplog):
    room(1_000)
    tile(tmp_path / "chips", **pair)
    assert f"{tmp_path / 'chips'} needs up to 0." in caplog.text


def test_pairs_on_one_grid_are_cut_without_a_change(pair, tmp_path):
    records = tile(tmp_path / "chips", **pair)
    partners = pairs_of(records)
    assert set(partners.values()) == {f for f, r in records.items() if r.domain == "b"}
    assert len(partners) > 15
    for domain in "ab":
        with rasterio.open(pair[domain][0]) as scene:
            for file, record in records.items():
                if record.domain == domain:
                    col, row, width, height = record.window
                    window = rasterio.windows.Window(col, row, width, height)
                    with rasterio.open(tmp_path / "chips" / file) as chip:
                        assert (chip.read() == scene.read(window=window)).all()
                        assert chip.transform == record.grid.transform
                        assert scene.window(*chip.bounds) == window
                        assert chip.crs == scene.crs
                        assert chip.descriptions == scene.descriptions
                        assert chip.units == scene.units
                        assert chip.dtypes == scene.dtypes
                        assert chip.colorinterp == scene.colorinterp


def test_a_vrt_is_cut_like_the_raster_it_stands_for(pair, tmp_path):
    (a,), (b,) = pair["a"], pair["b"]
    virtual = {}
    for domain, path in (("a", a), ("b", b)):
        vrt = tmp_path / f"{domain}.vrt"
        rasterio.shutil.copy(path, vrt, driver="VRT")
        virtual[domain] = [str(vrt)]
    of_vrt, of_file = (tile(tmp_path / name, **w) for name, w in (("v", virtual), ("f", pair)))
    assert set(of_vrt) == set(of_file)
    for file in of_file:
        assert (tmp_path / "v" / file).read_bytes() == (tmp_path / "f" / file).read_bytes()
    os.utime(a, ns=(1, 1))
    with pytest.raises(OutputError, match=r"a\.vrt\.files was"):
        tile(tmp_path / "v", **virtual)


def test_the_folder_is_complete_for_those_who_learn_from_it(pair, tmp_path):
    folder = tmp_path / "chips"
    tile(folder, **pair)
    chips = open_chips(folder)
    record = read_tile_record(folder)
    assert chips.paired
    assert chips.chip_size == 16
    for split, count in record.counts["a"].items():
        assert len(chips.files("a", split)) == len(chips.files("b", split)) == count > 0
    assert all(path.parent.parent.name == "test" for path in chips.files("a", "test"))
    assert record.domain_a.names == ["VV", "VH"]
    assert record.domain_a.bands[0].unit == "dB"
    assert record.domain_b.resolution_m == (10, 10)
    assert (record.domain_b.low, record.domain_b.high) == ((0, 0, 0), (255, 255, 255))


def test_the_normalization_is_that_of_the_valid_training_pixels(make_raster, tmp_path):
    folder = tmp_path / "chips"
    a = make_raster("a.tif", sar(96, 96))
    records = tile(folder, a=[str(a)], b=[str(a)])
    domain = read_tile_record(folder).domain_a
    train = [f for f, r in records.items() if r.domain == "a" and r.split == "train"]
    values = np.concatenate([read_chip(folder / f).pixels.reshape(2, -1) for f in train], axis=1)
    for low, high, clipped, band in zip(
        domain.low, domain.high, domain.clipped, values, strict=True
    ):
        assert np.percentile(band, 0.02) < low < np.percentile(band, 0.25)
        assert np.percentile(band, 99.75) < high < np.percentile(band, 99.98)
        assert 0 < clipped < 0.004


def test_statistics_are_those_of_the_files(pair, tmp_path):
    for file, record in tile(tmp_path / "chips", **pair).items():
        pixels, _ = read_chip(tmp_path / "chips" / file)
        for band, figures in zip(pixels, record.statistics, strict=True):
            assert (figures.min, figures.max) == (band.min(), band.max())
            assert figures.mean == pytest.approx(band.mean(dtype=float))
            assert figures.std == pytest.approx(band.std(dtype=float))


def test_b_is_brought_onto_the_grid_of_a_from_all_scenes_below(make_raster, tmp_path):
    a = make_raster("a.tif", sar(64, 64))
    lonlat = Affine(1e-4, 0, 14.9985, 0, -8e-5, 36.145)
    smooth = np.add.outer(np.arange(120), 2 * np.arange(160))[None].astype("uint16")
    left = smooth[:, :, :50]
    right = smooth[:, :, 50:]
    b = [
        make_raster("left.tif", left, crs="EPSG:4326", transform=lonlat),
        make_raster("right.tif", right, crs="EPSG:4326", transform=lonlat, col=50),
    ]
    words = {"a": [str(a)], "b": list(map(str, b)), "resampling": "cubic", "split": "1,0,0"}
    records = tile(tmp_path / "chips", **words)
    assert len(records) == 2 * 49
    assert {len(record.scenes) for record in records.values()} == {1, 2}
    with open_scene(a) as on, open_scene(b[0]) as one, open_scene(b[1]) as other:
        warped = WarpedScenes([one, other], on.grid, "cubic")
        for file, record in records.items():
            if record.domain == "b":
                col, row, width, height = record.window
                chip = warped.read(rasterio.windows.Window(col, row, width, height))
                assert (read_chip(tmp_path / "chips" / file).pixels == chip.pixels).all()
                assert record.grid == chip.grid == records[file.replace("2/", "/")].grid


@pytest.mark.parametrize("step", [(10, 10), (-10, -10), (-10, 10)])
def test_scenes_that_run_the_other_way_are_cut_in_place(make_raster, tmp_path, step):
    x, y = step
    turned = Affine(x, 0, 500_000, 0, y, 4_000_000)
    pixels = noise(1, 40, 40)
    a = make_raster("a.tif", pixels, transform=turned)
    rows = slice(None, None, -1 if y > 0 else 1)
    cols = slice(None, None, -1 if x < 0 else 1)
    upright = pixels[:, rows, cols]
    north = Affine(10, 0, min(500_000, 500_000 + 40 * x), 0, -10, max(4e6, 4e6 + 40 * y))
    b = make_raster("b.tif", upright, transform=north)
    records = tile(tmp_path / "chips", a=[str(a)], b=[str(b)], split="1,0,0")
    assert len(records) == 2 * 16
    for one, other in pairs_of(records).items():
        ours, theirs = (read_chip(tmp_path / "chips" / file).pixels for file in (one, other))
        # Where axes run backwards the warper's kernel rounds; never by more than one level.
        assert np.abs(ours.astype(int) - theirs).max() <= 1
        with rasterio.open(tmp_path / "chips" / one) as chip:
            assert (chip.transform.a, chip.transform.e) == step


def test_unpaired_domains_need_not_meet(make_raster, tmp_path):
    words = {
        "a": [str(make_raster("a.tif", sar(64, 64), bands=VV_VH))],
        "b": [str(make_raster("b.tif", noise(3, 40, 56), bands=RGB, col=9999))],
        "layout": "cyclegan",
        "split": "1,0,0",
    }
    records = tile(tmp_path / "chips", **words)
    record = read_tile_record(tmp_path / "chips")
    assert not record.paired
    assert {domain: counts["train"] for domain, counts in record.counts.items()} == {
        "a": 49,
        "b": 24,
    }
    assert {file[: file.index("/")] for file in records} == {"A", "B"}
    assert not open_chips(tmp_path / "chips").paired


def test_the_layout_of_train_a_and_train_b(pair, tmp_path):
    records = tile(tmp_path / "chips", **pair, layout="train_a_b", split="1,0,0")
    assert {file.rsplit("/", 1)[0] for file in records} == {"Images/train_a", "Images/train_b"}


# --------------------------------------------------------------------------------- validity


def wedge(rows, cols, share):
    """Valid right of a slanted line."""
    return np.add.outer(np.arange(rows), np.arange(cols)) > share * (rows + cols)


@settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    min_valid=st.sampled_from([0.25, 0.9, 1.0]),
    how=st.sampled_from(["nodata", "given", "mask", "nan"]),
    seed=st.integers(0, 3),
)
def test_a_pair_is_kept_for_its_share_of_pixels_valid_in_both(
    make_raster, tmp_path_factory, min_valid, how, seed
):
    folder = tmp_path_factory.mktemp("chips") / "chips"
    pixels, valid_a = sar(48, 48, seed), wedge(48, 48, 0.3)
    valid_b = wedge(48, 48, 0.2)[:, ::-1]
    words = {}
    profile = {}
    if how == "nodata":
        profile["nodata"] = -99
    if how == "given":
        words["nodata_a"] = -99
    if how == "mask":
        profile["valid"] = valid_a
    pixels[:, ~valid_a] = np.nan if how == "nan" else -99
    a = make_raster("a.tif", pixels, **profile)
    b = make_raster("b.tif", np.where(valid_b, noise(1, 48, 48), 0), nodata=0)
    words |= {"a": [str(a)], "b": [str(b)], "min_valid": min_valid, "split": "1,0,0"}
    records = tile(folder, **words)
    expected = {}
    for row in range(0, 33, 8):
        for col in range(0, 33, 8):
            both = (valid_a & valid_b)[row : row + 16, col : col + 16]
            if both.mean() >= min_valid:
                expected[col, row] = both.mean()
    found = {r.window[:2]: r.valid_share for r in records.values()}
    assert found == expected
    for file, record in records.items():
        col, row = record.window[:2]
        whole = valid_a if record.domain == "a" else valid_b
        chip = read_chip(folder / file)
        assert (chip.valid == whole[row : row + 16, col : col + 16]).all()
        assert record.statistics[0].count == chip.valid.sum()
    assert read_tile_record(folder).dropped.get("too few valid pixels", 0) == 25 - len(expected)


@pytest.mark.parametrize("says", ["nodata and mask", "nodata and a word", "mask and a word"])
def test_no_invalid_pixel_is_lost_on_the_way_into_chips(make_raster, tmp_path, says):
    pixels = sar(16, 16)
    valid = np.ones((16, 16), bool)
    valid[3:6, 2:9] = valid[8:12, 4:6] = False
    pixels[:, 3:6, 2:9] = -99
    pixels[1, 8:12, 4:6] = -77
    mask = pixels[1] != -77
    profile, words = {
        "nodata and mask": ({"nodata": -99, "valid": mask}, {}),
        "nodata and a word": ({"nodata": -99}, {"nodata_a": -77}),
        "mask and a word": ({"valid": mask}, {"nodata_a": -99}),
    }[says]
    a = make_raster("a.tif", pixels, **profile)
    b = make_raster("b.tif", noise(1, 16, 16))
    words |= {"a": [str(a)], "b": [str(b)], "min_valid": 0.5, "split": "1,0,0"}
    tile(tmp_path / "chips", **words)
    chip = read_chip(tmp_path / "chips" / "images" / "000000000.tif")
    assert (chip.valid == valid).all()
    assert (chip.pixels == pixels)[:, valid].all()


def test_a_valid_pixel_never_becomes_nodata_by_resampling(make_raster, tmp_path):
    a = make_raster("a.tif", sar(32, 32))
    edge = np.where(np.arange(40) < 20, -3, 3) * np.ones((1, 40, 40), int)
    b = make_raster("b.tif", edge.astype("int16"), nodata=0, transform=NORTH_UP, col=-0.5, row=-0.5)
    records = tile(tmp_path / "chips", a=[str(a)], b=[str(b)], split="1,0,0")
    assert len(records) == 2 * 9
    chips = [read_chip(tmp_path / "chips" / f) for f, r in records.items() if r.domain == "b"]
    assert all(chip.valid.all() for chip in chips)


def test_linear_values_become_decibels_with_a_floor(make_raster, tmp_path):
    linear = np.random.default_rng(0).gamma(1, 0.05, (1, 32, 32)).astype("f4")
    linear[0, 3, 3] = 0
    a = make_raster("a.tif", linear, bands=(Band(name="VV"),))
    words = {"a": [str(a)], "b": [str(a)], "decibel_a": "power", "split": "1,0,0"}
    records = tile(tmp_path / "chips", **words)
    with rasterio.open(tmp_path / "chips" / "images/000000000.tif") as chip:
        assert chip.units == ("dB",)
        values = chip.read(1)
    expected = 10 * np.log10(np.maximum(linear[0, :16, :16], 1e-5))
    assert np.abs(values - expected).max() < 1e-4
    assert values.min() == -50
    domain = read_tile_record(tmp_path / "chips").domain_a
    assert (domain.decibel, domain.bands[0].unit) == ("power", "dB")
    assert records


def test_percentiles_are_physical(make_raster, tmp_path):
    stored = np.random.default_rng(0).integers(0, 10_000, (1, 64, 64)).astype("uint16")
    a = make_raster("a.tif", stored, bands=(Band(name="NIR", scale=0.0001, offset=-0.1),))
    tile(tmp_path / "chips", a=[str(a)], b=[str(a)])
    domain = read_tile_record(tmp_path / "chips").domain_a
    assert domain.low[0] == pytest.approx(-0.1, abs=0.005)
    assert domain.high[0] == pytest.approx(0.9, abs=0.005)


# ---------------------------------------------------------------------------- limit, workers


def test_a_limit_is_met_though_many_windows_are_empty(make_raster, tmp_path):
    a = make_raster("a.tif", sar(96, 96), valid=wedge(96, 96, 0.4))
    words = {"a": [str(a)], "b": [str(a)], "limit": 12}
    records = tile(tmp_path / "chips", **words)
    record = read_tile_record(tmp_path / "chips")
    assert sum(record.counts["a"].values()) == 12
    assert len(records) == 24
    assert record.dropped["too few valid pixels"] > 3
    assert record.dropped["beyond the limit"] > 10
    again = tile(tmp_path / "again", workers=3, **words)
    assert set(again) == set(records)


def test_the_number_of_workers_changes_nothing(pair, tmp_path):
    for workers in (1, 3):
        tile(tmp_path / str(workers), workers=workers, **pair)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_no_workers_are_refused(pair, tmp_path):
    with pytest.raises(SettingError, match="Choose 1 or more"):
        tile(tmp_path / "chips", workers=0, **pair)
    assert not (tmp_path / "chips").exists()


def test_progress_counts_what_is_done_and_kept(make_raster, tmp_path):
    a = make_raster("a.tif", sar(48, 48), valid=wedge(48, 48, 0.3))
    plan = plan_tiles(TileConfig(a=[str(a)], b=[str(a)], **WORDS | {"split": "1,0,0"}))
    steps = list(tile_scenes(plan, tmp_path / "chips"))
    assert [step.done for step in steps] == list(range(1, 26))
    assert steps[-1] == Progress(25, len(read_index(tmp_path / "chips")) // 2)


# ------------------------------------------------------------------------------ running again


@pytest.mark.parametrize(("layout", "of_a"), [("pix2pix", "images"), ("cyclegan", "A/images")])
def test_what_was_killed_goes_on_and_ends_with_the_same_bytes(pair, tmp_path, layout, of_a):
    folder = tmp_path / "chips"
    pair |= {"layout": layout}
    once = 2 if layout == "pix2pix" else 1
    code = f"""
        import os, signal
        from geotranslate.chips.config import TileConfig
        from geotranslate.chips.plan import plan_tiles
        from geotranslate.chips.tile import tile_scenes
        plan = plan_tiles(TileConfig(**{WORDS | pair!r}))
        for step in tile_scenes(plan, __import__("pathlib").Path({str(folder)!r}), workers=2):
            if step.kept == 7:
                os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "tile.json").exists()
    with pytest.raises(ChipsError, match="Run the same `geotranslate tile` command again"):
        open_chips(folder)
    finished = {path: path.stat().st_mtime_ns for path in folder.rglob("*.tif")}
    assert len(finished) >= once * 7
    damaged = min((folder / of_a).glob("*.tif"))
    damaged.write_bytes(b"cut off by a power failure")

    tile(folder, workers=2, **pair)
    untouched = [path for path, time in finished.items() if path.stat().st_mtime_ns == time]
    assert len(untouched) == len(finished) - once
    tile(tmp_path / "undisturbed", **pair)
    assert contents(folder) == contents(tmp_path / "undisturbed")


def test_what_is_finished_is_left_alone(pair, tmp_path):
    folder = tmp_path / "chips"
    tile(folder, **pair)
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    tile(folder, **pair)
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before


@pytest.mark.parametrize(
    ("words", "difference", "finished"),
    [
        ({"size": 12}, "size was 16 and is now 12", True),
        ({"seed": 5}, "seed was 0 and is now 5", False),
        ({"bands_a": "VV"}, r'bands-a was unset and is now \["VV"\]', False),
    ],
)
def test_other_words_are_refused_by_their_difference(pair, tmp_path, words, difference, finished):
    folder = tmp_path / "chips"
    if finished:
        tile(folder, **pair)
    else:
        steps = tile_scenes(plan_tiles(TileConfig(**WORDS | pair)), folder)
        next(steps)
        steps.close()
    before = contents(folder)
    with pytest.raises(OutputError, match=difference):
        tile(folder, **pair | words)
    assert contents(folder) == before
    tile(folder, overwrite=True, **pair | words)
    tile(tmp_path / "fresh", **pair | words)
    assert contents(folder) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("there", [{}, {"stride": 12}])
def test_an_interrupted_overwrite_goes_on_and_a_finished_one_begins_anew(pair, tmp_path, there):
    folder = tmp_path / "chips"
    tile(folder, **pair | there)
    steps = tile_scenes(plan_tiles(TileConfig(**WORDS | pair)), folder, overwrite=True)
    next(steps), next(steps)
    steps.close()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("images/*.tif")}
    assert kept
    tile(folder, overwrite=True, **pair)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    tile(tmp_path / "fresh", **pair)
    assert contents(folder) == contents(tmp_path / "fresh")
    tile(folder, overwrite=True, **pair)
    assert not any(path.stat().st_mtime_ns == time for path, time in kept.items())


@pytest.mark.parametrize("record", ["{", "[1]"])
def test_chips_whose_record_is_damaged_are_refused_and_cut_anew_if_said(pair, tmp_path, record):
    folder = tmp_path / "chips"
    next(steps := tile_scenes(plan_tiles(TileConfig(**WORDS | pair)), folder))
    steps.close()
    (folder / "tile.json.parts" / "job.json").write_text(record)
    before = contents(folder)
    with pytest.raises(OutputError, match=r"job\.json cannot be read.*--overwrite to start over"):
        tile(folder, **pair)
    assert contents(folder) == before
    tile(folder, overwrite=True, **pair)
    tile(tmp_path / "fresh", **pair)
    assert contents(folder) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_chip_goes_while_its_record_cannot_be_read(pair, tmp_path, monkeypatch, overwrite):
    folder = tmp_path / "chips"
    next(steps := tile_scenes(plan_tiles(TileConfig(**WORDS | pair)), folder))
    steps.close()
    before, read_text = contents(folder), Path.read_text

    def failing(self, *args, **words):
        if self.name == "job.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return read_text(self, *args, **words)

    monkeypatch.setattr(Path, "read_text", failing)
    with pytest.raises(OutputError, match=r"job\.json .*run the same command again"):
        tile(folder, overwrite=overwrite, **pair)
    monkeypatch.undo()
    assert contents(folder) == before


def test_a_scene_that_changed_is_other_work(pair, tmp_path):
    tile(tmp_path / "chips", **pair)
    os.utime(pair["a"][0], ns=(1, 1))
    with pytest.raises(OutputError, match=r"a\..*sar\.tif\.files was"):
        tile(tmp_path / "chips", **pair)


def test_a_scene_that_changes_while_it_is_cut_is_refused(pair, tmp_path):
    steps = tile_scenes(plan_tiles(TileConfig(**WORDS | pair)), tmp_path / "chips")
    next(steps)
    os.utime(pair["b"][0], ns=(1, 1))
    with pytest.raises(OutputError, match=r"time was .* is now 1\).*--overwrite"):
        list(steps)
    assert not (tmp_path / "chips" / "tile.json").exists()
    tile(tmp_path / "chips", overwrite=True, **pair)


def test_the_same_files_by_other_names_are_the_same_work(pair, tmp_path, monkeypatch):
    folder = tmp_path / "chips"
    steps = tile_scenes(plan_tiles(TileConfig(**WORDS | pair)), folder)
    next(steps)
    steps.close()
    monkeypatch.chdir(tmp_path)
    names = {domain: [f"./{Path(path).name}" for path in pair[domain]] for domain in "ab"}
    tile(folder, **pair | names)
    before = contents(folder)
    tile(folder, **pair)
    assert contents(folder) == before


def test_the_same_scenes_in_another_order_are_other_work(make_raster, tmp_path):
    """Their order numbers the chips, and says which scene lies on top."""
    scenes = [
        str(make_raster(f"{name}.tif", sar(64, 64), col=64 * place))
        for place, name in enumerate("xy")
    ]
    tile(tmp_path / "chips", a=scenes, b=scenes)
    with pytest.raises(OutputError, match=r"a\.1 .*x\.tif was .*--overwrite"):
        tile(tmp_path / "chips", a=scenes[::-1], b=scenes)


def test_starting_over_leaves_what_else_lies_in_the_folder(pair, tmp_path):
    folder = tmp_path / "chips"
    tile(folder, **pair)
    (folder / "run").mkdir()
    (folder / "run" / "model.safetensors").write_bytes(b"days of work")
    tile(folder, overwrite=True, **pair | {"layout": "cyclegan"})
    assert (folder / "run" / "model.safetensors").exists()
    assert not (folder / "images").exists()
    assert not list(folder.glob("esri*"))


@pytest.mark.parametrize("before", ["pix2pix", "cyclegan", "train_a_b"])
@pytest.mark.parametrize("now", ["pix2pix", "cyclegan"])
def test_starting_over_removes_what_it_made_and_no_file_of_a_persons(pair, tmp_path, before, now):
    folder = tmp_path / "chips"
    tile(folder, **pair | {"layout": before})
    made = contents(folder)
    places = {path.parent for path in folder.rglob("*")}
    for place in places:
        for name in ("notes.txt", "field.tif", "12.tif", "0123456789.tif"):
            (place / name).write_text("mine")
    mine = {name for name in contents(folder) if name not in made}
    tile(folder, overwrite=True, **pair | {"layout": now})
    tile(tmp_path / "fresh", **pair | {"layout": now})
    assert set(contents(folder)) - mine == set(contents(tmp_path / "fresh"))
    assert all(contents(folder)[name] == b"mine" for name in mine)


def test_starting_over_leaves_no_empty_folder_and_nothing_half_written(pair, tmp_path):
    folder = tmp_path / "chips"
    tile(folder, **pair)
    for name in ("000000003.tif.part", "000000003.tfw.part", "000000001.tif.aux.xml"):
        (folder / "images" / name).touch()
    for name in (
        *(".part.chips.gpkg", ".part.chips.gpkg-journal", ".part.chips.gpkg.tmp_rtree_chips.db"),
        *("tile.json.part", "stats.txt.part"),
    ):
        (folder / name).touch()
    tile(folder, overwrite=True, **pair | {"layout": "cyclegan"})
    tile(tmp_path / "fresh", **pair | {"layout": "cyclegan"})
    names = [{p.relative_to(f) for p in f.rglob("*")} for f in (folder, tmp_path / "fresh")]
    assert names[0] == names[1]


def test_a_process_that_died_at_the_very_end_leaves_nothing_after_the_next_run(pair, tmp_path):
    folder = tmp_path / "chips"
    tile(folder, **pair)
    (folder / "tile.json.parts").mkdir()
    (folder / "tile.json.parts" / "job.json").write_text("{}")
    before = contents(folder)
    tile(folder, **pair)
    assert not (folder / "tile.json.parts").exists()
    assert contents(folder).items() < before.items()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_refused_whatever_is_said(pair, tmp_path, overwrite):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.tif").touch()
    with pytest.raises(OutputError, match=r"holds other files.*Choose another output"):
        tile(tmp_path, overwrite=overwrite, **pair)
    assert (tmp_path / "images" / "holiday.tif").exists()


def test_an_empty_folder_is_taken(pair, tmp_path):
    (tmp_path / "chips").mkdir()
    assert tile(tmp_path / "chips", **pair)


def test_a_second_process_is_refused(pair, tmp_path):
    folder = tmp_path / "chips"
    steps = tile_scenes(plan_tiles(TileConfig(**WORDS | pair)), folder)
    next(steps)
    steps.close()
    before = contents(folder)
    with (
        locked(folder / "tile.json.parts" / LOCK_NAME, folder),
        pytest.raises(OutputError, match=r"written by another process.*Wait for it"),
    ):
        tile(folder, **pair)
    assert contents(folder) == before
    assert tile(folder, **pair)


# ------------------------------------------------------------------------------- refusals


def test_nothing_left_after_reading_leaves_no_folder(make_raster, tmp_path):
    a = make_raster("a.tif", sar(48, 48), valid=np.zeros((48, 48), bool))
    words = {"a": [str(a)], "b": [str(a)], "split": "1,0,0"}
    with pytest.raises(ChipsError, match=r"of 25 windows: 25 too few valid pixels\. .*--min-valid"):
        tile(tmp_path / "chips", **words)
    assert not (tmp_path / "chips").exists()


def test_a_limit_that_leaves_nothing_to_train_on_is_refused_with_the_mend(pair, tmp_path):
    with pytest.raises(ChipsError, match=r"no chip of A to train on is left.*Allow more with"):
        tile(tmp_path / "chips", **pair, split="0.1,0.1,0.8", limit=1)
    assert not (tmp_path / "chips").exists()


def test_a_split_without_chips_is_named(make_raster, tmp_path, caplog):
    a = make_raster("a.tif", sar(24, 24))
    tile(tmp_path / "chips", a=[str(a)], b=[str(a)])
    assert "no chip of A for val" in caplog.text
    assert "no chip of B for test" in caplog.text


def test_a_file_in_place_of_the_folder_is_refused(pair, tmp_path):
    (tmp_path / "chips").write_text("mine")
    with pytest.raises(OutputError, match=r"is a file.*Choose another output"):
        tile(tmp_path / "chips", overwrite=True, **pair)
    with pytest.raises(OutputError, match=r"written.*a file lies where a folder is needed"):
        tile(tmp_path / "chips" / "below", **pair)
    assert (tmp_path / "chips").read_text() == "mine"


def test_a_scene_damaged_in_the_middle_is_named_and_finished_chips_stay(make_raster, tmp_path):
    a = make_raster("a.tif", noise(1, 96, 48), compress="deflate", blockysize=16)
    with rasterio.open(a) as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_0_3", "TIFF", bidx=1))
    content = bytearray(a.read_bytes())
    content[start : start + 50] = b"\xff" * 50
    a.write_bytes(content)
    with pytest.raises(RasterError, match=r"a\.tif cannot be read at row 40, .*[cC]opy.*again"):
        tile(tmp_path / "chips", a=[str(a)], b=[str(a)])
    assert len(list((tmp_path / "chips").rglob("*.tif"))) > 10
    assert not (tmp_path / "chips" / "tile.json").exists()


def test_a_full_disk_is_named_and_the_work_goes_on_later(pair, tmp_path):
    folder = tmp_path / "chips"
    code = f"""
        import resource
        from pathlib import Path
        from geotranslate.chips.config import TileConfig
        from geotranslate.chips.plan import plan_tiles
        from geotranslate.chips.tile import tile_scenes
        from geotranslate.errors import OutputError
        plan = plan_tiles(TileConfig(**{WORDS | pair!r}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2300, 2300))
        try:
            list(tile_scenes(plan, Path({str(folder)!r}), workers=2))
        except OutputError as error:
            print(error)
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True
    ).stdout
    assert "Make room and run the same command again" in told
    assert not (folder / "tile.json").exists()
    assert not list(folder.rglob("*.part"))
    tile(folder, **pair)
    tile(tmp_path / "undisturbed", **pair)
    assert contents(folder) == contents(tmp_path / "undisturbed")


# ------------------------------------------------------------------------------ real imagery


@pytest.mark.real
def test_real_radar_and_optical_images_of_other_grids_meet(real_data, tmp_path):
    (radar,) = real_data.glob("ssl4eo-s12-sample/s1/*/S1A_*20200607T010825*/VV.tif")
    (optical,) = real_data.glob("ssl4eo-s12-sample/s2a/*/20200604T054639*/B4.tif")
    words = {"a": [str(radar)], "b": [str(optical)], "resampling": "nearest"}
    records = tile(tmp_path / "chips", **words, size=64, stride=32, split="1,0,0")
    assert len(records) == 2 * 49
    with rasterio.open(optical) as source:
        whole = source.read(1)
        for file, record in records.items():
            if record.domain == "b":
                cols, rows = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
                x, y = record.grid.transform @ (cols, rows)
                col, row = ~source.transform @ (x, y)
                # Half-way between two pixels either is the nearest.
                clear = (np.abs(col - np.rint(col)) > 1e-6) & (np.abs(row - np.rint(row)) > 1e-6)
                expected = whole[row.astype(int), col.astype(int)]
                found = read_chip(tmp_path / "chips" / file).pixels[0]
                assert clear.mean() > 0.98
                assert (found == expected)[clear].all()


@pytest.mark.real
def test_real_aerial_images_with_a_rim_of_nodata(real_data, tmp_path):
    names = [str(path) for path in sorted(real_data.glob("naip-rgbn-5m/*.tif"))]
    words = {"a": names[:1], "b": names[1:], "bands_a": "1,2,3", "bands_b": "4", "size": 128}
    records = tile(tmp_path / "chips", **words, stride=128, limit=20)
    assert len(records) == 40
    for file, record in records.items():
        pixels, valid = read_chip(tmp_path / "chips" / file)
        assert valid.all()
        assert pixels.shape == (3 if record.domain == "a" else 1, 128, 128)


@pytest.mark.real
def test_a_real_rotated_scene_is_refused_with_the_mend(real_data, tmp_path):
    (scene,) = map(str, real_data.glob("umbra-sar-2000/*.tif"))
    with pytest.raises(RasterError, match="gdalwarp -t_srs"):
        tile(tmp_path / "chips", a=[scene], b=[scene])
    assert not (tmp_path / "chips").exists()

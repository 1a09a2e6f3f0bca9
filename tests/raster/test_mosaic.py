from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from affine import Affine
from rio_cogeo import cog_validate

from geotranslate.errors import (
    BandError,
    OutputError,
    RasterError,
    SettingError,
    TakenError,
)
from geotranslate.raster.blend import BLENDS
from geotranslate.raster.domain import Band
from geotranslate.raster.mosaic import (
    layers,
    mosaic_rasters,
    plan,
    plan_mosaic,
    write,
    write_virtual,
)
from geotranslate.raster.scene import open_scene
from tests.reading_back import read

ROWS, COLS = 110, 130

# All that need no band of quality.
PLAIN = [name for name, blend in BLENDS.items() if blend.weights != "quality"]

# (row, col, rows, cols): pieces that overlap two and three deep, touch, and leave holes.
PLACES = [
    (0, 0, 70, 60),
    (10, 40, 90, 50),
    (60, 0, 50, 90),
    (5, 90, 80, 40),
    (65, 85, 45, 45),
    (0, 129, 3, 1),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Three strips of three blocks for what lies at PLACES, with a rest each."""
    monkeypatch.setattr(plan, "STRIP_ROWS", 48)
    monkeypatch.setattr(write, "BLOCK_COLS", 60)


def join(inputs, output, **words):
    return list(mosaic_rasters(inputs, output, **words))


@pytest.fixture
def pieces(make_raster):
    """Rasters at PLACES, of noise or of what ``fill`` gives for a place, and what they hold."""

    def make(dtype="float32", *, masked=False, nodata=None, fill=None, **words):
        made = []
        for index, (row, col, rows, cols) in enumerate(PLACES):
            rng = np.random.default_rng(index)
            pixels = rng.uniform(1, 200, (2, rows, cols)).astype(dtype)
            if fill is not None:
                pixels = fill(row, col, rows, cols)
            valid = rng.random((rows, cols)) < 0.7 if masked else np.ones((rows, cols), bool)
            if nodata is not None:
                pixels[:, ~valid] = nodata
            path = make_raster(
                f"{index}.tif",
                pixels,
                row=row,
                col=col,
                nodata=nodata,
                valid=valid if masked and nodata is None else None,
                **words,
            )
            made.append((path, pixels, valid))
        return made

    return make


def brute_force(made, weigh):
    """The weighted mean, all in memory."""
    total, weight = np.zeros((2, ROWS, COLS)), np.zeros((ROWS, COLS))
    for (row, col, rows, cols), (_, pixels, valid) in zip(PLACES, made, strict=True):
        place = slice(row, row + rows), slice(col, col + cols)
        weights = weigh(valid) * valid
        total[:, *place] += np.where(valid, pixels, 0) * weights
        weight[place] += weights
    valid = weight > 0
    return np.where(valid, total / np.where(valid, weight, 1), 0), valid


def distances(valid):
    """Weight of each pixel: to the ends of what is valid, and to the nearest hole, brute force."""
    row, col = np.mgrid[: valid.shape[0], : valid.shape[1]] + 0.5
    inside = np.nonzero(valid)
    top, left = (axis.min() for axis in inside)
    bottom, right = (axis.max() + 1 for axis in inside)
    weights = np.minimum(row - top, bottom - row) * np.minimum(col - left, right - col)
    weights *= 4 / ((bottom - top) * (right - left))
    rows, cols = np.nonzero(~valid)
    nearest = np.full(valid.shape, np.inf)
    for hole in zip(rows + 0.5, cols + 0.5, strict=True):
        nearest = np.minimum(nearest, np.hypot(row - hole[0], col - hole[1]) - 0.5)
    return weights * np.minimum(nearest / layers.FEATHER_PX, 1)


WEIGHTS = {"mean": lambda valid: np.ones(valid.shape), "feather": distances}


class TestValues:
    @pytest.mark.parametrize("blend", WEIGHTS)
    @pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
    def test_means_equal_brute_force(self, pieces, tmp_path, blend, dtype):
        made = pieces(dtype, masked=True)
        output = tmp_path / "out.tif"
        join([path for path, *_ in made], output, blend=blend)
        expected, valid = brute_force(made, WEIGHTS[blend])
        _, chip = read(output)
        assert chip.pixels.dtype == dtype
        np.testing.assert_array_equal(chip.valid, valid)
        if dtype == "float32":
            np.testing.assert_allclose(chip.pixels, expected, rtol=3e-7)
        else:
            # Sums round a little differently, which shows where a mean is just a half.
            settled = np.abs(expected % 1 - 0.5) > 1e-4
            assert settled.mean() > 0.5
            np.testing.assert_array_equal(chip.pixels[settled], np.rint(expected)[settled])

    @pytest.mark.parametrize("blend", ["first", "last"])
    def test_first_and_last_follow_the_order_given(self, pieces, tmp_path, blend):
        made = pieces("uint16", masked=True)
        given = [5, 3, 0, 4, 1, 2]
        output = tmp_path / "out.tif"
        join([made[index][0] for index in given], output, blend=blend)
        expected, valid = np.zeros((2, ROWS, COLS), np.uint16), np.zeros((ROWS, COLS), bool)
        for index in given if blend == "last" else reversed(given):
            row, col, rows, cols = PLACES[index]
            _, pixels, there = made[index]
            place = slice(row, row + rows), slice(col, col + cols)
            np.copyto(expected[:, *place], pixels, where=there)
            valid[place] |= there
        _, chip = read(output)
        np.testing.assert_array_equal(chip.valid, valid)
        np.testing.assert_array_equal(chip.pixels, expected)

    @pytest.mark.parametrize("blend", PLAIN)
    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
    def test_parts_of_one_raster_come_together_to_the_same_raster(
        self, pieces, tmp_path, blend, dtype
    ):
        whole = np.random.default_rng(9).uniform(-1e4, 1e4, (2, ROWS, COLS))
        whole = whole.clip(0, 255).astype(dtype) if dtype == "uint8" else whole.astype(dtype)
        made = pieces(
            fill=lambda row, col, rows, cols: whole[:, row : row + rows, col : col + cols]
        )
        output = tmp_path / "out.tif"
        join([path for path, *_ in made], output, blend=blend)
        _, chip = read(output)
        assert 0.9 < chip.valid.mean() < 1
        np.testing.assert_array_equal(chip.pixels[:, chip.valid], whole[:, chip.valid])

    @pytest.mark.parametrize("blend", PLAIN)
    @pytest.mark.parametrize("dtype", ["int64", "uint64"])
    def test_integers_that_no_float_holds_stay_as_they_are(
        self, make_raster, tmp_path, blend, dtype
    ):
        whole = np.arange(2**53 + 1, 2**53 + 121, dtype=dtype).reshape(1, 6, 20)
        if dtype == "int64":
            whole *= -1
        parts = [whole[:, :, :12], whole[:, :, 8:]]
        paths = [
            make_raster(f"{col}.tif", part, col=col)
            for col, part in zip((0, 8), parts, strict=True)
        ]
        output = tmp_path / "out.tif"
        join(paths, output, blend=blend)
        np.testing.assert_array_equal(read(output)[1].pixels, whole)

    @pytest.mark.parametrize("blend", PLAIN)
    def test_a_constant_stays_constant_whatever_overlaps(self, pieces, tmp_path, blend):
        made = pieces(
            masked=True, fill=lambda _row, _col, rows, cols: np.full((2, rows, cols), 0.1, "f4")
        )
        join([path for path, *_ in made], tmp_path / "out.tif", blend=blend)
        _, chip = read(tmp_path / "out.tif")
        assert (chip.pixels[:, chip.valid] == np.float32(0.1)).all()

    def test_a_small_scene_on_a_large_one_counts_as_much_in_its_middle(self, make_raster, tmp_path):
        large = make_raster("large.tif", np.full((1, 241, 241), 100, np.float32))
        small = make_raster("small.tif", np.full((1, 61, 61), 200, np.float32), row=90, col=90)
        join([large, small], tmp_path / "out.tif")
        _, chip = read(tmp_path / "out.tif")
        line = chip.pixels[0, 120]
        assert line[120] == pytest.approx(150)
        assert (line[:90] == 100).all()
        # It grows up to there, without a step at the small scene's rim.
        assert (np.diff(line[89:121]) > 0).all()
        assert np.diff(line[89:121]).max() < 4

    @pytest.mark.parametrize("blend", ["feather", "mean"])
    def test_the_order_of_the_inputs_does_not_matter(self, pieces, tmp_path, blend):
        made = [path for path, *_ in pieces("float32")]
        contents = []
        for name, inputs in (("a", made), ("b", made[::-1])):
            join(inputs, tmp_path / name / "out.tif", blend=blend)
            contents.append((tmp_path / name / "out.tif").read_bytes())
        assert contents[0] == contents[1]

    @pytest.mark.real
    def test_the_mosaic_of_real_overlapping_tiles_has_its_one_right_answer(
        self, real_data, tmp_path
    ):
        tiles = real_data / "sen12mscr-s1-overlap"
        corners = {"p607": (0, 0), "p608": (0, 128), "p636": (128, 0), "p637": (128, 128)}
        expected = np.full((2, 384, 384), np.nan, np.float32)
        for name, (row, col) in corners.items():
            _, chip = read(tiles / f"ROIs1158_spring_s1_1_{name}.tif")
            expected[:, row : row + 256, col : col + 256] = chip.pixels
        for blend in PLAIN:
            output = tmp_path / f"{blend}.tif"
            join([tiles], output, blend=blend)
            scene, chip = read(output)
            np.testing.assert_array_equal(chip.pixels, expected)
            assert chip.valid.all()
            with open_scene(tiles / "ROIs1158_spring_s1_1_p607.tif") as first:
                assert scene.grid.transform == first.grid.transform
                assert scene.grid.crs == first.grid.crs


class TestValidity:
    @pytest.mark.parametrize("nodata", [0.0, -9999.0, float("nan")])
    def test_a_nodata_value_is_kept_and_weighs_nothing(self, pieces, tmp_path, nodata):
        made = pieces(masked=True, nodata=nodata)
        join([path for path, *_ in made], tmp_path / "out.tif", blend="mean")
        scene, chip = read(tmp_path / "out.tif")
        expected, valid = brute_force(made, WEIGHTS["mean"])
        np.testing.assert_array_equal(scene.nodata, nodata)
        np.testing.assert_array_equal(chip.valid, valid)
        np.testing.assert_allclose(chip.pixels[:, valid], expected[:, valid], rtol=2e-7)
        np.testing.assert_array_equal(chip.pixels[:, ~valid], nodata)

    def test_a_mean_that_falls_on_the_nodata_value_stays_valid(self, make_raster, tmp_path):
        paths = [
            make_raster(f"{value}.tif", np.full((1, 4, 4), value, np.int16), nodata=0)
            for value in (-5, 5)
        ]
        join(paths, tmp_path / "out.tif", blend="mean")
        _, chip = read(tmp_path / "out.tif")
        assert chip.valid.all()
        assert (chip.pixels == 1).all()

    def test_different_nodata_values_become_a_mask(self, make_raster, tmp_path):
        pixels = np.array([[[0, 255, 7]]], np.uint8)
        paths = [
            make_raster("a.tif", pixels, nodata=0),
            make_raster("b.tif", pixels, nodata=255, col=3),
            make_raster("c.tif", pixels, col=6),
        ]
        join(paths, tmp_path / "out.tif")
        scene, chip = read(tmp_path / "out.tif")
        assert scene.nodata is None
        assert chip.valid[0].tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 1]
        assert chip.pixels[0, chip.valid].tolist() == [255, 7, 0, 7, 0, 255, 7]

    def test_where_nothing_lies_the_mosaic_is_invalid(self, make_raster, tmp_path):
        ones = np.ones((1, 8, 8), np.uint8)
        paths = [make_raster("a.tif", ones), make_raster("b.tif", ones, row=180, col=30)]
        assert join(paths, tmp_path / "out.tif") == [1, 2, 3]
        scene, chip = read(tmp_path / "out.tif")
        assert scene.grid.shape == (188, 38)
        assert chip.valid.sum() == 2 * 64
        assert chip.valid[:8, :8].all()
        assert chip.valid[180:, 30:].all()

    def test_an_alpha_band_becomes_the_mask(self, make_raster, tmp_path):
        pixels = np.full((4, 8, 8), 9, np.uint8)
        pixels[3, :, :4] = 0
        path = make_raster("a.tif", pixels, photometric="RGB", alpha="yes")
        join([path], tmp_path / "out.tif")
        scene, chip = read(tmp_path / "out.tif")
        assert [band.color for band in scene.bands] == ["red", "green", "blue"]
        assert chip.valid.sum() == 32


class TestResult:
    def test_it_is_a_cog_that_keeps_names_units_scales_and_colours(self, pieces, tmp_path):
        bands = (
            Band(name="B4", unit="reflectance", scale=1e-4, offset=-0.1, color="red"),
            Band(name="B8", color="nir"),
        )
        made = pieces("uint16", bands=bands)
        output = tmp_path / "new" / "out.tif"
        join([path for path, *_ in made], output)
        assert cog_validate(output)[:2] == (True, [])
        scene, _ = read(output)
        assert scene.bands == bands
        assert scene.grid.shape == (ROWS, COLS)
        with open_scene(made[0][0]) as first:
            assert scene.grid.transform == first.grid.transform
        assert sorted(path.name for path in output.parent.iterdir()) == ["out.tif"]

    def test_its_corner_may_lie_in_no_raster(self, make_raster, tmp_path):
        step = 10 / 3
        transform = Affine(step, 0, 1000 / 7, 0, -step, 5000 / 7)
        ones = np.ones((1, 5, 5), np.uint8)
        paths = [
            make_raster("a.tif", ones, transform=transform, row=0, col=9),
            make_raster("b.tif", ones, transform=transform, row=7, col=0),
        ]
        join(paths, tmp_path / "out.tif")
        scene, chip = read(tmp_path / "out.tif")
        assert scene.grid.transform == transform
        assert scene.grid.shape == (12, 14)
        assert chip.valid[:5, 9:].all()
        assert chip.valid[7:, :5].all()

    @pytest.mark.parametrize("steps", [(-10, 10), (10, 10), (-0.143, -0.143)])
    def test_turned_rasters_are_joined_as_they_lie(self, make_raster, tmp_path, steps):
        turned = Affine(steps[0], 0, 500_000, 0, steps[1], 4_000_000)
        whole = np.random.default_rng(0).integers(0, 255, (1, 30, 40), np.uint8)
        paths = [
            make_raster("a.tif", whole[:, :, 15:], transform=turned, col=15),
            make_raster("b.tif", whole[:, :, :25], transform=turned),
        ]
        join(paths, tmp_path / "out.tif")
        scene, chip = read(tmp_path / "out.tif")
        assert scene.grid.transform == turned
        np.testing.assert_array_equal(chip.pixels, whole)

    def test_folders_and_globs_are_joined(self, make_raster, tmp_path):
        ones = np.ones((1, 4, 4), np.uint8)
        make_raster("tiles/a.tif", ones)
        make_raster("tiles/b.tif", ones, col=4)
        make_raster("more/c.tif", ones, col=8)
        join([tmp_path / "tiles", str(tmp_path / "more" / "*.tif")], tmp_path / "out.tif")
        scene, chip = read(tmp_path / "out.tif")
        assert scene.grid.shape == (4, 12)
        assert chip.valid.all()

    def test_a_raster_given_twice_counts_once(self, make_raster, tmp_path, monkeypatch):
        make_raster("a.tif", np.zeros((1, 4, 4), np.uint8))
        make_raster("b.tif", np.full((1, 4, 4), 90, np.uint8))
        monkeypatch.chdir(tmp_path)
        join(["a.tif", "./a.tif", tmp_path / "a.tif", "b.tif"], tmp_path / "out.tif", blend="mean")
        _, chip = read(tmp_path / "out.tif")
        assert (chip.pixels == 45).all()

    def test_a_scene_that_lies_in_two_strips_is_opened_once(
        self, make_raster, tmp_path, monkeypatch
    ):
        opened = []

        def open_counted(path, **words):
            opened.append(path)
            return open_scene(path, **words)

        monkeypatch.setattr(layers, "open_scene", open_counted)
        paths = [
            make_raster(f"{row}.tif", np.ones((1, 60, 9), np.uint8), row=row) for row in (0, 30, 80)
        ]
        wanted = plan_mosaic(paths, tmp_path / "out.tif")
        assert len(wanted.strips) == 3
        monkeypatch.setattr(write, "MOST_THREADS", 1)
        join(paths, tmp_path / "out.tif")
        assert sorted(opened) == sorted(map(str, paths))

    def test_more_rasters_than_may_be_open_at_once(self, make_raster, tmp_path, monkeypatch):
        monkeypatch.setattr(layers, "OPEN_AT_ONCE", 3)
        opened, most = [], 0

        def open_counted(path, **words):
            nonlocal most
            opened.append(open_scene(path, **words))
            most = max(most, sum(not scene._dataset.closed for scene in opened))
            return opened[-1]

        monkeypatch.setattr(layers, "open_scene", open_counted)
        monkeypatch.setattr(write, "MOST_THREADS", 1)
        for index in range(40):
            value = np.full((1, 4, 4), index, np.uint8)
            make_raster(f"tiles/{index:02d}.tif", value, row=index // 8 * 3, col=index % 8 * 3)
        join([tmp_path / "tiles"], tmp_path / "out.tif")
        # The one that takes a place is opened before the oldest is closed.
        assert 1 <= most <= 4
        assert all(scene._dataset.closed for scene in opened)
        assert read(tmp_path / "out.tif")[0].grid.shape == (16, 25)


class TestRefusals:
    @pytest.mark.parametrize("name", ["out.png", "out.jp2", "out"])
    def test_a_name_of_another_format_is_refused_with_a_better_one(self, first, tmp_path, name):
        with pytest.raises(SettingError, match=r"Name it .*out\.tif, or say --virtual"):
            join([first], tmp_path / name)
        assert not (tmp_path / name).exists()

    @pytest.fixture
    def first(self, make_raster):
        return make_raster("first.tif", np.ones((2, 8, 8), np.uint8))

    @pytest.mark.parametrize(
        ("what", "pixels", "bands"),
        [
            ("bands", np.ones((3, 8, 8), np.uint8), ()),
            ("types", np.ones((2, 8, 8), np.uint16), ()),
            (
                "scales",
                np.ones((2, 8, 8), np.uint8),
                (Band(name="band 1", scale=0.1), Band(name="band 2", scale=0.1)),
            ),
        ],
    )
    def test_the_odd_one_among_the_kinds_is_named(
        self, make_raster, tmp_path, first, what, pixels, bands
    ):
        odd = make_raster("odd.tif", pixels, bands=bands)
        with pytest.raises(BandError, match=rf"odd\.tif has other {what}"):
            join([first, odd], tmp_path / "out.tif")
        assert not (tmp_path / "out.tif").exists()
        assert not (tmp_path / "out.tif.parts").exists()

    def test_an_unknown_blend_is_refused_with_those_known(self, tmp_path, first):
        with pytest.raises(
            SettingError, match="Choose one of feather, first, last, mean, median, best"
        ):
            join([first], tmp_path / "out.tif", blend="average")

    def test_an_input_is_never_written_over(self, tmp_path, first):
        before = first.read_bytes()
        with pytest.raises(SettingError, match="Choose another output"):
            join([first], tmp_path / "." / "first.tif", overwrite=True)
        assert first.read_bytes() == before

    @pytest.mark.parametrize("words", [{}, {"bounds": (500_040, 3_999_960, 500_080, 4_000_000)}])
    def test_what_a_virtual_input_reads_is_never_written_over(self, make_raster, tmp_path, words):
        paths = [
            make_raster(f"{name}.tif", np.ones((1, 4, 4), np.uint8), col=col)
            for name, col in (("source", 0), ("other", 4))
        ]
        before = paths[0].read_bytes()
        inner, outer = tmp_path / "in.vrt", tmp_path / "out.vrt"
        write_virtual(plan_mosaic(paths[:1], inner), inner)
        write_virtual(plan_mosaic([inner], outer), outer)
        for virtual in inner, outer:
            for output in paths[0], virtual.parent / "." / "source.tif":
                with pytest.raises(SettingError, match=r"source\.tif is .*Choose another output"):
                    join([virtual, paths[1]], output, overwrite=True, **words)
        with pytest.raises(SettingError, match="Choose another output"):
            write_virtual(plan_mosaic([outer], inner), inner, overwrite=True)
        assert paths[0].read_bytes() == before
        assert read(inner)[1].valid.all()

    def test_nothing_but_the_output_is_nothing_to_join(self, make_raster, tmp_path):
        output = make_raster("tiles/out.tif", np.ones((1, 4, 4), np.uint8))
        with pytest.raises(RasterError, match="Give rasters, folders or globs"):
            join([tmp_path / "tiles"], output, overwrite=True)

    def test_a_damaged_input_is_named_and_no_output_made(self, make_raster, tmp_path, first):
        noise = np.random.default_rng(0).integers(0, 255, (2, 300, 300), np.uint8)
        damaged = make_raster("damaged.tif", noise)
        os.truncate(damaged, damaged.stat().st_size // 2)
        with pytest.raises(RasterError, match=r"damaged\.tif cannot be read at row"):
            join([first, damaged], tmp_path / "out.tif")
        assert not (tmp_path / "out.tif").exists()


STOPPED = """
import sys
from pathlib import Path
from geotranslate.raster.mosaic import mosaic_rasters, plan, write
from geotranslate.raster.writing import GeoTiff

plan.STRIP_ROWS, write.BLOCK_COLS, write.MOST_THREADS = 48, 60, 1
folder, output, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def wait(*args, **words):
    print("there", flush=True)
    sys.stdin.read()

def write_half(output, sources, grid, *, scratch, **words):
    (scratch / "joined.tif").write_bytes(b"half a COG")
    wait()

if point == "while joining":
    write.write_cog = write_half
if point == "inside a strip":
    write_block, calls = GeoTiff.write, []
    GeoTiff.write = lambda *args: (write_block(*args), calls.append(0), len(calls) == 5 and wait())
for done in mosaic_rasters([folder], output):
    if point == f"after strip {done}":
        wait()
"""


class TestRunningAgain:
    @pytest.mark.parametrize(
        "point", ["after strip 1", "inside a strip", "after strip 3", "while joining"]
    )
    def test_killed_and_run_again_it_ends_with_the_same_bytes(self, pieces, tmp_path, point):
        made = [path for path, *_ in pieces("float32", masked=True)]
        (tmp_path / "tiles").mkdir()
        for path in made:
            path.rename(tmp_path / "tiles" / path.name)
        undisturbed, output = (tmp_path / name / "out.tif" for name in ("a", "b"))
        join([tmp_path / "tiles"], undisturbed)
        with subprocess.Popen(
            [sys.executable, "-c", STOPPED, tmp_path / "tiles", output, point],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"
            process.kill()
        assert not output.exists()
        parts = output.with_name("out.tif.parts")
        finished = {path: path.stat().st_mtime_ns for path in parts.glob("rows_*.tif")}
        assert finished
        again = mosaic_rasters([tmp_path / "tiles"], output)
        next(again)
        assert {path: path.stat().st_mtime_ns for path in finished} == finished
        assert list(again) == [2, 3, 4]
        assert output.read_bytes() == undisturbed.read_bytes()
        assert [path.name for path in output.parent.iterdir()] == ["out.tif"]

    def test_finished_it_touches_nothing_even_among_its_inputs(self, make_raster, tmp_path):
        make_raster("tiles/a.tif", np.ones((1, 4, 4), np.uint8))
        output = tmp_path / "tiles" / "all.tif"
        assert join([tmp_path / "tiles"], output) == [1, 2]
        before = output.stat()
        assert join([tmp_path / "tiles"], output) == []
        assert output.stat() == before

    @pytest.mark.parametrize("change", ["blend", "more", "date"])
    def test_other_words_or_inputs_are_refused(self, make_raster, tmp_path, change):
        path = make_raster("tiles/a.tif", np.ones((1, 4, 4), np.uint8))
        output = tmp_path / "out.tif"
        join([tmp_path / "tiles"], output)
        blend = "feather"
        if change == "blend":
            blend, named = "mean", 'blend was "feather" and is now "mean"'
        elif change == "more":
            make_raster("tiles/b.tif", np.ones((1, 4, 4), np.uint8))
            named = r"rasters\..*b\.tif was unset and is now"
        else:
            os.utime(path, (1, 1))
            named = r"rasters\..*a\.tif was .* is now .*bytes of 1970-01-01 00:00:01"
        with pytest.raises(TakenError, match=named):
            join([tmp_path / "tiles"], output, blend=blend)
        assert join([tmp_path / "tiles"], output, blend=blend, overwrite=True) == [1, 2]

    def test_an_input_that_changes_meanwhile_is_refused(self, make_raster, tmp_path):
        path = make_raster("a.tif", np.ones((1, 110, 4), np.uint8))
        steps = mosaic_rasters([path], tmp_path / "out.tif")
        next(steps)
        os.utime(path, (1, 1))
        with pytest.raises(OutputError, match=r"a\.tif was changed while"):
            list(steps)
        assert not (tmp_path / "out.tif").exists()

    def test_another_order_is_other_work_only_where_it_matters(self, make_raster, tmp_path):
        a, b = (make_raster(name, np.ones((1, 4, 4), np.uint8)) for name in ("a.tif", "b.tif"))
        join([a, b], tmp_path / "mean.tif", blend="mean")
        assert join([b, a], tmp_path / "mean.tif", blend="mean") == []
        join([a, b], tmp_path / "first.tif", blend="first")
        with pytest.raises(TakenError, match=r"rasters\.1 .*a\.tif was"):
            join([b, a], tmp_path / "first.tif", blend="first")

    def test_another_version_leaves_it_as_it_is(self, make_raster, tmp_path, monkeypatch):
        path = make_raster("a.tif", np.ones((1, 4, 4), np.uint8))
        join([path], tmp_path / "out.tif")
        monkeypatch.setattr("geotranslate.__version__", "99.0")
        assert join([path], tmp_path / "out.tif") == []

    def test_a_plan_says_beforehand_how_many_steps_there_are(self, make_raster, tmp_path):
        make_raster("a.tif", np.ones((1, 110, 4), np.uint8))
        plan = plan_mosaic([tmp_path / "a.tif"], tmp_path / "out.tif")
        assert plan.steps == 4
        assert join([tmp_path / "a.tif"], tmp_path / "out.tif")[-1] == plan.steps

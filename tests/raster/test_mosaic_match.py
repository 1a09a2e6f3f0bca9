"""Scenes brought to one brightness by their overlaps."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner
from rasterio.rio.main import main_group

from geotranslate.errors import SettingError
from geotranslate.raster.domain import Band
from geotranslate.raster.mosaic import match, mosaic_rasters, plan_mosaic, read_match
from geotranslate.raster.mosaic.adjustment import Adjustment
from geotranslate.raster.mosaic.settings import MosaicSettings
from geotranslate.raster.scene import open_scene

# Four scenes around a middle, and one beside them that meets the fourth only.
PLACES = [(0, 0), (0, 60), (60, 0), (60, 60), (60, 130)]
SIDE, ROWS, COLS = 90, 150, 220


def read(path):
    with open_scene(path) as scene:
        return scene.read(scene.grid.whole)


@pytest.fixture
def ground():
    """Two bands of smooth ground with detail, from 400 to 3,000."""
    rng = np.random.default_rng(1)
    rows, cols = np.mgrid[:ROWS, :COLS]
    waves = 1700 + 900 * np.sin(rows / 31) * np.cos(cols / 23) + 300 * np.sin(cols / 7)
    return np.stack([waves, waves[::-1]]) + rng.normal(0, 60, (2, ROWS, COLS))


@pytest.fixture
def scenes(make_raster, ground):
    """The ground at PLACES, each as ``see`` of its index says it was seen, with clouds."""

    def make(see, dtype="uint16", clouds=0.1, **words):
        rng = np.random.default_rng(2)
        paths = []
        for index, (row, col) in enumerate(PLACES):
            part = see(index, ground[:, row : row + SIDE, col : col + SIDE])
            if np.issubdtype(dtype, np.integer):
                part = np.rint(part)
            cloudy = np.zeros(part.shape[1:], bool)
            cloudy[: int(clouds * SIDE)] = index == 3
            part = np.where(cloudy, part.max() * 1.5, part)
            valid = rng.random(part.shape[1:]) < 0.9
            paths.append(
                make_raster(
                    f"{index}.tif", part.astype(dtype), row=row, col=col, valid=valid, **words
                )
            )
        return paths

    return make


GAINS = np.array([[1.0, 1.3, 0.8, 1.1, 0.6], [0.7, 1.0, 1.2, 0.9, 1.5]]).T


def solved(paths, tmp_path, **words):
    plan = plan_mosaic(paths, tmp_path / "out.tif", MosaicSettings(**words))
    tmp_path.joinpath("scratch").mkdir(parents=True, exist_ok=True)
    steps = match.match_scenes(plan, tmp_path / "scratch")
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return plan, end.value


class TestGain:
    @pytest.mark.parametrize("dtype", ["uint16", "float32"])
    def test_known_gains_are_recovered_to_a_percent(self, scenes, tmp_path, dtype):
        paths = scenes(lambda index, part: part * GAINS[index][:, None, None], dtype)
        _, found = solved(paths, tmp_path, match="gain")
        product = np.array([each.factor for each in found]) * GAINS
        # All agree with each other, and in the mean nothing has changed.
        np.testing.assert_allclose(product / product[0], 1, atol=0.01)
        factors = np.array([each.factor for each in found])
        np.testing.assert_allclose(np.log(factors).mean(axis=0), 0, atol=1e-6)

    def test_the_anchor_stays_as_it_is(self, scenes, tmp_path):
        paths = scenes(lambda index, part: part * GAINS[index][:, None, None])
        _, found = solved(paths, tmp_path, match="gain", anchor="2.tif")
        assert found[2].factor == (1, 1)
        factors = np.array([each.factor for each in found])
        np.testing.assert_allclose(factors * GAINS, np.tile(GAINS[2], (5, 1)), rtol=0.01)

    def test_of_decibels_it_is_a_shift(self, scenes, tmp_path):
        bands = (Band(name="VV", unit="dB"), Band(name="VH", unit="dB"))
        shifts = 10 * np.log10(GAINS)
        paths = scenes(
            lambda index, part: part / 200 - 20 + shifts[index][:, None, None],
            "float32",
            bands=bands,
        )
        _, found = solved(paths, tmp_path, match="gain", anchor="0")
        moved = np.array(found[1].shifts)[:, 0] + shifts[1] - shifts[0]
        np.testing.assert_allclose(moved, 0, atol=0.04)
        assert {each.factor for each in found} == {(1.0, 1.0)}

    def test_it_applies_to_physical_values(self, scenes, tmp_path, ground):
        """Reflectance is stored with an offset, as Sentinel-2's since 2022."""
        bands = tuple(Band(name=name, scale=1e-4, offset=-0.1) for name in ("B2", "B3"))
        paths = scenes(
            lambda index, part: part * GAINS[index][:, None, None] + 1000, clouds=0, bands=bands
        )
        list(mosaic_rasters(paths, tmp_path / "out.tif", match="gain", anchor="0"))
        chip = read(tmp_path / "out.tif")
        expected = ground * GAINS[0][:, None, None] + 1000
        off = np.abs(chip.pixels - expected)[:, chip.valid]
        assert off.max() < 0.01 * 3000

    def test_matched_scenes_make_one_even_mosaic(self, scenes, tmp_path, ground):
        paths = scenes(lambda index, part: part * GAINS[index][:, None, None], clouds=0)
        list(mosaic_rasters(paths, tmp_path / "out.tif", match="gain", blend="first", anchor="0"))
        chip = read(tmp_path / "out.tif")
        expected = ground * GAINS[0][:, None, None]
        assert np.abs(chip.pixels / expected - 1)[:, chip.valid].max() < 0.01

    def test_pairs_that_contradict_the_rest_hardly_count(self):
        matrix = match._differences(
            [
                match.Shared(i, j, np.ones((2, 1, 1)), np.ones(1))
                for i in range(6)
                for j in range(i)
            ],
            6,
        )
        truth = np.array([0.3, -0.2, 0.1, 0.0, -0.3, 0.1])
        wanted = matrix @ truth
        wanted[4] += 2
        equations = match._Equations(matrix, wanted, np.full(len(wanted), 100.0))
        found = match._solve(equations, np.zeros(6, bool))
        np.testing.assert_allclose(found, truth - truth.mean(), atol=0.02)

    def test_values_without_a_logarithm_are_refused_with_a_command_that_names_decibels(
        self, scenes, tmp_path
    ):
        paths = scenes(lambda index, part: part / 100 - 90, "float32")
        with pytest.raises(SettingError, match="--match histogram, or add a raster") as refusal:
            solved(paths, tmp_path, match="gain")
        said = str(refusal.value)
        command = said.partition("say so in each raster: `rio ")[2].partition("`")[0].split()
        assert command.pop() == str(paths[0])
        for path, number in itertools.product(paths, ("1", "2")):
            words = [*(word.replace("NUMBER", number) for word in command), str(path)]
            assert CliRunner().invoke(main_group, words).exit_code == 0
        _, found = solved(paths, tmp_path, match="gain")
        assert all(each.factor == (1.0,) * len(each.factor) for each in found)

    def test_an_overlap_of_zeros_says_nothing_of_that_band_only(self, make_raster, tmp_path):
        """Water is 0 in the second band where a meets b; d joins both on land."""
        ground = np.random.default_rng(3).uniform(500, 2000, (2, 60, 300))
        ground[1, :, 80:110] = 0
        places = [(slice(0, 40), slice(0, 105)), (slice(0, 40), slice(85, 300))]
        places += [(slice(30, 60), slice(0, 300))]
        gains = np.array([[1, 1.2, 0.8], [1, 0.7, 1.5]])
        paths = [
            make_raster(
                f"{name}.tif",
                np.rint(ground[:, rows, cols] * gain[:, None, None]).astype(np.uint16),
                row=rows.start,
                col=cols.start,
            )
            for name, (rows, cols), gain in zip("abd", places, gains.T, strict=True)
        ]
        _, found = solved(paths, tmp_path, match="gain", anchor="a")
        factors = np.array([each.factor for each in found])
        np.testing.assert_allclose(factors * gains.T, 1, atol=0.01)
        with pytest.raises(SettingError, match=r"band 'band 2' .* in 1 of 1 overlaps.*2 groups"):
            solved(paths[:2], tmp_path / "two", match="gain")

    @pytest.mark.parametrize("looks", [(1, 16, 4), (16, 1, 4), (4, 4, 4)])
    @pytest.mark.parametrize("decibels", [False, True])
    def test_speckle_does_not_shift_gains(self, make_raster, tmp_path, looks, decibels):
        rng = np.random.default_rng(5)
        rows, cols = np.mgrid[:520, :560]
        power = 0.1 * np.exp(0.8 * np.sin(cols / 37) * np.cos(rows / 23))
        gains = np.array([1.0, 1.5, 0.5])
        paths = []
        for index, (gain, count) in enumerate(zip(gains, looks, strict=True)):
            part = power[:, index * 120 :][:, :320]
            seen = (part * gain * rng.gamma(count, 1 / count, part.shape))[None]
            if decibels:
                seen = 10 * np.log10(seen)
            bands = (Band(name="VV", unit="dB" if decibels else "1"),)
            name, col = f"{index}.tif", index * 120
            paths.append(make_raster(name, seen.astype(np.float32), col=col, bands=bands))
        _, found = solved(paths, tmp_path, match="gain")
        changes = np.array([each.factor[0] * 10 ** (each.shifts[0][0] / 10) for each in found])
        product = changes * gains
        np.testing.assert_allclose(product / product.mean(), 1, atol=0.01)


class TestHistogram:
    def test_curves_bring_scenes_together(self, scenes, tmp_path, ground):
        def see(index, part):
            bent = [part, 3500 * (part / 3500) ** 0.7, part * 0.8 + 300, part * 1.2, part - 200]
            return bent[index]

        paths = scenes(see, clouds=0)
        before = [see(index, ground) for index in range(5)]
        assert max(np.quantile(np.abs(each - ground), 0.95) for each in before) > 300
        words = {"match": "histogram", "blend": "first", "anchor": "0.tif"}
        list(mosaic_rasters(paths, tmp_path / "anchored.tif", **words))
        chip = read(tmp_path / "anchored.tif")
        off = np.abs(chip.pixels - ground)[:, chip.valid]
        assert np.quantile(off, 0.95) < 60

        plan, found = solved(paths, tmp_path, match="histogram")
        matched = np.full((len(paths), *ground.shape), np.nan)
        for canvas, each, path, (row, col) in zip(matched, found, paths, PLACES, strict=True):
            chip = read(path)
            values = np.where(chip.valid, each.apply(chip.pixels, plan.bands), np.nan)
            canvas[:, row : row + SIDE, col : col + SIDE] = values
        # Where two meet they agree; in the mean over scenes nothing has moved.
        for one, other in plan.pairs:
            assert np.nanquantile(np.abs(matched[one] - matched[other]), 0.95) < 60
        middle = [np.mean([np.median(s) for s in each.shifts]) for each in found]
        assert abs(np.mean(middle)) < 60 < max(np.abs(middle))

    def test_without_an_anchor_two_scenes_meet_half_way(self, make_raster, tmp_path, ground):
        paths = [
            make_raster("a.tif", ground.astype(np.float32)),
            make_raster("b.tif", (ground + 100).astype(np.float32)),
        ]
        _, found = solved(paths, tmp_path, match="histogram")
        np.testing.assert_allclose(found[0].shifts, 50, atol=1)
        np.testing.assert_allclose(found[1].shifts, -50, atol=1)

    def test_curves_never_turn_dark_into_bright(self, scenes, tmp_path):
        paths = scenes(lambda index, part: part[::-1] if index == 1 else 3000 - part / 2)
        _, found = solved(paths, tmp_path, match="histogram")
        for each in found:
            for knots, shifts in zip(each.knots, each.shifts, strict=True):
                assert (np.diff(np.add(knots, shifts)) >= -1e-9).all()


class TestWork:
    @pytest.mark.parametrize("how", ["gain", "histogram"])
    def test_scenes_without_a_common_pixel_are_refused_by_group(self, make_raster, tmp_path, how):
        ones = np.random.default_rng(0).integers(1, 9, (1, 20, 20)).astype(np.uint8)
        paths = [
            make_raster(f"{name}.tif", ones, col=col)
            for name, col in (("a", 0), ("b", 10), ("c", 200), ("d", 205))
        ]
        with pytest.raises(SettingError, match=r"2 groups .*a\.tif and 1 more; .*c\.tif and 1 m"):
            list(mosaic_rasters(paths, tmp_path / "out.tif", match=how))
        assert not (tmp_path / "out.tif.parts").exists()

    def test_an_overlap_of_invalid_pixels_is_none(self, make_raster, tmp_path):
        ones = np.random.default_rng(0).integers(1, 9, (1, 20, 20)).astype(np.uint8)
        half = np.arange(20) < 10
        valid = np.broadcast_to(half, (20, 20))
        paths = [
            make_raster("a.tif", ones, valid=valid),
            make_raster("b.tif", ones, valid=~valid),
        ]
        with pytest.raises(SettingError, match="leave out --match"):
            list(mosaic_rasters(paths, tmp_path / "out.tif", match="gain"))

    @pytest.mark.parametrize("how", ["gain", "histogram"])
    def test_memory_does_not_grow_with_the_overlaps(self, make_raster, tmp_path, how):
        ones = np.random.default_rng(0).integers(1, 9, (2, 150, 150)).astype(np.uint8)
        paths = [make_raster(f"{index}.tif", ones) for index in range(12)]
        tracemalloc.start()
        solved(paths, tmp_path, match=how)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # The pixels of 66 overlaps, as float64.
        assert peak < 66 * 2 * ones.size * 8 / 3

    def test_an_anchor_that_is_not_there_is_refused(self, make_raster, tmp_path):
        path = make_raster("a.tif", np.ones((1, 4, 4), np.uint8))
        with pytest.raises(SettingError, match="Name one of them by its path or file name"):
            list(mosaic_rasters([path], tmp_path / "o.tif", match="gain", anchor="b.tif"))

    def test_an_anchor_that_is_the_name_of_two_is_refused(self, make_raster, tmp_path):
        pixels = np.random.default_rng(0).integers(1, 9, (1, 20, 20)).astype(np.uint8)
        paths = [make_raster("x/a.tif", pixels), make_raster("y/a.tif", pixels * 2)]
        for name in ("a", "a.tif"):
            with pytest.raises(SettingError, match=r"x.a\.tif, .*y.a\.tif.* Name it by its path"):
                solved(paths, tmp_path, match="gain", anchor=name)
        _, found = solved(paths, tmp_path, match="gain", anchor=str(paths[1]))
        np.testing.assert_allclose([each.factor[0] for each in found], [2, 1], rtol=1e-6)

    def test_one_scene_needs_no_match(self, make_raster, tmp_path):
        path = make_raster("a.tif", np.full((1, 4, 4), 3, np.uint8))
        list(mosaic_rasters([path], tmp_path / "o.tif", match="gain"))
        assert (read(tmp_path / "o.tif").pixels == 3).all()

    def test_what_was_found_is_kept_for_a_job_that_goes_on(self, scenes, tmp_path, monkeypatch):
        paths = scenes(lambda index, part: part * GAINS[index][:, None, None])
        plan, found = solved(paths, tmp_path, match="gain")
        monkeypatch.setattr(match, "Layers", None)
        _, again = solved(paths, tmp_path, match="gain")
        assert json.dumps([each.factor for each in again]) == json.dumps(
            [each.factor for each in found]
        )
        assert plan.steps == len(plan.pairs) + len(plan.strips) + 1

    def test_the_mosaic_says_how_each_scene_was_changed(self, scenes, tmp_path):
        paths = scenes(lambda index, part: part * GAINS[index][:, None, None])
        output = tmp_path / "out.tif"
        list(mosaic_rasters(paths, output, match="gain", anchor="0"))
        said = read_match(output)
        assert list(said) == [str(path) for path in paths]
        gains = [[band["gain"] for band in said[str(path)].values()] for path in paths]
        np.testing.assert_allclose(gains * GAINS, np.tile(GAINS[0], (5, 1)), rtol=0.01)
        assert {tuple(band) for bands in said.values() for band in bands.values()} == {("gain",)}
        list(mosaic_rasters(paths, output, match="histogram", overwrite=True))
        bands = [band for bands in read_match(output).values() for band in bands.values()]
        assert all(band["least_shift"] < band["most_shift"] for band in bands)
        assert not any("gain" in band for band in bands)
        list(mosaic_rasters(paths, output, overwrite=True))
        assert read_match(output) == {}

    def test_the_order_of_the_inputs_does_not_matter(self, scenes, tmp_path):
        paths = scenes(lambda index, part: part * GAINS[index][:, None, None])
        for name, inputs in (("a", paths), ("b", paths[::-1])):
            list(mosaic_rasters(inputs, tmp_path / name / "out.tif", match="gain"))
        a, b = ((tmp_path / name / "out.tif").read_bytes() for name in "ab")
        assert a == b

    def test_an_adjustment_that_changes_nothing_returns_the_values(self):
        stored = np.array([[[1, 2], [3, 4]]], np.uint16)
        same = Adjustment((1.0,), ((0.0,),), ((0.0,),))
        np.testing.assert_array_equal(same.apply(stored, (Band(name="a", scale=0.3),)), stored)

    @pytest.mark.real
    def test_two_dates_of_real_imagery_come_closer(self, real_data, tmp_path):
        paths = sorted((real_data / "naip-rgbn-5m").glob("*.tif"))
        assert len(paths) == 2

        def apart(adjust):
            chips = [read(path) for path in paths]
            rows = min(chip.valid.shape[0] for chip in chips)
            cols = min(chip.valid.shape[1] for chip in chips)
            both = np.logical_and(*(chip.valid[:rows, :cols] for chip in chips))
            means = [
                change(chip.pixels[:, :rows, :cols])[:, both].mean(axis=1)
                for chip, change in zip(chips, adjust, strict=True)
            ]
            return np.abs(means[0] - means[1])

        before = apart([lambda pixels: pixels] * 2)
        for how in ("gain", "histogram"):
            (tmp_path / how).mkdir()
            plan, found = solved(paths, tmp_path / how, match=how)
            after = apart([partial(each.apply, bands=plan.bands) for each in found])
            assert (after < before).sum() >= 3
            assert after.mean() < before.mean() / 2

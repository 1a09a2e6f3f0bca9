"""Evaluation of files: what is compared with what, on which grid, and what is refused."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.warp import transform_bounds

from geotranslate.errors import BandError, GridError, OutputError, RasterError, SettingError
from geotranslate.raster.domain import Band
from geotranslate.raster.seams import measure_seams
from geotranslate.translation import side_by_side
from geotranslate.translation.evaluate import (
    claim_report,
    evaluate,
    plan_evaluation,
    write_report,
)
from geotranslate.translation.evaluate_config import EvaluateConfig
from geotranslate.translation.metrics import ValueRange, measure

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 4_000_000)
BYTES = ValueRange((0, 0, 0), (255, 255, 255))


def picture(seed=0, bands=3, rows=40, cols=50):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (bands, rows, cols), dtype=np.uint8)


def noisy(pixels, seed=1):
    noise = np.random.default_rng(seed).normal(0, 20, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def measured(predicted, truth=None, **settings):
    return evaluate(EvaluateConfig(predicted=predicted, truth=truth, **settings))


def planned(predicted, truth=None, **settings):
    return plan_evaluation(EvaluateConfig(predicted=predicted, truth=truth, **settings))


def test_figures_of_files_read_in_windows_equal_those_of_the_whole_arrays(make_raster, monkeypatch):
    monkeypatch.setattr(side_by_side, "CORE", 16)
    truth, predicted = picture(), noisy(picture())
    truth[:, 5:30, 10:20] = 0
    predicted[:, 20:, :9] = 0
    files = (
        make_raster("predicted.tif", predicted, nodata=0),
        make_raster("truth.tif", truth, nodata=0),
    )
    report = measured(*files)
    valid = (truth > 0).all(axis=0) & (predicted > 0).all(axis=0)
    found, whole = report.images[0], measure(predicted, truth, valid, BYTES)
    assert found.accuracy.pixels == valid.sum()
    assert found.accuracy.truth_grid == "truth and prediction lie on the same grid"
    for name, value in vars(whole).items():
        got = getattr(found.accuracy.candidates["prediction"], name)
        assert got == pytest.approx(value, rel=1e-9), name


def test_a_truth_on_another_grid_is_resampled_and_the_report_says_so(make_raster):
    # A slope, which bilinear resampling keeps: any shift between the grids would show.
    def slope(resolution, cols):
        x = (np.arange(cols) + 0.5) * resolution
        return np.tile((x / 100).astype(np.float32), (1, cols, 1))

    predicted = make_raster("predicted.tif", slope(10, 40))
    truth = make_raster("truth.tif", slope(20, 20), transform=NORTH_UP @ Affine.scale(2))
    report = measured(predicted, truth)
    image = report.images[0]
    assert image.accuracy.candidates["prediction"].mae[0] == pytest.approx(0, abs=0.01)
    assert image.accuracy.truth_grid == (
        "the truth was resampled (bilinear) from EPSG:32633 at 20 x 20 onto the prediction's "
        "grid, EPSG:32633 at 10 x 10"
    )
    assert report.to_dict()["images"][0]["truth_grid"] == image.accuracy.truth_grid


def test_a_truth_in_another_crs_is_compared_where_both_hold_data(make_raster):
    pixels = np.full((1, 40, 40), 7, np.uint8)
    predicted = make_raster("predicted.tif", pixels)
    with rasterio.open(predicted) as opened:
        left, _, right, top = transform_bounds(opened.crs, "EPSG:4326", *opened.bounds)
    step = (right - left) / 40
    truth = make_raster(
        "truth.tif",
        np.full((1, 30, 20), 9, np.uint8),
        crs="EPSG:4326",
        transform=Affine(step, 0, left, 0, -step, top),
    )
    image = measured(predicted, truth).images[0]
    assert 0 < image.accuracy.pixels < 30 * 40
    assert image.accuracy.candidates["prediction"].bias == pytest.approx((-2,))


def test_a_larger_truth_of_the_same_pixels_is_copied(make_raster):
    truth = picture(rows=60, cols=70)
    predicted = make_raster("predicted.tif", truth[:, 10:50, 20:70], col=20, row=10)
    image = measured(predicted, make_raster("truth.tif", truth)).images[0]
    assert image.accuracy.candidates["prediction"].mae == (0, 0, 0)
    assert "copied, not resampled" in image.accuracy.truth_grid


def test_folders_are_matched_by_name_and_each_image_counts_once(make_raster):
    names = ["north", "south", "west"]
    for seed, name in enumerate(names):
        truth = picture(seed, rows=20 + 10 * seed)
        make_raster(f"truth/{name}.tif", truth)
        if name != "west":
            make_raster(f"predicted/{name}.tif", noisy(truth, seed))
    folder = make_raster("predicted/north.tif", noisy(picture(0, rows=20))).parent
    report = measured(folder, folder.with_name("truth"))
    assert [image.files.name for image in report.images] == ["north", "south"]
    psnrs = [image.accuracy.candidates["prediction"].psnr for image in report.images]
    assert report.summary()["prediction"].psnr == pytest.approx(np.mean(psnrs))


def test_a_prediction_without_a_namesake_is_refused_with_the_mend(make_raster):
    make_raster("truth/a.tif", picture())
    predicted = make_raster("predicted/b.tif", picture())
    with pytest.raises(SettingError, match=r"no raster named b\.tif.*Give both the same file name"):
        measured(predicted.parent, predicted.parent.with_name("truth"))


def test_one_prediction_takes_a_folder_of_truths_as_a_mosaic(make_raster):
    whole = picture(rows=40, cols=60)
    predicted = make_raster("predicted.tif", whole)
    make_raster("truth/left.tif", whole[:, :, :35])
    make_raster("truth/far.tif", whole, col=5_000)
    right = make_raster("truth/right.tif", whole[:, :, 25:], col=25)
    image = measured(predicted, right.parent).images[0]
    assert image.accuracy.pixels == 40 * 60
    assert image.accuracy.candidates["prediction"].mae == (0, 0, 0)


def test_errors_are_in_physical_units(make_raster):
    truth = np.full((1, 8, 8), 3000, np.uint16)
    truth[0, 0] = 1000
    bands = (Band(name="red", unit="reflectance", scale=1e-4, offset=-0.1),)
    predicted = make_raster("p.tif", truth + np.uint16(50), bands=bands)
    report = measured(predicted, make_raster("t.tif", truth, bands=bands))
    assert report.images[0].accuracy.candidates["prediction"].mae == pytest.approx((0.005,))
    assert report.plan.accuracy.bands[0].unit == "reflectance"
    assert report.plan.accuracy.value_range.low == pytest.approx((0.0,), abs=1e-6)
    assert report.plan.accuracy.value_range.high == pytest.approx((0.2,), rel=1e-3)
    assert "percentile" in report.plan.accuracy.range_origin


def test_a_given_range_wins(make_raster):
    truth = make_raster("t.tif", picture())
    plan = planned(truth, truth, value_range=(0, 100))
    assert plan.accuracy.value_range == ValueRange((0,) * 3, (100,) * 3)


def test_bands_of_the_truth_are_chosen_by_number(make_raster):
    truth = picture(bands=5)
    predicted = make_raster("p.tif", truth[[3, 0]])
    report = measured(predicted, make_raster("t.tif", truth), bands="4,1")
    assert report.images[0].accuracy.candidates["prediction"].mae == (0, 0)


def test_the_nodata_value_given_for_the_truth_is_left_out(make_raster):
    truth = picture() // 2 + 1
    predicted = make_raster("p.tif", truth)
    truth[:, :10] = 255
    report = measured(predicted, make_raster("t.tif", truth), nodata=255)
    assert report.images[0].accuracy.pixels == 30 * 50
    assert report.images[0].accuracy.candidates["prediction"].mae == (0, 0, 0)


def test_baselines_are_fitted_on_the_image_itself_and_the_report_says_so(make_raster):
    source = picture(3, bands=2)
    truth = (0.25 * source[:1] + 0.5 * source[1:] + 10).astype(np.float32)
    predicted = make_raster("p.tif", truth + np.float32(5))
    report = measured(predicted, make_raster("t.tif", truth), source=make_raster("s.tif", source))
    found = report.images[0].accuracy.candidates
    assert list(found) == ["prediction", "mean_color", "linear"]
    assert found["linear"].mae[0] == pytest.approx(0, abs=1e-5)
    assert found["mean_color"].bias[0] == pytest.approx(0, abs=1e-5)
    assert found["mean_color"].rmse[0] == pytest.approx(truth.std(), rel=1e-5)
    assert "flatters them" in report.plan.accuracy.fit_origin


def test_baselines_can_be_fitted_on_other_images(make_raster):
    for seed, name in enumerate(["a", "b"]):
        source = picture(seed, bands=1)
        make_raster(f"fit_source/{name}.tif", source)
        fit = make_raster(f"fit_truth/{name}.tif", (2.0 * source + 3).astype(np.float32))
    source = picture(9, bands=1)
    truth = make_raster("t.tif", (2.0 * source + 13).astype(np.float32))
    report = measured(
        truth,
        truth,
        source=make_raster("s.tif", source),
        fit_truth=fit.parent,
        fit_source=fit.parent.with_name("fit_source"),
    )
    found = report.images[0].accuracy.candidates
    assert found["linear"].bias[0] == pytest.approx(-10, abs=1e-4)
    assert found["linear"].mae[0] == pytest.approx(10, abs=1e-4)
    training = np.mean([2.0 * picture(seed, bands=1) + 3 for seed in (0, 1)])
    assert found["mean_color"].bias[0] == pytest.approx(training - (2.0 * source + 13).mean())
    assert report.plan.accuracy.fit_origin.startswith("fitted on other images: 2 of")


def test_every_candidate_is_measured_on_the_same_pixels(make_raster):
    source = picture(4, bands=1)
    source[:, :15] = 0
    truth = make_raster("t.tif", picture())
    image = measured(truth, truth, source=make_raster("s.tif", source, nodata=0)).images[0]
    assert image.accuracy.pixels == (source > 0).sum()


def test_unlike_band_counts_are_refused_with_the_mend(make_raster):
    predicted, truth = make_raster("p.tif", picture()), make_raster("t.tif", picture(bands=5))
    with pytest.raises(BandError, match=r"number of bands \(3 and 5\).*--bands 1,2,3"):
        measured(predicted, truth)


def test_unlike_units_are_refused_with_the_mend(make_raster):
    predicted = make_raster("p.tif", picture(bands=1), bands=(Band(name="VH", unit="dB"),))
    with pytest.raises(
        BandError, match=r"VH of .* is in dB and height of .* in m.*Bring both to one unit"
    ):
        measured(
            predicted,
            make_raster("t.tif", picture(bands=1), bands=(Band(name="height", unit="m"),)),
        )


def test_images_that_are_not_alike_are_refused_with_the_mend(make_raster):
    make_raster("p/a.tif", picture())
    one = make_raster("p/b.tif", picture(bands=1))
    with pytest.raises(BandError, match=r"true bands of .*b.tif are 1.*Evaluate them apart"):
        measured(one.parent, one.parent)


def test_images_of_different_places_are_refused_with_the_mend(make_raster):
    predicted = make_raster("p.tif", picture())
    truth = make_raster("t.tif", picture(), col=10_000)
    mend = r"do not overlap: longitude 15\.0000 .* against longitude 16\..*of the same place"
    with pytest.raises(GridError, match=mend):
        measured(predicted, truth)


def test_images_without_a_common_valid_pixel_are_refused_with_the_mend(make_raster):
    predicted, truth = picture() | 1, picture() | 1
    predicted[:, :20], truth[:, 20:] = 0, 0
    files = make_raster("p.tif", predicted, nodata=0), make_raster("t.tif", truth, nodata=0)
    with pytest.raises(GridError, match=r"no pixel holds data in all of them.*nodata values"):
        measured(*files)


def test_a_missing_file_is_refused(make_raster):
    with pytest.raises(RasterError, match=r"nowhere\.tif does not exist"):
        measured("nowhere.tif", make_raster("t.tif", picture()))


def test_a_constant_truth_needs_a_range(make_raster):
    truth = make_raster("t.tif", np.full((1, 8, 8), 5, np.uint16))
    with pytest.raises(SettingError, match="Give a range"):
        measured(truth, truth)
    assert measured(truth, truth, value_range=(0, 10)).images[0].accuracy.pixels == 64


def test_a_report_is_finished_refused_or_written_anew_by_the_rule(make_raster, tmp_path):
    truth, other = make_raster("t.tif", picture()), make_raster("o.tif", noisy(picture()))
    output = tmp_path / "new" / "report.json"
    plan = planned(other, truth)
    with claim_report(output, plan) as finished:
        assert not finished
        write_report(measured(other, truth), output)
    assert [file.name for file in output.parent.iterdir()] == ["report.json"]

    with claim_report(output, plan) as finished:
        assert finished
    changed = planned(other, truth, value_range=(0, 100))
    with (
        pytest.raises(
            OutputError, match=r"value-range was unset and is now \[0\.0, 100\.0\].*--overwrite"
        ),
        claim_report(output, changed),
    ):
        pass
    with claim_report(output, changed, overwrite=True) as finished:
        assert not finished
    output.write_text("not a report")
    with (
        pytest.raises(OutputError, match=r"was not made by this command.*--overwrite"),
        claim_report(output, plan),
    ):
        pass


def tiled(seed=0, size=32):
    """Noise, each window of it at a level of its own."""
    random = np.random.default_rng(seed)
    levels = np.kron(random.integers(-3, 4, (5, 6)) * 6.0, np.ones((size, size)))
    return (random.normal(100, 5, (2, 140, 170)) + levels[:140, :170]).astype(np.float32)


def test_seams_and_another_raster_are_reported_without_a_truth(make_raster):
    other = tiled(1)
    path = make_raster("tiled.tif", tiled(1) + np.float32(2))
    report = measured(path, seams="32", against=make_raster("other.tif", other))
    image = report.images[0]
    assert image.accuracy is None
    assert image.seams == measure_seams(path, 32)
    assert image.seams.visible
    assert [band.mean for band in image.mismatch.bands] == pytest.approx([2, 2], abs=1e-4)
    assert image.mismatch.bands[0].vertical == pytest.approx(1, abs=1e-4)
    assert report.summary() == {}
    found = json.loads(json.dumps(report.to_dict()))
    assert set(found) == {"job", "images"}
    assert found["images"][0]["seams"]["visible"]
    assert found["images"][0]["against"]["share"] == pytest.approx(image.mismatch.share)


def test_seams_need_no_place_on_the_map(make_raster, tmp_path):
    pixels = tiled().clip(0, 255).astype(np.uint8)[:1]
    placed = measured(make_raster("placed.tif", pixels), seams="32").images[0].seams
    assert placed.visible
    Image.fromarray(pixels[0]).save(tmp_path / "plain.png")
    without = [
        tmp_path / "plain.png",
        make_raster("nowhere.tif", pixels, crs=None),
        make_raster("rotated.tif", pixels, transform=NORTH_UP @ Affine.rotation(30)),
    ]
    for path in without:
        assert measured(path, seams="32").images[0].seams.bands == placed.bands
        with pytest.raises(RasterError):
            measured(path, seams="32", against=path)


def test_with_a_truth_both_reports_come(make_raster):
    truth, path = make_raster("t.tif", tiled(2)), make_raster("p.tif", tiled(3))
    both = measured(path, truth, seams="32,5").to_dict()
    assert both["images"][0]["figures"] == measured(path, truth).to_dict()["images"][0]["figures"]
    assert both["images"][0]["seams"]["offset"] == 5
    assert "against" not in both["images"][0]


def test_folders_of_two_predictions_are_matched_by_name(make_raster):
    for seed, name in enumerate(["a", "b"]):
        make_raster(f"other/{name}.tif", tiled(seed))
        one = make_raster(f"one/{name}.tif", tiled(seed))
    report = measured(one.parent, against=one.parent.with_name("other"))
    assert [image.files.name for image in report.images] == ["a", "b"]
    assert all(image.mismatch.share == 0 for image in report.images)
    with pytest.raises(SettingError, match="Give both the same file name"):
        planned(make_raster("c.tif", tiled()), against=one.parent)


def test_every_file_is_checked_before_the_first_is_measured(make_raster):
    make_raster("one/a.tif", tiled())
    small = make_raster("one/b.tif", tiled()[:, :20, :20])
    with pytest.raises(SettingError, match=r"b\.tif has 20 x 20 px.*below 20 px"):
        planned(small.parent, seams="32")
    with pytest.raises(GridError, match=r"b\.tif.*lie on different grids"):
        planned(small.parent, against=small.with_name("a.tif"))


def test_a_report_of_other_lines_is_another_report(make_raster, tmp_path):
    path = make_raster("p.tif", tiled())
    output = tmp_path / "report.json"
    write_report(measured(path, seams="32"), output)
    with (
        pytest.raises(OutputError, match=r"seams was \[32, 0\] and is now \[64, 0\]"),
        claim_report(output, planned(path, seams="64")),
    ):
        pass

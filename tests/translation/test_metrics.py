"""Figures against torchmetrics, against definitions spelt out, and against what must hold."""

from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import (
    error_relative_global_dimensionless_synthesis,
    peak_signal_noise_ratio,
    spectral_angle_mapper,
    structural_similarity_index_measure,
)

from geotranslate.errors import GridError, SettingError
from geotranslate.translation.metrics import (
    CELL,
    FIGURES,
    HALO,
    Figures,
    ValueRange,
    cell_means,
    figures,
    gradients,
    measure,
    ssim_map,
    sum_window,
    summarize,
)

BYTES = ValueRange((0, 0, 0), (255, 255, 255))
seeds = st.integers(0, 2**32 - 1)


def pair(seed: int, rows: int = 40, cols: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a truth that have something in common, three bands in 1 to 255."""
    random = np.random.default_rng(seed)
    truth = random.uniform(1, 255, (3, rows, cols))
    predicted = np.clip(0.7 * truth + random.normal(20, 30, truth.shape), 1, 255)
    return predicted, truth


def some_valid(seed: int, rows: int = 40, cols: int = 50, least: float = 0.3) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.uniform(size=(rows, cols)) < random.uniform(least, 1)


def batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels)[None]


def assert_equal_figures(one: Figures, other: Figures) -> None:
    for name, value in asdict(one).items():
        assert value == pytest.approx(getattr(other, name), rel=1e-9, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("shape", [(40, 50), (11, 6), (64, 7)])
def test_on_fully_valid_pixels_figures_equal_those_of_torchmetrics(shape):
    predicted, truth = pair(1, *shape)
    found = measure(predicted, truth, np.ones(shape, bool), BYTES)
    x, y = batch(predicted), batch(truth)

    ssim = structural_similarity_index_measure(x, y, data_range=255.0)
    assert found.ssim == pytest.approx(ssim.item(), abs=1e-6)
    psnr = peak_signal_noise_ratio(x, y, data_range=255.0)
    assert found.psnr == pytest.approx(psnr.item(), abs=1e-5)
    angle = torch.rad2deg(spectral_angle_mapper(x.float(), y.float()))
    assert found.sam == pytest.approx(angle.item(), abs=1e-3)
    ergas = error_relative_global_dimensionless_synthesis(x, y, ratio=1)
    assert found.ergas == pytest.approx(ergas.item(), rel=1e-9)


def test_ssim_of_decibels_counts_from_the_low_end_of_the_range():
    predicted, truth = pair(2)
    decibels = ValueRange((-30,) * 3, (0,) * 3)
    found = measure(predicted / 8.5 - 30, truth / 8.5 - 30, np.ones((40, 50), bool), decibels)
    ssim = structural_similarity_index_measure(batch(predicted), batch(truth), data_range=255.0)
    assert found.ssim == pytest.approx(ssim.item(), abs=1e-6)


def test_psnr_measures_each_band_against_its_own_range():
    truth = np.zeros((2, 8, 8))
    predicted = truth + np.array([10, 0.1])[:, None, None]
    found = measure(predicted, truth, np.ones((8, 8), bool), ValueRange((0, 0), (100, 1)))
    assert found.psnr == pytest.approx(20)
    assert found.mae == pytest.approx((10, 0.1))


def test_psnr_after_averaging_is_the_psnr_of_the_averages():
    predicted, truth = pair(3, 48, 56)
    found = measure(predicted, truth, np.ones((48, 56), bool), BYTES)
    x, y = (torch.nn.functional.avg_pool2d(batch(pixels), 8) for pixels in (predicted, truth))
    psnr = peak_signal_noise_ratio(x, y, data_range=255.0)
    assert found.psnr8 == pytest.approx(psnr.item(), abs=1e-5)
    apart = [np.corrcoef(x[0, band].ravel(), y[0, band].ravel())[0, 1] for band in range(3)]
    assert found.corr8 == pytest.approx(np.mean(apart))


@given(seed=seeds)
@settings(deadline=None, max_examples=10)
def test_figures_of_a_masked_image_follow_their_definitions(seed):
    predicted, truth = pair(seed)
    valid = some_valid(seed)
    found = measure(predicted, truth, valid, ValueRange((-45,) * 3, (255,) * 3))
    x, y = predicted[:, valid], truth[:, valid]

    assert found.mae == pytest.approx(np.abs(x - y).mean(axis=1))
    assert found.rmse == pytest.approx(np.sqrt(np.square(x - y).mean(axis=1)))
    assert found.bias == pytest.approx((x - y).mean(axis=1))
    assert found.psnr == pytest.approx(10 * np.log10(300**2 / np.square(x - y).mean()))
    cosine = (x * y).sum(axis=0) / np.sqrt(np.square(x).sum(axis=0) * np.square(y).sum(axis=0))
    assert found.sam == pytest.approx(np.degrees(np.arccos(cosine)).mean())
    parts = np.square(x - y).mean(axis=1) / np.square(y.mean(axis=1))
    assert found.ergas == pytest.approx(100 * np.sqrt(parts.mean()))
    assert found.contrast == pytest.approx(np.sqrt(x.var(axis=1).sum() / y.var(axis=1).sum()))
    assert found.color_bias == pytest.approx(np.abs(x.mean(axis=1) - y.mean(axis=1)).mean() / 300)


@given(seed=seeds, rows=st.integers(1, 20), cols=st.integers(1, 20))
@settings(deadline=None, max_examples=20)
def test_cell_means_are_means_of_valid_pixels_where_half_a_cell_is_valid(seed, rows, cols):
    pixels = np.random.default_rng(seed).uniform(size=(2, rows, cols))
    valid = some_valid(seed, rows, cols)
    means, counts = cell_means(pixels, valid)
    assert counts.shape == (-(-rows // CELL), -(-cols // CELL))
    for row, col in np.ndindex(counts.shape):
        place = (slice(row * CELL, (row + 1) * CELL), slice(col * CELL, (col + 1) * CELL))
        inside = valid[place]
        assert counts[row, col] == (inside.sum() >= CELL * CELL / 2)
        if counts[row, col]:
            expected = [band[place][inside].mean() for band in pixels]
            assert means[:, row, col] == pytest.approx(expected)


def test_gradients_are_left_out_where_one_of_their_three_pixels_is_invalid():
    pixels = np.array([[[0.0, 3.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    valid = np.ones((3, 3), bool)
    valid[1, 2] = valid[2, 0] = False
    length, defined = gradients(pixels, valid)
    assert length[0, 0, 0] == 5
    assert defined.tolist() == [[True, True], [False, False]]


def test_masked_ssim_shares_the_window_out_among_its_valid_pixels():
    predicted, truth = pair(5, 14, 13)
    x, y, valid = predicted / 255, truth / 255, some_valid(7, 14, 13)
    found = ssim_map(x, y, valid)
    # The image and its mask, mirrored without repeating the edge pixel.
    wide = [np.pad(layer, 5, "reflect") for layer in (x[0], y[0], valid.astype(float))]
    bell = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    for row, col in np.argwhere(valid):
        u, v, seen = (layer[row : row + 11, col : col + 11] for layer in wide)
        weights = np.outer(bell, bell) * seen
        weights /= weights.sum()
        u_mean, v_mean = (weights * u).sum(), (weights * v).sum()
        u_variance = (weights * np.square(u - u_mean)).sum()
        v_variance = (weights * np.square(v - v_mean)).sum()
        covariance = (weights * (u - u_mean) * (v - v_mean)).sum()
        expected = (2 * u_mean * v_mean + 0.01**2) * (2 * covariance + 0.03**2)
        expected /= u_mean**2 + v_mean**2 + 0.01**2
        expected /= u_variance + v_variance + 0.03**2
        assert found[0, row, col] == pytest.approx(expected)


@given(seed=seeds, junk=st.sampled_from([0.0, -1e30, np.nan, np.inf]))
@settings(deadline=None, max_examples=15)
def test_values_under_invalid_pixels_have_no_influence(seed, junk):
    predicted, truth = pair(seed)
    valid = some_valid(seed)
    before = measure(predicted, truth, valid, BYTES)
    predicted[:, ~valid] = junk
    truth[:, ~valid] = -junk
    assert measure(predicted, truth, valid, BYTES) == before


@given(seed=seeds)
@settings(deadline=None, max_examples=5)
def test_a_perfect_prediction_has_perfect_figures(seed):
    _, truth = pair(seed)
    found = measure(truth, truth, some_valid(seed, least=0.7), BYTES)
    assert found.mae == found.rmse == found.bias == (0, 0, 0)
    assert found.psnr == found.psnr8 == np.inf
    assert (found.sam, found.ergas, found.color_bias) == (0, 0, 0)
    assert found.ssim == pytest.approx(1)
    assert found.contrast == pytest.approx(1)
    assert found.sharpness == pytest.approx(1)
    assert found.corr8 == pytest.approx(1)


def test_contrast_sharpness_and_bias_tell_how_a_prediction_is_stretched():
    _, truth = pair(6)
    found = measure(0.5 * truth + 51, truth, np.ones((40, 50), bool), BYTES)
    assert found.contrast == pytest.approx(0.5)
    assert found.sharpness == pytest.approx(0.5)
    assert found.corr8 == pytest.approx(1)
    shift = [51 - 0.5 * band.mean() for band in truth]
    assert found.bias == pytest.approx(shift)
    assert found.color_bias == pytest.approx(np.abs(shift).mean() / 255)


def test_a_flat_prediction_explains_nothing():
    _, truth = pair(8)
    flat = np.broadcast_to(truth.mean(axis=(1, 2), keepdims=True), truth.shape)
    found = measure(flat, truth, np.ones((40, 50), bool), BYTES)
    assert (found.contrast, found.sharpness, found.corr8) == (0, 0, 0)
    assert found.color_bias == pytest.approx(0, abs=1e-12)


def test_figures_without_a_value_are_nan():
    truth = np.full((1, 6, 5), 100.0)
    found = measure(truth + 1, truth, np.ones((6, 5), bool), ValueRange((0,), (255,)))
    for name in ("psnr8", "corr8", "sam", "contrast", "sharpness"):
        assert np.isnan(getattr(found, name)), name


@given(
    seed=seeds,
    rows=st.lists(st.integers(1, 3), max_size=3),
    cols=st.lists(st.integers(1, 3), max_size=3),
    rest=st.tuples(st.integers(1, 2 * CELL), st.integers(1, 2 * CELL)),
)
@settings(deadline=None, max_examples=15)
def test_windows_add_up_to_the_whole_however_they_are_cut(seed, rows, cols, rest):
    edges = [
        np.cumsum([0, *(CELL * count for count in counts), last])
        for counts, last in zip((rows, cols), rest, strict=True)
    ]
    shape = int(edges[0][-1]), int(edges[1][-1])
    predicted, truth = pair(seed, *shape)
    valid = some_valid(seed, *shape)
    valid[0, 0] = True
    whole = measure(predicted, truth, valid, BYTES)

    total = None
    for top, bottom in zip(edges[0], edges[0][1:], strict=False):
        for left, right in zip(edges[1], edges[1][1:], strict=False):
            first = max(top - HALO, 0), max(left - HALO, 0)
            window = slice(first[0], bottom + HALO), slice(first[1], right + HALO)
            core = (
                slice(top - first[0], bottom - first[0]),
                slice(left - first[1], right - first[1]),
            )
            part = sum_window(predicted[:, *window], truth[:, *window], valid[window], BYTES, core)
            total = part if total is None else total + part
    assert_equal_figures(figures(total, BYTES), whole)


def test_every_figure_is_explained_once():
    assert list(FIGURES) == [field.name for field in fields(Figures)]
    assert len({figure.title for figure in FIGURES.values()}) == len(FIGURES)


def test_a_summary_counts_each_image_once_and_skips_figures_without_value():
    valid = np.ones((40, 50), bool)
    images = [measure(*pair(seed), valid, BYTES) for seed in range(3)]
    small = measure(*(pixels[:, :5, :5] for pixels in pair(4)), valid[:5, :5], BYTES)
    summary = summarize([*images, small], np.median)
    assert summary.psnr8 == np.median([image.psnr8 for image in images])
    assert summary.mae == tuple(
        np.median([image.mae[band] for image in [*images, small]]) for band in range(3)
    )
    assert summarize(images).ssim == pytest.approx(np.mean([image.ssim for image in images]))


def test_an_image_without_a_valid_pixel_is_refused_with_the_mend():
    predicted, truth = pair(0)
    with pytest.raises(GridError, match="Check that both show the same place"):
        measure(predicted, truth, np.zeros((40, 50), bool), BYTES)


def test_an_empty_range_is_refused_with_the_mend():
    with pytest.raises(SettingError, match=r"band 2 goes from 5 to 5.*leave the band out"):
        ValueRange((0, 5), (1, 5))


def test_the_page_explains_every_figure_as_the_table_does():
    page = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text()
    for name, figure in FIGURES.items():
        assert f"| {figure.title} |" in page
        assert f"| {figure.best} | {figure.meaning} |" in page
        assert f"`{name}`" in page

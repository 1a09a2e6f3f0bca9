"""Figures on lines: a slow reference, and arrays with a known answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window
from scipy import ndimage, stats

from geotranslate.raster.line_figures import line_figures
from geotranslate.raster.line_sums import Lines, RasterSums, Slab
from geotranslate.raster.seams import VISIBLE_CHANCE


def noise(seed=0, bands=1, rows=200, cols=230):
    return np.random.default_rng(seed).normal(100, 10, (bands, rows, cols))


def figures_of(pixels, size, offset=0, valid=None):
    """The figures of an array's first band, (vertical, horizontal)."""
    pixels = np.asarray(pixels, np.float64)
    valid = np.ones(pixels.shape[1:], bool) if valid is None else valid
    rows, cols = valid.shape
    sums = RasterSums(Lines(size, offset), len(pixels), (rows, cols))
    slab = Slab(0, Window(col_off=0, row_off=0, width=cols, height=rows))
    sums.add(slab, pixels, valid)
    sums.finish()
    return line_figures(sums.vertical, 0), line_figures(sums.horizontal, 0)


def visible(contrast_or_figures):
    """Whether it is beyond the chance that each of four figures has."""
    return contrast_or_figures.chance <= VISIBLE_CHANCE / 4


def slow_contrast(values, count, size, offset, reach):
    """The definition in the docs, position by position: (on the lines, score, others)."""
    length = len(values)
    lines = [i for i in range(1, length) if i % size == offset]
    stands_out, pixels = {}, {}
    for i in range(length):
        sides = []
        for ring in (range(i - 2 * reach, i - reach + 1), range(i + reach, i + 2 * reach + 1)):
            inside = [j for j in ring if 0 <= j < length]
            if sum(count[j] for j in inside):
                sides.append(sum(values[j] for j in inside) / sum(count[j] for j in inside))
        if count[i] and len(sides) == 2:
            stands_out[i] = values[i] / count[i] - sum(sides) / 2
    by_offset = {}
    for away in range(-(size // 2), size - size // 2):
        used = [line + away for line in lines if line + away in stands_out]
        pixels[away] = sum(count[i] for i in used)
        if pixels[away]:
            by_offset[away] = sum(count[i] * stands_out[i] for i in used) / pixels[away]
    others = np.array([m for away, m in by_offset.items() if abs(away) >= reach])
    used = [i for i in lines if i in stands_out]
    on_lines = sum(values[i] for i in used) / sum(count[i] for i in used)
    excess = by_offset[0] - others.mean()
    return on_lines, excess / others.std(), len(others)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 9),
    size=st.sampled_from([4, 7, 16, 31]),
    shift=st.integers(0, 30),
    holes=st.booleans(),
)
def test_the_figures_are_those_of_the_definition(seed, size, shift, holes):
    random = np.random.default_rng(seed)
    image = random.normal(0, 1, (70, 85)).cumsum(axis=1)
    valid = random.random(image.shape) > 0.2 if holes else np.ones(image.shape, bool)
    image[~valid] = np.inf
    offset = shift % size
    for figures, pixels, found in zip(
        figures_of(image[None], size, offset, valid),
        (image, image.T),
        (valid, valid.T),
        strict=True,
    ):
        along, length = pixels.shape
        count, gradient, step = [0] * length, [0.0] * length, [0.0] * length
        for i in range(1, length):
            both = found[:, i] & found[:, i - 1]
            jumps = np.where(
                both, np.where(both, pixels[:, i], 0) - np.where(both, pixels[:, i - 1], 0), 0
            )
            count[i], gradient[i] = both.sum(), np.abs(jumps).sum()
            edges = (np.arange(along) - offset) // size
            step[i] = sum(abs(jumps[edges == edge].sum()) for edge in set(edges))
        reach = min(max(size // 8, 1), 8)
        for contrast, values in ((figures.gradient, gradient), (figures.step, step)):
            on_lines, score, others = slow_contrast(values, count, size, offset, reach)
            assert contrast.on_lines == pytest.approx(on_lines)
            assert contrast.score == pytest.approx(score)
            scale = np.sqrt((others - 1) / (others + 1))
            assert contrast.chance == pytest.approx(stats.t.sf(score * scale, others - 1))


def test_lines_alone_are_found_where_no_level_differs():
    # As padding leaves them: the level is the same in all windows, the rim of each is noisy.
    pixels = noise(rows=256, cols=256)
    pixels[:, :, 64::64] += np.random.default_rng(2).normal(0, 10, pixels[:, :, 64::64].shape)
    vertical, horizontal = figures_of(pixels, 64)
    assert visible(vertical.gradient)
    assert not visible(horizontal)


@pytest.mark.parametrize(("size", "offset"), [(32, 0), (64, 10)])
def test_noise_without_seams_is_invisible(size, offset):
    scores, seen = [], []
    for seed in range(60):
        for figures in figures_of(noise(seed, rows=210, cols=260), size, offset):
            scores += [figures.gradient.score, figures.step.score]
            seen.append(visible(figures))
    assert np.mean(np.array(scores) < 2) > 0.95
    assert np.mean(seen) < 0.02


@pytest.mark.parametrize(("periods", "measured"), [(2, False), (3, False), (4, True)])
def test_noise_of_few_windows_is_not_called_periodic(periods, measured):
    length = periods * 48 + 10
    for seed in range(40):
        smooth = ndimage.gaussian_filter(noise(seed, rows=length, cols=length)[0], 2)
        for figures in figures_of(smooth[None], 48):
            assert np.isfinite(figures.peak) == measured
            assert not figures.periodic


def test_content_that_changes_over_the_scene_is_no_seam():
    rows, cols = np.indices((256, 300))
    slope = 0.2 * cols + 0.001 * rows * cols
    rough = noise(3, rows=256, cols=300)[0] * np.linspace(0.2, 3, 300)
    for figures in figures_of((slope + rough)[None], 64):
        assert not visible(figures)
    for figures in figures_of(slope[None], 64):
        assert not visible(figures)


def test_a_blended_seam_shows_in_the_spectrum_only():
    # Two predictions that differ as noise does are averaged where windows overlap.
    away = np.abs((np.arange(512) + 16) % 64 - 16)
    weight = np.clip(0.5 + away / 32, 0.5, 1)
    blend = np.minimum.outer(weight, weight)
    pixels = blend * noise(4, 1, 512, 512) + (1 - blend) * noise(5, 1, 512, 512)
    for figures in figures_of(pixels, 64):
        assert not visible(figures)
        assert figures.periodic
    for figures in figures_of(noise(6, 1, 512, 512), 64):
        assert not figures.periodic


def test_a_slope_without_texture_neither_stands_out_nor_repeats():
    slope = np.arange(200) * 0.1 + np.arange(150)[:, None] / 3
    for figures in figures_of(slope[None], 16):
        assert figures.gradient.score == pytest.approx(0, abs=0.01)
        assert figures.peak == 1


@pytest.mark.parametrize("shape", [(1, 40), (2, 17), (40, 1)])
def test_the_thinnest_rasters_have_figures_where_lines_cross_them(shape):
    vertical, horizontal = figures_of(np.random.default_rng(0).normal(0, 1, (1, *shape)), 4)
    assert (vertical is None) == (shape[1] < 8)
    assert (horizontal is None) == (shape[0] < 8)

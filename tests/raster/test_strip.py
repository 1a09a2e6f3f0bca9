import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from geotranslate.raster.cores import TAPERS, Lattice, core_step, plan_cores
from geotranslate.raster.strip import Strip


@st.composite
def blends(draw):
    """A scene's shape, a part of it, and overlapping cores, of sides that divide nothing."""
    shape = draw(st.integers(1, 97)), draw(st.integers(1, 97))
    row, col = (draw(st.integers(0, side - 1)) for side in shape)
    height, width = draw(st.integers(1, shape[0] - row)), draw(st.integers(1, shape[1] - col))
    stride = draw(st.sampled_from([1, 4, 8]))
    size = stride * draw(st.integers(2, 6))
    lattice = Lattice(
        size=size,
        stride=stride,
        halo=stride,
        step=core_step(size, stride=stride),
        taper=TAPERS[draw(st.sampled_from(["hann", "linear"]))],
    )
    return shape, Window(col_off=col, row_off=row, width=width, height=height), lattice


def blend(rows, shape, values_of, first=0):
    """The scene, from a strip that starts at row ``first`` of the cores."""
    strip = Strip(rows[first:], bands=2)
    found = np.full((2, *shape), np.nan, np.float32)
    for row in rows[first:]:
        for core in row:
            found[:, *core.window.toslices()] = strip.lay(core, values_of(core))
    return found


def random_values(core):
    """Other values in each window, so that nothing is right by chance."""
    seed = (core.rows.read_start + 1000) * 5000 + core.cols.read_start + 1000
    window = core.core_window
    shape = 2, int(window.height), int(window.width)
    return np.random.default_rng(seed).uniform(0, 1000, shape).astype(np.float32)


@settings(deadline=None)
@given(plan=blends())
def test_a_strip_gives_what_whole_sums_in_float64_give(plan):
    shape, part, lattice = plan
    rows = plan_cores(shape, part, lattice)
    sums, weights = np.zeros((2, *shape)), np.zeros(shape)
    for row in rows:
        for core in row:
            place = core.core_window.toslices()
            weight = np.outer(core.rows.shares, core.cols.shares).astype(float)
            sums[:, *place] += weight * random_values(core)
            weights[place] += weight
    place = part.toslices()
    expected = sums[:, *place] / weights[place]
    found = blend(rows, shape, random_values)
    assert np.abs(found[:, *place] - expected).max() < 1e-3  # of values up to 1000


@settings(deadline=None)
@given(plan=blends(), value=st.sampled_from([1, 100, 255, 10_000, 65_535]))
def test_constant_in_constant_out(plan, value):
    shape, part, lattice = plan
    rows = plan_cores(shape, part, lattice)
    found = blend(rows, shape, lambda core: np.full((2, *_shape(core)), value, np.float32))
    found = found[:, *part.toslices()]
    assert (np.rint(found) == value).all()
    assert np.abs(found / value - 1).max() < 1e-6


def _shape(core):
    return int(core.core_window.height), int(core.core_window.width)


@settings(deadline=None, max_examples=30)
@given(plan=blends(), data=st.data())
def test_a_strip_that_starts_further_down_ends_with_the_same_bits(plan, data):
    shape, part, lattice = plan
    rows = plan_cores(shape, part, lattice)
    whole = blend(rows, shape, random_values)
    first = data.draw(st.integers(0, len(rows) - 1))
    start, needed = rows[first][0].rows.start, first
    while needed and rows[needed - 1][0].rows.core_end > start:
        needed -= 1
    found = blend(rows, shape, random_values, first=needed)
    assert (found[:, start:] == whole[:, start:])[:, np.isfinite(whole[0, start:])].all()


def test_a_core_of_which_nothing_is_wanted_adds_nothing():
    lattice = Lattice(size=8, stride=1, halo=0, step=6, taper=TAPERS["hann"])
    ((first, second),) = plan_cores((8, 14), Window(0, 0, 14, 8), lattice)
    strip = Strip([[first, second]], bands=1)
    alone = strip.lay(first, np.ones((1, 8, 8), np.float32))
    assert (alone == 1).all()
    rest = strip.lay(second, None)
    assert (rest[:, :, 2:] == 0).all()

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from geotranslate.errors import SettingError
from geotranslate.raster.cores import TAPERS, Lattice, core_size, core_step, plan_cores

sides = st.integers(1, 90)
strides = st.sampled_from([1, 2, 4, 8])
either = st.booleans()


@st.composite
def plans(draw, blended=either):
    """A scene's shape, a part of it, and how it is cut."""
    shape = draw(sides), draw(sides)
    row, col = (draw(st.integers(0, side - 1)) for side in shape)
    height, width = draw(st.integers(1, shape[0] - row)), draw(st.integers(1, shape[1] - col))
    stride = draw(strides)
    size = stride * draw(st.integers(1, 12))
    lattice = Lattice(
        size=size,
        stride=stride,
        halo=stride * draw(st.integers(0, 4)),
        step=core_step(size, stride=stride) if draw(blended) else size,
        taper=TAPERS[draw(st.sampled_from(sorted(TAPERS)))],
        shift=stride * draw(st.integers(0, (size - 1) // stride)),
    )
    return shape, Window(col_off=col, row_off=row, width=width, height=height), lattice


def cores_of(shape, part, lattice):
    return [core for row in plan_cores(shape, part, lattice) for core in row]


def whole_of(shape):
    return Window(col_off=0, row_off=0, width=shape[1], height=shape[0])


@settings(deadline=None)
@given(plan=plans())
def test_cores_write_each_pixel_of_the_part_once_and_no_other(plan):
    shape, part, lattice = plan
    written = np.zeros(shape, int)
    for core in cores_of(shape, part, lattice):
        written[core.window.toslices()] += 1
    wanted = np.zeros(shape, int)
    wanted[part.toslices()] = 1
    assert (written == wanted).all()


@settings(deadline=None)
@given(plan=plans())
def test_shares_in_a_pixel_are_above_zero_and_add_up_to_one(plan):
    shape, part, lattice = plan
    total = np.zeros(shape)
    for core in cores_of(shape, part, lattice):
        shares = core.rows.shares[:, None] * core.cols.shares.astype(float)
        assert shares.min() > 0
        total[core.core_window.toslices()] += shares
    assert np.abs(total[part.toslices()] - 1).max() < 1e-6
    total[part.toslices()] = 0
    assert not total.any()


@settings(deadline=None)
@given(plan=plans(blended=st.just(True)))
def test_where_only_one_core_lies_its_share_is_one_also_at_the_rim_of_the_scene(plan):
    shape, _, lattice = plan
    cores = cores_of(shape, whole_of(shape), lattice)
    seen = np.zeros(shape, int)
    for core in cores:
        seen[core.core_window.toslices()] += 1
    for core in cores:
        shares = core.rows.shares[:, None] * core.cols.shares
        assert (shares[seen[core.core_window.toslices()] == 1] == 1).all()


@settings(deadline=None)
@given(plan=plans())
def test_a_pixel_is_written_with_the_last_core_that_has_a_share_in_it(plan):
    shape, part, lattice = plan
    cores = cores_of(shape, part, lattice)
    last = np.full(shape, -1)
    for number, core in enumerate(cores):
        last[core.core_window.toslices()] = number
    for number, core in enumerate(cores):
        assert (last[core.window.toslices()] == number).all()


@settings(deadline=None)
@given(plan=plans())
def test_what_is_read_is_one_distance_from_the_stride_and_holds_the_core_with_its_halo(plan):
    shape, part, lattice = plan
    for core in cores_of(shape, part, lattice):
        for span in (core.rows, core.cols):
            assert (span.read_start + lattice.halo) % lattice.stride == 0
            assert (span.read_end - span.read_start) % lattice.stride == 0
            assert span.read_start <= span.core_start - lattice.halo
            assert span.read_end >= span.core_end + lattice.halo
            assert span.read_end - span.read_start <= lattice.size + 2 * lattice.halo


@settings(deadline=None)
@given(plan=plans())
def test_a_part_reads_the_same_windows_with_the_same_shares_as_the_whole(plan):
    shape, part, lattice = plan
    windows = {}
    for core in cores_of(shape, whole_of(shape), lattice):
        shares = np.zeros(shape)
        shares[core.core_window.toslices()] = core.rows.shares[:, None] * core.cols.shares
        windows[core.read_window.row_off, core.read_window.col_off] = core.read_window, shares
    for core in cores_of(shape, part, lattice):
        read, place = core.read_window, core.core_window.toslices()
        window, shares = windows[read.row_off, read.col_off]
        assert read == window
        assert (shares[place] == core.rows.shares[:, None] * core.cols.shares).all()


@settings(deadline=None)
@given(plan=plans())
def test_trusted_and_written_are_the_core_and_what_is_written_of_it(plan):
    shape, part, lattice = plan
    for core in cores_of(shape, part, lattice):
        read, whole, window = core.read_window, core.core_window, core.window
        rows = np.arange(read.row_off, read.row_off + read.height)[core.trusted[0]]
        cols = np.arange(read.col_off, read.col_off + read.width)[core.trusted[1]]
        assert rows.tolist() == list(range(*_ends(whole.row_off, whole.height)))
        assert cols.tolist() == list(range(*_ends(whole.col_off, whole.width)))
        assert rows[core.written[0]].tolist() == list(range(*_ends(window.row_off, window.height)))
        assert cols[core.written[1]].tolist() == list(range(*_ends(window.col_off, window.width)))


def _ends(start, length):
    return start, start + length


def test_the_last_core_is_cut_down_to_the_raster_rounded_up_to_the_stride():
    lattice = Lattice(size=64, stride=4, halo=8, step=64)
    (row,) = plan_cores((64, 70), whole_of((64, 70)), lattice)
    assert [core.read_window.width for core in row] == [80, 8 + 16]
    assert [core.window.width for core in row] == [64, 6]


def test_the_last_of_overlapping_cores_is_pulled_back_and_as_large_as_the_others():
    lattice = Lattice(size=64, stride=4, halo=8, step=48, taper=TAPERS["hann"])
    (row,) = plan_cores((64, 130), whole_of((64, 130)), lattice)
    assert [core.cols.core_start for core in row] == [0, 48, 68]
    assert [core.read_window.width for core in row] == [80, 80, 80]
    assert [core.window.width for core in row] == [48, 20, 62]


@pytest.mark.parametrize(("taper", "middle"), [("hann", 0.5), ("linear", 0.5)])
def test_a_blend_goes_from_one_core_to_the_next_in_the_middle_of_their_overlap(taper, middle):
    lattice = Lattice(size=8, stride=1, halo=0, step=5, taper=TAPERS[taper])
    (row,) = plan_cores((8, 13), whole_of((8, 13)), lattice)
    left, right = (core.cols.shares for core in row)
    assert right[1] == pytest.approx(middle)
    assert (np.diff(right[:4]) > 0).all()
    assert left[5:] == pytest.approx(right[:3][::-1])


@pytest.mark.parametrize(
    ("size", "stride", "step"), [(1024, 4, 768), (1024, 256, 768), (512, 256, 256), (64, 64, 64)]
)
def test_a_quarter_of_a_core_overlaps_or_what_the_stride_makes_of_it(size, stride, step):
    assert core_step(size, stride=stride) == step


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [
        (1, 4, 4),
        (64, 4, 64),
        (65, 4, 68),
        (100, 32, 128),
        (256, 4, 256),
        (300, 4, 512),
        (1000, 64, 1024),
    ],
)
def test_cores_keep_to_the_stride_and_large_ones_to_the_blocks(size, stride, expected):
    assert core_size(size, stride=stride, block=256) == expected


@pytest.mark.parametrize("size", [0, -8])
def test_a_size_without_pixels_is_refused_with_a_good_one(size):
    with pytest.raises(SettingError, match="1024 is a good one"):
        core_size(size, stride=4, block=256)

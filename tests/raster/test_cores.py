import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from geotranslate.errors import SettingError
from geotranslate.raster.cores import core_size, plan_cores

sides = st.integers(1, 90)
strides = st.sampled_from([1, 2, 4, 8])


@st.composite
def plans(draw):
    """A scene's shape, a part of it, and how it is cut."""
    shape = draw(sides), draw(sides)
    row, col = (draw(st.integers(0, side - 1)) for side in shape)
    height, width = draw(st.integers(1, shape[0] - row)), draw(st.integers(1, shape[1] - col))
    stride = draw(strides)
    how = {
        "size": stride * draw(st.integers(1, 12)),
        "stride": stride,
        "halo": stride * draw(st.integers(0, 4)),
    }
    return shape, Window(col_off=col, row_off=row, width=width, height=height), how


@settings(deadline=None)
@given(plan=plans())
def test_cores_write_each_pixel_of_the_part_once_and_no_other(plan):
    shape, part, how = plan
    written = np.zeros(shape, int)
    for row in plan_cores(shape, part, **how):
        for core in row:
            written[core.window.toslices()] += 1
    wanted = np.zeros(shape, int)
    wanted[part.toslices()] = 1
    assert (written == wanted).all()


@settings(deadline=None)
@given(plan=plans())
def test_what_is_read_lies_on_the_stride_and_holds_the_core_with_its_halo(plan):
    shape, part, how = plan
    for row in plan_cores(shape, part, **how):
        for core in row:
            for span in (core.rows, core.cols):
                assert span.read_start % how["stride"] == 0
                assert span.read_end % how["stride"] == 0
                assert span.read_start <= span.start - how["halo"]
                assert span.read_end >= span.end + how["halo"]
                assert span.read_end - span.read_start <= how["size"] + 2 * how["halo"]


@settings(deadline=None)
@given(plan=plans())
def test_a_part_reads_the_same_windows_as_the_whole(plan):
    shape, part, how = plan
    whole = Window(col_off=0, row_off=0, width=shape[1], height=shape[0])
    windows = {
        (core.read_window.row_off, core.read_window.col_off): core.read_window
        for row in plan_cores(shape, whole, **how)
        for core in row
    }
    for row in plan_cores(shape, part, **how):
        for core in row:
            read = core.read_window
            assert windows[read.row_off, read.col_off] == read


@settings(deadline=None)
@given(plan=plans())
def test_the_written_part_of_a_window_is_the_core(plan):
    shape, part, how = plan
    for row in plan_cores(shape, part, **how):
        for core in row:
            read, window = core.read_window, core.window
            rows = np.arange(read.row_off, read.row_off + read.height)[core.written[0]]
            cols = np.arange(read.col_off, read.col_off + read.width)[core.written[1]]
            assert rows.tolist() == list(range(*_ends(window.row_off, window.height)))
            assert cols.tolist() == list(range(*_ends(window.col_off, window.width)))


def _ends(start, length):
    return start, start + length


def test_the_last_core_is_cut_down_to_the_raster_rounded_up_to_the_stride():
    whole = Window(col_off=0, row_off=0, width=70, height=64)
    (row,) = plan_cores((64, 70), whole, size=64, stride=4, halo=8)
    assert [core.read_window.width for core in row] == [80, 8 + 16]
    assert [core.window.width for core in row] == [64, 6]


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

import base64
import io

import numpy as np
import pytest
from PIL import Image

from geotranslate.report.pictures import EARLIER, SMALL_SIDE, read_samples


@pytest.fixture
def folder(tmp_path):
    """Pictures of one grey each: the number of the update."""
    for update in range(10, 250, 10):
        grey = np.full((600, 300, 3), update, np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{update:09d}.png")
    return tmp_path


def opened(sample):
    head, _, coded = sample.uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(coded)))


def test_the_newest_comes_first_at_its_full_size_and_earlier_ones_smaller(folder):
    newest, *earlier = read_samples(folder)
    assert (newest.update, newest.width, newest.height) == (240, 300, 600)
    assert {(each.width, each.height) for each in earlier} == {(SMALL_SIDE // 2, SMALL_SIDE)}
    for sample in (newest, *earlier):
        with opened(sample) as picture:
            assert picture.size == (sample.width, sample.height)
            assert np.asarray(picture).mean() == pytest.approx(sample.update, abs=3)


def test_of_many_some_at_even_distances_with_the_first(folder):
    earlier = [each.update for each in read_samples(folder)[1:]]
    assert len(earlier) == EARLIER
    assert (earlier[0], earlier[-1]) == (230, 10)
    assert np.ptp(np.diff(earlier)) <= 10


def test_pictures_that_cannot_be_read_and_other_files_are_left_out(folder, caplog):
    (folder / "000000240.png").write_bytes(b"cut off")
    (folder / "notes.png").write_text("mine")
    assert read_samples(folder)[0].update != 240
    assert "000000240.png cannot be read and is left out" in caplog.text


def test_without_samples_there_are_none(tmp_path):
    assert read_samples(tmp_path / "samples") == []

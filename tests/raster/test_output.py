from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from filelock import FileLock

from geotranslate.errors import OutputError
from geotranslate.raster.output import (
    differences,
    explained,
    locked,
    read_record,
    write_text,
)

FULL_DISK = """
import resource, sys
from pathlib import Path
from geotranslate.errors import OutputError
from geotranslate.raster.output import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(Path(sys.argv[1]), "x" * 5000)
except OutputError as error:
    print(error)
"""


class TestLocks:
    @pytest.mark.skipif(os.name != "posix", reason="Windows removes no file that is open")
    def test_a_lock_is_removed_while_it_is_held_and_never_anothers(self, tmp_path, monkeypatch):
        lock = tmp_path / ".lock"
        release = FileLock.release

        def watched(self, *args, **words):
            release(self, *args, **words)
            # At this moment another process takes the lock.
            lock.write_text("another's")

        monkeypatch.setattr(FileLock, "release", watched)
        with locked(lock, tmp_path / "out.tif"):
            pass
        assert lock.read_text() == "another's"


class TestWriting:
    def test_a_small_file_comes_whole(self, tmp_path):
        write_text(tmp_path / "a.json", "grüße")
        assert (tmp_path / "a.json").read_text(encoding="utf-8") == "grüße"
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]

    def test_a_full_disk_is_said_and_leaves_nothing(self, tmp_path):
        path = tmp_path / "a.json"
        done = subprocess.run(
            [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
        )
        assert "Make room and run the same command again" in done.stdout
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("number", "mend"),
        [
            (errno.ENOENT, "its folder is not there.*Make the folder"),
            (errno.EROFS, "its disk takes no changes. Choose a folder"),
            (errno.EACCES, "Choose a folder you may write to"),
            (errno.ENOSPC, "the disk is full. Make room and run the same command again"),
            (errno.EIO, "When that is mended, run the same command again"),
        ],
    )
    def test_what_the_system_says_is_said_with_its_own_mend(self, tmp_path, number, mend):
        with pytest.raises(OutputError, match=mend), explained(tmp_path / "out.tif"):
            raise OSError(number, os.strerror(number))

    def test_what_gdal_says_of_a_missing_folder_has_the_same_mend(self, tmp_path):
        path = tmp_path / "gone" / "out.tif"
        with (
            pytest.raises(OutputError, match=r"its folder is not there.*Make the folder"),
            explained(path),
        ):
            rasterio.open(path, "w", driver="GTiff", count=1, height=1, width=1, dtype="uint8")

    def test_a_file_is_on_the_disk_before_it_has_its_name(self, tmp_path, monkeypatch):
        path = tmp_path / "a.json"
        flushed = []

        def fsync(number):
            assert not path.exists()
            flushed.append(os.fstat(number).st_size)

        monkeypatch.setattr(os, "fsync", fsync)
        write_text(path, "four")
        assert flushed == [4]


RECORD = {"command": "predict", "size": 256, "inputs": {"a.tif": [1, 2]}}


class TestRecords:
    def test_equal_records_do_not_differ(self):
        assert differences(RECORD, dict(reversed(RECORD.items()))) == []

    def test_what_is_new_or_gone_is_named(self):
        assert differences({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}) == [
            "a was 1 and is now unset",
            "b.c was 2 and is now unset",
            "b.d was unset and is now 3",
        ]

    def test_long_values_are_shortened(self):
        (line,) = differences({"a": list(range(1000))}, {"a": []})
        assert len(line) < 120

    @pytest.mark.parametrize("tag", ["", "not json", "[1]"])
    def test_a_record_that_cannot_be_read_is_none(self, make_raster, tag):
        path = make_raster("a.tif", np.ones((1, 2, 2), np.uint8))
        with rasterio.open(path, "r+") as file:
            file.update_tags(GEOTRANSLATE_JOB=tag)
        assert read_record(path) is None

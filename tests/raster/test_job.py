from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import rasterio

from geotranslate.errors import OutputError, TakenError
from geotranslate.raster.job import begin_anew, file_job
from geotranslate.raster.output import forget_lock, read_record, record_tags

RECORD = {"command": "predict", "size": 256, "inputs": {"a.tif": [1, 2]}}


OTHER = {**RECORD, "size": 1}


def finish(job):
    """What a body of work does at its end."""
    with rasterio.open(
        job.parts / "joined.tif",
        "w",
        driver="GTiff",
        crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
        count=1,
        height=4,
        width=4,
        dtype="uint8",
    ) as file:
        file.write(np.ones((1, 4, 4), np.uint8))
        file.update_tags(**record_tags(job.record))
    (job.parts / "joined.tif").replace(job.output)


def begin(output, record=RECORD, parts=("row.tif",), **words):
    """Work that is interrupted after its first part."""
    with suppress(KeyboardInterrupt), file_job(output, record, **words) as job:
        for part in parts:
            (job.parts / part).touch()
        raise KeyboardInterrupt


def complete(output, record=RECORD, **words):
    with file_job(output, record, **words) as job:
        if not job.finished:
            finish(job)
        return job


def parts_of(output):
    return output.with_name(output.name + ".parts")


def beside(output):
    return sorted(path.name for path in output.parent.iterdir())


@pytest.fixture
def output(tmp_path):
    return tmp_path / "new" / "folder" / "out.tif"


class TestRunningAgain:
    def test_finished_work_leaves_its_output_and_nothing_beside(self, output):
        assert not complete(output).finished
        assert beside(output) == ["out.tif"]
        assert read_record(output) == RECORD

    def test_with_the_same_words_finished_work_is_left_alone(self, output):
        complete(output)
        before = output.stat().st_mtime_ns, output.read_bytes()
        assert complete(output).finished
        assert (output.stat().st_mtime_ns, output.read_bytes()) == before
        assert beside(output) == ["out.tif"]

    def test_interrupted_work_finds_its_parts_again(self, output):
        begin(output)
        assert not output.exists()
        with file_job(output, RECORD) as job:
            assert (job.parts / "row.tif").exists()
            finish(job)
        assert beside(output) == ["out.tif"]

    @pytest.mark.parametrize(
        ("started", "was"),
        [(begin, "begun with other settings"), (complete, "made with other settings")],
    )
    def test_other_words_are_refused_and_the_difference_named(self, output, started, was):
        started(output)
        other = {**RECORD, "size": 512, "inputs": {"a.tif": [1, 3]}}
        with pytest.raises(OutputError, match=r"--overwrite to start over") as refusal:
            complete(output, other)
        assert f"{output} was {was}: " in str(refusal.value)
        assert "size was 256 and is now 512" in str(refusal.value)
        assert ("Use the same words to go on" in str(refusal.value)) == (started is begin)
        assert "inputs.a.tif was [1, 2] and is now [1, 3]" in str(refusal.value)

    def test_overwrite_starts_over_whatever_is_there(self, output):
        complete(output)
        begin(output, {**RECORD, "size": 1}, overwrite=True)
        with file_job(output, {**RECORD, "size": 512}, overwrite=True) as job:
            assert not job.finished
            assert not (job.parts / "row.tif").exists()
            finish(job)
        assert read_record(output) == {**RECORD, "size": 512}
        assert beside(output) == ["out.tif"]

    def test_an_interrupted_overwrite_leaves_what_was_there(self, output):
        complete(output)
        begin(output, {**RECORD, "size": 1}, overwrite=True)
        assert read_record(output) == RECORD

    @pytest.mark.parametrize("there", [None, OTHER])
    def test_an_interrupted_overwrite_goes_on_when_it_is_said_again(self, output, there):
        if there is not None:
            complete(output, there)
        begin(output, overwrite=True)
        with file_job(output, RECORD, overwrite=True) as job:
            assert not job.finished
            assert (job.parts / "row.tif").exists()
            finish(job)
        assert read_record(output) == RECORD
        assert beside(output) == ["out.tif"]

    def test_an_interrupted_overwrite_is_known_before_its_first_part(self, output):
        complete(output, OTHER)
        begin(output, parts=(), overwrite=True)
        with pytest.raises(TakenError, match="Say --overwrite to go on"):
            complete(output)

    def test_an_interrupted_overwrite_asks_for_the_word_again_and_keeps_its_parts(self, output):
        complete(output, OTHER)
        begin(output, overwrite=True)
        with pytest.raises(TakenError, match="Say --overwrite to go on"):
            complete(output)
        assert read_record(output) == OTHER
        with file_job(output, RECORD, overwrite=True) as job:
            assert (job.parts / "row.tif").exists()

    def test_the_words_that_made_an_output_leave_an_interrupted_overwrite_alone(self, output):
        complete(output, OTHER)
        begin(output, overwrite=True)
        assert complete(output, OTHER).finished
        with file_job(output, RECORD, overwrite=True) as job:
            assert (job.parts / "row.tif").exists()

    def test_overwrite_begins_anew_where_the_same_words_had_finished(self, output):
        complete(output)
        with file_job(output, RECORD, overwrite=True) as job:
            assert not job.finished
            finish(job)

    def test_parts_of_unknown_make_are_not_taken_for_ones_own(self, output):
        begin(output, OTHER)
        (parts_of(output) / "job.json").unlink()
        with file_job(output, RECORD) as job:
            assert not (job.parts / "row.tif").exists()
            finish(job)

    @pytest.mark.parametrize("count", range(4))
    def test_while_parts_are_removed_what_is_left_is_known_for_what_it_is(
        self, output, monkeypatch, count
    ):
        begin(output, OTHER, parts=("a.tif", "b.tif", "z.tif"))
        unlink, removed = Path.unlink, []

        def killed(self, **words):
            if self.name != ".lock":
                if len(removed) == count:
                    raise KeyboardInterrupt
                removed.append(self.name)
            unlink(self, **words)

        monkeypatch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            complete(output, overwrite=True)
        monkeypatch.undo()
        assert "job.json" not in removed
        if count < 3:
            with pytest.raises(TakenError, match="begun with other settings"):
                complete(output)

    def test_other_words_begin_anew_where_no_part_was_finished(self, output):
        parts_of(output).mkdir(parents=True)
        (parts_of(output) / "job.json").write_text(json.dumps(OTHER))
        (parts_of(output) / "row.tif.part").touch()
        complete(output)
        assert beside(output) == ["out.tif"]

    @pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
    def test_parts_whose_record_is_damaged_are_refused_and_overwritten_if_said(self, output, text):
        begin(output)
        (parts_of(output) / "job.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(
            TakenError, match=r"job\.json cannot be read.*--overwrite to start over"
        ):
            complete(output)
        assert (parts_of(output) / "row.tif").exists()
        with file_job(output, RECORD, overwrite=True) as job:
            assert not (job.parts / "row.tif").exists()

    @pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_nothing_is_lost_while_the_record_cannot_be_read(
        self, output, monkeypatch, code, overwrite
    ):
        begin(output)

        def failing(self, *args, **words):
            raise OSError(code, os.strerror(code), str(self))

        monkeypatch.setattr(Path, "read_text", failing)
        with pytest.raises(OutputError, match=rf"job\.json .*{os.strerror(code)}"):
            complete(output, overwrite=overwrite)
        monkeypatch.undo()
        with file_job(output, RECORD) as job:
            assert (job.parts / "row.tif").exists()

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_file_with_the_name_of_the_parts_is_named(self, output, overwrite):
        output.parent.mkdir(parents=True)
        parts_of(output).write_text("mine")
        with pytest.raises(OutputError, match=r"out\.tif\.parts is a file.*Rename it, or choose"):
            complete(output, overwrite=overwrite)
        assert parts_of(output).read_text() == "mine"

    @pytest.mark.parametrize("content", [b"", b"my thesis"])
    def test_a_file_of_somebody_elses_is_not_lost(self, output, content):
        output.parent.mkdir(parents=True)
        output.write_bytes(content)
        with pytest.raises(OutputError, match=r"was not made by this command.*--overwrite"):
            complete(output)
        assert output.read_bytes() == content
        assert beside(output) == ["out.tif"]

    def test_work_that_finished_no_part_leaves_nothing(self, output):
        begin(output, parts=())
        assert beside(output) == []

    def test_parts_of_a_process_that_died_at_the_very_end_go_with_the_next_run(self, output):
        begin(output, parts=("row.tif", "joined.vrt"))
        parts = output.with_name("out.tif.parts")
        kept = {path.name: path.read_bytes() for path in parts.iterdir()}
        complete(output)
        parts.mkdir()
        for name, content in kept.items():
            (parts / name).write_bytes(content)
        assert complete(output).finished
        assert beside(output) == ["out.tif"]

    def test_a_process_that_died_while_it_wrote_its_record_leaves_nothing(self, output):
        parts = output.with_name("out.tif.parts")
        parts.mkdir(parents=True)
        (parts / "job.json.part").write_text("{")
        begin(output, parts=())
        assert beside(output) == []

    def test_a_foreign_picture_in_the_place_of_the_output_is_refused_in_one_sentence(self, output):
        output.parent.mkdir(parents=True)
        PIL.Image.new("RGB", (4, 4)).save(output)
        with pytest.raises(OutputError, match="was not made by this command"):
            complete(output)

    def test_paths_and_tuples_are_recorded_as_json_says_them(self, output):
        complete(output, {"size": (1, 2)})
        assert complete(output, {"size": [1, 2]}).finished


class TestSeveralOutputs:
    @pytest.fixture(params=[None, OTHER, RECORD])
    def works(self, tmp_path, request):
        """Three outputs that are not there, made by other words, or by the same."""
        outputs = [tmp_path / f"{name}.tif" for name in "abc"]
        if request.param is not None:
            for output in outputs:
                complete(output, request.param)
        return dict.fromkeys(outputs, RECORD)

    def test_what_an_interrupted_command_had_made_is_not_made_again(self, works):
        first, second, last = works
        assert begin_anew(works) == {first, second, last}
        complete(first, overwrite=True)
        begin(second, overwrite=True)
        assert begin_anew(works) == {second, last}
        begin(second, parts=(), overwrite=True)
        assert begin_anew(works) == {second, last}
        assert (parts_of(second) / "row.tif").exists()
        complete(second, overwrite=True)
        assert begin_anew(works) == {last}
        complete(last, overwrite=True)
        assert beside(first) == ["a.tif", "b.tif", "c.tif"]

    def test_a_command_that_ended_begins_anew(self, works):
        for _ in range(2):
            assert begin_anew(works) == works.keys()
            for output in works:
                complete(output, overwrite=True)

    def test_nothing_counts_as_made_before_all_was_begun(self, works):
        first, second, _ = works
        begin_anew({first: RECORD, second: RECORD})
        assert begin_anew(works) == works.keys()

    def test_what_was_exchanged_meanwhile_is_made_again(self, works):
        first, second, last = works
        begin_anew(works)
        complete(first, overwrite=True)
        first.write_bytes(b"another's")
        assert begin_anew(works) == {first, second, last}


HOLDER = """
import sys, time
from pathlib import Path
from geotranslate.raster.job import file_job
with file_job(Path(sys.argv[1]), {"size": 1}) as job:
    (job.parts / "row.tif").touch()
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(output):
    """Another process that works on the output."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class TestTwoProcesses:
    def test_the_second_is_refused_and_disturbs_nothing(self, output, holder):
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"by another process.*Wait for it to end"):
                complete(output, {"size": 1}, overwrite=overwrite)
        assert (output.with_name("out.tif.parts") / "row.tif").exists()
        assert holder.poll() is None

    def test_the_lock_of_one_that_was_killed_is_forgotten(self, tmp_path, output, holder):
        lock = parts_of(output) / ".lock"
        forget_lock(lock, output)
        assert lock.exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        forget_lock(lock, output)
        assert not lock.exists()

    def test_a_killed_one_holds_nothing_up(self, output, holder):
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with file_job(output, {"size": 1}) as job:
            assert (job.parts / "row.tif").exists()
            finish(job)
        assert beside(output) == ["out.tif"]


BARRED = """
import os, sys
from pathlib import Path
from geotranslate.errors import OutputError
from geotranslate.raster.job import file_job
if os.geteuid() == 0:  # who may write anywhere
    os.setuid(65534)
try:
    with file_job(Path(sys.argv[1]), {}):
        pass
except OutputError as error:
    print(error)
"""


READ_ONLY = """
import os, sys
from pathlib import Path
from geotranslate.raster.job import file_job
os.chdir(sys.argv[1])
if os.geteuid() == 0:  # who may write anywhere
    os.setuid(65534)
with file_job(Path("out.tif"), {"size": 1}) as job:
    print(job.finished)
"""


class TestFolders:
    @pytest.mark.skipif(os.name != "posix", reason="Windows has other permissions")
    @pytest.mark.parametrize("died_at_the_end", [False, True])
    def test_finished_work_may_lie_where_nothing_can_be_written(self, output, died_at_the_end):
        complete(output, {"size": 1})
        if died_at_the_end:
            parts_of(output).mkdir()
            (parts_of(output) / "job.json").write_text('{"size": 1}')
            parts_of(output).chmod(0o555)
        output.parent.chmod(0o555)
        words = [sys.executable, "-c", READ_ONLY, str(output.parent)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout == "True\n"

    @pytest.mark.skipif(os.name != "posix", reason="Windows has other permissions")
    def test_a_folder_that_may_not_be_written_is_said(self, tmp_path):
        tmp_path.chmod(0o500)
        words = [sys.executable, "-c", BARRED, str(tmp_path / "out.tif")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert "(Permission denied). Choose a folder you may write to" in done.stdout

    def test_a_file_in_the_place_of_a_folder_is_said(self, tmp_path):
        (tmp_path / "runs").touch()
        mend = r"out\.tif cannot .* a file lies where a folder is needed\. Choose another output\.$"
        with pytest.raises(OutputError, match=mend):
            complete(tmp_path / "runs" / "out.tif")

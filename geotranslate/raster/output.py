"""The rule for running again: one process an output, complete or not at all, same words go on.

A job that writes one file keeps what it has finished in ``OUT.parts/`` beside a ``job.json``
that says what the work was. Run again with the same words it goes on from there; with other
words it refuses and names the difference. ``--overwrite`` replaces the work of other words, and
finished files; said again after an interrupt, it goes on like any other word.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geotranslate.errors import OutputError, TakenError, reason
from geotranslate.raster.reading import open_dataset

RECORD_TAG = "GEOTRANSLATE_JOB"
RECORD_NAME = "job.json"
LOCK_NAME = ".lock"
UNFINISHED = ".part"

UNKNOWN = "still to be measured"
"""In a record, in place of what is only known when it was measured."""

# What the system says when the output's folder is to blame, and when the disk is.
BARRED = errno.EACCES, errno.EPERM
NO_FOLDER = errno.ENOTDIR, errno.EEXIST
FULL = errno.ENOSPC, errno.EDQUOT


@dataclass(frozen=True)
class FileJob:
    """Work on one output file.

    Attributes:
        output: the file's final name.
        parts: folder for finished parts; it goes when the job ends well, and need not be there
            when it was finished before.
        record: what the work is, as JSON values.
        finished: the output is there already, made by the same words.
    """

    output: Path
    parts: Path
    record: dict[str, Any]
    finished: bool = False


@contextmanager
def file_job(output: Path, record: dict[str, Any], *, overwrite: bool = False) -> Iterator[FileJob]:
    """Claim an output file for this process, and find out what there is left to do.

    The body writes parts into ``job.parts`` and at last moves a complete file to ``job.output``
    that carries :func:`record_tags`. When the body fails, finished parts stay for the next try.

    Args:
        output: the file to be.
        record: settings, model and input, as JSON values; what must be the same to go on.
        overwrite: replace what is there; only parts of the same work stay.

    Raises:
        OutputError: another process works on it, it was made by other words, or the folder
            cannot be written.
    """
    record = _as_read(record)
    parts = _parts_of(output)
    # Asked before anything is written: a finished file may lie where nothing can be.
    if is_finished(output, record, overwrite=overwrite):
        _tidy_finished(output, parts, record)
        yield FileJob(output, parts, record, finished=True)
        return
    with _claimed(output, parts):
        try:
            # Another process may have finished it just now.
            finished = is_finished(output, record, overwrite=overwrite)
            if not finished:
                _prepare_parts(parts, record)
            yield FileJob(output, parts, record, finished)
            _empty(parts)
        finally:
            # What is to be overwritten is known by its record, with parts or without.
            if not overwrite:
                _empty_if_bare(parts)


def begin_anew(works: Mapping[Path, dict[str, Any]]) -> set[Path]:
    """Say of several outputs, made one after the other, that they are to be overwritten.

    Each one's record is put into its folder of parts, which goes when it is made. The last one's
    comes last and goes last. So where it is there already, an interrupted command goes on.

    Args:
        works: records by output, in the order of the work.

    Returns:
        Those to be made; what the interrupted command has made is not among them.

    Raises:
        OutputError: another process works on one, or its folder cannot be written.
    """
    records = {output: _as_read(record) for output, record in works.items()}
    *_, last = records
    interrupted = begun_record(_parts_of(last)) == records[last]
    missing = set()
    for output, record in records.items():
        parts = _parts_of(output)
        begun = begun_record(parts) == record
        if begun or not interrupted or read_record(output) != record:
            missing.add(output)
            with _claimed(output, parts):
                _prepare_parts(parts, record)
    return missing


@contextmanager
def _claimed(output: Path, parts: Path) -> Iterator[None]:
    """Hold an output's folder of parts for this process; empty, it goes."""
    with explained(output):
        parts.mkdir(parents=True, exist_ok=True)
    try:
        with locked(parts / LOCK_NAME, output):
            yield
    finally:
        with suppress(OSError):
            parts.rmdir()


@contextmanager
def locked(lock: Path, output: Path) -> Iterator[None]:
    """Hold a lock file that the system frees should this process die.

    Raises:
        OutputError: another process holds it.
    """
    claim = FileLock(lock)
    try:
        with explained(output):
            claim.acquire(timeout=0)
    except Timeout:
        raise OutputError(
            f"{output} is being written by another process, and two would spoil each other's "
            "work. Wait for it to end, or choose another output."
        ) from None
    try:
        yield
    finally:
        # Once it is free the name may be another's lock. Windows removes no file that is open.
        if os.name == "posix":
            lock.unlink(missing_ok=True)
        claim.release()
        if os.name != "posix":
            with suppress(OSError):
                lock.unlink(missing_ok=True)


def forget_lock(lock: Path, output: Path) -> None:
    """Remove a lock file that a process left when it was killed, unless another holds it."""
    if lock.exists():
        with suppress(OutputError), locked(lock, output):
            pass


def is_locked(lock: Path) -> bool:
    """Whether a living process holds a lock file."""
    if not lock.exists():
        return False
    claim = FileLock(lock)
    try:
        claim.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # a folder that may only be read
        return False
    claim.release()
    return False


def is_finished(output: Path, record: dict[str, Any], *, overwrite: bool = False) -> bool:
    """Whether an output file is there already, made by the same words.

    Args:
        output: the file to be.
        record: what must be the same, as for :func:`file_job`.
        overwrite: replace what is there, so nothing is.

    Raises:
        TakenError: other words have made the file, or parts of it.
        OutputError: the folder may not be looked into, or a file lies where parts have to.
    """
    if overwrite:
        return False
    parts, record = _parts_of(output), _as_read(record)
    begun = begun_record(parts)
    with explained(output):
        there = output.exists()
    if there:
        before = read_record(output)
        if begun == record != before:
            raise TakenError(
                f"{output} is there already, and these words had begun to replace it. Say "
                "--overwrite again to go on with that, or choose another output."
            )
        check_same_work(output, before, record)
        return True
    if _parts_in(parts):
        if begun is not None:
            check_same_work(output, begun, record, begun=True)
        elif (parts / RECORD_NAME).exists():
            raise TakenError(
                f"{parts / RECORD_NAME} cannot be read, so it is not known of what the parts "
                "beside it were made. Choose another output, or say --overwrite to start over."
            )
    return False


def check_same_work(
    output: Path, before: dict[str, Any] | None, now: dict[str, Any], *, begun: bool = False
) -> None:
    """Refuse to go on with the work of other words.

    What is `UNKNOWN` yet counts as the same, where the record that was found has it at all.

    Args:
        output: what the work makes, for the message.
        before: the record that was found; None where there is none.
        now: the record of the work wanted.
        begun: what was found is not finished.

    Raises:
        TakenError: the records differ; the message names where.
    """
    if before is None:
        raise TakenError(
            f"{output} is there already and was not made by this command, so it would be lost. "
            "Choose another output, or say --overwrite to replace it."
        )
    now = {
        name: before.get(name, value) if value == UNKNOWN else value
        for name, value in _as_read(now).items()
    }
    found = differences(before, now)
    if found:
        was, mend = (
            ("begun", "Use the same words to go on, choose") if begun else ("made", "Choose")
        )
        raise TakenError(
            f"{output} was {was} with other settings: {'; '.join(found[:4])}. {mend} another "
            "output, or say --overwrite to start over."
        )


def check_unchanged(output: Path, files: Iterable[Sequence[Any]]) -> None:
    """Refuse inputs that were written to while the output was being made of them.

    Args:
        output: what is being made, for the message.
        files: name, size in bytes and time in ns of each, as :meth:`Scene.identity` gave them.

    Raises:
        OutputError: a file is gone, or is not what it was.
    """
    for name, size, time in files:
        found = ["it is gone"]
        with suppress(OSError):
            now = Path(name).stat()
            found = differences(
                {"size": size, "time": time}, {"size": now.st_size, "time": now.st_mtime_ns}
            )
        if found:
            raise OutputError(
                f"{name} was changed while {output} was being made of it ({found[0]}), so its "
                "parts would not belong together. Run the same command with --overwrite once "
                "nobody writes to the file any more."
            )


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Where two records of JSON values differ, each as "name was X and is now Y".

    Settings, which are the records' outermost names, are spelled like their flags.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        return [
            line
            for key in keys
            for line in differences(
                before.get(key),
                now.get(key),
                f"{name}.{key}" if name else str(key).replace("_", "-"),
            )
        ]
    if before == now:
        return []
    return [f"{name} was {_short(before)} and is now {_short(now)}"]


@contextmanager
def explained(output: Path) -> Iterator[None]:
    """Turn what the system says about writing into a sentence with a mend.

    Raises:
        OutputError: in place of an OSError or an error of GDAL's.
    """
    try:
        yield
    except (OSError, RasterioError, CPLE_BaseError) as error:
        if isinstance(error, Timeout):
            raise
        raise OutputError(_sentence(output, error)) from error


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it has its name only when it is complete."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file so that it has its name only when it is complete.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    part = path.with_name(path.name + UNFINISHED)
    with explained(path):
        try:
            part.write_bytes(content)
            settle(part, path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def settle(part: Path, path: Path) -> None:
    """Give a finished file its name, once its bytes are on the disk and survive a power failure."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)


def record_tags(record: dict[str, Any]) -> dict[str, str]:
    """The metadata by which a finished raster says what work made it."""
    return {RECORD_TAG: json.dumps(record, sort_keys=True)}


def read_record(raster: Path) -> dict[str, Any] | None:
    """What work made a finished raster; None where it does not say."""
    try:
        with open_dataset(raster) as dataset:
            return _read_json(dataset.tags().get(RECORD_TAG, ""))
    except RasterioError:
        return None


def begun_record(parts: Path) -> dict[str, Any] | None:
    """What work a folder of parts belongs to; None where it does not say."""
    try:
        return _read_json((parts / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _read_json(text: str) -> dict[str, Any] | None:
    with suppress(json.JSONDecodeError):
        record = json.loads(text)
        if isinstance(record, dict):
            return record
    return None


def _as_read(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as a file gives it back."""
    return _read_json(json.dumps(record)) or {}


def _parts_of(output: Path) -> Path:
    """The folder of an output's parts.

    Raises:
        OutputError: a file has its name.
    """
    parts = output.with_name(output.name + ".parts")
    with explained(output):
        taken = parts.is_file()
    if taken:
        raise OutputError(
            f"{parts} is a file, and what is finished of {output} would have to lie in a folder of "
            "that name. Rename it, or choose another output."
        )
    return parts


def _parts_in(parts: Path) -> list[Path]:
    """What was finished."""
    with explained(parts):
        found = list(parts.iterdir()) if parts.is_dir() else []
    own = LOCK_NAME, RECORD_NAME
    return [file for file in found if file.name not in own and file.suffix != UNFINISHED]


def _prepare_parts(parts: Path, record: dict[str, Any]) -> None:
    """Keep the parts of this work only."""
    if begun_record(parts) != record:
        _empty(parts)
        write_text(parts / RECORD_NAME, json.dumps(record, indent=1))


def _empty(parts: Path) -> None:
    """Remove everything but the lock, which some systems keep from being removed while held.

    The record goes last: should this process die, what is left is still known for what it is.
    """
    with explained(parts):
        for file in sorted(parts.iterdir(), key=lambda file: file.name == RECORD_NAME):
            if file.name != LOCK_NAME:
                file.unlink()


def _empty_if_bare(parts: Path) -> None:
    """Leave nothing beside the output when no part was finished."""
    with suppress(OutputError):
        if not _parts_in(parts):
            _empty(parts)


def _tidy_finished(output: Path, parts: Path, record: dict[str, Any]) -> None:
    """Remove what a process left beside its output that died between its last two steps."""
    if parts.is_dir():
        with suppress(OutputError), _claimed(output, parts):
            if begun_record(parts) == record:
                _empty(parts)
            _empty_if_bare(parts)


def _sentence(output: Path, error: Exception) -> str:
    why = reason(error)

    def says(*codes: int) -> bool:
        # An error of GDAL's holds the system's words at best; its number is GDAL's own.
        number = error.errno if isinstance(error, OSError) else None
        return number in codes or any(os.strerror(code) in why for code in codes)

    if says(errno.ENOENT):
        return (
            f"{output} cannot be written ({why}): its folder is not there, or no longer. Make the "
            "folder, or choose another output."
        )
    if says(errno.EROFS):
        return (
            f"{output} cannot be written ({why}): its disk takes no changes. Choose a folder you "
            "may write to."
        )
    if says(*NO_FOLDER):
        return (
            f"{output} cannot be written ({why}): a file lies where a folder is needed. Choose "
            "another output."
        )
    if says(*BARRED):
        return (
            f"{output} cannot be written ({why}). Choose a folder you may write to, or close the "
            "program that holds the file."
        )
    again = "run the same command again: what is finished is kept."
    if says(*FULL):
        return f"writing {output} failed ({why}): the disk is full. Make room and {again}"
    if isinstance(error, OSError) and error.errno not in (None, errno.EFBIG):
        return f"writing {output} failed ({why}). When that is mended, {again}"
    return (
        f"writing {output} failed ({why}), most often because the disk is full. Make room and "
        f"{again}"
    )


def _short(value: Any) -> str:
    text = "unset" if value is None else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."

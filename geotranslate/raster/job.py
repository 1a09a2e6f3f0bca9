"""The rule for running again: the same words go on, other words are refused.

A job that writes one file keeps what it has finished in ``OUT.parts/`` beside a ``job.json``
that says what the work was. Run again with the same words it goes on from there; with other
words it refuses and names the difference. ``--overwrite`` replaces the work of other words, and
finished files; said again after an interrupt, it goes on like any other word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geotranslate.errors import OutputError, TakenError
from geotranslate.raster.output import (
    LOCK_NAME,
    RECORD_NAME,
    UNFINISHED,
    as_read,
    check_same_work,
    explained,
    locked,
    read_json,
    read_record,
    write_text,
)


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
        overwrite: replace what is there, even if the same words made it; only parts of the same
            work stay.

    Raises:
        OutputError: another process works on it, it was made by other words, or the folder
            cannot be written.
    """
    record = as_read(record)
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
    records = {output: as_read(record) for output, record in works.items()}
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
    parts, record = _parts_of(output), as_read(record)
    begun = begun_record(parts)
    with explained(output):
        there = output.exists()
    if there:
        before = read_record(output)
        if begun == record != before:
            raise TakenError(
                f"{output} is there already, and these words had begun to replace it. Say "
                "--overwrite to go on with that, or choose another output."
            )
        check_same_work(output, before, record)
        return True
    if _parts_in(parts):
        if begun is not None:
            check_same_work(output, begun, record, begun=True)
        else:
            refuse_unknown(parts)
    return False


def refuse_unknown(parts: Path) -> None:
    """Refuse to go on where a record is there and says nothing.

    Raises:
        TakenError: it is.
    """
    if (parts / RECORD_NAME).exists():
        raise TakenError(
            f"{parts / RECORD_NAME} cannot be read, so nobody knows of what finished parts were "
            "made. Choose another output, or say --overwrite to start over."
        )


def begun_record(parts: Path) -> dict[str, Any] | None:
    """What work a folder of parts belongs to; None where it does not say.

    Raises:
        OutputError: what it says cannot be read, as from a disk that fails.
    """
    record = parts / RECORD_NAME
    with explained(record), suppress(FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return read_json(record.read_text(encoding="utf-8"))
    return None


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

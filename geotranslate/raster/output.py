"""Outputs: complete or not at all, by one process at a time, with a record of what made them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geotranslate.errors import OutputError, SettingError, TakenError, reason
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
        for name, value in as_read(now).items()
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


def check_not_input(output: Path, files: Iterable[str]) -> None:
    """Refuse an output that would take the place of what it is made of.

    Args:
        output: the file to be.
        files: those that are read, by their full names.

    Raises:
        SettingError: it is one of them.
    """
    if str(output.resolve()) in files:
        raise SettingError(
            f"{output} is one of the files that would be read to make it, and writing it would "
            "destroy it. Choose another output."
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
            raise changed(name, output, found[0])


def changed(name: str, output: Path, how: str) -> OutputError:
    """An input was written to while the output was being made of it.

    Args:
        name: the input.
        output: what is being made.
        how: what was noticed.
    """
    return OutputError(
        f"{name} was changed while {output} was being made of it ({how}), so its parts would not "
        "belong together. Run the same command with --overwrite once nobody writes to the file "
        "any more."
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
            return read_json(dataset.tags().get(RECORD_TAG, ""))
    except RasterioError:
        return None


def read_json(text: str) -> dict[str, Any] | None:
    """A record from its text; None where that is none."""
    with suppress(json.JSONDecodeError):
        record = json.loads(text)
        if isinstance(record, dict):
            return record
    return None


def as_read(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as a file gives it back."""
    read: dict[str, Any] = json.loads(json.dumps(record))
    return read


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

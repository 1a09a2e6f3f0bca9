"""The tables of a run by update, such as ``log.csv`` with its losses and figures.

They are for people and spreadsheets.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from geotranslate.raster.output import explained, write_text

NAME = "log.csv"


class Log:
    """A CSV file that grows by one row at a time and always ends with a whole row.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, update: int) -> None:
        """Drop the rows after an update, and a row that was cut off, so that none comes twice."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        kept = whole[:1] + [line for line in whole[1:] if int(line.split(",")[0]) <= update]
        if update == 0 or not kept:
            self.path.unlink()
        elif kept != lines:
            write_text(self.path, "".join(kept))

    def write(self, columns: Sequence[str], row: Mapping[str, float | str]) -> None:
        """Add a row; values that it lacks stay empty.

        Args:
            columns: of the table, the same for all rows; the first is the update.
            row: values by column.

        Raises:
            OutputError: the disk is full.
        """
        with explained(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            lines = [columns] if not file.tell() else []
            lines.append([_spell(row[name]) if name in row else "" for name in columns])
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(lines)
            file.write(text.getvalue())
            file.flush()
            os.fsync(file.fileno())


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a log, each with the values it has."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def _spell(value: float | str) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value)

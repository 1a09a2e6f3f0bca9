"""Folders of chips, opened for learning: ours, and those that ArcGIS or a person made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from geotranslate.chips.file import ChipPixels, read_chip
from geotranslate.chips.foreign import (
    arcgis_statistics,
    chip_domain,
    draw_val,
    find_chips,
    why_unpaired,
)
from geotranslate.chips.index import (
    CHIPS_NAME,
    PARTS_NAME,
    TILE_NAME,
    ChipRecord,
    TileRecord,
    read_index,
    read_tile_record,
)
from geotranslate.chips.layout import LAYOUTS, SPLITS, find_layout
from geotranslate.errors import ChipsError
from geotranslate.raster.domain import Domain
from geotranslate.raster.output import LOCK_NAME, is_locked

__all__ = ["ChipFolder", "ChipPixels", "open_chips", "read_chip"]

ChipFiles = Mapping[tuple[str, str], tuple[Path, ...]]


@dataclass(frozen=True)
class ChipFolder:
    """A complete folder of chips of two domains.

    Attributes:
        path: the folder.
        layout: a name of :data:`geotranslate.chips.layout.LAYOUTS`.
        paired: the n-th chips of A and B in a split show one place.
        domain_a: what the chips of A show.
        domain_b: what the chips of B show.
        chip_size: the shortest side of a chip.
        chips: files by domain ("a", "b") and split ("train", "val", "test").
        unpaired_because: why there are no pairs, as part of a sentence; empty where there are.
        record: what made the folder; None where geotranslate did not.
    """

    path: Path
    layout: str
    paired: bool
    domain_a: Domain
    domain_b: Domain
    chip_size: int
    chips: ChipFiles
    unpaired_because: str = ""
    record: TileRecord | None = None

    def files(self, domain: str, split: str) -> list[Path]:
        """The chips of domain "a" or "b" in a split; those of pairs stand at the same place."""
        return list(self.chips.get((domain, split), ()))

    def require_pairs(self) -> None:
        """Refuse to learn from pairs where there are none.

        Raises:
            ChipsError: the folder is not paired.
        """
        if not self.paired:
            raise ChipsError(
                f"{self.path} holds no pairs, because {self.unpaired_because}: nothing says which "
                "chip of B belongs to a chip of A. Cut the scenes with --layout pix2pix, or learn "
                "without pairs with --model cyclegan."
            )


def open_chips(path: Path, *, seed: int = 0) -> ChipFolder:
    """Find the chips of a folder, by its index or, where it has none, by its layout.

    A folder without an index has its value ranges from ArcGIS's statistics where they are there,
    else from its chips: 0 to 255 for uint8, else the 0.1 and 99.9 percentiles of the training
    chips. A tenth of its chips, drawn by ``seed``, is for validation; none is for testing.

    Args:
        path: a folder written by `geotranslate tile`, by ArcGIS, or by hand in one of the layouts.
        seed: of the draw.

    Raises:
        ChipsError: no layout fits, the folder is not complete, chips of a domain differ in size,
            bands or type, or what should be pairs are none.
    """
    if not path.is_dir():
        found = "is a file" if path.exists() else "does not exist"
        raise ChipsError(
            f"{path} {found}, so there are no chips to read. Give the folder that "
            "`geotranslate tile` wrote."
        )
    if (path / TILE_NAME).exists():
        return _open_ours(path)
    if is_locked(path / PARTS_NAME / LOCK_NAME):
        raise ChipsError(
            f"{path} is still being cut by another process, so chips are missing. Wait for it to "
            "end."
        )
    if (path / PARTS_NAME).exists() or (path / CHIPS_NAME).exists():
        raise ChipsError(
            f"{path} is not complete: `geotranslate tile` was interrupted, and chips are missing. "
            "Run the same `geotranslate tile` command again; it goes on where it stopped."
        )
    return _open_foreign(path, seed)


def _open_ours(path: Path) -> ChipFolder:
    record = read_tile_record(path)
    if record.layout not in LAYOUTS:
        raise ChipsError(
            f"{path} has the layout {record.layout!r}, which this version does not know "
            f"({', '.join(LAYOUTS)}). Update geotranslate to {record.version} or newer."
        )
    rows = read_index(path)
    if not rows:
        raise ChipsError(
            f"{path} holds no chips, so there is nothing to learn from. Cut other scenes, or ask "
            "for fewer valid pixels with --min-valid."
        )
    _check_all_there(path, rows)
    chips = {
        (domain, split): tuple(
            path / row.file
            for row in sorted(rows, key=lambda row: row.file)
            if row.domain == domain and row.split == split
        )
        for domain in "ab"
        for split in SPLITS
    }
    if record.paired:
        _check_partners(path, chips)
    return ChipFolder(
        path=path,
        layout=record.layout,
        paired=record.paired,
        domain_a=record.domain_a,
        domain_b=record.domain_b,
        chip_size=min(min(row.grid.shape) for row in rows),
        chips=chips,
        unpaired_because="" if record.paired else "A and B were each cut alone",
        record=record,
    )


def _check_all_there(path: Path, rows: Iterable[ChipRecord]) -> None:
    files = [path / row.file for row in rows]
    there = {
        file for folder in {f.parent for f in files} if folder.is_dir() for file in folder.iterdir()
    }
    missing = [file for file in files if file not in there]
    if missing:
        raise ChipsError(
            f"{len(missing)} of the {len(files)} chips of {path} are missing, such as "
            f"{missing[0].relative_to(path)}. Copy the folder again, or make it again with the "
            "same `geotranslate tile` command and --overwrite."
        )


def _check_partners(path: Path, chips: ChipFiles) -> None:
    for split in SPLITS:
        a, b = ([file.name for file in chips[domain, split]] for domain in "ab")
        if a != b:
            raise ChipsError(
                f"the index of {path} names other {split} chips for A ({len(a)}) than for B "
                f"({len(b)}), so the pairs are lost. Make the folder again with the same "
                "`geotranslate tile` command and --overwrite."
            )


def _open_foreign(path: Path, seed: int) -> ChipFolder:
    layout = find_layout(path)
    if layout is None:
        known = "; ".join(f"{each.a} and {each.b}" for each in LAYOUTS.values())
        raise ChipsError(
            f"{path} is no folder of chips: it has no {TILE_NAME} and none of the pairs of folders "
            f"that ArcGIS uses ({known}). Cut scenes into chips with `geotranslate tile`."
        )
    headers_a, headers_b = (find_chips(path / folder) for folder in (layout.a, layout.b))
    unpaired_because = why_unpaired(path, layout, headers_a, headers_b)
    train_a, val_a = draw_val(headers_a, seed)
    train_b, val_b = draw_val(headers_b, seed)
    stats_a, stats_b = arcgis_statistics(path, layout)
    return ChipFolder(
        path=path,
        layout=layout.name,
        paired=not unpaired_because,
        domain_a=chip_domain(headers_a[0], train_a, stats_a),
        domain_b=chip_domain(headers_b[0], train_b, stats_b),
        chip_size=min(*headers_a[0].shape, *headers_b[0].shape),
        chips={
            ("a", "train"): train_a,
            ("a", "val"): val_a,
            ("b", "train"): train_b,
            ("b", "val"): val_b,
        },
        unpaired_because=unpaired_because,
    )

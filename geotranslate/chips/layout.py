"""Where chips lie in a folder, so that ArcGIS finds them as well as we do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")

TEST_ROOT = "test"


@dataclass(frozen=True)
class Layout:
    """An arrangement of chips that `arcgis.learn.prepare_data` reads.

    Attributes:
        name: as the user says it.
        a: folder of domain A's chips below a root, with forward slashes.
        b: folder of domain B's chips.
        paired: the chips of A and B with one name show one place.
    """

    name: str
    a: str
    b: str
    paired: bool

    def folder(self, domain: str) -> str:
        """The folder of the chips of domain "a" or "b" below a root."""
        return {"a": self.a, "b": self.b}[domain]

    def chip_file(self, domain: str, split: str, number: int) -> str:
        """A chip's file relative to the chip folder; ArcGIS counts with nine digits."""
        return f"{root_of(split)}{self.folder(domain)}/{number:09d}.tif"


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("pix2pix", "images", "images2", paired=True),
        Layout("cyclegan", "A/images", "B/images", paired=False),
        Layout("train_a_b", "Images/train_a", "Images/train_b", paired=True),
    )
}
"""By name. `geotranslate.choices.LAYOUTS` holds the same names for help texts."""


def root_of(split: str) -> str:
    """The prefix of a split's files: test chips lie apart, so that nobody trains on them."""
    return f"{TEST_ROOT}/" if split == "test" else ""


def find_layout(folder: Path) -> Layout | None:
    """The layout whose two chip folders are there; None where no layout fits."""
    for layout in LAYOUTS.values():
        if (folder / layout.a).is_dir() and (folder / layout.b).is_dir():
            return layout
    return None

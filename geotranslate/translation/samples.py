"""Pictures of what a run's generators make of a few validation chips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import nn

from geotranslate.raster.pictures import choose_stretch, write_grid
from geotranslate.translation.models import Model
from geotranslate.translation.show import Show, array_of, valid_of

SHOWN_CHIPS = 4


class Column(NamedTuple):
    """A column of the samples.

    Attributes:
        title: over it.
        picture: what it shows, by name.
        kind: "a" or "b", whose stretch it has.
        source: "a" or "b", whose valid pixels it has.
    """

    title: str
    picture: str
    kind: str
    source: str


COLUMNS = (
    Column("A", "real_a", "a", "a"),
    Column("A to B", "fake_b", "b", "a"),
    Column("and back", "rec_a", "a", "a"),
    Column("B", "real_b", "b", "b"),
    Column("B to A", "fake_a", "a", "b"),
    Column("and back", "rec_b", "b", "b"),
)


def draw_samples(path: Path, model: Model, generators: Mapping[str, nn.Module], show: Show) -> None:
    """Draw a few chips as a PNG: A, translated, B, and the way back where the model learns it.

    Real and translated images of a domain have the same stretch: that of the real ones.

    Args:
        path: the PNG.
        model: which way of learning; nothing in it changes.
        generators: by name, such as averaged ones.
        show: what to draw.

    Raises:
        OutputError: the file cannot be written.
    """
    batches = list(show.batches(SHOWN_CHIPS))
    shown = [
        {"real_a": batch.real_a, "real_b": batch.real_b, **model.pictures(batch, generators)}
        for batch in batches
    ]
    valid = [
        {"a": valid_of(batch.valid_a, batch.real_a), "b": valid_of(batch.valid_b, batch.real_b)}
        for batch in batches
    ]
    stretches = {
        kind: choose_stretch(
            domain.bands,
            [
                (array_of(pictures[f"real_{kind}"]), seen[kind])
                for pictures, seen in zip(shown, valid, strict=True)
            ],
        )
        for kind, domain in (("a", show.folder.domain_a), ("b", show.folder.domain_b))
    }
    columns = [column for column in COLUMNS if column.picture in shown[0]]
    rows = [
        [
            stretches[column.kind].paint(array_of(pictures[column.picture]), seen[column.source])
            for column in columns
        ]
        for pictures, seen in zip(shown, valid, strict=True)
    ]
    write_grid(path, [column.title for column in columns], rows)

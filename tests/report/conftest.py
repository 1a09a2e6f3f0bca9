"""A run folder as `train` leaves it, made without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from geotranslate.chips.index import (
    ChipRecord,
    TileRecord,
    write_index,
    write_tile_record,
)
from geotranslate.raster.domain import Band, Domain
from geotranslate.raster.grid import Grid
from geotranslate.raster.statistics import BandStatistics
from geotranslate.translation.config import TrainConfig
from geotranslate.translation.sessions import Session

COLUMNS = ("update", "seconds", "learning_rate", "d", "l1", "psnr8", "score")
UTM = CRS.from_epsg(32633)

MakeRun = Callable[..., Path]
MakeChips = Callable[..., Path]


@pytest.fixture
def make_chips(tmp_path: Path) -> MakeChips:
    """Writes the index of a chip folder: chips of 1 km at (column, row) of a grid, by split."""

    def make(
        places: Sequence[tuple[float, float, str]],
        *,
        crs: CRS = UTM,
        origin: tuple[float, float] = (500_000, 5_400_000),
        paired: bool = True,
        name: str = "chips",
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        figures = (BandStatistics(count=1, min=0, max=1, mean=0.5, m2=0),)
        records = []
        for domain in "ab":
            for number, (column, row, split) in enumerate(places):
                x, y = origin[0] + 1000 * column, origin[1] - 1000 * row
                grid = Grid(crs, Affine(10, 0, x, 0, -10, y), 100, 100)
                file = f"{domain}/{number}.tif"
                records.append(
                    ChipRecord(
                        domain, file, split, ("s.tif",), (0, 0, 100, 100), grid, 1.0, figures
                    )
                )
        record = tile_record(paired=paired)
        write_index(folder, records, {"a": record.domain_a, "b": record.domain_b})
        write_tile_record(folder, record)
        return folder

    return make


def tile_record(*, paired: bool) -> TileRecord:
    def domain(*names: str) -> Domain:
        return Domain(
            bands=tuple(Band(name=name) for name in names),
            dtype="uint8",
            nodata=None,
            resolution_m=(10, 10),
            low=(0.0,) * len(names),
            high=(255.0,) * len(names),
        )

    return TileRecord(
        version="0.1.0",
        layout="pix2pix",
        paired=paired,
        settings={},
        domain_a=domain("VV", "VH"),
        domain_b=domain("R", "G", "B"),
        counts={},
        dropped={},
    )


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a run folder; what is None is left out."""

    def make(
        *,
        chips: str | Path = "/gone/chips",
        settings: Mapping[str, object] | None = None,
        rows: int = 6,
        samples: Sequence[int] = (20, 40, 60),
        side: tuple[int, int] = (60, 80),
        guards: Sequence[tuple[int, str, str]] | None = None,
        best: int | None = 40,
        session: bool = True,
        name: str = "run",
    ) -> Path:
        run = tmp_path / name
        run.mkdir(parents=True)
        (run / "job.json").write_text(json.dumps({"chips": str(chips), "work": {}, "changes": []}))
        decided = {"crop": 256, "precision": "bf16"}
        named = {"updates": 60, "checkpoint_every": 20, **(settings or {})}
        config = TrainConfig(**decided | named)
        (run / "config.toml").write_text(tomli_w.dumps(config.settings()))
        lines = [",".join(COLUMNS)] if rows else []
        for row in range(1, rows + 1):
            figures = f"{10 + row},{9 + row}" if row % 2 == 0 else ","
            lines.append(f"{10 * row},{5 * row},0.0002,0.3,{1 / row},{figures}")
        (run / "log.csv").write_text("".join(f"{line}\n" for line in lines))
        (run / "samples").mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (side[1], side[0], 3)).astype(np.uint8)
        for update in samples:
            Image.fromarray(noise).save(run / "samples" / f"{update:09d}.png", compress_level=0)
        if best is not None:
            (run / "model").mkdir()
            record = {"updates": best, "figures": {"psnr8": 14.0, "score": 13.25}}
            (run / "model" / "model.json").write_text(json.dumps(record))
        if guards is not None:
            lines = ["update,guard,sentence", *(f'{u},{g},"{text}"' for u, g, text in guards)]
            (run / "guards.csv").write_text("\n".join(lines) + "\n")
        if session:
            (run / "sessions.json").write_text(f"[{a_session().model_dump_json()}]")
        return run

    return make


def a_session(**others: object) -> Session:
    values = {
        "began": datetime(2026, 3, 4, 5, 6, tzinfo=UTC),
        "first_update": 1,
        "last_update": 60,
        "seconds": 30.0,
        "device": "NVIDIA H200",
        "cores": 16,
        "precision": "bf16",
        "compiled": True,
        "memory_bytes": 2_500_000_000,
        "device_memory_bytes": 40_000_000_000,
        "system": "Linux-6.1",
        "versions": {"geotranslate": "0.1.0", "torch": "2.15.0"},
    }
    return Session.model_validate(values | others)

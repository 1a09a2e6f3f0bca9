"""What a file or folder is: a raster, a folder of chips, a run, or a model.

Each is described by JSON values under the names a person would use, so that a table and a
program can both be fed from them.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from geotranslate.errors import BandError, RasterError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from geotranslate.raster.domain import Domain
    from geotranslate.raster.scene import Scene
    from geotranslate.translation.bundle import BundleRecord

Record = dict[str, Any]
"""JSON values; the first, ``kind``, is "raster", "chips", "run" or "model"."""

NAMES_SHOWN = 3
"""Of the files in a zip."""

SAMPLE_SIDE = 256
SAMPLES_PER_AXIS = 5
"""Of a large raster, so many windows along each axis are read for its statistics."""


def describe(path: str | Path) -> Record:
    """Find out what a path stands for, and describe it.

    Args:
        path: a raster as GDAL takes it, a chip folder, a run folder, or a bundle.

    Raises:
        RasterError: it is nothing of these.
        ChipsError: the chip folder is not complete.
        BundleError: the model is damaged.
    """
    place = Path(path)
    if not place.is_dir():
        is_zip = place.is_file() and zipfile.is_zipfile(place)
        return _describe_zip(place) if is_zip else describe_raster(str(path))
    for looks_like, tell in _FOLDERS:
        if looks_like(place):
            return tell(place)
    raise RasterError(
        f"{path} is a folder, but no chips, run or model, so there is nothing to tell of it. Give "
        "a folder that `geotranslate tile` or `geotranslate train` wrote, or one raster."
    )


def describe_raster(path: str) -> Record:
    """Where a raster lies, how it is stored, and what its values are like.

    Values are physical; of a large raster they are those of windows spread over it. Of a raster
    that the other commands refuse, ``unusable`` says why, and its values are not looked at.

    Raises:
        RasterError: it cannot be opened.
    """
    from geotranslate.raster.reading import open_dataset
    from geotranslate.raster.scene import open_scene

    try:
        opened = open_scene(path)
    except (RasterError, BandError) as refusal:
        return _describe_unusable(path, refusal)
    with opened as scene, open_dataset(path) as file:
        grid = scene.grid
        bands, sampled, valid_share = _look_at_values(scene)
        return {
            "kind": "raster",
            "path": path,
            "unusable": None,
            "format": _format(file),
            "bytes": _bytes(path),
            "crs": grid.crs.to_string(),
            "columns": grid.width,
            "rows": grid.height,
            "pixel_size": list(grid.resolution),
            "pixel_size_m": list(grid.resolution_m),
            "bounds": list(grid.bounds),
            "orientation": _orientation(grid.transform.a, grid.transform.e),
            "type": scene.dtype,
            "nodata": _json_number(scene.nodata),
            "validity": _validity(file),
            "sampled_pixels": sampled,
            "valid_share": valid_share,
            "bands": bands,
            "made_by": _tell_maker(path),
        }


def _describe_unusable(path: str, refusal: RasterError | BandError) -> Record:
    """What can be told of a raster that no scene can be made of; raises ``refusal`` if nothing."""
    from rasterio.errors import RasterioError

    from geotranslate.raster.reading import open_dataset, stored_bands

    try:
        file = open_dataset(path)
    except RasterioError:
        raise refusal from None
    with file:
        if not file.count:
            raise refusal
        transform = file.transform
        return {
            "kind": "raster",
            "path": path,
            "unusable": str(refusal),
            "format": _format(file),
            "bytes": _bytes(path),
            "crs": file.crs.to_string() if file.crs else None,
            "columns": file.width,
            "rows": file.height,
            "control_points": len(file.gcps[0]) or None,
            "transform": None if transform.is_identity else list(transform)[:6],
            "nodata": _json_number(file.nodata),
            "validity": _validity(file),
            "bands": [
                band.model_dump() | {"type": kind}
                for band, kind in zip(stored_bands(file, file.indexes), file.dtypes, strict=True)
            ],
            "made_by": _tell_maker(path),
        }


def _describe_zip(path: Path) -> Record:
    """A zipped model; any other zip is refused by what it holds."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    if any(PurePosixPath(name).name == "model.json" for name in names):
        return describe_model(path)
    shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if names[NAMES_SHOWN:] else "")
    files = f"{len(names)} file{'s' * (len(names) != 1)}"
    raise RasterError(
        f"{path} is a zip of {files} ({shown or 'none'}) but no model: there is no model.json. "
        f"Unpack it, or name a raster in it as /vsizip/{path}/NAME."
    )


def describe_chips(path: Path) -> Record:
    """How many chips there are of what, and how their values become a network's.

    Raises:
        ChipsError: the folder is not complete.
    """
    from geotranslate.chips.folder import open_chips
    from geotranslate.chips.layout import SPLITS

    folder = open_chips(path)
    record = folder.record
    return {
        "kind": "chips",
        "path": str(path),
        "layout": folder.layout,
        "paired": folder.paired,
        "chip_size": folder.chip_size,
        "chips": [
            {"split": split} | {name: len(folder.files(name.lower(), split)) for name in "AB"}
            for split in SPLITS
        ],
        "dropped": record.dropped if record else None,
        "A": _tell_domain(folder.domain_a),
        "B": _tell_domain(folder.domain_b),
        "settings": _tell_settings(record.settings) if record else None,
        "made_by": f"geotranslate {record.version}" if record else "ArcGIS, or by hand",
    }


def describe_run(path: Path) -> Record:
    """How far a run is, with which settings, and how good it is."""
    from geotranslate.translation.bundle import is_bundle, read_bundle_record
    from geotranslate.translation.checkpoint import list_checkpoints
    from geotranslate.translation.log import NAME, read_log
    from geotranslate.translation.run_record import read_config, read_job

    settings, job = read_config(path), read_job(path)
    rows = read_log(path / NAME) if (path / NAME).exists() else []
    # Losses come more often than figures: the last value of each column, whenever it was written.
    latest: dict[str, float] = {}
    for row in rows:
        latest |= {name: value for name, value in row.items() if math.isfinite(value)}
    updates = int(latest.pop("update", 0))
    return {
        "kind": "run",
        "path": str(path),
        "chips": job["chips"] if job else None,
        "updates_logged": updates,
        "updates_wanted": settings["updates"],
        "checkpoints": sorted(update for update, _ in list_checkpoints(path)),
        "model_after_updates": read_bundle_record(path).updates if is_bundle(path) else None,
        "latest": latest,
        "settings": settings,
        "changes": job["changes"] if job else [],
    }


def describe_model(path: Path) -> Record:
    """What a model translates, how it was learned, and how good it is.

    Raises:
        BundleError: a part is missing or was changed.
    """
    from geotranslate.translation.bundle import load_bundle

    bundle = load_bundle(path)
    record = bundle.record
    generator = bundle.generators["g_ab"]
    return {
        "kind": "model",
        "path": str(path),
        "model": record.model,
        "directions": ["A to B", "B to A"][: len(bundle.generators)],
        "generator": _tell_generator(record),
        "parameters": sum(weight.numel() for weight in generator.parameters()),
        "halo": generator.halo,
        "updates": record.updates,
        "chip_size": record.chip_size,
        "A": _tell_domain(record.domain_a),
        "B": _tell_domain(record.domain_b),
        "figures": record.figures,
        "attribution": record.attribution or None,
        "made_by": record.made_by,
        "identity": bundle.identity,
    }


def _is_run(folder: Path) -> bool:
    from geotranslate.translation.run_record import CONFIG_NAME, read_job

    return (folder / CONFIG_NAME).exists() and read_job(folder) is not None


def _is_model(folder: Path) -> bool:
    return (folder / "model.json").exists()


def _is_chips(folder: Path) -> bool:
    from geotranslate.chips.index import CHIPS_NAME, PARTS_NAME, TILE_NAME
    from geotranslate.chips.layout import find_layout

    ours = (CHIPS_NAME, PARTS_NAME, TILE_NAME)
    return any((folder / name).exists() for name in ours) or find_layout(folder) is not None


_FOLDERS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Record]], ...] = (
    (_is_chips, describe_chips),
    (_is_model, describe_model),
    (_is_run, describe_run),
)
"""What a folder may be, the quickest to find out first."""


def _format(file: DatasetReader) -> str:
    """Driver, block size, compression and overviews, in a line."""
    parts = [file.driver]
    if file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG":
        parts.append("cloud-optimized")
    rows, cols = file.block_shapes[0]
    parts.append(f"blocks of {cols} x {rows} px")
    parts.append(file.compression.name.lower() if file.compression else "not compressed")
    levels = file.overviews(1)
    parts.append("overviews " + " ".join(map(str, levels)) if levels else "no overviews")
    return ", ".join(parts)


def _bytes(path: str) -> int | None:
    return Path(path).stat().st_size if Path(path).is_file() else None


def _tell_maker(path: str) -> Record | None:
    """The work that made a raster; of the rasters that it was made of, only what was asked for."""
    from geotranslate.raster.output import read_record

    made_by = read_record(Path(path)) if Path(path).is_file() else None
    if made_by and isinstance(made_by.get("rasters"), dict):
        made_by["rasters"] = list(made_by["rasters"])
    if made_by and isinstance(made_by.get("scene"), dict):
        made_by["scene"] = {name: made_by["scene"].get(name) for name in ("path", "bands")}
    return made_by


def _validity(file: DatasetReader) -> str:
    """How the file says which pixels hold data."""
    from rasterio.enums import MaskFlags

    flags = file.mask_flag_enums[0]
    if MaskFlags.alpha in flags:
        return "alpha band"
    if MaskFlags.per_dataset in flags:
        return "mask"
    if MaskFlags.nodata in flags:
        return "nodata value"
    return "not told: every number is valid"


def _orientation(x_step: float, y_step: float) -> str:
    if x_step > 0 > y_step:
        return "north up"
    along_rows = "east" if x_step > 0 else "west"
    return f"turned: rows run {along_rows}, columns {'north' if y_step > 0 else 'south'}"


def _look_at_values(scene: Scene) -> tuple[list[Record], int, float]:
    """A row for each band, how many pixels were looked at, and the valid share of them."""
    from rasterio.windows import Window

    from geotranslate.raster.scene import intersect
    from geotranslate.raster.statistics import band_statistics, merge_statistics

    parts, seen, valid = [], 0, 0
    rows, cols = scene.grid.shape
    for row in _spread(rows):
        for col in _spread(cols):
            window = Window(col_off=col, row_off=row, width=SAMPLE_SIDE, height=SAMPLE_SIDE)
            chip = scene.read(intersect(window, scene.grid))
            parts.append(band_statistics(chip.pixels, chip.valid))
            seen += chip.valid.size
            valid += int(chip.valid.sum())
    bands = []
    for band, figures in zip(scene.bands, merge_statistics(parts), strict=True):
        ends = sorted(value * band.scale + band.offset for value in (figures.min, figures.max))
        values: Record = dict.fromkeys(("min", "mean", "max", "std"))
        if figures.count:
            values["min"], values["max"] = ends
            values["mean"] = figures.mean * band.scale + band.offset
            values["std"] = figures.std * abs(band.scale)
        bands.append(band.model_dump() | values)
    return bands, seen, valid / seen


def _spread(length: int) -> Iterator[int]:
    """Starts of windows along an axis: all of it, or evenly over a long one."""
    if length <= SAMPLES_PER_AXIS * SAMPLE_SIDE:
        yield from range(0, length, SAMPLE_SIDE)
        return
    for index in range(SAMPLES_PER_AXIS):
        yield index * (length - SAMPLE_SIDE) // (SAMPLES_PER_AXIS - 1)


def _tell_domain(domain: Domain) -> Record:
    """How a domain is stored, and the physical values of each band that become -1 and 1."""
    clipped = domain.clipped or [None] * len(domain.bands)
    return {
        "type": domain.dtype,
        "nodata": _json_number(domain.nodata),
        "pixel_size_m": list(domain.resolution_m),
        "decibels_from": domain.decibel,
        "bands": [
            band.model_dump() | {"low": low, "high": high, "clipped_share": share}
            for band, low, high, share in zip(
                domain.bands, domain.low, domain.high, clipped, strict=True
            )
        ],
    }


def _tell_settings(settings: Record) -> Record:
    """The settings of a chip folder; of the scenes only the paths."""
    return {
        name: [scene["path"] for scene in value.values()] if isinstance(value, dict) else value
        for name, value in settings.items()
    }


def _tell_generator(record: BundleRecord) -> str:
    spec = record.generator
    depth = (
        f"{spec.blocks} block{'s' * (spec.blocks != 1)}"
        if spec.kind == "resnet"
        else f"depth {spec.depth}"
    )
    return f"{spec.kind}, {depth}, width {spec.width}, norm {spec.norm}, upsample {spec.upsample}"


def _json_number(value: float | None) -> float | str | None:
    """NaN and infinity by their names: JSON has no word for them."""
    return value if value is None or math.isfinite(value) else str(value)

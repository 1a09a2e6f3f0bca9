"""What a mosaic will be made of, settled before a pixel is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.windows import Window

from geotranslate.errors import BandError, RasterError, SettingError
from geotranslate.raster.blend import BLENDS, Blend
from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid, split_window
from geotranslate.raster.heads import Head, read_heads
from geotranslate.raster.mosaic.grid import choose_grid, grid_bounds
from geotranslate.raster.mosaic.settings import MosaicSettings
from geotranslate.raster.output import check_not_input
from geotranslate.raster.reading import Validity
from geotranslate.raster.scene import expand_paths, open_scene
from geotranslate.raster.writing import BLOCK

if TYPE_CHECKING:
    from geotranslate.raster.area import Area

STRIP_ROWS = BLOCK


@dataclass(frozen=True)
class Piece:
    """One of the scenes to be joined.

    Attributes:
        path: anything GDAL opens.
        grid: its own.
        window: what it covers of the mosaic's grid, which it may leave.
        resampled: its pixels do not lie on the mosaic's.
        is_file: lies on a disk of this machine.
        validity: where the file says which pixels are invalid.
        nodata: its stored value for "nothing here".
        geotiff: its file is one.
        striped_bytes: of :attr:`Scene.striped_bytes`.
        unseen_alpha: has an alpha band that GDAL's own masks leave out.
        cutline: polygons in its CRS outside of which it does not count.
    """

    path: str
    grid: Grid
    window: Window
    resampled: bool
    is_file: bool
    validity: Validity
    nodata: float | None
    geotiff: bool
    striped_bytes: int
    unseen_alpha: bool
    cutline: Area | None = None


class Places:
    """Where pieces lie on the mosaic's grid, for quick questions.

    Attributes:
        edges: (4, pieces): first row, row after the last, first column, column after the last.
    """

    def __init__(self, windows: Iterable[Window]) -> None:
        rows = [(w.row_off, w.row_off + w.height, w.col_off, w.col_off + w.width) for w in windows]
        self.edges: NDArray[np.int64] = np.array(rows, np.int64).reshape(-1, 4).T

    def meeting(self, window: Window) -> NDArray[np.intp]:
        """Indexes of the pieces that share pixels with a window, in their order."""
        top, bottom, left, right = self.edges
        meets = (top < window.row_off + window.height) & (bottom > window.row_off)
        meets &= (left < window.col_off + window.width) & (right > window.col_off)
        return np.flatnonzero(meets)

    def overlaps(self, window: Window | None = None) -> NDArray[np.intp]:
        """(pairs, 2) indexes, the smaller first, of pieces that share pixels (in a window)."""
        chosen = np.arange(self.edges.shape[1]) if window is None else self.meeting(window)
        top, bottom, left, right = self.edges[:, chosen]
        if window is not None:
            top, left = np.maximum(top, window.row_off), np.maximum(left, window.col_off)
            bottom = np.minimum(bottom, window.row_off + window.height)
            right = np.minimum(right, window.col_off + window.width)
        # A little smaller, so that what only touches does not intersect.
        boxes = shapely.box(left + 0.25, top + 0.25, right - 0.25, bottom - 0.25)
        pairs = shapely.STRtree(boxes).query(boxes, predicate="intersects").T
        pairs = np.sort(pairs[pairs[:, 0] < pairs[:, 1]], axis=1)
        return chosen[pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]]


@dataclass(frozen=True)
class MosaicPlan:
    """What will be joined, and into what.

    Attributes:
        pieces: the scenes, in the order in which they are laid.
        settings: as given.
        grid: of the mosaic.
        area: outside of it the mosaic is invalid.
        bands: names, units, scales and colours of the first scene.
        asked_bands: what to ask of each scene, the quality band last; None for all its bands.
        dtype: numpy's name of the type.
        nodata: what all scenes use for "nothing here"; None where they do not agree, and the
            mosaic gets an internal mask.
        files: name, size in bytes and time in ns of each file that is read.
        record: what must be the same to go on with this work, as JSON values.
    """

    pieces: tuple[Piece, ...]
    settings: MosaicSettings
    grid: Grid
    area: Area | None
    bands: tuple[Band, ...]
    asked_bands: tuple[int | str, ...] | None
    dtype: str
    nodata: float | None
    files: tuple[tuple[Any, ...], ...]
    record: dict[str, Any]

    @property
    def blend(self) -> Blend:
        """What becomes of pixels that several scenes hold."""
        return BLENDS[self.settings.blend]

    @property
    def steps(self) -> int:
        """How often the writer reports: after each pair matched, each strip, and at the end."""
        return len(self.pairs) + len(self.strips) + 1

    @property
    def resampled(self) -> int:
        """How many scenes do not lie on the mosaic's pixels."""
        return sum(piece.resampled for piece in self.pieces)

    @property
    def work_dtype(self) -> str:
        """The type, by numpy's name, in which scenes are blended."""
        if not (self.resampled or self.settings.match):
            return self.dtype
        return "float32" if np.can_cast(self.dtype, np.float32) else "float64"

    @property
    def size_bytes(self) -> int:
        """Of all pixels, without compression and overviews."""
        return self.grid.height * self._row_bytes

    @property
    def passing_bytes(self) -> int:
        """Of the pixels of all strips that are written before they are joined."""
        rows = sum(strip.height for strip in self.strips if not self.is_copy(strip))
        return int(rows) * self._row_bytes

    @property
    def copied_row_bytes(self) -> int:
        """The most that a row of pixels takes in GDAL's cache, of scenes it copies from.

        Where a scene's blocks are whole rows and wider than those of the mosaic.
        """
        chosen = [self.places.meeting(strip) for strip in self.strips if self.is_copy(strip)]
        pieces = [[self.pieces[index] for index in indexes] for indexes in chosen]
        wide = [sum(p.striped_bytes for p in row if p.grid.width > BLOCK) for row in pieces]
        return max(wide, default=0)

    @property
    def _row_bytes(self) -> int:
        return self.grid.width * len(self.bands) * np.dtype(self.dtype).itemsize

    @cached_property
    def strips(self) -> tuple[Window, ...]:
        """Rows of blocks as wide as the mosaic, without those where nothing lies."""
        strips = split_window(self.grid.whole, STRIP_ROWS, self.grid.width)
        return tuple(strip for strip in strips if len(self.places.meeting(strip)))

    @cached_property
    def places(self) -> Places:
        """Where the pieces lie."""
        return Places(piece.window for piece in self.pieces)

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Indexes of pieces that are to be matched where they overlap."""
        if self.settings.match is None:
            return ()
        return tuple((int(one), int(other)) for one, other in self.places.overlaps())

    def is_copy(self, strip: Window) -> bool:
        """Whether GDAL can join a strip from the files as they are, pixel for pixel."""
        if self.settings.match or self.area or self.asked_bands is not None:
            return False
        chosen = self.places.meeting(strip)
        # A pixel that is nodata in one band only is invalid in all, which a copy would not see.
        plain = {"nowhere", "mask"} if self.nodata is None else {"nowhere"}
        if self.nodata is not None and len(self.bands) == 1:
            plain.add("nodata")
        return (
            all(
                piece.is_file
                and not piece.resampled
                and piece.cutline is None
                and piece.validity in plain
                for piece in (self.pieces[index] for index in chosen)
            )
            and len(self.places.overlaps(strip)) == 0
        )


def plan_mosaic(
    inputs: Iterable[str | Path], output: Path, settings: MosaicSettings | None = None
) -> MosaicPlan:
    """Look at every scene without reading its pixels, and find out what they make together.

    Args:
        inputs: rasters, folders and globs; a folder may hold the output itself.
        output: the file to be.
        settings: how they become one.

    Raises:
        RasterError: an input cannot be read.
        GridError: the scenes cannot be brought onto one grid, or bounds meet none of them.
        BandError: a band is missing, or bands, scales or types of two inputs differ.
        SettingError: a setting cannot work with these scenes, or the output is one of them or a
            file that one reads.
    """
    settings = settings or MosaicSettings()
    blend = BLENDS[settings.blend]
    paths = _find_inputs(list(inputs), output)
    asked = _asked_bands(paths[0], settings)
    heads = read_heads(paths, asked)
    # What a virtual raster reads is known only now; those that bounds leave out count as well.
    check_not_input(output, (name for head in heads for name, *_ in head.identity["files"]))
    first = heads[0].grid
    if not blend.ordered:
        # Sums of floats depend on their order: the same scenes shall give the same bytes.
        heads.sort(key=lambda head: head.path)
    grid, area = choose_grid(first, [head.grid for head in heads], settings)
    wanted = asked[:-1] if asked and settings.quality is not None else asked
    with open_scene(heads[0].path, bands=wanted) as scene:
        bands, dtype = scene.bands, scene.dtype
    cutlines = _read_cutlines(settings.cutline, heads)
    pieces = [_piece(head, grid, cutlines.get(head.path)) for head in heads]
    chosen = Places(piece.window for piece in pieces).meeting(grid.whole)
    pieces = [pieces[index] for index in chosen]
    find_anchor(settings.anchor, [piece.path for piece in pieces])
    # repr, since NaN does not equal NaN.
    alike = len({repr(piece.nodata) for piece in pieces}) == 1
    return MosaicPlan(
        pieces=tuple(pieces),
        settings=settings,
        grid=grid,
        area=area,
        bands=bands,
        asked_bands=asked,
        dtype=dtype,
        nodata=pieces[0].nodata if alike else None,
        files=tuple(tuple(file) for index in chosen for file in heads[index].identity["files"]),
        record={
            "command": "mosaic",
            "blend": settings.blend,
            **_name_settings(settings, grid, area, pieces),
            "rasters": _name_rasters(
                [heads[index].identity for index in chosen], ordered=blend.ordered
            ),
        },
    )


def _find_inputs(inputs: Sequence[str | Path], output: Path) -> list[str]:
    """The paths that inputs stand for, each file once, without the output in a folder given."""
    target = output.resolve()
    check_not_input(output, (str(Path(given).resolve()) for given in inputs))
    paths: dict[Path, str] = {}
    for path in expand_paths(inputs):
        paths.setdefault(Path(path).resolve(), path)
    paths.pop(target, None)
    if not paths:
        raise RasterError(
            f"there is nothing to join: the inputs hold no raster but {output} itself. "
            "Give rasters, folders or globs."
        )
    return list(paths.values())


def _asked_bands(path: str, settings: MosaicSettings) -> tuple[int | str, ...] | None:
    """Bands to ask of each scene: those wanted and last, for ``best``, that of quality."""
    bands, quality = settings.bands, settings.quality
    if isinstance(bands, str):
        bands = bands.split(",")
    if quality is None:
        return None if bands is None else tuple(bands)
    with open_scene(path) as scene:
        (number,) = scene.numbers_of([quality])
        if bands is None:
            bands = [band for band in scene.numbers_of(None) if band != number]
    if not bands:
        raise BandError(
            f"{path} has no band besides that of quality, {quality!r}, so there is nothing to "
            "join. Give --bands to write the quality itself."
        )
    return (*bands, quality)


def _read_cutlines(path: str | Path | None, heads: Sequence[Head]) -> Mapping[str, Area]:
    """The polygons of each scene by its path; none where no cutline is given."""
    if path is None:
        return {}
    # It loads geopandas, which takes half a second that most mosaics need not wait for.
    from geotranslate.raster.mosaic.cutlines import read_cutlines

    return read_cutlines(path, {head.path: head.grid for head in heads})


def _piece(head: Head, grid: Grid, cutline: Area | None) -> Piece:
    resampled = not grid.is_aligned(head.grid)
    return Piece(
        path=head.path,
        grid=head.grid,
        window=grid.window_around(grid_bounds(head.grid, grid.crs))
        if resampled
        else head.grid.window_in(grid),
        resampled=resampled,
        is_file=Path(head.path).is_file(),
        validity=head.validity,
        nodata=head.nodata,
        geotiff=head.geotiff,
        striped_bytes=head.striped_bytes,
        unseen_alpha=head.unseen_alpha,
        cutline=cutline,
    )


def find_anchor(anchor: str | None, paths: Sequence[str]) -> int | None:
    """Index of the one raster that is called so: by its path, file name, or that without a suffix.

    Raises:
        SettingError: none is, or several are.
    """
    if anchor is None:
        return None
    found = [index for index, path in enumerate(paths) if path == anchor]
    found = found or [index for index, path in enumerate(paths) if anchor in names_of(path)]
    if not found:
        raise SettingError(
            f"the anchor {anchor} is none of the rasters to be joined, such as {paths[0]}, "
            "so nothing would hold the others. Name one of them by its path or file name."
        )
    if len(found) > 1:
        raise SettingError(
            f"the anchor {anchor} is the name of {len(found)} of the rasters to be joined "
            f"({paths[found[0]]}, {paths[found[1]]}{', ...' if len(found) > 2 else ''}), and one "
            "only can stay as it is. Name it by its path."
        )
    return found[0]


def names_of(path: str) -> tuple[str, ...]:
    """What a person may call a raster: its path, its file's name, and that without a suffix."""
    return path, str(Path(path).resolve()), Path(path).name, Path(path).stem


def _name_settings(
    settings: MosaicSettings, grid: Grid, area: Area | None, pieces: Sequence[Piece]
) -> dict[str, Any]:
    """Of the settings beside the blend, what counts; nothing where all is as it comes."""
    named: dict[str, Any] = {}
    if any((settings.crs, settings.resolution, settings.bounds, settings.snap, settings.aoi)) or (
        any(piece.resampled for piece in pieces)
    ):
        named["grid"] = {
            "crs": grid.crs.to_string(),
            "transform": list(grid.transform)[:6],
            "shape": list(grid.shape),
        }
    # The nearest also makes the overviews.
    if any(piece.resampled for piece in pieces) or settings.resampling == "nearest":
        named["resampling"] = settings.resampling
    for name in ("bands", "quality", "match", "anchor"):
        if (value := getattr(settings, name)) is not None:
            named[name] = str(value) if isinstance(value, str | int) else list(value)
    if area is not None:
        named["aoi"] = area.identity
    if settings.cutline is not None:
        cuts = "".join(piece.cutline.identity for piece in pieces if piece.cutline)
        named["cutline"] = hashlib.sha256(cuts.encode()).hexdigest()[:16]
    return named


def _name_rasters(identities: Sequence[dict[str, Any]], *, ordered: bool) -> dict[str, str]:
    """What must stay the same of each raster, by its path and, if it matters, its place.

    Sizes and dates are for the person who is told of a change; a short digest stands for the rest.
    """
    named = {}
    for place, identity in enumerate(identities, start=1):
        path, files = identity["path"], identity["files"]
        size, newest = sum(file[1] for file in files), max((file[2] for file in files), default=0)
        date = datetime.fromtimestamp(newest / 1e9, UTC).isoformat(" ", "seconds")
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
        named[f"{place} {path}" if ordered else path] = f"{size} bytes of {date}, {digest}"
    return named

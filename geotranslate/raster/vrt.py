"""Virtual rasters: many files seen as one, without copying a pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from rasterio.dtypes import _gdal_typename
from rasterio.windows import Window

from geotranslate.raster.domain import Band
from geotranslate.raster.grid import Grid


@dataclass(frozen=True)
class Source:
    """A file that fills a window of a virtual raster, pixel for pixel.

    Attributes:
        path: the file, or another of GDAL's names; all its bands are used, in order.
        window: where it lies in the whole, which cuts off what leaves it.
        geotiff: known to be one. Then only its pixels are asked for: to decode a CRS, of which the
            whole has its own, takes GDAL longer than to decode a small file's pixels.
    """

    path: Path | str
    window: Window
    geotiff: bool = False


def build_vrt(
    sources: Sequence[Source],
    grid: Grid,
    *,
    bands: Sequence[Band],
    dtype: str,
    nodata: float | None = None,
    tags: Mapping[str, str] | None = None,
    layered: bool = False,
) -> str:
    """The XML of a virtual raster; later sources lie over earlier ones.

    Without a nodata value, validity comes from the sources' own masks.

    Args:
        sources: the files, all of the given bands and dtype.
        grid: of the whole.
        bands: their names, units, scales and colours, kept in the result.
        dtype: numpy's name of the type.
        nodata: value where no source holds data.
        tags: metadata of the whole.
        layered: sources overlap: where an upper one is invalid, the lower one shows.
    """
    root = ElementTree.Element(
        "VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height)
    )
    ElementTree.SubElement(root, "SRS").text = grid.crs.to_wkt()
    numbers = ", ".join(f"{number!r}" for number in grid.transform.to_gdal())
    ElementTree.SubElement(root, "GeoTransform").text = numbers
    if tags:
        metadata = ElementTree.SubElement(root, "Metadata")
        for key, value in tags.items():
            ElementTree.SubElement(metadata, "MDI", key=key).text = value
    for index, band in enumerate(bands, start=1):
        element = ElementTree.SubElement(
            root, "VRTRasterBand", dataType=_gdal_typename(dtype), band=str(index)
        )
        _describe(element, band, nodata)
        _add_sources(element, sources, str(index), nodata, masked=layered and nodata is None)
    if nodata is None:
        mask = ElementTree.SubElement(root, "MaskBand")
        element = ElementTree.SubElement(mask, "VRTRasterBand", dataType="Byte")
        _add_sources(element, sources, "mask,1", 0 if layered else None)
    return ElementTree.tostring(root, encoding="unicode")


def build_gti(
    bands: Sequence[Band],
    dtype: str,
    nodata: float | None,
    *,
    masked: bool,
    sort_field: str | None = None,
) -> str:
    """What GDAL's GTI driver is told of a tile index that is opened as one raster, as XML.

    Args:
        bands: their names, units, scales and colours.
        dtype: numpy's name of the type.
        nodata: value where no file holds data.
        masked: the files' masks, where they have one, are the mask of the whole.
        sort_field: the column by which files lie on each other, the highest on top.
    """
    root = ElementTree.Element("GDALTileIndexDataset")
    ElementTree.SubElement(root, "MaskBand").text = str(masked).lower()
    if sort_field is not None:
        ElementTree.SubElement(root, "SortField").text = sort_field
    for index, band in enumerate(bands, start=1):
        element = ElementTree.SubElement(
            root, "Band", band=str(index), dataType=_gdal_typename(dtype)
        )
        _describe(element, band, nodata)
    return ElementTree.tostring(root, encoding="unicode")


def _describe(element: ElementTree.Element, band: Band, nodata: float | None) -> None:
    ElementTree.SubElement(element, "Description").text = band.name
    if nodata is not None:
        ElementTree.SubElement(element, "NoDataValue").text = repr(float(nodata))
    if band.unit:
        ElementTree.SubElement(element, "UnitType").text = band.unit
    if band.offset:
        ElementTree.SubElement(element, "Offset").text = repr(band.offset)
    if band.scale != 1:
        ElementTree.SubElement(element, "Scale").text = repr(band.scale)
    ElementTree.SubElement(element, "ColorInterp").text = band.color.capitalize()


def _add_sources(
    element: ElementTree.Element,
    sources: Iterable[Source],
    band: str,
    nodata: float | None,
    *,
    masked: bool = False,
) -> None:
    """Add a band of each source, without its pixels of value ``nodata`` or outside its mask."""
    kind = "SimpleSource" if nodata is None and not masked else "ComplexSource"
    for source in sources:
        entry = ElementTree.SubElement(element, kind)
        name = ElementTree.SubElement(entry, "SourceFilename", relativeToVRT="0")
        path = source.path
        name.text = str(path.absolute()) if isinstance(path, Path) else path
        if source.geotiff:
            options = ElementTree.SubElement(entry, "OpenOptions")
            ElementTree.SubElement(options, "OOI", key="GEOREF_SOURCES").text = "NONE"
        ElementTree.SubElement(entry, "SourceBand").text = band
        _add_rectangle(entry, "SrcRect", 0, 0, source.window)
        _add_rectangle(
            entry, "DstRect", source.window.col_off, source.window.row_off, source.window
        )
        if nodata is not None:
            ElementTree.SubElement(entry, "NODATA").text = repr(float(nodata))
        if masked:
            ElementTree.SubElement(entry, "UseMaskBand").text = "true"


def _add_rectangle(
    element: ElementTree.Element, name: str, col: float, row: float, size: Window
) -> None:
    place = {"xOff": col, "yOff": row, "xSize": size.width, "ySize": size.height}
    ElementTree.SubElement(element, name, {key: str(int(value)) for key, value in place.items()})

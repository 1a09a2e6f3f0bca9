"""Which files are looked at for changes."""

from __future__ import annotations

import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest

from geotranslate.raster import inputs
from geotranslate.raster.inputs import input_files
from geotranslate.raster.mosaic import MosaicSettings, plan_mosaic, write_virtual
from geotranslate.raster.reading import open_dataset


@pytest.fixture
def tiles(make_raster):
    """Two GeoTIFFs side by side."""
    return [
        make_raster(f"{col}.tif", np.ones((1, 8, 8), np.uint8), col=8 * col) for col in range(2)
    ]


def names(path):
    with open_dataset(path) as dataset:
        return {Path(name).name for name, *_ in input_files(dataset)}


def index(tiles, output):
    """A mosaic without pixels of its own."""
    write_virtual(plan_mosaic(tiles, output, MosaicSettings(blend="first")), output)
    return output


def test_each_file_stands_there_with_its_size_and_time(tiles):
    with open_dataset(tiles[0]) as dataset:
        (found,) = input_files(dataset)
    state = tiles[0].stat()
    assert found == [os.path.realpath(tiles[0]), state.st_size, state.st_mtime_ns]


def test_a_plain_raster_is_not_opened_again(tiles, monkeypatch):
    monkeypatch.setattr(inputs, "open_dataset", None)
    assert names(tiles[0]) == {"0.tif"}


@pytest.mark.parametrize("suffix", [".vrt", ".gti.gpkg"])
def test_virtual_rasters_within_virtual_ones_are_followed(tiles, tmp_path, stack_bands, suffix):
    inner = index(tiles, tmp_path / f"inner{suffix}")
    middle = stack_bands("middle.vrt", all=inner)
    outer = stack_bands("outer.vrt", all=middle)
    assert names(outer) == {"outer.vrt", "middle.vrt", inner.name, "0.tif", "1.tif"}


def test_places_in_a_tile_index_may_be_relative_to_it(tiles, tmp_path, monkeypatch):
    path = index(tiles, tmp_path / "all.gti.gpkg")
    table = gpd.read_file(path)
    table["location"] = [tile.name for tile in tiles]
    metadata = {"RESX": "10", "RESY": "10"}
    table.to_file(path, layer="mosaic", layer_metadata=metadata)
    monkeypatch.chdir("/")
    assert names(path) == {path.name, "0.tif", "1.tif"}


def test_a_circle_of_virtual_rasters_ends(tiles, tmp_path, stack_bands):
    one = stack_bands("one.vrt", a=tiles[0])
    other = stack_bands("other.vrt", a=one)
    one.write_text(one.read_text().replace("0.tif", "other.vrt"))
    assert names(other) == {"one.vrt", "other.vrt"}


def test_a_source_that_is_gone_is_left_to_who_reads_it(tiles, tmp_path, stack_bands):
    outer = stack_bands("outer.vrt", a=stack_bands("inner.vrt", a=tiles[0]), b=tiles[1])
    (tmp_path / "inner.vrt").write_text("no XML")
    assert names(outer) == {"outer.vrt", "inner.vrt", "1.tif"}


def test_no_more_files_are_followed_than_can_be_looked_at(tiles, tmp_path, monkeypatch):
    path = index(tiles, tmp_path / "all.gti.gpkg")
    monkeypatch.setattr(inputs, "MOST_FOLLOWED", 1)
    assert len(names(path)) == 2

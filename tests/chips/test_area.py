import geopandas as gpd
import numpy as np
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from geotranslate.chips.area import read_area
from geotranslate.errors import SettingError
from geotranslate.raster.grid import Grid
from tests.conftest import NORTH_UP

UTM = CRS.from_epsg(32633)
GRID = Grid(UTM, NORTH_UP, width=40, height=30)
CIRCLE = shapely.Point(500_200, 3_999_850).buffer(100)


@pytest.fixture
def write_area(tmp_path):
    def write(shapes, name="area.gpkg", crs=UTM):
        table = gpd.GeoDataFrame(geometry=shapes, crs=crs)
        table.to_file(tmp_path / name)
        return tmp_path / name

    return write


def pixel_centres():
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    return 500_000 + 10 * x, 4_000_000 - 10 * y


def test_a_pixel_is_inside_when_its_centre_is(write_area):
    area = read_area(write_area([CIRCLE]), UTM)
    assert (area.inside(GRID) == shapely.contains_xy(CIRCLE, *pixel_centres())).all()


@pytest.mark.parametrize("name", ["area.geojson", "area.shp", "area.gpkg"])
def test_an_area_in_another_crs_lies_in_the_same_place(write_area, name):
    elsewhere = gpd.GeoSeries([CIRCLE], crs=UTM).to_crs("EPSG:4326")
    area = read_area(write_area(elsewhere, name, "EPSG:4326"), UTM)
    assert area.shape.symmetric_difference(CIRCLE).area < 1e-3 * CIRCLE.area


def test_long_edges_are_bent_when_the_crs_changes(write_area):
    box = shapely.box(14.0, 45.0, 16.0, 47.0)
    area = read_area(write_area([box], crs="EPSG:4326"), UTM)
    (x,), (y,) = transform_points("EPSG:4326", UTM, [14.5], [47.0])
    assert shapely.Point(x, y).distance(area.shape.boundary) < 1.0


def test_many_polygons_are_one_area(write_area):
    boxes = [shapely.box(500_000, 3_999_900, 500_100, 4_000_000), CIRCLE]
    area = read_area(write_area(boxes), UTM)
    assert (
        area.inside(GRID).sum()
        == shapely.contains_xy(shapely.union_all(boxes), *pixel_centres()).sum()
    )


def test_the_identity_is_that_of_the_polygons(write_area):
    first = read_area(write_area([CIRCLE], "a.gpkg"), UTM).identity
    assert read_area(write_area([CIRCLE.reverse()], "b.geojson"), UTM).identity == first
    assert read_area(write_area([CIRCLE.buffer(1)], "c.gpkg"), UTM).identity != first


@pytest.mark.parametrize("content", [None, "", "not a map"])
def test_what_is_no_vector_file_is_refused_with_formats_that_are(tmp_path, content):
    path = tmp_path / "area.gpkg"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingError, match="Give a file of polygons such as a GeoPackage"):
        read_area(path, UTM)


def test_lines_are_refused_with_the_mend(write_area):
    with pytest.raises(SettingError, match="buffer points or lines first"):
        read_area(write_area([CIRCLE.boundary]), UTM)


def test_polygons_without_a_crs_are_refused_with_the_mend(write_area):
    path = write_area([CIRCLE], "area.shp")
    path.with_suffix(".prj").unlink()
    with pytest.raises(SettingError, match="ogr2ogr -a_srs"):
        read_area(path, UTM)

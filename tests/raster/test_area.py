import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds

from geotranslate.errors import SettingError
from geotranslate.raster.area import Area, read_area
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
    area = read_area(write_area([CIRCLE]), UTM, GRID.bounds)
    assert (area.inside(GRID) == shapely.contains_xy(CIRCLE, *pixel_centres())).all()


@pytest.mark.parametrize("name", ["area.geojson", "area.shp", "area.gpkg"])
def test_an_area_in_another_crs_lies_in_the_same_place(write_area, name):
    elsewhere = gpd.GeoSeries([CIRCLE], crs=UTM).to_crs("EPSG:4326")
    area = read_area(write_area(elsewhere, name, "EPSG:4326"), UTM, GRID.bounds)
    assert area.shape.symmetric_difference(CIRCLE).area < 1e-3 * CIRCLE.area


def test_long_edges_are_bent_when_the_crs_changes(write_area):
    box = shapely.box(14.0, 45.0, 16.0, 47.0)
    whole = transform_bounds("EPSG:4326", UTM, *box.bounds)
    area = read_area(write_area([box], crs="EPSG:4326"), UTM, whole)
    (x,), (y,) = transform_points("EPSG:4326", UTM, [14.5], [47.0])
    assert shapely.Point(x, y).distance(area.shape.boundary) < 1.0


@pytest.mark.parametrize(
    "box", [(-180, -90, 180, 90), (-179, 0, 179, 89), (0, 0, 360, 60), (15, -80, 200, 80)]
)
def test_an_area_may_be_as_large_as_the_world(write_area, box):
    area = read_area(write_area([shapely.box(*box)], crs="EPSG:4326"), UTM, GRID.bounds)
    x, _ = pixel_centres()
    # 15 degrees is the middle of the zone, where x is 500 km.
    assert (area.inside(GRID) == (x > 500_000 if box[0] == 15 else True)).all()


def test_of_many_polygons_those_that_the_crs_does_not_know_are_left_out(write_area):
    here = gpd.GeoSeries([CIRCLE], crs=UTM).to_crs("EPSG:4326")[0]
    antipode = shapely.box(-166, -37, -164, -35)
    bowtie = shapely.Polygon([(-170, 0), (170, 60), (170, 0), (-170, 60)])
    area = read_area(write_area([antipode, here, bowtie], crs="EPSG:4326"), UTM, GRID.bounds)
    assert area.inside(GRID).sum() >= shapely.contains_xy(CIRCLE, *pixel_centres()).sum()
    far = read_area(write_area([antipode], crs="EPSG:4326"), UTM, GRID.bounds)
    assert not far.inside(GRID).any()


def test_an_area_on_both_sides_of_180_degrees(write_area):
    zone_60 = CRS.from_epsg(32660)
    grid = Grid(zone_60, Affine(1000, 0, 820_000, 0, -1000, 100_000), width=30, height=20)
    for boxes in ([(170, -5, 180, 5), (-180, -5, -170, 5)], [(170, -5, 190, 5)]):
        shapes = [shapely.box(*box) for box in boxes]
        area = read_area(write_area(shapes, crs="EPSG:4326"), zone_60, grid.bounds)
        assert area.inside(grid).all()


def test_an_area_that_no_way_leads_to_is_refused_with_the_mend(write_area):
    local = CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1]]')
    with pytest.raises(SettingError, match="Draw it in the raster's own"):
        read_area(write_area([shapely.box(14, 45, 16, 47)], crs="EPSG:4326"), local, GRID.bounds)


def test_many_polygons_are_one_area(write_area):
    boxes = [shapely.box(500_000, 3_999_900, 500_100, 4_000_000), CIRCLE]
    area = read_area(write_area(boxes), UTM, GRID.bounds)
    assert (
        area.inside(GRID).sum()
        == shapely.contains_xy(shapely.union_all(boxes), *pixel_centres()).sum()
    )


def test_lines_and_spikes_of_polygons_enclose_nothing(write_area):
    left, bottom, right, top = GRID.bounds
    x, y = (left + right) / 2, (bottom + top) / 2
    corners = [(left, bottom), (x, bottom), (x, y), (right, top), (x, y), (left, y)]
    line = shapely.LineString([(left, top), (right, bottom)])
    spiked = read_area(write_area([shapely.Polygon(corners), line]), UTM, GRID.bounds)
    square = read_area(write_area([shapely.box(left, bottom, x, y)]), UTM, GRID.bounds)
    np.testing.assert_array_equal(spiked.inside(GRID), square.inside(GRID))
    assert spiked.identity == square.identity
    assert not read_area(
        write_area([line, shapely.box(left - 9, top, left, top + 9)]), UTM, GRID.bounds
    ).holds_pixel(GRID)


def test_of_many_specks_beside_the_centres_of_pixels_none_holds_one():
    grid = Grid(UTM, NORTH_UP, width=200, height=110)
    col, row = np.meshgrid(np.arange(200), np.arange(100))
    x, y = 500_001 + 10.0 * col.ravel(), 3_999_999 - 10.0 * row.ravel()
    specks = shapely.box(x, y - 3, x + 3, y)
    assert not Area("", shapely.multipolygons(specks), UTM, grid.bounds).holds_pixel(grid)
    among_them = shapely.multipolygons(
        [*specks, shapely.box(500_401, 3_998_901, 500_406, 3_998_996)]
    )
    assert Area("", among_them, UTM, grid.bounds).holds_pixel(grid)


@pytest.mark.parametrize("across", [10, -10])
@pytest.mark.parametrize("down", [10, -10])
@pytest.mark.parametrize("size", [(7, 5), (1, 9)])
def test_an_area_holds_a_pixel_where_a_mask_of_all_of_it_does(monkeypatch, across, down, size):
    monkeypatch.setattr("geotranslate.raster.area.BLOCK", 2)
    grid = Grid(UTM, Affine(across, 0, 500_000, 0, down, 4_000_000), *size)
    rng = np.random.default_rng(0)
    left, bottom, right, top = grid.bounds
    found = []
    for _ in range(200):
        middle = rng.uniform((left - 15, bottom - 15), (right + 15, top + 15), (3, 2))
        corners = middle[:, None] + rng.uniform(-8, 8, (3, 3, 2))
        # So that edges run through a pixel's centre, and some triangles are empty.
        corners[rng.random((3, 3)) < 0.2] = grid.transform @ (0.5, 0.5)
        shape = shapely.union_all([shapely.Polygon(three).buffer(0) for three in corners])
        drawn = Area("", shape, UTM, grid.bounds)
        found.append(drawn.holds_pixel(grid))
        assert found[-1] == drawn.inside(grid).any()
    assert 30 < sum(found) < 170


def test_the_identity_is_that_of_the_polygons(write_area):
    first = read_area(write_area([CIRCLE], "a.gpkg"), UTM, GRID.bounds).identity
    assert (
        read_area(write_area([CIRCLE.reverse()], "b.geojson"), UTM, GRID.bounds).identity == first
    )
    assert read_area(write_area([CIRCLE.buffer(1)], "c.gpkg"), UTM, GRID.bounds).identity != first


@pytest.mark.parametrize("content", [None, "", "not a map"])
def test_what_is_no_vector_file_is_refused_with_formats_that_are(tmp_path, content):
    path = tmp_path / "area.gpkg"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingError, match="Give a file of polygons such as a GeoPackage"):
        read_area(path, UTM, GRID.bounds)


def test_lines_are_refused_with_the_mend(write_area):
    with pytest.raises(SettingError, match="buffer points or lines first"):
        read_area(write_area([CIRCLE.boundary]), UTM, GRID.bounds)


def test_polygons_without_a_crs_are_refused_with_the_mend(write_area):
    path = write_area([CIRCLE], "area.shp")
    path.with_suffix(".prj").unlink()
    with pytest.raises(SettingError, match="ogr2ogr -a_srs"):
        read_area(path, UTM, GRID.bounds)

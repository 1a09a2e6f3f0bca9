import geopandas as gpd
import pytest
import shapely

from geotranslate.raster.vectors import write_geopackage


@pytest.mark.parametrize("length", [0, 50, 5000])
def test_what_a_kill_left_of_a_geopackage_is_in_nobodys_way(tmp_path, length):
    boxes = [shapely.box(number, 0, number + 1, 1) for number in range(3)]
    table = gpd.GeoDataFrame({"name": list("abc")}, geometry=boxes, crs="EPSG:32633")
    path = tmp_path / "chips.gpkg"
    write_geopackage(path, table, "chips")
    undisturbed = path.read_bytes()
    for ending in ("", "-journal", ".tmp_rtree_chips.db", ".tmp_rtree_chips.db-journal"):
        (tmp_path / f".part.chips.gpkg{ending}").write_bytes(undisturbed[:length])
    write_geopackage(path, table, "chips")
    assert [file.name for file in tmp_path.iterdir()] == ["chips.gpkg"]
    assert path.read_bytes() == undisturbed

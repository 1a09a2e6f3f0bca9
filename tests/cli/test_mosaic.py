from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from geotranslate.cli.main import run


@pytest.fixture
def tiles(make_raster, tmp_path):
    for index in range(3):
        pixels = np.full((1, 20, 20), 60 * index, np.uint8)
        make_raster(f"tiles/{index}.tif", pixels, col=10 * index)
    return tmp_path / "tiles"


def refused(words, capsys):
    """What is said, with which exit status, when words are refused."""
    with pytest.raises(SystemExit) as left:
        run(list(map(str, words)))
    return left.value.code, capsys.readouterr().err


def test_it_says_what_it_joined_and_then_that_there_is_nothing_to_do(tiles, tmp_path, capsys):
    output = tmp_path / "new" / "all.tif"
    run(["mosaic", str(tiles), "-o", str(output)])
    told = capsys.readouterr()
    assert told.out.startswith(f"Joined 3 rasters into {output}, 40 x 20 px, in ")
    assert "2 of 2" in told.err
    run(["mosaic", str(tiles), "-o", str(output)])
    assert capsys.readouterr().out.startswith(f"{output} is there already")


@pytest.mark.parametrize(
    ("blend", "value"), [("first", 0), ("last", 60), ("mean", 30), ("median", 30), ("feather", 3)]
)
def test_the_blend_decides_about_overlaps(tiles, tmp_path, blend, value):
    output = tmp_path / f"{blend}.tif"
    run(["mosaic", str(tiles / "*.tif"), "-o", str(output), "--blend", blend])
    with rasterio.open(output) as file:
        assert file.read(1)[7, 10] == value


def test_one_line_of_json_on_demand(tiles, tmp_path, capsys):
    output = tmp_path / "all.tif"
    words = ["mosaic", str(tiles), "-o", str(output), "--json"]
    run(words)
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert told.err == ""
    assert record.pop("seconds") > 0
    assert record == {
        "output": str(output),
        "unchanged": False,
        "rasters": 3,
        "resampled": 0,
        "width": 40,
        "height": 20,
    }
    run(words)
    assert json.loads(capsys.readouterr().out)["unchanged"]


def test_it_says_what_a_match_found(make_raster, tmp_path, capsys):
    pixels = np.random.default_rng(0).uniform(1, 9, (1, 20, 20)).astype(np.float32)
    for name, factor in (("a", 1), ("b", 4)):
        make_raster(f"in/{name}.tif", factor * pixels)
    output = tmp_path / "all.tif"
    words = ["mosaic", str(tmp_path / "in"), "-o", str(output), "--match", "gain"]
    run(words)
    told = capsys.readouterr().out
    assert told.endswith(" Matched by gains from 0.5 (b.tif, band 1) to 2 (a.tif, band 1).\n")
    run([*words, "--json"])
    found = json.loads(capsys.readouterr().out)["match"]
    assert found[str(tmp_path / "in" / "b.tif")]["band 1"]["gain"] == pytest.approx(0.5)


def test_a_settings_file_gives_way_to_flags(tiles, tmp_path):
    config = tmp_path / "mosaic.toml"
    config.write_text('blend = "last"\n')
    for words, value in (([], 60), (["--blend", "first"], 0)):
        output = tmp_path / f"{value}.tif"
        run(["mosaic", str(tiles), "-o", str(output), "--config", str(config), *words])
        with rasterio.open(output) as file:
            assert file.read(1)[7, 10] == value


@pytest.mark.parametrize(
    ("words", "status", "mend"),
    [
        (["missing.tif"], 2, "does not exist"),
        (["*.nothing"], 2, "Check the path"),
        (["{tiles}", "--blend", "average"], 2, "'feather', 'first', 'last', 'mean'"),
        (["{tiles}", "--blend", "best"], 2, "Name it with --quality"),
        (["{tiles}", "--blend", "best", "--quality", "9"], 2, "band '9' is not in"),
        (["{tiles}", "--resolution", "wide"], 2, "Write one number, or width,height"),
        (["{tiles}", "--resolution", "0"], 2, "Give width and height above 0"),
        (["{tiles}", "--bounds", "1,2,3"], 2, "Write left,bottom,right,top"),
        (["{tiles}", "--bounds", "1,2,3,4"], 2, "Give bounds as left,bottom,right,top"),
        (["{tiles}", "--crs", "EPSG:nothing"], 2, "Give it as EPSG:32633"),
        (["{tiles}", "--crs", "4326"], 2, "Give it as EPSG:4326"),
        (["{tiles}", "--snap", "30"], 2, "--snap 30 is none of first, multiples, bounds, so"),
        (["{tiles}", "--snap", "nothing.tif"], 2, "nothing.tif does not exist"),
        (["{tiles}", "--aoi", "nothing.gpkg"], 2, "Give a file of polygons"),
        (["{tiles}", "--cutline", "nothing.gpkg"], 2, "Give a file of polygons"),
        (["{tiles}", "--match", "gain"], 2, "--match histogram"),
        (["{tiles}", "--anchor", "0.tif"], 2, "Add --match gain"),
        (["{tiles}", "--virtual"], 2, "Name it"),
        ([], 2, "Missing argument"),
        (["{tiles}", "-o", "{tiles}/0.tif", "--overwrite", "{tiles}/0.tif"], 2, "another output"),
        (["{tiles}/0.tif", "-o", "{tiles}/1.tif"], 2, "--overwrite to replace it"),
    ],
)
def test_wrong_words_get_one_sentence_and_their_status(
    tiles, tmp_path, capsys, words, status, mend
):
    words = [word.format(tiles=tiles) for word in words]
    if "-o" not in words:
        words += ["-o", str(tmp_path / "out.tif")]
    before = sorted(tmp_path.rglob("*"))
    found, told = refused(["mosaic", *words], capsys)
    assert found == status
    assert mend in told
    assert "Traceback" not in told
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("output", "words", "mend"),
    [
        ("all.jp2", [], "--virtual for an index"),
        ("all.vrt", [], "--virtual for an index"),
        ("all.vrt", ["--virtual"], "do --blend feather (the default). Choose --blend first or"),
        ("all.tif", ["--virtual", "--blend", "first"], "Name it"),
        ("all.tif", ["--match", "histogram"], "fall into 2 groups"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(
    tiles, tmp_path, make_raster, capsys, output, words, mend
):
    make_raster("tiles/apart.tif", np.full((1, 20, 20), 9, np.uint8), col=90)
    command = ["mosaic", tiles, "-o", tmp_path / output, *words]
    assert refused([*command, "--dry-run"], capsys) == refused(command, capsys)
    status, told = refused([*command, "--dry-run"], capsys)
    assert status == 2
    assert mend in told
    assert not list(tmp_path.glob("all.*"))


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.tif", ["--blend"]), ("a.vrt", ["--virtual", "--blend"])],
)
def test_a_dry_run_refuses_an_output_made_with_other_words(tiles, tmp_path, capsys, name, words):
    output = tmp_path / name
    command = ["mosaic", str(tiles), "-o", str(output), *words]
    run([*command, "first"])
    before = output.read_bytes()
    capsys.readouterr()
    told = refused([*command, "last", "--dry-run"], capsys)
    assert told == refused([*command, "last"], capsys)
    assert "--overwrite" in told[1]
    for free in (["first"], ["last", "--overwrite"]):
        run([*command, *free, "--dry-run"])
        assert "would hold 3 rasters" in capsys.readouterr().out
    assert output.read_bytes() == before


def test_a_dry_run_refuses_parts_begun_with_other_words(tiles, tmp_path, capsys):
    from geotranslate.raster.mosaic import mosaic_rasters

    output = tmp_path / "a.tif"
    steps = mosaic_rasters([tiles], output, blend="median")
    next(steps)
    steps.close()
    status, told = refused(["mosaic", tiles, "-o", output, "--dry-run"], capsys)
    assert status == 2
    assert 'begun with other settings: blend was "median" and is now "feather"' in told
    run(["mosaic", str(tiles), "-o", str(output), "--dry-run", "--blend", "median"])


def test_footprints_of_a_dry_run_with_other_words_take_the_place_of_those_before(
    tiles, tmp_path, capsys
):
    footprints = tmp_path / "map.footprints.gpkg"
    command = ["mosaic", str(tiles), "-o", str(tmp_path / "map.tif"), "--dry-run"]
    run(command)
    before = footprints.read_bytes()
    bounds = ["--bounds", "500000,3999800,500100,4000000"]
    run([*command, *bounds])
    assert footprints.read_bytes() != before
    table = gpd.read_file(footprints)
    table.iloc[:1].to_file(footprints, layer="footprints")
    edited = footprints.read_bytes()
    status, told = refused([*command, *bounds], capsys)
    assert status == 2
    assert "--overwrite to replace it" in told
    assert footprints.read_bytes() == edited


def test_a_raster_that_does_not_fit_is_named(tiles, tmp_path, make_raster, capsys):
    make_raster("tiles/odd.tif", np.ones((2, 20, 20), np.uint8))
    status, told = refused(["mosaic", tiles, "-o", tmp_path / "out.tif"], capsys)
    assert status == 2
    assert "odd.tif has other bands" in told


def test_it_says_what_was_resampled(tiles, tmp_path, make_raster, capsys):
    make_raster("tiles/utm34.tif", np.ones((1, 20, 20), np.uint8), crs="EPSG:32634")
    words = ["--crs", "EPSG:32633", "--resolution", "20", "--resampling", "cubic"]
    run(["mosaic", str(tiles), "-o", str(tmp_path / "out.tif"), *words])
    told = capsys.readouterr().out
    assert told.endswith("; 4 of them resampled (cubic) onto EPSG:32633 with pixels of 20.\n")


def test_a_dry_run_says_the_grid_and_draws_footprints_only(tiles, tmp_path, capsys):
    output = tmp_path / "map.tif"
    words = ["mosaic", str(tiles), "-o", str(output), "--dry-run"]
    for _ in range(2):
        run(words)
        told = capsys.readouterr().out
        assert "would hold 3 rasters, 40 x 20 px of 1 uint8 band, 0.0 MB" in told
        assert "EPSG:32633 with pixels of 10, bounds 500000,3999800,500400,4000000" in told
    run([*words, "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["bytes"] == 800
    assert record["resolution"] == [10, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.footprints.gpkg", "tiles"]


def test_a_virtual_mosaic_on_demand(tiles, tmp_path, capsys):
    output = tmp_path / "all.vrt"
    words = ["mosaic", str(tiles), "-o", str(output), "--blend", "last", "--virtual"]
    run(words)
    assert capsys.readouterr().out.startswith(f"Joined 3 rasters into {output}, 40 x 20 px")
    with rasterio.open(output) as file:
        assert file.read(1)[7].tolist() == [0] * 10 + [60] * 10 + [120] * 20
    run(words)
    assert "nothing to do" in capsys.readouterr().out


def test_settings_of_all_kinds_come_from_a_file(tiles, tmp_path):
    config = tmp_path / "mosaic.toml"
    config.write_text(
        "resolution = [20, 10]\nbounds = [500000, 3999800, 500200, 4000000]\nsnap = 'first'\n"
    )
    run(["mosaic", str(tiles), "-o", str(tmp_path / "out.tif"), "--config", str(config)])
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.res == (20, 10)
        assert file.shape == (20, 10)

import json

import numpy as np
import pytest
import rasterio
import torch

from geotranslate.choices import PREDICT_BLENDS, SEAMS
from geotranslate.cli.main import run
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.raster.domain import Band, Domain
from geotranslate.translation.bundle import save_bundle

SAR = Domain(
    bands=(Band(name="VV", unit="dB"),),
    dtype="float32",
    resolution_m=(10.0, 10.0),
    low=(-25.0,),
    high=(5.0,),
)
GREY = Domain(
    bands=(Band(name="grey", color="gray"),),
    dtype="uint8",
    resolution_m=(10.0, 10.0),
    low=(0.0,),
    high=(255.0,),
)
QUICK = ["--device", "cpu", "--precision", "float32", "--size", "32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    spec = GeneratorSpec(kind="resnet", width=4, blocks=1)
    return save_model(tmp_path_factory.mktemp("run") / "model", spec)


@pytest.fixture(scope="module")
def instance_model(tmp_path_factory):
    spec = GeneratorSpec(kind="resnet", width=4, blocks=1, norm="instance")
    return save_model(tmp_path_factory.mktemp("instance") / "model", spec)


def save_model(folder, spec):
    torch.manual_seed(0)
    save_bundle(
        folder,
        {"g_ab": build_generator(spec, 1, 1)},
        model="pix2pix",
        updates=1,
        generator=spec,
        domain_a=SAR,
        domain_b=GREY,
        chip_size=32,
    )
    return folder


@pytest.fixture
def scene(make_raster):
    pixels = np.random.default_rng(0).uniform(-20, 0, (1, 40, 50)).astype(np.float32)
    return make_raster("scene.tif", pixels, bands=SAR.bands)


def leave(words):
    """Run the command line; returns its exit status."""
    with pytest.raises(SystemExit) as left:
        run(list(map(str, words)))
    return left.value.code


def test_it_says_what_it_wrote_how_long_it_took_and_how_fast(model, scene, tmp_path, capsys):
    output = tmp_path / "new" / "out.tif"
    run(["predict", str(model), str(scene), "-o", str(output), *QUICK])
    told = capsys.readouterr()
    assert told.out.startswith(f"Wrote {output} in ")
    assert "2,000 pixels translated" in told.out
    assert "a second" in told.out
    assert "5 of 5" in told.err
    with rasterio.open(output) as dataset:
        assert dataset.shape == (40, 50)

    run(["predict", str(model), str(scene), "-o", str(output), *QUICK])
    assert capsys.readouterr().out.startswith(f"{output} was there already")


def test_a_run_folder_serves_as_the_model(model, scene, tmp_path):
    run(["predict", str(model.parent), str(scene), "-o", str(tmp_path / "out.tif"), *QUICK])
    assert (tmp_path / "out.tif").exists()


def test_json_is_one_line_and_the_only_output(model, scene, tmp_path, capsys):
    output = tmp_path / "out.tif"
    run(["predict", str(model), str(scene), "-o", str(output), "--json", *QUICK])
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert record["written"] == [str(output)]
    assert record["unchanged"] == []
    assert record["pixels"] == 2000
    assert record["pixels_per_second"] == pytest.approx(2000 / record["seconds"])
    assert told.err == ""


def test_settings_come_from_a_file_and_flags_win(model, scene, tmp_path):
    config = tmp_path / "predict.toml"
    config.write_text(
        'size = 64\ndevice = "cpu"\nprecision = "float32"\n'
        "bounds = [500000, 3999800, 500300, 4000000]\n"
    )
    words = ["predict", model, scene, "-o", tmp_path / "out.tif", "--config", config]
    run([*map(str, words), "--size", "32"])
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.bounds == (500_000, 3_999_800, 500_300, 4_000_000)
        assert json.loads(dataset.tags()["GEOTRANSLATE_JOB"])["size"] == 32


def test_bounds_may_begin_with_a_minus(model, make_raster, tmp_path):
    west = rasterio.Affine(10, 0, -500, 0, -10, 200)
    pixels = np.full((1, 40, 50), -9, np.float32)
    scene = make_raster("scene.tif", pixels, bands=SAR.bands, transform=west)
    output = tmp_path / "out.tif"
    words = [model, scene, "-o", output, "--bounds", "-450,-100,-250,100", *QUICK]
    run(["predict", *map(str, words)])
    with rasterio.open(output) as dataset:
        assert dataset.bounds == (-450, -100, -250, 100)


@pytest.mark.parametrize("choices", [PREDICT_BLENDS, SEAMS])
def test_the_help_names_every_choice(capsys, choices):
    run(["predict", "--help"])
    assert f"[{'|'.join(choices)}]" in capsys.readouterr().out


def test_statistics_are_written_once_and_serve_the_next_command(
    instance_model, scene, tmp_path, capsys
):
    file = tmp_path / "statistics.json"
    words = ["predict", str(instance_model), str(scene), "--statistics", str(file), *QUICK]
    run([*words, "-o", str(tmp_path / "one.tif")])
    before = file.read_bytes()
    assert f"The statistics were measured and written to {file}." in capsys.readouterr().out
    run([*words, "-o", str(tmp_path / "two.tif"), "--seams", "scene", "--blend", "hann"])
    assert file.read_bytes() == before
    assert json.loads(before)["scenes"] == [str(scene)]
    assert f"The statistics were read from {file}." in capsys.readouterr().out
    run([*words, "-o", str(tmp_path / "two.tif"), "--blend", "hann", "--json"])
    told = json.loads(capsys.readouterr().out)["statistics"]
    assert told == {"file": str(file), "measured": False}


def test_the_check_for_seams_says_what_it_found(model, scene, tmp_path, capsys):
    output = tmp_path / "out.tif"
    words = ["predict", str(model), str(scene), "-o", str(output), "--check-seams", *QUICK]
    run(words)
    said = capsys.readouterr().err
    assert f"{output}: the result does not depend on the cut: in other windows, pixels" in said
    assert "The lines where windows meet do not show: their seam score is " in said
    assert "% of rasters (they show at 0.5 % and less)." in said
    run([*words, "--json"])
    found = json.loads(capsys.readouterr().out)["seams"][str(output)]
    assert found["mismatch"] <= 1e-4
    assert not found["visible"]
    assert 0.005 < found["chance"] <= 1
    run([*words[:-1], "64", "--overwrite"])
    assert "one window holds all of it" in capsys.readouterr().err


def test_a_result_that_depends_on_the_cut_is_called_so_with_the_mend(
    instance_model, scene, tmp_path, capsys
):
    words = ["predict", str(instance_model), str(scene), "--check-seams", *QUICK]
    run([*words, "-o", str(tmp_path / "tile.tif"), "--seams", "tile"])
    said = capsys.readouterr().err
    assert "tile.tif: the result depends on the cut: in other windows, pixels change by 0." in said
    assert "`--seams scene` mends that." in said
    run([*words, "-o", str(tmp_path / "other.tif"), "--seams", "scene"])
    assert "other.tif: the result does not depend on the cut: " in capsys.readouterr().err


def test_the_check_for_seams_says_where_there_is_too_little_to_tell(
    model, make_raster, tmp_path, capsys
):
    pixels = np.full((1, 600, 600), -999, np.float32)
    pixels[:, 3:9, 3:9] = -12
    scene = make_raster("mostly.tif", pixels, nodata=-999.0)
    words = ["predict", str(model), str(scene), "-o", str(tmp_path / "o.tif"), "--check-seams"]
    run([*words, *QUICK])
    said = capsys.readouterr().err
    assert "places where windows meet hold no valid pixel, so none was translated again" in said
    assert "Too little data lies at the lines" in said
    assert "one window" not in said


@pytest.mark.parametrize(
    ("words", "status", "mend"),
    [
        (["--bounds", "1,2,3"], 2, "Write left,bottom,right,top"),
        (["--bounds", "10,0,0,10"], 2, "Give left,bottom,right,top, with left below right"),
        (["--bounds", "0,0,10,10"], 2, "Give bounds as left,bottom,right,top"),
        (["--aoi", "missing.gpkg"], 2, "Give a file of polygons"),
        (["--size", "0"], 2, "1024 is a good one"),
        (["--direction", "ba"], 2, "Say --direction ab, or train with --model cyclegan"),
        (["--bands", "1,1"], 2, "Choose with --bands"),
        (["--bands", "HH"], 2, "Name one of them"),
        (["--blend", "mean"], 2, "crop"),
        (["--seams", "scene"], 2, "Leave out --seams"),
        (["--statistics", "file.json"], 2, "Leave out --statistics"),
        (["--decibel", "amplitude", "--device", "tpu"], 2, "Choose one of these, or auto"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence_with_the_mend(
    model, scene, tmp_path, capsys, words, status, mend
):
    output = tmp_path / "out.tif"
    assert leave(["predict", model, scene, "-o", output, *words]) == status
    told = capsys.readouterr().err
    assert mend in told
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        (None, "Check the path"),
        (b"", "Copy or download it again"),
        (b"not a raster", "Give a GeoTIFF, VRT or another format"),
    ],
)
def test_scenes_that_are_no_rasters_are_refused(model, tmp_path, capsys, content, mend):
    scene = tmp_path / "scene.tif"
    if content is not None:
        scene.write_bytes(content)
    assert leave(["predict", model, scene, "-o", tmp_path / "out.tif"]) == 2
    assert mend in capsys.readouterr().err
    assert not (tmp_path / "out.tif").exists()


def test_a_bundle_that_was_changed_is_refused(model, scene, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (weights,) = copy.glob("g_ab-*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert leave(["predict", copy, scene, "-o", tmp_path / "out.tif"]) == 2
    assert "Copy the whole bundle again" in capsys.readouterr().err
    weights.unlink()
    assert leave(["predict", copy, scene, "-o", tmp_path / "out.tif"]) == 2
    assert "Copy the whole bundle again" in capsys.readouterr().err


def test_linear_power_for_a_model_of_decibels_is_refused_with_the_mend(
    model, make_raster, tmp_path, capsys
):
    scene = make_raster("linear.tif", np.full((1, 30, 30), 0.05, np.float32))
    words = ["predict", model, scene, "-o", tmp_path / "out.tif", *QUICK]
    assert leave(words) == 2
    assert "--decibel power" in capsys.readouterr().err


def test_an_output_made_by_other_words_is_refused_with_status_2(model, scene, tmp_path, capsys):
    words = ["predict", str(model), str(scene), "-o", str(tmp_path / "out.tif"), *QUICK]
    run(words)
    assert leave([*words, "--size", "64"]) == 2
    assert "size was 32 and is now 64" in capsys.readouterr().err
    run([*words, "--size", "64", "--overwrite"])

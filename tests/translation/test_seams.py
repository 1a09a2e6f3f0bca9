"""One result, however a scene is cut: the promise, with a network that has learned a little."""

import json

import numpy as np
import pytest
import rasterio
import torch
from torch.nn import functional

from geotranslate.errors import SettingError
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.networks.context import Context
from geotranslate.raster.domain import Band, Domain
from geotranslate.translation.bundle import save_bundle
from geotranslate.translation.predict import predict_scenes

HALO_SIDE = 2048  # one window holds every scene here

SAR = Domain(
    bands=(Band(name="VV", unit="dB"), Band(name="VH", unit="dB")),
    dtype="float32",
    nodata=-999.0,
    resolution_m=(10.0, 10.0),
    low=(-25.0, -30.0),
    high=(5.0, 0.0),
)
RGB = Domain(
    bands=tuple(Band(name=name, color=name) for name in ("red", "green", "blue")),
    dtype="uint8",
    resolution_m=(10.0, 10.0),
    low=(0.0,) * 3,
    high=(255.0,) * 3,
)
FINE = RGB.model_copy(update={"dtype": "float32"})
WORDS = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def spec_of(norm, width=16):
    return GeneratorSpec(kind="resnet", width=width, blocks=1, norm=norm)


def drawn(spec):
    """A generator whose weights are random, and strong enough that far pixels show."""
    torch.manual_seed(0)
    generator = build_generator(spec, 2, 3)
    for weight in generator.parameters():
        if weight.ndim > 1:
            torch.nn.init.xavier_normal_(weight)
    return generator.eval()


def learned(spec):
    """A generator after 30 updates on small crops of a made-up pair."""
    generator = drawn(spec).train()
    optimizer = torch.optim.Adam(generator.parameters(), 1e-3)
    random = np.random.default_rng(0)
    for _ in range(30):
        radar = torch.from_numpy(landscape(random, 48, 48))[None] / 15 + 0.5
        colour = functional.avg_pool2d(radar, 5, 1, 2)[:, [0, 1, 0]].clamp(-1, 1)
        loss = functional.l1_loss(generator(radar, Context(track=True)), colour)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return generator.eval()


def landscape(random, rows, cols):
    """Decibels: speckle on ground whose level changes over the scene."""
    row, col = np.indices((rows, cols)) / 300
    level = -14 + 6 * np.sin(2 * row + 3 * col) + 3 * (col > 1) + 4 * row
    looks = random.gamma(4, 0.25, (2, rows, cols))
    return (level + [[[0.0]], [[-6.0]]] + 10 * np.log10(looks)).astype(np.float32)


def save(folder, spec, generator, target):
    save_bundle(
        folder,
        {"g_ab": generator},
        model="pix2pix",
        updates=30,
        generator=spec,
        domain_a=SAR,
        domain_b=target,
        chip_size=48,
    )
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Bundles by norm, whether they learned, and target; made when they are asked for."""
    folder, made = tmp_path_factory.mktemp("models"), {}

    def make(norm, *, trained=True, target=FINE, width=16):
        key = f"{norm}-{trained}-{target.dtype}-{width}"
        if key not in made:
            spec = spec_of(norm, width)
            generator = learned(spec) if trained else drawn(spec)
            made[key] = save(folder / key, spec, generator, target)
        return made[key]

    return make


def write_scene(make_raster, name, rows, cols):
    """A scene of which a wedge is invalid."""
    pixels = landscape(np.random.default_rng(5), rows, cols)
    pixels[:, np.arange(cols) < np.arange(rows)[:, None] / 8] = SAR.nodata
    return make_raster(name, pixels, bands=SAR.bands, nodata=SAR.nodata)


@pytest.fixture
def scene(make_raster):
    return write_scene(make_raster, "large.tif", 701, 773)


@pytest.fixture
def small(make_raster):
    return write_scene(make_raster, "small.tif", 331, 413)


def translate(model, scene, output, **words):
    *_, last = predict_scenes(model, [scene], output, **WORDS | words)
    assert last.state in ("written", "checked")
    with rasterio.open(output) as file:
        return file.read(), file.dataset_mask() > 0


def mean_difference(one, other):
    """In parts of the standard deviation."""
    valid = one[1] & other[1]
    return np.abs(one[0] - other[0])[:, valid].mean() / one[0][:, valid].std()


CUTS = [
    ("batch", None, True, [128, 512]),
    ("renorm", None, True, [256]),
    ("channel", None, True, [256]),
    ("none", None, True, [256]),
    ("instance", "scene", True, [128]),
    ("instance", "dense", True, [512]),
    ("batch", None, False, [256]),
]


def check_cuts(model, scene, folder, seams, sizes):
    results = [
        translate(model, scene, folder / f"{size}.tif", size=size, seams=seams)
        for size in (HALO_SIDE, *sizes)
    ]
    (whole, valid), *others = results
    assert 0.5 < valid.mean() < 1
    assert whole[:, valid].std() > 1  # of 255
    for values, found in others:
        assert (found == valid).all()
        assert np.abs(values - whole)[:, valid].max() <= 1e-4 * 255
    return results


@pytest.mark.parametrize(("norm", "seams", "trained", "sizes"), CUTS)
def test_no_pixel_depends_on_the_size_of_cores(
    models, scene, tmp_path, norm, seams, trained, sizes
):
    check_cuts(models(norm, trained=trained), scene, tmp_path, seams, sizes)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "seams"), [cut[:2] for cut in CUTS if cut[2]])
def test_no_pixel_of_a_wide_network_depends_on_the_size_of_cores(
    models, make_raster, tmp_path, norm, seams
):
    pixels = landscape(np.random.default_rng(5), 1099, 901)
    pixels[:, :300, :400] = SAR.nodata
    scene = make_raster("scene.tif", pixels, bands=SAR.bands, nodata=SAR.nodata)
    check_cuts(models(norm, width=64), scene, tmp_path, seams, [128, 256, 512])


@pytest.mark.parametrize("seams", ["scene", "dense"])
def test_in_bytes_a_pixel_differs_by_one_at_most(models, small, tmp_path, seams):
    model = models("instance", target=RGB)
    (one, valid), (other, _) = (
        translate(model, small, tmp_path / f"{size}.tif", size=size, seams=seams)
        for size in (128, HALO_SIDE)
    )
    assert np.abs(one.astype(int) - other)[:, valid].max() <= 1


def test_each_window_for_itself_depends_on_the_cut_and_a_scene_does_not(models, small, tmp_path):
    model = models("instance")
    differences = {}
    for seams in ("tile", "scene", "dense"):
        one, other = (
            translate(model, small, tmp_path / f"{seams}{size}.tif", size=size, seams=seams)
            for size in (64, 128)
        )
        differences[seams] = mean_difference(one, other)
    assert differences["tile"] > 0.02
    assert max(differences["scene"], differences["dense"]) < 1e-4


def test_scene_is_the_default(models, small, tmp_path):
    model = models("instance")
    one, _ = translate(model, small, tmp_path / "one.tif")
    other, _ = translate(model, small, tmp_path / "other.tif", seams="scene")
    assert (one == other).all()


@pytest.mark.parametrize("seams", ["scene", "dense"])
def test_a_part_has_the_statistics_of_the_whole_scene(models, small, tmp_path, seams):
    model = models("instance")
    whole, _ = translate(model, small, tmp_path / "whole.tif", seams=seams, size=128, batch=1)
    bounds = (501_000, 3_997_000, 503_500, 3_999_500)
    part, valid = translate(
        model, small, tmp_path / "part.tif", seams=seams, size=128, batch=1, bounds=bounds
    )
    assert valid.all()
    assert np.abs(part - whole[:, 50:300, 100:350]).max() <= 1e-4 * 255


def test_interrupted_and_gone_on_with_it_has_the_same_bytes(models, small, tmp_path):
    words = WORDS | {"seams": "dense", "size": 128, "batch": 1}
    model, output = models("instance"), tmp_path / "out.tif"
    list(predict_scenes(model, [small], tmp_path / "undisturbed.tif", **words))
    for stop in (1, 5):  # after a row of cells; among the cores
        steps = predict_scenes(model, [small], output, **words)
        for step in steps:
            if step.done == stop:
                break
        steps.close()
        assert list((tmp_path / "out.tif.parts").glob("cells_*"))
    list(predict_scenes(model, [small], output, **words))
    assert output.read_bytes() == (tmp_path / "undisturbed.tif").read_bytes()
    assert not (tmp_path / "out.tif.parts").exists()


# ------------------------------------------------------------------------- files of statistics


def halves(make_raster):
    """Neighbours that hold different ground."""
    pixels = landscape(np.random.default_rng(5), 300, 600)
    return [
        make_raster(f"{name}.tif", pixels[:, :, cols], bands=SAR.bands, nodata=-999.0, col=start)
        for name, cols, start in (("west", np.s_[:300], 0), ("east", np.s_[300:], 300))
    ]


def test_scenes_of_one_file_of_statistics_match(models, make_raster, tmp_path):
    model, scenes = models("instance"), halves(make_raster)
    file = tmp_path / "scenes.json"
    list(predict_scenes(model, scenes, tmp_path / "both", statistics=file, **WORDS))
    record = json.loads(file.read_text())
    assert record["scenes"] == [str(scene) for scene in scenes]
    assert record["pixels"] > 100_000
    before = file.read_bytes()

    alone, _ = translate(model, scenes[1], tmp_path / "alone.tif", statistics=file)
    assert file.read_bytes() == before
    with rasterio.open(tmp_path / "both" / "east.tif") as both:
        assert (both.read() == alone).all()
    own, _ = translate(model, scenes[1], tmp_path / "own.tif")
    assert np.abs(own - alone).mean() > 0.5  # of 255


def test_another_file_of_statistics_is_another_work(models, small, tmp_path):
    model, file = models("instance"), tmp_path / "scene.json"
    translate(model, small, tmp_path / "out.tif", statistics=file)
    record = json.loads(file.read_text())
    next(iter(record["layers"].values()))["mean"][0] += 1
    file.write_text(json.dumps(record))
    with pytest.raises(Exception, match=r"statistics was .* --overwrite"):
        predict_scenes(model, [small], tmp_path / "out.tif", statistics=file, **WORDS)


def test_statistics_of_another_model_are_refused(models, small, tmp_path):
    file = tmp_path / "scene.json"
    translate(models("instance"), small, tmp_path / "out.tif", statistics=file)
    with pytest.raises(SettingError, match="Give a file that is not there yet"):
        predict_scenes(
            models("instance", target=RGB), [small], tmp_path / "b.tif", statistics=file, **WORDS
        )


@pytest.mark.parametrize(
    ("norm", "words", "mend"),
    [
        ("batch", {"seams": "scene"}, "Leave out --seams"),
        ("batch", {"statistics": "file.json"}, "Leave out --statistics"),
        ("instance", {"seams": "none"}, "Choose one of tile, scene, dense"),
        ("instance", {"seams": "tile", "statistics": "file.json"}, "Say --seams scene"),
        ("instance", {"statistics": __file__}, "the name of a file that is not there yet"),
    ],
)
def test_choices_that_mean_nothing_are_refused_with_the_mend(
    models, small, tmp_path, norm, words, mend
):
    with pytest.raises(SettingError, match=mend):
        predict_scenes(models(norm), [small], tmp_path / "out.tif", **WORDS, **words)


def test_a_scene_without_valid_pixels_is_written_all_the_same(models, make_raster, tmp_path):
    scene = make_raster("scene.tif", np.full((2, 90, 90), -999, np.float32), nodata=-999.0)
    for seams in ("scene", "dense"):
        _, valid = translate(models("instance"), scene, tmp_path / f"{seams}-.tif", seams=seams)
        assert not valid.any()


# ------------------------------------------------------------------------------- --check-seams


@pytest.mark.parametrize(
    ("seams", "blend"), [("scene", "crop"), ("tile", "crop"), ("tile", "hann")]
)
def test_the_check_tells_a_cut_that_shows_from_one_that_does_not(
    models, small, tmp_path, seams, blend
):
    words = {"size": 128, "seams": seams, "blend": blend}
    *_, step = predict_scenes(
        models("instance"), [small], tmp_path / "out.tif", check_seams=True, **WORDS, **words
    )
    assert step.state == "checked"
    found = step.seams
    assert found.pixels > 10_000
    if seams == "scene":
        assert found.mismatch < 1e-4
        assert not found.visible
    else:
        assert found.mismatch > 0.005
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out.tif"]


def test_the_check_looks_at_what_was_finished_before_and_at_parts(models, small, tmp_path):
    words = WORDS | {"size": 128, "bounds": (501_010, 3_996_820, 504_000, 3_999_500)}
    model, output = models("instance"), tmp_path / "out.tif"
    list(predict_scenes(model, [small], output, **words))
    states = [
        (step.state, step.seams)
        for step in predict_scenes(model, [small], output, check_seams=True, **words)
    ]
    assert [state for state, _ in states] == ["translating", "unchanged", "checked"]
    assert states[-1][1].mismatch < 1e-4


def test_where_no_cores_meet_there_is_nothing_to_check(models, small, tmp_path):
    *_, step = predict_scenes(
        models("batch"), [small], tmp_path / "out.tif", check_seams=True, size=1024, **WORDS
    )
    assert step.state == "checked"
    assert step.seams is None

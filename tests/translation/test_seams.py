"""One result, however a scene is cut: the promise, with a network that has learned a little."""

import json

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from torch.nn import functional

from geotranslate.errors import OutputError, SettingError, TakenError
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.networks.context import Context
from geotranslate.raster.grid import Grid
from geotranslate.raster.scene import Chip, Scene
from geotranslate.translation import cells, norm_statistics, predict
from geotranslate.translation.bundle import save_bundle
from tests.translation.predicting import RGB, SAR, steps_of

HALO_SIDE = 2048  # one window holds every scene here

FINE = RGB.model_copy(update={"dtype": "float32"})


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def spec_of(norm, width=16, blocks=1):
    return GeneratorSpec(kind="resnet", width=width, blocks=blocks, norm=norm)


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

    def make(norm, *, trained=True, target=FINE, width=16, blocks=1):
        key = f"{norm}-{trained}-{target.dtype}-{width}-{blocks}"
        if key not in made:
            spec = spec_of(norm, width, blocks)
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
    *_, last = steps_of(model, [scene], output, **words)
    assert last.state in ("written", "checked")
    with rasterio.open(output) as file:
        return file.read(), file.dataset_mask() > 0


def mean_difference(one, other):
    """In parts of the standard deviation."""
    valid = one[1] & other[1]
    return np.abs(one[0] - other[0])[:, valid].mean() / one[0][:, valid].std()


FORMS = [
    *(("batch", None), ("renorm", None), ("channel", None), ("none", None)),
    *(("instance", "scene"), ("instance", "dense")),
]
SIZES = [128, 256, 512]

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
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(("norm", "seams"), FORMS)
def test_no_pixel_of_any_form_depends_on_any_size_of_cores(
    models, scene, tmp_path, norm, seams, trained
):
    check_cuts(models(norm, trained=trained), scene, tmp_path, seams, SIZES)


@pytest.mark.slow
def test_no_pixel_of_a_deep_network_depends_on_the_size_of_cores(models, scene, tmp_path):
    check_cuts(models("instance", width=8, blocks=9), scene, tmp_path, "scene", SIZES)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "seams"), FORMS)
def test_no_pixel_of_a_wide_network_depends_on_the_size_of_cores(
    models, make_raster, tmp_path, norm, seams
):
    pixels = landscape(np.random.default_rng(5), 1099, 901)
    pixels[:, :300, :400] = SAR.nodata
    scene = make_raster("scene.tif", pixels, bands=SAR.bands, nodata=SAR.nodata)
    check_cuts(models(norm, width=64), scene, tmp_path, seams, SIZES)


@pytest.mark.parametrize(("norm", "seams"), [("batch", None), ("instance", "scene")])
def test_the_mean_over_turned_windows_does_not_depend_on_the_cut(
    models, small, tmp_path, norm, seams
):
    model = models(norm)
    as_it_lies, _ = translate(model, small, tmp_path / "one.tif", seams=seams)
    words = {"seams": seams, "turns": 4}
    whole, valid = translate(model, small, tmp_path / "whole.tif", **words)
    cut, _ = translate(model, small, tmp_path / "cut.tif", size=128, **words)
    assert np.abs(cut - whole)[:, valid].max() <= 1e-4 * 255
    assert np.abs(as_it_lies - whole)[:, valid].max() > 0.1


def check_bytes(model, scene, folder, seams, sizes):
    (whole, valid), *others = (
        translate(model, scene, folder / f"{size}.tif", size=size, seams=seams)
        for size in (HALO_SIDE, *sizes)
    )
    assert whole[:, valid].std() > 1
    for values, _ in others:
        assert np.abs(values.astype(int) - whole)[:, valid].max() <= 1


@pytest.mark.parametrize(("norm", "seams"), [FORMS[0], *FORMS[-2:]])
def test_in_bytes_a_pixel_differs_by_one_at_most(models, small, tmp_path, norm, seams):
    check_bytes(models(norm, target=RGB), small, tmp_path, seams, [128])


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "seams"), FORMS)
def test_in_bytes_of_any_form_and_size_a_pixel_differs_by_one_at_most(
    models, scene, tmp_path, norm, seams
):
    check_bytes(models(norm, target=RGB), scene, tmp_path, seams, SIZES)


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
    words = {"seams": "dense", "size": 128, "batch": 1}
    model, output = models("instance"), tmp_path / "out.tif"
    list(steps_of(model, [small], tmp_path / "undisturbed.tif", **words))
    for stop in (1, 5):  # after a row of cells; among the cores
        steps = steps_of(model, [small], output, **words)
        for step in steps:
            if step.done == stop:
                break
        steps.close()
        assert list((tmp_path / "out.tif.parts").glob("cells_*"))
    list(steps_of(model, [small], output, **words))
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
    list(steps_of(model, scenes, tmp_path / "both", statistics=file))
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


def test_the_lock_that_a_killed_process_left_beside_its_statistics_goes(models, small, tmp_path):
    model, file = models("instance"), tmp_path / "scene.json"
    list(steps_of(model, [small], tmp_path / "out.tif", statistics=file))
    lock = tmp_path / "scene.json.lock"
    lock.touch()
    list(steps_of(model, [small], tmp_path / "out.tif", statistics=file))
    assert not lock.exists()


def test_another_file_of_statistics_is_another_work(models, small, tmp_path):
    model, file = models("instance"), tmp_path / "scene.json"
    translate(model, small, tmp_path / "out.tif", statistics=file)
    record = json.loads(file.read_text())
    next(iter(record["layers"].values()))["mean"][0] += 1
    file.write_text(json.dumps(record))
    with pytest.raises(Exception, match=r"statistics was .* --overwrite"):
        steps_of(model, [small], tmp_path / "out.tif", statistics=file)


def test_statistics_of_another_model_are_refused(models, small, tmp_path):
    file = tmp_path / "scene.json"
    translate(models("instance"), small, tmp_path / "out.tif", statistics=file)
    with pytest.raises(SettingError, match="Give a file that is not there yet"):
        steps_of(models("instance", target=RGB), [small], tmp_path / "b.tif", statistics=file)


@pytest.mark.parametrize(
    ("norm", "words", "mend"),
    [
        ("batch", {"seams": "scene"}, "Leave out --seams"),
        ("batch", {"statistics": "file.json"}, "Leave out --statistics"),
        ("instance", {"statistics": __file__}, "the name of a file that is not there yet"),
    ],
)
def test_choices_that_mean_nothing_are_refused_with_the_mend(
    models, small, tmp_path, norm, words, mend
):
    with pytest.raises(SettingError, match=mend):
        steps_of(models(norm), [small], tmp_path / "out.tif", **words)


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
    *_, step = steps_of(
        models("instance"), [small], tmp_path / "out.tif", check_seams=True, **words
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
    words = {"size": 128, "bounds": (501_010, 3_996_820, 504_000, 3_999_500)}
    model, output = models("instance"), tmp_path / "out.tif"
    list(steps_of(model, [small], output, **words))
    states = [
        (step.state, step.seams)
        for step in steps_of(model, [small], output, check_seams=True, **words)
    ]
    assert [state for state, _ in states] == ["translating", "unchanged", "checked"]
    assert states[-1][1].mismatch < 1e-4


@pytest.mark.parametrize("seams", ["scene", "dense"])
def test_what_the_check_measures_of_a_finished_output_is_never_taken_for_parts(
    models, small, tmp_path, monkeypatch, seams
):
    words = {"size": 128, "seams": seams}
    model, output = models("instance"), tmp_path / "out.tif"
    list(steps_of(model, [small], output, **words))
    beside = []

    def look(*_):
        beside.extend(tmp_path.glob("out.tif.parts/*"))

    monkeypatch.setattr(predict, "check_sample", look)
    *_, last = steps_of(model, [small], output, check_seams=True, **words)
    assert last.state == "checked"
    assert beside == []


def test_where_no_cores_meet_there_is_nothing_to_check(models, small, tmp_path):
    *_, step = steps_of(models("batch"), [small], tmp_path / "out.tif", check_seams=True, size=1024)
    assert step.state == "checked"
    assert step.seams is None


# ------------------------------------------------------------- scenes that hold next to no data


@pytest.fixture(scope="module")
def drawn_model(models):
    return models("instance", trained=False, width=4)


def island(make_raster, rows, cols, *, name="island.tif", side=700, hold=SAR.nodata):
    """A scene of which only these rows and columns are valid."""
    pixels = np.full((2, side, side), hold, np.float32)
    pixels[:, rows, cols] = landscape(np.random.default_rng(5), side, side)[:, rows, cols]
    return make_raster(name, pixels, bands=SAR.bands, nodata=SAR.nodata)


def test_an_island_that_the_sample_misses_is_searched_for(
    drawn_model, make_raster, tmp_path, monkeypatch
):
    monkeypatch.setattr(norm_statistics, "MOST_PLACES", 1)
    monkeypatch.setattr(norm_statistics, "SAMPLE_PIXELS", 128 * 128)  # the centre alone
    scene = island(make_raster, slice(20, 120), slice(30, 180))
    file = tmp_path / "island.json"
    words = {"seams": "scene", "statistics": file}
    one, valid = translate(drawn_model, scene, tmp_path / "1.tif", size=64, **words)
    other, _ = translate(drawn_model, scene, tmp_path / "2.tif", size=512, seams="scene")
    assert valid.sum() == 100 * 150
    assert np.abs(one - other)[:, valid].max() <= 1e-4 * 255
    assert json.loads(file.read_text())["pixels"] > 5000


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_any_valid_pixel_is_found(data):
    shape = data.draw(st.tuples(st.integers(1, 300), st.integers(1, 300)))
    row, col = (data.draw(st.integers(0, length - 1)) for length in shape)
    valid = np.zeros(shape, bool)
    valid[row, col] = True
    grid = Grid(CRS.from_epsg(32633), Affine.identity(), shape[1], shape[0])

    class Held(Scene):
        def __init__(self):
            self.grid = grid

        def read(self, window):
            place = window.toslices()
            return Chip(valid[None, *place].astype(np.float32), valid[place], grid)

    count = data.draw(st.integers(1, 4))
    chips = norm_statistics.sample_chips(Held(), count, side=32, stride=4)
    assert chips
    assert all(chip.valid.shape == (32, 32) and chip.valid.any() for chip in chips)
    assert len(chips) <= count


@pytest.mark.parametrize("seams", ["scene", "dense"])
@pytest.mark.parametrize("width", [1, 3])
def test_one_or_a_few_valid_pixels_are_translated(drawn_model, make_raster, tmp_path, seams, width):
    scene = island(make_raster, slice(40, 41), slice(50, 50 + width), side=90)
    values, valid = translate(drawn_model, scene, tmp_path / "out.tif", seams=seams)
    assert valid.sum() == width
    assert np.isfinite(values[:, valid]).all()


def test_the_only_scene_with_data_may_be_the_smallest(drawn_model, make_raster, tmp_path):
    empty = island(make_raster, slice(0), slice(0), side=1500)
    small = island(make_raster, slice(90), slice(90), name="small.tif", side=90)
    file = tmp_path / "both.json"
    list(steps_of(drawn_model, [empty, small], tmp_path / "o", statistics=file))
    assert json.loads(file.read_text())["pixels"] >= 90 * 90


# ----------------------------------------------------------------- files that cannot be, or lie


def test_outputs_are_checked_before_anything_is_measured(drawn_model, make_raster, tmp_path):
    scene = island(make_raster, slice(90), slice(90), side=90)
    file, foreign = tmp_path / "new" / "j.json", tmp_path / "j.tif"
    foreign.write_bytes(b"mine")
    with pytest.raises(TakenError, match="was not made by this command"):
        steps_of(drawn_model, [scene], foreign, statistics=file)
    assert not file.exists()
    for taken, output in ((tmp_path / "k.tif", tmp_path / "k.tif"), (scene, tmp_path / "l.tif")):
        with pytest.raises(SettingError, match="Choose another file"):
            steps_of(drawn_model, [scene], output, statistics=taken)
    with pytest.raises(OutputError, match=r"j\.tif"):
        steps_of(drawn_model, [scene], tmp_path / "o.tif", statistics=foreign / "s.json")


def test_statistics_are_measured_in_counted_steps_and_folders_are_made(
    drawn_model, make_raster, tmp_path
):
    scenes = [
        island(make_raster, slice(90), slice(90), name=f"{name}.tif", side=90) for name in "ab"
    ]
    file = tmp_path / "new" / "both.json"
    steps = steps_of(drawn_model, scenes, tmp_path / "o", statistics=file)
    assert not file.exists()
    found = list(steps)
    assert [step.output for step in found if step.state == "measuring"] == [file] * 3
    assert [step.done for step in found[:4]] == [0, 1, 2, 2]
    assert found[-1].done == found[-1].total == 6
    assert {step.total for step in found} == {6}
    assert [path.name for path in file.parent.iterdir()] == ["both.json"]
    # Measured again, since the file is gone, they are the same: nothing is left to do.
    file.unlink()
    again = list(steps_of(drawn_model, scenes, tmp_path / "o", statistics=file))
    assert [step.state for step in again[4::2]] == ["unchanged"] * 2


def test_an_output_with_other_statistics_is_refused_before_measuring(
    drawn_model, make_raster, tmp_path
):
    scene = island(make_raster, slice(90), slice(90), side=90)
    translate(drawn_model, scene, tmp_path / "o.tif")
    file = tmp_path / "s.json"
    with pytest.raises(TakenError, match="statistics was unset"):
        steps_of(drawn_model, [scene], tmp_path / "o.tif", statistics=file)
    assert not file.exists()


def test_two_commands_do_not_measure_one_file(drawn_model, make_raster, tmp_path):
    scene = island(make_raster, slice(90), slice(90), side=90)
    file = tmp_path / "s.json"
    steps = steps_of(drawn_model, [scene], tmp_path / "o.tif", statistics=file)
    other = steps_of(drawn_model, [scene], tmp_path / "p.tif", statistics=file)
    while next(steps).done == 0:
        pass
    next(other)
    with pytest.raises(OutputError, match="written by another process"):
        next(other)
    list(steps)
    last = list(steps_of(drawn_model, [scene], tmp_path / "p.tif", statistics=file))[-1]
    assert last.state == "written"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda layer: layer.pop("mean"), "mean: Field required"),
        (lambda layer: layer["mean"].__setitem__(0, float("nan")), "finite number"),
        (lambda layer: layer["variance"].__setitem__(0, float("inf")), "finite number"),
        (lambda layer: layer["variance"].__setitem__(0, -1), "greater than or equal to 0"),
        (lambda layer: layer["mean"].pop(), "means and"),
        (lambda layer: (layer["mean"].pop(), layer["variance"].pop()), "changed by hand"),
    ],
)
def test_a_file_of_statistics_that_is_wrong_is_refused(
    drawn_model, make_raster, tmp_path, change, said
):
    scene = island(make_raster, slice(90), slice(90), side=90)
    file = tmp_path / "s.json"
    translate(drawn_model, scene, tmp_path / "o.tif", statistics=file)
    record = json.loads(file.read_text())
    change(next(iter(record["layers"].values())))
    file.write_text(json.dumps(record))
    with pytest.raises(SettingError, match=said):
        steps_of(drawn_model, [scene], tmp_path / "p.tif", statistics=file)


@pytest.mark.parametrize(("seams", "other"), [("scene", "dense"), ("dense", "scene")])
def test_too_little_memory_for_measuring_is_said_in_a_sentence(
    drawn_model, make_raster, tmp_path, monkeypatch, seams, other
):
    def full(*_):
        torch.empty(2**50)

    monkeypatch.setattr(norm_statistics, "measure_statistics", full)
    monkeypatch.setattr(cells, "measure_cells", full)
    scene = island(make_raster, slice(90), slice(90), side=90)
    with pytest.raises(
        SettingError, match=rf"1 window of .* memory of cpu\. Say --seams {other}\.$"
    ):
        translate(drawn_model, scene, tmp_path / "o.tif", seams=seams)

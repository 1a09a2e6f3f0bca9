import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp, MaskFlags
from rio_cogeo.cogeo import cog_validate
from torch import nn

from geotranslate.errors import (
    BundleError,
    GridError,
    OutputError,
    OutsideError,
    RasterError,
    SettingError,
)
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.networks.context import PLAIN
from geotranslate.networks.norms import reestimate_statistics
from geotranslate.raster.domain import Band, Domain
from geotranslate.raster.job import file_job
from geotranslate.raster.mosaic import mosaic_rasters
from geotranslate.raster.output import read_record
from geotranslate.translation import predict
from geotranslate.translation.bundle import Translator, save_bundle
from tests.conftest import NORTH_UP
from tests.fair_clock import FairClock
from tests.translation.predicting import RGB, SAR, steps_of

MAP = Domain(
    bands=(Band(name="height", unit="m"), Band(name="moisture", scale=0.5)),
    dtype="float32",
    nodata=-1.0,
    resolution_m=(10.0, 10.0),
    low=(0.0, 0.0),
    high=(1.0, 1.0),
)
RESNET = GeneratorSpec(kind="resnet", width=4, blocks=1)  # stride 4, halo 20
UNET = GeneratorSpec(kind="unet", width=2, depth=5)  # stride 32, halo 64


class Identity(nn.Module):
    """A generator that changes nothing, and remembers how often and on what it was asked."""

    stride, halo = 4, 8

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __deepcopy__(self, memo):
        return self

    def forward(self, x, context=PLAIN):
        self.shapes.append(tuple(x.shape))
        return x


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks as small as these lose more by waiting for a second thread than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def serve(monkeypatch):
    """Lets predict find a generator that is in no bundle."""

    def use(generator, source, target):
        translator = Translator(generator.eval(), source, target)
        bundle = SimpleNamespace(
            identity="made for a test", translator=lambda direction: translator
        )
        monkeypatch.setattr(predict, "load_bundle", lambda path: bundle)
        return generator

    return use


def random_generator(spec, bands_in=2, bands_out=2):
    torch.manual_seed(3)
    generator = build_generator(spec, bands_in, bands_out)
    for weight in generator.parameters():
        if weight.ndim > 1:
            nn.init.xavier_normal_(weight)  # strong enough that far pixels show
    return generator.eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


def make_bundle(folder, generators=("g_ab",), spec=RESNET):
    save_bundle(
        folder,
        {name: random_generator(spec) for name in generators},
        model="pix2pix",
        updates=1,
        generator=spec,
        domain_a=SAR,
        domain_b=MAP,
        chip_size=32,
    )
    return folder


def sar_pixels(rows, cols, seed=0):
    """Decibels, and where they are valid: a wedge at the left is not."""
    random = np.random.default_rng(seed)
    pixels = random.uniform(-24, -1, (2, rows, cols)).astype(np.float32)
    valid = np.arange(cols) >= np.arange(rows)[:, None] / 3
    pixels[:, ~valid] = SAR.nodata
    return pixels, valid


@pytest.fixture
def sar_scene(make_raster):
    pixels, _ = sar_pixels(91, 133)
    return make_raster("sar.tif", pixels, bands=SAR.bands, nodata=SAR.nodata)


def translate(model, scene, output, **words):
    """Predict on the CPU in float32; returns values and validity of the output."""
    *_, last = steps_of(model, [scene], output, **{"size": 64} | words)
    assert last.state == "written"
    return read(output)


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.dataset_mask() > 0


# ---------------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("size", [32, 64, 300])
@pytest.mark.parametrize(("blend", "batch"), [("crop", 1), ("crop", 3), ("hann", 3), ("linear", 1)])
def test_an_identity_generator_gives_the_raster_back(
    make_raster, serve, tmp_path, size, blend, batch
):
    serve(Identity(), RGB, RGB)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 70, 99), dtype=np.uint8)
    scene = make_raster("scene.tif", pixels, bands=RGB.bands, col=7, row=3)
    words = {"size": size, "blend": blend, "batch": batch}
    values, valid = translate("", scene, tmp_path / "out.tif", **words)
    assert (values == pixels).all()
    assert valid.all()
    with rasterio.open(scene) as given, rasterio.open(tmp_path / "out.tif") as got:
        assert (got.crs, got.transform, got.shape) == (given.crs, given.transform, given.shape)
        assert (got.dtypes, got.count) == (given.dtypes, given.count)
        assert got.descriptions == ("red", "green", "blue")
        assert got.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@pytest.mark.real
def test_an_identity_generator_gives_a_real_scene_back(real_data, serve, tmp_path):
    scene = real_data / "volkov-s1s2-1024" / "scene_3072" / "opt.tif"
    names = ("B04_red", "B03_green", "B02_blue")
    domain = RGB.model_copy(update={"bands": tuple(Band(name=name) for name in names)})
    serve(Identity(), domain, domain)
    for size in (256, 1024, 3072):
        output = tmp_path / f"{size}.tif"
        translate("", scene, output, size=size)
        with rasterio.open(scene) as given, rasterio.open(output) as got:
            assert (got.read() == given.read()).all()
            assert got.dataset_mask().all()
            assert (got.crs, got.transform, got.shape) == (given.crs, given.transform, given.shape)
            assert (got.dtypes, got.count) == (given.dtypes, given.count)


def test_the_output_is_a_cog_that_describes_the_target(bundle, sar_scene, tmp_path):
    output = tmp_path / "out.tif"
    translate(bundle, sar_scene, output)
    assert cog_validate(output, quiet=True)[0]
    with rasterio.open(output) as dataset:
        assert dataset.descriptions == ("height", "moisture")
        assert dataset.units == ("m", None)
        assert dataset.scales == (1.0, 0.5)
        assert dataset.dtypes == ("float32", "float32")
        assert dataset.nodata == -1.0


def test_a_large_output_has_overviews(make_raster, serve, tmp_path):
    serve(Identity(), RGB, RGB)
    scene = make_raster("scene.tif", np.full((3, 600, 1100), 7, np.uint8), bands=RGB.bands)
    translate("", scene, tmp_path / "out.tif", size=1024)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.overviews(1)
        assert dataset.block_shapes[0] == (512, 512)


@pytest.mark.parametrize("spec", [RESNET, UNET], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("shape", [(91, 133), (17, 150), (3, 5)])
def test_the_result_does_not_depend_on_the_size_of_cores(make_raster, serve, tmp_path, spec, shape):
    serve(random_generator(spec), SAR, MAP)
    pixels, valid = sar_pixels(*shape)
    scene = make_raster("sar.tif", pixels, bands=SAR.bands, nodata=SAR.nodata)
    results = [
        translate("", scene, tmp_path / f"{size}.tif", size=size)[0] for size in (32, 64, 128, 512)
    ]
    whole = results[-1]
    assert whole[:, valid].std() > 0.05
    for result in results:
        assert np.abs(result - whole)[:, valid].max() < 1e-4 * 1.0  # of the output's range
        assert (result[:, ~valid] == -1).all()


@pytest.fixture(scope="module")
def whole(bundle, tmp_path_factory):
    """A scene of 67 x 90 px, and what all of it becomes."""
    folder = tmp_path_factory.mktemp("whole")
    pixels, _ = sar_pixels(67, 90)
    with rasterio.open(
        folder / "sar.tif",
        "w",
        driver="GTiff",
        crs="EPSG:32633",
        transform=NORTH_UP,
        count=2,
        height=67,
        width=90,
        dtype="float32",
        nodata=SAR.nodata,
    ) as file:
        file.write(pixels)
        file.descriptions = ("VV", "VH")
    return folder / "sar.tif", translate(bundle, folder / "sar.tif", folder / "out.tif", **FINE)


FINE = {"size": 32, "batch": 1}


@settings(deadline=None, max_examples=6)
@given(row=st.integers(0, 66), col=st.integers(0, 89), data=st.data())
def test_a_part_is_bit_for_bit_the_part_of_the_whole(bundle, whole, row, col, data):
    scene, (values, valid) = whole
    height, width = data.draw(st.integers(1, 67 - row)), data.draw(st.integers(1, 90 - col))
    left, top = 500_000 + 10 * col, 4_000_000 - 10 * row
    bounds = (left, top - 10 * height, left + 10 * width, top)
    output = scene.with_name("part.tif")
    part, part_valid = translate(bundle, scene, output, bounds=bounds, overwrite=True, **FINE)
    window = np.s_[row : row + height, col : col + width]
    assert (part == values[:, *window]).all()
    assert (part_valid == valid[window]).all()
    with rasterio.open(output) as dataset:
        assert dataset.bounds == bounds


def write_area(path, shape, crs="EPSG:32633"):
    gpd.GeoDataFrame(geometry=[shape], crs="EPSG:32633").to_crs(crs).to_file(path)
    return path


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_outside_an_area_nothing_is_written_and_inside_it_is_the_whole(
    bundle, sar_scene, tmp_path, crs
):
    circle = shapely.Point(500_800, 3_999_500).buffer(250)
    area = write_area(tmp_path / "area.gpkg", circle, crs)
    whole, valid = translate(bundle, sar_scene, tmp_path / "whole.tif", size=32)
    part, part_valid = translate(bundle, sar_scene, tmp_path / "part.tif", size=32, aoi=area)
    with rasterio.open(tmp_path / "part.tif") as dataset:
        left, _, _, top = dataset.bounds
        assert dataset.width <= 52
        assert dataset.height <= 52
    row, col = round((4_000_000 - top) / 10), round((left - 500_000) / 10)
    window = np.s_[row : row + part.shape[1], col : col + part.shape[2]]
    x, y = np.meshgrid(np.arange(part.shape[2]) + 0.5, np.arange(part.shape[1]) + 0.5)
    inside = shapely.contains_xy(circle, left + 10 * x, top - 10 * y)
    differs = part_valid != (inside & valid[window])
    assert differs.sum() <= (0 if crs == "EPSG:32633" else 3)  # there and back, edges move a little
    assert np.abs(part - whole[:, *window])[:, part_valid].max() < 1e-5


def test_windows_that_an_area_does_not_touch_are_not_computed(make_raster, serve, tmp_path):
    generator = serve(Identity(), RGB, RGB)
    scene = make_raster("scene.tif", np.full((3, 200, 200), 9, np.uint8), bands=RGB.bands)
    corners = shapely.MultiPolygon(
        [
            shapely.box(500_000, 3_999_900, 500_100, 4_000_000),
            shapely.box(501_900, 3_998_000, 502_000, 3_998_100),
        ]
    )
    area = write_area(tmp_path / "area.gpkg", corners)
    _, valid = translate("", scene, tmp_path / "out.tif", size=40, batch=1, aoi=area)
    assert valid.sum() == 200
    assert len(generator.shapes) == 2


# ------------------------------------------------------------------------------------- blending


class PlusMean(nn.Module):
    """Adds the mean of its window: the network whose seams no one can overlook."""

    stride, halo = 4, 8

    def forward(self, x, context=PLAIN):
        return x / 2 + x.mean(dim=(2, 3), keepdim=True) / 2


def blend_everything(pixels, window_of, size, step, margin, taper):
    """The scene by PlusMean, in float64 with sums of the whole scene: nothing rolls here."""
    height, width = pixels.shape[1:]
    sums, weights = np.zeros(pixels.shape), np.zeros((height, width))

    def places(length):
        rim = -(-length // 4) * 4
        last = max(rim - size, 0)
        return sorted({*range(0, last, step), last}), rim

    def fades(starts, rim):
        """Weights of each core along an axis."""
        for index, start in enumerate(starts):
            stop = min(start + size, rim)
            weight = np.ones(stop - start)
            if index:
                overlap = starts[index - 1] + size - start
                weight[:overlap] *= taper((np.arange(overlap) + 0.5) / overlap)
            if index + 1 < len(starts):
                overlap = stop - starts[index + 1]
                weight[-overlap:] *= taper((np.arange(overlap) + 0.5) / overlap)[::-1]
            yield start, weight

    rows, cols = places(height), places(width)
    for (top, down), (left, right) in itertools.product(fades(*rows), fades(*cols)):
        seen = window_of(
            top - margin, left - margin, len(down) + 2 * margin, len(right) + 2 * margin
        )
        value = pixels / 2 + seen.mean(axis=(1, 2), dtype=float)[:, None, None] / 2
        place = np.s_[top : min(top + len(down), height), left : min(left + len(right), width)]
        weight = np.outer(down, right)[: height - top, : width - left]
        sums[:, *place] += weight * value[:, *place]
        weights[place] += weight
    return sums / weights


@pytest.mark.parametrize("shape", [(89, 131), (97, 29), (11, 7)])
@pytest.mark.parametrize("blend", ["hann", "linear"])
def test_blended_windows_are_their_weighted_means(make_raster, serve, tmp_path, shape, blend):
    wide = RGB.model_copy(update={"dtype": "float32"})
    serve(PlusMean(), RGB, wide)
    pixels = np.random.default_rng(1).integers(0, 256, (3, *shape), dtype=np.uint8)
    pixels += (np.arange(shape[1]) % 70).astype(np.uint8)
    scene = make_raster("scene.tif", pixels, bands=RGB.bands)
    mirrored = np.pad(pixels, ((0, 0), (100, 100), (100, 100)), mode="reflect")

    def window_of(row, col, height, width):
        return mirrored[:, 100 + row : 100 + row + height, 100 + col : 100 + col + width]

    taper = {"hann": lambda x: np.sin(np.pi / 2 * x) ** 2, "linear": lambda x: x}[blend]
    expected = blend_everything(pixels, window_of, size=32, step=24, margin=8, taper=taper)
    values, _ = translate("", scene, tmp_path / "out.tif", size=32, blend=blend, batch=3)
    assert np.abs(values - expected).max() < 1e-3
    assert (expected - expected.round()).std() > 0.1


def test_invalid_pixels_stay_out_of_a_blend_and_change_nothing(make_raster, serve, tmp_path):
    serve(random_generator(RESNET), SAR, MAP)
    pixels, valid = sar_pixels(91, 133)
    scene = make_raster("sar.tif", pixels, bands=SAR.bands, nodata=SAR.nodata)
    cropped, _ = translate("", scene, tmp_path / "crop.tif", size=32)
    blended, found = translate("", scene, tmp_path / "hann.tif", size=32, blend="hann")
    assert (found == valid).all()
    assert (blended[:, ~valid] == -1).all()
    assert np.abs(blended - cropped)[:, valid].max() < 1e-4  # its halo is exact


def test_a_deep_unet_is_read_with_less_than_its_halo_where_it_is_blended(
    make_raster, serve, tmp_path
):
    shapes = []

    class Deep(Identity):
        stride, halo = 256, 512

        def forward(self, x, context=PLAIN):
            shapes.append(tuple(x.shape[-2:]))
            return x

    serve(Deep(), RGB, RGB)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 300, 900), dtype=np.uint8)
    scene = make_raster("scene.tif", pixels, bands=RGB.bands)
    values, _ = translate("", scene, tmp_path / "out.tif", size=512, blend="hann")
    assert (values == pixels).all()
    assert set(shapes) == {(512 + 256, 512 + 256)}


@pytest.mark.parametrize("bounds", [(500_300, 3_999_400, 501_100, 3_999_800), None])
def test_a_blend_that_was_interrupted_ends_with_the_same_bytes(sar_scene, serve, tmp_path, bounds):
    serve(PlusMean(), SAR, SAR)
    words = {"size": 32, "blend": "linear", "batch": 2, "bounds": bounds}
    list(steps_of("", [sar_scene], tmp_path / "undisturbed.tif", **words))
    output = tmp_path / "out.tif"
    finished, stops = 0, 0
    while not output.exists():
        steps = steps_of("", [sar_scene], output, **words)
        for _ in steps:
            found = len(list((tmp_path / "out.tif.parts").glob("rows_*.tif")))
            if found > finished:
                finished, stops = found, stops + 1
                break
        steps.close()
    assert stops > 1
    assert output.read_bytes() == (tmp_path / "undisturbed.tif").read_bytes()


# ------------------------------------------------------------------------------- what is valid


def test_windows_without_valid_pixels_are_not_computed(make_raster, serve, tmp_path):
    generator = serve(Identity(), RGB, RGB)
    pixels = np.zeros((3, 100, 160), np.uint8)
    pixels[:, 30:50, 90:110] = 200
    scene = make_raster("scene.tif", pixels, bands=RGB.bands, nodata=0)
    values, valid = translate("", scene, tmp_path / "out.tif", size=32, batch=1)
    assert (valid == (pixels[0] > 0)).all()
    assert (values == pixels).all()
    assert len(generator.shapes) == 4


@pytest.mark.parametrize("how", ["nodata", "mask", "nan", "said"])
def test_nodata_in_is_nodata_out_however_the_file_says_it(make_raster, serve, tmp_path, how):
    pixels, valid = sar_pixels(50, 60)
    pixels[:, ~valid] = np.nan if how == "nan" else -999
    words = {
        "nodata": {"nodata": -999.0},
        "mask": {"valid": valid},
        "nan": {},
        "said": {},
    }[how]
    scene = make_raster("sar.tif", pixels, bands=SAR.bands, **words)
    serve(random_generator(RESNET), SAR, MAP)
    said = {"nodata": -999.0} if how == "said" else {}
    values, found = translate("", scene, tmp_path / "out.tif", **said)
    assert (found == valid).all()
    assert (values[:, valid] != -1).all()
    assert (values[:, ~valid] == -1).all()


def test_a_target_without_a_nodata_value_gets_an_internal_mask(make_raster, serve, tmp_path):
    serve(Identity(), RGB.model_copy(update={"nodata": 0.0}), RGB)
    pixels = np.random.default_rng(1).integers(1, 256, (3, 50, 60), dtype=np.uint8)
    pixels[:, 10:20, :30] = 0
    scene = make_raster("scene.tif", pixels, bands=RGB.bands, nodata=0)
    values, valid = translate("", scene, tmp_path / "out.tif", size=32)
    assert (valid == (pixels > 0).all(axis=0)).all()
    assert (values == pixels).all()
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.nodata is None
        assert dataset.mask_flag_enums[0] == [MaskFlags.per_dataset]


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_what_lies_under_invalid_pixels_changes_nothing(make_raster, serve, tmp_path, norm):
    serve(random_generator(RESNET.model_copy(update={"norm": norm})), SAR, MAP)
    pixels, valid = sar_pixels(60, 80)
    results = []
    for value in (-999, -12, 4):
        pixels[:, ~valid] = value
        scene = make_raster(f"{value}.tif", pixels, bands=SAR.bands, valid=valid)
        results.append(translate("", scene, tmp_path / f"out{value}.tif")[0])
    assert (results[0] == results[1]).all()
    assert (results[0] == results[2]).all()


def test_a_scene_without_valid_pixels_is_written_with_a_warning(
    make_raster, serve, tmp_path, caplog
):
    serve(Identity(), RGB, RGB)
    scene = make_raster("scene.tif", np.zeros((3, 40, 40), np.uint8), bands=RGB.bands, nodata=0)
    _, valid = translate("", scene, tmp_path / "out.tif")
    assert not valid.any()
    assert "no valid pixel was found" in caplog.text


# ------------------------------------------------------------------------------- the arithmetic


def test_in_bf16_bytes_stay_and_a_finer_type_keeps_its_steps(make_raster, serve, tmp_path):
    fine = MAP.model_copy(
        update={"dtype": "uint16", "nodata": 0.0, "low": (0.0, 0.0), "high": (10_000.0, 5_000.0)}
    )
    coarse = fine.model_copy(update={"dtype": "uint8", "low": (0.0, 0.0), "high": (255.0, 127.5)})
    random = np.random.default_rng(0)
    rows, cols = np.indices((200, 200)) / 30
    pixels = (-15 + 5 * np.sin(rows + cols) + random.normal(size=(2, 200, 200))).astype(np.float32)
    scene = make_raster("sar.tif", pixels, bands=SAR.bands)
    generator = random_generator(GeneratorSpec(kind="resnet", width=8, blocks=2))
    scaled = torch.from_numpy(pixels)[None] / 15 + 1
    reestimate_statistics(generator, [(scaled, None)])  # as training would leave them
    found = {}
    for target, name in ((coarse, "uint8"), (fine, "uint16")):
        serve(generator, SAR, target)
        for precision in ("float32", "bf16"):
            output = tmp_path / f"{name}-{precision}.tif"
            values, _ = translate("", scene, output, precision=precision, size=256)
            found[name, precision] = values.astype(int)
    difference = found["uint8", "bf16"] - found["uint8", "float32"]
    assert found["uint8", "float32"].std() > 5
    assert 0 < np.abs(difference).mean() <= 1.5
    assert np.abs(difference.mean(axis=(1, 2))).max() <= 0.1
    for ours, exact in zip(found["uint16", "bf16"], found["uint16", "float32"], strict=True):
        assert len(np.unique(ours)) >= 0.5 * len(np.unique(exact))


# --------------------------------------------------------------------------- scenes and chips


def test_mosaicking_translated_chips_equals_translating_the_scene_inside_the_cores(
    bundle, make_raster, tmp_path
):
    side, chip_side, starts, halo = 160, 112, (0, 48), 20
    pixels, valid = sar_pixels(side, side)
    scene = make_raster("scene.tif", pixels, bands=SAR.bands, nodata=SAR.nodata)
    trusted = np.ones((side, side), bool)  # by every chip that holds the pixel
    chips = []
    for row, col in itertools.product(starts, starts):
        part = np.s_[row : row + chip_side, col : col + chip_side]
        name = f"chips/{row}_{col}.tif"
        chips.append(
            make_raster(
                name, pixels[:, *part], bands=SAR.bands, nodata=SAR.nodata, row=row, col=col
            )
        )
        rim = np.ones((side, side), bool)
        rim[
            row + halo * (row > 0) : row + chip_side - halo * (row + chip_side < side),
            col + halo * (col > 0) : col + chip_side - halo * (col + chip_side < side),
        ] = False
        trusted[part] &= ~rim[part]
    list(steps_of(bundle, chips, tmp_path / "out", size=64))
    list(mosaic_rasters([tmp_path / "out"], tmp_path / "mosaic.tif", blend="mean"))
    mosaic, mosaic_valid = read(tmp_path / "mosaic.tif")
    whole, whole_valid = translate(bundle, scene, tmp_path / "whole.tif")
    assert (mosaic_valid == valid).all()
    assert (whole_valid == valid).all()
    assert 0.5 < trusted.mean() < 1
    assert np.abs(mosaic - whole)[:, trusted & valid].max() < 1e-5


def test_many_scenes_become_many_files_in_a_folder_that_is_made(bundle, make_raster, tmp_path):
    scenes = [
        make_raster(f"{name}.tif", sar_pixels(40, 50, seed)[0], bands=SAR.bands, nodata=-999.0)
        for seed, name in enumerate(("north", "south"))
    ]
    steps = list(steps_of(bundle, scenes, tmp_path / "new" / "folder", size=32))
    assert {step.total for step in steps} == {2 * 4 + 2}
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == 10
    written = [step.output for step in steps if step.state == "written"]
    assert written == [tmp_path / "new" / "folder" / f"{name}.tif" for name in ("north", "south")]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "north.tif",
        "south.tif",
    ]


def test_a_folder_or_a_glob_stands_for_its_rasters(bundle, make_raster, tmp_path):
    make_raster("scenes/one.tif", sar_pixels(20, 20)[0], bands=SAR.bands, nodata=-999.0)
    make_raster("scenes/two.tif", sar_pixels(20, 20)[0], bands=SAR.bands, nodata=-999.0)
    for scenes, output in ((tmp_path / "scenes", "a"), (f"{tmp_path}/scenes/*.tif", "b")):
        list(steps_of(bundle, [scenes], tmp_path / output))
        assert {path.name for path in (tmp_path / output).iterdir()} == {"one.tif", "two.tif"}


def test_the_way_back_swaps_the_domains(make_raster, tmp_path):
    model = make_bundle(tmp_path / "model", ("g_ab", "g_ba"))
    height = np.random.default_rng(0).uniform(0.1, 0.9, (2, 30, 30)).astype(np.float32)
    scene = make_raster("map.tif", height, bands=MAP.bands)
    translate(model, scene, tmp_path / "sar.tif", direction="ba")
    with rasterio.open(tmp_path / "sar.tif") as dataset:
        assert dataset.descriptions == ("VV", "VH")
        assert dataset.units == ("dB", "dB")
        assert dataset.nodata == -999


def test_scale_and_offset_of_the_scene_are_applied(bundle, make_raster, tmp_path):
    tenths = np.random.default_rng(0).integers(-240, -10, (2, 40, 40), dtype=np.int16)
    plain = make_raster("plain.tif", (tenths / 10).astype(np.float32), bands=SAR.bands)
    packed = tuple(band.model_copy(update={"scale": 0.1, "offset": -3.0}) for band in SAR.bands)
    scaled = make_raster("scaled.tif", (tenths + 30).astype(np.int16), bands=packed)
    expected, _ = translate(bundle, plain, tmp_path / "a.tif")
    values, _ = translate(bundle, scaled, tmp_path / "b.tif")
    assert np.abs(values - expected).max() < 1e-5


# ------------------------------------------------------------------------------ running again


def test_what_was_killed_goes_on_and_ends_with_the_same_bytes(bundle, sar_scene, tmp_path):
    words = {"size": 32, "batch": 2, "device": "cpu", "precision": "float32"}
    code = (
        "import os, signal, torch\n"
        "torch.set_num_threads(1)\n"
        "from geotranslate.translation.predict import predict_scenes\n"
        "from geotranslate.translation.predict_config import PredictConfig\n"
        f"for step in predict_scenes({str(bundle)!r}, [{str(sar_scene)!r}], "
        f"{str(tmp_path / 'out.tif')!r}, PredictConfig(**{words!r})):\n"
        "    if step.done == 7:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out.tif").exists()
    parts = tmp_path / "out.tif.parts"
    finished = {path.name: path.stat().st_mtime_ns for path in parts.glob("rows_*.tif")}
    assert len(finished) in (1, 2)  # the writer may be ahead of what it has told

    steps = list(steps_of(bundle, [sar_scene], tmp_path / "out.tif", **words))
    assert steps[1].done == 5 * len(finished)  # at once
    assert steps[1].pixels == 0
    assert not parts.exists()
    list(steps_of(bundle, [sar_scene], tmp_path / "undisturbed.tif", **words))
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "undisturbed.tif").read_bytes()


def test_what_is_finished_is_left_alone(bundle, sar_scene, tmp_path):
    output = tmp_path / "out.tif"
    translate(bundle, sar_scene, output)
    before = output.stat().st_mtime_ns
    states = [step.state for step in steps_of(bundle, [sar_scene], output, size=64)]
    assert states == ["translating", "unchanged"]
    assert output.stat().st_mtime_ns == before
    assert not (tmp_path / "out.tif.parts").exists()


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        ({"size": 32}, "size was 64 and is now 32"),
        ({"precision": "bf16"}, 'precision was "float32" and is now "bf16"'),
        ({"nodata": -5.0}, "nodata was unset and is now -5.0"),
        ({"bounds": (500_000, 3_999_500, 500_500, 4_000_000)}, "bounds was unset"),
        ({"bands": "2,1"}, r"scene.bands was \[1, 2\] and is now \[2, 1\]"),
    ],
)
def test_an_output_made_by_other_words_is_refused_with_the_difference(
    bundle, sar_scene, tmp_path, words, difference
):
    output = tmp_path / "out.tif"
    translate(bundle, sar_scene, output)
    before = output.read_bytes()
    with pytest.raises(OutputError, match=f"{difference}.*--overwrite"):
        translate(bundle, sar_scene, output, **words)
    assert output.read_bytes() == before
    translate(bundle, sar_scene, output, overwrite=True, **words)
    assert output.read_bytes() != before


def test_a_finished_output_outlives_an_upgrade(bundle, sar_scene, tmp_path):
    output = tmp_path / "out.tif"
    translate(bundle, sar_scene, output)
    record = read_record(output)
    assert record["precision"] in ("float32", "bf16")
    assert "version" not in record


def test_another_model_or_a_changed_scene_is_refused(bundle, sar_scene, tmp_path):
    output = tmp_path / "out.tif"
    translate(bundle, sar_scene, output)
    other = make_bundle(tmp_path / "other", ("g_ab", "g_ba"))
    with pytest.raises(OutputError, match=r"model was .* --overwrite to start over"):
        translate(other, sar_scene, output)
    os.utime(sar_scene, ns=(0, 0))
    with pytest.raises(OutputError, match=r"scene.files was .* --overwrite to start over"):
        translate(bundle, sar_scene, output)


def test_an_interruption_leaves_finished_rows_that_another_batch_goes_on_with(
    bundle, sar_scene, tmp_path
):
    steps = steps_of(bundle, [sar_scene], tmp_path / "out.tif", size=32, batch=1)
    for step in steps:
        if step.done == 12:
            break
    steps.close()
    assert len(list((tmp_path / "out.tif.parts").glob("rows_*.tif"))) == 2
    *_, last = steps_of(bundle, [sar_scene], tmp_path / "out.tif", size=32, batch=4)
    assert last.state == "written"


def test_an_interruption_before_the_first_row_leaves_nothing(bundle, sar_scene, tmp_path):
    words = {"size": 32, "batch": 1}
    steps = steps_of(bundle, [sar_scene], tmp_path / "out.tif", **words)
    next(steps), next(steps)
    steps.close()
    assert [path.name for path in tmp_path.iterdir()] == ["sar.tif"]


def test_a_second_process_on_the_same_output_is_refused(bundle, sar_scene, tmp_path):
    output = tmp_path / "out.tif"
    with (
        file_job(output, {}),
        pytest.raises(OutputError, match="being written by another process"),
    ):
        translate(bundle, sar_scene, output)


def test_an_interrupted_overwrite_of_many_scenes_goes_on(bundle, make_raster, tmp_path):
    scenes = [make_raster(f"{n}.tif", sar_pixels(90, 70)[0], bands=SAR.bands) for n in "abc"]
    outputs = [tmp_path / "out" / f"{name}.tif" for name in "abc"]
    list(steps_of(bundle, scenes, tmp_path / "out", size=64))
    words = {"size": 32, "batch": 1, "overwrite": True}
    rows = outputs[1].with_name("b.tif.parts")
    for step in (steps := steps_of(bundle, scenes, tmp_path / "out", **words)):
        if len(list(rows.glob("rows_*.tif"))) == 2:
            assert step.output == outputs[1]
            break
    steps.close()
    with pytest.raises(OutputError, match="Say --overwrite to go on"):
        steps_of(bundle, scenes, tmp_path / "out", size=32)
    kept = [outputs[0], *rows.glob("rows_*.tif")]
    before = [file.stat().st_mtime_ns for file in kept]
    made = {}
    for step in steps_of(bundle, scenes, tmp_path / "out", **words):
        made[step.output] = step.state
        if step.output == outputs[1] and step.state == "translating":
            assert [file.stat().st_mtime_ns for file in kept] == before
    assert made == dict(zip(outputs, ["unchanged", "written", "written"], strict=True))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "b.tif", "c.tif"]
    # It has ended, so it begins anew.
    states = {step.output: step.state for step in steps_of(bundle, scenes, rows.parent, **words)}
    assert set(states.values()) == {"written"}


def test_parts_of_other_words_are_refused_before_another_scene_is_translated(
    bundle, sar_scene, make_raster, tmp_path
):
    second = make_raster("second.tif", sar_pixels(90, 70)[0], bands=SAR.bands)
    for _ in (steps := steps_of(bundle, [second], tmp_path / "out", size=32, batch=1)):
        if list((tmp_path / "out").glob("second.tif.parts/rows_*.tif")):
            break
    steps.close()
    with pytest.raises(OutputError, match=r"second\.tif was begun .* size was 32 and is now 64"):
        steps_of(bundle, [sar_scene, second], tmp_path / "out", size=64)


def test_a_scene_that_changes_while_it_is_translated_is_refused(bundle, sar_scene, tmp_path):
    words = {"size": 32, "batch": 1}
    steps = steps_of(bundle, [sar_scene], tmp_path / "out.tif", **words)
    next(steps), next(steps)
    os.utime(sar_scene, ns=(0, 0))
    with pytest.raises(
        OutputError, match=r"was changed while .* was being made of it .* --overwrite"
    ):
        list(steps)
    assert not (tmp_path / "out.tif").exists()
    with pytest.raises(OutputError, match=r"scene.files was .* --overwrite to start over"):
        list(steps_of(bundle, [sar_scene], tmp_path / "out.tif", **words))


class Slow(Identity):
    """Takes a fifth of a second, as a window of a large network does many times over."""

    def forward(self, x, context=PLAIN):
        self.shapes.append(tuple(x.shape))
        time.sleep(0.2)
        return x


def test_ctrl_c_ends_within_a_window_and_what_is_finished_stays(sar_scene, serve, tmp_path):
    slow = serve(Slow(), SAR, SAR)
    parts = tmp_path / "out.tif.parts"
    pressed = []

    def press_after_the_first_row():
        while not list(parts.glob("rows_*.tif")):
            time.sleep(0.01)
        pressed.extend([len(slow.shapes), FairClock()])
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=press_after_the_first_row, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        list(steps_of("", [sar_scene], tmp_path / "out.tif", size=32, batch=1))
    windows, clock = pressed
    assert clock.read() < 1
    assert len(slow.shapes) <= windows + 1
    windows_of_a_row = -(-133 // 32)
    assert 1 <= len(list(parts.glob("rows_*.tif"))) <= len(slow.shapes) // windows_of_a_row < 3
    assert not list(parts.glob("*.part"))
    assert threading.active_count() == 1


# ------------------------------------------------------------------------------- what is refused


def test_a_model_without_a_way_back_is_refused_with_the_mend(bundle, sar_scene, tmp_path):
    with pytest.raises(BundleError, match="Say --direction ab, or train with --model cyclegan"):
        steps_of(bundle, [sar_scene], tmp_path / "out.tif", direction="ba")


def test_a_crs_that_no_output_can_hold_is_refused(bundle, make_raster, tmp_path):
    pixels, _ = sar_pixels(20, 20)
    scene = make_raster("sar.tif", pixels, bands=SAR.bands, nodata=SAR.nodata, crs="+proj=eqearth")
    with pytest.raises(GridError, match="mosaic --crs EPSG:8857`"):
        steps_of(bundle, [scene], tmp_path / "out.tif")
    assert not list(tmp_path.glob("out*"))


def test_two_scenes_of_one_name_are_refused(bundle, make_raster, tmp_path):
    pixels, _ = sar_pixels(20, 20)
    scenes = [make_raster(f"{name}/sar.tif", pixels, bands=SAR.bands) for name in "ab"]
    with pytest.raises(SettingError, match="into two folders"):
        steps_of(bundle, scenes, tmp_path / "out")


def test_many_scenes_into_one_file_are_refused_with_a_folder(bundle, sar_scene, tmp_path):
    (tmp_path / "other.tif").write_bytes(sar_scene.read_bytes())
    scenes = [sar_scene, tmp_path / "other.tif"]
    with pytest.raises(SettingError, match=f"Give a folder, such as {tmp_path / 'out'};"):
        steps_of(bundle, scenes, tmp_path / "out.tif")


def test_another_format_is_refused_with_a_geotiff(bundle, sar_scene, tmp_path):
    with pytest.raises(SettingError, match=r"Choose .*out\.tif"):
        steps_of(bundle, [sar_scene], tmp_path / "out.png")


def test_what_cannot_fit_on_the_disk_is_refused_before_the_work(bundle, sar_scene, tmp_path, room):
    output = tmp_path / "made" / "out"
    room(5)
    with pytest.raises(OutputError, match=r"needs .* at the very least.*Make room"):
        steps_of(bundle, [sar_scene], output)
    assert not output.parent.exists()


def test_what_may_not_fit_on_the_disk_is_warned_of_unless_it_is_there(
    bundle, sar_scene, tmp_path, room, caplog
):
    output = tmp_path / "out.tif"
    room(5_000)
    translate(bundle, sar_scene, output)
    assert "its disk has room for 0.0 MB" in caplog.text
    caplog.clear()
    (step,) = [s for s in steps_of(bundle, [sar_scene], output, size=64) if s.state == "unchanged"]
    assert step.done == step.total
    assert not caplog.text


@pytest.mark.parametrize("overwrite", [False, True])
def test_writing_over_the_scene_itself_is_refused(bundle, sar_scene, tmp_path, overwrite):
    before = sar_scene.read_bytes()
    for output in (sar_scene, tmp_path):
        with pytest.raises(SettingError, match="Choose another output"):
            steps_of(bundle, [sar_scene], output, overwrite=overwrite)
    assert sar_scene.read_bytes() == before


def test_a_file_of_another_making_is_refused_unless_told_to_overwrite(bundle, sar_scene, tmp_path):
    output = tmp_path / "out.tif"
    output.write_text("mine")
    with pytest.raises(OutputError, match="say --overwrite to replace it"):
        translate(bundle, sar_scene, output)
    translate(bundle, sar_scene, output, overwrite=True)


def test_bounds_outside_the_scene_are_refused(bundle, sar_scene, tmp_path):
    with pytest.raises(GridError, match="Give bounds as left,bottom,right,top"):
        steps_of(bundle, [sar_scene], tmp_path / "out.tif", bounds=(0, 0, 10, 10))


def test_an_area_outside_the_scene_or_the_bounds_is_refused(bundle, sar_scene, tmp_path):
    far = write_area(tmp_path / "far.gpkg", shapely.box(0, 0, 10, 10))
    near = write_area(tmp_path / "near.gpkg", shapely.box(500_000, 3_999_900, 500_100, 4_000_000))
    beside = (500_500, 3_999_500, 500_900, 3_999_900)
    between = write_area(
        tmp_path / "between.gpkg", shapely.box(500_001, 3_999_901, 500_004, 3_999_904)
    )
    for words in ({"aoi": far}, {"aoi": near, "bounds": beside}, {"aoi": between}):
        with pytest.raises(GridError, match="Give an area that overlaps it"):
            steps_of(bundle, [sar_scene], tmp_path / "out.tif", **words)


def test_of_many_scenes_those_outside_are_named_and_skipped(
    bundle, sar_scene, make_raster, tmp_path, caplog
):
    beside = make_raster("beside.tif", sar_pixels(8, 8)[0], bands=SAR.bands, col=500)
    bounds = 500_000, 3_999_900, 500_100, 4_000_000
    area = write_area(tmp_path / "near.gpkg", shapely.box(*bounds))
    for words in ({"aoi": area}, {"bounds": bounds}):
        caplog.clear()
        steps = steps_of(bundle, [sar_scene, beside], tmp_path / "out", overwrite=True, **words)
        assert {step.output.name for step in steps} == {sar_scene.name}
        said = [record.getMessage() for record in caplog.records]
        assert f"outside the bounds or the area of interest, skipped: {beside}" in said
    far = (0, 0, 10, 10)
    with pytest.raises(OutsideError, match="Give bounds as left,bottom,right,top"):
        steps_of(bundle, [sar_scene, beside], tmp_path / "out", bounds=far)


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        ({"size": 0}, "1024 is a good one"),
        ({"device": "cuda:99"}, "Choose one of these, or auto"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_mend(
    bundle, sar_scene, tmp_path, words, mend
):
    with pytest.raises(SettingError, match=mend):
        steps_of(bundle, [sar_scene], tmp_path / "out.tif", **words)
    assert [path.name for path in tmp_path.iterdir()] == ["sar.tif"]


def test_a_scene_damaged_inside_stops_the_work_and_leaves_no_output(bundle, make_raster, tmp_path):
    pixels = np.random.default_rng(0).uniform(-20, -5, (2, 256, 2048)).astype(np.float32)
    scene = make_raster("sar.tif", pixels, bands=SAR.bands, compress="deflate", tiled=True)
    content = bytearray(scene.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50_000] = bytes(50_000)
    scene.write_bytes(content)
    with pytest.raises(RasterError, match="Copy or download it again"):
        translate(bundle, scene, tmp_path / "out.tif", size=256)
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no file-size limits")
@pytest.mark.parametrize("limit", [2_000, 12_000])
def test_a_full_disk_leaves_no_output_and_says_how_to_go_on(bundle, sar_scene, tmp_path, limit):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match="run the same command again"):
            translate(bundle, sar_scene, tmp_path / "out.tif", size=32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out.tif").exists()
    translate(bundle, sar_scene, tmp_path / "out.tif", size=32)


def test_a_missing_scene_is_refused_before_anything_is_written(bundle, sar_scene, tmp_path):
    with pytest.raises(RasterError, match="Check the path"):
        steps_of(bundle, [sar_scene, tmp_path / "missing.tif"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_batch_too_large_for_the_memory_is_refused_with_a_smaller_one(sar_scene, serve, tmp_path):
    class Hungry(Identity):
        def forward(self, x, context=PLAIN):
            if len(x) > 2:
                torch.empty(2**50)
            return x

    serve(Hungry(), SAR, MAP)
    with pytest.raises(SettingError, match=r"Say --batch 2\.$"):
        translate("", sar_scene, tmp_path / "out.tif", size=32, batch=4)
    translate("", sar_scene, tmp_path / "out.tif", size=32, batch=2)

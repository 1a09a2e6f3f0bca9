import json
import zipfile

import pytest
import torch

from geotranslate.errors import BundleError
from geotranslate.networks.build import GeneratorSpec, build_generator
from geotranslate.raster.domain import Band, Domain
from geotranslate.translation import bundle as module
from geotranslate.translation.bundle import (
    is_bundle,
    load_bundle,
    read_bundle_record,
    save_bundle,
)

SPEC = GeneratorSpec(width=4, blocks=1)


def domain(*names, **other):
    return Domain(
        bands=tuple(Band(name=name, unit="dB") for name in names),
        dtype="float32",
        resolution_m=(10.0, 10.0),
        low=(-25.0,) * len(names),
        high=(0.0,) * len(names),
        **other,
    )


SAR, COLORS = domain("VV", "VH"), domain("red", "green", "blue")


def generators(*, both=True):
    torch.manual_seed(0)
    made = {"g_ab": build_generator(SPEC, 2, 3)}
    return made | {"g_ba": build_generator(SPEC, 3, 2)} if both else made


def save(folder, networks=None, **other):
    settings = {"model": "cyclegan", "updates": 7, "generator": SPEC, "chip_size": 64}
    settings |= {"domain_a": SAR, "domain_b": COLORS, "figures": {"psnr8": 17.5}} | other
    return save_bundle(folder, networks or generators(), **settings)


def weights_of(folder, name):
    (file,) = folder.glob(f"{name}-*.safetensors")
    return file


def test_a_bundle_gives_back_the_generators_and_what_they_mean(tmp_path):
    networks = generators()
    save(tmp_path / "model", networks, attribution="contains modified Copernicus data")
    bundle = load_bundle(tmp_path / "model")

    image = torch.rand(1, 2, 16, 16)
    translator = bundle.translator("ab")
    assert torch.equal(translator.generator(image), networks["g_ab"].eval()(image))
    assert (translator.source, translator.target) == (SAR, COLORS)
    back = bundle.translator("ba")
    assert (back.source, back.target) == (COLORS, SAR)
    assert torch.equal(back.generator.head[1].weight, networks["g_ba"].head[1].weight)
    assert bundle.record.attribution == "contains modified Copernicus data"
    assert bundle.record.figures == {"psnr8": 17.5}


def test_the_bytes_depend_on_what_is_inside_alone(tmp_path):
    save(tmp_path / "one")
    lasting = {
        name: network.to(memory_format=torch.channels_last)
        for name, network in generators().items()
    }
    save(tmp_path / "two", lasting)
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert len(names) == 3
    assert names == sorted(file.name for file in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    identity = load_bundle(tmp_path / "one").identity
    assert identity == load_bundle(tmp_path / "two").identity
    save(tmp_path / "three", domain_a=domain("VV", "VH", nodata=-99.0))
    assert load_bundle(tmp_path / "three").identity != identity


def other_generators():
    torch.manual_seed(1)
    return {"g_ab": build_generator(SPEC, 2, 3)}


def test_a_new_bundle_replaces_the_old_one_and_nothing_else(tmp_path):
    folder = tmp_path / "model"
    save(folder)
    (folder / "g_ab-01234567.safetensors.part").write_text("of a run that was killed")
    (folder / "notes.txt").write_text("hello")
    save(folder, other_generators(), model="pix2pix")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    weights = weights_of(folder, "g_ab")
    assert {path.name for path in folder.iterdir()} == {"model.json", "notes.txt", weights.name}
    record = read_bundle_record(folder)
    assert weights.name == f"g_ab-{record.weights['g_ab'][:8]}.safetensors"


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_kill_while_a_model_is_replaced_leaves_the_one_or_the_other(
    tmp_path, monkeypatch, written
):
    folder = tmp_path / "model"
    before = save(folder)
    write, calls = module.write_bytes, []

    def until_killed(path, content):
        calls.append(path)
        if len(calls) > written:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(module, "write_bytes", until_killed)
    monkeypatch.setattr(module, "_remove_others", until_killed)
    with pytest.raises(KeyboardInterrupt):
        save(folder, other_generators(), model="pix2pix")
    is_new = load_bundle(folder).record != before
    assert is_new == (written == 2)


def test_who_reads_while_the_model_is_replaced_gets_the_new_one(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    save(folder)
    parse, calls = module._parse, []

    def meanwhile(path, text):
        if not calls:
            calls.append(save(folder, other_generators(), model="pix2pix"))
        return parse(path, text)

    monkeypatch.setattr(module, "_parse", meanwhile)
    assert load_bundle(tmp_path).record == calls[0]


@pytest.mark.parametrize("inside", ["", "my model/"])
def test_a_zip_of_a_bundle_serves_as_one(tmp_path, inside):
    save(tmp_path / "model")
    packed = tmp_path / "model.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in (tmp_path / "model").iterdir():
            archive.write(file, inside + file.name)
        archive.writestr("../outside.txt", "not to be unpacked")
    assert load_bundle(packed).identity == load_bundle(tmp_path / "model").identity
    assert not (tmp_path.parent / "outside.txt").exists()


def test_a_run_folder_stands_for_the_model_in_it(tmp_path):
    assert not is_bundle(tmp_path)
    save(tmp_path / "model")
    assert is_bundle(tmp_path)
    assert read_bundle_record(tmp_path).updates == 7
    assert set(load_bundle(tmp_path).generators) == {"g_ab", "g_ba"}


def test_loading_leaves_torchs_random_numbers_alone(tmp_path):
    save(tmp_path / "model")
    before = torch.random.get_rng_state()
    load_bundle(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_figure_that_is_no_number_is_left_out(tmp_path):
    record = save(tmp_path / "model", figures={"psnr8": 17.5, "ssim": float("nan")})
    assert record.figures == {"psnr8": 17.5}


def test_pix2pix_has_no_way_back(tmp_path):
    save(tmp_path / "model", generators(both=False), model="pix2pix")
    with pytest.raises(BundleError, match="train with --model cyclegan"):
        load_bundle(tmp_path).translator("ba")


def test_a_missing_weight_file_is_refused_with_the_mend(tmp_path):
    save(tmp_path / "model")
    weights_of(tmp_path / "model", "g_ba").unlink()
    with pytest.raises(
        BundleError, match=r"lacks g_ba-.{8}\.safetensors.*Copy the whole bundle again"
    ):
        load_bundle(tmp_path)


def test_a_changed_weight_file_is_refused_with_the_mend(tmp_path):
    save(tmp_path / "model")
    weights = weights_of(tmp_path / "model", "g_ab")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"SHA-256 differs.*Copy the whole bundle again"):
        load_bundle(tmp_path)


def edit_record(folder, **values):
    path = folder / "model" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "mend"),
    [
        ({"version": 2}, "Use the version of geotranslate that made it"),
        ({"weights": {"../../secret": "0"}}, "cannot be understood"),
        ({"weights": {"g_ab": "../../../secret"}}, "cannot be understood"),
        ({"colour": "red"}, "cannot be understood"),
        ({"generator": {"width": 8, "blocks": 1}}, "does not fit the resnet generator of width 8"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(tmp_path, values, mend):
    save(tmp_path / "model")
    edit_record(tmp_path, **values)
    with pytest.raises(BundleError, match=mend):
        load_bundle(tmp_path)


def test_what_is_no_bundle_is_refused_with_the_mend(tmp_path):
    with pytest.raises(BundleError, match=r"does not exist.*Give a run folder, or a bundle"):
        load_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"holds no model\.json.*at the first checkpoint"):
        load_bundle(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BundleError, match="neither a folder nor a zip"):
        load_bundle(tmp_path / "notes.txt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BundleError, match=r"holds no model\.json"):
        load_bundle(tmp_path / "other.zip")

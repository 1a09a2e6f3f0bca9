import pytest
import torch

from geotranslate.choices import PRECISIONS
from geotranslate.errors import SettingError
from geotranslate.translation.precision import choose_arithmetic, choose_device, computing

CPU = torch.device("cpu")


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU == choose_device("cpu")


def test_auto_is_the_first_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    first = torch.device("cuda", 0)
    assert choose_device("auto") == choose_device("cuda") == first
    assert choose_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["cuda:7", "gpu", "meta", "cpu:3"])
def test_a_device_that_is_not_there_is_refused_with_what_is(name):
    with pytest.raises(SettingError, match=r"which has cpu.*Choose one of these, or auto"):
        choose_device(name)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"bf16": True}, "bf16"), ({"avx512_f": True}, "float32")],
)
def test_auto_is_bf16_where_the_cpu_has_instructions_for_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_arithmetic("auto", CPU) == expected


@pytest.mark.parametrize(("major", "expected"), [(7, "float32"), (8, "bf16"), (9, "bf16")])
def test_auto_is_bf16_on_gpus_from_ampere_on(monkeypatch, major, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    assert choose_arithmetic("auto", torch.device("cuda", 0)) == expected


def test_an_unknown_precision_is_refused_with_those_there_are():
    with pytest.raises(SettingError, match="Choose one of " + ", ".join(PRECISIONS)):
        choose_arithmetic("fp16", CPU)


@pytest.mark.parametrize(
    ("arithmetic", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_convolutions_compute_in_the_chosen_arithmetic(arithmetic, dtype):
    with torch.inference_mode(), computing(arithmetic, CPU):
        assert torch.nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 2, 2)).dtype == dtype

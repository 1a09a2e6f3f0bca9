"""Memory in one process; that it does not grow with scenes is held in tests/test_memory.py."""

import platform
import resource
from pathlib import Path

import pytest
import torch

from geotranslate.translation.memory import kept_memory, peak_memory, ran_out

CPU = torch.device("cpu")
LARGE = 12_000_000
"""Floats, 48 MB: more than the C library keeps by itself."""

of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def new_pages(times):
    """Pages that the system had to make for a layer's output that comes and goes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(LARGE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def held_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@of_glibc
def test_memory_of_one_layer_serves_the_next_and_is_given_back_at_the_end():
    before = new_pages(8)
    with kept_memory(CPU):
        new_pages(8)  # small pieces in between may split what is kept a few times
        assert new_pages(8) < before / 4
        inside = held_bytes()
    assert inside - held_bytes() > 3 * LARGE


@of_glibc
def test_beside_a_gpu_nothing_is_kept():
    before = new_pages(8)
    with kept_memory(torch.device("cuda")):
        new_pages(1)
        assert new_pages(8) > before / 2


def test_an_end_of_memory_is_known_on_a_cpu_too():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert ran_out(caught.value)
    assert ran_out(MemoryError())
    assert ran_out(torch.OutOfMemoryError())
    assert not ran_out(RuntimeError("shapes do not match"))


def test_the_peak_of_memory_is_at_least_what_is_held_now():
    held = torch.ones(64_000_000)
    peak = peak_memory()
    if peak is None:
        pytest.skip("the system does not tell")
    assert held.nbytes < peak < 100e9

"""Memory in one process; that it does not grow with scenes is held in tests/test_memory.py."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from geotranslate.translation.memory import OWN_WORDS, peak_memory, ran_out

CPU, GPU = torch.device("cpu"), torch.device("cuda")

of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

# Pages that the system makes for an output of 48 MB that comes and goes, and what is held after it.
PAGES = """
import resource
from contextlib import ExitStack
from pathlib import Path
import torch
from geotranslate.translation.memory import kept_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(12_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

CPU, GPU = torch.device("cpu"), torch.device("cuda")
usual = pages()
"""


def check(code, **environment):
    """Run some code in a process whose heap nobody else has used."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OWN_WORDS)}
    subprocess.run([sys.executable, "-c", PAGES + code], env=clean | environment, check=True)


@of_glibc
def test_memory_of_one_layer_serves_the_next_and_is_given_back_at_the_end():
    check("""
with kept_memory(CPU):
    pages()  # small pieces in between may split what is kept a few times
    assert pages() < usual / 4
    inside = held()
assert inside - held() > 40e6
""")


@of_glibc
def test_it_is_kept_until_the_last_of_those_who_want_it_ends():
    check("""
outer, inner = ExitStack(), ExitStack()
outer.enter_context(kept_memory(CPU))
inner.enter_context(kept_memory(CPU))
outer.close()
pages()
assert pages() < usual / 4
inside = held()
inner.close()
assert inside - held() > 40e6
""")


@of_glibc
def test_more_than_2_gb_at_the_end_of_the_heap_are_kept():
    check("""
with kept_memory(CPU):
    torch.ones(700_000_000)
    assert held() > 2.8e9
""")


@of_glibc
def test_beside_a_gpu_and_where_a_user_said_how_it_is_kept_nothing_is_done():
    check("""
with kept_memory(GPU):
    assert pages() > usual / 2
""")
    check(
        """
with kept_memory(CPU):
    assert pages() > usual / 2
""",
        MALLOC_ARENA_MAX="4",
    )


def test_an_end_of_memory_is_known_on_a_cpu_too():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert ran_out(caught.value, CPU)
    assert not ran_out(caught.value, GPU)
    assert ran_out(torch.OutOfMemoryError(), GPU)
    assert not ran_out(RuntimeError("shapes do not match"), CPU)


def test_the_peak_of_memory_is_at_least_what_is_held_now():
    held = torch.ones(64_000_000)
    peak = peak_memory()
    if peak is None:
        pytest.skip("the system does not tell")
    assert held.nbytes < peak < 100e9

"""The floors of the house: who may import whom, and what ``--help`` may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import geotranslate
from geotranslate.cli.main import COMMANDS

ROOT = Path(geotranslate.__file__).parent
FLOORS = {
    "errors": 0,
    "choices": 0,
    "raster": 1,
    "networks": 1,
    "chips": 2,
    "sample": 2,
    "translation": 3,
    "info": 4,
    "report": 4,
    "demo": 4,
    "cli": 5,
}
MAP_HALF = {"raster", "chips", "sample"}
TENSOR_HALF = {"networks"}
TENSOR_LIBRARIES = {"torch", "torchvision", "lightning", "torchgeo", "safetensors"}
MAP_LIBRARIES = {"rasterio", "geopandas", "shapely", "pyogrio", "torchgeo"}
HEAVY = (
    *("torch", "torchgeo", "lightning", "numpy", "scipy", "matplotlib"),
    *("rasterio", "geopandas", "shapely", "pyogrio", "pandas"),
)


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Every module a file names in an import statement, at the top or inside a function.

    Those of relative imports begin with dots.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_and_each_half_keeps_to_its_libraries(path):
    part = part_of(path)
    if part in {"__init__", "__main__"}:
        return
    names = imported(path)
    assert not any(name.startswith(".") for name in names), "a relative import hides its floor"
    inside = {name.split(".")[1] for name in names if name.startswith("geotranslate.")}
    for other in inside & set(FLOORS):
        assert FLOORS[other] <= FLOORS[part], f"{path} is below {other}"
    libraries = {name.split(".")[0] for name in names}
    if part in MAP_HALF:
        assert not libraries & TENSOR_LIBRARIES
        assert "networks" not in inside
    if part in TENSOR_HALF:
        assert not libraries & MAP_LIBRARIES
        assert not inside & {"raster", "chips"}
    if "torchgeo" in libraries:
        assert path.name == "torchgeo.py", "torchgeo has one door"


def test_relative_imports_are_seen(tmp_path):
    path = tmp_path / "module.py"
    for line in ("from . import raster", "from ..chips.tile import tile_scenes"):
        path.write_text(line)
        assert all(name.startswith(".") for name in imported(path))


def test_every_part_has_a_floor():
    parts = {part_of(path) for path in modules()} - {"__init__", "__main__"}
    assert parts <= set(FLOORS)


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_imports_nothing_heavy(command):
    words = [command, "--help"] if command else ["--help"]
    code = (
        "import sys\n"
        "from geotranslate.cli.main import run\n"
        "try:\n"
        f"    run({words!r})\n"
        "finally:\n"
        f"    loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    sys.stderr.write(f'loaded {loaded}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert "loaded []" in done.stderr

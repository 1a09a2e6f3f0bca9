"""Commands as real processes that are killed, stopped or disturbed: what becomes of their work."""

import csv
import os
import random
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pytest
import rasterio

from tests.conftest import NORTH_UP
from tests.fair_clock import FairClock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has other signals")

GEOTRANSLATE = "-m", "geotranslate"
PATIENCE = 120.0

TINY = ("--width", "4", "--blocks", "1", "--discriminator-width", "4", "--crop", "24")
ON_CPU = ("--device", "cpu", "--precision", "float32")
UPDATES = ("--updates", "25", "--checkpoint-every", "5", "--samples-every", "8")
TRAIN = ("train", "chips", *TINY, *ON_CPU, *UPDATES)
TRAINED = (
    *("after *.safetensors 1", "before model.json 1", "before 000000005.pt 1"),
    *("after 000000005.pt 1", "before 000000020.pt 1", "after 000000025.pt 1"),
)


@dataclass(frozen=True)
class Work:
    """A command that writes something.

    Attributes:
        words: of the command, but for the output; inputs lie in the folder it is run in, and
            ``{folder}`` stands for that of the output.
        output: the file or folder to be, below a folder of its own.
        first: pattern of what is finished first.
        points: of being killed, in the order in which work comes to them.
        replaces: a raster of other words lies in the output's place.
    """

    words: tuple[str, ...]
    output: str
    first: str
    points: tuple[str, ...]
    replaces: bool = False


ROWS = ("after rows_* 1", "after rows_* 1", "half joined.tif 1", "before out.tif 1")
PREDICT = ("scene.tif", "--size", "64", *ON_CPU)

WORKS = {
    "predict": Work(("predict", "batch", *PREDICT), "out.tif", "out.tif.parts/rows_*.tif", ROWS),
    "dense": Work(
        ("predict", "instance", *PREDICT, "--seams", "dense", "--blend", "hann"),
        "out.tif",
        "out.tif.parts/rows_*.tif",
        ROWS,
    ),
    "overviews": Work(
        ("predict", "batch", "long.tif", "--size", "64", *ON_CPU),
        "out.tif",
        "out.tif.parts/rows_*.tif",
        ROWS,
    ),
    "check": Work(
        ("predict", "instance", *PREDICT, "--check-seams"),
        "out.tif",
        "out.tif.parts/rows_*.tif",
        # What was made is checked, which begins with measuring where nothing was left to make.
        (*ROWS, "after rows_* 1", "after statistics.json 1"),
    ),
    "statistics": Work(
        ("predict", "instance", *PREDICT, "--statistics", "{folder}/known.json"),
        "out.tif",
        "out.tif.parts/rows_*.tif",
        ("before known.json 1", "after known.json 1", *ROWS),
    ),
    "mosaic": Work(("mosaic", "tiles"), "out.tif", "out.tif.parts/rows_*.tif", ROWS),
    "replaced": Work(
        ("mosaic", "tiles", "--overwrite"),
        "out.tif",
        "out.tif.parts/rows_*.tif",
        ROWS,
        replaces=True,
    ),
    "matched": Work(
        ("mosaic", "tiles", "--match", "gain"),
        "out.tif",
        "out.tif.parts/rows_*.tif",
        ("before match.json 1", "after match.json 1", *ROWS),
    ),
    "virtual": Work(
        ("mosaic", "tiles", "--blend", "first", "--virtual"),
        "out.gti.gpkg",
        "out.gti.gpkg",
        ("before out.gti.gpkg 2", "after out.gti.gpkg 2"),
    ),
    "tile": Work(
        ("tile", "--a", "scene.tif", "--b", "optical.tif", "--size", "24", "--stride", "24"),
        "chips",
        "chips/images/*.tif",
        (
            *("after 000000003.tif 1", "before 000000020.tif 2"),
            *("before chips.gpkg 1", "before tile.json 1", "after tile.json 1"),
        ),
    ),
    "train": Work(TRAIN, "run", "run/checkpoints/*.pt", TRAINED),
    "cyclegan": Work((*TRAIN, "--model", "cyclegan"), "run", "run/checkpoints/*.pt", TRAINED),
}

# The command, which waits at the moment before or after a file gets its name for the n-th time,
# or when half of what GDAL copies is there; at a line from outside it goes on.
WAITING = """
import os, sys
from fnmatch import fnmatch
from pathlib import Path
import rasterio.shutil
from geotranslate.cli.main import run

moment, pattern, count = sys.argv[1].split()
left = int(count)
replace, copy = Path.replace, rasterio.shutil.copy

def wait_if(now, name):
    global left
    if now == moment and fnmatch(Path(name).name, pattern):
        left -= 1
        if left == 0:
            print("there", flush=True)
            sys.stdin.readline()

def replace_slowly(self, target):
    wait_if("before", target)
    replaced = replace(self, target)
    wait_if("after", target)
    return replaced

def copy_slowly(source, target, **words):
    copy(source, target, **words)
    whole = Path(target).read_bytes()
    Path(target).write_bytes(whole[: len(whole) // 2])
    wait_if("half", target)
    Path(target).write_bytes(whole)

Path.replace, rasterio.shutil.copy = replace_slowly, copy_slowly
run(sys.argv[2:])
"""


def write_raster(path, pixels, **words):
    count, height, width = pixels.shape
    words |= {"driver": "GTiff", "crs": "EPSG:32633", "dtype": pixels.dtype.name}
    words = {"transform": NORTH_UP} | words
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", count=count, height=height, width=width, **words) as file:
        file.write(pixels)


def write_model(folder, norm):
    """A bundle of random weights, from 2 bands of float32 to 3 of uint8."""
    import torch

    from geotranslate.networks.build import GeneratorSpec, build_generator
    from geotranslate.raster.domain import Band, Domain
    from geotranslate.translation.bundle import save_bundle

    def domain(count, dtype, low, high):
        bands = tuple(Band(name=f"band {number}") for number in range(count))
        words = {"low": (low,) * count, "high": (high,) * count, "resolution_m": (10.0, 10.0)}
        return Domain(bands=bands, dtype=dtype, **words)

    spec = GeneratorSpec(kind="resnet", width=4, blocks=1, norm=norm)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator(spec, 2, 3)
    save_bundle(
        folder,
        {"g_ab": generator},
        model="pix2pix",
        updates=1,
        generator=spec,
        domain_a=domain(2, "float32", -25.0, 0.0),
        domain_b=domain(3, "uint8", 0.0, 255.0),
        chip_size=32,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of inputs, in which commands are run."""
    folder = tmp_path_factory.mktemp("inputs")
    numbers = np.random.default_rng(0)
    pixels = numbers.uniform(-24, -1, (2, 300, 80)).astype("float32")
    pixels[:, :40, :30] = -999
    write_raster(folder / "scene.tif", pixels, nodata=-999)
    long = numbers.uniform(-24, -1, (2, 1100, 80)).astype("float32")
    write_raster(folder / "long.tif", long)
    optical = numbers.integers(1, 255, (3, 300, 80), dtype=np.uint8)
    write_raster(folder / "optical.tif", optical)
    for shift in (0, 300):
        pixels_of_tile = numbers.integers(1, 255, (1, 1700, 900), dtype=np.uint8)
        moved = NORTH_UP @ NORTH_UP.translation(shift, shift)
        write_raster(folder / "tiles" / f"{shift}.tif", pixels_of_tile, transform=moved)
    for number in range(6):
        for name, source in (("images", pixels[:, 50:74]), ("images2", optical[:, 50:74])):
            chip = source[..., 8 * number : 8 * number + 24]
            write_raster(folder / "chips" / name / f"{number:09d}.tif", chip)
    (folder / "temporary").mkdir()
    return folder


class Running:
    """A command on its way, as a process of its own."""

    def __init__(self, place, *words, group=False):
        # A pipe that is read by lines and then to its end would lose what lies in between.
        self._said = NamedTemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=place,
            env=os.environ | {"TMPDIR": str(place / "temporary")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=group,
            # A shell's background jobs ignore Ctrl-C, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self._said.close()

    @property
    def said(self):
        """What it has told the person so far."""
        return Path(self._said.name).read_text()

    def reach(self, condition):
        """Wait until something is so; False when the process has ended before it was."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                return condition()
            assert time.monotonic() < end
            time.sleep(0.001)
        return True

    def wait_there(self):
        """Wait until it waits."""
        said = self.process.stdout.readline()
        assert said == "there\n", said + self.said

    def go_on(self):
        """Let a process go on that waits."""
        with suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def finish(self):
        """Exit status and what was said, once it is done; a process that waits goes on."""
        self.process.communicate("\n", timeout=PATIENCE)
        return self.process.returncode, self.said


def spell(work, folder):
    """The words of a command."""
    return *(word.format(folder=folder) for word in work.words), "-o", folder / work.output


def command(place, work, folder):
    """Run a command to its end."""
    with Running(place, *GEOTRANSLATE, *spell(work, folder)) as running:
        return running.finish()


def waiting(place, work, folder, point):
    """A command that waits at a point."""
    return Running(place, "-c", WAITING, point, *spell(work, folder))


def put_in_place(work, folder):
    """What lies in the output's place before the work, where something does."""
    if work.replaces:
        write_raster(folder / work.output, np.ones((1, 30, 30), np.uint8))
        with rasterio.open(folder / work.output, "r+") as file:
            file.update_tags(GEOTRANSLATE_JOB='{"command": "mosaic"}')


def finished_rows(folder):
    """When each was finished."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.parts/rows_*.tif")}


def contents(folder):
    """What a folder holds, but for the clock: names of folders, bytes of files by their names."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        found[name] = path.read_bytes() if path.is_file() else b"a folder"
        if path.name == "log.csv":
            with path.open(newline="") as file:
                found[name] = [[*row[:1], *row[2:]] for row in csv.reader(file)]
        if path.name in ("sessions.json", "report.html"):
            found[name] = b"tells how long it took"
        if path.suffix == ".pt":
            found[name] = learned(path)
    return found


def learned(checkpoint):
    """What a checkpoint holds, but for the clock, as lines of text and tensors' bytes."""
    import torch

    def lines(value, name):
        if isinstance(value, dict):
            return [line for key in value for line in lines(value[key], f"{name}.{key}")]
        if isinstance(value, torch.Tensor):
            return [name, value.contiguous().numpy().tobytes()]
        return [] if name == ".seconds" else [name, repr(value)]

    return lines(torch.load(checkpoint, weights_only=True), "")


@pytest.fixture(scope="module")
def undisturbed(place, tmp_path_factory):
    """What a command makes when nothing happens, and how long it takes from the first part on."""
    made = {}

    def make(name):
        if name not in made:
            work, folder = WORKS[name], tmp_path_factory.mktemp("undisturbed")
            if work.words[0] == "predict":
                write_model(place / work.words[1], work.words[1])
            with Running(place, *GEOTRANSLATE, *spell(work, folder)) as running:
                assert running.reach(lambda: any(folder.glob(work.first)))
                begun = time.monotonic()
                status, said = running.finish()
            assert status == 0, said
            made[name] = contents(folder), time.monotonic() - begun
        return made[name]

    return make


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        *("mosaic", "replaced"),
        *(pytest.param(name, marks=slow) for name in WORKS if name not in ("mosaic", "replaced")),
    ],
)
def test_killed_at_one_point_after_the_other_it_ends_with_the_same_bytes(
    place, undisturbed, tmp_path, name
):
    work, (expected, _) = WORKS[name], undisturbed(name)
    put_in_place(work, tmp_path)
    rows = {}
    for point in work.points:
        with waiting(place, work, tmp_path, point) as running:
            running.wait_there()
            running.kill()
        left = contents(tmp_path)
        if left.get(work.output) != expected[work.output]:
            assert rows.items() <= finished_rows(tmp_path).items()
        rows = finished_rows(tmp_path)
    assert left != expected or name == "check"  # for which all is finished before its last point
    status, said = command(place, work, tmp_path)
    assert status == 0, said
    assert contents(tmp_path) == expected
    if name == "overviews":
        with rasterio.open(tmp_path / work.output) as file:
            assert file.overviews(1)


COUNTS = {"predict": 10, "dense": 9, "mosaic": 10, "tile": 10, "train": 6, "cyclegan": 6}
COUNTS |= {"check": 5, "statistics": 4, "replaced": 6, "matched": 4, "overviews": 3}
RANDOM = [
    *(("predict", 0), ("mosaic", 0), ("tile", 0)),
    *(
        pytest.param(name, number, marks=slow)
        for name, count in COUNTS.items()
        for number in range(1, count)
    ),
]


@pytest.mark.parametrize(("name", "number"), RANDOM)
def test_killed_at_a_random_moment_it_ends_with_the_same_bytes(
    place, undisturbed, tmp_path, name, number
):
    work, (expected, seconds) = WORKS[name], undisturbed(name)
    put_in_place(work, tmp_path)
    with Running(place, *GEOTRANSLATE, *spell(work, tmp_path)) as running:
        assert running.reach(lambda: any(tmp_path.glob(work.first)))
        time.sleep(random.Random(f"{name} {number}").uniform(0, seconds))
        running.kill()
    status, said = command(place, work, tmp_path)
    assert status == 0, said
    assert contents(tmp_path) == expected


@pytest.mark.parametrize(
    "name", ["mosaic", *(pytest.param(name, marks=slow) for name in ("predict", "tile", "train"))]
)
def test_of_two_processes_the_second_refuses_and_the_first_is_not_disturbed(
    place, undisturbed, tmp_path, name
):
    work, (expected, _) = WORKS[name], undisturbed(name)
    with waiting(place, work, tmp_path, work.points[0]) as first:
        first.wait_there()
        status, said = command(place, work, tmp_path)
        assert status == 1
        assert "is being written by another process" in said.splitlines()[-1]
        status, said = first.finish()
    assert status == 0, said
    assert contents(tmp_path) == expected


@pytest.fixture
def restored(place):
    """Changes a raster among the inputs; at the end they are what they were."""
    before = {}

    def change(name, what):
        path = place / name
        if name not in before:
            before[name] = path.read_bytes(), path.stat().st_mtime_ns
        change_raster(path, what, *before[name])

    yield change
    for name, (content, changed_at) in before.items():
        (place / name).write_bytes(content)
        os.utime(place / name, ns=(changed_at, changed_at))


def change_raster(path, what, content, changed_at):
    """Change only a file's time, only its size, or only what it says of its place."""
    if what == "size":
        content += b"more"
    if what == "header":
        left, moved = (struct.pack("<d", NORTH_UP.c + shift) for shift in (0, 10))
        assert content.count(left) == 1
        content = content.replace(left, moved)
    # In place, so that who reads it meanwhile never finds it cut off.
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
    changed_at += 10**9 * (what == "time")
    os.utime(path, ns=(changed_at, changed_at))


CHANGED = [
    ("mosaic", "tiles/0.tif"),
    pytest.param("tile", "optical.tif", marks=slow),
    pytest.param("predict", "scene.tif", marks=slow),
]


@pytest.mark.parametrize(("name", "changed"), CHANGED)
def test_an_input_that_changed_after_a_kill_is_refused(
    place, undisturbed, restored, tmp_path, name, changed
):
    work, _ = WORKS[name], undisturbed(name)
    with waiting(place, work, tmp_path, work.points[0]) as running:
        running.wait_there()
        running.kill()
    left = contents(tmp_path)
    for what in ("time", "size", "header"):
        restored(changed, what)
        status, said = command(place, work, tmp_path)
        assert status == 2, said
        assert ("scene.transform was" if (name, what) == ("predict", "header") else changed) in said
        assert "--overwrite to start over" in said
        assert said.count("\n") == 1
        # Only the lock of the process that was killed may be gone.
        assert all(name.endswith(".lock") for name in left.keys() ^ contents(tmp_path).keys())


@pytest.mark.parametrize(
    ("name", "changed", "what"),
    [
        ("mosaic", "tiles/0.tif", "time"),
        pytest.param("mosaic", "tiles/0.tif", "size", marks=slow),
        pytest.param("predict", "scene.tif", "header", marks=slow),
        *(
            pytest.param(name, changed, what, marks=slow)
            for name, changed in (("tile", "optical.tif"), ("predict", "scene.tif"))
            for what in ("time", "size")
        ),
    ],
)
def test_an_input_that_changes_while_it_is_worked_on_is_refused(
    place, undisturbed, restored, tmp_path, name, changed, what
):
    work, _ = WORKS[name], undisturbed(name)
    with waiting(place, work, tmp_path, work.points[1]) as running:
        running.wait_there()
        restored(changed, what)
        status, said = running.finish()
    assert status == 1, said
    assert f"{changed} was changed while" in said
    assert "with --overwrite once nobody writes to" in said
    assert not list(tmp_path.glob("out.tif")) + list(tmp_path.glob("*/tile.json"))


INTERRUPTED = [
    ("mosaic", "after rows_* 1"),
    ("predict", "after rows_* 1"),
    pytest.param("tile", "after 000000003.tif 1", marks=slow),
    pytest.param("train", "after 000000005.pt 1", marks=slow),
    pytest.param("replaced", "after rows_* 1", marks=slow),
    pytest.param("mosaic", "half joined.tif 1", marks=slow),
    pytest.param("predict", "half joined.tif 1", marks=slow),
]


@pytest.mark.parametrize(("name", "point"), INTERRUPTED)
def test_ctrl_c_is_answered_at_once_and_says_how_to_go_on(
    place, undisturbed, tmp_path, name, point
):
    work, (expected, _) = WORKS[name], undisturbed(name)
    put_in_place(work, tmp_path)
    with waiting(place, work, tmp_path, point) as running:
        running.wait_there()
        clock = FairClock(running.process.pid)
        running.process.send_signal(signal.SIGINT)
        assert running.reach(lambda: " ends first, " in running.said)
        assert clock.read() < 1
        running.go_on()
        assert not running.reach(lambda: clock.read() > 5)
        status, said = running.finish()
    assert status == 130
    assert said.endswith("Run the same command again to go on from here.\n")
    assert "Traceback" not in said
    left = contents(tmp_path)
    assert list(tmp_path.glob(work.first))
    assert not [name for name in left if name.endswith((".part", ".lock"))]
    assert left != expected


def newest_only(found):
    """The contents of a run without its older checkpoints, which depend on the breaks."""
    *old, _ = sorted(name for name in found if name.endswith(".pt"))
    return {name: content for name, content in found.items() if name not in old}


PREEMPTED = [
    ("cyclegan", 0),
    *(
        pytest.param(name, number, marks=slow)
        for name in ("train", "cyclegan")
        for number in range(1, 6)
    ),
]


@pytest.mark.parametrize(("name", "number"), PREEMPTED)
def test_preempted_at_a_random_moment_a_run_loses_nothing_and_ends_with_the_same_bytes(
    place, undisturbed, tmp_path, name, number
):
    work, (expected, seconds) = WORKS[name], undisturbed(name)
    run, numbers = tmp_path / work.output, random.Random(f"{name} {number}")
    # In every second try all of its processes are asked, those too that read ahead.
    group = number % 2 == 1
    words = [*GEOTRANSLATE, *work.words, "-o", run, "--workers", int(group)]
    with Running(place, *words, group=group) as running:
        assert running.reach(lambda: any(tmp_path.glob(work.first)))
        time.sleep(numbers.uniform(0, 0.2 * seconds))
        (os.killpg if group else os.kill)(running.process.pid, signal.SIGTERM)
        status, said = running.finish()
    newest = max(int(path.stem) for path in run.glob("checkpoints/*.pt"))
    if status != 143 or newest == max(int(Path(n).stem) for n in expected if n.endswith(".pt")):
        # It was asked when all was done, or as good as done.
        status, said = command(place, work, tmp_path)
        assert status == 0, said
        settings = f"{work.output}/config.toml"  # which name the number of workers
        assert contents(tmp_path) | {settings: None} == expected | {settings: None}
        return
    assert f"The state after update {newest} is kept. To go on from there:\n" in said
    assert f"geotranslate train --resume {run}\n" in said
    assert "Traceback" not in said
    assert not [name for name in contents(tmp_path) if name.endswith((".part", ".lock"))]
    status, said = command(place, work, tmp_path)
    assert status == 0, said
    assert (
        f"Going on after update {newest}" in said or f"Going on after update {newest - 1}" in said
    )
    assert newest_only(contents(tmp_path)) == newest_only(expected)

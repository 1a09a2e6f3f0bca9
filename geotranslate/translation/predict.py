"""Scenes translated whole: window by window through a generator, back onto the scene's own grid.

Each finished row of cores is a small GeoTIFF beside the output; at the end they become one
cloud-optimized GeoTIFF. So memory does not grow with the scene, and interrupted work goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from geotranslate.choices import PredictBlend
from geotranslate.errors import OutsideError, SettingError
from geotranslate.networks.build import Generator
from geotranslate.raster.area import read_area
from geotranslate.raster.cores import TAPERS, Lattice, core_size, core_step
from geotranslate.raster.disk import check_room_for_cogs
from geotranslate.raster.domain import Domain
from geotranslate.raster.job import FileJob, begin_anew, file_job
from geotranslate.raster.output import (
    LOCK_NAME,
    UNKNOWN,
    explained,
    forget_lock,
    locked,
    record_tags,
)
from geotranslate.raster.scene import expand_paths
from geotranslate.raster.vrt import Source
from geotranslate.raster.writing import BLOCK, check_crs, write_cog
from geotranslate.translation.bundle import Bundle, load_bundle
from geotranslate.translation.engine import good_batch
from geotranslate.translation.memory import kept_memory
from geotranslate.translation.network import Network
from geotranslate.translation.norm_statistics import choose_seams
from geotranslate.translation.pipeline import translate_rows
from geotranslate.translation.precision import choose_arithmetic, choose_device
from geotranslate.translation.predict_config import PredictConfig
from geotranslate.translation.preflight import check_scene, open_matching
from geotranslate.translation.scene_plan import (
    ScenePlan,
    check_output,
    check_scene_unchanged,
    has_share,
    name_outputs,
    wanted_part,
)
from geotranslate.translation.seam_check import SeamCheck, check_sample

logger = logging.getLogger(__name__)

TRUSTED_MARGIN = 128
"""The most that is read around cores that are blended: nearer to its rim than this a deep U-Net is
not trusted, and its halo of 512 px would cost more than the blending saves."""

ROW_BLOCK = BLOCK // 2
"""Side of the blocks of a row's file."""

State = Literal["measuring", "translating", "joining", "written", "unchanged", "checked"]


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Attributes:
        done: finished steps of all scenes: a core each, and joining them is one more; before
            them, where statistics are measured, a row of cells each or one for a sample.
        total: steps of all scenes.
        output: the file that is being made.
        state: ``measuring`` statistics for all scenes; ``translating``; ``joining`` the rows;
            ``written``, when the output is complete, or ``unchanged``, where the same words had
            completed it before; and ``checked`` for seams after that, if it was asked for.
        pixels: valid pixels that this step translated.
        seams: what the check found; None where no two cores meet.
    """

    done: int
    total: int
    output: Path
    state: State
    pixels: int = 0
    seams: SeamCheck | None = None


def predict_scenes(
    model: str | Path,
    scenes: Iterable[str | Path],
    output: str | Path,
    config: PredictConfig | None = None,
    *,
    overwrite: bool = False,
) -> Iterator[Progress]:
    """Translate scenes, each onto its own grid, into the target's bands, units and type.

    Invalid pixels stay invalid. The result does not depend on ``size``, ``batch``, ``aoi`` and
    ``bounds`` but for rounding, unless ``seams`` is ``tile`` or the generator is a deep U-Net that
    is blended. Of several scenes, those outside ``aoi`` and ``bounds`` are left out, with a
    warning. Everything is checked at once; the work is done as the result is iterated over.
    Interrupted, it goes on with the same words where it was, also where they are to overwrite.

    Args:
        model: a bundle, or the folder of a run.
        scenes: rasters, folders and globs.
        output: a GeoTIFF for one scene, or a folder, which gets ``NAME.tif`` for each scene.
        config: the settings.
        overwrite: replace what is there.

    Yields:
        Progress at the start of each scene, after each batch of cores and each output; steps of
        measuring a scene for itself come first, as ``translating``.

    Raises:
        BundleError: there is no model, it is damaged, or has no way back.
        RasterError: a scene cannot be read.
        BandError: a scene has other bands than the model takes.
        GridError: nothing lies inside bounds and area, the pixel size is off by a factor of 2, or
            a GeoTIFF cannot hold the scene's CRS.
        SettingError: a setting cannot work with this model, two scenes would get one output, most
            values are none the model knows, or a batch does not fit into the GPU's memory.
        OutputError: an output cannot be written, is there already, made by other words, or cannot
            fit on its disk.
    """
    config = config or PredictConfig()
    paths = expand_paths(scenes)
    outputs = name_outputs(paths, Path(output))
    bundle = load_bundle(Path(model))
    network = _choose_network(bundle, config)
    lattice = _lattice(network.translator.generator, config.size, config.blend)
    # No batch here: it only changes how fast the work is done, and may have to change to go on. No
    # version of geotranslate either: what is finished stays finished after an upgrade.
    words = {
        "command": "predict",
        "model": bundle.identity,
        "direction": config.direction,
        "size": lattice.size,
        "blend": config.blend,
        "seams": network.seams,
        "device": network.device.type,
        "precision": network.arithmetic,
        "turns": network.turns,
        "nodata": config.nodata,
        "decibel": config.decibel,
        "bounds": config.bounds,
    }
    plans = _plan_scenes(paths, outputs, network.translator.source, lattice, words, config)
    file = config.statistics
    if file is not None:
        plans = _with_statistics(network, plans, file)
    for plan in plans:
        check_output(plan.output, plan.record, overwrite=overwrite)
    if file is not None:
        _check_statistics_file(file)
    missing = [plan for plan in plans if overwrite or not plan.output.exists()]
    _check_room(missing, network.translator.target, Path(output))
    batch = config.batch or good_batch(lattice.size, network.device)
    work = Work(network, batch, overwrite, config.check_seams)
    return _carry_out(plans, work) if file is None else _carry_out_alike(plans, work, file)


def _choose_network(bundle: Bundle, config: PredictConfig) -> Network:
    """What the settings mean with this model and on this machine."""
    translator = bundle.translator(config.direction)
    device = choose_device(config.device)
    return Network(
        translator,
        f"{bundle.identity} {config.direction}",
        device,
        choose_arithmetic(config.precision, device),
        choose_seams(config, translator.generator),
        turns=config.turns,
    )


def _plan_scenes(
    paths: Sequence[str],
    outputs: Sequence[Path],
    source: Domain,
    lattice: Lattice,
    words: Mapping[str, Any],
    config: PredictConfig,
) -> list[ScenePlan]:
    """The scenes of which something is wanted; those outside are named, unless all are."""
    plans, outside = [], []
    for path, output in zip(paths, outputs, strict=True):
        try:
            plans.append(_plan_scene(path, output, source, lattice, words, config))
        except OutsideError:
            outside.append(path)
            if len(outside) == len(paths):
                raise
    if outside:
        logger.warning(
            "outside the bounds or the area of interest, skipped: %s", ", ".join(outside)
        )
    return plans


def _plan_scene(
    path: str,
    output: Path,
    source: Domain,
    lattice: Lattice,
    words: Mapping[str, Any],
    config: PredictConfig,
) -> ScenePlan:
    """One scene, looked at; ``words`` are those that all scenes share."""
    open_again = partial(
        open_matching,
        path,
        source,
        bands=config.bands,
        nodata=config.nodata,
        decibel=config.decibel,
    )
    with open_again() as scene:
        area = read_area(config.aoi, scene.grid.crs, scene.grid.bounds) if config.aoi else None
        part = wanted_part(path, scene.grid, config.bounds, area)
        check_crs(scene.grid)
        check_scene(scene, source, part, force=config.force)
        own_words = {"aoi": area.identity if area else None, "scene": scene.identity()}
        return ScenePlan(
            open_again, scene.bands, scene.grid, output, part, area, lattice, {**words, **own_words}
        )


def _with_statistics(network: Network, plans: Sequence[ScenePlan], file: Path) -> list[ScenePlan]:
    """Plans that say which statistics are used: those of a file, or to be measured into it."""
    names = {name for plan in plans for name, *_ in plan.record["scene"]["files"]}
    taken = {Path(name).resolve() for name in names} | {plan.output.resolve() for plan in plans}
    if file.resolve() in taken:
        raise SettingError(
            f"{file} is a scene or an output, and cannot hold statistics too. Choose another file, "
            f"such as {file.with_suffix('.json')}."
        )
    said = network.read_statistics(file).digest if file.exists() else UNKNOWN
    return [replace(plan, record=plan.record | {"statistics": said}) for plan in plans]


def _check_room(plans: Sequence[ScenePlan], target: Domain, output: Path) -> None:
    """Compare the disk's room with what is still to be written."""
    pixel = len(target.bands) * np.dtype(target.dtype).itemsize
    sizes = [plan.grid.height * plan.grid.width * pixel for plan in plans]
    check_room_for_cogs(output, sizes, passing=max(sizes, default=0))


def _check_statistics_file(file: Path) -> None:
    """Find out before the work whether a file that is not there can be written."""
    if file.exists():
        forget_lock(_lock(file), file)
        return
    with explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with locked(_lock(file), file):
        pass


def _lock(file: Path) -> Path:
    return file.with_name(file.name + LOCK_NAME)


def _lattice(generator: Generator, size: int, blend: PredictBlend) -> Lattice:
    """How scenes are cut for a generator."""
    stride, halo = generator.stride, generator.halo
    size = core_size(size, stride=stride, block=ROW_BLOCK)
    if blend == "crop":
        return Lattice(size, stride, halo, step=size)
    size = max(size, 2 * stride)
    margin = min(halo, max(TRUSTED_MARGIN, stride // 2))
    return Lattice(size, stride, margin, core_step(size, stride=stride), TAPERS[blend])


@dataclass(frozen=True)
class Work:
    """How scenes are translated.

    Attributes:
        network: what translates them.
        batch: windows translated at once.
        overwrite: replace what is there.
        check_seams: look at each output when it is finished.
    """

    network: Network
    batch: int
    overwrite: bool
    check_seams: bool


def _carry_out_alike(plans: Sequence[ScenePlan], work: Work, file: Path) -> Iterator[Progress]:
    """Translate scenes with the statistics of one file, which is made if it is not there."""
    measured = 0
    if not file.exists():
        total = sum(_steps(plan, work.network) for plan in plans)
        yield Progress(0, total, file, "measuring")
        with locked(_lock(file), file):
            for _ in work.network.measure_together(plans, file):
                measured += 1
                yield Progress(measured, total, file, "measuring")
        if not file.exists():
            raise SettingError(
                f"no valid pixel was found in {len(plans)} scenes, so there are no statistics to "
                f"write to {file}. Give a scene that holds data, or leave out --statistics."
            )
    network = replace(work.network, statistics=work.network.read_statistics(file))
    plans = _with_statistics(network, plans, file)
    yield from _carry_out(plans, replace(work, network=network), before=measured)


def _carry_out(plans: Sequence[ScenePlan], work: Work, *, before: int = 0) -> Iterator[Progress]:
    """Translate scenes one by one, after so many steps that were done before."""
    steps = [_steps(plan, work.network) for plan in plans]
    total = before + sum(steps)
    anew = begin_anew({plan.output: plan.record for plan in plans}) if work.overwrite else set()
    for plan, all_steps in zip(plans, steps, strict=True):
        yield Progress(before, total, plan.output, "translating")
        with file_job(plan.output, plan.record, overwrite=plan.output in anew) as job:
            for step in _make(plan, work, job):
                yield replace(step, done=before + step.done, total=total)
            if work.check_seams:
                found = _check(plan, work, job)
                yield Progress(before + all_steps, total, plan.output, "checked", seams=found)
        before += all_steps


def _steps(plan: ScenePlan, network: Network) -> int:
    """Those of measuring, a core each, and one to join them."""
    return network.steps(plan) + sum(map(len, plan.rows())) + 1


def _make(plan: ScenePlan, work: Work, job: FileJob) -> Iterator[Progress]:
    """One output; steps are counted for it alone."""
    rows, total = plan.rows(), _steps(plan, work.network)
    if job.finished:
        yield Progress(total, total, plan.output, "unchanged")
        return
    files = {
        number: source
        for number, row in enumerate(rows)
        if (source := plan.row_file(row, job.parts))
    }
    done = 0
    for steps, pixels in _write_rows(plan, work, job, files):
        done += steps
        yield Progress(done, total, plan.output, "translating", pixels)
    check_scene_unchanged(plan)
    yield Progress(done, total, plan.output, "joining")
    _join(job, plan, work.network.target, list(files.values()))
    yield Progress(total, total, plan.output, "written")


def _write_rows(
    plan: ScenePlan, work: Work, job: FileJob, files: Mapping[int, Source]
) -> Iterator[tuple[int, int]]:
    """Yield how many steps were finished since the last time, and their valid pixels."""
    rows = dict(enumerate(plan.rows()))
    missing = {number: file for number, file in files.items() if not Path(file.path).exists()}
    needed = {
        number: row
        for number, row in rows.items()
        if any(has_share(row, rows[other]) for other in missing)
    }
    finished = rows.keys() - needed.keys() | files.keys() - missing.keys()
    if finished:
        yield sum(len(rows[number]) for number in finished), 0
    if not needed:
        yield work.network.steps(plan), 0
    else:
        with kept_memory(work.network.device):
            for _ in work.network.measure(plan, job.parts):
                yield 1, 0
            engine = work.network.engine(plan, job.parts)
            for written in translate_rows(plan, engine, needed, missing, work.batch):
                yield written.cores * (written.row not in finished), written.pixels


def _join(job: FileJob, plan: ScenePlan, target: Domain, sources: Sequence[Source]) -> None:
    """Make one file of the rows."""
    write_cog(
        job.output,
        sources,
        plan.grid,
        bands=target.bands,
        dtype=target.dtype,
        nodata=target.nodata,
        tags=record_tags(job.record),
        scratch=job.parts,
    )


def _check(plan: ScenePlan, work: Work, job: FileJob) -> SeamCheck | None:
    with TemporaryDirectory() as folder:
        # Parts are those of work under way.
        measured = Path(folder) if job.finished else job.parts
        for _ in work.network.measure(plan, measured):
            pass
        engine = work.network.engine(plan, measured)
        return check_sample(plan, job.output, engine, Path(folder), work.batch)

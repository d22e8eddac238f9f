"""Runs the jobs of a jobs file one after another. A job that fails does not stop the others; a table at the end lists them all."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import bpy

from ...backend.errors import UserError, missing_library
from ...backend.output_checks import check_outputs
from ...backend.progress import Progress
from ...backend.whole_file import write_whole
from ..capture import run_capture
from ..import_export import export_take
from ..import_export.import_rig import import_rig
from ..settings import preference_values
from ..settings.chosen_armatures import armature_from_context
from ..tasks.task import Snapshot, Task
from . import jobs_file
from .jobs_file import Spec

FLAMENCO = Path(__file__).parent / "flamenco" / "anyrig_batch.js"
DONE, FAILED, SKIPPED = "done", "failed", "done before"
TIMELESS = (".glb", ".gltf")  # files that hold seconds, not frames
Say = Callable[[str], None]


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended. job: its number. frames: of the video. outputs: the files written, relative to the jobs file if below it."""

    job: int
    name: str
    status: str
    seconds: float = 0.0
    frames: int = 0
    armatures: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    error: str = ""


def run_command(options: argparse.Namespace, say: Say) -> int:
    """Exit code: 0 all done, 1 at least one job failed. Raises UserError if the jobs file has faults: then nothing has run."""
    if options.flamenco:
        say(f"Job type written: {save_job_type(Path(options.flamenco))}")
        return 0
    if options.jobs is None:
        raise UserError("No jobs file is given: name one, such as jobs.json.")
    specs = specs_of(options)
    if options.check:
        return _check(specs, say)
    outcomes = run_all(
        specs, Records(Path(options.jobs)), say, resume=options.resume, results=options.json and Path(options.json)
    )
    say(table(outcomes))
    return 1 if any(outcome.status == FAILED for outcome in outcomes) else 0


def specs_of(options: argparse.Namespace) -> list[Spec]:
    """The chosen jobs of the file, with what the options set for all of them. Raises UserError."""
    specs = jobs_file.choose(jobs_file.load_jobs(Path(options.jobs), bpy.data.filepath), options.job)
    if options.keep_bones:
        specs = [_with_kept(spec, options.keep_bones) for spec in specs]
    if options.refine:
        specs = [replace(spec, values={**spec.values, "refine": options.refine}) for spec in specs]
    return specs


def _with_kept(spec: Spec, names: Sequence[str]) -> Spec:
    """The job with more bones that stay in place, beside those of its key."""
    return replace(spec, values={**spec.values, "keep_bones": [*dict.fromkeys([*spec.values.get("keep_bones", []), *names])]})


def save_job_type(folder: Path) -> Path:
    """Copy the job type for Flamenco's Manager into a folder. Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"There is no folder '{folder}' for the job type: choose a folder that exists.")
    try:
        return Path(shutil.copy(FLAMENCO, folder / FLAMENCO.name))
    except OSError as error:
        raise UserError(f"The job type cannot be written to '{folder}' ({error.strerror}): choose another folder.") from error


def _check(specs: Sequence[Spec], say: Say) -> int:
    """Report the inputs that do not exist. Exit code: 0 if there are all, else 1."""
    lines = [
        f"job {spec.number}: '{path}' does not exist" for spec in specs for path in (spec.file, spec.video) if not path.exists()
    ]
    for line in lines:
        say(line)
    missing = f"{_count(len(lines), 'input')} missing" if lines else "all inputs are there"
    say(f"{_count(len(specs), 'job')}: {missing}")
    return 1 if lines else 0


# ---- records of the jobs that are done


class Records:
    """A small file for each job that is done, beside the jobs file, so that workers on many machines can share them.

    The file's name changes with the job's keys and inputs, not with its place in the list.
    """

    def __init__(self, jobs: Path) -> None:
        self.jobs = jobs
        self._folder = jobs.absolute().with_suffix(".done")

    def find(self, spec: Spec) -> JobOutcome | None:
        """The outcome of the same job in an earlier run, if its outputs still exist."""
        try:
            content = json.loads(self._path(spec).read_text(encoding="utf-8"))
            values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
            found = JobOutcome(**values)
        except (OSError, ValueError, TypeError, AttributeError):  # there is no record, or the file is something else
            return None
        there = all((spec.folder / output).is_file() for output in found.outputs)
        return replace(found, job=spec.number, status=SKIPPED) if there else None

    def keep(self, spec: Spec, outcome: JobOutcome) -> None:
        """Raises UserError if it cannot be written."""
        try:
            self._folder.mkdir(exist_ok=True)
            part = self._path(spec).with_suffix(f".part{os.getpid()}")
            part.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
            part.replace(self._path(spec))
        except OSError as error:
            raise UserError(
                f"Record '{self._path(spec)}' cannot be written ({error.strerror}): make its folder writable, or --resume runs the job again."
            ) from error

    def _path(self, spec: Spec) -> Path:
        return self._folder / f"{spec.fingerprint}.json"


# ---- running


def run_all(
    specs: Sequence[Spec], records: Records, say: Say, *, resume: bool = False, results: Path | None = None
) -> list[JobOutcome]:
    """Run all jobs and report each. Raises UserError, before any of them runs, if the results cannot be written, or would overwrite what
    the jobs read or write."""
    outcomes: list[JobOutcome] = []
    check_outputs(results, inputs=(records.jobs, *(path for spec in specs for path in (spec.file, *spec.footage, *spec.outputs))))
    for spec in specs:
        before = records.find(spec) if resume else None
        say(f"Job {spec.number} ({spec.name}){': done before' if before else ''}")
        outcomes.append(before or run_one(spec, records, say))
        if results is not None:
            _write_results(results, outcomes)
    return outcomes


def run_one(spec: Spec, records: Records, say: Say) -> JobOutcome:
    """Run one job. Its outcome holds the error if it fails."""
    begun = time.perf_counter()
    task = Task(_steps(spec)).drain(_stage_reporter(say))
    try:
        outcome = task.result()
    except UserError as error:
        outcome = JobOutcome(spec.number, spec.name, FAILED, error=str(error))
    outcome = replace(outcome, seconds=round(time.perf_counter() - begun, 2))
    if outcome.status == DONE:
        try:
            records.keep(spec, outcome)
        except UserError as error:
            say(f"  {error}")
    else:
        say(f"  {outcome.error}")
    return outcome


def _stage_reporter(say: Say) -> Callable[[Snapshot], None]:
    """A function that reports each stage once."""
    stages: list[str] = []

    def report(snapshot: Snapshot) -> None:
        if stages[-1:] != [snapshot.stage]:
            stages.append(snapshot.stage)
            say(f"  {snapshot.stage}")

    return report


def _steps(spec: Spec) -> Generator[Progress, None, JobOutcome]:
    yield Progress("Opening the file")
    context = bpy.context
    params = spec.params(preference_values.default_device(context), preference_values.engine(context))
    objects = _open(spec, _rate(spec))
    for path in spec.outputs:
        if path.suffix.lower() == ".bvh":
            export_take.bvh_paths(path, [obj.name for obj in objects])  # raises if two would be one file
    take = run_capture.gather(bpy.context, objects, params, _bones(spec, objects))
    results = yield from run_capture.steps(take)
    actions = run_capture.write(take, results)
    if spec.file.suffix.lower() != ".blend":
        _fit_range(actions)
    yield Progress("Writing the files")
    written = export_take.export_take(spec.outputs, take, results, objects, actions)
    names = tuple(subject.rig.name for subject in take.subjects)
    outputs = tuple(_relative(path, spec.folder) for path in written)
    return JobOutcome(spec.number, spec.name, DONE, 0.0, len(results[0].motion), names, outputs)


def _rate(spec: Spec) -> float:
    """The video's frame rate. Raises UserError if it cannot be read, before anything is opened."""
    try:
        from ...backend.video.reader import probe
    except ImportError as error:
        raise missing_library(error) from error
    return probe(spec.params().clip).fps


def _open(spec: Spec, video_rate: float) -> list[bpy.types.Object]:
    """Open the job's rig file and return its armatures. Raises UserError."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    wanted = spec.values.get("scene_fps")
    if spec.file.suffix.lower() in TIMELESS:
        _set_rate(wanted or video_rate)
    import_rig(spec.file)
    if wanted is not None:
        _set_rate(wanted)
    return _armatures(spec, spec.file)


def _set_rate(rate: float) -> None:
    render = bpy.context.scene.render
    render.fps = max(round(rate), 1)
    render.fps_base = render.fps / rate


def _armatures(spec: Spec, file: Path) -> list[bpy.types.Object]:
    known = {obj.name: obj for obj in sorted(bpy.context.scene.objects, key=lambda obj: obj.name) if obj.type == "ARMATURE"}
    listed = ", ".join(f"'{name}'" for name in known) or "none"
    if spec.armatures is None:
        return list(known.values())
    for name in spec.armatures:
        if name not in known:
            raise UserError(f"Job {spec.number}, 'armatures': '{file.name}' has no armature '{name}', it has {listed}.")
    if spec.armatures:
        return [known[name] for name in dict.fromkeys(spec.armatures)]
    active = armature_from_context(bpy.context) if file.suffix.lower() == ".blend" else None
    found = active or (next(iter(known.values())) if len(known) == 1 else None)
    if found is None:
        raise UserError(f"Job {spec.number}, 'armatures': '{file.name}' has {listed}: name those to animate, or write \"all\".")
    return [found]


def _bones(spec: Spec, objects: Sequence[bpy.types.Object]) -> list[Sequence[str] | None]:
    """The bones that the job names for each armature; None where it names none. Raises UserError for an unknown armature."""
    known = [obj.name for obj in objects]
    for name in spec.bones:
        if name not in known:
            listed = ", ".join(f"'{each}'" for each in known)
            raise UserError(
                f"Job {spec.number}, 'bones': armature '{name}' is not one of the job's ({listed}): correct the name."
            )
    return [spec.bones.get(name) for name in known]


def _fit_range(actions: Sequence[bpy.types.Action]) -> None:
    """Set the scene's range to the take's, for a rig file that has no scene of its own."""
    scene = bpy.context.scene
    scene.frame_start = int(min(action.frame_range[0] for action in actions))
    scene.frame_end = int(max(action.frame_range[1] for action in actions))


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


# ---- the results


def _write_results(path: Path, outcomes: Sequence[JobOutcome]) -> None:
    counts = {key: sum(outcome.status == key for outcome in outcomes) for key in (DONE, FAILED, SKIPPED)}
    content = {"counts": counts, "jobs": [asdict(outcome) for outcome in outcomes]}
    write_whole(path, json.dumps(content, indent=1) + "\n", "table of results")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def table(outcomes: Sequence[JobOutcome]) -> str:
    """The summary: a line for each job, and a last line with the counts."""
    rows = [("job", "name", "result", "frames", "seconds", "files, or what went wrong")]
    for each in outcomes:
        what = each.error.replace("\n", " ") or ", ".join(each.outputs)
        rows.append((str(each.job), each.name, each.status, str(each.frames or "-"), f"{each.seconds:.1f}", what))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    right = {0, 3, 4}
    lines = [
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width) for column, (text, width) in enumerate(zip(row, widths))
        )
        + f"  {row[5]}"
        for row in rows
    ]
    counts = [f"{sum(each.status == key for each in outcomes)} {key}" for key in (DONE, FAILED, SKIPPED)]
    return "\n".join([*lines, f"{_count(len(outcomes), 'job')}: {', '.join(counts)}"])

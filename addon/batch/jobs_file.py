"""The jobs file (JSON): reads it, checks all of it before anything runs, and converts settings to keys and back.

A job gives its files and options by keys. Relative paths start at the folder of the JSON file; `defaults` holds values for keys that
a job leaves out. The fields of `Clip`, `Settings` and `CaptureParams` are keys, so a new field is a new key.
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from math import degrees, isfinite, radians
from pathlib import Path
from typing import Any, NoReturn

from ...backend.capture_settings import Settings
from ...backend.errors import UserError
from ...backend.output_checks import is_same_file
from ...backend.video.clip import Clip
from ..keying.nla import ACTION, STRIP
from ..rendering import engines
from ..rendering.engines import ENGINES
from ..rig.keyed_bones import DEFORM, choice_of, words_of
from ..settings.capture_params import CaptureParams

ALL = "all"
RIGS = (".blend", ".glb", ".gltf", ".fbx", ".bvh")
OUTPUTS = (".blend", ".bvh", ".fbx", ".glb")
DEVICE, ENGINE, BONES = "device", "engine", "bones"
PATHS = {"matte", "weights", "model", "isnet", "cache"}  # besides file, video and outputs
NAMED = {"model", "isnet"}  # those of them that may be a name, without a dot
# fields whose keys have another name or unit
RENAMED = {"path", "start", "end", "clip", "settings", "reference_frame", "azimuth", ENGINE, BONES, "collection", "output"}


@dataclass(frozen=True)
class Spec:
    """One job. number: its place in the file, from 1. values: the given keys, checked.

    armatures: () for the active or the only one, None for all.
    """

    number: int
    name: str
    folder: Path
    values: Mapping[str, Any]

    @property
    def file(self) -> Path:
        return self.folder / self.values["file"]

    @property
    def video(self) -> Path:
        return self.folder / self.values["video"]

    @property
    def footage(self) -> tuple[Path, ...]:
        """The video, and the matte if one is given."""
        matte = self.values.get("matte")
        return (self.video, self.folder / matte) if matte else (self.video,)

    @property
    def armatures(self) -> tuple[str, ...] | None:
        found = self.values.get("armatures", [])
        return None if found == ALL else tuple(found)

    @property
    def bones(self) -> Mapping[str, Sequence[str]]:
        """Armature -> the names of its bones to key; empty if the job names none, and `params` choose them."""
        found = self.values.get(BONES)
        return found if isinstance(found, dict) else {}

    @property
    def outputs(self) -> tuple[Path, ...]:
        return tuple(self.folder / text.replace("{name}", self.name) for text in self.values["outputs"])

    def params(self, device: str = "auto", engine: str = engines.WORKBENCH) -> CaptureParams:
        """The settings of the capture. device, engine: of a job that names none. Raises UserError for values that do not fit."""
        return params_of(self.values, self.folder, device, engine)

    @property
    def fingerprint(self) -> str:
        """A hash of the keys and of the input files' sizes and times. It stays the same if the folder moves."""
        seen: list[Any] = [self.name, dict(self.values)]
        for key in ("file", "video", "matte", "model"):
            path = self.folder / str(self.values.get(key))
            state = path.stat() if path.exists() else None
            seen.append(state and [state.st_size, int(state.st_mtime)])
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:16]


# ---- the values of keys: a check raises ValueError, whose text says what a value must be

Check = Callable[[Any], None]


def _check(good: bool, wanted: str) -> None:
    if not good:
        raise ValueError(wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _text(value: Any) -> None:
    _check(isinstance(value, str) and bool(value), "a text")


def _rig(value: Any) -> None:
    good = isinstance(value, str) and Path(value).suffix.lower() in RIGS
    _check(good, f"the path of a rig file ({', '.join(RIGS)})")


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(name, str) and name for name in value)


def _names(value: Any) -> None:
    _check(value == ALL or _are_names(value), f'a list of names, or "{ALL}"')


def _trim(value: Any) -> None:
    good = isinstance(value, list) and len(value) == 2 and _is_number(value[0]) and (value[1] is None or _is_number(value[1]))
    good = good and 0 <= value[0] and (value[1] is None or value[0] < value[1])
    _check(good, "two numbers of seconds, [start, end], the smaller one first, null for the end of the video")


def _frame(value: Any) -> None:
    _check(isinstance(value, int) and not isinstance(value, bool), "a frame, a whole number")


def _side(value: Any) -> None:
    _check(value == "auto" or _is_number(value), 'a number of degrees, or "auto"')


def _rate(value: Any) -> None:
    _check(_is_number(value) and 1 <= value <= 1000, "a number of frames per second from 1 to 1000")


def _engine(value: Any) -> None:
    _check(value in list(ENGINES), f"one of {', '.join(ENGINES)}")


def _bones(value: Any) -> None:
    named = isinstance(value, dict) and value != {} and all(map(_are_names, value.values()))
    good = named or (isinstance(value, str) and choice_of(value) is not None)
    _check(good, '"deform", "selected", "collection:NAME" or {"ARMATURE": a list of bone names}')


def _yes_or_no(value: Any) -> None:
    _check(isinstance(value, bool), "true or false")


def _outputs(value: Any) -> None:
    good = isinstance(value, list) and value != [] and all(isinstance(text, str) for text in value)
    _check(
        good and all(Path(text).suffix.lower() in OUTPUTS for text in value), f"a list of paths that end in {', '.join(OUTPUTS)}"
    )


OWN: dict[str, Check] = {
    "name": _text,
    "file": _rig,
    "armatures": _names,
    "video": _text,
    "trim": _trim,
    "reference": _frame,
    "view": _side,
    "scene_fps": _rate,
    ENGINE: _engine,
    BONES: _bones,
    "nla": _yes_or_no,
    "outputs": _outputs,
}
REQUIRED = {"file": ", and Blender was started without a file", "video": "", "outputs": ""}


@cache
def types_of(owner: type) -> dict[str, Any]:
    """The fields of Clip, Settings or CaptureParams that are keys under their own name, and their types."""
    hints = typing.get_type_hints(owner)
    return {field.name: hints[field.name] for field in fields(owner) if field.name not in RENAMED}


def keys() -> list[str]:
    """Every key that a job may have."""
    return [*OWN, *(key for owner in (Clip, Settings, CaptureParams) for key in types_of(owner))]


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return any(_fits(value, each) for each in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        parts = typing.get_args(kind)
        if parts[-1] is ...:
            return isinstance(value, list) and all(_fits(each, parts[0]) for each in value)
        return isinstance(value, list) and len(value) == len(parts) and all(map(_fits, value, parts))
    if kind is float:
        return _is_number(value)
    return type(value) is kind or (kind is type(None) and value is None)


def _wanted(kind: Any) -> str:
    """A type, in words."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " or ".join(_wanted(each) for each in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        parts = typing.get_args(kind)
        return f"a list of {'any length' if parts[-1] is ... else len(parts)}, each {_wanted(parts[0])}"
    words = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", type(None): "null"}
    return words.get(kind, "something else")


def faults_in(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of a job, by key."""
    return [f"'{key}': {fault}" for key, value in values.items() if (fault := _fault(key, value))]


def _fault(key: str, value: Any) -> str:
    """What is wrong with a value; '' if nothing is."""
    try:
        if key in OWN:
            OWN[key](value)
            return ""
        owner = next((each for each in (Clip, Settings, CaptureParams) if key in types_of(each)), None)
        if owner is None:
            return f"there is no such key: use one of {', '.join(keys())}"
        _check(_fits(value, types_of(owner)[key]), _wanted(types_of(owner)[key]))
        example = CaptureParams(Clip("video"), Settings())
        before = {Clip: example.clip, Settings: example.settings, CaptureParams: example}[owner]
        replace(before, **{key: tuple(value) if isinstance(value, list) else value})
    except ValueError as error:
        return f"{json.dumps(value)} must be {error}"
    except UserError as error:
        return str(error)
    return ""


# ---- from values to settings and back


def params_of(
    values: Mapping[str, Any], folder: Path = Path(), device: str = "auto", engine: str = engines.WORKBENCH
) -> CaptureParams:
    """The settings of a capture from the keys of a job.

    folder: where relative paths start. device, engine: for values that name none. Raises UserError for values that do not fit.
    """
    own = {owner: _own_values(owner, values, folder) for owner in (Clip, Settings, CaptureParams)}
    start, end = values.get("trim", (0.0, None))
    side, bones = values.get("view", "auto"), values.get(BONES, "deform")
    choice = choice_of(bones) if isinstance(bones, str) else (DEFORM, "")
    if choice is None:
        raise UserError(f"Unknown choice of bones '{bones}': give deform, selected or collection:NAME.")
    return CaptureParams(
        Clip(str(folder / values["video"]), start=start, end=end, **own[Clip]),
        Settings(**{DEVICE: device, **own[Settings]}),
        reference_frame=values.get("reference"),
        azimuth=None if side == "auto" else radians(side),
        engine=ENGINES[values[ENGINE]] if ENGINE in values else engine,
        output=STRIP if values.get("nla") else ACTION,
        bones=choice[0],
        collection=choice[1],
        **own[CaptureParams],
    )


def _own_values(owner: type, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The given values of a class's own fields, paths resolved."""
    found = {key: values[key] for key in types_of(owner) if key in values}
    for key in found.keys() & PATHS:
        if found[key] and _is_path(key, found[key]):
            found[key] = str(folder / found[key])
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}


def values_of(params: CaptureParams, relative: Callable[[str], str]) -> dict[str, Any]:
    """The keys of a job with these settings, without defaults. relative: makes a path relative to the jobs file."""
    clip, usual = params.clip, CaptureParams(Clip("video"), Settings())
    values: dict[str, Any] = {"video": relative(clip.path)}
    if (clip.start, clip.end) != (0.0, None):
        values["trim"] = [clip.start, clip.end]
    if params.reference_frame is not None:
        values["reference"] = params.reference_frame
    if params.azimuth is not None:
        values["view"] = degrees(params.azimuth)
    if params.bones != DEFORM:
        values[BONES] = words_of(params.bones, params.collection)
    if params.output == STRIP:
        values["nla"] = True
    values[ENGINE] = next(name for name, engine in ENGINES.items() if engine == params.engine)
    for given, normal in ((clip, usual.clip), (params.settings, usual.settings), (params, usual)):
        for key in types_of(type(given)):
            value = getattr(given, key)
            if value != getattr(normal, key) or key == DEVICE:
                values[key] = relative(value) if _is_path(key, value) else list(value) if isinstance(value, tuple) else value
    return values


def _is_path(key: str, value: Any) -> bool:
    return key in PATHS and (key not in NAMED or bool(Path(value).suffix))


# ---- the file


def load_jobs(path: Path, opened: str = "") -> list[Spec]:
    """Read and check the file. Raises UserError that lists everything wrong with it, by job and key.

    opened: the file that Blender was started with, for jobs that name none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except FileNotFoundError as error:
        raise UserError(f"Jobs file '{path}' does not exist: check the path.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"Jobs file '{path}' cannot be read ({error}): correct the file.") from error
    faults, jobs = _parts(content, {"file": opened} if opened else {})
    sound, specs = not faults, []
    for number, (values, own) in enumerate(jobs, 1):
        found = _faults(values, own)
        faults += [f"job {number}{fault}" for fault in found]
        specs += [] if found or not sound else [_spec(number, path.absolute().parent, values)]
    faults += _clashes(specs)
    if faults:
        raise UserError(f"Jobs file '{path}' needs correcting: {faults[0]}" if len(faults) == 1 else _many(path, faults))
    return specs


def _many(path: Path, faults: Sequence[str]) -> str:
    return f"Jobs file '{path}' needs correcting in {len(faults)} places:" + "".join(f"\n  {fault}" for fault in faults)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key '{next(name for name in names if names.count(name) > 1)}'")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed in JSON")


def _parts(content: Any, given: dict[str, Any]) -> tuple[list[str], list[tuple[dict[str, Any], Any]]]:
    """-> the faults of the file as a whole; and each job with the defaults filled in, beside the job as written."""
    if not isinstance(content, dict) or not isinstance(content.get("jobs"), list) or not content["jobs"]:
        return ['it must hold {"jobs": [{...}, ...]} with at least one job'], []
    faults = [f"'{key}': there is no such key: use jobs and defaults" for key in content.keys() - {"jobs", "defaults"}]
    defaults = content.get("defaults", {})
    if not isinstance(defaults, dict):
        return [*faults, "'defaults': it must hold keys and values, {...}"], []
    faults += [f"defaults, {fault}" for fault in faults_in(defaults)]
    return faults, [({**given, **defaults, **job} if isinstance(job, dict) else {}, job) for job in content["jobs"]]


def _faults(values: dict[str, Any], own: Any) -> list[str]:
    """What is wrong with a job. The faults of the defaults are listed once, not in every job."""
    if not isinstance(own, dict):
        return [": it must hold keys and values, {...}"]
    missing = [f", '{key}': it is missing{hint}" for key, hint in REQUIRED.items() if key not in values]
    faults = missing + [f", {fault}" for fault in faults_in(own)]
    return faults if faults or faults_in(values) else _clip_faults(values)


def _clip_faults(values: dict[str, Any]) -> list[str]:
    """What is wrong with values that are right by themselves: a time of the box outside the trim range."""
    start, end = values.get("trim", (0.0, None))
    try:
        Clip("video", start=start, end=end, box_time=values.get("box_time"))
    except UserError as error:
        return [f", 'box_time': {error}"]
    return []


def _spec(number: int, folder: Path, values: dict[str, Any]) -> Spec:
    return Spec(number, values.get("name", f"{Path(values['file']).stem}-{Path(values['video']).stem}"), folder, values)


def _clashes(specs: Sequence[Spec]) -> list[str]:
    """Outputs that cannot be written, or would overwrite the job's own rig file or another output."""
    faults, taken = [], dict[Path, int]()
    for spec in specs:
        if spec.values.get("nla") and any(path.suffix.lower() == ".glb" for path in spec.outputs):
            faults.append(f"job {spec.number}, 'nla': a .glb cannot hold NLA strips: remove nla or the .glb")
        for path, count in Counter(path.resolve() for path in spec.outputs).items():
            problem = _clash(spec, path, count, taken.setdefault(path, spec.number))
            faults += [f"job {spec.number}, 'outputs': '{path.name}' {problem}"] if problem else []
    return faults


def _clash(spec: Spec, path: Path, count: int, first: int) -> str:
    """What is wrong with an output (resolved) that the job lists `count` times and that job `first` writes first; '' if nothing."""
    if is_same_file(path, spec.file):
        return "is the job's own rig file: choose another name"
    if any(is_same_file(path, source) for source in spec.footage):
        return "is the job's own video or matte: choose another name"
    if first != spec.number:
        return f"is written by job {first} too: choose another name"
    return "is listed twice: remove one" if count > 1 else ""


def choose(specs: Sequence[Spec], wanted: Sequence[str]) -> list[Spec]:
    """The jobs with these numbers, such as '2', '4-6' or '1,3'; all of them if none is given. Raises UserError."""
    numbers: set[int] = set()
    for part in (part.strip() for text in wanted for part in text.split(",")):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or not 1 <= int(first) <= int(last or first) <= len(specs):
            known, example = f"from 1 to {len(specs)}", f"{min(2, len(specs))} or 1-{min(3, len(specs))}"
            raise UserError(f"There is no job '{part}'. Use job numbers {known}, for example {example}.")
        numbers |= set(range(int(first), int(last or first) + 1))
    return [spec for spec in specs if not wanted or spec.number in numbers]

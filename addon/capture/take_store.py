"""Stores takes: in the .blend, and as a copy in the extension's user folder in case Blender crashes before the file is saved.

In the .blend each take is a text data-block. A text belongs to no scene or object, so it outlives the action and the armature; it
takes part in undo, is appended with the rest of a file, and is saved without any user. Its lines are plain English. The take
itself is a custom property, as bytes (an npz, backend/motion/take_file.py): lines would need base64 (a third more) and slow down
Blender's text editor. Custom properties are read and saved by any Blender, with the add-on or without.
Measured for 300 frames of 150 bones: 1.2 MB, written in 0.07 s, read in 0.02 s.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.errors import UserError, printable
from ...backend.whole_file import write_whole
from ..rig.control_rigs import control_pose_of, control_rig, key_bone
from ..settings import preference_values

if TYPE_CHECKING:
    from ...backend.geometry.rotations import Array
    from ...backend.motion.motion import Motion
    from ...backend.motion.take_file import Take

log = logging.getLogger(__name__)

DATA = "anyrig_take"  # of a text: the take. Of an action: the key of the take that it was written from
ABOUT = "anyrig_about"
BASIS = "anyrig_basis"
CONTROLS = "anyrig_controls"
MOST_COPIES = 20
OLDEST_COPY = 60 * 24 * 3600.0  # seconds
SUFFIX = ".anyrig.npz"
WORDS = """AnyRig take '{name}'

Motion captured from {video}
onto armature '{armature}' on {date}, with model {model}.

This text carries the take as the network left it, in its custom property "{data}": AnyRig lists it in the sidebar's tab
AnyRig, under Takes, and can write its keys again. Without AnyRig, in Blender's Python console:

    import io, numpy
    take = numpy.load(io.BytesIO(bpy.data.texts[{text!r}]["{data}"]))
    print(take.files)

Deleting this text deletes the take, and none of the keys written from it.
"""


# ---- in the .blend


def stored() -> list[bpy.types.Text]:
    """The texts that carry takes, newest first."""
    return sorted((text for text in bpy.data.texts if is_take(text)), key=lambda text: about(text)["date"], reverse=True)


def is_take(text: bpy.types.Text) -> bool:
    return DATA in text and ABOUT in text


def about(text: bpy.types.Text) -> dict[str, Any]:
    """The facts about a stored take that need no unpacking: key, name, armature, video, model, date, frames, start_frame, fps, earlier, overlap,
    pins.

    start_frame, fps: of the keys as they were written last. overlap: of a refined take's silhouette with the subject's, 0..1, before and
    after; other takes lack it. pins: as JSON (pins_of). earlier: the name of the action that the armature played before, or ''.
    """
    return text[ABOUT].to_dict()


def set_about(text: bpy.types.Text, **values: Any) -> None:
    text[ABOUT] = {**about(text), **values}


@dataclass(frozen=True, eq=False)
class PoseBefore:
    """What an armature played and how it was posed before a take was keyed.

    action: the name of the action in use, or ''. basis: (J, 4, 4) `matrix_basis` of the take's joints, or of their controls.
    controls: the other settings of a control rig (control_rigs.control_pose_of).
    """

    action: str
    basis: Array
    controls: dict[str, Any]

    @classmethod
    def of(cls, obj: bpy.types.Object, names: Sequence[str]) -> PoseBefore:
        """names: the take's J joints."""
        rig = control_rig(obj)
        keyed = [obj.pose.bones.get(key_bone(rig, name)) for name in names]
        basis = [np.eye(4) if bone is None else np.array(bone.matrix_basis) for bone in keyed]
        return cls(action_name(obj), np.array(basis), control_pose_of(obj))


def action_name(obj: bpy.types.Object) -> str:
    """The action that an armature plays, or ''."""
    action = obj.animation_data and obj.animation_data.action
    return action.name if action else ""


def store(take: Take, fps: float, before: PoseBefore | None = None) -> bpy.types.Text:
    """Store a take in the file. fps: of the scene, when the keys were written. before: None for a take that has not been keyed."""
    text = bpy.data.texts.new(f".AnyRig {take.armature} {take.name}")
    text[DATA] = take.data
    text[ABOUT] = {
        "key": take.key,
        "name": take.name,
        "armature": take.armature,
        "video": printable(take.clip.path),
        "model": take.settings.model,
        "date": take.date,
        "frames": len(take.motion),
        "start_frame": take.start_frame,
        "fps": fps,
        "earlier": before.action if before else "",
        **_found(take.motion),
    }
    if before is not None:
        text[BASIS] = before.basis.ravel().tolist()
    if before is not None and before.controls:
        text[CONTROLS] = json.dumps(before.controls)
    text.write(WORDS.format(**about(text), data=DATA, text=text.name))
    return text


def _found(motion: Motion) -> dict[str, Any]:
    """The facts about a take that refining and pinning change."""
    overlap = motion.provenance.get("refine", {}).get("overlap")
    pins = [[int(frame), float(motion.times[frame]), motion.names[joint]] for frame, joint in motion.pins]
    return {**({"overlap": overlap} if overlap else {}), "pins": json.dumps(pins)}


def pins_of(text: bpy.types.Text) -> list[tuple[int, float, str]]:
    """Frame and seconds of the take, and bone, of each of its pins."""
    return [(int(frame), float(time), str(name)) for frame, time, name in json.loads(about(text).get("pins", "[]"))]


def read(text: bpy.types.Text) -> Take:
    """The take, with the start frame of its latest keys. Raises UserError if the stored data is damaged."""
    from ...backend.motion.take_file import Take

    data = text[DATA]
    take = Take.from_data(data if isinstance(data, bytes) else b"", f"Take '{label(text)}' in this file")
    start = about(text)["start_frame"]
    return take if start == take.start_frame else replace(take, start_frame=start)


def replace_motion(text: bpy.types.Text, motion: Motion) -> None:
    """Store another motion in a take. Its key stays, by which its action and its place in the list are known."""
    data = replace(read(text), motion=motion).data
    del text[DATA]  # Blender cuts bytes that replace others at the first zero
    text[DATA] = data
    set_about(text, **_found(motion))


def label(text: bpy.types.Text) -> str:
    return about(text)["name"]


def basis_of(text: bpy.types.Text) -> dict[str, Matrix]:
    """Bone name -> `matrix_basis` before the take was keyed; nothing for a take that was recovered."""
    values = np.array(text.get(BASIS, ()), float).reshape(-1, 4, 4)
    names = read(text).rig.names if len(values) else ()
    return {name: Matrix(value) for name, value in zip(names, values)}


def controls_of(text: bpy.types.Text) -> dict[str, Any]:
    """The settings of the control rig before the take was keyed (control_rigs.control_pose_of)."""
    return json.loads(text.get(CONTROLS, "{}"))


def mark_current(action: bpy.types.Action, key: str) -> None:
    """Note the key of its take on an action, and remove the note from actions written from the take earlier.

    A pointer from the take to the action would count as a user and keep actions in the file for ever.
    """
    for other in bpy.data.actions:
        if other.get(DATA) == key and other.library is None:
            del other[DATA]
    action[DATA] = key


def action_of(text: bpy.types.Text) -> bpy.types.Action | None:
    """The action that was last written from the take; of several copies the one in use."""
    key = about(text)["key"]
    found = [action for action in bpy.data.actions if action.get(DATA) == key]
    return max(found, key=lambda action: action.users - action.use_fake_user, default=None)


def plays(obj: bpy.types.Object, action: bpy.types.Action | None) -> bool:
    """Whether the armature plays the action, directly or in a strip."""
    data = obj.animation_data
    strips = [strip for track in data.nla_tracks if not track.mute for strip in track.strips if not strip.mute] if data else []
    return action is not None and data is not None and action in (data.action, *(strip.action for strip in strips))


def armature_of(text: bpy.types.Text) -> bpy.types.Object | None:
    """The armature that plays the take's action, else the one with the name that it was captured onto."""
    action, name = action_of(text), about(text)["armature"]
    armatures = [obj for obj in bpy.data.objects if obj.type == "ARMATURE"]
    return next((obj for obj in armatures if plays(obj, action)), next((obj for obj in armatures if obj.name == name), None))


# ---- copies in the user folder


def folder() -> Path:
    """The folder of the copies; a temporary one for an add-on that is not installed, which has no user folder."""
    try:
        return Path(bpy.utils.extension_path_user(preference_values.ROOT, path="takes", create=True))
    except ValueError:
        path = Path(tempfile.gettempdir()) / "anyrig-takes"
        path.mkdir(exist_ok=True)
        return path


def write_backup(takes: Sequence[Take]) -> list[Path]:
    """Write copies of the takes and remove the oldest ones. A full or locked disk is logged, so that the keys are not lost."""
    try:
        target = folder()
        paths = [_write(target, take) for take in takes]
        prune(target)
    except (OSError, UserError) as error:
        log.warning("The take could not be copied to the user folder: %s", error)
        return []
    return paths


def _write(target: Path, take: Take) -> Path:
    stamp = take.date.replace(":", "-").replace(" ", "_")
    # a file name has at most 255 bytes, and a letter up to four
    name = bpy.path.clean_name(printable(f"{take.name} on {take.armature}")).encode()[:120].decode(errors="ignore")
    path = target / f"{stamp} {name} {take.key}{SUFFIX}"
    write_whole(path, take.data)  # a crash while writing leaves no half take under this name
    return path


def prune(target: Path, now: float | None = None) -> None:
    """Remove copies beyond the newest MOST_COPIES, and those older than OLDEST_COPY."""
    now = time.time() if now is None else now
    for index, path in enumerate(copies(target)):
        if index >= MOST_COPIES or now - path.stat().st_mtime > OLDEST_COPY:
            path.unlink(missing_ok=True)


def copies(target: Path | None = None) -> list[Path]:
    """The copies, newest first; their names begin with the date."""
    return sorted((target or folder()).glob(f"*{SUFFIX}"), key=lambda path: path.name, reverse=True)


def missing_copies() -> list[Path]:
    """The copies of takes that are not in this file."""
    known = {about(text)["key"] for text in stored()}
    return [path for path in copies() if key_in(path) not in known]


def key_in(path: Path) -> str:
    return path.name.removesuffix(SUFFIX).rpartition(" ")[2]


def recover_takes(path: Path, fps: float) -> bpy.types.Text:
    """Store the take of a copy in this file, without keys. Raises UserError if the copy is damaged."""
    from ...backend.motion.take_file import Take

    return store(Take.load(path), fps)


def find_take(name: str) -> bpy.types.Text:
    """The stored take of this data-block name. Raises UserError."""
    text = bpy.data.texts.get(name)
    if text is None or not is_take(text):
        raise UserError("No take is chosen: capture one, or choose one under Takes in the AnyRig panel.")
    return text

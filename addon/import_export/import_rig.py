"""Imports rigs from files: .glb, .gltf, .fbx, .bvh and .blend."""

from __future__ import annotations

import codecs
import re
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import bpy
from bpy.types import Object

from ...backend.errors import UserError
from ...backend.motion.bvh import read_bvh
from ..rig.actions import actions_of, suitable_slot
from .gltf_default_pose import complete_pose, default_pose, read_nodes

KIND = re.compile(r"^(?:\w*(?:Error|Exception): )+")  # of an exception, before its words


def import_rig(path: str | Path, armature: str | None = None) -> Object:
    """Import a file into the current scene and return its armature: the named one, else the one with most bones.

    A .blend file is opened if the scene is empty, with its frame rate and world; otherwise its objects are appended.
    Raises UserError if the file is missing, of an unknown format, broken, or without such an armature.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Rig file '{path}' does not exist: check the path.")
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise UserError(f"Rig file '{path}' has an unknown format: use one of {', '.join(sorted(READERS))}.")
    try:
        objects = read(path)
    except (RuntimeError, OSError) as error:
        # Blender ends the traceback of an importer with the place in its own files
        lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Location:")]
        reason = KIND.sub("", lines[-1]) if lines else "the importer failed"
        raise UserError(f"Rig file '{path}' cannot be read ({reason}): export it again.") from error
    bpy.context.view_layer.update()
    return choose_armature(objects, path.name, armature)


def choose_armature(objects: Collection[Object], source: str, name: str | None = None) -> Object:
    """The armature called `name`, else the one with most bones. Raises UserError if there is none."""
    armatures = [obj for obj in objects if obj.type == "ARMATURE" and len(obj.data.bones)]
    if not armatures:
        raise UserError(f"'{source}' holds no armature with bones: export the rig with its skeleton.")
    if name is None:
        return max(armatures, key=lambda obj: len(obj.data.bones))
    for obj in armatures:
        if obj.name == name:
            return obj
    known = ", ".join(sorted(f"'{obj.name}'" for obj in armatures))
    raise UserError(f"'{source}' holds no armature called '{name}': choose one of {known}.")


def _new_objects(read: Callable[[Path], Any]) -> Callable[[Path], list[Object]]:
    def run(path: Path) -> list[Object]:
        before = {obj.session_uid for obj in bpy.data.objects}
        read(path)
        return [obj for obj in bpy.data.objects if obj.session_uid not in before]

    return run


def _read_gltf(path: Path) -> list[Object]:
    nodes = read_nodes(path)
    objects = _new_objects(_import_gltf)(path)
    for obj in objects:
        if obj.type == "ARMATURE":
            slots = {action: suitable_slot(obj, action) for action in actions_of(obj)}
            complete_pose(obj, slots, default_pose(obj, nodes))
    return objects


def _import_gltf(path: Path) -> None:
    bpy.ops.import_scene.gltf(filepath=str(path), disable_bone_shape=True)


def _import_fbx(path: Path) -> None:
    """With Blender's older importer, or with the newer one, if there is one, if that fails, as it does on lamps in Blender 5.0."""
    before = set(bpy.data.user_map())
    try:
        _import_older_fbx(path)
    except RuntimeError as error:
        _remove_new(before)
        if not _has_newer_fbx():
            raise
        try:
            _import_newer_fbx(path)
        except RuntimeError:
            _remove_new(before)
            raise error from None


# the default offset of both importers would shift every key by one frame
def _import_older_fbx(path: Path) -> None:
    bpy.ops.import_scene.fbx(filepath=str(path), anim_offset=0.0)


def _has_newer_fbx() -> bool:
    return "fbx_import" in dir(bpy.ops.wm)


def _import_newer_fbx(path: Path) -> None:
    bpy.ops.wm.fbx_import(filepath=str(path), anim_offset=0.0)


def _remove_new(before: set[bpy.types.ID]) -> None:
    """Remove the data-blocks that came to the file since `before`."""
    bpy.data.batch_remove(set(bpy.data.user_map()) - before)


def _read_bvh(path: Path) -> None:
    """Import what the project's own reader accepts, whose sentences name the line, as Blender's importer can read it.

    That one knows no byte order mark, no brace at the end of a line and no file without frames.
    """
    read_bvh(path)
    data = path.read_bytes()
    plain = _plain_bvh(data)
    with tempfile.TemporaryDirectory() as folder:
        source = path
        if plain != data:
            source = Path(folder) / path.name  # the armature takes the file's name
            source.write_bytes(plain)
        bpy.ops.import_anim.bvh(filepath=str(source), rotate_mode="QUATERNION", update_scene_fps=True)


def _plain_bvh(data: bytes) -> bytes:
    hierarchy, motion, frames = re.split(
        rb"(?i)^(\s*MOTION\b)", data.removeprefix(codecs.BOM_UTF8), maxsplit=1, flags=re.MULTILINE
    )
    hierarchy = re.sub(rb"[ \t]*([{}])[ \t]*(?=[^\s])|(?<=[^\s])[ \t]*([{}])", rb"\n\1\2\n", hierarchy)
    if re.search(rb"(?i)Frames:\s*0\b", frames):
        width = sum(int(count) for count in re.findall(rb"(?i)\bCHANNELS\s+(\d+)", hierarchy))
        frames = re.sub(rb"(?i)(Frames:\s*)0\b", rb"\g<1>1", frames).rstrip() + b"\n" + b"0 " * width + b"\n"
    return hierarchy + motion + frames


def _read_blend(path: Path) -> list[Object]:
    if not bpy.context.scene.objects:
        bpy.ops.wm.open_mainfile(filepath=str(path), load_ui=False, use_scripts=False)
        return list(bpy.context.scene.objects)
    if bpy.data.filepath and path.resolve() == Path(bpy.data.filepath).resolve():  # Blender cannot append a file to itself
        return list(bpy.context.scene.objects)
    with bpy.data.libraries.load(str(path), link=False) as (source, target):
        target.objects = list(source.objects)
        target.actions = list(source.actions)
    objects = [obj for obj in target.objects if obj is not None]
    for obj in objects:
        bpy.context.scene.collection.objects.link(obj)
    return objects


READERS: dict[str, Callable[[Path], list[Object]]] = {
    ".glb": _read_gltf,
    ".gltf": _read_gltf,
    ".fbx": _new_objects(_import_fbx),
    ".bvh": _new_objects(_read_bvh),
    ".blend": _read_blend,
}

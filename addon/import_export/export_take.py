"""Writes a keyed take to files: .blend, .bvh, .fbx and .glb. All of them are written, or none."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import bpy
import numpy as np

from ...backend.errors import UserError
from ...backend.output_checks import unique_paths
from ..rig.meshes import meshes_of

if TYPE_CHECKING:
    from ..capture.run_capture import CaptureRequest, CaptureResult

UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]')  # in a file name, on some system
Objects = Sequence[bpy.types.Object]


def export_take(
    paths: Sequence[Path],
    take: CaptureRequest,
    results: Sequence[CaptureResult],
    objects: Objects,
    actions: Sequence[bpy.types.Action],
) -> list[Path]:
    """Write the take, which the armatures play, to files of the formats that the paths' extensions name; -> the files written.

    A .blend is a copy of the open file. A .fbx or .glb holds the armatures with their meshes and this take alone. A .bvh holds one
    armature; for several each has its own file, PATH-NAME.bvh. Raises UserError if one cannot be written; no file is changed then.
    """
    pairs: list[tuple[Path, Callable[[Path], None]]] = []
    for path in paths:
        kind = path.suffix.lower()
        if kind == ".bvh":
            pairs += bvh_files(path, take, results)
        elif kind == ".blend":
            pairs.append((path, _write_blend))
        else:
            write = _write_fbx if kind == ".fbx" else _write_glb
            pairs.append((path, lambda part, write=write: _with_selected(objects, actions, part, write)))
    _write_all(pairs)
    return [path for path, _ in pairs]


def _write_all(pairs: Sequence[tuple[Path, Callable[[Path], None]]]) -> None:
    """Write all files under temporary names first, then rename them."""
    parts = [path.with_name(f".{path.stem}.part{path.suffix}") for path, _ in pairs]
    try:
        for (path, write), part in zip(pairs, parts, strict=True):
            _write_one(path, part, write)
        for (path, _), part in zip(pairs, parts, strict=True):
            part.replace(path)
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink()


def _write_one(path: Path, part: Path, write: Callable[[Path], None]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        if not part.is_file():
            raise OSError("nothing was written")
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UserError(f"File '{path}' cannot be written ({reason}): choose another folder or name.") from error


def bvh_files(path: Path, take: CaptureRequest, results: Sequence[CaptureResult]) -> list[tuple[Path, Callable[[Path], None]]]:
    """For each armature its path, PATH-NAME.bvh if there are several, and the function that writes it."""
    from ...backend.motion.bvh import write_bvh

    pairs: list[tuple[Path, Callable[[Path], None]]] = []
    targets = bvh_paths(path, [subject.rig.name for subject in take.subjects])
    for target, subject, result in zip(targets, take.subjects, results, strict=True):
        pairs.append((target, lambda part, rig=subject.rig, motion=result.motion: write_bvh(part, rig, motion)))
    return pairs


def bvh_paths(path: Path, armatures: Sequence[str]) -> list[Path]:
    """The BVH file of each armature: `path`, or PATH-NAME.bvh if there are several. Raises UserError if two would be one file."""
    return [path] if len(armatures) == 1 else unique_paths(path, armatures, [UNSAFE.sub("_", name) for name in armatures])


def _write_blend(path: Path) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(path.absolute()), copy=True)


def _write_fbx(path: Path, _name: str) -> None:
    bpy.ops.export_scene.fbx(
        filepath=str(path.absolute()),
        use_selection=True,
        object_types={"ARMATURE", "MESH"},
        add_leaf_bones=False,
        path_mode="COPY",
        embed_textures=True,
        # the scene's range, one key a frame, nothing thinned out
        bake_anim=True,
        bake_anim_use_nla_strips=False,
        bake_anim_use_all_actions=False,
        bake_anim_simplify_factor=0.0,
    )


def _write_glb(path: Path, name: str) -> None:
    bpy.ops.export_scene.gltf(
        filepath=str(path.absolute()),
        export_format="GLB",
        use_selection=True,
        export_yup=True,
        # the current actions of the armatures, as one animation, from its first key on
        export_animations=True,
        export_animation_mode="ACTIVE_ACTIONS",
        export_nla_strips_merged_animation_name=name,
        export_frame_range=False,
    )


def _with_selected(objects: Objects, actions: Sequence[bpy.types.Action], path: Path, write: Callable[[Path, str], None]) -> None:
    wanted = [*objects, *dict.fromkeys(mesh for obj in objects for mesh in meshes_of(obj))]
    ranges = np.array([action.frame_range for action in actions])
    with _selected(wanted, objects, (int(ranges[:, 0].min()), int(ranges[:, 1].max()))):
        write(path, actions[0].name)


@contextmanager
def _selected(wanted: Objects, armatures: Objects, span: tuple[int, int]) -> Iterator[None]:
    """Select and show these objects and set the scene's range to `span` (first and last frame); restores all of it afterwards.

    Raises UserError if an armature cannot be shown, since exporters leave out hidden objects.
    """
    scene, layer = bpy.context.scene, bpy.context.view_layer
    known = [obj for obj in layer.objects if obj.name in layer.objects]
    before = [(obj, obj.select_get(), obj.hide_get(), obj.hide_viewport) for obj in known]
    active, frames, present = layer.objects.active, (scene.frame_start, scene.frame_end), scene.frame_current
    try:
        for obj in known:
            if obj in wanted:
                obj.hide_viewport = False
                obj.hide_set(False)
            obj.select_set(obj in wanted)
        for obj in armatures:
            if obj not in known or not obj.visible_get():
                raise UserError(
                    f"Armature '{obj.name}' is in a hidden collection, which cannot be exported: show the collection."
                )
        layer.objects.active = armatures[0]
        scene.frame_start, scene.frame_end = span
        yield
    finally:
        scene.frame_start, scene.frame_end = frames
        scene.frame_set(present)
        for obj, select, hide, viewport in before:
            obj.select_set(select)
            obj.hide_set(hide)
            obj.hide_viewport = viewport
        layer.objects.active = active

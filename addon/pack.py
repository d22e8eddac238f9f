"""Rig packs: a character as plain arrays for training (skeleton, clips, surface), in world axes. No torch here."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
from bpy.types import Object

from ..backend.errors import UserError
from ..backend.rig import Rig
from ..backend.rotation import Array, rotation_part
from ..backend.train.packs import Pack
from .importing import action_frames, action_label, actions_of, import_rig, pose_frames
from .surface import carrying_bone, is_deformed, skinned_meshes, surface_of

_log = logging.getLogger(__name__)


def make_pack(obj: Object, name: str) -> Pack:
    """An armature with its meshes and all its actions, every whole frame at the scene's frame rate.

    Raises UserError if the armature has no joints or moves no mesh.
    """
    rig = rig_from_armature(obj)
    world = np.array(obj.matrix_world, dtype=np.float64)
    moved = world_rig(rig, world, name)
    clips: dict[str, np.ndarray] = {}
    for action in actions_of(obj):
        label = action_label(action)
        poses = pose_frames(obj, action, rig.names, action_frames(action))
        clips[action.name if label in clips else label] = world_poses(rig, moved, world, poses).astype(np.float32)
    render = bpy.context.scene.render
    return Pack(name, moved, surface_of(obj, rig.names), clips, render.fps / render.fps_base)


def rig_from_armature(obj: Object, bones: Collection[str] | None = None) -> Rig:
    """Joints: the deform bones that carry weights and their ancestors; further roots become children of the first."""
    carried: set[str] = set()
    for mesh in skinned_meshes(obj):
        carrier = carrying_bone(mesh, obj)
        carried |= {carrier} if carrier and not is_deformed(mesh, obj) else _weighted(mesh)
    used = [b for b in obj.data.bones if b.name in carried and b.use_deform and (bones is None or b.name in bones)]
    used = used or [b for b in obj.data.bones if b.use_deform]
    kept = {b.name for b in used} | {a.name for b in used for a in b.parent_recursive}
    roots = [b for b in obj.data.bones if b.parent is None and b.name in kept]
    roots.sort(key=lambda b: -sum(child.name in kept for child in b.children_recursive))
    order = [b for root in roots for b in (root, *root.children_recursive) if b.name in kept]
    names = [b.name for b in order]
    return Rig(
        name=obj.name,
        names=tuple(names),
        parents=np.array([names.index(b.parent.name) if b.parent else 0 if i else -1 for i, b in enumerate(order)]),
        rest=np.array([b.matrix_local for b in order]),
        tails=np.array([b.tail_local for b in order]),
        translates=np.array([b.parent is None and i > 0 for i, b in enumerate(order)]),
        static=np.zeros(len(order), np.bool_),
        world=rotation_part(np.array(obj.matrix_world)),
    )


def _weighted(mesh: Object) -> set[str]:
    used = {group.group for vertex in mesh.data.vertices for group in vertex.groups if group.weight > 0}
    return {group.name for group in mesh.vertex_groups if group.index in used}


def world_rig(rig: Rig, world: Array, name: str) -> Rig:
    """The rig in world axes, with W = `world` (4, 4), the object's matrix: rest matrices stay rigid, `rig.world` is identity.

    A point x of the armature is at W x, so heads and tails go to W head, W tail. W R_b would carry the object's scale into
    the rest rotation; its nearest rotation is kept instead. `world_poses` makes up for that.
    """
    rest = np.tile(np.eye(4), (len(rig.names), 1, 1))
    rest[:, :3, :3] = rotation_part(world @ rig.rest)
    rest[:, :3, 3] = rig.heads @ world[:3, :3].T + world[:3, 3]
    tails = rig.tails @ world[:3, :3].T + world[:3, 3]
    return replace(rig, name=name, rest=rest, tails=tails, world=np.eye(3))


def world_poses(rig: Rig, moved: Rig, world: Array, poses: Array) -> Array:
    """Joint matrices (F, J, 4, 4) in armature space -> the same in world axes, for the rest pose of `moved`.

    Skinning moves an armature point x to P R^-1 x. In the world that takes W x to W P R^-1 x = (W P R^-1 W^-1) (W x). So
    D = W P R^-1 W^-1 is the world's deformation, and D @ rest is the posed joint that gives D back as pose @ rest^-1: skinning
    with the world's rest matrices is exact for any W, and where W only turns, moves and scales evenly, D's rotation is that
    of W times the turn P R^-1 times W^-1.
    """
    deform = world @ poses @ np.linalg.inv(rig.rest) @ np.linalg.inv(world)
    return deform @ moved.rest


def pack_files(paths: Sequence[str | Path], out: str | Path) -> Iterator[tuple[Path, Pack]]:
    """Pack every file into the folder `out` as <stem>.npz; yields (path written, pack) one by one.

    The open file is replaced by an empty one before each. Raises UserError if two files have the same name, or one is unfit.
    """
    stems = [Path(path).stem for path in paths]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise UserError(f"Two of the files are called '{twice}': rename one, packs are named after their files.")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for path, stem in zip(paths, stems):
        # unlike read_factory_settings this leaves preferences, and so the running add-on, alone
        bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
        pack = make_pack(import_rig(path), stem)
        target = folder / f"{stem}.npz"
        pack.save(target)
        yield target, pack


def pack_command(args: list[str], say: Callable[[str], None] = _log.info) -> int:
    """`anyrig pack FILES... -o DIR`. One line per file goes to `say`; 1 if any file failed, the others are still packed."""
    parser = argparse.ArgumentParser(prog="anyrig pack", description="Make rig packs for training.")
    parser.add_argument("files", nargs="+", help=".glb .gltf .fbx .bvh .blend")
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="folder for the packs")
    options = parser.parse_args(args)
    failed = 0
    for path in options.files:
        try:
            for target, pack in pack_files([path], options.out):
                frames = sum(len(clip) for clip in pack.clips.values())
                say(f"{target}: {len(pack.rig.names)} joints, {len(pack.clips)} clips, {frames} frames")
        except UserError as error:
            failed += 1
            say(str(error))
    return 1 if failed else 0

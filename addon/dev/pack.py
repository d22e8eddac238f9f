"""`build.py dev pack`: makes rig packs for training, a character as plain arrays (skeleton, clips, surface). Needs no torch."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
from bpy.types import Object

from ...backend.arrays import Array
from ...backend.errors import UserError
from ...backend.geometry.rotations import nearest_rotation
from ...backend.rig.rig import Rig
from ...backend.train.packs.rig_packs import Pack
from ..import_export.import_rig import import_rig
from ..rig.actions import action_frames, action_label, actions_of, pose_frames
from ..rig.armature import rig_from_armature
from ..rig.armature_tree import in_armature_tree
from ..rig.surface_points import surface_of

_log = logging.getLogger(__name__)
POSES = 6  # poses that may show parts which are hidden at rest: mouths, armpits


def make_pack(obj: Object, name: str) -> Pack:
    """Pack an armature with its visible meshes and all its actions, every whole frame at the scene's frame rate; world axes.

    Raises UserError if the armature has no joints or moves no visible mesh.
    """
    rig = rig_from_armature(obj)
    own = in_armature_tree(obj, rig)
    world = np.array(obj.matrix_world, dtype=np.float64)
    moved, moved_own = world_rig(rig, world, name), world_rig(own, world, name)
    natural = [own.names.index(joint) for joint in rig.names]
    beside = [joint for joint, bone in enumerate(own.names) if bone not in rig.names]
    clips, others = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for action in actions_of(obj):
        label = action_label(action)
        poses = pose_frames(obj, action, own.names, action_frames(action))
        placed = world_poses(own, moved_own, world, poses).astype(np.float32)
        clip = action.name if label in clips else label
        clips[clip], others[clip] = placed[:, natural], placed[:, beside]
    render = bpy.context.scene.render
    surface = surface_of(obj, rig.names, deforms=some_deforms(moved, list(clips.values())))
    return Pack(name, moved, surface, clips, render.fps / render.fps_base, moved_own, others)


def some_deforms(rig: Rig, clips: Sequence[Array]) -> Array:
    """(K, J, 4, 4): the joints' movements away from rest on K <= POSES frames, spread over the clips."""
    poses = np.concatenate([rig.rest[None], *clips])
    chosen = np.unique(np.linspace(0, len(poses) - 1, POSES + 1).round().astype(int))[1:]
    return poses[chosen] @ np.linalg.inv(rig.rest)


def world_rig(rig: Rig, world: Array, name: str) -> Rig:
    """The rig in world axes, with W = `world` (4, 4), the object's matrix: rest matrices stay rigid, `rig.world` is identity.

    A point x of the armature is at W x, so heads and tails go to W head, W tail. W R_b would carry the object's scale into
    the rest rotation; its nearest rotation is kept instead. `world_poses` makes up for that.
    """
    rest = np.tile(np.eye(4), (len(rig.names), 1, 1))
    rest[:, :3, :3] = nearest_rotation(world @ rig.rest)
    rest[:, :3, 3] = rig.heads @ world[:3, :3].T + world[:3, 3]
    tails = rig.tails @ world[:3, :3].T + world[:3, 3]
    return replace(rig, name=name, rest=rest, tails=tails, world=np.eye(3))


def world_poses(rig: Rig, moved: Rig, world: Array, poses: Array) -> Array:
    """Joint matrices (F, J, 4, 4) in armature space -> the same in world axes, for the rest pose of `moved`.

    Skinning moves an armature point x to P R^-1 x. In the world that takes W x to W P R^-1 x = (W P R^-1 W^-1) (W x). So
    D = W P R^-1 W^-1 is the world's deformation, and D @ rest is the posed joint that gives D back as pose @ rest^-1: skinning
    with the world's rest matrices is exact for any W. If W only rotates, moves and scales evenly, D's rotation is that of W times
    the rotation P R^-1 times W^-1.
    """
    deform = world @ poses @ np.linalg.inv(rig.rest) @ np.linalg.inv(world)
    return deform @ moved.rest


def pack_files(paths: Sequence[str | Path], out: str | Path) -> Iterator[tuple[Path, Pack | UserError]]:
    """Pack every file into the folder `out` as <stem>.npz; yields (path, pack, or the error that made it unfit) one by one.

    The open file is replaced by an empty one before each. Raises UserError if two files have the same name.
    """
    stems = [Path(path).stem for path in paths]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise UserError(f"Two of the files are called '{twice}': rename one, because packs are named after their files.")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for path, stem in zip(paths, stems):
        # unlike read_factory_settings this leaves preferences, and so the running add-on, alone
        bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
        try:
            pack = make_pack(import_rig(path), stem)
        except UserError as error:
            yield Path(path), error
        else:
            pack.save(folder / f"{stem}.npz")
            yield Path(path), pack


def pack_command(args: list[str], say: Callable[[str], None] = _log.info) -> int:
    """`build.py dev pack FILES... -o DIR`. One line per file goes to `say`; 1 if any file failed, the others are still packed."""
    parser = argparse.ArgumentParser(prog="build.py dev pack", description="Make rig packs for training.")
    parser.add_argument("files", nargs="+", help=".glb .gltf .fbx .bvh .blend")
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="folder for the packs")
    options = parser.parse_args(args)
    failed = 0
    for path, result in pack_files(options.files, options.out):
        if isinstance(result, UserError):
            failed += 1
            say(str(result))
        else:
            frames = sum(len(clip) for clip in result.clips.values())
            say(f"{path}: {len(result.rig.names)} joints, {len(result.clips)} clips, {frames} frames")
    return 1 if failed else 0

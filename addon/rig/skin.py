"""The skin of an armature at rest, for `natural_skeleton`: points of its meshes and the bones that move them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import bpy
import numpy as np
from bpy.types import Mesh, Object
from numpy.typing import NDArray

from ...backend.arrays import Array
from ...backend.rig.skin_contact import Skin, sampled
from .meshes import carried_by, is_deformed, meshes_of, rest_position

SLOTS = 4  # bones a vertex: the strongest
# modifiers that leave a mesh's rest shape as its vertices have it, nearly: no need to evaluate it
PLAIN = {
    "ARMATURE",
    "SUBSURF",
    "MULTIRES",
    "TRIANGULATE",
    "WEIGHTED_NORMAL",
    "EDGE_SPLIT",
    "CORRECTIVE_SMOOTH",
    "SMOOTH",
    "BEVEL",
}


def read_skin(armature: Object, names: Sequence[str]) -> Skin | None:
    """Points on the meshes that the armature moves, at rest, in armature space; None without a mesh. joints index `names`.

    Hidden meshes count too. A bone that is not among the names moves what its nearest ancestor among them moves. Nothing in the file
    changes.
    """
    meshes = meshes_of(armature)
    if not meshes:
        return None
    posed = [mesh for mesh in meshes if carried_by(mesh, armature)[1] or not _is_plain(mesh)]
    with rest_position(armature) if posed else nullcontext():
        parts = [_read_part(mesh, armature, names, mesh in posed) for mesh in meshes]
    start = np.cumsum([0, *(len(vertices) for vertices, *_ in parts)])
    triangles = [part[1] + first for part, first in zip(parts, start)]
    vertices, joints, weights = (np.concatenate([part[index] for part in parts]) for index in (0, 2, 3))
    return sampled(vertices, np.concatenate(triangles), joints, weights)


def _is_plain(obj: Object) -> bool:
    return all(modifier.type in PLAIN for modifier in obj.modifiers)


def _read_part(obj: Object, armature: Object, names: Sequence[str], evaluate: bool) -> tuple[Array, NDArray, NDArray, Array]:
    """Vertices (V, 3) in armature space, triangles (K, 3), joints (V, SLOTS), weights (V, SLOTS) of one mesh."""
    # a mesh that the viewport leaves out is not evaluated: this is the mesh itself then, without its modifiers
    shown = obj.evaluated_get(bpy.context.evaluated_depsgraph_get()) if evaluate else obj
    mesh = shown.to_mesh() if evaluate else obj.data
    mesh.calc_loop_triangles()
    vertices = _read_array(mesh.vertices, "co", np.float32)
    triangles = _read_array(mesh.loop_triangles, "vertices", np.int32)
    # x is in the mesh's own space; W_armature^-1 W_mesh takes it to armature space
    to_armature = np.linalg.inv(np.array(armature.matrix_world, np.float64)) @ np.array(shown.matrix_world, np.float64)
    vertices = vertices @ to_armature[:3, :3].T + to_armature[:3, 3]
    place = {name: joint for joint, name in enumerate(names)}
    joint_of = {bone.name: _nearest_joint(bone, place) for bone in armature.data.bones}
    if is_deformed(obj, armature):
        joints, weights = _read_weights(obj, mesh, armature, joint_of)
    else:
        joint = joint_of.get(carried_by(obj, armature)[1])
        joints, weights = np.zeros((len(vertices), SLOTS), np.int64), np.zeros((len(vertices), SLOTS))
        if joint is not None:
            joints[:, 0], weights[:, 0] = joint, 1.0
    if evaluate:
        shown.to_mesh_clear()
    return vertices, triangles, joints, weights


def _nearest_joint(bone: bpy.types.Bone, place: dict[str, int]) -> int | None:
    return next((place[each.name] for each in (bone, *bone.parent_recursive) if each.name in place), None)


def _read_array(items: bpy.types.bpy_prop_collection, name: str, kind: type) -> NDArray:
    flat = np.empty(3 * len(items), kind)
    items.foreach_get(name, flat)
    return flat.reshape(-1, 3).astype(np.int64 if kind is np.int32 else np.float64)


def _read_weights(obj: Object, mesh: Mesh, armature: Object, joint_of: dict[str, int | None]) -> tuple[NDArray, Array]:
    """(V, SLOTS) joints, each once, and weights whose rows sum to 1, or to 0 for a vertex that no joint moves."""
    bones = armature.data.bones
    groups = {g.index: joint_of[g.name] for g in obj.vertex_groups if g.name in bones and bones[g.name].use_deform}
    joints, weights = np.zeros((len(mesh.vertices), SLOTS), np.int64), np.zeros((len(mesh.vertices), SLOTS))
    for row, vertex in enumerate(mesh.vertices):
        total: dict[int, float] = {}
        for element in vertex.groups:
            joint = groups.get(element.group)
            if joint is not None and element.weight > 0:
                total[joint] = total.get(joint, 0.0) + element.weight
        strongest = sorted(total.items(), key=lambda item: -item[1])[:SLOTS]
        for slot, (joint, weight) in enumerate(strongest):
            joints[row, slot], weights[row, slot] = joint, weight
    sums = weights.sum(1, keepdims=True)
    return joints, weights / np.where(sums > 0, sums, 1)

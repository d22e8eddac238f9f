"""Checks that the vertices of an armature's meshes, and its bones, are where something can be seen and computed."""

from __future__ import annotations

import bpy
import numpy as np

from ...backend.arrays import Array
from ...backend.errors import UserError
from .meshes import visible_meshes
from .scales import pose_matrices

HUGE = 1e30  # Blender stores an infinite place as the largest number
FAR = 50  # times the extent of the body, without its outermost vertices
OUTER = 1  # percent of the vertices on either side, along each axis, that may be strays


def check_places(obj: bpy.types.Object) -> None:
    """Raises UserError for a bone or a visible vertex without a place (NaN or infinite), or vertices far away from all others."""
    _check_bones(obj)
    graph = bpy.context.evaluated_depsgraph_get()
    places = {mesh.name: _world_vertices(mesh.evaluated_get(graph)) for mesh in visible_meshes(obj)}
    for name, points in places.items():
        lost = int((~(np.abs(points) < HUGE).all(1)).sum())
        if lost:
            some = "a vertex" if lost == 1 else f"{lost} vertices"
            raise UserError(
                f"Mesh '{name}' of armature '{obj.name}' has {some} without a place (not a number): delete or move it first."
            )
    whole = np.concatenate([*places.values(), np.zeros((0, 3))])
    if not len(whole):
        return
    low, high = np.percentile(whole, [OUTER, 100 - OUTER], axis=0)
    reach = float(np.linalg.norm(high - low))
    for name, points in places.items():
        away = np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0), axis=1)
        if reach > 0 and away.max(initial=0) > FAR * reach:
            raise UserError(
                f"Mesh '{name}' of armature '{obj.name}' has a vertex {away.max():.4g} units away from the body, which would be too "
                "small to see beside it: delete or move that vertex first."
            )


def _check_bones(obj: bpy.types.Object) -> None:
    for bone, matrix in zip(obj.pose.bones, pose_matrices(obj), strict=True):
        if not np.isfinite(matrix).all():
            raise UserError(
                f"Bone '{bone.name}' of armature '{obj.name}' has no place (its pose is not a number): clear its transforms, or mute "
                "the driver or constraint that moves it."
            )


def _world_vertices(mesh: bpy.types.Object) -> Array:
    flat = np.empty(3 * len(mesh.data.vertices), np.float32)
    mesh.data.vertices.foreach_get("co", flat)
    matrix = np.array(mesh.matrix_world, np.float64)
    return flat.reshape(-1, 3).astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]

"""World positions of a posed rig and its meshes on a frame of a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.arrays import Array


def go_to(scene: bpy.types.Scene, frame: float) -> bpy.types.Depsgraph:
    """Move a scene with one view layer to a frame, whole or not; returns its evaluated state."""
    scene.frame_set(math.floor(frame), subframe=float(frame - math.floor(frame)))
    return scene.view_layers[0].depsgraph


def points_of(obj: bpy.types.Object, meshes: Sequence[bpy.types.Object], graph: bpy.types.Depsgraph) -> Array:
    """(P, 3) world positions of the posed meshes' vertices, or of the bones' ends if there are none."""
    points = [world_vertices(mesh.evaluated_get(graph)) for mesh in meshes]
    if any(map(len, points)):
        return np.concatenate(points)
    posed = obj.evaluated_get(graph)
    return to_world(posed.matrix_world, np.array([end for bone in posed.pose.bones for end in (bone.head, bone.tail)]))


def world_vertices(mesh: bpy.types.Object) -> Array:
    """(P, 3) world positions of a mesh object's own vertices, without modifiers unless it is evaluated."""
    points = np.empty(3 * len(mesh.data.vertices), np.float32)
    mesh.data.vertices.foreach_get("co", points)
    return to_world(mesh.matrix_world, points.reshape(-1, 3))


def to_world(matrix: Matrix, points: Array) -> Array:
    """(P, 3) in the object's space -> in the world's. matrix: the object's `matrix_world`."""
    full = np.array(matrix)
    return points @ full[:3, :3].T + full[:3, 3]

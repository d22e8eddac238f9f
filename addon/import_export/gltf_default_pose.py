"""Reads the default pose from the nodes of a glTF file, and completes imported actions with it.

A glTF animation leaves out channels that keep their node's default. Blender's bones rest in the bind pose, which may differ, so a
bone without keys would keep the pose of the last action, or the bind pose: arms in a T, a body on its tail.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from bpy.types import Action, Bone, Object
from mathutils import Matrix, Quaternion, Vector

from ...backend.errors import UserError

# y-up -> z-up: (x, y, z) to (x, -z, y)
Z_UP = Matrix.Rotation(math.pi / 2, 4, "X")
SMALL = 1e-6
REST = {"location": (0.0, 0.0, 0.0), "rotation_quaternion": (1.0, 0.0, 0.0, 0.0), "scale": (1.0, 1.0, 1.0)}
GLB_MAGIC, GLB_HEADER = b"glTF", 20

Nodes = dict[str, tuple[Matrix, str | None]]


def read_nodes(path: Path) -> Nodes:
    """Node name -> (default matrix relative to its parent, the parent's name). Meshes, and nodes that share a name, are left out.

    Raises UserError if the file is not glTF.
    """
    data = path.read_bytes()
    try:
        if data[:4] == GLB_MAGIC:  # magic, version, length, then the JSON chunk's length and kind (glTF 2.0, section 4.4)
            data = data[GLB_HEADER : GLB_HEADER + struct.unpack_from("<I", data, 12)[0]]
        nodes = json.loads(data).get("nodes", [])
    except (ValueError, AttributeError, struct.error) as error:
        raise UserError(f"Rig file '{path}' is not a glTF file ({error}): export it again.") from error
    parents = {child: node.get("name") for node in nodes for child in node.get("children", [])}
    # a mesh may have the name of a bone
    joints = {i: node for i, node in enumerate(nodes) if node.get("name") and "mesh" not in node}
    count = Counter(node["name"] for node in joints.values())
    return {n["name"]: (_local(n), parents.get(i)) for i, n in joints.items() if count[n["name"]] == 1}


def _local(node: dict[str, Any]) -> Matrix:
    if "matrix" in node:  # stored by columns
        return Matrix([node["matrix"][i::4] for i in range(4)])
    x, y, z, w = node.get("rotation", (0.0, 0.0, 0.0, 1.0))
    place, scale = node.get("translation", (0.0, 0.0, 0.0)), node.get("scale", (1.0, 1.0, 1.0))
    return Matrix.LocRotScale(Vector(place), Quaternion((w, x, y, z)), Vector(scale))


def default_pose(obj: Object, nodes: Nodes) -> dict[str, Matrix]:
    """Bone name -> `matrix_basis` in the file's default pose, for an armature just imported with unturned bones.

    A bone's axes are its node's, so with M the node's matrix and B the rest matrices (armature space) the basis X solves
    (B_parent^-1 B) X = M. A bone without a parent uses the armature's axes, which are z up: B X = Z_UP M.
    """
    found = {}
    for bone in obj.data.bones:
        local, parent = nodes.get(bone.name, (None, None))
        if local is None or (bone.parent is not None and bone.parent.name != parent):
            continue
        found[bone.name] = _rest(bone).inverted() @ (local if bone.parent else Z_UP @ local)
    return found


def _rest(bone: Bone) -> Matrix:
    return bone.parent.matrix_local.inverted() @ bone.matrix_local if bone.parent else bone.matrix_local


def complete_pose(obj: Object, actions: dict[Action, Any], pose: dict[str, Matrix]) -> None:
    """Set the default pose, and add one key for each channel that an action leaves out, so that no action shows through another.

    actions: with the slot that animates the armature (None where Blender has no slots).
    """
    for name, matrix in pose.items():
        obj.pose.bones[name].matrix_basis = matrix
    channels = [channel for name, matrix in pose.items() for channel in _channels(name, matrix)]
    keyed = {action: {curve.data_path for curve in curves_of(action, slot)} for action, slot in actions.items()}
    moved = set().union(*keyed.values())
    for action, slot in actions.items():
        for path, values, rest in channels:
            # a channel at rest that no action moves needs no key
            if path not in keyed[action] and (path in moved or np.abs(np.subtract(values, rest)).max() > SMALL):
                _key_once(curves_of(action, slot), path, values, action.frame_range[0])
    bpy.context.view_layer.update()


def curves_of(action: Action, slot: Any) -> Any:
    """The F-curves of an action's slot; Blender 4.2 has no slots."""
    return action.fcurves if slot is None else action.layers[0].strips[0].channelbag(slot, ensure=True).fcurves


def _channels(name: str, matrix: Matrix) -> list[tuple[str, tuple[float, ...], tuple[float, ...]]]:
    """A bone's (data path, values, values at rest). The importer sets all bones to quaternions."""
    bone = f'pose.bones["{bpy.utils.escape_identifier(name)}"]'
    parts = zip(REST.items(), matrix.decompose())
    return [(f"{bone}.{channel}", tuple(values), rest) for (channel, rest), values in parts]


def _key_once(curves: Any, path: str, values: tuple[float, ...], frame: float) -> None:
    for index, value in enumerate(values):
        curves.new(path, index=index).keyframe_points.insert(frame, value)

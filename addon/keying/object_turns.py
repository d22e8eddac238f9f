"""Measures how an armature object turns while a take plays: by its parents, constraints, drivers or NLA strips."""

from __future__ import annotations

from collections.abc import Iterator

import bpy
import numpy as np
from bpy.types import Object

from ...backend.arrays import Array
from ...backend.geometry.rotations import nearest_orthogonal
from ..rendering.posed_points import go_to
from ..rendering.scratch_scene import scratch_scene

SMALL = 1e-4  # a turn, as the largest change of a matrix, below which an object stands still


def object_turns(obj: Object, world: Array, frames: Array) -> Array | None:
    """(F, 3, 3) rotations in armature axes that undo the object's turns at these frames; None if it does not turn.

    world: (3, 3) the object's rotation that a take was captured for (Rig.world). Nothing in the file changes.
    """
    if not any(_is_animated(each, obj) for each in _chain(obj)):
        return None
    with scratch_scene(obj) as stage:
        posed = (obj.evaluated_get(go_to(stage.scene, frame)) for frame in frames.tolist())
        # a matrix of Blender's changes with the frame: each is copied at once
        worlds = nearest_orthogonal(np.stack([np.array(each.matrix_world, np.float64) for each in posed]))
    # A joint turned by G shows W G in the world. With the object at W_t instead, W_t (W_t^-1 W G) is the same.
    turns = np.swapaxes(worlds, -1, -2) @ world
    return turns if np.abs(turns - np.eye(3)).max() > SMALL else None


def _chain(obj: Object) -> Iterator[Object]:
    above: Object | None = obj
    while above is not None:
        yield above
        above = above.parent


def _is_animated(obj: Object, keyed: Object) -> bool:
    """True if keys, drivers or constraints may move the object, or bones, of which a pose moves what hangs on them."""
    data: bpy.types.AnimData | None = obj.animation_data
    moved = data is not None and bool(len(data.drivers) or len(data.nla_tracks) or (obj != keyed and data.action))
    carried = obj.parent is not None and (obj.parent_type != "OBJECT" or obj.parent.type == "CURVE")
    return moved or carried or len(obj.constraints) > 0

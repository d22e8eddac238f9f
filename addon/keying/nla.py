"""What becomes of new actions: a strip on the NLA instead of the action in use, and a scene range that shows them."""

from __future__ import annotations

import math
from typing import Any

import bpy

ACTION, STRIP = "ACTION", "STRIP"


def push_down(obj: bpy.types.Object, earlier: bpy.types.Action | None, earlier_slot: Any) -> None:
    """Move the action in use onto a track of its own above all others.

    An earlier action in use would hide the new strip, as it plays on top of all tracks: it goes onto a track below first, as
    Blender's Push Down Action does with it.
    """
    data = obj.animation_data
    action, slot = data.action, getattr(data, "action_slot", None)
    if earlier is not None and earlier != action:
        _add_strip(data, earlier, earlier_slot)
    data.action = None
    strip = _add_strip(data, action, slot)
    # outside the take the tracks below show; a single strip holds its ends, as an action would
    strip.extrapolation = "NOTHING" if len(data.nla_tracks) > 1 else "HOLD"


def _add_strip(data: bpy.types.AnimData, action: bpy.types.Action, slot: Any) -> bpy.types.NlaStrip:
    track = data.nla_tracks.new(prev=data.nla_tracks[-1] if data.nla_tracks else None)
    track.name = action.name
    first = action.frame_range[0]
    strip = track.strips.new(action.name, math.floor(first), action)
    if strip.frame_start != first:  # new strips start on whole frames; one that begins between two would play early or late
        strip.frame_end += first - strip.frame_start
        strip.frame_start = first
    if slot is not None:
        strip.action_slot = slot
    return strip


def extend_range(scene: bpy.types.Scene, first: float, last: float) -> None:
    """Make the scene's frame range hold these frames too. It cannot start below zero."""
    scene.frame_start = min(scene.frame_start, max(round(first), 0))
    scene.frame_end = max(scene.frame_end, round(last))

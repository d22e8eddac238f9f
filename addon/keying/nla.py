"""Moves new actions to strips of the NLA, and extends the scene's range to show them."""

from __future__ import annotations

import math
from typing import Any

import bpy

ACTION, STRIP = "ACTION", "STRIP"


def push_down(obj: bpy.types.Object, earlier: bpy.types.Action | None, earlier_slot: Any) -> None:
    """Move the active action onto a track of its own above all others.

    An active action plays on top of all tracks, so the earlier one would hide the new strip. It first gets a track below, as with
    Blender's Push Down Action.
    """
    data = obj.animation_data
    action, slot = data.action, getattr(data, "action_slot", None)
    if earlier is not None and earlier != action:
        _add_strip(data, earlier, earlier_slot)
    data.action = None
    strip = _add_strip(data, action, slot)
    # the tracks below show outside the take; a single strip holds its ends, as an action would
    strip.extrapolation = "NOTHING" if len(data.nla_tracks) > 1 else "HOLD"


def _add_strip(data: bpy.types.AnimData, action: bpy.types.Action, slot: Any) -> bpy.types.NlaStrip:
    track = data.nla_tracks.new(prev=data.nla_tracks[-1] if data.nla_tracks else None)
    track.name = action.name
    first = action.frame_range[0]
    strip = track.strips.new(action.name, math.floor(first), action)
    if strip.frame_start != first:  # a new strip starts on a whole frame, so one that begins between two would play early or late
        strip.frame_end += first - strip.frame_start
        strip.frame_start = first
    if slot is not None:
        strip.action_slot = slot
    return strip


def extend_range(scene: bpy.types.Scene, first: float, last: float) -> None:
    """Extend the scene's frame range to these frames. It cannot start below zero."""
    scene.frame_start = min(scene.frame_start, max(round(first), 0))
    scene.frame_end = max(scene.frame_end, round(last))

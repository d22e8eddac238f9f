"""Finds the bones that move anything that is not a mesh with vertex groups: envelopes, lattices, curves, instances, constraints."""

from __future__ import annotations

import re
from collections.abc import Iterator

import bpy
from bpy.types import Object

_BONE = re.compile(r'^pose\.bones\["((?:[^"\\]|\\.)*)"\]')

# kinds of objects that show something; an empty shows the collection that it instances
BODIES = {"MESH", "CURVE", "SURFACE", "FONT", "META", "CURVES", "POINTCLOUD", "VOLUME", "GREASEPENCIL", "GPENCIL"}
DEFORMERS = {"ARMATURE", "GREASE_PENCIL_ARMATURE", "GP_ARMATURE"}  # the last one until Blender 4.2
# properties of modifiers and constraints that name the object which they follow
FOLLOWED = ("object", "target", "mirror_object", "object_from", "object_to", "start_cap", "end_cap", "offset_object")


def bones_that_move_bodies(armature: Object, deforming: set[str]) -> set[str]:
    """Names of the bones that bodies follow other than by the vertex groups of a mesh: all of `deforming` where none can be named.

    A body follows a bone by its parent, by constraints, hooks, lattices and drivers, and through other objects that do. Envelopes reach for
    every bone. Custom bone shapes and objects in no scene, nor in an instanced collection, count for nothing.
    """
    shapes = {bone.custom_shape for bone in armature.pose.bones} if armature.pose else set()
    found: set[str] = set()
    for body in _bodies():
        if body not in shapes and body != armature:
            found |= _followed(body, armature, deforming)
    return found


def _bodies() -> Iterator[Object]:
    for obj in bpy.data.objects:
        if not obj.users_scene:
            continue
        if obj.type in BODIES:
            yield obj
        elif obj.type == "EMPTY" and obj.instance_type == "COLLECTION" and obj.instance_collection is not None:
            yield obj
            yield from (each for each in obj.instance_collection.all_objects if each.type in BODIES)


def _followed(body: Object, armature: Object, deforming: set[str]) -> set[str]:
    """The bones that this body follows, directly or through other objects."""
    found: set[str] = set()
    seen, waiting = {body}, [body]
    while waiting:
        for target, bone in _leads(waiting.pop()):
            if target == armature:
                found |= deforming if bone is None else {bone} & set(armature.data.bones.keys())
            # what follows another armature is that one's body
            elif target.type != "ARMATURE" and target not in seen:
                seen.add(target)
                waiting.append(target)
    return found


def _leads(obj: Object) -> Iterator[tuple[Object, str | None]]:
    """What an object follows: the other object and the bone of it; '' for the object as a whole, None for all its deforming bones."""
    if obj.parent is not None:
        whole = obj.parent_type == "ARMATURE" and obj.type != "MESH"
        yield obj.parent, obj.parent_bone if obj.parent_type == "BONE" else None if whole else ""
    for modifier in (*obj.modifiers, *getattr(obj, "grease_pencil_modifiers", ())):
        if modifier.type in DEFORMERS and modifier.object is not None:
            yield from _of_armature_modifier(obj, modifier)
        else:
            yield from _targets(modifier)
    for constraint in obj.constraints:
        if not constraint.mute and constraint.influence > 0:
            yield from _targets(constraint)
    yield from _read_by_drivers(obj)


def _read_by_drivers(obj: Object) -> Iterator[tuple[Object, str | None]]:
    """What drivers of the object, its data and its shape keys read: of an armature, the deforming bones, also those that a path names.

    Drivers mostly read controls, of corrective shapes and the like, which are no part of the body.
    """
    for owner in (obj, obj.data, getattr(obj.data, "shape_keys", None)):
        animation = getattr(owner, "animation_data", None)
        for curve in animation.drivers if animation is not None else ():
            for target in (target for variable in curve.driver.variables for target in variable.targets):
                path = _BONE.search(target.data_path)
                name = bpy.utils.unescape_identifier(path[1]) if path else target.bone_target
                if isinstance(target.id, Object) and (target.id.type != "ARMATURE" or _deforms(target.id, name)):
                    yield target.id, name


def _deforms(armature: Object, name: str) -> bool:
    bone = armature.data.bones.get(name)
    return bone is not None and bone.use_deform


def _of_armature_modifier(obj: Object, modifier: bpy.types.ArmatureModifier) -> Iterator[tuple[Object, str | None]]:
    """The groups of a mesh in a scene are read elsewhere, with their weights. Those of a lattice, and of instances, are named here."""
    assert modifier.object is not None
    bones = modifier.object.data.bones
    if modifier.use_bone_envelopes or not modifier.use_vertex_groups:
        yield modifier.object, None if modifier.use_bone_envelopes else ""
    elif obj.type != "MESH" or not obj.users_scene:
        named = [group.name for group in obj.vertex_groups if group.name in bones and bones[group.name].use_deform]
        yield from ((modifier.object, name) for name in named) if named else [(modifier.object, None)]


def _targets(item: bpy.types.Modifier | bpy.types.Constraint) -> Iterator[tuple[Object, str | None]]:
    bone = getattr(item, "subtarget", "")
    for name in FOLLOWED:
        target = getattr(item, name, None)
        if isinstance(target, Object):
            yield target, bone
    for each in getattr(item, "targets", ()):  # an Armature constraint
        if each.target is not None:
            yield each.target, each.subtarget
    if item.bl_rna.identifier == "NodesModifier":
        # nodes may use an object in any way
        yield from ((value, None) for key, value in _inputs(item) if isinstance(value, Object))


def _inputs(modifier: bpy.types.Modifier) -> list[tuple[str, object]]:
    try:
        return list(modifier.items())
    except TypeError:  # a modifier without properties of its own
        return []

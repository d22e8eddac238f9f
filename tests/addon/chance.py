"""Random rigs, settings and operator calls, all from one seed, and what a file holds: for the test of random calls."""

from __future__ import annotations

import hashlib
import inspect
import random
import types
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from anyrig.tests.addon.fixtures import RIGS

HIDDEN = {"rna_type", "name"}
# no settings, but what the add-on remembers
MEMORY = {"anyrig_overlay"}
LIBRARIES = [name for name, prop in bpy.types.BlendData.bl_rna.properties.items() if prop.type == "COLLECTION"]
# made by Blender whenever anything is rendered or shown
BLENDERS_OWN = {
    "images": {"Render Result", "Viewer Node"},
    "window_managers": None,
    "screens": None,
    "workspaces": None,
    "brushes": None,
}


class Chance:
    """Draws everything from one generator. files, folders: what paths are drawn from, good and bad; the last folder is there."""

    def __init__(self, seed: int, files: list[str], folders: list[str]) -> None:
        self.random = random.Random(seed)
        self._files, self._folders = files, folders

    def __call__(self, probability: float) -> bool:
        return self.random.random() < probability

    def value(self, prop: bpy.types.Property) -> Any:
        """A value for a property, of the kinds that a user can give; None for a kind that is not set."""
        if prop.type == "BOOLEAN":
            return self(0.5)
        if prop.type in ("INT", "FLOAT"):
            return self._number(prop)
        if prop.type == "ENUM":
            return self._choice([item.identifier for item in prop.enum_items], prop.is_enum_flag)
        if prop.type == "STRING":
            return self._text(prop.subtype)
        if prop.type == "COLLECTION":
            return [{"name": Path(path).name} for path in self.random.sample(self._files, self.random.randint(0, 2))]
        return None

    def _number(self, prop: Any) -> Any:
        low, high = max(prop.hard_min, -1e4), min(prop.hard_max, 1e4)
        if self(0.8):
            low, high = max(prop.soft_min, low, -50), min(prop.soft_max, high, 50)
        draw = (
            (lambda: self.random.randint(int(low), int(high))) if prop.type == "INT" else (lambda: self.random.uniform(low, high))
        )
        return [draw() for _ in range(prop.array_length)] if prop.is_array else draw()

    def _choice(self, items: list[str], many: bool) -> Any:
        if not items:
            return None
        return set(self.random.sample(items, self.random.randint(0, len(items)))) if many else self.random.choice(items)

    def _text(self, subtype: str) -> str:
        if subtype == "FILE_PATH":
            return self.random.choice(self._files)
        if subtype == "DIR_PATH":
            return self.random.choice(self._folders)
        known = [item.name for name in ("objects", "actions", "texts") for item in getattr(bpy.data, name)]
        return self.random.choice(["", "", "not there", 'odd "name" äß', *known])

    # ---- what a user does to a file

    def rig(self) -> bpy.types.Object:
        obj = RIGS[self.random.choice(sorted(RIGS))]()
        obj.name += self.random.choice(["", " äß", '"quoted"'])
        if self(0.3):
            obj.animation_data_create().action = bpy.data.actions.new("Earlier")
        return obj

    def new_file(self) -> None:
        """With rigs, and sometimes saved."""
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
        if self(0.3):
            bpy.ops.wm.save_as_mainfile(filepath=str(Path(self._folders[-1]) / "scene.blend"))
        for _ in range(self.random.choice([0, 1, 1, 1, 2])):
            self.rig()
        render = bpy.context.scene.render
        render.fps, render.fps_base = self.random.choice([(24, 1.0), (30, 1.001), (12, 1.0), (60, 1.0)])

    def look_elsewhere(self) -> None:
        """Other objects, another frame, another mode."""
        objects = list(bpy.context.view_layer.objects)
        if bpy.context.object is not None and bpy.context.object.mode != "OBJECT":
            bpy.ops.object.mode_set(mode="OBJECT")
        for obj in objects:
            obj.select_set(self(0.4))
            if self(0.1):
                obj.hide_set(self(0.5))
        bpy.context.view_layer.objects.active = self.random.choice([None, *objects, *objects])
        bpy.context.scene.frame_set(self.random.randint(-20, 60))
        active = bpy.context.object
        if active is not None and active.type == "ARMATURE" and active.visible_get() and self(0.3):
            bpy.ops.object.mode_set(mode=self.random.choice(["POSE", "POSE", "EDIT"]))

    def settings(self, probability: float) -> None:
        """Some of the add-on's settings of the scene."""
        for name in dir(bpy.types.Scene):
            if (
                name.startswith("anyrig")
                and name not in MEMORY
                and isinstance(group := getattr(bpy.context.scene, name), bpy.types.PropertyGroup)
            ):
                for prop in group.bl_rna.properties:
                    if prop.identifier not in HIDDEN and not prop.is_readonly and self(probability):
                        self._set(group, prop)

    def _set(self, group: bpy.types.PropertyGroup, prop: bpy.types.Property) -> None:
        if prop.type == "POINTER":
            objects = [obj for obj in bpy.data.objects if obj.type == "ARMATURE"]
            if prop.fixed_type.identifier == "Object":
                setattr(group, prop.identifier, self.random.choice([None, *objects]))
            return
        value = self.value(prop)
        if prop.type == "ENUM" and not prop.is_enum_flag:
            allowed = enum_now(group, prop.identifier)
            value = self.random.choice(allowed) if allowed else None
        if value is not None and prop.type != "COLLECTION":
            setattr(group, prop.identifier, value)

    def arguments(self, operator: Any) -> dict[str, Any]:
        values = {}
        for prop in operator.get_rna_type().properties:
            if prop.identifier not in HIDDEN and self(0.7) and (value := self.value(prop)) is not None:
                values[prop.identifier] = value
        return values


def enum_now(group: bpy.types.PropertyGroup, name: str) -> list[str]:
    """The items of an enumeration, also of one whose items are made when it is asked: Blender names them when one is wrong."""
    try:
        setattr(group, name, "no such item")
    except TypeError as error:
        listed = str(error).rpartition("not found in ")[2].strip("()' ")
        return [part.strip().strip("'") for part in listed.split("', '") if part.strip(" '")]
    return []


class Press:
    """Stands in for the operator instance of a button press, which a Blender without windows cannot make."""

    def __init__(self, owner: type) -> None:
        self._owner = owner
        self.reports: list[str] = []

    def report(self, _kind: set[str], text: str) -> None:
        self.reports.append(text)

    def __getattr__(self, name: str) -> Any:
        found = inspect.getattr_static(self._owner, name, None)
        if found is None:  # a property that a base class declares
            operator = getattr(bpy.ops.anyrig, self._owner.bl_idname.rpartition(".")[2])
            return operator.get_rna_type().properties[name].default
        return types.MethodType(found, self) if inspect.isfunction(found) else getattr(self._owner, name)


# ---- what a file holds


def data_blocks() -> dict[str, frozenset[str]]:
    """The names of all data-blocks by kind, without those that Blender itself makes and drops."""
    return {
        kind: frozenset(item.name for item in getattr(bpy.data, kind)) - (BLENDERS_OWN.get(kind) or set())
        for kind in LIBRARIES
        if BLENDERS_OWN.get(kind, set()) is not None
    }


def rig_data() -> dict[str, str]:
    """A fingerprint of every armature and mesh: bones at rest, vertices, groups. Not of armatures that are being edited."""
    found = {}
    for data in bpy.data.armatures:
        if not data.is_editmode:
            rest = np.array([bone.matrix_local for bone in data.bones])
            found[f"armature {data.name}"] = _digest([bone.name for bone in data.bones], rest)
    for mesh in bpy.data.meshes:
        points = np.empty(3 * len(mesh.vertices), np.float32)
        mesh.vertices.foreach_get("co", points)
        found[f"mesh {mesh.name}"] = _digest([], points)
    return found


def _digest(names: list[str], numbers: np.ndarray) -> str:
    return hashlib.sha256("\n".join(names).encode() + numbers.tobytes()).hexdigest()[:12]


def stance() -> list[Any]:
    """What a call that did not succeed must leave as it was: selection, poses, animation, frame, what is shown."""
    scene, rows = bpy.context.scene, []
    for obj in bpy.data.objects:
        data = obj.animation_data
        slot = getattr(data, "action_slot", None)
        tracks = [] if data is None else [[strip.name for strip in track.strips] for track in data.nla_tracks]
        pose = np.array([bone.matrix_basis for bone in obj.pose.bones]).tobytes() if obj.pose else b""
        shown = (obj.select_get(), obj.hide_get(), obj.mode) if obj.name in bpy.context.view_layer.objects else None
        rows.append((obj.name, data and data.action and data.action.name, slot and slot.handle, tracks, pose, shown))
    active = bpy.context.view_layer.objects.active
    rows.append(
        (active and active.name, scene.frame_current, scene.frame_start, scene.frame_end, scene.camera and scene.camera.name)
    )
    rows.append((scene.render.fps, scene.render.fps_base, scene.render.resolution_x, scene.render.engine, scene.render.filepath))
    return rows

"""Rigs made in code, and motions for them. Each function adds one armature, with a skinned mesh unless said, to the scene.

`RIGS` lists them all by name. Import as `from anyrig.tests.addon import fixtures`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import bpy
import numpy as np
from anyrig.backend.geometry.rotations import Array, axis_angle_to_matrix, continuous, matrix_to_quaternion
from anyrig.backend.motion.motion import Motion
from anyrig.backend.rig.rig import Rig

Point = tuple[float, float, float]


@dataclass(frozen=True)
class BoneSpec:
    """One bone, in armature space. weighted: it moves a part of the mesh. bone, pose: properties set on Bone and PoseBone."""

    name: str
    parent: str | None
    head: Point
    tail: Point
    roll: float = 0.0
    connect: bool = False
    weighted: bool = True
    bone: dict[str, Any] = field(default_factory=dict)
    pose: dict[str, Any] = field(default_factory=dict)


def make_rig(name: str, specs: list[BoneSpec], mesh: bool = True) -> bpy.types.Object:
    """An armature object with these bones (parents first), standing in the current scene."""
    armature = bpy.data.armatures.new(name)
    obj = bpy.data.objects.new(name, armature)
    bpy.context.collection.objects.link(obj)
    bpy.context.view_layer.objects.active = obj
    bpy.ops.object.mode_set(mode="EDIT")
    for spec in specs:
        edit = armature.edit_bones.new(spec.name)
        edit.head, edit.tail, edit.roll = spec.head, spec.tail, spec.roll
        if spec.parent:
            edit.parent = armature.edit_bones[spec.parent]
            edit.use_connect = spec.connect
    bpy.ops.object.mode_set(mode="OBJECT")
    for spec in specs:
        for key, value in spec.bone.items():
            setattr(armature.bones[spec.name], key, value)
        for key, value in spec.pose.items():
            setattr(obj.pose.bones[spec.name], key, value)
    if mesh:
        add_mesh(obj, [spec.name for spec in specs if spec.weighted and armature.bones[spec.name].use_deform])
    bpy.context.view_layer.update()
    return obj


def add_mesh(obj: bpy.types.Object, names: list[str]) -> bpy.types.Object:
    """A mesh with one box along each of these bones, fully weighted to it."""
    vertices, faces = [], []
    corners = np.array([[x, y, z] for y in (0, 1) for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1))], np.float64)
    sides = [(0, 1, 2, 3), (7, 6, 5, 4), (0, 4, 5, 1), (1, 5, 6, 2), (2, 6, 7, 3), (3, 7, 4, 0)]
    for box, name in enumerate(names):
        bone = obj.data.bones[name]
        rest = np.array(bone.matrix_local)
        local = corners * [0.15 * bone.length, bone.length, 0.15 * bone.length]
        vertices += (local @ rest[:3, :3].T + rest[:3, 3]).tolist()
        faces += [[8 * box + corner for corner in side] for side in sides]
    data = bpy.data.meshes.new(f"{obj.name} skin")
    data.from_pydata(vertices, [], faces)
    skin = bpy.data.objects.new(f"{obj.name} skin", data)
    bpy.context.collection.objects.link(skin)
    skin.parent = obj
    for box, name in enumerate(names):
        skin.vertex_groups.new(name=name).add(range(8 * box, 8 * box + 8), 1.0, "REPLACE")
    modifier = skin.modifiers.new("Armature", "ARMATURE")
    modifier.object = obj
    return skin


def join_skin(obj: bpy.types.Object, pairs: dict[str, str]) -> None:
    """Let the bone pairs[part] move the near end of the part's box as well, by half: skin joins the two, whatever their parents are."""
    (skin,) = (mesh for mesh in obj.children if mesh.type == "MESH")
    boxes = [group.name for group in skin.vertex_groups]
    for part, bone in pairs.items():
        first = 8 * boxes.index(part)
        for name in (part, bone):
            skin.vertex_groups[name].add(range(first, first + 4), 0.5, "REPLACE")


def follow_targets(obj: bpy.types.Object, pairs: dict[str, str], length: int = 2) -> None:
    """A live IK constraint on each bone pairs[target], of this chain length, whose target is that bone of the same armature."""
    for target, bone in pairs.items():
        constraint = obj.pose.bones[bone].constraints.new("IK")
        constraint.target, constraint.subtarget, constraint.chain_count = obj, target, length
    bpy.context.view_layer.update()


def chain(names: list[str], parent: str | None, points: list[Point], **options: Any) -> list[BoneSpec]:
    """Bones from point to point, each the parent of the next."""
    specs = []
    for name, head, tail in zip(names, points, points[1:]):
        specs.append(BoneSpec(name, parent, head, tail, **options))
        parent = name
    return specs


def mirrored(specs: list[BoneSpec]) -> list[BoneSpec]:
    """The specs, named `.L`, and their mirror images in x, named `.R`."""

    def flip(spec: BoneSpec) -> BoneSpec:
        parent = spec.parent.replace(".L", ".R") if spec.parent else None
        (hx, hy, hz), (tx, ty, tz) = spec.head, spec.tail
        return replace(
            spec, name=spec.name.replace(".L", ".R"), parent=parent, head=(-hx, hy, hz), tail=(-tx, ty, tz), roll=-spec.roll
        )

    return specs + [flip(spec) for spec in specs]


def human() -> bpy.types.Object:
    """Faces -y, 1.8 units tall, arms out; spine and limbs connected, rolls of all sorts."""
    spine = chain(
        ["hips", "spine", "chest", "neck", "head"],
        None,
        [(0, 0, 1.0), (0, 0.02, 1.15), (0, 0, 1.35), (0, 0.01, 1.5), (0, 0, 1.6), (0, 0, 1.8)],
    )
    arm = chain(
        ["clavicle.L", "upper_arm.L", "forearm.L", "hand.L"],
        "chest",
        [(0.02, 0, 1.45), (0.18, 0.02, 1.45), (0.45, 0.03, 1.42), (0.7, 0, 1.4), (0.85, 0, 1.39)],
        roll=0.7,
    )
    leg = chain(
        ["thigh.L", "shin.L", "foot.L", "toe.L"],
        "hips",
        [(0.1, 0, 0.95), (0.11, -0.02, 0.5), (0.11, 0.02, 0.08), (0.11, -0.12, 0.03), (0.11, -0.2, 0.03)],
        roll=-1.9,
    )
    return make_rig("Human", spine + mirrored(arm + leg))


def quadruped() -> bpy.types.Object:
    """Faces -y, with a tail; the spine runs forwards from the pelvis."""
    spine = chain(
        ["pelvis", "back", "ribs", "neck", "head"],
        None,
        [(0, 0.5, 0.7), (0, 0.2, 0.75), (0, -0.1, 0.75), (0, -0.4, 0.75), (0, -0.6, 1.0), (0, -0.9, 0.95)],
    )
    tail = chain(["tail.001", "tail.002", "tail.003"], "pelvis", [(0, 0.5, 0.7), (0, 0.7, 0.65), (0, 0.85, 0.55), (0, 1, 0.4)])
    front = chain(
        ["front_upper.L", "front_lower.L", "front_paw.L"],
        "ribs",
        [(0.12, -0.35, 0.6), (0.12, -0.3, 0.35), (0.12, -0.35, 0.08), (0.12, -0.45, 0.02)],
        roll=0.4,
    )
    hind = chain(
        ["hind_upper.L", "hind_lower.L", "hind_paw.L"],
        "pelvis",
        [(0.12, 0.45, 0.6), (0.12, 0.35, 0.35), (0.12, 0.5, 0.1), (0.12, 0.38, 0.02)],
        roll=2.5,
    )
    return make_rig("Quadruped", spine + tail + mirrored(front + hind))


def bird() -> bpy.types.Object:
    """Faces -y, wings spread to the sides, two toes on each foot."""
    body = chain(
        ["body", "neck", "head", "beak"], None, [(0, 0.1, 0.5), (0, -0.2, 0.6), (0, -0.3, 0.8), (0, -0.4, 0.85), (0, -0.55, 0.83)]
    )
    fan = chain(["tail"], "body", [(0, 0.12, 0.5), (0, 0.45, 0.48)])
    wing = chain(
        ["wing_1.L", "wing_2.L", "wing_3.L"],
        "body",
        [(0.08, 0, 0.6), (0.4, 0.05, 0.65), (0.75, 0, 0.65), (1.2, 0.1, 0.6)],
        roll=1.2,
    )
    leg = chain(["leg.L", "shank.L"], "body", [(0.07, 0.1, 0.45), (0.07, 0.05, 0.25), (0.07, 0.1, 0.05)])
    toes = chain(["toe_in.L"], "shank.L", [(0.07, 0.1, 0.05), (0.04, -0.05, 0.01)])
    toes += chain(["toe_out.L"], "shank.L", [(0.07, 0.1, 0.05), (0.12, -0.05, 0.01)])
    return make_rig("Bird", body + fan + mirrored(wing + leg + toes))


def snake() -> bpy.types.Object:
    """Twenty connected bones along y; the root is the tail's end."""
    points = [(0.1 * np.sin(0.9 * i), 2.0 - 0.2 * i, 0.1) for i in range(21)]
    specs = chain([f"seg_{i:02d}" for i in range(20)], None, points)
    return make_rig("Snake", [replace(spec, connect=spec.parent is not None) for spec in specs])


def spider() -> bpy.types.Object:
    """Eight legs of three bones around a body of two."""
    specs = [BoneSpec("thorax", None, (0, 0, 0.4), (0, -0.4, 0.4)), BoneSpec("abdomen", "thorax", (0, 0, 0.4), (0, 0.6, 0.5))]
    legs = []
    for leg in range(4):
        angle = np.radians(35 + 37 * leg)
        reach = [
            (0.15 + r) * np.array([np.sin(angle), -np.cos(angle), 0]) + [0, -0.2, z]
            for r, z in ((0, 0.4), (0.3, 0.8), (0.7, 0.6), (0.9, 0))
        ]
        legs += chain([f"leg_{leg}_{part}.L" for part in "abc"], "thorax", [tuple(p) for p in reach], roll=0.3 * leg)
    return make_rig("Spider", specs + mirrored(legs))


def two_roots() -> bpy.types.Object:
    """Foot targets and a prop are roots of their own, with weights; the body's root comes neither first nor last."""
    targets = mirrored([BoneSpec("foot_target.L", None, (0.2, 0, 0.1), (0.2, -0.25, 0.1), roll=0.8)])
    body = chain(["hips", "chest", "head"], None, [(0, 0, 1), (0, 0.1, 1.3), (0, 0, 1.6), (0, 0, 1.9)], roll=0.5)
    legs = mirrored(chain(["thigh.L", "shin.L"], "hips", [(0.15, 0, 0.95), (0.18, -0.05, 0.5), (0.2, 0, 0.1)]))
    prop = BoneSpec("stick", None, (0.6, -0.3, 0.9), (0.8, -0.5, 1.7), roll=-2.0)
    toes = BoneSpec("target_toe.L", "foot_target.L", (0.2, -0.25, 0.1), (0.2, -0.35, 0.1))
    return make_rig("Two roots", targets + body + [toes] + legs + [prop])


HOOVES = {f"{end}_hoof.{side}": f"{end}_lower.{side}" for end in ("front", "hind") for side in "LR"}
FEET = {f"foot.{side}": f"shin.{side}" for side in "LR"}
CLAWS = {f"claw_{leg}.{side}": f"tibia_{leg}.{side}" for leg in range(4) for side in "LR"}


def hoofed(ik: bool = False) -> bpy.types.Object:
    """A quadruped whose hooves (HOOVES: which leg each ends) are roots, the targets of its legs' IK, which is live if `ik`."""
    spine = chain(
        ["pelvis", "back", "ribs", "neck", "head"],
        None,
        [(0, 0.5, 0.7), (0, 0.2, 0.75), (0, -0.1, 0.75), (0, -0.4, 0.75), (0, -0.6, 1.0), (0, -0.9, 0.95)],
    )
    legs = chain(
        ["front_upper.L", "front_lower.L"], "ribs", [(0.12, -0.35, 0.6), (0.12, -0.28, 0.35), (0.12, -0.35, 0.1)], roll=0.4
    )
    legs += chain(
        ["hind_upper.L", "hind_lower.L"], "pelvis", [(0.12, 0.45, 0.6), (0.12, 0.35, 0.35), (0.12, 0.5, 0.12)], roll=2.5
    )
    legs += [BoneSpec("front_hoof.L", None, (0.12, -0.35, 0.1), (0.12, -0.4, 0.02), roll=-0.8)]
    legs += chain(["hind_hoof.L", "hind_toe.L"], None, [(0.12, 0.5, 0.12), (0.12, 0.45, 0.05), (0.12, 0.38, 0.03)], roll=1.0)
    obj = make_rig("Hoofed", spine + mirrored(legs))
    join_skin(obj, HOOVES)
    follow_targets(obj, HOOVES if ik else {})
    return obj


def footed_biped(ik: bool = False) -> bpy.types.Object:
    """Feet (FEET) that are roots, and a Body under a Root at the ground that moves no skin. ik: as in `hoofed`."""
    specs = [BoneSpec("Root", None, (0, 0, 0), (0, 0.3, 0), roll=0.5, weighted=False)]
    specs += chain(["Body", "chest", "head"], "Root", [(0, 0, 0.9), (0, 0.02, 1.1), (0, 0, 1.4), (0, 0, 1.7)])
    arm = chain(["arm.L", "hand.L"], "chest", [(0.15, 0, 1.35), (0.42, 0.03, 1.33), (0.65, 0, 1.3)], roll=0.7)
    leg = chain(["thigh.L", "shin.L"], "Body", [(0.1, 0, 0.9), (0.11, -0.03, 0.5), (0.11, 0.02, 0.1)], roll=-1.9)
    foot = chain(["foot.L", "toe.L"], None, [(0.11, 0.02, 0.1), (0.11, -0.1, 0.04), (0.11, -0.2, 0.03)], roll=0.6)
    obj = make_rig("Footed", specs + mirrored(arm + leg + foot))
    join_skin(obj, FEET)
    follow_targets(obj, FEET if ik else {})
    return obj


def footed_spider(ik: bool = False) -> bpy.types.Object:
    """Eight claws (CLAWS) on a root at the ground, beside the body. ik: as in `hoofed`."""
    specs = [BoneSpec("ground", None, (0, 0, 0), (0, -0.3, 0), weighted=False)]
    specs += [
        BoneSpec("thorax", "ground", (0, 0, 0.4), (0, -0.4, 0.4)),
        BoneSpec("abdomen", "thorax", (0, 0, 0.4), (0, 0.6, 0.5)),
    ]
    legs = []
    for leg in range(4):
        angle = np.radians(35 + 37 * leg)
        reach = [
            tuple((0.15 + r) * np.array([np.sin(angle), -np.cos(angle), 0]) + [0, -0.2, z])
            for r, z in ((0, 0.4), (0.3, 0.8), (0.7, 0.6), (0.8, 0.25), (0.9, 0))
        ]
        legs += chain([f"{bone}_{leg}.L" for bone in ("coxa", "femur", "tibia")], "thorax", reach[:4], roll=0.3 * leg)
        legs += chain([f"claw_{leg}.L"], "ground", reach[3:], roll=0.2)
    obj = make_rig("Footed spider", specs + mirrored(legs))
    join_skin(obj, CLAWS)
    follow_targets(obj, CLAWS if ik else {}, 3)
    return obj


def skipped_bones() -> bpy.types.Object:
    """Posed control bones without weights above and between the deforming ones, and helpers hanging off them."""
    off = {"use_deform": False}
    specs = [
        BoneSpec("master", None, (0, 0, 0), (0, 0.4, 0), bone=off, pose={"location": (0.1, -0.2, 0.05)}),
        BoneSpec("hips", "master", (0, 0, 1), (0, 0, 1.3), roll=0.3),
        BoneSpec("spine_ctrl", "hips", (0, 0, 1.3), (0.1, 0.2, 1.3), roll=1.0, bone=off),
        BoneSpec("chest", "spine_ctrl", (0, 0, 1.3), (0, 0.05, 1.6)),
        BoneSpec("arm_ctrl", "chest", (0.2, 0, 1.5), (0.2, 0.3, 1.5), bone=off),
        BoneSpec("arm", "arm_ctrl", (0.2, 0, 1.5), (0.6, 0.05, 1.45), roll=-0.8),
        BoneSpec("hand", "arm", (0.6, 0.05, 1.45), (0.8, 0, 1.4)),
        BoneSpec("elbow_pole", "arm", (0.6, 0.6, 1.45), (0.6, 0.7, 1.45), bone=off),
        BoneSpec("helper", "chest", (0, 0.3, 1.5), (0, 0.5, 1.5), weighted=False),
    ]
    obj = make_rig("Skipped", specs)
    for name, turn, size in (("spine_ctrl", 0.5, 1.0), ("arm_ctrl", -0.7, 1.2), ("master", 0.2, 1.0)):
        bone = obj.pose.bones[name]
        bone.rotation_quaternion = (np.cos(turn), 0.6 * np.sin(turn), 0, 0.8 * np.sin(turn))
        bone.scale = (size, size, size)
    bpy.context.view_layer.update()
    return obj


def rotation_modes(name: str, modes: list[str]) -> bpy.types.Object:
    """A bent chain with one bone of each rotation mode."""
    points = [(0.3 * np.sin(1.1 * i), 0.2 * np.cos(0.7 * i), 0.4 * i) for i in range(len(modes) + 1)]
    specs = chain([f"bone_{mode}" for mode in modes], None, points, roll=0.4)
    return make_rig(name, [replace(spec, pose={"rotation_mode": mode}) for spec, mode in zip(specs, modes)])


def euler_bones() -> bpy.types.Object:
    """One bone of each of the six Euler orders."""
    return rotation_modes("Euler", ["XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX"])


def axis_angle_bones() -> bpy.types.Object:
    """Axis-angle bones around a quaternion one."""
    obj = rotation_modes("Axis angle", ["AXIS_ANGLE", "QUATERNION"])
    specs = [("child", "bone_AXIS_ANGLE"), ("grandchild", "child")]
    bpy.ops.object.mode_set(mode="EDIT")
    for row, (name, parent) in enumerate(specs):
        bone = obj.data.edit_bones.new(name)
        bone.head, bone.tail, bone.roll = (0.3 + 0.3 * row, 0, 0.4), (0.6 + 0.3 * row, 0.1, 0.5), 1.1
        bone.parent = obj.data.edit_bones[parent]
    bpy.ops.object.mode_set(mode="OBJECT")
    for name, _ in specs:
        obj.pose.bones[name].rotation_mode = "AXIS_ANGLE"
    add_mesh(obj, [name for name, _ in specs])
    bpy.context.view_layer.update()
    return obj


def _branches(name: str, scale: Point) -> bpy.types.Object:
    """Under a posed and scaled trunk, one branch for each way of inheriting rotation and scale."""
    specs = chain(["base", "trunk"], None, [(0, 0, 0), (0, 0, 0.5), (0.1, 0.1, 1.2)], roll=0.6)
    specs[1] = replace(specs[1], pose={"scale": scale, "location": (0.1, 0.2, -0.1)})
    for row, mode in enumerate(("FULL", "FIX_SHEAR", "ALIGNED", "AVERAGE", "NONE", "NONE_LEGACY")):
        for inherit in (True, False):
            angle = row + 0.5 * inherit
            at = np.array([np.cos(angle), np.sin(angle), 0.2])
            points = [tuple(at * r + [0, 0, 1]) for r in (0.2, 0.6, 0.9)]
            stem = f"{mode}{'' if inherit else ' free'}"
            branch = chain([stem, f"{stem} end"], "trunk", points, roll=0.3 * row)
            branch[0] = replace(
                branch[0], bone={"inherit_scale": mode, "use_inherit_rotation": inherit}, pose={"scale": (1.1, 0.9, 1.2)}
            )
            branch[1] = replace(branch[1], bone={"inherit_scale": mode})
            specs += branch
    return make_rig(name, specs)


def not_inheriting() -> bpy.types.Object:
    """Bones that do not inherit rotation, and all scale modes, under an evenly scaled bone."""
    return _branches("Not inheriting", (1.3, 1.3, 1.3))


def sheared() -> bpy.types.Object:
    """The same under an unevenly scaled bone."""
    return _branches("Sheared", (1.3, 0.8, 1.1))


def armature_location() -> bpy.types.Object:
    """Second roots, and children, whose location channels are not in their own axes (use_local_location off)."""
    off = {"use_local_location": False}
    specs = chain(["hips", "chest", "head"], None, [(0, 0, 1), (0, 0.1, 1.3), (0, 0, 1.6), (0, 0, 1.9)], roll=0.5)
    specs = [replace(spec, bone=off, pose={"location": (0.05, 0.1, -0.1)}) for spec in specs]
    specs += [BoneSpec("target.L", None, (0.2, 0, 0.1), (0.3, -0.25, 0.2), roll=0.8, bone=off)]
    specs += [BoneSpec("target.R", None, (-0.2, 0, 0.1), (-0.3, -0.25, 0.2), roll=0.8)]
    return make_rig("Armature location", specs)


def driven_targets() -> bpy.types.Object:
    """Foot targets under posed controls without weights; with `bones=FREE_TARGETS` they are roots that hang on those."""
    off = {"use_deform": False}
    specs = [BoneSpec("master", None, (0, 0, 0), (0, 0.5, 0), bone=off)]
    specs += chain(["hips", "chest"], "master", [(0, 0, 1), (0, 0.1, 1.3), (0, 0, 1.6)], roll=0.5)
    for row, (name, flags) in enumerate(TARGET_FLAGS.items()):
        spec = BoneSpec(
            f"ctrl {name}", "master", (row, 0, 0), (row, 0.3, 0.1), roll=row, bone=off, pose={"scale": (1.3, 0.8, 1.1)}
        )
        target = BoneSpec(name, spec.name, (row, 0, 0.1), (row + 0.2, -0.3, 0.1), roll=0.4, bone=flags)
        specs += [spec, target]
    obj = make_rig("Driven targets", specs)
    for spec in specs:
        if not obj.data.bones[spec.name].use_deform:
            obj.pose.bones[spec.name].rotation_quaternion = (0.8, 0.2, -0.5, 0.3)
    bpy.context.view_layer.update()
    return obj


TARGET_FLAGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "own rotation": {"use_inherit_rotation": False},
    "own scale": {"inherit_scale": "NONE"},
    "aligned": {"inherit_scale": "ALIGNED"},
    "parent axes": {"use_local_location": False},
}
FREE_TARGETS = ["hips", "chest", *TARGET_FLAGS]


def transformed() -> bpy.types.Object:
    """The human in an object that is rotated, unevenly scaled, moved and parented to a turned empty."""
    obj = human()
    obj.name = "Transformed"
    empty = bpy.data.objects.new("Set", None)
    bpy.context.collection.objects.link(empty)
    empty.rotation_euler, empty.scale = (np.pi / 2, 0, 0.4), (0.5, 0.5, 0.5)
    obj.parent = empty
    obj.location, obj.scale = (3, -2, 1), (0.01, 0.02, 0.03)
    obj.rotation_euler = (0.3, -0.8, 1.7)
    bpy.context.view_layer.update()
    return obj


def connected() -> bpy.types.Object:
    """Connected bones that carry location values (Blender ignores them), beside unconnected ones that carry them too."""
    specs = [
        replace(s, connect=s.parent is not None)
        for s in chain(["a", "b", "c"], None, [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)])
    ]
    specs += chain(["d", "e"], "b", [(0.5, 0, 1), (0.5, 0.5, 1.5), (0.5, 1, 1.2)], roll=1.3)
    return make_rig("Connected", [replace(spec, pose={"location": (0.3, 0.1, -0.2)}) for spec in specs])


def no_mesh() -> bpy.types.Object:
    """Nothing but bones; one of them does not deform."""
    specs = chain(["pelvis", "spine", "neck"], None, [(0, 0, 1), (0, 0, 1.4), (0, 0, 1.6), (0, -0.2, 1.7)])
    specs += [BoneSpec("pole", "pelvis", (0, 1, 1), (0, 1.2, 1), bone={"use_deform": False})]
    return make_rig("No mesh", specs, mesh=False)


def odd_names() -> bpy.types.Object:
    """Names that need escaping in animation paths."""
    names = ["Bone", "Bone.001", 'quote"d', "back\\slash", "Хвост", "尻尾 [1]", "a'b"]
    return make_rig("Odd names", chain(names, None, [(0.1 * i, 0.05 * i * i, 0.3 * i) for i in range(len(names) + 1)]))


_MAKERS = [
    human,
    quadruped,
    bird,
    snake,
    spider,
    two_roots,
    hoofed,
    footed_biped,
    footed_spider,
    skipped_bones,
    euler_bones,
    axis_angle_bones,
    not_inheriting,
]
_MAKERS += [sheared, armature_location, driven_targets, transformed, connected, no_mesh, odd_names]
RIGS: dict[str, Callable[[], bpy.types.Object]] = {maker.__name__: maker for maker in _MAKERS}


def random_motion(rig: Rig, frames: int, seed: int, fps: float = 30.0, travel: float = 0.3, turning: float = 1.8) -> Motion:
    """A smooth take with turns well beyond half a turn for every joint; those that translate wander about by `travel`.

    A smaller `turning` makes the turns between neighbours smaller.

    Times are i / fps. The motion belongs to the rig at rest lengths: a joint's position follows its parent's turn.
    """
    random = np.random.default_rng(seed)
    times = np.arange(frames) / fps
    joints = len(rig.names)

    def smooth(size: float) -> Array:
        """(T, J, 3) sums of slow waves."""
        rate, phase = random.uniform(0.5, 4.0, (3, 1, joints, 3)), random.uniform(0, 2 * np.pi, (3, 1, joints, 3))
        return size * np.sin(rate * times[:, None, None] + phase).sum(0)

    turn = smooth(turning)
    angle = np.linalg.norm(turn, axis=-1)
    local = axis_angle_to_matrix(turn / angle[..., None], angle)
    rotations, positions = np.array(local), np.zeros((frames, joints, 3))
    wander = smooth(travel)
    for joint in range(1, joints):
        parent = rig.parents[joint]
        rotations[:, joint] = rotations[:, parent] @ local[:, joint]
        positions[:, joint] = positions[:, parent] + rotations[:, parent] @ (rig.heads[joint] - rig.heads[parent])
        positions[:, joint] += wander[:, joint] * rig.translates[joint]
    return Motion(
        names=rig.names,
        times=times,
        rotations=continuous(matrix_to_quaternion(rotations)),
        positions=positions,
        boxes=np.tile([0.0, 0.0, 1.0, 1.0], (frames, 1)),
        confidence=np.ones((frames, joints)),
        provenance={"seed": seed},
    )

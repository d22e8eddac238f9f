"""Makes two four-legged characters in code, for the demo and its tests: a skinned mesh, coloured materials and a walk.

Never part of the training data. Both face Blender's front view (-y), stand on z = 0 and walk on the spot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import bpy
import numpy as np
from mathutils import Matrix, Quaternion, Vector
from numpy.typing import NDArray

WALK_FRAMES = 48  # two cycles: the last pose is the first
STEP = 2  # frames between two keys of the walk
STRIDE = 24  # frames of one cycle
AXES = {"x": Vector((1, 0, 0)), "y": Vector((0, 1, 0)), "z": Vector((0, 0, 1))}


@dataclass(frozen=True)
class Shape:
    """The proportions of a character, in metres, and the names of its bones.

    names: role -> bone name; a role that is not listed is its own name.
    """

    name: str
    body: float = 0.9
    leg: float = 0.75
    neck: float = 0.35
    head: float = 0.3
    tail: float = 0.6
    width: float = 0.34
    girth: float = 0.17
    colours: tuple[tuple[float, float, float], ...] = ((0.75, 0.32, 0.12), (0.93, 0.85, 0.72), (0.2, 0.12, 0.1))
    names: dict[str, str] = field(default_factory=dict)

    def bone(self, role: str) -> str:
        return self.names.get(role, role)


WALKER = Shape("Walker")
STALKER = Shape(
    "Stalker", body=0.7, leg=1.15, neck=0.75, head=0.26, tail=0.35, width=0.26, girth=0.13,
    colours=((0.25, 0.45, 0.7), (0.85, 0.9, 0.95), (0.12, 0.14, 0.25)),
    names={
        "hips": "Root_M", "spine": "Back01", "chest": "Back02", "neck": "Throat", "head": "Skull", "tail_1": "Rump_a",
        "tail_2": "Rump_b", "thigh.L": "LHindA", "shin.L": "LHindB", "foot.L": "LHindC", "thigh.R": "RHindA",
        "shin.R": "RHindB", "foot.R": "RHindC", "arm.L": "LForeA", "forearm.L": "LForeB", "hand.L": "LForeC",
        "arm.R": "RForeA", "forearm.R": "RForeB", "hand.R": "RForeC",
    },
)  # fmt: skip


@dataclass(frozen=True)
class Limb:
    """One bone and the capsule around it. head and tail in armature space; tone: index into the shape's colours."""

    role: str
    parent: str | None
    head: tuple[float, float, float]
    tail: tuple[float, float, float]
    radius: float
    tone: int


def limbs_of(shape: Shape) -> list[Limb]:
    """The bones of a character, parents first."""
    back, front, top = shape.body / 2, -shape.body / 2, shape.leg + shape.girth / 2
    thick = shape.girth
    neck = (0.0, front - shape.neck * 0.5, top + shape.neck * 0.87)
    middle = (0.0, back * 0.35, top)
    limbs = [
        Limb("hips", None, (0.0, back, top), middle, thick, 0),
        Limb("spine", "hips", middle, (0.0, front * 0.35, top), thick * 0.95, 0),
        Limb("chest", "spine", (0.0, front * 0.35, top), (0.0, front, top + 0.05), thick * 1.1, 0),
        Limb("neck", "chest", (0.0, front, top + 0.05), neck, thick * 0.55, 0),
        Limb("head", "neck", neck, (0.0, neck[1] - shape.head, neck[2] - shape.head * 0.25), thick * 0.6, 1),
        Limb("tail_1", "hips", (0.0, back, top), (0.0, back + shape.tail * 0.5, top + 0.06), thick * 0.4, 0),
        Limb("tail_2", "tail_1", (0.0, back + shape.tail * 0.5, top + 0.06), (0.0, back + shape.tail, top), thick * 0.3, 1),
    ]
    for side, sign in (("L", 1.0), ("R", -1.0)):
        x = sign * shape.width / 2
        limbs += leg(shape, ("thigh", "shin", "foot"), side, "hips", (x, back * 0.9), -0.35)
        limbs += leg(shape, ("arm", "forearm", "hand"), side, "chest", (x, front * 0.9), 0.3)
    return limbs


def leg(shape: Shape, roles: tuple[str, str, str], side: str, parent: str, at: tuple[float, float], bend: float) -> list[Limb]:
    """A leg of three bones that starts at (x, y) = at. Its middle joint is moved along y by `bend` fifths of the leg's length."""
    x, y = at
    top, knee, ankle = shape.leg + shape.girth / 3, shape.leg * 0.52, shape.leg * 0.1
    shift = bend * shape.leg * 0.2
    points = [(x, y, top), (x, y + shift, knee), (x, y - shift / 2, ankle), (x, y - shift / 2 - shape.leg * 0.16, 0.03)]
    names = [f"{role}.{side}" for role in roles]
    radii = (shape.girth * 0.5, shape.girth * 0.32, shape.girth * 0.3)
    parents = [parent, *names[:2]]
    return [Limb(*part) for part in zip(names, parents, points, points[1:], radii, (0, 1, 2), strict=False)]


def make_character(shape: Shape, walk: int = 0) -> bpy.types.Object:
    """Add an armature with its skinned mesh to the current scene; its active action is a walk of `walk` frames, if any."""
    collection = bpy.context.scene.collection
    limbs = limbs_of(shape)
    armature = bpy.data.objects.new(shape.name, bpy.data.armatures.new(shape.name))
    collection.objects.link(armature)
    add_bones(armature, shape, limbs)
    collection.objects.link(make_skin(armature, shape, limbs))
    bpy.context.view_layer.update()
    if walk:
        key_walk(armature, shape, walk)
    return armature


def add_bones(armature: bpy.types.Object, shape: Shape, limbs: list[Limb]) -> None:
    """Add the bones in edit mode: Blender makes them nowhere else."""
    bpy.context.view_layer.objects.active = armature
    bpy.ops.object.mode_set(mode="EDIT")
    bones = armature.data.edit_bones
    for limb in limbs:
        bone = bones.new(shape.bone(limb.role))
        bone.head, bone.tail = limb.head, limb.tail
        bone.parent = bones[shape.bone(limb.parent)] if limb.parent else None
    bpy.ops.object.mode_set(mode="OBJECT")


def make_skin(armature: bpy.types.Object, shape: Shape, limbs: list[Limb]) -> bpy.types.Object:
    """Add one mesh of capsules, each moved by its bone."""
    mesh = bpy.data.meshes.new(f"{shape.name} skin")
    skin = bpy.data.objects.new(f"{shape.name} skin", mesh)
    parts = [capsule(limb.head, limb.tail, limb.radius) for limb in limbs]
    starts = np.cumsum([0] + [len(points) for points, _ in parts])
    faces = [face + start for (_, part), start in zip(parts, starts, strict=False) for face in part]
    mesh.from_pydata(np.concatenate([points for points, _ in parts]), [], faces)
    for tone, colour in enumerate(shape.colours):
        mesh.materials.append(make_material(f"{shape.name} {tone}", colour))
    tones = [limb.tone for limb, (_, part) in zip(limbs, parts, strict=True) for _ in part]
    mesh.polygons.foreach_set("material_index", np.array(tones, np.int32))
    mesh.polygons.foreach_set("use_smooth", np.ones(len(tones), np.bool_))
    for limb, (points, _), start in zip(limbs, parts, starts, strict=False):
        group = skin.vertex_groups.new(name=shape.bone(limb.role))
        group.add(range(start, start + len(points)), 1.0, "REPLACE")
    skin.parent = armature
    skin.modifiers.new("Armature", "ARMATURE").object = armature
    return skin


def make_material(name: str, colour: tuple[float, float, float]) -> bpy.types.Material:
    material = bpy.data.materials.new(name)
    material.diffuse_color = (*colour, 1.0)
    if bpy.app.version < (5, 0):  # from 5.0 on every material has nodes
        material.use_nodes = True
    shader = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    shader.inputs["Base Color"].default_value = (*colour, 1.0)
    return material


def capsule(
    head: tuple[float, float, float], tail: tuple[float, float, float], radius: float, sides: int = 12, rings: int = 4
) -> tuple[NDArray[np.float64], list[NDArray[np.int64]]]:
    """Points (P, 3) and faces of a capsule around the segment from head to tail: two half spheres and a cylinder."""
    start, end = np.array(head), np.array(tail)
    axis = (end - start) / np.linalg.norm(end - start)
    across = np.cross(axis, (1.0, 0.0, 0.0) if abs(axis[0]) < 0.9 else (0.0, 1.0, 0.0))
    across /= np.linalg.norm(across)
    around = np.linspace(0, 2 * np.pi, sides, endpoint=False)[:, None]
    circle = np.cos(around) * across + np.sin(around) * np.cross(axis, across)
    # latitudes from just above one pole to just below the other; the equator occurs twice, once at each end
    half = np.linspace(0, np.pi / 2, rings + 1)[:-1][::-1]
    latitudes = [(start, -angle) for angle in half] + [(end, angle) for angle in half[::-1]]
    circles = [centre + radius * (np.cos(angle) * circle + np.sin(angle) * axis) for centre, angle in latitudes]
    points = np.concatenate([*circles, [start - radius * axis, end + radius * axis]])
    return points, capsule_faces(len(circles), sides)


def capsule_faces(circles: int, sides: int) -> list[NDArray[np.int64]]:
    """Quads between neighbouring circles and a fan at either pole, facing outwards."""
    here = np.arange(sides)
    after = (here + 1) % sides
    faces = []
    for ring in range(circles - 1):
        low, high = ring * sides, (ring + 1) * sides
        faces += list(np.stack([low + here, low + after, high + after, high + here], axis=1))
    first, last, top = circles * sides, circles * sides + 1, (circles - 1) * sides
    faces += list(np.stack([np.full(sides, first), after, here], axis=1))
    faces += list(np.stack([np.full(sides, last), top + here, top + after], axis=1))
    return faces


def key_walk(armature: bpy.types.Object, shape: Shape, frames: int) -> bpy.types.Action:
    """Key a walk on the spot, frames 0 to `frames`."""
    data = armature.animation_data_create()
    data.action = bpy.data.actions.new(f"{shape.name} walk")
    roots = armature.pose.bones[shape.bone("hips")]
    for frame in range(0, frames + 1, STEP):
        phase = 2 * math.pi * frame / STRIDE
        for role, rotations in walk_pose(phase).items():
            bone = armature.pose.bones[shape.bone(role)]
            bone.rotation_mode = "QUATERNION"
            bone.rotation_quaternion = basis_turn(bone.bone.matrix_local, rotations)
            bone.keyframe_insert("rotation_quaternion", frame=frame)
        # a bob of the hips, straight up in armature space: location is in the axes of the bone at rest
        up = roots.bone.matrix_local.to_3x3().inverted() @ Vector((0, 0, 1))
        roots.location = up * (0.03 * shape.leg * math.cos(2 * phase))
        roots.keyframe_insert("location", frame=frame)
    return data.action


def basis_turn(rest: Matrix, rotations: dict[str, float]) -> Quaternion:
    """Rotations about armature axes, in radians, applied in order -> the bone's basis rotation B = R^-1 L R."""
    total = Quaternion()
    for axis, angle in rotations.items():
        total = Quaternion(AXES[axis], angle) @ total
    rotation = rest.to_quaternion()
    return rotation.inverted() @ total @ rotation


def walk_pose(phase: float) -> dict[str, dict[str, float]]:
    """Role -> rotations relative to the parent about armature axes, at a phase of the walk (radians).

    The character faces -y, so a turn about +x swings a hanging foot backwards (+y), a negative one forwards.
    """
    pose: dict[str, dict[str, float]] = {
        "hips": {"z": 0.06 * math.sin(phase), "y": 0.05 * math.cos(phase)},
        "spine": {"z": -0.08 * math.sin(phase)},
        "chest": {"z": -0.05 * math.sin(phase), "x": 0.03 * math.sin(2 * phase)},
        "neck": {"x": 0.12 * math.sin(2 * phase + 0.6), "z": 0.06 * math.sin(phase)},
        "head": {"x": -0.12 * math.sin(2 * phase + 0.3)},
        "tail_1": {"z": 0.3 * math.sin(phase + 0.5), "x": 0.12 * math.sin(2 * phase)},
        "tail_2": {"z": 0.45 * math.sin(phase - 0.4)},
    }
    for (upper, lower, end), lag in zip(
        (("thigh", "shin", "foot"), ("arm", "forearm", "hand")), (0.0, 0.5 * math.pi), strict=True
    ):
        for side, half in (("L", 0.0), ("R", math.pi)):
            turn = phase + lag + half
            # the foot is off the ground while the leg swings forwards, that is, while the swing decreases
            swing, lift = 0.45 * math.sin(turn), max(0.0, -math.cos(turn - 0.3))
            pose[f"{upper}.{side}"] = {"x": swing - 0.15 * lift}
            pose[f"{lower}.{side}"] = {"x": 0.8 * lift}
            pose[f"{end}.{side}"] = {"x": 0.5 * lift - 0.4 * swing}
    return pose

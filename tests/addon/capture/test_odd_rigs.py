"""Rigs as people's files have them: every capture is a take whose bones are accounted for, or one sentence before the video is read."""

import math
import random
from collections.abc import Callable

import bpy
import numpy as np
import pytest
from anyrig.addon.capture import rig_check, run_capture
from anyrig.addon.capture.run_capture import ArmatureInput, CaptureRequest, key_all
from anyrig.addon.keying.write_action import write_motion
from anyrig.addon.rig.armature import pose_of, read_rig
from anyrig.addon.rig.scales import hidden_bones
from anyrig.addon.settings.capture_params import CaptureParams
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle, nearest_rotation, quaternion_to_matrix
from anyrig.backend.motion.motion import Motion, sample
from anyrig.backend.video.clip import Clip
from anyrig.tests.addon import fixtures
from anyrig.tests.addon.fixtures import BoneSpec, chain, make_rig, random_motion

pytestmark = pytest.mark.usefixtures("small_views")
FRAMES = 5
PARAMS = CaptureParams(Clip("/clips/walk.mp4"), Settings(model="tiny", device="cpu"), start_frame=1)


def gathered(*objects: bpy.types.Object) -> CaptureRequest:
    return run_capture.gather(bpy.context, objects, PARAMS)


def keyed(*objects: bpy.types.Object) -> tuple[CaptureRequest, list[Motion]]:
    """Capture a random take onto the armatures, without the network."""
    fps = bpy.context.scene.render.fps
    request = gathered(*objects)
    motions = [random_motion(subject.rig, FRAMES, seed, fps=fps) for seed, subject in enumerate(request.subjects)]
    key_all(request, motions, objects, fps)
    return request, motions


def error_of(obj: bpy.types.Object, subject: ArmatureInput, motion: Motion) -> float:
    """Degrees, the most over frames and bones, by which the world rotations of the played bones miss the take."""
    rig, worst = subject.rig, 0.0
    for frame in range(FRAMES):
        bpy.context.scene.frame_set(1 + frame)
        posed = obj.evaluated_get(bpy.context.evaluated_depsgraph_get())
        turned = nearest_rotation(pose_of(posed, rig)) @ np.swapaxes(nearest_rotation(rig.rest), -1, -2)
        world = nearest_rotation(np.array(posed.matrix_world))
        wanted = quaternion_to_matrix(sample(motion, np.array([frame / bpy.context.scene.render.fps]))[0][0])
        worst = max(worst, math.degrees(float(geodesic_angle(world @ turned, rig.world @ wanted).max())))
    return worst


def check_take(*objects: bpy.types.Object) -> CaptureRequest:
    request, motions = keyed(*objects)
    for obj, subject, motion in zip(objects, request.subjects, motions, strict=True):
        assert error_of(obj, subject, motion) < 0.2, subject.rig.name
    return request


def bones_of(request: CaptureRequest) -> set[str]:
    return set(request.subjects[0].rig.names)


# ---- scales


def scale_by_pose(obj: bpy.types.Object, bone: str, scale: tuple[float, float, float]) -> None:
    obj.pose.bones[bone].scale = scale


def scale_by_keys(obj: bpy.types.Object, bone: str, scale: tuple[float, float, float]) -> None:
    obj.pose.bones[bone].scale = scale
    obj.pose.bones[bone].keyframe_insert("scale", frame=1)


def scale_by_driver(obj: bpy.types.Object, bone: str, scale: tuple[float, float, float]) -> None:
    for index, value in enumerate(scale):
        obj.pose.bones[bone].driver_add("scale", index).driver.expression = str(value)


def scale_by_constraint(obj: bpy.types.Object, bone: str, scale: tuple[float, float, float]) -> None:
    limit = obj.pose.bones[bone].constraints.new("LIMIT_SCALE")
    limit.owner_space = "LOCAL"
    for axis, value in zip("xyz", scale):
        setattr(limit, f"use_max_{axis}", True)
        setattr(limit, f"max_{axis}", value)


WAYS = [scale_by_pose, scale_by_keys, scale_by_driver, scale_by_constraint]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("scale", [(0, 0, 0), (1e-8, 1e-8, 1e-8), (1, 0, 1), (0, 1, 1)], ids=["nothing", "tiny", "short", "flat"])
@pytest.mark.parametrize("way", WAYS)
def test_bones_hidden_by_a_scale_are_left_alone_and_the_rest_is_keyed(
    way: Callable[..., None], scale: tuple[float, float, float]
) -> None:
    obj = fixtures.human()
    everything = set(obj.data.bones.keys())
    way(obj, "upper_arm.L", scale)
    bpy.context.view_layer.update()
    request = check_take(obj)
    below = {"forearm.L", "hand.L"}
    assert bones_of(request) | {"upper_arm.L"} == everything - below
    (line,) = [line for line in rig_check.check(bpy.context, [obj]) if "get no keys" in line]
    assert all(f"'{name}'" in line for name in below)


@pytest.mark.parametrize("way", WAYS)
def test_a_root_scaled_to_nothing_is_a_sentence_before_the_video_is_read(way: Callable[..., None]) -> None:
    obj = fixtures.human()
    way(obj, "hips", (0, 0, 0))
    bpy.context.view_layer.update()
    with pytest.raises(UserError, match="'hips' of armature 'Human' is scaled to nothing"):
        gathered(obj)


def test_a_visible_bone_below_a_hidden_one_is_keyed() -> None:
    obj = fixtures.human()
    obj.data.bones["hand.L"].inherit_scale = "NONE"
    obj.pose.bones["upper_arm.L"].scale = (0, 0, 0)
    bpy.context.view_layer.update()
    hidden = set(hidden_bones(obj))
    request = check_take(obj)
    assert bones_of(request) == set(obj.data.bones.keys()) - hidden


@pytest.mark.parametrize("signs", [(-1, -1, 1), (1, -1, -1), (-1, 1, -1)])
@pytest.mark.parametrize("mode", ["QUATERNION", "XYZ"])
def test_two_negative_scales_are_half_a_turn(signs: tuple[float, float, float], mode: str) -> None:
    obj = fixtures.human()
    obj.pose.bones["upper_arm.L"].scale = signs
    obj.pose.bones["upper_arm.L"].rotation_mode = mode
    bpy.context.view_layer.update()
    check_take(obj)


def test_a_mirrored_bone_is_named() -> None:
    obj = fixtures.human()
    obj.pose.bones["thigh.L"].scale = (1, 0, 1)
    obj.pose.bones["forearm.R"].scale = (-1, 1, 1)
    bpy.context.view_layer.update()
    with pytest.raises(UserError, match="'forearm.R' of armature 'Human' is mirrored"):
        gathered(obj)


@pytest.mark.parametrize("scale", [(0, 0, 0), (1, 0, 1)])
@pytest.mark.parametrize("parent", [False, True])
def test_an_object_scaled_to_nothing_is_a_sentence(scale: tuple[float, float, float], parent: bool) -> None:
    obj = fixtures.human()
    if parent:
        obj.parent = bpy.data.objects.new("Set", None)
        bpy.context.collection.objects.link(obj.parent)
    (obj.parent or obj).scale = scale
    bpy.context.view_layer.update()
    with pytest.raises(UserError, match="Armature 'Human' is scaled to nothing, or flat"):
        gathered(obj)


def test_a_scale_too_uneven_is_told_before_the_video_is_read() -> None:
    obj = fixtures.human()
    obj.pose.bones["chest"].scale = (20, 1, 1)
    bpy.context.view_layer.update()
    with pytest.raises(UserError, match="uneven scale"):
        gathered(obj)


# ---- what moves the body


def new_object(name: str, data: bpy.types.ID | None) -> bpy.types.Object:
    obj = bpy.data.objects.new(name, data)
    bpy.context.collection.objects.link(obj)
    return obj


def blob(name: str = "Body", at: float = 1.0) -> bpy.types.Object:
    """A tetrahedron without vertex groups."""
    data = bpy.data.meshes.new(name)
    data.from_pydata([(0, 0, at), (0.3, 0, at), (0, 0.3, at), (0, 0, at + 0.3)], [], [(0, 2, 1), (0, 1, 3), (1, 2, 3), (2, 0, 3)])
    return new_object(name, data)


def hang(body: bpy.types.Object, obj: bpy.types.Object, bone: str) -> None:
    body.parent, body.parent_type, body.parent_bone = obj, "BONE", bone


def deform(body: bpy.types.Object, obj: bpy.types.Object, envelopes: bool) -> None:
    modifier = body.modifiers.new("Armature", "ARMATURE")
    modifier.object, modifier.use_bone_envelopes, modifier.use_vertex_groups = obj, envelopes, not envelopes


def by_envelopes(obj: bpy.types.Object) -> None:
    deform(blob(), obj, True)


def by_lattice(obj: bpy.types.Object) -> None:
    lattice = new_object("Cage", bpy.data.lattices.new("Cage"))
    for name in ("hips", "spine", "chest", "neck"):
        lattice.vertex_groups.new(name=name)
    deform(lattice, obj, False)
    blob().modifiers.new("Lattice", "LATTICE").object = lattice


def by_curve(obj: bpy.types.Object) -> None:
    deform(new_object("Body", bpy.data.curves.new("Body", "CURVE")), obj, True)


def by_text(obj: bpy.types.Object) -> None:
    new_object("Body", bpy.data.curves.new("Body", "FONT")).parent = obj
    bpy.data.objects["Body"].parent_type = "ARMATURE"


def by_metaballs(obj: bpy.types.Object) -> None:
    for name in ("hips", "spine", "chest", "neck"):
        hang(new_object(f"Ball {name}", bpy.data.metaballs.new("Ball")), obj, name)


def by_instances(obj: bpy.types.Object) -> None:
    for name in ("hips", "spine", "chest", "neck"):
        empty = new_object(f"Part {name}", None)
        empty.instance_type, empty.instance_collection = "COLLECTION", bpy.data.collections.new(name)
        hang(empty, obj, name)


def by_instanced_mesh(obj: bpy.types.Object) -> None:
    skin = blob()
    for name in ("hips", "spine", "chest", "neck"):
        skin.vertex_groups.new(name=name).add([0, 1, 2, 3], 0.25, "REPLACE")
    deform(skin, obj, False)
    apart = bpy.data.collections.new("Apart")
    apart.objects.link(skin)
    bpy.context.collection.objects.unlink(skin)
    empty = new_object("Instance", None)
    empty.instance_type, empty.instance_collection = "COLLECTION", apart


def by_constraints(obj: bpy.types.Object) -> None:
    for name, kind in zip(("hips", "spine", "chest", "neck"), ("CHILD_OF", "COPY_TRANSFORMS", "COPY_ROTATION", "ARMATURE")):
        constraint = blob(f"Part {name}").constraints.new(kind)
        holder = constraint.targets.new() if kind == "ARMATURE" else constraint
        holder.target, holder.subtarget = obj, name


def by_hooks(obj: bpy.types.Object) -> None:
    for name in ("hips", "spine", "chest", "neck"):
        empty = new_object(f"Hook {name}", None)
        hang(empty, obj, name)
        body = bpy.data.objects.get("Body") or blob()
        body.modifiers.new(name, "HOOK").object = empty


def by_surface_deform(obj: bpy.types.Object) -> None:
    cage = blob("Cage")
    deform(cage, obj, True)
    blob().modifiers.new("Surface Deform", "SURFACE_DEFORM").target = cage
    cage.hide_set(True)


def by_drivers(obj: bpy.types.Object) -> None:
    for name in ("hips", "spine", "chest", "neck"):
        body = blob(f"Body {name}")
        body.shape_key_add(name="rest")
        curve = body.shape_key_add(name="bent").driver_add("value")
        target = curve.driver.variables.new().targets[0]
        target.id = obj
        if name == "hips":
            curve.driver.variables[0].type, target.bone_target = "TRANSFORMS", name
        else:
            target.data_path = f'pose.bones["{name}"].location[0]'


def by_grease_pencil(obj: bpy.types.Object) -> None:
    if bpy.app.version < (4, 3):
        drawn = new_object("Drawing", bpy.data.grease_pencils.new("Drawing"))
        drawn.grease_pencil_modifiers.new("Armature", "GP_ARMATURE").object = obj
        return
    pens = getattr(bpy.data, "grease_pencils_v3", bpy.data.grease_pencils)
    drawn = new_object("Drawing", pens.new("Drawing"))
    drawn.modifiers.new("Armature", "GREASE_PENCIL_ARMATURE").object = obj


BODIES = [
    by_envelopes,
    by_lattice,
    by_curve,
    by_text,
    by_metaballs,
    by_instances,
    by_instanced_mesh,
    by_constraints,
    by_hooks,
    by_surface_deform,
    by_drivers,
    by_grease_pencil,
]


@pytest.mark.parametrize("way", BODIES)
def test_bones_that_move_a_body_in_any_way_are_keyed(way: Callable[[bpy.types.Object], None]) -> None:
    specs = chain(["hips", "spine", "chest", "neck"], None, [(0, 0, 0.4 * i) for i in range(5)])
    obj = make_rig("Body rig", [*specs, BoneSpec("hand", "hips", (0.3, 0, 0.2), (0.6, 0, 0.2))], mesh=False)
    hang(blob("Sword", 0.1), obj, "hand")
    way(obj)
    bpy.context.view_layer.update()
    assert bones_of(check_take(obj)) == set(obj.data.bones.keys())


def test_parts_on_a_few_bones_key_no_others() -> None:
    obj = make_rig("Robot", chain(["base", "arm", "claw"], None, [(0, 0, 1 + 0.4 * i) for i in range(4)]), mesh=False)
    hang(blob(), obj, "arm")
    camera = new_object("Camera", bpy.data.cameras.new("Camera"))
    hang(camera, obj, "claw")
    bpy.context.view_layer.update()
    assert bones_of(check_take(obj)) == {"arm"}


# ---- armature objects that move


def turning(name: str) -> bpy.types.Object:
    empty = new_object(name, None)
    for frame, turn in ((1, 0.4), (FRAMES, 2.6)):
        empty.rotation_euler = (0.3 * turn, turn, -turn)
        empty.keyframe_insert("rotation_euler", frame=frame)
    return empty


def turn_by_parent(obj: bpy.types.Object) -> None:
    obj.parent = turning("Turning")


def turn_by_grandparent(obj: bpy.types.Object) -> None:
    obj.parent = new_object("Still", None)
    obj.parent.parent = turning("Turning")


def turn_by_bone(obj: bpy.types.Object) -> None:
    other = make_rig("Carrier", [BoneSpec("arm", None, (0, 0, 0), (0, 0.2, 1))], mesh=False)
    bone = other.pose.bones["arm"]
    for frame, turn in ((1, 0.1), (FRAMES, 1.1)):
        bone.rotation_quaternion = (math.cos(turn), 0, math.sin(turn), 0)
        bone.keyframe_insert("rotation_quaternion", frame=frame)
    hang(obj, other, "arm")


def turn_by_constraint(obj: bpy.types.Object) -> None:
    obj.constraints.new("COPY_ROTATION").target = turning("Turning")


def turn_by_driver(obj: bpy.types.Object) -> None:
    obj.driver_add("rotation_euler", 2).driver.expression = "frame * 0.5"


def turn_by_strip(obj: bpy.types.Object) -> None:
    for frame, turn in ((1, 0.4), (FRAMES, 2.6)):
        obj.rotation_euler = (0.3 * turn, turn, -turn)
        obj.keyframe_insert("rotation_euler", frame=frame)
    data = obj.animation_data
    data.nla_tracks.new().strips.new("Turn", 1, data.action)
    data.action = None


def turn_by_own_action(obj: bpy.types.Object) -> None:
    for frame, turn in ((1, 0.4), (FRAMES, 2.6)):
        obj.rotation_euler = (0.3 * turn, turn, -turn)
        obj.keyframe_insert("rotation_euler", frame=frame)


MOVES = [
    turn_by_parent,
    turn_by_grandparent,
    turn_by_bone,
    turn_by_constraint,
    turn_by_driver,
    turn_by_strip,
    turn_by_own_action,
]


@pytest.mark.parametrize("way", MOVES)
def test_an_armature_that_turns_shows_the_take(way: Callable[[bpy.types.Object], None]) -> None:
    obj = fixtures.two_roots()
    way(obj)
    bpy.context.scene.frame_set(1)
    check_take(obj)


@pytest.mark.parametrize("reverse", [False, True])
def test_armatures_of_one_character_come_out_right_together(reverse: bool) -> None:
    body = fixtures.human()
    hair = make_rig("Hair", chain(["lock", "end"], None, [(0, 0, 0), (0, 0.3, 0.1), (0, 0.6, 0)]))
    pin = make_rig("Pin", chain(["pin"], None, [(0, 0, 0), (0.1, 0, 0.1)]))
    hang(hair, body, "head")
    hang(pin, hair, "end")
    bpy.context.view_layer.update()
    objects = [pin, hair, body] if reverse else [body, hair, pin]
    actions = len(bpy.data.actions)
    check_take(*objects)
    assert len(bpy.data.actions) == actions + 3
    assert all(action.name.startswith("walk") for action in bpy.data.actions)


# ---- vertices, and few or many bones


@pytest.mark.parametrize(
    ("place", "words"), [(math.nan, "without a place"), (math.inf, "without a place"), (1e6, "away from the body")]
)
def test_a_stray_vertex_is_named_with_its_mesh(place: float, words: str) -> None:
    obj = fixtures.human()
    skin = next(child for child in obj.children if child.type == "MESH")
    skin.data.vertices.add(1)
    skin.data.vertices[len(skin.data.vertices) - 1].co = (0, place, 0)
    skin.data.update()
    bpy.context.view_layer.update()
    with pytest.raises(UserError, match=f"Mesh 'Human skin' of armature 'Human' has a vertex .*{words}|{words}"):
        gathered(obj)


def test_a_pose_that_is_not_a_number_is_named() -> None:
    obj = fixtures.human()
    obj.pose.bones["chest"].location = (math.nan, 0, 0)
    bpy.context.view_layer.update()
    with pytest.raises(UserError, match=r"Bone 'chest' of armature 'Human' has no place"):
        gathered(obj)


@pytest.mark.parametrize(("count", "length"), [(1, 1.0), (1, 1e-3), (3, 1e-4), (300, 0.05)])
@pytest.mark.parametrize("mesh", [True, False])
def test_few_many_and_short_bones(count: int, length: float, mesh: bool) -> None:
    names = [f"bone {index}" for index in range(count)]
    obj = make_rig("Rig", chain(names, None, [(0, 0, 1 + length * index) for index in range(count + 1)]), mesh=mesh)
    assert bones_of(check_take(obj)) == set(names)


# ---- any of these together


@pytest.mark.parametrize("seed", range(30))
def test_an_odd_rig_is_a_take_or_a_sentence(seed: int) -> None:
    chance = random.Random(seed)
    obj = fixtures.RIGS[chance.choice(sorted(fixtures.RIGS))]()
    names = obj.data.bones.keys()
    hang(blob("Sword", 0.1), obj, chance.choice(names))
    for _ in range(chance.randint(0, 2)):
        scale = chance.choice([(0, 0, 0), (1, 0, 1), (-1, -1, 1), (2, 1, 1), (1e-9, 1e-9, 1e-9), (1e-5, 1e-5, 1e-5), (-1, 1, 1)])
        chance.choice(WAYS)(obj, chance.choice(names), scale)
    if chance.random() < 0.3:
        obj.data.bones[chance.choice(names)].inherit_scale = chance.choice(["NONE", "ALIGNED", "AVERAGE", "FIX_SHEAR"])
    if chance.random() < 0.4:
        chance.choice(MOVES)(obj)
    obj.scale = chance.choice([(1, 1, 1)] * 4 + [(-1, 1, 1), (0, 1, 1), (1e-3, 1e-3, 1e-3)])
    bpy.context.scene.frame_set(1)
    before = len(bpy.data.actions)
    try:
        request = gathered(obj)
    except UserError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
        assert len(bpy.data.actions) == before
        return
    fps = bpy.context.scene.render.fps
    motion = random_motion(request.subjects[0].rig, FRAMES, seed, fps=fps)
    (action,) = key_all(request, [motion], [obj], fps)
    assert np.isfinite([bone.matrix for bone in obj.pose.bones]).all()
    rig, _ = read_rig(obj)
    assert len(bpy.data.actions) == before + 1 and action.name == "walk"
    assert set(rig.names) == bones_of(request)


@pytest.mark.parametrize("scale", [(0, 0, 0), (1, 0, 1)])
def test_a_bone_hidden_after_the_capture_is_named_when_the_take_is_keyed_again(
    scale: tuple[float, float, float],
) -> None:
    obj = fixtures.human()
    rig = read_rig(obj)[0]
    motion = random_motion(rig, 5, seed=1)
    reference = pose_of(obj, rig)
    obj.pose.bones["upper_arm.R"].scale = scale
    bpy.context.view_layer.update()
    with pytest.raises(
        UserError, match="Bone 'upper_arm.R' of armature 'Human' is scaled to nothing, or flat, so 'forearm.R' below it"
    ):
        write_motion(obj, rig, motion, reference, name="again", start_frame=1, fps=30)
    assert "again" not in bpy.data.actions

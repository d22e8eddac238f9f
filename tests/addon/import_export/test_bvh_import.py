"""A written BVH opens in Blender with the joints where the take has them."""

from pathlib import Path

import bpy
import numpy as np
import pytest
from anyrig.addon.rig.armature import rig_from_armature
from anyrig.backend.geometry.camera import Y_UP
from anyrig.backend.geometry.rotations import quaternion_to_matrix
from anyrig.backend.motion.bvh import read_bvh, write_bvh
from anyrig.backend.motion.motion import Motion, fk_heads
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import network_axes
from anyrig.tests.addon import fixtures
from anyrig.tests.addon.playback import played, write

FRAMES = 6


def make(scale: float) -> tuple[Rig, Motion, np.ndarray]:
    """A branching rig with oblique rest frames, a blank in a name and a translating joint -> (rig, take, root path)."""
    random = np.random.default_rng(5)
    names = ("hips", "spine", "Left Leg", "head", "foot", "toe", "prop")
    count = len(names)
    rest = np.tile(np.eye(4), (count, 1, 1))
    rest[:, :3, :3] = quaternion_to_matrix(random.normal(size=(count, 4)))
    rest[:, :3, 3] = scale * random.normal(size=(count, 3))
    tails = rest[:, :3, 3] + scale * random.normal(size=(count, 3))
    translates = np.arange(count) == 6
    rig = Rig(
        "rig", names, np.array([-1, 0, 0, 1, 2, 4, 0]), rest, tails, translates, np.zeros(count, bool),
        quaternion_to_matrix(random.normal(size=4)),
    )  # fmt: skip
    rotations = random.normal(size=(FRAMES, count, 4))
    rotations /= np.linalg.norm(rotations, axis=-1, keepdims=True)
    positions = scale * random.normal(size=(FRAMES, count, 3))
    take = Motion(names, np.arange(FRAMES) / 24, rotations, positions, np.zeros((FRAMES, 4)), np.ones((FRAMES, count)))
    return rig, take, scale * random.normal(size=(FRAMES, 3))


def imported(path: Path, **options: object) -> bpy.types.Object:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_anim.bvh(filepath=str(path), **options)
    return next(thing for thing in bpy.data.objects if thing.type == "ARMATURE")


def posed_heads(armature: bpy.types.Object, names: list[str]) -> np.ndarray:
    """(T, J, 3) evaluated world positions on frames 1 to FRAMES."""
    heads = []
    for frame in range(1, FRAMES + 1):
        bpy.context.scene.frame_set(frame)
        evaluated = armature.evaluated_get(bpy.context.evaluated_depsgraph_get())
        heads.append([(evaluated.matrix_world @ evaluated.pose.bones[name].matrix).translation[:] for name in names])
    return np.array(heads)


@pytest.mark.parametrize("mode", ["NATIVE", "QUATERNION", "XYZ"])
@pytest.mark.parametrize("scale", [0.2, 100.0])
def test_joints_are_where_the_take_has_them(tmp_path: Path, mode: str, scale: float):
    rig, take, root = make(scale)
    write_bvh(tmp_path / "take.bvh", rig, take, root)
    armature = imported(tmp_path / "take.bvh", rotate_mode=mode)
    names = [name.replace(" ", "%20") for name in rig.names]
    # y up -> z up; Blender imports with -z forward and y up, so the file's axes become the world's
    expected = (fk_heads(rig, take) + (root @ network_axes(rig).T)[:, None]) @ Y_UP
    size = np.ptp(rig.heads, axis=0).max()
    assert np.abs(posed_heads(armature, names) - expected).max() < 1e-4 * size
    rest = np.array([(armature.matrix_world @ armature.data.bones[name].matrix_local).translation[:] for name in names])
    assert np.abs(rest - rig.heads @ rig.world.T).max() < 1e-4 * size
    parents = [armature.data.bones[name].parent for name in names]
    assert [bone and bone.name for bone in parents] == [None] + [names[parent] for parent in rig.parents[1:]]


def test_leaves_end_at_their_tails(tmp_path: Path):
    rig, take, root = make(1.0)
    write_bvh(tmp_path / "take.bvh", rig, take, root)
    armature = imported(tmp_path / "take.bvh")
    for joint in (3, 5, 6):
        tail = armature.matrix_world @ armature.data.bones[rig.names[joint]].tail_local
        assert np.abs(np.array(tail[:]) - rig.world @ rig.tails[joint]).max() < 1e-4


def test_frame_rate_arrives(tmp_path: Path):
    rig, take, root = make(1.0)
    write_bvh(tmp_path / "take.bvh", rig, take, root)
    imported(tmp_path / "take.bvh", update_scene_fps=True)
    scene = bpy.context.scene
    assert scene.render.fps / scene.render.fps_base == pytest.approx(24, abs=1e-3)


def test_what_blender_exports_is_read(tmp_path: Path):
    """Blender's own writer uses other channel orders; both readers must agree on every joint of its file."""
    rig, take, root = make(1.0)
    write_bvh(tmp_path / "take.bvh", rig, take, root)
    armature = imported(tmp_path / "take.bvh")
    bpy.context.view_layer.objects.active = armature
    bpy.ops.export_anim.bvh(filepath=str(tmp_path / "again.bvh"), frame_start=1, frame_end=FRAMES, rotate_mode="XYZ")
    back, pose, frame_time = read_bvh(tmp_path / "again.bvh")
    again = imported(tmp_path / "again.bvh")
    ours = pose[..., :3, 3] @ back.world.T
    assert frame_time == pytest.approx(1 / 24, abs=1e-6)
    assert np.abs(posed_heads(again, [name.replace(" ", "%20") for name in back.names]) - ours).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "parts", "aside"),
    [("footed_biped", fixtures.FEET, "Root"), ("hoofed", fixtures.HOOVES, ""), ("footed_spider", fixtures.CLAWS, "ground")],
)
def test_feet_of_a_game_rig_are_below_their_shins(name: str, parts: dict[str, str], aside: str, tmp_path: Path) -> None:
    """In the file, in what `read_bvh` makes of it, and in Blender, where the joints are as the keys show them."""
    obj = getattr(fixtures, name)()
    rig = rig_from_armature(obj)
    take = fixtures.random_motion(rig, FRAMES, seed=2)
    write_bvh(tmp_path / "take.bvh", rig, take)
    write(obj, rig, take)
    shown = played(obj, rig, 1 + np.arange(FRAMES))[:, :, :3, 3] @ np.array(obj.matrix_world)[:3, :3].T
    size = np.ptp(rig.heads, axis=0).max()

    back, clip, _ = read_bvh(tmp_path / "take.bvh")
    above = {name: back.names[parent] for name, parent in zip(back.names, back.parents) if parent >= 0}
    assert set(back.names) == set(rig.names) and aside not in back.names and not back.translates.any()
    assert {foot: above[foot] for foot in parts} == parts
    order = [back.names.index(name) for name in rig.names]
    assert np.abs(clip[:, order][..., :3, 3] @ back.world.T - shown).max() < 1e-4 * size

    armature = imported(tmp_path / "take.bvh")
    assert {foot: armature.data.bones[foot].parent.name for foot in parts} == parts
    assert np.abs(posed_heads(armature, list(rig.names)) - shown).max() < 1e-4 * size
    again = rig_from_armature(armature)
    assert again.names == back.names and np.array_equal(again.parents, back.parents) and not (again.hung | again.translates).any()

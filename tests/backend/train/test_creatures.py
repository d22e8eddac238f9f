"""Procedural creatures: every plan, style and quirk gives a sound pack, and what moves moves as it should."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from anyrig.backend.geometry.rotations import geodesic_angle
from anyrig.backend.model.config import TINY
from anyrig.backend.rig.skeleton import global_to_local, pose_to_network
from anyrig.backend.train.creatures.actions import plant_feet, repertoire, walk
from anyrig.backend.train.creatures.body import Body, leg_length
from anyrig.backend.train.creatures.creatures import creature, creatures, write_creatures
from anyrig.backend.train.creatures.gaits import GAITS, foot_path, gaits_of, phases, step
from anyrig.backend.train.creatures.naming import STYLES
from anyrig.backend.train.creatures.plans import PLANS
from anyrig.backend.train.creatures.score import Score, limit_bends, solve_legs
from anyrig.backend.train.creatures.skin import skin_of
from anyrig.backend.train.evaluation.split_leaks import find_leaks, pair_joints
from anyrig.backend.train.packs.rig_packs import Pack, load_packs
from anyrig.backend.train.samples.samples import Recipe, Windows

SEEDS = range(6)
CASES = [(plan, seed) for plan in PLANS for seed in SEEDS]


@cache
def made(plan: str, seed: int) -> Pack:
    return creature(seed, plan, list(STYLES)[(seed + len(plan)) % len(STYLES)])


def body_of(plan: str, seed: int) -> Body:
    return PLANS[plan][0](np.random.default_rng(seed))


def size_of(pack: Pack) -> float:
    return float(np.ptp(pack.surface.points, axis=0).max())


@pytest.mark.parametrize("plan,seed", CASES)
def test_packs_are_sound(plan: str, seed: int) -> None:
    pack = made(plan, seed)
    rig = pack.rig
    assert np.array_equal(rig.world, np.eye(3)) and pack.fps in (24, 30) and 3 <= len(pack.clips) <= 6
    assert not rig.translates.any() and (rig.parents < 0).sum() == 1
    for matrices in (rig.rest, *pack.clips.values()):
        assert np.isfinite(matrices).all()
        rotations = matrices[..., :3, :3].astype(float)
        assert np.abs(rotations @ rotations.swapaxes(-1, -2) - np.eye(3)).max() < 1e-3
        assert (np.linalg.det(rotations) > 0.99).all()
    for poses in pack.clips.values():
        assert poses.dtype == np.float32 and 24 <= len(poses) <= 40 and poses.shape[1:] == (len(rig.names), 4, 4)


@pytest.mark.parametrize("plan,seed", CASES)
def test_bones_keep_their_lengths(plan: str, seed: int) -> None:
    pack = made(plan, seed)
    hanging = np.flatnonzero(pack.rig.parents >= 0)
    above = pack.rig.parents[hanging]
    rest = np.linalg.norm(pack.rig.heads[hanging] - pack.rig.heads[above], axis=-1)
    for poses in pack.clips.values():
        heads = poses[:, :, :3, 3]
        assert np.abs(np.linalg.norm(heads[:, hanging] - heads[:, above], axis=-1) - rest).max() < 2e-3 * size_of(pack)


@pytest.mark.parametrize("plan,seed", CASES)
def test_the_skin_sits_on_its_bones(plan: str, seed: int) -> None:
    pack = made(plan, seed)
    skin = pack.surface
    assert 2000 <= len(skin) <= 4200
    assert np.allclose(skin.weights.sum(1), 1, atol=1e-5) and (skin.weights >= 0).all()
    assert np.allclose(np.linalg.norm(skin.normals, axis=1), 1, atol=1e-3)
    assert skin.colours.min() >= 0 and skin.colours.max() <= 1
    assert skin.joints.min() >= 0 and skin.joints.max() < len(pack.rig.names)


@pytest.mark.parametrize("plan,seed", CASES)
def test_points_lie_around_their_bones(plan: str, seed: int) -> None:
    body = body_of(plan, seed)
    skin = skin_of(body, np.random.default_rng(seed), 1500)
    bones = [body.bones[joint] for joint in skin.owner]
    start, span = body.heads[skin.owner], (body.tails - body.heads)[skin.owner]
    along = np.clip(((skin.points - start) * span).sum(1) / (span * span).sum(1), 0, 1)
    out = skin.points - start - along[:, None] * span
    wide = np.array([max(bone.thick, bone.thin) * max(1.0, *bone.flat) for bone in bones])
    eyes = len(skin.points) - 90 if any(bone.role in ("head", "turret") for bone in body.bones) else len(skin.points)
    assert (np.linalg.norm(out, axis=1)[:eyes] < 1.02 * wide[:eyes]).all()
    assert (np.linalg.norm(out, axis=1)[eyes:] < 1.5 * wide[eyes:]).all()
    assert ((out * skin.normals).sum(1)[:eyes] > 0).mean() > 0.99
    # points at a joint belong to both bones, points in the middle of a bone to it alone
    assert (skin.weights[:, 0] >= 0.499).all() and (skin.weights[:, 0] > 0.99).any() and skin.weights[:, 0].min() < 0.6
    assert len(np.unique(skin.owner)) > 0.8 * len(body.bones)


@pytest.mark.parametrize("plan,seed", CASES)
def test_no_clip_is_frozen_or_wild(plan: str, seed: int) -> None:
    pack = made(plan, seed)
    for name, poses in pack.clips.items():
        rotations, heads = pose_to_network(pack.rig, poses.astype(float), tips=False)
        local = global_to_local(pack.rig.parents, rotations)
        speed = np.degrees(geodesic_angle(local[1:], local[:-1]))
        assert speed.mean() > 0.15, name
        # 120 degrees between two frames would be a flip; wheels and knees near their limit turn quickest
        assert np.quantile(speed, 0.99) < 60, name
        assert np.linalg.norm(heads, axis=-1).max() < 4 * size_of(pack), name


def test_seeds_decide_everything() -> None:
    one, same, other = creature(5), creature(5), creature(6)
    assert one.rig.to_json() == same.rig.to_json() and one.clips.keys() == same.clips.keys()
    assert all(np.array_equal(one.clips[name], same.clips[name]) for name in one.clips)
    assert all(np.array_equal(getattr(one.surface, key), getattr(same.surface, key)) for key in ("points", "colours", "weights"))
    assert one.rig.to_json() != other.rig.to_json()
    stream, again = creatures(3), creatures(3)
    assert [next(stream).name for _ in range(3)] == [next(again).name for _ in range(3)]
    assert len({next(stream).name for _ in range(5)}) == 5


def test_all_plans_and_quirks_are_drawn() -> None:
    packs = [creature(seed) for seed in range(100, 220)]
    assert {pack.name.rpartition("_")[2] for pack in packs} == set(PLANS)
    words = " ".join(name for pack in packs for name in pack.rig.names)
    assert all(word in words for word in ("mixamorig:", "DEF-", "Bip0", "左", ".L", "wist", "ear"))
    fronts = [_ahead(pack) for pack in packs if "quadruped" in pack.name]
    assert np.mean([front[1] < -0.8 for front in fronts]) > 0.5  # mostly towards -y


def _ahead(pack: Pack) -> np.ndarray:
    """Where the eyes are, from the middle: they are the last points of a skin."""
    way = (pack.surface.points[-90:].mean(0) - pack.surface.points.mean(0)) * [1, 1, 0]
    return way / np.linalg.norm(way)


@pytest.mark.parametrize("style", STYLES)
def test_styles_name_sides(style: str) -> None:
    names = creature(0, "biped", style).rig.names
    assert len(set(names)) == len(names) and all(names)
    marks = {
        "mixamo": ("LeftUpLeg", "RightUpLeg"), "rigify": ("thigh.L", "thigh.R"), "biped": (" L Thigh", " R Thigh"), "japanese": ("左足", "右足"),
    }.get(style, ())  # fmt: skip
    assert all(any(mark in name for name in names) for mark in marks)
    if style == "numbered":
        assert all(any(letter.isdigit() for letter in name) for name in names)


@pytest.mark.parametrize("plan", ["biped", "quadruped", "bird", "insect", "spider"])
def test_legs_alternate_in_a_walk(plan: str) -> None:
    for seed in range(4):
        body = body_of(plan, seed)
        score = Score(body, 32)
        walk(score, np.random.default_rng(seed))
        rotations, places = solve_legs(score)
        for left in (leg for leg in body.legs if leg.side == "L"):
            right = next(leg for leg in body.legs if leg.side == "R" and leg.row == left.row)
            ahead = [_foot(body, leg, rotations, places)[:, 1] for leg in (left, right)]
            assert np.corrcoef(*ahead)[0, 1] < -0.3
            assert min(np.ptp(way) for way in ahead) > 0.2 * leg_length(body, left)


def _foot(body: Body, leg, rotations: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(F, 3) the end of the foot, or of the shin where there is none."""
    joint = leg.joints[min(leg.first + 2, len(leg.joints) - 1)]
    return places[:, joint] + rotations[:, joint] @ (body.tails[joint] - body.heads[joint])


@pytest.mark.parametrize("plan", ["biped", "quadruped", "spider", "centipede"])
def test_planted_feet_stand_still(plan: str) -> None:
    body = body_of(plan, 1)
    score = Score(body, 9)
    plant_feet(score)
    score.shift[:, 2] = -0.08 * body.heads[0, 2] * np.linspace(0, 1, 9)
    rotations, places = solve_legs(score)
    assert np.allclose(places[0], body.heads, atol=0.02 * body.size)  # unmoved, the legs are as they were
    for leg in body.legs:
        assert np.ptp(_foot(body, leg, rotations, places), axis=0).max() < 1e-6
        thigh, shin = leg.joints[leg.first : leg.first + 2]
        # the knee folds as the body sinks, and to the same side as before
        line = np.array([_foot(body, leg, rotations, places)[k] - places[k, thigh] for k in (0, 8)])
        knee = np.array([places[k, shin] - places[k, thigh] for k in (0, 8)])
        off = knee - line * ((knee * line).sum(1) / (line * line).sum(1))[:, None]
        assert off[0] @ off[1] > 0 and np.linalg.norm(off[1]) > np.linalg.norm(off[0])


def test_limits_hold() -> None:
    for plan, seed in CASES[::2]:
        body = body_of(plan, seed)
        planted = {joint for leg in body.legs for joint in leg.joints}
        free = [joint for joint in range(len(body.bones)) if joint not in planted]
        for name, action in sum(repertoire(body), []):
            score = Score(body, 24)
            action(score, np.random.default_rng(seed))
            rotations, _ = solve_legs(score)
            local = global_to_local(body.parents, rotations)[:, free]
            angle = geodesic_angle(local, np.broadcast_to(np.eye(3), local.shape))
            assert (angle <= body.limits[free] + 1e-6).all(), (plan, name)
            for leg in body.legs:  # no leg is torn off its joint or folded into itself
                shin = leg.joints[leg.first + 1]
                bend = geodesic_angle(rotations[:, body.parents[shin]], rotations[:, shin])
                assert bend.max() < np.radians(165), (plan, name)


def test_limited_bends() -> None:
    bends = np.array([[0.01, 0, 0], [5.0, 0, 0], [5.0, 0, 0]])
    held = limit_bends(bends, np.array([1.0, 1.0, np.radians(360)]))
    assert np.allclose(held[0], bends[0], rtol=1e-3) and 0.99 < held[1, 0] <= 1 and held[2, 0] == 5


def test_gaits() -> None:
    legs = body_of("quadruped", 0).legs
    place = {(leg.row, leg.side): phase for leg, phase in zip(legs, phases(legs, "trot"), strict=True)}
    assert place[0, "L"] == place[1, "R"] != place[0, "R"] == place[1, "L"]
    tripod = phases(body_of("insect", 0).legs, "tripod")
    assert sorted(tripod) == [0.0] * 3 + [0.5] * 3
    assert set(gaits_of(body_of("biped", 0))) <= set(GAITS) and gaits_of(body_of("snake", 0)) == []
    ahead, up, _ = foot_path(np.linspace(0, 0.999, 200), 0.6)
    assert np.isclose(ahead[0], 0.5) and up[:119].max() == 0 and up.max() > 0.99 and np.abs(np.diff(ahead)).max() < 0.03
    score = Score(body_of("bird", 2), 40)
    step(score, np.random.default_rng(0), "walk", 1.5)
    assert len(score.steps) == 2


def test_creatures_go_through_files(tmp_path: Path) -> None:
    said: list[str] = []
    paths = write_creatures(tmp_path / "zoo", 3, 4, said.append)
    packs = load_packs(tmp_path / "zoo")
    assert len(said) == len(packs) == 3 and all(path.stat().st_size < 500_000 for path in paths)
    source = {pack.name: pack for pack in (next(stream) for stream in [creatures(4)] for _ in range(3))}
    for pack in packs:
        twin = source[pack.name]
        assert twin.rig.to_json() == pack.rig.to_json() and list(twin.clips) == list(pack.clips) and twin.fps == pack.fps
        assert all(np.array_equal(twin.clips[name], pack.clips[name]) for name in pack.clips)
        assert np.array_equal(twin.surface.joints, pack.surface.joints) and np.array_equal(
            twin.surface.points, pack.surface.points
        )


def test_a_training_sample_can_be_drawn() -> None:
    windows = Windows([made("quadruped", 1)], TINY, lambda crops: crops.float().mean((1, 2, 3))[:, None, None], Recipe(3), 0)
    sample = next(iter(windows))
    assert sample.position.isfinite().all() and sample.rotations.isfinite().all() and sample.uv.abs().max() < 1.5
    assert sample.tokens.shape[0] == 4


def test_leaks_are_found(tmp_path: Path) -> None:
    test, other = made("biped", 0), made("spider", 0)
    names = sorted(test.clips)
    path = tmp_path / "splits.json"
    path.write_text(
        json.dumps(
            {"seen": [{"file": test.name, "clip": names[0]}], "unseen": [], "never_train_clips": [], "never_train_files": []}
        )
    )
    quiet = replace(test, clips={name: test.clips[name] for name in names[1:]})
    assert not [leak for leak in find_leaks([quiet, other], [test], path) if leak.file == other.name]
    assert {leak.clip for leak in find_leaks([quiet], [test], path, 360.0)} == set(names[1:])
    # the same clip under other names, slowed down and started half-way through
    clip = test.clips[names[0]]
    loop = np.concatenate([clip, clip[::-1]])
    slow = np.repeat(np.roll(loop, len(clip) // 2, axis=0), 2, axis=0)
    planted = replace(
        test, name="thief", rig=replace(test.rig, names=tuple(f"q{k}x" for k in range(len(test.rig.names)))), clips={"Copy": slow}
    )
    whole = replace(test, clips=test.clips | {names[0]: loop})
    found = find_leaks([planted, other], [whole], path)
    assert [(leak.file, leak.clip, leak.test_clip) for leak in found] == [("thief", "Copy", names[0])] and found[0].degrees < 3
    assert not find_leaks([test], [replace(test, clips={names[0]: clip})], path) or names[0] not in {
        leak.clip for leak in find_leaks([test], [replace(test, clips={names[0]: clip})], path)
    }


def test_rigs_are_paired_by_name_or_by_tree() -> None:
    rig, other = made("biped", 0).rig, made("spider", 0).rig
    assert len(pair_joints(rig, rig)) == len(rig.names) and len(pair_joints(rig, other)) == 0
    assert len(pair_joints(rig, replace(rig, names=tuple(f"q{k}x" for k in range(len(rig.names)))))) == len(rig.names)

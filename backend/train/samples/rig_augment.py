"""Makes other rigs of a pack: mirrored, other proportions, fewer leaves, another joint order, names, rest pose and bone axes.

Every function returns a pack whose rig, clips and surface match. The surface keeps the order of its points, so figures per point
(point_splatting.point_spacing) stay valid. J joints, F frames, P points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...geometry.rotations import Array, nearest_rotation, quaternion_to_matrix, rotvec_to_matrix
from ...rig.point_cloud import Surface
from ...rig.rig import MARKS, Rig
from ...rig.skeleton import ancestor_mask
from ..packs.rig_packs import Pack
from .name_augment import rename_joints, swap_side

SHARES = {"mirror": 0.5, "lengths": 0.6, "rest": 0.35, "leaves": 0.3, "axes": 0.1, "order": 0.5, "names": 0.4}
TOUCHING = 0.1  # of the rig's size: a joint this near to another's skin belongs to it
ALIKE = 0.02  # of the rig's size: largest distance of a joint from its partner's mirror image
FEWEST = 3  # joints that remain when leaves are dropped


def augment_rig(pack: Pack, rng: np.random.Generator) -> Pack:
    """Apply the changes below at random, each with its share in SHARES."""
    chosen = {key: rng.random() < share for key, share in SHARES.items()}
    if chosen["mirror"]:
        pack = mirror_pack(pack)
    if chosen["lengths"]:
        pack = stretch_bones(pack, random_factors(pack.rig, rng))
    if chosen["rest"]:
        pack = change_rest(pack, random_rest(pack, rng))
    if chosen["leaves"]:
        pack = drop_joints(pack, random_leaves(pack.rig, rng))
    if chosen["axes"]:
        pack = roll_bones(pack, quaternion_to_matrix(rng.normal(size=(len(pack.rig.names), 4))))
    if chosen["order"]:
        pack = reorder_joints(pack, random_order(pack.rig.parents, rng))
    if chosen["names"]:
        pack = replace(pack, rig=replace(pack.rig, names=rename_joints(pack.rig.names, rng)))
    return pack


# Mirroring


def mirror_pack(pack: Pack) -> Pack:
    """Mirror a pack in the vertical plane through the origin between left and right. Names change sides."""
    # With M the reflection of the world (diagonal, -1 on one axis), a point p goes to M p, and the deformation D = P R^-1, which
    # maps points at rest to posed ones, to M D M. M R alone would be a left-handed frame; N = diag(-1, 1, 1), applied in the
    # bone's own axes, makes it right-handed again: R' = M R N and P' = M P N are rigid, and P' R'^-1 = M P N N R^-1 M = M D M.
    # So rotations go to M R N and translations to M t; since M and N are diagonal both are one product with signs m_i n_j.
    # N keeps the bone's y, along which Blender's bones point.
    rig, surface = pack.rig, pack.surface
    m, n = np.ones(4, np.float32), np.array([-1, 1, 1, 1], np.float32)
    m[side_axis(rig)] = -1
    sign = np.outer(m, n)
    names = tuple(swap_side(name) for name in rig.names)
    return replace(
        pack,
        rig=replace(rig, names=names, rest=rig.rest * sign, tails=rig.tails * m[:3]),
        surface=replace(surface, points=surface.points * m[:3], normals=surface.normals * m[:3]),
        clips=_change_poses(pack, lambda poses: poses * sign),
    )


def side_axis(rig: Rig) -> int:
    """The horizontal world axis between right and left, 0 or 1, found by the names of bones; 0, Blender's own, without sides in names."""
    distance = np.abs(rig.heads - rig.heads[_named_partners(rig)]).sum(0)
    return int(distance[1] > distance[0])


def partners(rig: Rig) -> NDArray[np.int64]:
    """(J,) the joint on the other side: by name, or by place at rest if no name has a side. A joint without a partner is its own."""
    named = _named_partners(rig)
    own = np.arange(len(named))
    if (named != own).any():
        return named
    flip = np.array([-1.0, 1, 1])
    ends = np.concatenate([rig.heads, rig.tails], axis=1) - np.tile(rig.heads[0], 2)
    distance = np.abs(ends[:, None] * np.tile(flip, 2) - ends[None]).max(-1)
    nearest = distance.argmin(1)
    alike = (nearest[nearest] == own) & (distance[own, nearest] < ALIKE * _extent(rig))
    return np.where(alike, nearest, own)


def _named_partners(rig: Rig) -> NDArray[np.int64]:
    joints = {name: joint for joint, name in enumerate(rig.names)}
    return np.array([joints.get(swap_side(name), joint) for joint, name in enumerate(rig.names)])


# Proportions


def stretch_bones(pack: Pack, factors: Array) -> Pack:
    """Scale every bone, with its skin and the offsets of its children, by factors (J,). Rotations are kept."""
    # With global rotations as they were, forward kinematics leaves the bones' directions as they were. A joint with carrier a
    # (its parent, see `carriers`) goes from head_a + v to head'_a + factor_a v, at rest and in every frame, which keeps bones
    # rigid and scales the travel of a translating joint. This is linear in the heads, with weights that depend on factors alone.
    # Skin of a bone at rest goes from head + v to head' + factor v; a point on several bones to the blend of these.
    rig, surface = pack.rig, pack.surface
    weights = np.eye(len(factors))
    above = carriers(pack)
    for joint in _root_first(above):
        if above[joint] >= 0:
            step = np.zeros(len(factors))
            step[joint], step[above[joint]] = factors[above[joint]], -factors[above[joint]]
            weights[joint] = weights[above[joint]] + step
    rest = rig.rest.copy()
    rest[:, :3, 3] = weights @ rig.heads
    moved = rest[:, :3, 3] - factors[:, None] * rig.heads
    share = surface.weights[..., None]
    points = (share * factors[surface.joints][..., None]).sum(1) * surface.points + (share * moved[surface.joints]).sum(1)

    def move_heads(poses: Array) -> Array:
        poses = poses.copy()
        poses[..., :3, 3] = weights @ poses[..., :3, 3].astype(np.float64)
        return poses

    return replace(
        pack,
        rig=replace(rig, rest=rest, tails=moved + factors[:, None] * rig.tails),
        surface=replace(surface, points=points),
        clips=_change_poses(pack, move_heads),
    )


def carriers(pack: Pack) -> NDArray[np.int64]:
    """(J,) the joint that carries each joint, -1 for the root: its parent, or, if it translates, the joint whose skin it touches.

    A foot that is a target of inverse kinematics is a child of the root, but must stay at the end of its leg. Skin is used instead of
    tails, which many file formats lack.
    """
    rig = pack.rig
    above, own = np.array(rig.parents, np.int64), np.arange(len(rig.names))
    is_above = ancestor_mask(rig.parents)
    moving = np.flatnonzero(rig.translates & (rig.parents >= 0))
    for joint, distance in zip(moving, _distance_to_skin(pack, rig.heads[moving])):
        distance[is_above[:, joint] | rig.translates & (own != rig.parents[joint])] = np.inf
        nearest = int(distance.argmin())
        if distance[nearest] < TOUCHING * _extent(rig) and joint not in _with_carriers(above, nearest):
            above[joint] = nearest
    return above


def _distance_to_skin(pack: Pack, places: Array) -> Array:
    """Places (N, 3) -> (N, J) the distance to the nearest point that each joint moves most; infinite for joints without points."""
    surface = pack.surface
    owner = surface.joints[np.arange(len(surface)), surface.weights.argmax(1)]
    order = np.argsort(owner, kind="stable")
    owners, starts = np.unique(owner[order], return_index=True)
    distance = np.full((len(places), len(pack.rig.names)), np.inf)
    if len(owners):
        every = np.linalg.norm(places[:, None].astype(np.float32) - surface.points[order], axis=-1)
        distance[:, owners] = np.minimum.reduceat(every, starts, axis=1)
    return distance


def _with_carriers(above: NDArray[np.integer], joint: int) -> list[int]:
    """The joint, its carrier, that one's carrier, and so on."""
    chain = [joint]
    while above[chain[-1]] >= 0:
        chain.append(int(above[chain[-1]]))
    return chain


def random_factors(rig: Rig, rng: np.random.Generator) -> Array:
    """(J,) log-normal factors, similar along chains and equal on both sides."""
    logs = np.zeros(len(rig.names))
    other = partners(rig)
    spread = rng.uniform(0.05, 0.25)
    for joint, parent in enumerate(rig.parents):
        logs[joint] = logs[other[joint]] if other[joint] < joint else 0.7 * logs[parent] * (parent >= 0) + rng.normal(0, spread)
    return np.exp(np.clip(logs, -0.6, 0.6))


# Leaves, order


def drop_joints(pack: Pack, dropped: NDArray[np.bool_]) -> Pack:
    """Remove the joints of `dropped` (J,), which must contain their descendants. Their skin goes to the nearest joint above."""
    rig = pack.rig
    kept = np.flatnonzero(~dropped)
    heir = np.arange(len(dropped))
    for joint in np.flatnonzero(dropped):
        heir[joint] = heir[rig.parents[joint]]
    return _select_joints(pack, kept, heir)


def random_leaves(rig: Rig, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(J,) leaves to drop, and at times the joints that become leaves by it.

    Joints that translate are kept: their parent is too far away to move their skin.
    """
    dropped = np.zeros(len(rig.names), np.bool_)
    share = rng.uniform(0.1, 0.5)
    for _ in range(rng.integers(1, 4)):
        left = np.flatnonzero(~dropped)
        bare = left[~np.isin(left, rig.parents[left])]
        bare = bare[(rng.random(len(bare)) < share) & ~rig.translates[bare] & (bare > 0)]
        dropped[bare[: max(0, len(left) - FEWEST)]] = True
    return dropped


def reorder_joints(pack: Pack, order: NDArray[np.integer]) -> Pack:
    """Put joint order[i] at index i. Parents must still come before children."""
    return _select_joints(pack, order, np.arange(len(order)))


def random_order(parents: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int64]:
    """(J,) a random order of the joints, with parents before children."""
    ready, order = [0], []
    while ready:
        joint = ready.pop(int(rng.integers(len(ready))))
        order.append(joint)
        ready += np.flatnonzero(parents == joint).tolist()
    return np.array(order)


def _select_joints(pack: Pack, chosen: NDArray[np.integer], heir: NDArray[np.integer]) -> Pack:
    """Keep the joints `chosen`, in that order. The skin of joint j goes to joint heir[j], heir (J,)."""
    rig = pack.rig
    place = np.full(len(heir) + 1, -1)  # one more, for the root's parent -1
    place[chosen] = np.arange(len(chosen))
    parts = {key: getattr(rig, key)[chosen] for key in ("rest", "tails", *MARKS)}
    return replace(
        pack,
        rig=replace(rig, names=tuple(rig.names[i] for i in chosen), parents=place[rig.parents[chosen]], **parts),
        surface=replace(pack.surface, joints=place[heir[pack.surface.joints]]),
        clips=_change_poses(pack, lambda poses: poses[:, chosen]),
    )


# Rest pose and bone axes


def change_rest(pack: Pack, pose: Array) -> Pack:
    """Make `pose` (J, 4, 4), without its scale, the rest pose. Clips stay as they are; rotations away from rest change."""
    # Points go into the new rest Q by linear blend skinning with Q R^-1. A point on one joint is then posed as before:
    # P Q^-1 (Q R^-1 p) = P R^-1 p. One on several joints is where it was in the pose Q itself, and elsewhere a little off, as
    # blends of matrices do not chain.
    rig = pack.rig
    pose = _without_scale(pose)
    carry = pose @ np.linalg.pinv(rig.rest)
    tails = (carry[:, :3, :3] @ rig.tails[..., None])[..., 0] + carry[:, :3, 3]
    return replace(pack, rig=replace(rig, rest=pose, tails=tails), surface=_skin_surface(pack.surface, carry))


def random_rest(pack: Pack, rng: np.random.Generator) -> Array:
    """(J, 4, 4) a frame of a clip, with the root where it is at rest, or the rest pose bent at random."""
    rig = pack.rig
    if not pack.clips or rng.random() < 0.5:
        return bend_rest(pack, random_bends(rig, rng))
    clip = list(pack.clips.values())[rng.integers(len(pack.clips))]
    pose = _without_scale(clip[rng.integers(len(clip))].astype(np.float64))
    return rig.rest[0] @ np.linalg.inv(pose[0]) @ pose


def bend_rest(pack: Pack, local: Array) -> Array:
    """Rotate the joints of the rest pose by local rotations (J, 3, 3), in world axes -> (J, 4, 4)."""
    # G_j = G_a L_j with the carrier a of joint j, which its head follows
    rig, above = pack.rig, carriers(pack)
    rotations, heads = np.array(local), np.array(rig.heads)
    for joint in _root_first(above):
        carrier = above[joint]
        if carrier >= 0:
            rotations[joint] = rotations[carrier] @ local[joint]
            heads[joint] = heads[carrier] + rotations[carrier] @ (rig.heads[joint] - rig.heads[carrier])
    pose = np.tile(np.eye(4), (len(heads), 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = rotations @ rig.rest[:, :3, :3], heads
    return pose


def random_bends(rig: Rig, rng: np.random.Generator) -> Array:
    """(J, 3, 3) local rotations by some degrees, none at the root, most often symmetric."""
    vectors = rng.normal(0, np.radians(rng.uniform(4, 18)), (len(rig.names), 3))
    if rng.random() < 0.75:
        other = partners(rig)
        # the mirror image of a rotation by the vector w is M R(w) M = R(det(M) M w) = R(-M w): w changes sign but for its side part
        mirror = -np.ones(3)
        mirror[side_axis(rig)] = 1
        own = np.arange(len(other))
        vectors = np.where((other < own)[:, None], vectors[other] * mirror, vectors)
        vectors = np.where((other == own)[:, None], (vectors + vectors * mirror) / 2, vectors)
    vectors[0] = 0
    return rotvec_to_matrix(vectors)


def roll_bones(pack: Pack, axes: Array) -> Pack:
    """Give the bones other axes, by rotations (J, 3, 3) in their own axes. Nothing moves."""
    # R' = R A and P' = P A, so P' R'^-1 = P R^-1
    rest = pack.rig.rest.copy()
    rest[:, :3, :3] = rest[:, :3, :3] @ axes

    def roll(poses: Array) -> Array:
        poses = poses.copy()
        # all frames of a joint as one tall matrix: (J, 3 F, 3) @ (J, 3, 3)
        tall = poses[..., :3, :3].swapaxes(0, 1).reshape(len(axes), -1, 3) @ axes.astype(poses.dtype)
        poses[..., :3, :3] = tall.reshape(len(axes), -1, 3, 3).swapaxes(0, 1)
        return poses

    return replace(pack, rig=replace(pack.rig, rest=rest), clips=_change_poses(pack, roll))


# Shared


def _change_poses(pack: Pack, change: Callable[[Array], Array]) -> dict[str, NDArray[np.float32]]:
    """Apply `change`, (F, J, 4, 4) -> (F, J', 4, 4), to the frames of all clips at once."""
    if not pack.clips:
        return {}
    changed = change(np.concatenate(list(pack.clips.values()))).astype(np.float32, copy=False)
    ends = np.cumsum([len(clip) for clip in pack.clips.values()])[:-1]
    return dict(zip(pack.clips, np.split(changed, ends)))


def _skin_surface(surface: Surface, carry: Array) -> Surface:
    """Move the surface by linear blend skinning with the joints' matrices (J, 4, 4)."""
    blend = (surface.weights[..., None, None] * carry[surface.joints, :3]).sum(1)
    points = (blend[..., :3] @ surface.points[..., None])[..., 0] + blend[..., 3]
    normals = (blend[..., :3] @ surface.normals[..., None])[..., 0]
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return replace(surface, points=points, normals=np.where(length > 1e-6, normals / np.maximum(length, 1e-6), surface.normals))


def _without_scale(pose: Array) -> Array:
    """Joint matrices (J, 4, 4) with rotation and position alone."""
    rigid = np.tile(np.eye(4), (len(pose), 1, 1))
    rigid[:, :3, :3], rigid[:, :3, 3] = nearest_rotation(pose), pose[:, :3, 3]
    return rigid


def _root_first(above: NDArray[np.integer]) -> NDArray[np.int64]:
    """(J,) the joints by their depth in a tree, given the joint above each (J,)."""
    depth, reached = np.zeros(len(above), np.int64), np.array(above)
    while (reached >= 0).any():
        depth += reached >= 0
        reached = np.where(reached >= 0, above[reached], -1)
    return np.argsort(depth, kind="stable")


def _extent(rig: Rig) -> float:
    return float(max(np.ptp(rig.heads, axis=0).max(), np.ptp(rig.tails, axis=0).max()))

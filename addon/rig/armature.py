"""Reads an armature as a `Rig` and its pose as matrices, and solves global rotations back into the channels of pose bones."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.arrays import Array
from ...backend.errors import UserError
from ...backend.geometry.rotations import matrix_to_rotvec, nearest_orthogonal, nearest_rotation, rotvec_to_matrix
from ...backend.rig.natural_skeleton import Bones, NaturalSkeleton, natural_skeleton
from ...backend.rig.rig import Rig
from . import locks
from .control_rigs import control_rig
from .meshes import carried_by, is_deformed, meshes_of
from .moved_bodies import bones_that_move_bodies
from .scales import check_space, hidden_bones
from .skin import read_skin

# Newton's method for a bone under an uneven scale (`_solve_rotation`): the most steps it takes, and the angle in radians over which
# it measures derivatives.
MAX_STEPS = 30
NUDGE = 1e-4
# A matrix that went through Blender's floats counts as a pure rotation if it is no further from orthonormal than this.
ORTHONORMAL = 1e-6
TRIALS = 16  # rotations that are tried before a capture


class _Tree(NamedTuple):
    """The joints of a rig, parents first: joint -> parent, None for those without one.

    hung: joints that hang elsewhere in the armature. free: joints without a parent that are on no bone that moves the mesh.
    props: joints that are no part of the body. natural: the natural skeleton of the whole armature, None for a control rig.
    """

    parents: dict[str, str | None]
    hung: frozenset[str] = frozenset()
    free: frozenset[str] = frozenset()
    props: frozenset[str] = frozenset()
    natural: NaturalSkeleton | None = None


def rig_from_armature(obj: bpy.types.Object, bones: Collection[str] | None = None, keep: Collection[str] = ()) -> Rig:
    """The rig of `read_rig`, for callers that need not know what hangs where."""
    return read_rig(obj, bones, keep)[0]


def read_rig(
    obj: bpy.types.Object, bones: Collection[str] | None = None, keep: Collection[str] = ()
) -> tuple[Rig, NaturalSkeleton | None]:
    """Read the skeleton that a take drives, as plain values, and what hangs where in it. Nothing in the file changes.

    Joints are the bones that move a mesh, and their ancestors. Without a mesh they are all deforming bones. Their tree is the natural
    one (backend/rig/natural_skeleton.py): feet that hang on roots of their own hang on their shins, and a root at the ground that
    only carries rigging is no joint. keep: bones that stay where the armature has them. `bones` restricts the joints to these names;
    a joint's parent is then its nearest ancestor among them. Of several roots the one with most descendants is the root, and the
    others become its children. These translate, unless they are connected, or hang on a bone that moves the mesh and was left out.
    Joints of a control rig (control_rigs.py) are those that a control turns, in the tree of its maker; `bones` may also name controls.
    Rest matrices and tails are in armature space. `world` is the rotation of the object, with its reflection if a negative scale
    mirrors it. The second value is the natural skeleton of the whole armature, None for a control rig.
    Raises UserError: not an armature, in edit mode, no bones, a name in `bones` that does not exist, no joint left.
    """
    check_armature(obj)
    _check_names(obj, bones or ())
    moving = _moving_bones(obj)
    controlled = _controlled(obj, moving, bones)
    tree = _chosen_tree(obj, moving, bones, keep) if controlled is None else _Tree(controlled)
    order = _root_first(tree)
    index, joints = {name: joint for joint, name in enumerate(order)}, [obj.data.bones[name] for name in order]
    movable = np.array([not bone.use_connect for bone in joints])  # Blender ignores the location of a connected bone
    hung, free, props = (np.isin(order, list(names)) for names in (tree.hung, tree.free - {order[0]}, tree.props))
    rig = Rig(
        name=obj.name,
        names=tuple(order),
        parents=np.array([-1] + [index[tree.parents[name] or order[0]] for name in order[1:]]),
        rest=np.array([bone.matrix_local for bone in joints], np.float64),
        tails=np.array([bone.tail_local for bone in joints], np.float64),
        translates=free & movable,
        static=np.zeros(len(order), np.bool_),
        world=nearest_orthogonal(np.array(obj.matrix_world)),
        hung=hung & movable,
        props=props,
    )
    return rig, tree.natural


def _natural_skeleton(obj: bpy.types.Object, joints: dict[str, bpy.types.Bone], keep: Collection[str]) -> NaturalSkeleton:
    names = tuple(joints)
    index = {name: joint for joint, name in enumerate(names)}
    parents = [index.get(_nearest(bone, joints) or "", -1) for bone in joints.values()]
    heads, tails = (
        np.array([getattr(bone, key) for bone in joints.values()], np.float64) for key in ("head_local", "tail_local")
    )
    return natural_skeleton(Bones(names, np.array(parents), heads, tails), read_skin(obj, names), keep)


def _chosen_tree(obj: bpy.types.Object, moving: set[str], bones: Collection[str] | None, keep: Collection[str]) -> _Tree:
    """The natural skeleton, or what is left of it if only `bones` are chosen.

    A foot whose shin was left out hangs on the thigh, with which the shin moves. Without the whole leg it stays where it is.
    """
    natural = _natural_skeleton(obj, _joints(obj, moving), {*keep, *_moving_unskinned(obj)})
    above = {name: natural.names[parent] if parent >= 0 else None for name, parent in zip(natural.names, natural.parents)}
    above |= dict.fromkeys(natural.props)
    parts = {part.name for part in natural.hung}
    chosen = [name for name in natural.names if bones is None or name in bones]
    if not chosen:
        raise UserError(f"None of the chosen bones of armature '{obj.name}' moves a mesh: choose some that do.")
    parents: dict[str, str | None] = {}
    hung, free = set(), set()
    for name in chosen:
        line = [name]  # the joint, and what was left out between it and its parent
        while (parent := above[line[-1]]) is not None and parent not in chosen:
            line.append(parent)
        parents[name] = parent
        if parent is not None and not parts.isdisjoint(line):
            hung.add(name)
        if parent is None and moving.isdisjoint(line[1:]):
            free.add(name)
    props = (name for name, loose in zip(natural.names, natural.loose) if loose)
    return _Tree(parents, frozenset(hung), frozenset(free), frozenset(props), natural)


def check_armature(obj: bpy.types.Object) -> None:
    """Bring the pose up to date. Raises UserError unless `obj` is an armature with bones whose rest and pose can be read."""
    if obj.type != "ARMATURE":
        raise UserError(f"Object '{obj.name}' is not an armature: pick an armature.")
    if obj.data.is_editmode:
        raise UserError(
            f"Armature '{obj.name}' is in edit mode, where its bones are not final: leave edit mode first.", fix="object_mode"
        )
    if not obj.data.bones:
        raise UserError(f"Armature '{obj.name}' has no bones: add bones or pick another armature.")
    bpy.context.view_layer.update()
    if obj.pose is None:
        raise UserError(f"Armature '{obj.name}' is not in the current view layer: add it to the scene first.")


def _check_names(obj: bpy.types.Object, names: Collection[str]) -> None:
    for name in names:
        if name not in obj.data.bones:
            raise UserError(
                f"Bone '{name}' is not in armature '{obj.name}': check the spelling, or capture again if it was renamed."
            )


def _joints(obj: bpy.types.Object, moving: set[str]) -> dict[str, bpy.types.Bone]:
    """The bones that move a mesh, and their ancestors, by name, in armature order (Blender lists parents before their children)."""
    names = moving | {parent.name for name in moving for parent in obj.data.bones[name].parent_recursive}
    if not names:
        raise UserError(f"Armature '{obj.name}' has no deforming bones: switch on Deform for the bones to animate.")
    names -= set(hidden_bones(obj))
    return {bone.name: bone for bone in obj.data.bones if bone.name in names}


def _controlled(obj: bpy.types.Object, moving: set[str], bones: Collection[str] | None) -> dict[str, str | None] | None:
    """Joint -> parent, of the wanted joints of a control rig that move a mesh; None for another rig, or if there are none."""
    rig = control_rig(obj)
    if rig is None:
        return None
    joints = {joint for joint in rig.controls if moving.intersection(rig.deforming[joint])}
    if bones is not None:
        joints = {joint for joint in joints if {joint, rig.controls[joint], *rig.deforming[joint]}.intersection(bones)}
    if not joints:
        if bones is not None and any(moving.intersection(names) for names in rig.deforming.values()):
            raise UserError(
                f"None of the chosen bones of armature '{obj.name}' is a control that a take can turn: choose FK controls."
            )
        return None
    found: dict[str, str | None] = {}
    for joint in (name for name in rig.parents if name in joints):
        above = rig.parents[joint]
        while above is not None and above not in joints:
            above = rig.parents[above]
        found[joint] = above
    return found


def _nearest(bone: bpy.types.Bone, joints: Collection[str]) -> str | None:
    return next((parent.name for parent in bone.parent_recursive if parent.name in joints), None)


def _root_first(tree: _Tree) -> list[str]:
    """Joint names in armature order, but first the root with the most descendants (the first of equals), rather than a prop."""
    below = dict.fromkeys(tree.parents, 0)
    for name in reversed(tree.parents):
        if (parent := tree.parents[name]) is not None:
            below[parent] += below[name] + 1
    roots = [name for name, parent in tree.parents.items() if parent is None]
    root = max(roots, key=lambda name: (name not in tree.props, below[name]))
    return [root, *(name for name in tree.parents if name != root)]


def _moving_bones(obj: bpy.types.Object) -> set[str]:
    """Names of the bones that move a mesh or another body; of all deforming bones if there are none. Hidden bones are left out.

    A bone that carries a whole object moves it even if its Deform setting is off. Raises UserError if all of them are hidden.
    """
    deforming = {bone.name for bone in obj.data.bones if bone.use_deform}
    moving: set[str] = set()
    for mesh in meshes_of(obj):
        if is_deformed(mesh, obj):
            moving |= _weighted(mesh, deforming - moving)
        elif (name := carried_by(mesh, obj)[1]) in obj.data.bones:
            moving.add(name)
    moving = moving | bones_that_move_bodies(obj, deforming) or deforming
    hidden = hidden_bones(obj)
    if moving and moving.issubset(hidden):
        raise UserError(
            f"Bone '{hidden[0]}' of armature '{obj.name}' is scaled to nothing, or flat, and so is all that follows it: set its scale to 1."
        )
    return moving.difference(hidden)


def _moving_unskinned(obj: bpy.types.Object) -> set[str]:
    """Names of the bones that move bodies of which the skin knows nothing, as metaballs: the natural skeleton keeps them in place."""
    deforming = {bone.name for bone in obj.data.bones if bone.use_deform}
    return bones_that_move_bodies(obj, deforming) - {carried_by(mesh, obj)[1] for mesh in meshes_of(obj)}


def _weighted(mesh: bpy.types.Object, names: set[str]) -> set[str]:
    """Those names that are vertex groups with a weight above zero on some vertex, or on its mirror image if a modifier makes one."""
    mirrors = any(each.type == "MIRROR" and each.show_viewport and each.use_mirror_vertex_groups for each in mesh.modifiers)
    wanted = names | {bpy.utils.flip_name(name) for name in names} if mirrors else names
    pending = {group.index: group.name for group in mesh.vertex_groups if group.name in wanted}
    found: set[str] = set()
    for vertex in mesh.data.vertices:
        if not pending:
            break
        for element in vertex.groups:
            if element.weight > 0 and element.group in pending:
                found.add(pending.pop(element.group))
    images = {bpy.utils.flip_name(name) for name in found if mirrors}
    return names & (found | images.intersection(mesh.vertex_groups.keys()))


def pose_of(obj: bpy.types.Object, rig: Rig) -> Array:
    """(J, 4, 4) evaluated pose matrices of the joints at the current frame, armature space.

    Raises UserError if a bone of the rig is not in the armature.
    """
    check_armature(obj)
    _check_names(obj, rig.names)
    bones = obj.pose.bones
    flat = np.empty(16 * len(bones), np.float32)
    bones.foreach_get("matrix", flat)
    # foreach_get gives each matrix by columns
    matrices = flat.reshape(-1, 4, 4).swapaxes(1, 2).astype(np.float64)
    index = {bone.name: row for row, bone in enumerate(bones)}
    return matrices[[index[name] for name in rig.names]]


def basis_channels(
    obj: bpy.types.Object, rig: Rig, global_rotations: Array, positions: Array, travel: Array | None = None
) -> tuple[Array, Array]:
    """Solve the channels with which the bones take the wanted global rotations.

    global_rotations: (T, J, 3, 3), away from rest, armature axes. positions: (T, J, 3) relative to the root joint's head, armature
    axes and units; only those of joints that translate are used. A hung joint gets the location that keeps it at its parent in the rig.
    travel: (T, 3) how far the root joint's head goes from where it is without a location of its own, armature space; None leaves it in place.
    Channels that are not keyed keep their present values: scale, location of all other joints, locked channels, and all channels of
    static joints and of bones outside the rig.
    The bones below a locked bone compensate for its error.
    Returns the rotation (T, J, 3, 3) and location (T, J, 3) of each pose bone's own channels (its `matrix_basis`).
    The bones of the rig must exist in the armature (`pose_of` checks). Raises UserError for a bone under a scale so uneven (beyond
    about 5 to 1) that it cannot take a rotation.
    """
    joints = {name: joint for joint, name in enumerate(rig.names)}
    rotations = np.tile(np.eye(3), (*global_rotations.shape[:2], 1, 1))
    locations = np.zeros(global_rotations.shape[:2] + (3,))
    posed: dict[str, Array] = {}
    # The root and its ancestors come first: the heads of the other roots are measured from the root's.
    for bone in _bones_to_solve(obj, rig):
        parent = posed[bone.parent.name] if bone.parent else None
        space = _space(bone, parent)
        basis = np.array(obj.pose.bones[bone.name].matrix_basis, np.float64)[None]
        joint = joints.get(bone.name)
        if joint is not None and not rig.static[joint]:
            # P = G R is the wanted pose rotation (docs/architecture.md, Bone algebra). R is the armature's present rest rotation: a bone
            # that was only rolled since the capture still turns the mesh by G.
            check_space(obj.pose.bones[bone.name], space)
            target = global_rotations[:, joint] @ nearest_rotation(np.array(bone.matrix_local))
            solved = _solve_rotation(bone.name, space, target) * _half_turn(obj.pose.bones[bone.name])
            rotations[:, joint] = locks.apply_locks(obj.pose.bones[bone.name], solved)
            basis = np.repeat(basis, len(global_rotations), axis=0)
            basis[:, :3, :3] = rotations[:, joint] * np.array(obj.pose.bones[bone.name].scale)
            head = _wanted_head(obj, rig, joint, posed, positions)
            if joint == 0 and travel is not None:
                # its present location may be a key of an earlier take
                basis[:, list(locks.free_location(obj.pose.bones[bone.name])), 3] = 0
                head = _pose(bone, parent, space, basis)[:, :3, 3] + travel
            if head is not None and not bone.use_connect:
                free = list(locks.free_location(obj.pose.bones[bone.name]))
                basis[:, free, 3] = _solve_location(bone, parent, space, head)[:, free]
            locations[:, joint] = basis[:, :3, 3]
        posed[bone.name] = _pose(bone, parent, space, basis)
    return rotations, locations


def _half_turn(bone: bpy.types.PoseBone) -> Array:
    """(3,) factors of the columns of a rotation X, so that X times the bone's own scale s is X |s|: two negative scales turn by 180 degrees."""
    signs = np.where(np.array(bone.scale) < 0, -1.0, 1.0)
    return signs if signs.prod() > 0 else np.ones(3)


def check_solvable(obj: bpy.types.Object, rig: Rig) -> None:
    """Raises UserError, as `basis_channels` would after the capture, if the present scales let a bone take no rotation."""
    random = np.random.default_rng(0)
    turns = nearest_rotation(random.normal(size=(TRIALS, 3, 3)))
    rotations = np.repeat(turns[:, None], len(rig.names), axis=1)
    basis_channels(obj, rig, rotations, np.zeros((TRIALS, len(rig.names), 3)))


def _wanted_head(obj: bpy.types.Object, rig: Rig, joint: int, posed: dict[str, Array], positions: Array) -> Array | None:
    """(T, 3) the head of a joint that its bone's parent does not put in place, armature space; None for another joint."""
    if rig.translates[joint]:
        return posed[rig.names[0]][:, :3, 3] + positions[:, joint]
    if not rig.hung[joint]:
        return None
    # A foot stays where it is at rest in the space of its shin, whose pose is P and whose rest matrix is B: at P B^-1 head.
    # A shin that follows it by inverse kinematics has its tail there instead, so its tail must not have to move.
    foot, shin = (obj.data.bones[rig.names[index]] for index in (joint, rig.parents[joint]))
    head = np.array(shin.tail_local if _follows(obj, shin.name, foot.name) else foot.head_local, np.float64)
    moved = posed[shin.name] @ np.linalg.inv(np.array(shin.matrix_local, np.float64))
    return np.broadcast_to(moved[:, :3, :3] @ head + moved[:, :3, 3], (len(positions), 3))


def _follows(obj: bpy.types.Object, shin: str, foot: str) -> bool:
    """True if a live IK constraint of the shin has the foot as its target."""
    return any(
        each.type == "IK"
        and not each.mute
        and each.influence > 0
        and each.use_tail
        and (each.target, each.subtarget) == (obj, foot)
        for each in obj.pose.bones[shin].constraints
    )


def _bones_to_solve(obj: bpy.types.Object, rig: Rig) -> list[bpy.types.Bone]:
    """The joints and all their ancestors; the root and its ancestors first, every bone after its parent and after what it hangs on."""
    root = obj.data.bones[rig.names[0]]
    first = [*reversed(root.parent_recursive), root]
    needed = {bone.name for name in rig.names for bone in (obj.data.bones[name], *obj.data.bones[name].parent_recursive)}
    hung_on = {rig.names[joint]: rig.names[rig.parents[joint]] for joint in np.flatnonzero(rig.hung)}
    order = list(first)
    waiting = [bone for bone in obj.data.bones if bone.name in needed - {bone.name for bone in first}]
    while waiting:
        done = {bone.name for bone in order}
        held = {bone.name for bone in waiting if hung_on.get(bone.name, root.name) not in done}
        ready = [bone for bone in waiting if bone.name not in held and (bone.parent is None or bone.parent.name in done)]
        if not ready:
            name = next(iter(held))
            raise UserError(
                f"Bone '{name}' of armature '{obj.name}' now carries '{hung_on[name]}', on which it hung: capture the take again."
            )
        order += ready
        waiting = [bone for bone in waiting if bone not in ready]
    return order


def _is_plain(bone: bpy.types.Bone, parent: Array | None) -> bool:
    """True if P = P_parent B_parent^-1 B basis holds: the bone inherits everything, or there is no scale to inherit."""
    if not bone.use_local_location:
        return False
    return parent is None or (bone.use_inherit_rotation and (bone.inherit_scale == "FULL" or _is_rotation(parent)))


def _is_rotation(matrices: Array) -> bool:
    linear = matrices[..., :3, :3]
    return bool(np.abs(np.swapaxes(linear, -1, -2) @ linear - np.eye(3)).max() < ORTHONORMAL)


def _space(bone: bpy.types.Bone, parent: Array | None) -> Array:
    """(T or 1, 4, 4) armature-space matrices that the bone would have with its own channels at rest.

    B is a rest matrix in armature space. The rest offset from the parent, B_parent^-1 B, follows the posed parent:
    P_parent B_parent^-1 B. With other inheritance flags Blender's own conversion is used.
    """
    rest = np.array(bone.matrix_local, np.float64)
    if _is_plain(bone, parent):
        return rest[None] if parent is None else parent @ np.linalg.inv(np.array(bone.parent.matrix_local)) @ rest
    space = _convert(bone, parent, np.eye(4)[None])
    if bone.inherit_scale == "ALIGNED":
        # the parent's scale is applied to the bone's own axes AFTER its rotation, so it does not belong to the space
        space[:, :3, :3] /= np.linalg.norm(space[:, :3, :3], axis=1, keepdims=True)
    return space


def _pose(bone: bpy.types.Bone, parent: Array | None, space: Array, basis: Array) -> Array:
    """(T or 1, 4, 4) armature-space pose of a bone with these channels."""
    return space @ basis if _is_plain(bone, parent) else _convert(bone, parent, basis)


def _solve_rotation(name: str, space: Array, target: Array) -> Array:
    """(T, 3, 3) basis rotations X with nearest_rotation(space X) = target.

    With an unscaled or evenly scaled space S, X = S^-1 target. Under an uneven scale S X is sheared, and its rotation is not that of
    S times X. Newton's method solves that: a small rotation w of X changes the shown rotation by J w, so the missing rotation
    m = log(shown^-1 target) needs w = J^-1 m. The bone's own scale only stretches columns of S X, which nearest_rotation ignores.
    Raises UserError, naming the bone, if it does not converge.
    """
    linear = space[..., :3, :3] / np.linalg.norm(space[..., :3, :1], axis=-2, keepdims=True)
    if _is_rotation(linear):
        return np.swapaxes(linear, -1, -2) @ target
    solved = np.swapaxes(nearest_rotation(linear), -1, -2) @ target
    for _ in range(MAX_STEPS):
        shown = np.swapaxes(nearest_rotation(linear @ solved), -1, -2)
        missing = matrix_to_rotvec(shown @ target)
        if np.abs(missing).max() < ORTHONORMAL:
            break
        nudged = nearest_rotation((linear @ solved)[:, None] @ rotvec_to_matrix(NUDGE * np.eye(3)))
        response = np.swapaxes(matrix_to_rotvec(shown[:, None] @ nudged), -1, -2) / NUDGE
        step = (np.linalg.pinv(response) @ missing[..., None])[..., 0]
        solved = solved @ rotvec_to_matrix(step / np.maximum(np.linalg.norm(step, axis=-1, keepdims=True), 1))
    else:
        raise UserError(
            f"Bone '{name}' cannot take its rotations under the uneven scale of the bones above it: make that scale even, or set "
            "the bone's Inherit Scale to None."
        )
    return solved


def _solve_location(bone: bpy.types.Bone, parent: Array | None, space: Array, head: Array) -> Array:
    """(T, 3) location channels that put the bone's head at `head` (T, 3), armature space."""
    if _is_plain(bone, parent):
        # the head is space applied to the location: h = S_linear l + s, so l = S_linear^-1 (h - s)
        return np.linalg.solve(space[:, :3, :3], (head - space[:, :3, 3])[..., None])[..., 0]
    wanted = np.tile(np.eye(4), (len(head), 1, 1))
    wanted[:, :3, 3] = head
    return _convert(bone, parent, wanted, invert=True)[:, :3, 3]


def _convert(bone: bpy.types.Bone, parent: Array | None, matrices: Array, invert: bool = False) -> Array:
    """Blender's own conversion of channels (T or 1, 4, 4) to armature-space pose, or back with `invert`; it respects every flag."""
    rest = bone.matrix_local
    if parent is None:
        return np.array([bone.convert_local_to_pose(Matrix(m), rest, invert=invert) for m in matrices], np.float64)
    above = bone.parent.matrix_local
    frames = max(len(matrices), len(parent))
    pairs = zip(np.broadcast_to(matrices, (frames, 4, 4)), np.broadcast_to(parent, (frames, 4, 4)), strict=True)
    return np.array(
        [
            bone.convert_local_to_pose(Matrix(m), rest, parent_matrix=Matrix(p), parent_matrix_local=above, invert=invert)
            for m, p in pairs
        ],
        np.float64,
    )

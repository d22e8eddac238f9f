"""Writes takes as BVH files, and reads skeletons and clips from BVH files. Uses numpy only.

A BVH has y-up axes, rest frames along the axes, and local rotations away from them. This is the network's convention
(docs/network.md, Conventions), so a take is written in the network's axes. As in Blender, a position channel replaces the joint's
offset: it is relative to the parent, in the parent's rotated frame.

In a BVH a name ends at the first blank. Blanks, braces and % are written as % and two hexadecimal digits (`Left%20Arm`), and
reading restores them. Joints are in depth-first order, which may not be the rig's order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..errors import UserError
from ..geometry.camera import Y_UP
from ..geometry.rotations import axis_angle_to_matrix, slerp
from ..rig.rig import Rig
from ..rig.skeleton import Skeleton, global_to_local, network_axes, skeleton_of
from ..whole_file import write_whole
from .motion import Motion, fk_heads

AXES = "xyz"
POSITIONS = "Xposition Yposition Zposition"
ROTATIONS = "Zrotation Xrotation Yrotation"
ANGLE_FORMAT = "%.6f"  # degrees
SINGLE_FRAME_TIME = 1 / 30  # for a take of one frame, which has no rate
UNSAFE = re.compile(r"[\s%{}\x00]")
CHANNELS = {f"{axis}{kind}" for axis in AXES for kind in ("position", "rotation")}
END = -1  # marks an End Site among the open braces


# ---- writing


def write_bvh(path: str | Path, rig: Rig, motion: Motion, root: Array | None = None) -> None:
    """Write a take as a BVH: the rig's rest pose and one frame per frame of the take.

    root: (T, 3) the root's head in armature space; None leaves it at its rest position, from which the take's travel leads. In the file y is up, by `rig.world`, and
    lengths are the armature's. Leaf joints end at their tails. The root and joints that translate have position channels. If the
    times deviate more than a tenth of a frame from a steady rate, the take is resampled at its median rate.
    Raises UserError if the take was made for another rig or the file cannot be written.
    """
    if motion.names != rig.names:
        raise UserError(f"The take was captured for other bones than those of rig '{rig.name}': pick the rig it was made for.")
    way = motion.travel if len(motion.travel) else np.zeros((len(motion), 3))
    root = rig.heads[0] + way if root is None else np.asarray(root)
    if root.shape != (len(motion), 3):
        raise UserError(f"The root's path has shape {root.shape}, the take needs {(len(motion), 3)}: capture it again.")
    motion, root = _at_steady_rate(motion, root)
    frame_time = (motion.times[-1] - motion.times[0]) / (len(motion) - 1) if len(motion) > 1 else SINGLE_FRAME_TIME
    skeleton = skeleton_of(rig)
    order, lines = _hierarchy_lines(skeleton, network_axes(rig) @ rig.heads[0], _length_format(skeleton))
    lines += ["MOTION", f"Frames: {len(motion)}", f"Frame Time: {frame_time:.9f}"]
    lines += _motion_lines(rig, motion, root, order, _length_format(skeleton))
    write_whole(path, "\n".join(lines) + "\n", "BVH file")


def _encode_name(name: str) -> str:
    return UNSAFE.sub(lambda match: quote(match[0], safe=""), name)


def _length_format(skeleton: Skeleton) -> str:
    """A format with enough decimals for 1e-8 of the skeleton's size."""
    size = max(float(np.abs(skeleton.rest).max()), 1e-9)
    return f"%.{max(2, 8 - int(np.floor(np.log10(size))))}f"


def _hierarchy_lines(skeleton: Skeleton, root: Array, number: str) -> tuple[list[int], list[str]]:
    """-> (joints in the file's order, lines of the HIERARCHY part). root: (3,) the root's head at rest."""
    children: list[list[int]] = [[] for _ in skeleton.names]
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        children[parent].append(joint)
    order, lines = [], ["HIERARCHY"]
    todo = [(0, 0)]  # joint and depth; joint -1 closes a brace
    while todo:
        joint, depth = todo.pop()
        indent = "\t" * depth
        if joint < 0:
            lines.append(indent + "}")
            continue
        offset = root if joint == 0 else skeleton.offsets[joint]
        head = "End Site" if skeleton.tip[joint] else f"{'JOINT' if joint else 'ROOT'} {_encode_name(skeleton.names[joint])}"
        lines += [indent + head, indent + "{", f"{indent}\tOFFSET {' '.join(number % value for value in offset)}"]
        if not skeleton.tip[joint]:
            order.append(joint)
            moves = joint == 0 or skeleton.translates[joint]
            lines.append(f"{indent}\tCHANNELS " + (f"6 {POSITIONS} {ROTATIONS}" if moves else f"3 {ROTATIONS}"))
        todo.append((-1, depth))
        todo += [(child, depth + 1) for child in reversed(children[joint])]
    return order, lines


def _motion_lines(rig: Rig, motion: Motion, root: Array, order: Sequence[int], number: str) -> list[str]:
    """-> the lines of the MOTION part, with the joints in `order`."""
    axes = network_axes(rig)
    rotations = axes @ motion.matrices @ axes.T
    angles = np.rad2deg(_zxy_angles(global_to_local(rig.parents, rotations)))
    heads = fk_heads(rig, motion)
    columns, formats = [], []
    for joint in order:
        parent = rig.parents[joint]
        if joint == 0:
            columns.append(root @ axes.T)
        elif rig.translates[joint]:
            # p_j = p_parent + G_parent v, hence v = G_parent^T (p_j - p_parent); for rows, x @ G is G^T x
            columns.append(((heads[:, joint] - heads[:, parent])[:, None] @ rotations[:, parent])[:, 0])
        formats += [number] * 3 if joint == 0 or rig.translates[joint] else []
        columns.append(angles[:, joint])
        formats += [ANGLE_FORMAT] * 3
    form = " ".join(formats)
    return [form % tuple(row) for row in np.concatenate(columns, axis=1)]


def _zxy_angles(matrices: Array) -> Array:
    """(T, J, 3, 3) -> (T, J, 3) radians z, x, y with R = Rz Rx Ry, each frame as near as possible to the frame before."""
    angles = np.zeros((*matrices.shape[:2], 3))
    before = np.zeros(angles.shape[1:])
    for frame, matrix in enumerate(matrices):
        # R = Rz(a) Rx(b) Ry(c) has R01 = -sin a cos b and R11 = cos a cos b. Where cos b is zero any a will do.
        free = np.hypot(matrix[:, 0, 1], matrix[:, 1, 1]) < 1e-7
        a = np.where(free, before[:, 0], np.arctan2(-matrix[:, 0, 1], matrix[:, 1, 1]))
        # Rx(b) Ry(c) = Rz(-a) R, read off where it is well conditioned at every angle: its rows are
        # (cos c, 0, sin c), (sin b sin c, cos b, -sin b cos c), (-cos b sin c, sin b, cos b cos c)
        rest = axis_angle_to_matrix(np.array([0.0, 0.0, 1.0]), -a) @ matrix
        b, c = np.arctan2(rest[:, 2, 1], rest[:, 1, 1]), np.arctan2(rest[:, 0, 2], rest[:, 0, 0])
        # (a + pi, pi - b, c + pi) is the same rotation, and so is any multiple of 2 pi further
        both = np.stack([np.stack([a, b, c], axis=-1), np.stack([a + np.pi, np.pi - b, c + np.pi], axis=-1)])
        both -= 2 * np.pi * np.round((both - before) / (2 * np.pi))
        first = np.abs(both[0] - before).sum(-1) <= np.abs(both[1] - before).sum(-1)
        angles[frame] = before = np.where(first[:, None], both[0], both[1])
    return angles


def _at_steady_rate(motion: Motion, root: Array) -> tuple[Motion, Array]:
    """Resample the take and the root's path (T, 3) at a steady rate, if their rate is not steady."""
    if len(motion) < 3:
        return motion, root
    times = motion.times
    if (np.abs(times - np.linspace(times[0], times[-1], len(times))) <= 0.1 * np.diff(times).mean()).all():
        return motion, root
    count = int(round((times[-1] - times[0]) / float(np.median(np.diff(times))))) + 1
    steady = np.linspace(times[0], times[-1], max(count, 2))
    index = np.clip(np.searchsorted(times, steady, side="right") - 1, 0, len(times) - 2)
    part = (steady - times[index]) / (times[index + 1] - times[index])

    def between(values: Array) -> Array:
        weight = part.reshape(-1, *[1] * (values.ndim - 1))
        return values[index] * (1 - weight) + values[index + 1] * weight

    linear = {key: between(getattr(motion, key)) for key in ("positions", "boxes", "confidence")}
    rotations = slerp(motion.rotations[index], motion.rotations[index + 1], part[:, None, None])
    return Motion(motion.names, steady, rotations, provenance=motion.provenance, **linear), between(root)


# ---- reading


def read_bvh(path: str | Path) -> tuple[Rig, Array, float]:
    """Read a BVH -> (rig, clip (F, J, 4, 4) of joint matrices in armature space, seconds per frame).

    Armature space is the file's space (y up), and `rig.world` rotates it to z up. Rest rotations are the identity. A joint's tail
    is its End Site, else the mean head of its children, else its head. Channels may have any order. Of several roots, the one
    with the most joints becomes the root and the others its children. These children translate, and so do joints whose positions
    deviate from the offset by more than 1e-4 of the skeleton's size. A repeated name gets .001, as in Blender. Raises UserError
    with the line number if the file is not a complete BVH.
    """
    joints, values, frame_time = _BvhParser(Path(path)).parse()
    joints = _main_root_first(joints)
    parents = np.array([joint.parent for joint in joints])
    offsets = np.array([joint.offset for joint in joints])
    local, places = _apply_channels(joints, values)
    rest, pose = (np.tile(np.eye(4), (count, len(joints), 1, 1)) for count in (1, len(values)))
    rest[..., :3, 3] = _place_joints(parents, rest[..., :3, :3], offsets[None])[1]
    pose[..., :3, :3], pose[..., :3, 3] = _place_joints(parents, local, places)
    heads = rest[0, :, :3, 3]
    strays = np.abs(places - offsets).max(axis=(0, 2), initial=0) > 1e-4 * np.ptp(heads, axis=0).max()
    later = np.arange(len(joints)) > 0
    rig = Rig(
        name=Path(path).stem,
        names=_unique_names([_decode_name(joint.name) for joint in joints]),
        parents=np.where(later, np.maximum(parents, 0), -1),
        rest=rest[0],
        tails=_joint_tails(joints, parents, heads),
        translates=later & (strays | (parents < 0)),
        static=np.zeros(len(joints), np.bool_),
        world=Y_UP.T,
    )
    return rig, pose, frame_time


def _decode_name(text: str) -> str:
    """Undo `_encode_name`. Text that it cannot have written stays as it is."""
    name = unquote(text)
    return name if _encode_name(name) == text else text


def _main_root_first(joints: list[_BvhJoint]) -> list[_BvhJoint]:
    """Move the tree with the most joints to the front. Each tree keeps the file's order."""
    root_of: list[int] = []
    for i, joint in enumerate(joints):
        root_of.append(i if joint.parent < 0 else root_of[joint.parent])
    main = max(dict.fromkeys(root_of), key=root_of.count)
    order = sorted(range(len(joints)), key=lambda i: root_of[i] != main)
    place = {old: new for new, old in enumerate(order)}
    return [replace(joints[i], parent=place.get(joints[i].parent, -1)) for i in order]


def _apply_channels(joints: list[_BvhJoint], values: Array) -> tuple[Array, Array]:
    """Columns (F, C) -> local rotations (F, J, 3, 3), and positions (F, J, 3) that replace the offsets."""
    local = np.tile(np.eye(3), (len(values), len(joints), 1, 1))
    places = np.tile(np.array([joint.offset for joint in joints]), (len(values), 1, 1))
    for i, joint in enumerate(joints):
        for column, channel in zip(values.T[joint.column :], joint.channels):
            axis = AXES.index(channel[0])
            if channel.endswith("position"):
                places[:, i, axis] = column
            else:
                local[:, i] = local[:, i] @ axis_angle_to_matrix(np.eye(3)[axis], np.deg2rad(column))
    return local, places


def _place_joints(parents: NDArray[np.integer], local: Array, places: Array) -> tuple[Array, Array]:
    """Local rotations and positions in the parent's frame -> global rotations (F, J, 3, 3) and heads (F, J, 3).

    Every joint with the parent -1 is a root.
    """
    rotations, heads = np.array(local), np.array(places)
    for joint, parent in enumerate(parents):
        if parent >= 0:
            rotations[:, joint] = rotations[:, parent] @ local[:, joint]
            heads[:, joint] = heads[:, parent] + (rotations[:, parent] @ places[:, joint, :, None])[..., 0]
    return rotations, heads


def _joint_tails(joints: list[_BvhJoint], parents: NDArray[np.integer], heads: Array) -> Array:
    tails = np.array(heads)
    for i, joint in enumerate(joints):
        children = heads[parents == i]
        if joint.end is not None:
            tails[i] = heads[i] + joint.end
        elif len(children):
            tails[i] = children.mean(axis=0)
    return tails


def _unique_names(names: list[str]) -> tuple[str, ...]:
    taken: dict[str, None] = {}
    for name in names:
        number = 0
        fresh = name
        while fresh in taken:
            number += 1
            fresh = f"{name}.{number:03d}"
        taken[fresh] = None
    return tuple(taken)


# ---- the grammar


@dataclass
class _BvhJoint:
    """A joint of the file.

    parent: index of the parent in the file's order, -1 for a root. offset: (3,). channels: in lower case and in the file's order;
    the first one is column `column` of the motion. end: (3,) offset of the End Site, or None.
    """

    name: str
    parent: int
    line: int
    offset: Array | None = None
    channels: tuple[str, ...] = ()
    column: int = 0
    end: Array | None = None


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"BVH file '{path}' cannot be read ({error.strerror}): check the path.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:  # files of old Windows tools: any bytes are valid Latin-1
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class _BvhParser:
    def __init__(self, path: Path) -> None:
        self.path = path
        lines = enumerate(_read_text(path).split("\n"), start=1)
        self.lines = [(number, text.strip()) for number, text in lines if text.strip()]
        self.joints: list[_BvhJoint] = []
        self.open: list[int] = []  # joints whose brace is open
        self.header: int | None = None  # the joint or END whose opening brace comes next
        self.columns = 0

    def fail(self, line: int, message: str) -> NoReturn:
        raise UserError(f"BVH file '{self.path}', line {line}: {message}.")

    def parse(self) -> tuple[list[_BvhJoint], Array, float]:
        """-> (joints in the file's order, values (F, C), seconds per frame). Raises UserError with the line number."""
        if not self.lines or self.lines[0][1].upper() != "HIERARCHY":
            line = self.lines[0][0] if self.lines else 1
            self.fail(line, "the file does not begin with HIERARCHY; check that it is a BVH file")
        motion = next((i for i, (_, text) in enumerate(self.lines) if text.upper() == "MOTION"), len(self.lines))
        for line, text in self.lines[1:motion]:
            for statement in re.findall(r"[{}]|[^{}]+", text):
                if statement.strip():
                    self.statement(line, statement.strip())
        last = self.lines[min(motion, len(self.lines) - 1)][0]
        if self.open or self.header is not None:
            self.fail(last, "the braces of the hierarchy do not match; a '}' is missing before this line")
        if not self.joints:
            self.fail(last, "the hierarchy has no ROOT")
        if motion == len(self.lines):
            self.fail(last, "the file ends without a MOTION part; it is cut short, export it again")
        return self.joints, *self.motion(motion)

    def statement(self, line: int, text: str) -> None:
        key, _, rest = text.partition(" ") if "\t" not in text else text.replace("\t", " ").partition(" ")
        key, rest = key.upper(), rest.strip()
        if (key == "{") != (self.header is not None):
            self.fail(line, f"'{{' expected before '{text}'" if key != "{" else "'{' without a joint before it")
        known = {"{": self.brace, "}": self.close, "ROOT": self.joint, "JOINT": self.joint, "END": self.end}
        known |= {"OFFSET": self.offset, "CHANNELS": self.channels}
        if key not in known:
            self.fail(line, f"'{key}' is not a BVH keyword; check the spelling")
        if key in ("}", "JOINT", "END", "OFFSET", "CHANNELS") and not self.open:
            self.fail(line, f"'{key}' is outside of a ROOT; check the braces above")
        if key in ("JOINT", "END", "CHANNELS") and self.open[-1] == END:
            self.fail(line, f"'{key}' is inside an End Site; check the braces above")
        known[key](line, key, rest)

    def brace(self, line: int, key: str, rest: str) -> None:
        self.open.append(END if self.header is None else self.header)
        self.header = None

    def close(self, line: int, key: str, rest: str) -> None:
        index = self.open.pop()
        if index != END and self.joints[index].offset is None:
            self.fail(line, f"joint '{self.joints[index].name}' has no OFFSET; add one")

    def joint(self, line: int, key: str, rest: str) -> None:
        if key == "ROOT" and self.open:
            self.fail(line, f"ROOT '{rest}' is inside another joint; it should be a JOINT")
        if not rest:
            self.fail(line, f"the {key} has no name; add one")
        self.header = len(self.joints)
        self.joints.append(_BvhJoint(rest, self.open[-1] if self.open else -1, line))

    def end(self, line: int, key: str, rest: str) -> None:
        self.header = END

    def offset(self, line: int, key: str, rest: str) -> None:
        values = self.numbers(line, rest)
        if len(values) != 3:
            self.fail(line, f"OFFSET has {len(values)} numbers; it needs 3")
        if self.open[-1] == END:
            self.joints[self.open[-2]].end = values
        else:
            self.joints[self.open[-1]].offset = values

    def channels(self, line: int, key: str, rest: str) -> None:
        count, *names = rest.lower().split() or [""]
        unknown = next((name for name in names if name not in CHANNELS), None)
        if unknown is not None:
            self.fail(line, f"channel '{unknown}' is unknown; it must be one of Xposition to Zposition, Xrotation to Zrotation")
        if not count.isdecimal() or int(count) != len(names):
            self.fail(line, f"CHANNELS announces '{count}' channels but names {len(names)}; correct the number")
        joint = self.joints[self.open[-1]]
        if joint.channels:
            self.fail(line, f"joint '{joint.name}' has CHANNELS twice; remove one")
        joint.channels, joint.column = tuple(names), self.columns
        self.columns += len(names)

    def motion(self, start: int) -> tuple[Array, float]:
        """Read the lines after MOTION -> (values (F, C), seconds per frame)."""
        frames = self.setting(start + 1, "Frames:")
        frame_time = self.setting(start + 2, "Frame Time:")
        if frames < 0 or frames != int(frames):
            self.fail(self.lines[start + 1][0], f"the number of frames is {frames:g}; it must be a whole number")
        if not frame_time > 0:
            self.fail(self.lines[start + 2][0], f"the frame time is {frame_time:g} seconds; it must be above zero")
        rows = self.lines[start + 3 :]
        if len(rows) != frames and self.columns:
            line = rows[int(frames)][0] if len(rows) > frames else self.lines[-1][0]
            self.fail(line, f"the file announces {frames:.0f} frames and has {len(rows)}; correct 'Frames:' or export it again")
        values = [self.row(line, text) for line, text in rows]
        return np.array(values).reshape(int(frames), self.columns), frame_time

    def setting(self, index: int, name: str) -> float:
        line, text = self.lines[index] if index < len(self.lines) else (self.lines[-1][0], "")
        pattern = r"\s*".join(re.escape(word) for word in re.findall(r"\w+|:", name))
        match = re.match(pattern + r"\s*(\S+)$", text, re.IGNORECASE)
        if match is None:
            self.fail(line, f"'{name}' and a number are expected here")
        return float(self.numbers(line, match[1])[0])

    def row(self, line: int, text: str) -> Array:
        values = self.numbers(line, text)
        if len(values) != self.columns:
            self.fail(line, f"this frame has {len(values)} values and the joints have {self.columns} channels; export it again")
        return values

    def numbers(self, line: int, text: str) -> Array:
        words = text.split()
        try:
            values = np.array(words, dtype=np.float64)
        except ValueError:
            self.fail(line, f"'{next(word for word in words if not _is_number(word))}' is not a number")
        if not np.isfinite(values).all():
            self.fail(line, f"'{words[int(np.argmin(np.isfinite(values)))]}' is not a finite number")
        return values


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True

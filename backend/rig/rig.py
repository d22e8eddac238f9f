"""A rig as plain values: `Rig`, its skeleton at rest; `Reference`, a pose and an image of it; `Target`, a rig with its references."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..geometry.rotations import Array, nearest_rotation
from .point_cloud import Surface

OPTIONAL = ("world", "labels", "hung", "props")  # fields that older files lack
MARKS = ("translates", "static", "hung", "props")  # one truth value a joint


@dataclass(frozen=True, eq=False)
class Rig:
    """A skeleton of J joints at rest, with one root, parents before children.

    Arrays are copied and read-only. Raises UserError, which names the bone, if shapes or values are wrong.

    names: J bone names.
    parents: (J,) int, -1 for the root, which is joint 0.
    rest: (J, 4, 4) rest matrices in armature space (Blender's `bone.matrix_local`).
    tails: (J, 3) in armature space.
    translates: (J,) bool, joints whose position is predicted as well: props, which are parented to the root here.
    static: (J,) bool, joints that keep the reference pose.
    world: (3, 3) rotation from armature axes to world axes (z up), with a reflection if the object's scale mirrors it, but without the
    size of the scale.
    labels: J joint names that the user entered because the bones' names mean nothing, or empty.
    hung: (J,) bool, joints whose bone hangs elsewhere in the armature, so that its keys need a location to stay at its parent here.
    props: (J,) bool, joints that are no part of the body: weapons and the like, with all that hangs on them.
    """

    name: str
    names: tuple[str, ...]
    parents: NDArray[np.integer]
    rest: Array
    tails: Array
    translates: NDArray[np.bool_]
    static: NDArray[np.bool_]
    world: Array = field(default_factory=lambda: np.eye(3))
    labels: tuple[str, ...] = ()
    hung: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    props: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        count = len(self.names)
        kinds = {"parents": np.int32, "rest": np.float64, "tails": np.float64, "world": np.float64}
        kinds |= dict.fromkeys(MARKS, np.bool_)
        shapes = {"parents": (count,), "rest": (count, 4, 4), "tails": (count, 3), "world": (3, 3)}
        shapes |= dict.fromkeys(MARKS, (count,))
        for key, kind in kinds.items():
            value = np.array(getattr(self, key), dtype=kind)
            if key in OPTIONAL and not value.size:
                value = np.zeros(count, np.bool_)
            if value.shape != shapes[key]:
                raise UserError(f"Rig '{self.name}': {key} has shape {value.shape}, expected {shapes[key]}.")
            value.flags.writeable = False
            object.__setattr__(self, key, value)
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "labels", tuple(self.labels))
        self._check()

    def _check(self) -> None:
        if not self.names:
            raise UserError(f"Rig '{self.name}' has no joints: pick an armature with at least one deforming bone.")
        if self.labels and len(self.labels) != len(self.names):
            raise UserError(
                f"Rig '{self.name}' has {len(self.names)} joints but {len(self.labels)} labels: give every joint one."
            )
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise UserError(f"Bone '{twice}' occurs twice in rig '{self.name}': rename one of them.")
        for joint, parent in enumerate(self.parents):
            if (parent == -1) != (joint == 0) or parent >= joint or parent < -1:
                raise UserError(f"Bone '{self.names[joint]}': its parent must come before it, and only the first bone has none.")
        finite = np.isfinite(self.rest).all((1, 2)) & np.isfinite(self.tails).all(1)
        if not np.isfinite(self.world).all():
            raise UserError(f"Rig '{self.name}': its object's rotation is not finite; reset the armature object's rotation.")
        if not finite.all():
            raise UserError(f"Bone '{self.names[int(np.argmin(finite))]}': its rest matrix is not finite; reset the bone.")

    @property
    def heads(self) -> Array:
        """(J, 3) joint positions at rest, armature space."""
        return self.rest[:, :3, 3]

    @property
    def rest_rotations(self) -> Array:
        """(J, 3, 3) rotations of the rest matrices (R_b of docs/architecture.md, Bone algebra)."""
        return nearest_rotation(self.rest)

    def rotations(self, pose: Array) -> Array:
        """Joint matrices (..., J, 4, 4) of poses, armature space -> global rotations (..., J, 3, 3) away from rest, armature axes."""
        # G = P R^-1
        return nearest_rotation(pose) @ np.swapaxes(self.rest_rotations, -1, -2)

    def to_json(self) -> str:
        """The rig as JSON, for `from_json`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps({k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()})

    @classmethod
    def from_json(cls, text: str) -> Rig:
        """Read the text of `to_json`. Raises UserError if a field is missing or the text is not JSON."""
        try:
            values: dict[str, Any] = json.loads(text)
            return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values or f.name not in OPTIONAL})
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"This is not a rig written by AnyRig ({error}): export the rig again.") from error

    @classmethod
    def load(cls, path: str | Path) -> Rig:
        """Read a rig from a JSON file. Raises UserError if the file cannot be read or is not a rig."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"Rig file '{path}' cannot be read ({error.strerror}): check the path.") from error
        except UnicodeDecodeError as error:
            raise UserError(f"Rig file '{path}' is not text ({error.reason}): choose a rig's JSON file.") from error


@dataclass(frozen=True, eq=False)
class Reference:
    """A pose of a rig, with an image of it from one side. Arrays are copied and read-only. Raises UserError for wrong shapes.

    pose: (J, 4, 4) joint matrices in armature space, in the order of the rig's joints.
    image: (height, width, 4) uint8 RGBA, straight alpha.
    azimuth: of the camera, radians (camera.view_yaw).
    projection: (3, 4) from armature space to the image's pixels (camera.project).
    """

    pose: Array
    image: NDArray[np.uint8]
    azimuth: float
    projection: Array

    def __post_init__(self) -> None:
        for key, kind in (("pose", np.float64), ("image", np.uint8), ("projection", np.float64)):
            value = np.array(getattr(self, key), dtype=kind)
            value.flags.writeable = False
            object.__setattr__(self, key, value)
        object.__setattr__(self, "azimuth", float(self.azimuth))
        if self.projection.shape != (3, 4):
            raise UserError(f"The reference's projection has shape {self.projection.shape}: it must be (3, 4).")
        if self.image.ndim != 3 or self.image.shape[2] != 4:
            raise UserError(f"The reference image has shape {self.image.shape}: it must be RGBA.")
        if self.pose.ndim != 3 or self.pose.shape[1:] != (4, 4) or not np.isfinite(self.pose).all():
            raise UserError("The reference pose is not a finite 4x4 matrix for every joint: reset the pose.")

    def to_json(self) -> str:
        """The reference as JSON, for `from_json`, with the image as PNG."""
        # OpenCV takes and gives BGRA
        png = cv2.imencode(".png", cv2.cvtColor(self.image, cv2.COLOR_RGBA2BGRA))[1]
        return json.dumps(
            {
                "pose": self.pose.tolist(),
                "azimuth": self.azimuth,
                "projection": self.projection.tolist(),
                "image": base64.b64encode(png.tobytes()).decode("ascii"),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Reference:
        """Read the text of `to_json`. Raises UserError if it is something else."""
        try:
            values = json.loads(text)
            png = np.frombuffer(base64.b64decode(values["image"]), np.uint8)
            image = cv2.cvtColor(cv2.imdecode(png, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
            return cls(np.array(values["pose"]), image, values["azimuth"], np.array(values["projection"]))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, cv2.error) as error:
            raise UserError(f"This is not a reference written by AnyRig ({error}): make it again.") from error


@dataclass(frozen=True, eq=False)
class Target:
    """A rig to capture for, with references of one pose from several sides. Raises UserError if there is none.

    The capture chooses the reference that looks most like the video. A single one is always used.

    natural: the rig that the take is for, with joints of `rig`, which the network sees; None if both are the same.
    surface: the meshes of that rig as points in its space, which a refined take is fitted with; None for capsules along its bones.
    """

    rig: Rig
    references: tuple[Reference, ...]
    natural: Rig | None = None
    surface: Surface | None = None

    def __post_init__(self) -> None:
        if not self.references:
            raise UserError(f"Rig '{self.rig.name}' has no reference image: render at least one view of it.")

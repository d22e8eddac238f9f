"""`Motion`, the result of a capture: a value that can be stored as npz and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import NOT_NPZ, UserError
from ..geometry.rotations import quaternion_to_matrix
from ..rig.rig import Rig
from ..rig.skeleton import network_axes, posed_heads, skeleton_of


@dataclass(frozen=True, eq=False)
class Motion:
    """A take of T frames for a rig of J joints.

    names: the rig's joints.
    times: (T,) seconds from the start of the trim range, increasing.
    rotations: (T, J, 4) wxyz, global rotations away from rest in armature axes, continuous in sign over time
      (docs/architecture.md, Bone algebra).
    positions: (T, J, 3) predicted joint positions relative to the root joint, in armature axes and units.
    boxes: (T, 4) x0, y0, x1, y1 of the subject in pixels of the video; of mirrored videos, of the corrected image.
    confidence: (T, J) 0..1, 0 where the subject was lost.
    provenance: video, model, settings, seed and the like, as JSON values.
    """

    names: tuple[str, ...]
    times: Array
    rotations: Array
    positions: Array
    boxes: Array
    confidence: Array
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        frames, joints = len(self.times), len(self.names)
        if not frames:
            raise UserError("The take has no frames: capture it again.")
        shapes = {"times": (frames,), "rotations": (frames, joints, 4), "positions": (frames, joints, 3)}
        shapes |= {"boxes": (frames, 4), "confidence": (frames, joints)}
        for key, shape in shapes.items():
            value = np.array(getattr(self, key), dtype=np.float64)
            if value.shape != shape:
                raise UserError(f"The take's {key} have shape {value.shape}, expected {shape}.")
            bad = ~np.isfinite(value.reshape(frames, -1)).all(1)
            if bad.any():
                raise UserError(f"Frame {int(np.argmax(bad))}: the take's {key} are not finite; capture it again.")
            value.flags.writeable = False
            object.__setattr__(self, key, value)
        if (np.diff(self.times) <= 0).any():
            raise UserError("The take's times do not increase: capture it again.")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def matrices(self) -> Array:
        """The global rotations as matrices (T, J, 3, 3)."""
        return quaternion_to_matrix(self.rotations)

    def _arrays(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("names", "provenance")}

    def save(self, path: str | Path) -> None:
        """Write an npz of exactly this name, which `load` reads without loss. Raises UserError if it cannot be written."""
        try:
            with Path(path).open("wb") as file:  # numpy would append .npz to a name
                np.savez_compressed(file, names=np.array(self.names), provenance=json.dumps(self.provenance), **self._arrays())
        except OSError as error:
            raise UserError(f"Take '{path}' cannot be written ({error.strerror}): choose another place.") from error

    @classmethod
    def load(cls, path: str | Path) -> Motion:
        """Read an npz of `save`. Raises UserError if the file is missing or not a take."""
        try:
            with np.load(path) as data:
                stored = with_current_keys({name: data[name] for name in data.files})
            values: dict[str, Any] = {f.name: stored[f.name] for f in fields(cls)}
            values["names"] = tuple(str(name) for name in values["names"])
            values["provenance"] = json.loads(str(values["provenance"]))
            return cls(**values)
        except OSError as error:
            raise UserError(f"Take '{path}' cannot be read ({error}): check the path.") from error
        except NOT_NPZ as error:
            raise UserError(f"'{path}' is not a take written by AnyRig ({error}): capture it again.") from error

    def to_json(self) -> str:
        """JSON text that `from_json` reads without loss."""
        arrays = {key: value.tolist() for key, value in self._arrays().items()}
        return json.dumps({"names": self.names, "provenance": self.provenance, **arrays})

    @classmethod
    def from_json(cls, text: str) -> Motion:
        """Read the text of `to_json`. Raises UserError if it is not a take."""
        try:
            values = json.loads(text)
            if not isinstance(values, dict):
                raise TypeError("it is not an object")
            return cls(**with_current_keys(values))
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            raise UserError(f"This is not a take written by AnyRig ({error}): capture it again.") from error


def with_joints_of(motion: Motion, rig: Rig) -> Motion:
    """The take for a rig whose joints are among those of the take; positions are relative to that rig's root then."""
    chosen = [motion.names.index(name) for name in rig.names]
    positions = motion.positions[:, chosen] - motion.positions[:, chosen[:1]]
    parts = {"rotations": motion.rotations[:, chosen], "positions": positions, "confidence": motion.confidence[:, chosen]}
    return replace(motion, names=rig.names, **parts)


def with_current_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Rename the rotations of version 0.1, which calls them `turns`."""
    return {"rotations" if key == "turns" else key: value for key, value in values.items()}


def fk_heads(rig: Rig, motion: Motion) -> Array:
    """The heads (T, J, 3) of the rig playing the take, relative to the root, in the network's axes.

    Bones keep their rest length. Only joints that translate have the predicted position, and their children follow.
    """
    axes = network_axes(rig)
    return posed_heads(skeleton_of(rig, tips=False), axes @ motion.matrices @ axes.T, motion.positions @ axes.T)

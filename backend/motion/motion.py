"""`Motion`: what a capture returns, a value with an npz and a JSON round trip."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
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

    names: the rig's joints. times: (T,) seconds from the start of the trimmed clip, increasing.
    rotations: (T, J, 4) wxyz, rotations away from rest in armature axes (G of docs/architecture.md, Bone algebra), sign-continuous
    over time.
    positions: (T, J, 3) predicted joint positions relative to the root joint, armature axes and units.
    boxes: (T, 4) x0, y0, x1, y1 of the subject in pixels of the video (of mirrored footage: as put right). confidence: (T, J) 0..1,
    0 where the subject was lost.
    provenance: video, model, settings, seed and the like; JSON values only.
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
        """(T, J, 3, 3) G as matrices."""
        return quaternion_to_matrix(self.rotations)

    def _arrays(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("names", "provenance")}

    def save(self, path: str | Path) -> None:
        """Write an npz that `load` reads back without loss, under exactly this name. Raises UserError if it cannot be written."""
        try:
            with Path(path).open("wb") as file:  # given a name, numpy would append .npz to it
                np.savez_compressed(file, names=np.array(self.names), provenance=json.dumps(self.provenance), **self._arrays())
        except OSError as error:
            raise UserError(f"Take '{path}' cannot be written ({error.strerror}): choose another place.") from error

    @classmethod
    def load(cls, path: str | Path) -> Motion:
        """Raises UserError if the file is missing or not a take."""
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
        """Text that `from_json` reads back without loss."""
        arrays = {key: value.tolist() for key, value in self._arrays().items()}
        return json.dumps({"names": self.names, "provenance": self.provenance, **arrays})

    @classmethod
    def from_json(cls, text: str) -> Motion:
        """Raises UserError if the text is not a take."""
        try:
            values = json.loads(text)
            if not isinstance(values, dict):
                raise TypeError("it is not an object")
            return cls(**with_current_keys(values))
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            raise UserError(f"This is not a take written by AnyRig ({error}): capture it again.") from error


def with_current_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Takes of version 0.1 call the rotations `turns`."""
    return {"rotations" if key == "turns" else key: value for key, value in values.items()}


def fk_heads(rig: Rig, motion: Motion) -> Array:
    """(T, J, 3) heads relative to the root in the network's axes, as the rig puts them when it plays the take.

    Bones keep their rest length: only joints that translate take the predicted position, and their children follow.
    """
    axes = network_axes(rig)
    return posed_heads(skeleton_of(rig, tips=False), axes @ motion.matrices @ axes.T, motion.positions @ axes.T)

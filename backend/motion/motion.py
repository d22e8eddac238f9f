"""`Motion`, the result of a capture: a value that can be stored as npz and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..errors import NOT_NPZ, UserError
from ..geometry.rotations import quaternion_to_matrix, slerp
from ..rig.rig import Rig
from ..rig.skeleton import network_axes, posed_heads, skeleton_of
from ..whole_file import whole_file

TRACKS = ("rotations", "positions", "confidence")  # what refining changes
EXTRAS = ("times", "boxes", "path", "pins", "travel", "contacts", "background")


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
    raw: the take before it was refined, with the same names and times; None if it was not refined.
    path: (T, 3) where a refined take lies in the picture: x and y of the root joint's head in pixels of the video, and pixels per unit
      of the rig; (0, 3) if it was not refined.
    pins: (N, 2) int, frame and joint of the rotations that the animator has set: refining keeps their local rotations.
    travel: (T, 3) how far the root joint's head has gone since the first frame, in armature axes and units; (0, 3) for a take on the spot.
    contacts: (N, 3) joint, first and last second of each time for which that foot stands on the ground; (0, 3) if they are to be found.
    background: (T, 2, 3) affine maps from a frame's pixels to where the background that they show lay on the first frame; (0, 2, 3) if the
      camera stood still or is not known to have moved.
    """

    names: tuple[str, ...]
    times: Array
    rotations: Array
    positions: Array
    boxes: Array
    confidence: Array
    provenance: dict[str, Any] = field(default_factory=dict)
    raw: Motion | None = None
    path: Array = field(default_factory=lambda: np.zeros((0, 3)))
    pins: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    travel: Array = field(default_factory=lambda: np.zeros((0, 3)))
    contacts: Array = field(default_factory=lambda: np.zeros((0, 3)))
    background: Array = field(default_factory=lambda: np.zeros((0, 2, 3)))

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        frames, joints = len(self.times), len(self.names)
        if not frames:
            raise UserError("The take has no frames: capture it again.")
        shapes = {"times": (frames,), "rotations": (frames, joints, 4), "positions": (frames, joints, 3)}
        shapes |= {"boxes": (frames, 4), "confidence": (frames, joints)}
        optional = {"path": (frames, 3), "travel": (frames, 3), "background": (frames, 2, 3)}
        shapes |= {key: shape for key, shape in optional.items() if len(getattr(self, key))}
        for key, shape in shapes.items():
            value = np.array(getattr(self, key), dtype=np.float64)
            if value.shape != shape:
                raise UserError(f"The take's {key} have shape {value.shape}, expected {shape}.")
            bad = ~np.isfinite(value.reshape(frames, -1)).all(1)
            if bad.any():
                raise UserError(f"Frame {int(np.argmax(bad))}: the take's {key} are not finite; capture it again.")
            value.flags.writeable = False
            object.__setattr__(self, key, value)
        object.__setattr__(self, "pins", _checked_pins(self.pins, frames, joints))
        object.__setattr__(self, "contacts", _checked_contacts(self.contacts, joints))
        if (np.diff(self.times) <= 0).any():
            raise UserError("The take's times do not increase: capture it again.")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def matrices(self) -> Array:
        """The global rotations as matrices (T, J, 3, 3)."""
        return quaternion_to_matrix(self.rotations)

    @property
    def camera(self) -> tuple[float, float]:
        """Azimuth and pitch of the camera that the video was shot with, in radians, as far as the capture knows; 0 if it does not."""
        found = self.provenance.get("refine", {})
        azimuth = self.provenance.get("azimuth", 0.0)
        return float(found.get("azimuth", azimuth)), float(found.get("pitch", 0.0))

    def arrays(self) -> dict[str, Array]:
        """The arrays by name, for a file. Those of the raw take that differ are called `raw_...`; what a take lacks is left out."""
        kept = {key: getattr(self, key) for key in (*TRACKS, *EXTRAS)}
        kept = {key: value for key, value in kept.items() if len(value)}
        return kept if self.raw is None else kept | {f"raw_{key}": getattr(self.raw, key) for key in TRACKS}

    @classmethod
    def from_arrays(cls, names: Sequence[str], arrays: Mapping[str, Array], provenance: dict[str, Any]) -> Motion:
        """The take of `arrays`. Takes of versions before 0.3 have neither a raw take nor a path."""
        own = {key: value for key, value in arrays.items() if not key.startswith("raw_")}
        motion = cls(tuple(names), **own, provenance=provenance)
        if f"raw_{TRACKS[0]}" not in arrays:
            return motion
        return replace(motion, raw=motion.unrefined(**{key: arrays[f"raw_{key}"] for key in TRACKS}))

    def unrefined(self, **tracks: Array) -> Motion:
        """A raw take beside this one, with these rotations, positions and confidence."""
        provenance = {key: value for key, value in self.provenance.items() if key != "refine"}
        return Motion(self.names, self.times, boxes=self.boxes, provenance=provenance, **tracks)

    def save(self, path: str | Path) -> None:
        """Write an npz of exactly this name, which `load` reads without loss. Raises UserError if it cannot be written."""
        with whole_file(path, "take") as part, part.open("wb") as file:  # numpy would append .npz to a name
            np.savez_compressed(file, names=np.array(self.names), provenance=json.dumps(self.provenance), **self.arrays())

    @classmethod
    def load(cls, path: str | Path) -> Motion:
        """Read an npz of `save`. Raises UserError if the file is missing or not a take."""
        try:
            with np.load(path) as data:
                stored = with_current_keys({name: data[name] for name in data.files})
            names = tuple(str(name) for name in stored.pop("names"))
            return cls.from_arrays(names, stored, json.loads(str(stored.pop("provenance"))))
        except OSError as error:
            raise UserError(f"Take '{path}' cannot be read ({error}): check the path.") from error
        except NOT_NPZ as error:
            raise UserError(f"'{path}' is not a take written by AnyRig ({error}): capture it again.") from error

    def to_json(self) -> str:
        """JSON text that `from_json` reads without loss."""
        arrays = {key: value.tolist() for key, value in self.arrays().items()}
        return json.dumps({"names": self.names, "provenance": self.provenance, **arrays})

    @classmethod
    def from_json(cls, text: str) -> Motion:
        """Read the text of `to_json`. Raises UserError if it is not a take."""
        try:
            values = json.loads(text)
            if not isinstance(values, dict):
                raise TypeError("it is not an object")
            values = with_current_keys(values)
            return cls.from_arrays(values.pop("names"), values, values.pop("provenance", {}))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"This is not a take written by AnyRig ({error}): capture it again.") from error


def with_joints_of(motion: Motion, rig: Rig) -> Motion:
    """The take for a rig whose joints are among those of the take; positions are relative to that rig's root then."""
    chosen = [motion.names.index(name) for name in rig.names]
    positions = motion.positions[:, chosen] - motion.positions[:, chosen[:1]]
    parts = {"rotations": motion.rotations[:, chosen], "positions": positions, "confidence": motion.confidence[:, chosen]}
    pins = [(frame, chosen.index(joint)) for frame, joint in motion.pins if joint in chosen]
    travel = motion.travel
    if len(travel):  # that of another root
        offset = motion.positions[:, chosen[0]]
        travel = travel + offset - offset[:1]
    stands = [(chosen.index(int(joint)), first, last) for joint, first, last in motion.contacts if int(joint) in chosen]
    raw = None if motion.raw is None else with_joints_of(motion.raw, rig)
    pairs, contacts = np.array(pins, np.int64).reshape(-1, 2), np.array(stands).reshape(-1, 3)
    return replace(motion, names=rig.names, raw=raw, pins=pairs, contacts=contacts, travel=travel, **parts)


def sample(motion: Motion, seconds: Array) -> tuple[Array, Array]:
    """The take at any seconds (F,): rotations (F, J, 4) by slerp, positions (F, J, 3) linearly; held before and after."""
    if len(motion) == 1:
        at = np.zeros(len(seconds), np.int64)
        return motion.rotations[at], motion.positions[at]
    before = np.clip(np.searchsorted(motion.times, seconds, side="right") - 1, 0, len(motion) - 2)
    start, end = motion.times[before], motion.times[before + 1]
    weight = np.clip((seconds - start) / (end - start), 0, 1)[:, None, None]
    positions = motion.positions[before] * (1 - weight) + motion.positions[before + 1] * weight
    return slerp(motion.rotations[before], motion.rotations[before + 1], weight), positions


def _checked_pins(pins: NDArray[np.integer], frames: int, joints: int) -> NDArray[np.int64]:
    checked = np.array(pins, np.int64)
    if checked.shape != (len(checked), 2) or (checked < 0).any() or (checked >= (frames, joints)).any():
        raise UserError("The take's pins are not pairs of one of its frames and one of its joints: remove them.")
    checked.flags.writeable = False
    return checked


def _checked_contacts(contacts: Array, joints: int) -> Array:
    checked = np.array(contacts, np.float64)
    if checked.shape != (len(checked), 3) or not np.isfinite(checked).all():
        raise UserError("The take's contacts are not a joint and two times each: remove them.")
    if (checked[:, 0] < 0).any() or (checked[:, 0] >= joints).any() or (checked[:, 1] > checked[:, 2]).any():
        raise UserError("The take's contacts do not name joints of the take and times in order: remove them.")
    checked.flags.writeable = False
    return checked


def with_current_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Rename the rotations of version 0.1, which calls them `turns`."""
    return {"rotations" if key == "turns" else key: value for key, value in values.items()}


def fk_heads(rig: Rig, motion: Motion) -> Array:
    """The heads (T, J, 3) of the rig playing the take, relative to the root, in the network's axes.

    Bones keep their rest length. Only joints that translate have the predicted position, and their children follow.
    """
    # p_network = A p: heads are put together in armature axes, where the rotations are
    axes, skeleton = network_axes(rig), skeleton_of(rig, tips=False)
    own = replace(skeleton, offsets=skeleton.offsets @ axes)
    return posed_heads(own, motion.matrices, motion.positions) @ axes.T

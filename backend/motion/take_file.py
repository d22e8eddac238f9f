"""`Take`, one armature's capture, with everything that is needed to write its keys again, as one self-contained file."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array
from ..capture_settings import Settings
from ..errors import NOT_NPZ, UserError
from ..rig.rig import Rig
from ..video.clip import Clip
from .motion import TRACKS, Motion, with_current_keys

FORMAT = 2  # format 1, of version 0.1, calls the rotations `turns`


@dataclass(frozen=True, eq=False)
class Take:
    """One armature's take.

    name: of its action. armature: the object's name. date: local time, "YYYY-MM-DD HH:MM:SS". start_frame: scene frame of time 0.
    rig, motion: as captured. pose: (J, 4, 4) the reference pose, in armature space.
    """

    name: str
    armature: str
    date: str
    start_frame: int
    clip: Clip
    settings: Settings
    rig: Rig
    pose: Array
    motion: Motion

    @cached_property
    def data(self) -> bytes:
        """The bytes of an npz file, always the same for the same take.

        Rotations and positions are in single precision, as the keys are: they differ by less than 1e-6, and the file is half as
        large. 300 frames of 150 bones of noise, which cannot be compressed, have 1.2 MB, and 2.4 MB in double precision.
        """
        motion, buffer = self.motion, io.BytesIO()
        about = {
            "format": FORMAT,
            "name": self.name,
            "armature": self.armature,
            "date": self.date,
            "start_frame": self.start_frame,
        }
        about |= {"clip": asdict(self.clip), "settings": asdict(self.settings), "provenance": motion.provenance}
        np.savez_compressed(
            buffer,
            about=json.dumps(about),
            rig=self.rig.to_json(),
            pose=self.pose,
            **{
                key: value.astype(np.float32) if key.removeprefix("raw_") in TRACKS else value
                for key, value in motion.arrays().items()
            },
        )
        return buffer.getvalue()

    @cached_property
    def key(self) -> str:
        """A short hash of the content, to tell takes apart."""
        return hashlib.sha256(self.data).hexdigest()[:12]

    @classmethod
    def from_data(cls, data: bytes, source: str) -> Take:
        """Read a take from the bytes of `data`. Raises UserError that names the `source` if they are not a take."""
        try:
            with np.load(io.BytesIO(data)) as stored:
                arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
            return cls._from_arrays(arrays)
        except (*NOT_NPZ, OSError, UserError) as error:
            raise UserError(
                f"{source} is not a take written by AnyRig ({error}): delete it, or recover it from its copy."
            ) from error

    @classmethod
    def _from_arrays(cls, arrays: dict[str, Any]) -> Take:
        about = json.loads(str(arrays["about"]))
        if about["format"] > FORMAT:
            raise UserError(f"format {about['format']} is of a newer version")
        arrays = with_current_keys(arrays)
        rig = Rig.from_json(str(arrays["rig"]))
        tracks = {key: value for key, value in arrays.items() if key not in ("about", "rig", "pose")}
        motion = Motion.from_arrays(rig.names, tracks, about["provenance"])
        clip, settings = Clip.from_json(json.dumps(about["clip"])), Settings.from_json(json.dumps(about["settings"]))
        return cls(
            about["name"], about["armature"], about["date"], about["start_frame"], clip, settings, rig, arrays["pose"], motion
        )

    @classmethod
    def load(cls, path: Path) -> Take:
        """Read a file. Raises UserError if it is missing or not a take."""
        try:
            return cls.from_data(path.read_bytes(), f"File '{path}'")
        except OSError as error:
            raise UserError(f"Take '{path}' cannot be read ({error.strerror}): check the path.") from error

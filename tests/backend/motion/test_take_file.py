"""The file of a take: takes of version 0.1 can still be read."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from anyrig.backend.capture_settings import Settings
from anyrig.backend.motion.motion import Motion
from anyrig.backend.motion.take_file import Take
from anyrig.backend.rig.rig import Rig
from anyrig.backend.video.clip import Clip

NAMES = ("hips", "leg")


def rig() -> Rig:
    rest = np.tile(np.eye(4), (2, 1, 1))
    rest[1, :3, 3] = (0, 0, -1)
    nothing = np.zeros(2, bool)
    return Rig("Biped", NAMES, np.array([-1, 0]), rest, rest[:, :3, 3] + (0.0, 0, -1), nothing, nothing)


def motion() -> Motion:
    random = np.random.default_rng(0)
    quaternions = random.normal(size=(3, 2, 4))
    quaternions /= np.linalg.norm(quaternions, axis=-1, keepdims=True)
    arrays = (
        np.arange(3) / 30,
        quaternions,
        random.normal(size=(3, 2, 3)),
        random.normal(size=(3, 4)),
        random.uniform(size=(3, 2)),
    )
    return Motion(NAMES, *arrays, provenance={"video": "walk.mp4"})


def as_version_01_wrote_it(arrays: dict[str, Any]) -> dict[str, Any]:
    return {"turns" if key == "rotations" else key: value for key, value in arrays.items()}


def test_a_take_of_version_01_is_read() -> None:
    take = Take("walk", "Biped", "2026-11-01 10:00:00", 1, Clip("walk.mp4"), Settings(), rig(), rig().rest, motion())
    with np.load(io.BytesIO(take.data)) as stored:
        arrays = as_version_01_wrote_it({key: stored[key] for key in stored.files})
    arrays["about"] = np.array(json.dumps(json.loads(str(arrays["about"])) | {"format": 1}))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    back = Take.from_data(buffer.getvalue(), "Take 'walk'")
    assert back.key == take.key and np.allclose(back.motion.rotations, take.motion.rotations, atol=1e-6)


def test_a_motion_of_version_01_is_read(tmp_path: Path) -> None:
    motion().save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as stored:
        np.savez(tmp_path / "old.npz", **as_version_01_wrote_it({key: stored[key] for key in stored.files}))
    assert np.array_equal(Motion.load(tmp_path / "old.npz").rotations, motion().rotations)
    text = json.dumps(as_version_01_wrote_it(json.loads(motion().to_json())))
    assert np.array_equal(Motion.from_json(text).rotations, motion().rotations)


def test_the_file_of_a_refined_take_has_the_raw_one() -> None:
    raw = motion()
    refined = replace(raw, positions=raw.positions + 1, raw=raw, path=np.ones((3, 3)), pins=np.array([[1, 0]]))
    take = Take("walk", "Biped", "2026-11-01 10:00:00", 1, Clip("walk.mp4"), Settings(), rig(), rig().rest, refined)
    back = Take.from_data(take.data, "Take 'walk'")
    assert back.key == take.key and back.motion.raw is not None and back.motion.pins.tolist() == [[1, 0]]
    assert np.allclose(back.motion.positions, raw.positions + 1, atol=1e-6) and np.array_equal(back.motion.path, refined.path)
    assert np.allclose(back.motion.raw.positions, raw.positions, atol=1e-6)

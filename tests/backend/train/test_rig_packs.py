"""Rig packs: both trees of a character, and the format that is read."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.train.packs.rig_packs import Pack


def with_armature(pack: Pack) -> Pack:
    """The pack with an armature that has a root at the ground above it, and the same joints in another order."""
    rig = pack.rig
    ground = np.eye(4)[None]
    armature = replace(
        rig,
        names=("ground", *rig.names),
        parents=np.concatenate([[-1], rig.parents + 1]),
        rest=np.concatenate([ground, rig.rest]),
        tails=np.concatenate([[[0, 0, 0.1]], rig.tails]),
        translates=np.concatenate([[False], np.arange(len(rig.names)) == 0]),
        static=np.zeros(len(rig.names) + 1, bool),
        hung=np.zeros(0, bool),
        props=np.zeros(0, bool),
    )
    others = {name: np.tile(np.eye(4, dtype=np.float32), (len(poses), 1, 1, 1)) for name, poses in pack.clips.items()}
    return replace(pack, armature=armature, others=others)


def test_a_pack_comes_back_with_both_trees(make_pack: Callable[..., Pack], tmp_path: Path) -> None:
    pack = with_armature(make_pack())
    pack.save(tmp_path / "a.npz")
    back = Pack.load(tmp_path / "a.npz")
    assert back.rig.names == pack.rig.names and back.armature is not None and back.armature.names[0] == "ground"
    old, new = pack.in_armature_tree(), back.in_armature_tree()
    assert new.rig.names == ("ground", *pack.rig.names)
    for clip, poses in pack.clips.items():
        assert np.array_equal(old.clips[clip], new.clips[clip]) and np.array_equal(new.clips[clip][:, 1:], poses)
    assert np.array_equal(new.surface.joints, pack.surface.joints + 1)


def test_a_pack_without_an_armature_is_its_own(make_pack: Callable[..., Pack], tmp_path: Path) -> None:
    pack = make_pack()
    pack.save(tmp_path / "a.npz")
    back = Pack.load(tmp_path / "a.npz")
    assert back.armature is None and back.in_armature_tree() is back


def test_packs_of_version_01_are_refused(make_pack: Callable[..., Pack], tmp_path: Path) -> None:
    make_pack().save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as data:
        arrays = {key: data[key] for key in data.files}
    head = json.loads(str(arrays["head"]))
    del head["format"]
    np.savez(tmp_path / "old.npz", **(arrays | {"head": np.array(json.dumps(head))}))
    with pytest.raises(UserError, match="old.npz' has format 1, and this version reads 2: make it again"):
        Pack.load(tmp_path / "old.npz")

"""Swap Left and Right on a filmed walk: what it writes, with the video and without, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
import pytest
from anyrig.addon.capture import take_store
from anyrig.addon.command_line import commands
from anyrig.addon.review import refine_operators, takes
from anyrig.addon.tasks import background_runner
from anyrig.backend.geometry.rotations import geodesic_angle
from anyrig.backend.motion.motion import Motion
from anyrig.backend.motion.swap_sides import swap_sides
from anyrig.backend.refine import refine as refine_module
from anyrig.backend.rig.limb_pairs import LimbPair, limb_pair
from anyrig.tests.addon import filmed_walk
from anyrig.tests.addon.drawn import draw, texts
from anyrig.tests.addon.review.test_refine_take import added, quick_fit, select, state

__all__ = ["quick_fit"]
pytestmark = pytest.mark.usefixtures("registered_apart")


@pytest.fixture
def truth(tmp_path: Path) -> Motion:
    """The true motion of a walk whose stored take has its legs exchanged, keyed from frame 1 to 23."""
    filmed_walk.filmed(tmp_path)
    text = take_store.stored()[0]
    take = take_store.read(text)
    take_store.replace_motion(text, swap_sides(take.motion, take.rig, legs(text)))
    return take.motion


def leg(text: bpy.types.Text) -> str:
    """A bone of a leg, not its first."""
    return next(name for name in take_store.read(text).rig.names if "shin" in name.lower() or "calf" in name.lower())


def legs(text: bpy.types.Text) -> LimbPair:
    return limb_pair(take_store.read(text).rig, leg(text))


def degrees(left: Motion, right: Motion) -> np.ndarray:
    """(T, J) between the global rotations of two takes."""
    return np.degrees(geodesic_angle(left.matrices, right.matrices))


@pytest.mark.usefixtures("quick_fit")
def test_a_range_is_swapped_in_a_new_take_and_undone_in_one_step(truth: Motion) -> None:
    (text,) = take_store.stored()
    obj, played, before = take_store.armature_of(text), take_store.action_of(text), take_store.read(text).motion
    select(obj, leg(text))
    props = bpy.context.scene.anyrig_refine
    props.part, props.first, props.last = "RANGE", 9, 17
    bpy.ops.ed.undo_push(message="before")
    assert bpy.ops.anyrig.swap_sides() == {"FINISHED"}
    other = added(text)
    take, limbs = take_store.read(other), legs(text).sides.any(0)
    assert degrees(take.motion, truth)[4:9].max() < 0.1
    assert degrees(take.motion, before)[[*range(4), *range(9, 12)]].max() < 0.1
    assert degrees(take.motion, before)[:, ~limbs].max() < 0.01 and degrees(take.motion, before)[4:9, limbs].max() > 5
    assert take_store.action_of(text) == played and obj.animation_data.action == take_store.action_of(other) != played
    assert takes.selected(bpy.context) == other
    said = background_runner.status()[0]
    assert said.startswith("Left and right were swapped in 'walk', from ") and "covers 75 % of the silhouette" in said
    assert "anyrig.swap_sides" in texts(draw(refine_operators.ANYRIG_PT_refine), "operator")
    name, action = text.name, played.name
    bpy.ops.ed.undo_push(message="Swap Left and Right")
    bpy.ops.ed.undo()
    assert [each.name for each in take_store.stored()] == [name]
    assert take_store.armature_of(take_store.stored()[0]).animation_data.action.name == action


def test_the_command_swaps_and_fits_the_limbs_to_the_video(
    truth: Motion, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = refine_module.SETTINGS["quick"]
    few = replace(quick.shared, steps=(10, 5, 15)), replace(quick.fit, steps=(20, 0, 50))
    monkeypatch.setitem(refine_module.SETTINGS, "quick", replace(quick, points=300, shared=few[0], fit=few[1]))
    (text,) = take_store.stored()
    before, limbs = take_store.read(text).motion, legs(text).sides.any(0)
    assert commands.main(["refine", "--swap", leg(text), "--out", str(tmp_path / "out.blend")]) == 0
    assert "Left and right were swapped in 'walk'" in capsys.readouterr().out
    after = take_store.read(added(text)).motion
    assert degrees(after, truth)[:, limbs].mean() < 0.5 * degrees(before, truth)[:, limbs].mean()
    assert degrees(after, truth)[:, ~limbs].max() < 0.01
    low, high = after.provenance["refine"]["overlap"]
    assert high > 0.7 and low > 0.7, "the take before the fit is the one that was swapped"
    assert commands.main(["refine", "--swap", leg(text), "--bone", leg(text)]) == 2


def test_without_the_video_it_swaps_and_says_so(truth: Motion, tmp_path: Path) -> None:
    (text,) = take_store.stored()
    motion = take_store.read(text).motion
    about = {**motion.provenance, "refine": {"overlap": [0.5, 0.9], "pitch": 0.1}}
    take_store.replace_motion(text, replace(motion, provenance=about))
    (tmp_path / "walk.mp4").unlink()
    select(take_store.armature_of(text), leg(text))
    assert bpy.ops.anyrig.swap_sides() == {"FINISHED"}
    other = added(text)
    found = take_store.read(other).motion
    assert degrees(found, truth).max() < 0.1 and found.camera[1] == 0.1
    assert "overlap" not in take_store.about(other), "it was that of other poses"
    said, is_error = background_runner.status()
    assert "It was not fitted to its video" in said and "does not exist" in said and not is_error


def test_what_cannot_be_swapped_is_a_sentence(truth: Motion) -> None:
    (text,) = take_store.stored()
    obj, before = take_store.armature_of(text), state()
    select(obj)
    with pytest.raises(RuntimeError, match="No bone of take 'walk' is selected: select a bone of each limb to swap"):
        bpy.ops.anyrig.swap_sides()
    select(obj, take_store.read(text).rig.names[0])
    with pytest.raises(
        RuntimeError, match="belongs to no limb with a left and a right: choose a bone of an arm, a leg or a wing"
    ):
        bpy.ops.anyrig.swap_sides()
    assert state() == before

"""As a user would: Blender 4.3 of Debian 13, the zip, the command line, then a window with a mouse. `ANYRIG_REAL=FOLDER pytest tests/ui`.

Takes minutes, root, debootstrap and 3.3 GB, so it runs only where ANYRIG_REAL names the folder to use. Images of every step end
up in FOLDER/images.
"""

import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyrig.tests.ui.desk import LEFT, Desk, desk
from anyrig.tests.ui.real import Debian, obstacle

ROOT = Path(__file__).resolve().parents[2]
FOLDER = os.environ.get("ANYRIG_REAL", "")
CAPTURE, CANCEL, VIDEO = "anyrig.capture()", "anyrig.cancel()", "anyrig.video"
OVERLAY, LINES, MOVIE, QUEUE = "anyrig.overlay()", "anyrig.skeleton()", "anyrig.movie()", "anyrig.queue_add()"
SHOW = "anyrig.show_subject()"
COMPARE, SIDES, OWN_FILES = "anyrig.take_compare()", "anyrig.show_sides()", "anyrig.adopt_weights()"
TRIM_END, VIEW, MODEL = "anyrig.trim_end", "anyrig.view", "anyrig.model"
HEADER = 34  # pixels from the last button of an open panel to the header of the next
REFERENCE_BELOW, MODEL_BELOW = 85, 137  # pixels from the end of the trim range to these headers
COMMAND = ["blender", "-b", "/shared/walker.blend", "--command", "anyrig"]
DEV = ["blender", "-b", "--factory-startup", "--python", "/repo/tests/ui/dev.py", "--"]
FRAMES = 49  # of the walk, at the scene's 24 per second
LONG = 240.0  # seconds for a capture on a slow machine that does other things too
# what a file's animation says, for every armature
READ = """
import bpy, json
found = {}
for obj in bpy.data.objects:
    action = obj.animation_data and obj.animation_data.action
    if action:
        keys = {curve.data_path: [key.co[1] for key in curve.keyframe_points] for curve in action.fcurves}
        moving = sum(max(values) - min(values) > 1e-3 for values in keys.values())
        found[obj.name] = [action.name, *action.frame_range, len(action.fcurves), moving]
print("FOUND" + json.dumps(found))
"""

pytestmark = [
    pytest.mark.skipif(
        not FOLDER, reason="set ANYRIG_REAL to a folder for a Debian 13 with Blender (as root; 3.3 GB) to run this"
    ),
    pytest.mark.skipif(bool(FOLDER and obstacle()), reason=obstacle() if FOLDER else ""),
]


@pytest.fixture(scope="module")
def debian() -> Iterator[Debian]:
    shared = Path(FOLDER, "shared").resolve()
    shared.mkdir(parents=True, exist_ok=True)
    found = Debian(Path(FOLDER, "debian").resolve(), shared, ROOT)
    found.make()
    found.run(["sh", "-c", "rm -rf /shared/* "])
    found.run(["blender", "-b", "--factory-startup", "--python", "/repo/tests/ui/scene.py", "--", "/repo", "/shared"])
    assert (shared / "walker.blend").exists() and (shared / "walk.mp4").exists()
    shutil.copy(shared / "walk.mp4", shared / "other.mp4")
    yield found


@pytest.fixture(scope="module")
def installed(debian: Debian) -> Debian:
    """Blender's own builder makes the zip, Blender's own installer unpacks it; the next start has it enabled."""
    spec = importlib.util.spec_from_file_location("anyrig_package", ROOT / "package.py")
    assert spec is not None and spec.loader is not None
    package = sys.modules["anyrig_package"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    package.stage(debian.shared / "source")
    debian.run(["blender", "--command", "extension", "validate", "/shared/source"])
    build = ["--source-dir", "/shared/source", "--output-filepath", "/shared/anyrig.zip"]
    debian.run(["blender", "--command", "extension", "build", *build])
    # the exit code says nothing about an installation
    debian.run(["blender", "--command", "extension", "install-file", "-r", "user_default", "-e", "/shared/anyrig.zip"])
    said = debian.run(["blender", "--command", "extension", "list"]).stdout
    assert "anyrig [installed]" in said.replace(": ", " ") or "anyrig" in said, said
    return debian


def animation(debian: Debian, file: str) -> dict[str, list[Any]]:
    said = debian.run(["blender", "-b", "--factory-startup", f"/shared/{file}", "--python-expr", READ]).stdout
    [line] = [line for line in said.splitlines() if line.startswith("FOUND")]
    return json.loads(line.removeprefix("FOUND"))


def test_from_video_to_keys_on_the_command_line(installed: Debian) -> None:
    said = installed.run([*COMMAND, "capture", "--video", "/shared/walk.mp4", "--out", "/shared/take.blend"], timeout=LONG)
    assert f"Walker: {FRAMES} frames of 'walk' keyed from frame 1 on" in said.stdout and "Traceback" not in said.stderr
    name, first, last, curves, moving = animation(installed, "take.blend")["Walker"]
    assert (name, first, last) == ("walk", 1.0, float(FRAMES))
    assert curves >= 4 * 19 and moving >= 10
    assert animation(installed, "walker.blend") == {}


def test_tools_of_the_repository_in_a_blender_of_the_system(installed: Debian) -> None:
    """They open files of their own, and render with a scene of their own, in no window."""
    packed = installed.run([*DEV, "pack", "/shared/take.blend", "-o", "/shared/packs"])
    assert "19 joints, 1 clips" in packed.stdout
    options = ["-o", "/shared/footage", "--size", "64", "--engine", "workbench"]
    installed.run([*DEV, "render", "/shared/take.blend", *options])
    assert list((installed.shared / "footage").rglob("*.mp4"))


def test_without_torch_one_sentence(installed: Debian) -> None:
    capture = [*COMMAND, "capture", "--video", "/shared/walk.mp4", "--out", "/shared/none.blend"]
    done = installed.run(capture, check=False, without_torch=True)
    assert done.returncode == 1 and not (installed.shared / "none.blend").exists()
    [sentence] = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "PyTorch" in sentence and "No module named 'torch'" in sentence and "nstall" in sentence
    assert "Traceback" not in done.stderr


def test_what_a_user_mistypes_is_one_sentence(installed: Debian) -> None:
    for arguments, words in (
        (["--video", "/shared/absent.mp4"], "does not exist"),
        (["--video", "/shared/walker.blend"], "cannot be read as a video"),
        (["--video", "/shared/walk.mp4", "--armature", "Nobody"], "There is no armature 'Nobody'"),
    ):
        done = installed.run([*COMMAND, "capture", *arguments], check=False)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_with_the_mouse(installed: Debian) -> None:
    with desk(installed, "walker.blend", Path(FOLDER, "images").resolve()) as user:
        user.open_tab("AnyRig")
        user.image("1-panel")
        choose_video(user)
        before = user.settled()["scene"]
        shown(user, before)
        cancelled(user, before)
        captured(user, before)
        undone_and_redone(user, before)
        checked(user)
        compared(user)
        queued(user)
        looked_around(user)
    log = (installed.shared / "blender.log").read_text()
    assert "Traceback" not in log and "Error" not in log, log[-3000:]


def choose_video(user: Desk) -> None:
    """By dropping a file, then in the file browser."""
    user.drop_file("/shared/other.mp4", "2-drop")
    user.wait("the dropped file", lambda state: state["settings"]["video"] == "/shared/other.mp4")
    user.pick_file(VIDEO, "/shared", "walk.mp4")
    user.wait("the path to be there", lambda state: state["settings"]["video"] == "/shared/walk.mp4")
    user.find(CAPTURE)
    user.image("2-video")


def shown(user: Desk, before: dict[str, Any]) -> None:
    """The pictures of the subject come by themselves, Esc takes them away, and nothing was changed."""
    plain = user.viewport()
    user.press_button(SHOW)
    user.point_at_view()
    user.wait("the subject", lambda state: state["message"].startswith("One subject was found"), LONG)
    time.sleep(2.0)  # nothing but the image tells that they are drawn
    user.image("2-subject")
    assert share_changed(plain, user.viewport()) > 0.2
    user.press("Escape")
    time.sleep(2.0)
    assert share_changed(plain, user.viewport()) < 0.001
    assert user.settled()["scene"] == before


def cancelled(user: Desk, before: dict[str, Any]) -> None:
    user.press_button(CAPTURE)
    user.wait("progress", lambda state: state["progress"])
    user.press_button(CANCEL, near=CAPTURE)
    ended_early(user, before)
    user.press_button(CAPTURE)
    user.wait("progress", lambda state: state["progress"])
    user.point_at_view()
    user.press("Escape")
    ended_early(user, before)


def ended_early(user: Desk, before: dict[str, Any]) -> None:
    state = user.wait("the end of a cancelled capture", lambda state: state["progress"] is None, LONG)
    assert state["message"].startswith("Cancelled") and not state["is_error"], state["message"]
    assert state["scene"] == before


def captured(user: Desk, before: dict[str, Any]) -> None:
    user.press_button(CAPTURE)
    stages: list[str] = []
    user.wait("progress", lambda state: state["progress"])
    user.point_at_view()
    user.wait("the network", lambda state: watched(state, stages) or stages[-1:] == ["Reading the motion"], LONG)
    user.image("3-progress")
    state = user.wait("the end of the capture", lambda state: watched(state, stages), LONG)
    assert not state["is_error"] and f"{FRAMES} frames" in state["message"], state["message"]
    assert {"Finding the subject", "Reading the motion"} <= set(stages), stages
    assert state["scene"] != before and dict(state["scene"]["blocks"])["actions"] == ["walk"]
    user.point_at_view()
    user.image("4-keys")


def watched(state: dict[str, Any], stages: list[str]) -> bool:
    """Notes the stages that the panel shows; whether the capture has ended."""
    if state["progress"] is not None and state["progress"][0] not in stages:
        stages.append(state["progress"][0])
    return state["progress"] is None


def undone_and_redone(user: Desk, before: dict[str, Any]) -> None:
    """One Ctrl-Z takes all of it away, one Ctrl-Shift-Z brings it back, and it plays."""
    after = user.settled()["scene"]
    user.point_at_view()
    user.press("ctrl+z")
    user.wait("one undo to take the take away", lambda state: state["scene"] == before)
    user.image("5-undone")
    user.press("ctrl+shift+z")
    user.wait("one redo to bring the take back", lambda state: state["scene"] == after)
    user.press("space")
    user.wait("the take to play", lambda state: state["scene"]["frames"][0] > 10)
    user.press("space")
    state = user.settled()
    assert state["scene"]["pose"] != after["pose"]
    user.image("6-playing")


def checked(user: Desk) -> None:
    """The overlay and the lines come with one click and go with the next, and are really drawn."""
    plain, before = user.viewport(), user.settled()["scene"]
    for name, button, least in (("7-overlay", OVERLAY, 0.3), ("8-lines", LINES, 0.002)):
        user.press_button(button)
        user.point_at_view()
        time.sleep(2.0)  # nothing but the image tells that lines are drawn
        user.image(name)
        assert share_changed(plain, user.viewport()) > least, name
        user.press_button(button)
        user.point_at_view()
        time.sleep(2.0)
        user.wait("the scene as it was", lambda state: state["scene"] == before)
        assert share_changed(plain, user.viewport()) < 0.001, name


def share_changed(old: np.ndarray, new: np.ndarray) -> float:
    return float((np.abs(old.astype(int) - new).max(-1) > 40).mean())


def compared(user: Desk) -> None:
    """The take in the list gives way to what was there before it, and comes back."""
    taken = user.settled()["scene"]["objects"]
    user.press_button(COMPARE)
    user.wait("no action", lambda state: not any(played[1] for played in state["scene"]["objects"]))
    user.press_button(COMPARE)
    user.wait("the take again", lambda state: state["scene"]["objects"] == taken)


def queued(user: Desk) -> None:
    """The queue's panel opens, and takes the job that the other panels describe."""
    user.find(MOVIE, near=user.buttons.get(MOVIE))
    user.open_panel(MOVIE, HEADER, QUEUE, side=LEFT)
    user.press_button(QUEUE, side=LEFT)
    user.point_at_view()
    state = user.wait("a job in the queue", lambda state: state["jobs"])
    assert state["jobs"] == 1
    user.image("9-queue")


def looked_around(user: Desk) -> None:
    """The panels that are closed at first: the released weights, then the images of the rig's sides."""
    user.find(TRIM_END, near=user.buttons[TRIM_END])
    user.open_panel(TRIM_END, MODEL_BELOW, MODEL)
    user.choose(MODEL, "release")
    user.find(OWN_FILES, near=user.buttons[MODEL])
    user.point_at_view()
    user.image("10-weights")
    user.choose(MODEL, "lite")
    user.open_panel(TRIM_END, REFERENCE_BELOW, SIDES)
    user.press_button(SIDES)
    user.settled()
    user.choose(VIEW, "SIDE")
    user.point_at_view()
    user.image("11-sides")

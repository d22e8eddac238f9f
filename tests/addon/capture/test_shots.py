"""A video with a cut: its longest shot is captured, and all that relates the take to the video begins there."""

from pathlib import Path

import bpy
import numpy as np
import pytest
from anyrig.addon.capture import run_capture, take_store
from anyrig.addon.review import footage_camera, overlay
from anyrig.addon.rig.armature import rig_from_armature
from anyrig.addon.settings.capture_params import CaptureParams
from anyrig.backend.capture_settings import Settings
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import read_frames, write_video
from anyrig.tests.addon.fixtures import human, random_motion

FPS, CUT, FRAMES = 12.0, 10, 28


def film(path: Path) -> Clip:
    """A red figure before green walks, then one before blue."""
    frames = np.empty((FRAMES, 64, 80, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[:] = (30, 160, 60) if index < CUT else (40, 60, 190)
        frame[16:56, 12 + index : 30 + index] = (200, 60, 40)
    write_video(path, frames, FPS)
    return Clip(str(path))


def test_a_take_begins_with_the_shot_that_was_captured(tmp_path: Path, registered_apart: None, small_views: None) -> None:
    obj, clip = human(), film(tmp_path / "cut.mp4")
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = int(FPS), 1
    params = CaptureParams(clip, Settings("tiny", "cpu", isnet="off"), azimuth=0.0, start_frame=1)
    _, [result], _ = run_capture.run_capture(bpy.context, [obj], params)
    [note] = result.motion.provenance["notes"]
    assert "2 shots: number 2 was captured" in note
    take = take_store.read(take_store.stored()[0])
    assert take.clip.start == pytest.approx((CUT - 0.5) / FPS, abs=1e-6) and take.clip.end is None
    assert len(take.motion) == FRAMES - CUT == sum(1 for _ in read_frames(take.clip))
    _, first = footage_camera.video_size(take.clip)
    shown = overlay.video_frame_numbers(take, take.motion.times, first, [])
    assert shown.tolist() == list(range(CUT + 1, FRAMES + 1)), "Blender counts a video's frames from 1"


def test_a_take_of_one_shot_keeps_its_clip() -> None:
    obj = human()
    params = CaptureParams(Clip("/clips/walk.mp4", start=0.5), Settings("tiny", "cpu"))
    request = run_capture.request_of(bpy.context.scene, params, [])

    motion = random_motion(rig_from_armature(obj), 4, seed=1)
    assert run_capture._captured_clip(request, motion) == params.clip

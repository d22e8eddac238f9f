"""Cancel while a capture refines: the scene is as before, and the user keeps the unrefined take or discards it."""

import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.capture import keep_unrefined, operators, panels, run_capture, take_store
from anyrig.addon.settings import capture_params
from anyrig.addon.tasks import background_runner
from anyrig.addon.tasks.task import Task
from anyrig.backend.capture import pipeline
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.motion.motion import Motion
from anyrig.backend.progress import Progress
from anyrig.backend.rig.rig import Target
from anyrig.backend.video.clip import Clip
from anyrig.tests.addon.capture.test_operators import animation_state, fill_panel, wait_until_done
from anyrig.tests.addon.chance import Press
from anyrig.tests.addon.drawn import draw, texts
from anyrig.tests.addon.fixtures import human, random_motion

pytestmark = pytest.mark.usefixtures("registered_apart", "small_views")
READING, REFINING = "Reading the motion", "Refining"


class Backend:
    """Stands in for the network and the fit; stops in a stage until its gate opens."""

    def __init__(self, held: str) -> None:
        self.held, self.gate = held, threading.Event()

    def __call__(self, targets: Sequence[Target], _clip: Clip, settings: Settings) -> Generator[Progress, None, list[Motion]]:
        yield from self._stage(READING, None)
        about = {"view": 2, "settings": asdict(settings), "seconds": {"subject": 1.0, "video2pose": 2.0}}
        raw = [replace(random_motion(target.rig, 5, 7, fps=24.0), provenance=about) for target in targets]
        if settings.refine_mode == "off":
            return raw
        yield from self._stage(REFINING, raw)
        return [replace(random_motion(target.rig, 5, 8, fps=24.0), provenance=about) for target in targets]

    def _stage(self, name: str, so_far: Any) -> Generator[Progress, None, None]:
        for index in range(3):
            yield Progress(name, index, 3, so_far=so_far)
            assert self.held != name or self.gate.wait(20)


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Press:
    human()
    fill_panel()
    monkeypatch.setattr(background_runner, "has_window", lambda _: True)
    return Press(operators.ANYRIG_OT_capture)


def cancelled_in(stage: str, window: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    """Click Capture, and Cancel once the stage has begun."""
    stand_in = Backend(stage)
    monkeypatch.setattr(pipeline, "capture", stand_in)
    window.invoke(bpy.context, None)
    end = time.monotonic() + 20
    while background_runner.current().progress.stage != stage:
        assert time.monotonic() < end
        time.sleep(0.005)
    bpy.ops.anyrig.cancel()
    stand_in.gate.set()
    wait_until_done()


def buttons() -> set[str]:
    return {"anyrig.keep_unrefined", "anyrig.discard_unrefined"} & set(texts(draw(panels.ANYRIG_PT_run), "operator"))


def keys_of(obj: bpy.types.Object) -> list[Any]:
    """All that the armature's action says."""
    action = obj.animation_data.action
    curves = action.layers[0].strips[0].channelbags[0].fcurves if hasattr(action, "layers") else action.fcurves
    points = [[(*point.co, point.interpolation) for point in curve.keyframe_points] for curve in curves]
    return [action.name, tuple(action.frame_range), [(curve.data_path, curve.array_index) for curve in curves], points]


def everything() -> list[Any]:
    return [*animation_state(), bpy.data.texts.keys(), bpy.data.images.keys(), bpy.data.materials.keys()]


def test_cancel_before_refining_keeps_nothing(window: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything()
    cancelled_in(READING, window, monkeypatch)
    assert everything() == before and keep_unrefined.offered() is None and not buttons()
    assert background_runner.status()[0] == operators.CANCELLED
    assert not bpy.ops.anyrig.keep_unrefined.poll() and not bpy.ops.anyrig.discard_unrefined.poll()


def test_a_kept_take_is_that_of_a_capture_without_refining(window: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    obj, before = bpy.data.objects["Human"], everything()
    cancelled_in(REFINING, window, monkeypatch)
    assert everything() == before and len(buttons()) == 2
    assert background_runner.status() == (keep_unrefined.OFFER, False)
    assert bpy.ops.anyrig.keep_unrefined() == {"FINISHED"}
    assert keep_unrefined.offered() is None and not buttons() and "5 frames of video keyed" in background_runner.status()[0]
    kept, take = keys_of(obj), take_store.read(take_store.stored()[0])
    bpy.ops.anyrig.take_delete()
    assert not bpy.data.actions
    fill_panel(refine="OFF")
    monkeypatch.setattr(background_runner, "has_window", lambda _: False)
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    plain = take_store.read(take_store.stored()[0])
    assert keys_of(obj) == kept
    assert take.settings == plain.settings and take.motion.provenance == plain.motion.provenance
    assert np.array_equal(take.motion.rotations, plain.motion.rotations) and take.motion.raw is None


def test_a_discarded_take_leaves_the_scene_as_before(window: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything()
    cancelled_in(REFINING, window, monkeypatch)
    assert bpy.ops.anyrig.discard_unrefined() == {"FINISHED"}
    assert everything() == before and not buttons() and not take_store.copies()
    assert background_runner.status() == (keep_unrefined.DISCARDED, False)


def test_keeping_is_one_undo_step(window: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled_in(REFINING, window, monkeypatch)
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.anyrig.keep_unrefined()
    bpy.ops.ed.undo_push(message="Keep Unrefined Take")
    bpy.ops.ed.undo()
    assert bpy.data.objects["Human"].animation_data is None and not bpy.data.actions and not bpy.data.texts


def test_the_choice_stays_after_an_error_and_goes_with_the_next_capture(window: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled_in(REFINING, window, monkeypatch)

    def refuse(*_: Any, **__: Any) -> None:
        raise UserError("It cannot be written.")

    with monkeypatch.context() as patch:
        patch.setattr(run_capture, "write_motion", refuse)
        with pytest.raises(RuntimeError, match="It cannot be written"):
            bpy.ops.anyrig.keep_unrefined()
    assert len(buttons()) == 2
    window.invoke(bpy.context, None)
    assert keep_unrefined.offered() is None
    wait_until_done()
    cancelled_in(REFINING, window, monkeypatch)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert keep_unrefined.offered() is None


def test_without_a_window_a_cancelled_capture_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    obj, before = human(), everything()
    monkeypatch.setattr(pipeline, "capture", Backend(""))
    request = run_capture.gather(
        bpy.context, [obj], capture_params.CaptureParams(clip=Clip("/v.mp4"), settings=Settings(device="cpu"))
    )
    task = Task(run_capture.steps(request))
    while task.progress.stage != REFINING:
        assert task.so_far is None
        task.step()
    assert task.so_far is None, "it was not cancelled"
    task.stop()
    assert task.result() is None and len(task.so_far) == 1
    assert everything() == before

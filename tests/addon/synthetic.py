"""A capture whose motion is made up: everything runs as for a user, from the panel to the keys, but the network."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.capture import run_capture
from anyrig.backend import progress
from anyrig.backend.capture import pipeline as backend_capture
from anyrig.backend.motion.motion import Motion
from anyrig.backend.rig.rig import Rig
from anyrig.tests.addon.fixtures import random_motion

FPS = 24.0


class MadeUp:
    """Stands in for the network: a random motion for each rig that the capture asks for; `motions` are the latest ones."""

    def __init__(self, frames: int = 6, turning: float = 1.8) -> None:
        self.motions: list[Motion] = []
        self.rigs: list[Rig] = []
        self._frames, self._turning = frames, turning

    def __call__(self, targets: Any, *_: Any) -> Generator[Any, None, list[Motion]]:
        yield progress.Progress("Reading the motion", 0, 1)
        self.rigs = [target.rig for target in targets]
        made = [random_motion(rig, self._frames, 7 + seed, FPS, turning=self._turning) for seed, rig in enumerate(self.rigs)]
        self.motions = [replace(motion, provenance={"view": 0}) for motion in made]
        return self.motions


def use(monkeypatch: pytest.MonkeyPatch, **options: Any) -> MadeUp:
    """Captures are made up from now on, for natural skeletons; the views of the rig are 16 pixels wide."""
    stand_in, render_meshes = MadeUp(**options), run_capture.render_meshes
    monkeypatch.setattr(backend_capture, "capture", stand_in)
    monkeypatch.setattr(run_capture, "takes_natural_skeleton", lambda _: True)
    monkeypatch.setattr(run_capture, "render_meshes", lambda *a, **o: render_meshes(*a, size=16, **o))
    return stand_in


def capture_onto(*objects: bpy.types.Object) -> set[str]:
    """Select the armatures and click Capture from Video, as a user would; the first key falls on frame 1."""
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = int(FPS), 1
    scene.frame_set(1)
    scene.anyrig.armature, scene.anyrig["video"] = None, "/clips/walk.mp4"
    scene.anyrig.view, scene.anyrig.azimuth = "AZIMUTH", 0.0
    for obj in bpy.context.view_layer.objects:
        obj.select_set(obj in objects)
    bpy.context.view_layer.objects.active = objects[0]
    return bpy.ops.anyrig.capture()


def frames_of(motion: Motion) -> Any:
    return 1 + np.arange(len(motion))

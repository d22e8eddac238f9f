"""Random operator calls with random settings on random rigs: no exception escapes, nothing stray is left.

Every operator `anyrig.*` that is registered takes part, so one that is added later does by itself; those in LEFT_OUT do not, each for
its reason. An operator that may add data-blocks to the file says so in MAY_ADD. ANYRIG_RANDOM_CALLS=1000 runs a thousand calls,
ANYRIG_RANDOM_SEED=N others of them; a failure names both, the call and the calls before it.
"""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyrig.addon as addon
import bpy
import numpy as np
import pytest
import torch
from anyrig.addon.capture import run_capture, take_store
from anyrig.addon.settings import preference_values
from anyrig.addon.tasks import background_runner
from anyrig.backend.video.reader import write_video
from anyrig.tests.addon import chance
from anyrig.tests.addon.chance import Chance, Press

CALLS = int(os.environ.get("ANYRIG_RANDOM_CALLS", "190"))
SEED = int(os.environ.get("ANYRIG_RANDOM_SEED", "1"))
CALLS_PER_FILE = 15
LEFT_OUT = {
    "download_weights": "goes to the internet",
}
KEYS = {"actions", "texts"}
OVERLAY = {"actions", "cameras", "images", "objects"}
# what an operator may leave in the file when it succeeds
MAY_ADD = {
    "capture": KEYS,
    "queue_run": KEYS,
    "take_apply": KEYS,
    "take_refine": KEYS,
    "swap_sides": KEYS,
    "take_clean_up": KEYS,
    "keep_unrefined": KEYS,
    "take_recover": KEYS,
    "overlay": OVERLAY,
}
MAY_REMOVE = {
    "take_delete": KEYS,
    "overlay": OVERLAY,
}
# started by a button in the background, they end in a timer
BESIDE = ("capture", "queue_run", "show_subject", "take_refine", "swap_sides")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Videos good and bad; the user folder and the images' size are those of a test."""
    moving = np.full((5, 96, 128, 3), 200, np.uint8)
    for index, frame in enumerate(moving):
        frame[30:80, 20 + 4 * index : 50 + 4 * index] = (40, 90, 160)
    write_video(tmp_path / "box.mp4", list(moving), 12.0)
    write_video(tmp_path / "still.mp4", [moving[0]], 30.0)
    (tmp_path / "text.mp4").write_text("this is no video")
    for name in ("out", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    render_meshes = run_capture.render_meshes
    monkeypatch.setattr(run_capture, "render_meshes", lambda *a, **o: render_meshes(*a, **{"size": 32, **o}))
    monkeypatch.setattr(take_store, "folder", lambda: tmp_path / "takes")
    (tmp_path / "takes").mkdir()
    presets = tmp_path / "presets"
    presets.mkdir()
    monkeypatch.setattr(bpy.utils, "user_resource", lambda *_a, **_o: str(presets))
    monkeypatch.setattr(bpy.utils, "preset_paths", lambda _folder: [str(presets)])
    monkeypatch.setattr(preference_values, "weights_folder", lambda _context: str(tmp_path / "weights"))
    torch.set_num_threads(1)
    return tmp_path


class Timers:
    """Takes down which functions the add-on registers as timers, and plays them: without windows nothing else does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known: set[Callable[[], Any]] = set()
        register = bpy.app.timers.register

        def note(function: Callable[[], Any], **options: Any) -> None:
            self.known.add(function)
            register(function, **options)

        monkeypatch.setattr(bpy.app.timers, "register", note)

    def alive(self) -> list[Callable[[], Any]]:
        return [function for function in self.known if bpy.app.timers.is_registered(function)]

    def play(self, seconds: float = 60.0) -> None:
        """Until none is left."""
        end = time.monotonic() + seconds
        while alive := self.alive():
            assert time.monotonic() < end, f"timers without an end: {alive}"
            for function in alive:
                bpy.app.timers.unregister(function)
                pause = function()
                if pause is not None:
                    bpy.app.timers.register(function, first_interval=pause)
            time.sleep(0.002)


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    return Timers(monkeypatch)


def handlers() -> dict[str, list[Any]]:
    return {name: list(each) for name in dir(bpy.app.handlers) if isinstance(each := getattr(bpy.app.handlers, name), list)}


class Session:
    """One user with a very short attention span."""

    def __init__(self, folder: Path, timers: Timers) -> None:
        paths = [
            folder / name for name in ("box.mp4", "box.mp4", "still.mp4", "text.mp4", "none.mp4", "out/file", "no/folder/file")
        ]
        self.chance = Chance(SEED, ["", *map(str, paths)], ["", str(folder), str(folder / "no"), str(folder / "out")])
        self.timers, self.folder = timers, folder
        self.ended: Counter[tuple[str, str]] = Counter()
        self.log: deque[str] = deque(maxlen=12)
        self.has_window = False
        self._pending: list[str] = []

    def next_name(self) -> str:
        """Every operator comes round, in a new order each time; what everything else lives on comes more often."""
        if not self._pending:
            names = [name for name in dir(bpy.ops.anyrig) if name not in LEFT_OUT]
            self._pending = [*names, "capture", "capture", "capture", "queue_add", "queue_add", "queue_run"]
            self.chance.random.shuffle(self._pending)
        return self._pending.pop()

    def prepare(self, count: int) -> None:
        if count % CALLS_PER_FILE == 0:
            self.chance.new_file()
        if self.chance(0.5):
            self.chance.look_elsewhere()
        self.chance.settings(0.1)
        props = bpy.context.scene.anyrig
        if self.chance(0.7):  # what runs at all, and soon
            for name in sorted(set(props.bl_rna.properties.keys()) - {"rna_type"}):
                props.property_unset(name)
            props.video, props.trim_start, props.trim_end = str(self.folder / "box.mp4"), 0.0, 0.0
            props.model, props.model_file, props.device = "FILE", "tiny", "cpu"
        elif props.model != "FILE" and self.chance(0.9):
            props.model, props.model_file = "FILE", "tiny"
        if self.chance(0.1):
            bpy.ops.ed.undo_push(message="by chance")
        elif self.chance(0.05) and bpy.ops.ed.undo.poll():
            bpy.ops.ed.undo()

    def call(self, name: str) -> None:
        """One call, and what must hold after it."""
        operator = getattr(bpy.ops.anyrig, name)
        arguments = self.chance.arguments(operator)
        beside = name in BESIDE and self.chance(0.5) and operator.poll()
        self.log.append(f"{name}({arguments}){' in the background' if beside else ''}")
        blocks, rigs, stance = chance.data_blocks(), chance.rig_data(), chance.stance()
        how = self._press(name) if beside else self._execute(operator, arguments)
        self.log[-1] += f" -> {how}"
        self.ended[name, how.split(":")[0]] += 1
        assert "Unexpected" not in background_runner.status()[0] or not background_runner.status()[1], background_runner.status()[
            0
        ]
        if how != "another file":
            self._compare(name, how == "FINISHED", blocks, stance)
            assert {key: value for key, value in chance.rig_data().items() if key in rigs} == rigs, "the rig's data was changed"
        assert beside or not self.timers.alive(), self.timers.alive()

    def _execute(self, operator: Any, arguments: dict[str, Any]) -> str:
        try:
            return " ".join(sorted(operator(**arguments)))
        except RuntimeError as error:
            text = str(error).strip()
            assert "Traceback" not in text and (".poll()" in text or text.startswith("Error: ")), text
            return "refused" if ".poll()" in text else f"told: {text}"

    def _press(self, name: str) -> str:
        """The button, and then the timer, cancel, or another file."""
        owner = getattr(bpy.types, f"ANYRIG_OT_{name}")
        self.has_window = True
        owner.invoke(Press(owner), bpy.context, None)
        self.has_window = False
        if self.chance(0.2) and bpy.ops.anyrig.cancel.poll():
            bpy.ops.anyrig.cancel()
        elif self.chance(0.1):
            self.chance.new_file()
            assert not self.timers.alive() and background_runner.current() is None, "loading a file left the job"
            return "another file"
        self.timers.play()
        assert background_runner.current() is None
        text, is_error = background_runner.status()
        if name == "queue_run":
            return "FINISHED"
        return f"told: {text}" if is_error or text.startswith("Cancelled") else "FINISHED"

    def _compare(self, name: str, finished: bool, before: dict[str, frozenset[str]], stance: list[Any]) -> None:
        after = chance.data_blocks()
        added = {kind for kind, names in after.items() if names - before[kind]}
        gone = {kind for kind, names in after.items() if before[kind] - names}
        assert added <= (MAY_ADD.get(name, set()) if finished else set()), f"{name} left {added}"
        assert gone <= (MAY_REMOVE.get(name, set()) if finished else set()), f"{name} removed {gone}"
        if not finished:
            assert chance.stance() == stance, f"{name} did nothing, and yet the scene is another"


def test_random_calls_leave_nothing_behind(folder: Path, timers: Timers, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, clean = set(threading.enumerate()), handlers()
    session = Session(folder, timers)
    monkeypatch.setattr(background_runner, "has_window", lambda _context: session.has_window)
    monkeypatch.setattr(background_runner, "watch_escape", lambda: None, raising=False)  # it needs a real window
    addon.register()
    try:
        during = handlers()
        for count in range(CALLS):
            session.prepare(count)
            try:
                session.call(session.next_name())
            except Exception as error:
                last = "\n  ".join(session.log)
                raise AssertionError(f"seed {SEED}, call {count} of {CALLS}: {error}\nthe last calls:\n  {last}") from error
        assert handlers() == during
    finally:
        addon.unregister()
    print(f"{CALLS} calls:", *(f"{name} {how} {count}" for (name, how), count in sorted(session.ended.items())), sep="\n  ")
    assert not list((folder / "here").iterdir()), "a file was written to where Blender was started"
    assert handlers() == clean and not timers.alive() and not dir(bpy.ops.anyrig)
    assert not [name for name in dir(bpy.types) if name.startswith("ANYRIG_")] and not hasattr(bpy.types.Scene, "anyrig")
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    assert set(threading.enumerate()) <= threads
    assert session.ended["capture", "FINISHED"] > CALLS // 50, "hardly a capture succeeded: the test shows nothing"

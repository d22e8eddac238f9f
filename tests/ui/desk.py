"""A screen that nobody sees, Blender on it, and the mouse and keyboard of a user who looks at what is there."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from anyrig.tests.ui.real import Debian

WIDTH, HEIGHT = 1360, 1280  # so high that all panels are in view at once
START = 180.0  # seconds until Blender shows its window: software rendering on a slow machine
STEP = 9  # pixels between two looks for a button, less than half of one
RIGHT, LEFT = 0.72, 0.3  # where to look in the sidebar, in shares of its width: rows of two buttons have one on each side
FOLDER_BUTTON = 44  # pixels from the right end of the sidebar to the folder of a file's setting
COPY_OPERATOR, COPY_PATH = "ctrl+c", "ctrl+alt+shift+c"


@dataclass
class Desk:
    """buttons: what lies where in the sidebar, operators as `anyrig.capture()`, properties as `anyrig.video`."""

    debian: Debian
    state_file: Path
    images: Path
    blender: subprocess.Popen[str]
    buttons: dict[str, tuple[int, int]] = field(default_factory=dict)

    # ---- looking

    def state(self) -> dict[str, Any]:
        """What Blender last told of itself."""
        assert self.blender.poll() is None, f"Blender has ended with code {self.blender.returncode}"
        return json.loads(self.state_file.read_text())

    def wait(self, what: str, until: Callable[[dict[str, Any]], Any], seconds: float = 30.0) -> dict[str, Any]:
        """The first state that the condition holds of. Fails, with an image, if none comes in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.state_file.exists() and until(self.state()):
                return self.state()
            time.sleep(0.05)
        self.image("failed")
        raise AssertionError(f"waited {seconds:g} s for: {what}; see {self.images}; {self.state()}")

    def settled(self) -> dict[str, Any]:
        """The state after Blender has dealt with what was done so far."""
        ticks = self.state()["ticks"]
        return self.wait("Blender to answer", lambda state: state["ticks"] >= ticks + 2)

    def image(self, name: str) -> Path:
        """The whole screen as PNG."""
        path = self.images / f"{name}.png"
        self.debian.run(["import", "-window", "root", f"/shared/{path.name}"])
        path.write_bytes((self.debian.shared / path.name).read_bytes())
        return path

    def viewport(self) -> np.ndarray:
        """What the 3D viewport shows left of the sidebar, (H, W, 3) uint8."""
        x, y, width, height = self.state()["view"]
        whole = cv2.imread(str(self.image("viewport")))
        return whole[y + height // 4 : y + 3 * height // 4, x + width // 12 : x + width // 2]

    # ---- doing

    def xdotool(self, *arguments: str | int) -> None:
        self.debian.run(["xdotool", *(str(argument) for argument in arguments)])

    def point(self, x: int, y: int) -> None:
        # two moves: a button becomes active by the mouse entering it
        self.xdotool("mousemove", x - 3, y, "sleep", "0.05", "mousemove", x, y, "sleep", "0.15")

    def click(self, x: int, y: int) -> None:
        self.point(x, y)
        self.settled()  # Blender asks where the mouse is when it comes to the click, not where it was
        self.xdotool("click", 1)
        self.settled()

    def press(self, key: str) -> None:
        self.xdotool("key", key, "sleep", "0.1")

    def point_at_view(self) -> None:
        x, y, width, height = self.state()["view"]
        self.point(x + width // 3, y + height // 2)

    def open_tab(self, name: str) -> None:
        """Press N over the viewport, then click down the strip of tabs until ours is the one that is shown."""
        if not self.state()["open"]:
            self.point_at_view()
            self.press("n")
            self.wait("the sidebar", lambda state: state["open"] and state["panel"][2] > 50)
        x, y, width, height = self.state()["panel"]
        for down in range(20, height, 30):
            if self.state()["tab"] == name:
                return
            self.click(x + width - 10, y + down)
            self.settled()
        raise AssertionError(f"no tab '{name}': {self.image('failed')}")

    def find(self, *wanted: str, near: tuple[int, int] | None = None, side: float = RIGHT) -> None:
        """Move down the sidebar and ask of what lies under the mouse what it is, until all wanted buttons are known."""
        x, y, width, height = self.state()["panel"]
        rows = range(y + 12, y + height, STEP)
        if near is not None:
            rows = sorted(rows, key=lambda row: abs(row - near[1]))
        for name in wanted:
            self.buttons.pop(name, None)
        for row in rows:
            at = (x + int(width * side), row)
            for text in self._under(*at):
                self.buttons.setdefault(text, at)
            if all(name in self.buttons for name in wanted):
                return
        raise AssertionError(f"no {wanted} among {sorted(self.buttons)}: {self.image('failed')}")

    def press_button(self, name: str, near: str | None = None, side: float = RIGHT) -> None:
        """Look for the button again, since panels grow and shrink, and click it."""
        before = self.buttons.get(near or name)
        self.find(name, near=before, side=side)
        self.click(*self.buttons[name])

    def open_panel(self, below: str, pixels: int, holds: str, side: float = RIGHT) -> None:
        """Click the header that many pixels below the middle of a button; the panel then holds another button."""
        x, y = self.buttons[below]
        self.click(x, y + pixels)
        self.settled()
        self.find(holds, near=(x, y + pixels + 30), side=side)

    def choose(self, name: str, value: str) -> None:
        """Turn the mouse wheel over a menu, with Ctrl, until the setting has the value."""
        self.find(name, near=self.buttons.get(name))
        self.point(*self.buttons[name])
        for _ in range(8):
            if self.settled()["settings"][name.rpartition(".")[2]] == value:
                return
            self.xdotool("keydown", "ctrl", "click", 5, "sleep", "0.1", "keyup", "ctrl", "sleep", "0.2")
        raise AssertionError(f"'{name}' does not become '{value}': {self.image('failed')}")

    def type_into(self, name: str, text: str) -> None:
        self.press_button(name)
        self.xdotool("sleep", "0.3", "key", "ctrl+a", "sleep", "0.2", "type", "--delay", "40", text)
        self.xdotool("sleep", "0.2", "key", "Return")

    def pick_file(self, name: str, folder: str, file: str) -> None:
        """The folder button of a setting, then Blender's file browser: type the folder and the file, click Accept."""
        self.find(name, near=self.buttons.get(name))
        panel_x, _, panel_width, _ = self.state()["panel"]
        self.click(panel_x + panel_width - FOLDER_BUTTON, self.buttons[name][1])
        self.wait("the file browser", lambda state: state["browser"])
        self.xdotool("sleep", "1")  # until it is on the screen
        self._type_in_browser("UI", 0.5, folder)
        self.wait("the folder", lambda state: state["browser"]["directory"].rstrip("/") == folder)
        self._type_in_browser("EXECUTE", 0.3, file)
        self.wait("the file's name", lambda state: state["browser"]["filename"] == file)
        self.image("2-file-browser")
        self.click(*self._in_browser("EXECUTE", 0.93))
        self.wait("the file browser to close", lambda state: not state["browser"])

    def drop_file(self, path: str, image: str) -> None:
        """Let a video go over the 3D viewport, as from a file manager, and click in Blender's menu what the mouse is over then: ours."""
        self.point_at_view()
        x, y, width, height = self.state()["view"]
        where = [str(x + width // 3), str(y + height // 2)]
        self.debian.run(["python3", "/repo/tests/ui/drag.py", path, *where])
        time.sleep(2.0)  # the menu is drawn
        self.image(image)
        self.xdotool("click", 1)
        self.settled()

    def _type_in_browser(self, region: str, share: float, text: str) -> None:
        self.click(*self._in_browser(region, share))
        self.xdotool("sleep", "0.3", "key", "ctrl+a", "sleep", "0.2", "type", "--delay", "40", text)
        self.xdotool("sleep", "0.2", "key", "Return")

    def _in_browser(self, region: str, share: float) -> tuple[int, int]:
        """A point on the screen: that share of the region's width from its left, half-way down."""
        said = self.debian.run(["xdotool", "search", "--name", "Blender File View", "getwindowgeometry", "--shell"]).stdout
        place = dict(line.split("=") for line in said.split())
        x, y, width, height = self.state()["browser"]["regions"][region]
        return int(place["X"]) + x + int(width * share), int(place["Y"]) + y + height // 2

    def _under(self, x: int, y: int) -> list[str]:
        before = len(self.state()["copied"])
        self.point(x, y)
        self.xdotool("key", COPY_OPERATOR, "sleep", "0.15", "key", COPY_PATH)
        return [short(text) for text in self.settled()["copied"][before:]]


def short(copied: str) -> str:
    """`bpy.ops.anyrig.capture()` -> anyrig.capture(); `bpy.data.scenes["Scene"].anyrig.video` -> anyrig.video."""
    if copied.startswith("bpy.ops."):
        return copied.removeprefix("bpy.ops.")
    return copied.rpartition("].")[2] if "]." in copied else copied


@contextmanager
def desk(debian: Debian, file: str, images: Path) -> Iterator[Desk]:
    """Blender with a window that shows /shared/FILE."""
    state_file = debian.shared / "state.json"
    state_file.unlink(missing_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    with _started(debian, ["Xvfb", "-displayfd", "1", "-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-nolisten", "tcp"]) as screen:
        assert screen.stdout is not None
        inside = replace(debian, more={"DISPLAY": f":{screen.stdout.readline().strip()}"})
        start = ["blender", "-p", "0", "0", str(WIDTH), str(HEIGHT), f"/shared/{file}"]
        with _started(inside, [*start, "--python", "/repo/tests/ui/window.py", "--", "/shared/state.json"]) as blender:
            found = Desk(inside, state_file, images, blender)
            found.wait("Blender's window", lambda _: True, START)
            yield found


@contextmanager
def _started(debian: Debian, command: list[str]) -> Iterator[subprocess.Popen[str]]:
    log = (debian.shared / f"{command[0]}.log").open("w")
    process = subprocess.Popen(
        debian.command(command), stdout=subprocess.PIPE if command[0] == "Xvfb" else log, stderr=log, text=True
    )
    try:
        yield process
    finally:
        # the namespace's first process takes all others with it
        process.kill()
        process.wait()
        log.close()

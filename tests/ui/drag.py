"""Drags a file from a file manager that does not exist: `python3 drag.py FILE X Y` lets it go at that point of the screen.

It plays the source of X11's drag and drop (XDND 5): offers a list of one address, waits for the window under the mouse to say yes,
drops, and hands the list over when it is asked for. Needs libX11 alone. Exit code 0: the window said that it took it.
"""

from __future__ import annotations

import ctypes
import sys
import time
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p
from pathlib import Path
from typing import Any

CLIENT_MESSAGE, SELECTION_REQUEST, SELECTION_NOTIFY = 33, 30, 31
HEAD = [("type", c_int), ("serial", c_ulong), ("send_event", c_int), ("display", c_void_p)]
PATIENCE = 20.0  # seconds


class Client(ctypes.Structure):
    _fields_ = [*HEAD, ("window", c_ulong), ("message", c_ulong), ("format", c_int), ("data", c_long * 5)]


class Request(ctypes.Structure):
    _fields_ = [*HEAD, *((name, c_ulong) for name in ("owner", "requestor", "selection", "target", "property", "time"))]


class Notify(ctypes.Structure):
    _fields_ = [*HEAD, *((name, c_ulong) for name in ("requestor", "selection", "target", "property", "time"))]


class Event(ctypes.Union):
    _fields_ = [("type", c_int), ("client", Client), ("request", Request), ("notify", Notify), ("pad", c_long * 24)]


class Source:
    def __init__(self, file: str) -> None:
        self._x = ctypes.CDLL("libX11.so.6")
        self._declare()
        self._display = self._x.XOpenDisplay(None)
        self._root = self._x.XDefaultRootWindow(self._display)
        self._own = self._x.XCreateSimpleWindow(self._display, self._root, 0, 0, 1, 1, 0, 0, 0)
        self._uris = f"{Path(file).as_uri()}\r\n".encode()
        self._kind = self._atom("text/uri-list")
        self._x.XSetSelectionOwner(self._display, self._atom("XdndSelection"), self._own, 0)

    def _declare(self) -> None:
        window = [c_void_p, c_ulong]
        self._x.XOpenDisplay.restype = c_void_p
        for name, result, kinds in (
            ("XDefaultRootWindow", c_ulong, [c_void_p]),
            ("XCreateSimpleWindow", c_ulong, [*window, c_int, c_int, c_uint, c_uint, c_uint, c_ulong, c_ulong]),
            ("XInternAtom", c_ulong, [c_void_p, c_char_p, c_int]),
            ("XSetSelectionOwner", c_int, [*window, c_ulong, c_ulong]),
            ("XQueryPointer", c_int, [*window, *[POINTER(c_ulong)] * 2, *[POINTER(c_int)] * 4, POINTER(c_uint)]),
            ("XSendEvent", c_int, [*window, c_int, c_long, POINTER(Event)]),
            ("XChangeProperty", c_int, [*window, c_ulong, c_ulong, c_int, c_int, c_char_p, c_int]),
            ("XPending", c_int, [c_void_p]),
            ("XNextEvent", c_int, [c_void_p, POINTER(Event)]),
            ("XFlush", c_int, [c_void_p]),
        ):
            function = getattr(self._x, name)
            function.restype, function.argtypes = result, kinds

    def drop(self, x: int, y: int) -> bool:
        """Whether the window below the mouse took the file."""
        target = self._under_the_mouse()
        self._tell(target, "XdndEnter", 5 << 24, self._kind, 0, 0)
        where = self._atom("XdndActionCopy")
        for _ in range(3):  # a hand moves before it lets go
            self._tell(target, "XdndPosition", 0, x << 16 | y, 0, where)
            time.sleep(0.3)
        dropped, end = False, time.monotonic() + PATIENCE
        while time.monotonic() < end:
            event = self._next()
            if event is None:
                time.sleep(0.02)
            elif event.type == SELECTION_REQUEST:
                self._hand_over(event.request)
            elif event.type == CLIENT_MESSAGE and event.client.message == self._atom("XdndStatus"):
                if event.client.data[1] & 1 and not dropped:
                    dropped = True
                    self._tell(target, "XdndDrop", 0, 0, 0, 0)
            elif event.type == CLIENT_MESSAGE and event.client.message == self._atom("XdndFinished"):
                return True
        return False

    def _under_the_mouse(self) -> int:
        root, child, numbers, mask = c_ulong(), c_ulong(), [c_int() for _ in range(4)], c_uint()
        self._x.XQueryPointer(self._display, self._root, byref(root), byref(child), *map(byref, numbers), byref(mask))
        return child.value

    def _tell(self, window: int, message: str, *data: int) -> None:
        event = Event()
        event.client = Client(
            CLIENT_MESSAGE, 0, 1, self._display, window, self._atom(message), 32, (c_long * 5)(self._own, *data)
        )
        self._send(window, event)

    def _hand_over(self, asked: Any) -> None:
        asker, named = asked.requestor, asked.property
        self._x.XChangeProperty(self._display, asker, named, asked.target, 8, 0, self._uris, len(self._uris))
        event = Event()
        event.notify = Notify(SELECTION_NOTIFY, 0, 1, self._display, asker, asked.selection, asked.target, named, asked.time)
        self._send(asker, event)

    def _send(self, window: int, event: Event) -> None:
        self._x.XSendEvent(self._display, window, 0, 0, byref(event))
        self._x.XFlush(self._display)

    def _next(self) -> Event | None:
        if not self._x.XPending(self._display):
            return None
        event = Event()
        self._x.XNextEvent(self._display, byref(event))
        return event

    def _atom(self, name: str) -> int:
        return self._x.XInternAtom(self._display, name.encode(), 0)


if __name__ == "__main__":
    sys.exit(0 if Source(sys.argv[1]).drop(int(sys.argv[2]), int(sys.argv[3])) else 1)

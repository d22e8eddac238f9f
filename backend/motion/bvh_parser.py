"""The grammar of BVH: a file's text -> joints and columns of numbers, or an error that names the line. numpy only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..errors import UserError
from ..geometry.rotations import Array

CHANNELS = {f"{axis}{kind}" for axis in "xyz" for kind in ("position", "rotation")}
END = -1  # stands for an End Site among the open braces


@dataclass
class BvhJoint:
    """One joint as the file has it.

    parent: index of the parent in the file's order, -1 for a root. offset: (3,). channels: lower case, in the file's order,
    the first of them in column `column` of the motion. end: (3,) offset of the End Site, or None.
    """

    name: str
    parent: int
    line: int
    offset: Array | None = None
    channels: tuple[str, ...] = ()
    column: int = 0
    end: Array | None = None


def parse_bvh(path: Path) -> tuple[list[BvhJoint], Array, float]:
    """-> (joints in the file's order, values (F, C), seconds per frame). Raises UserError with the line number."""
    return _Parser(path).parse()


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"BVH file '{path}' cannot be read ({error.strerror}): check the path.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:  # files of old Windows tools; any bytes are Latin-1, so names survive
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class _Parser:
    def __init__(self, path: Path) -> None:
        self.path = path
        lines = enumerate(_read(path).split("\n"), start=1)
        self.lines = [(number, text.strip()) for number, text in lines if text.strip()]
        self.joints: list[BvhJoint] = []
        self.open: list[int] = []  # joints whose brace is open
        self.header: int | None = None  # the joint or END whose opening brace comes next
        self.columns = 0

    def fail(self, line: int, message: str) -> NoReturn:
        raise UserError(f"BVH file '{self.path}', line {line}: {message}.")

    def parse(self) -> tuple[list[BvhJoint], Array, float]:
        if not self.lines or self.lines[0][1].upper() != "HIERARCHY":
            line = self.lines[0][0] if self.lines else 1
            self.fail(line, "the file does not begin with HIERARCHY; check that it is a BVH file")
        motion = next((i for i, (_, text) in enumerate(self.lines) if text.upper() == "MOTION"), len(self.lines))
        for line, text in self.lines[1:motion]:
            for statement in re.findall(r"[{}]|[^{}]+", text):
                if statement.strip():
                    self.statement(line, statement.strip())
        last = self.lines[min(motion, len(self.lines) - 1)][0]
        if self.open or self.header is not None:
            self.fail(last, "the braces of the hierarchy do not match; a '}' is missing before this line")
        if not self.joints:
            self.fail(last, "the hierarchy has no ROOT")
        if motion == len(self.lines):
            self.fail(last, "the file ends without a MOTION part; it is cut short, export it again")
        return self.joints, *self.motion(motion)

    def statement(self, line: int, text: str) -> None:
        key, _, rest = text.partition(" ") if "\t" not in text else text.replace("\t", " ").partition(" ")
        key, rest = key.upper(), rest.strip()
        if (key == "{") != (self.header is not None):
            self.fail(line, f"'{{' expected before '{text}'" if key != "{" else "'{' without a joint before it")
        known = {"{": self.brace, "}": self.close, "ROOT": self.joint, "JOINT": self.joint, "END": self.end}
        known |= {"OFFSET": self.offset, "CHANNELS": self.channels}
        if key not in known:
            self.fail(line, f"'{key}' is not a BVH keyword; check the spelling")
        if key in ("}", "JOINT", "END", "OFFSET", "CHANNELS") and not self.open:
            self.fail(line, f"'{key}' stands outside of a ROOT; check the braces above")
        if key in ("JOINT", "END", "CHANNELS") and self.open[-1] == END:
            self.fail(line, f"'{key}' stands inside an End Site; check the braces above")
        known[key](line, key, rest)

    def brace(self, line: int, key: str, rest: str) -> None:
        self.open.append(END if self.header is None else self.header)
        self.header = None

    def close(self, line: int, key: str, rest: str) -> None:
        index = self.open.pop()
        if index != END and self.joints[index].offset is None:
            self.fail(line, f"joint '{self.joints[index].name}' has no OFFSET; add one")

    def joint(self, line: int, key: str, rest: str) -> None:
        if key == "ROOT" and self.open:
            self.fail(line, f"ROOT '{rest}' stands inside another joint; it should be a JOINT")
        if not rest:
            self.fail(line, f"the {key} has no name; add one")
        self.header = len(self.joints)
        self.joints.append(BvhJoint(rest, self.open[-1] if self.open else -1, line))

    def end(self, line: int, key: str, rest: str) -> None:
        self.header = END

    def offset(self, line: int, key: str, rest: str) -> None:
        values = self.numbers(line, rest)
        if len(values) != 3:
            self.fail(line, f"OFFSET has {len(values)} numbers; it needs 3")
        if self.open[-1] == END:
            self.joints[self.open[-2]].end = values
        else:
            self.joints[self.open[-1]].offset = values

    def channels(self, line: int, key: str, rest: str) -> None:
        count, *names = rest.lower().split() or [""]
        unknown = next((name for name in names if name not in CHANNELS), None)
        if unknown is not None:
            self.fail(line, f"channel '{unknown}' is unknown; it must be one of Xposition to Zposition, Xrotation to Zrotation")
        if not count.isdecimal() or int(count) != len(names):
            self.fail(line, f"CHANNELS announces '{count}' channels but names {len(names)}; correct the number")
        joint = self.joints[self.open[-1]]
        if joint.channels:
            self.fail(line, f"joint '{joint.name}' has CHANNELS twice; remove one")
        joint.channels, joint.column = tuple(names), self.columns
        self.columns += len(names)

    def motion(self, start: int) -> tuple[Array, float]:
        """The lines after MOTION -> (values (F, C), seconds per frame)."""
        frames = self.setting(start + 1, "Frames:")
        frame_time = self.setting(start + 2, "Frame Time:")
        if frames < 0 or frames != int(frames):
            self.fail(self.lines[start + 1][0], f"the number of frames is {frames:g}; it must be a whole number")
        if not frame_time > 0:
            self.fail(self.lines[start + 2][0], f"the frame time is {frame_time:g} seconds; it must be above zero")
        rows = self.lines[start + 3 :]
        if len(rows) != frames and self.columns:
            line = rows[int(frames)][0] if len(rows) > frames else self.lines[-1][0]
            self.fail(line, f"the file announces {frames:.0f} frames and has {len(rows)}; correct 'Frames:' or export it again")
        values = [self.row(line, text) for line, text in rows]
        return np.array(values).reshape(int(frames), self.columns), frame_time

    def setting(self, index: int, name: str) -> float:
        line, text = self.lines[index] if index < len(self.lines) else (self.lines[-1][0], "")
        pattern = r"\s*".join(re.escape(word) for word in re.findall(r"\w+|:", name))
        match = re.match(pattern + r"\s*(\S+)$", text, re.IGNORECASE)
        if match is None:
            self.fail(line, f"'{name}' and a number must stand here")
        return float(self.numbers(line, match[1])[0])

    def row(self, line: int, text: str) -> Array:
        values = self.numbers(line, text)
        if len(values) != self.columns:
            self.fail(line, f"this frame has {len(values)} values and the joints have {self.columns} channels; export it again")
        return values

    def numbers(self, line: int, text: str) -> Array:
        words = text.split()
        try:
            values = np.array(words, dtype=np.float64)
        except ValueError:
            self.fail(line, f"'{next(word for word in words if not _is_number(word))}' is not a number")
        if not np.isfinite(values).all():
            self.fail(line, f"'{words[int(np.argmin(np.isfinite(values)))]}' is not a finite number")
        return values


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True

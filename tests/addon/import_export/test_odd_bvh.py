"""Odd BVH files: the add-on's import and the project's own reader accept the same ones."""

from pathlib import Path

import bpy
import pytest
from anyrig.addon.import_export.import_rig import import_rig
from anyrig.backend.errors import UserError
from anyrig.backend.motion.bvh import read_bvh

PLAIN = """HIERARCHY
ROOT hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT chest
  {
    OFFSET 0 1 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 1 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.033333
0 0 0 0 0 0 0 0 0
0 0 0 10 0 0 0 5 0
"""
HIERARCHY = PLAIN.partition("MOTION")[0]
FILES = {
    "plain": PLAIN,
    "Windows line ends": PLAIN.replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + PLAIN,
    "tabs": PLAIN.replace("  ", "\t"),
    "brace at the end of a line": PLAIN.replace("hips\n{", "hips {").replace("chest\n  {", "chest {"),
    "braces together": PLAIN.replace("  }\n}\n", "  }}\n"),
    "lower case": PLAIN.replace("HIERARCHY", "hierarchy").replace("ROOT", "root").replace("MOTION", "motion"),
    "blank lines": PLAIN.replace("\n", "\n\n"),
    "blank in a name": PLAIN.replace("hips", "my hips"),
    "no end site": PLAIN.replace("    End Site\n    {\n      OFFSET 0 1 0\n    }\n", ""),
    "no frames": HIERARCHY + "MOTION\nFrames: 0\nFrame Time: 0.033333\n",
    "no motion": HIERARCHY,
    "decimal comma": PLAIN.replace("0.033333", "0,033333"),
    "fewer frames": PLAIN.replace("Frames: 2", "Frames: 5"),
    "more frames": PLAIN.replace("Frames: 2", "Frames: 1"),
    "no frame time": PLAIN.replace("0.033333", "0"),
    "not a number": PLAIN.replace("10 0 0", "nan 0 0"),
    "cut": PLAIN[:150],
    "short line": PLAIN.replace("0 0 0 10 0 0 0 5 0", "0 0 0"),
    "other text": "hello\n",
    "empty": "",
}


@pytest.mark.parametrize("kind", FILES)
def test_both_readers_accept_the_same_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "walk.bvh"
    path.write_bytes(FILES[kind].encode())
    try:
        rig, _, _ = read_bvh(path)
    except UserError as refused:
        with pytest.raises(UserError) as error:
            import_rig(path)
        assert str(error.value) == str(refused)
        assert not bpy.data.objects
    else:
        obj = import_rig(path)
        assert obj.name == "walk" and len(obj.data.bones) == len(rig.names) == 2

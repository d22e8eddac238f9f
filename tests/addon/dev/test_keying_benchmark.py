"""`build.py dev bench-keys`: the figures come, and the file is as it was."""

import json
from pathlib import Path

import bpy
import pytest
from anyrig.addon.dev import commands


def test_the_benchmark_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = [set(getattr(bpy.data, kind)) for kind in ("objects", "armatures", "actions")]
    active, out = bpy.context.view_layer.objects.active, tmp_path / "bench.json"
    arguments = ["bench-keys", "--bones", "12", "--frames", "5", "--modes", "QUATERNION", "XYZ", "AXIS_ANGLE", "--json", str(out)]
    assert commands.main(arguments) == 0
    said = capsys.readouterr().out
    assert "12 bones, 5 frames" in said and "times as long" in said
    figures = json.loads(out.read_text())
    assert figures["bulk"] > 0 and figures["inserted"] > 0 and figures["blender"] == bpy.app.version_string
    assert [set(getattr(bpy.data, kind)) for kind in ("objects", "armatures", "actions")] == before
    assert bpy.context.view_layer.objects.active == active


@pytest.mark.parametrize(("arguments", "words"), [(["--bones", "0"], "1 bone"), (["--modes", "NOPE"], "NOPE")])
def test_wrong_arguments_end_in_a_sentence(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(bpy.data.objects)
    assert commands.main(["bench-keys", *arguments]) in (1, 2)
    assert words in capsys.readouterr().err
    assert set(bpy.data.objects) == before

"""The table of what hangs where: a row for each difference, and files that are no rig."""

from pathlib import Path

import bpy
import pytest
from anyrig.addon.dev import commands, skeletons
from anyrig.tests.addon import control_fixtures, fixtures


def test_a_row_for_each_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / f"{name}.blend" for name in ("footed_biped", "two_roots", "human")]
    for path in paths:
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
        obj = getattr(fixtures, path.stem)()
        if path.stem == "two_roots":
            obj.data.bones["stick"].name = "a|b"
        bpy.ops.wm.save_as_mainfile(filepath=str(path))
    broken = tmp_path / "broken.glb"
    broken.write_text("no rig")
    assert commands.main(["skeletons", *map(str, paths), str(broken)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ") or "broken" in line]
    assert lines[0].startswith("| file | joints | root |") and lines[1] == "| --- | --- | --- | --- |"
    cells = [line.split(" | ") for line in lines[2:-1]]
    assert [row[0] for row in cells] == ["| footed_biped.blend", "| ", "| ", "| two_roots.blend", "| ", "| ", "| human.blend"]
    assert cells[0][1:3] == ["15", "Body"] and cells[0][3].startswith("'foot.L' hangs on 'shin.L': ")
    assert cells[2][3].startswith("'Root' steps aside for 'Body'") and r"'a\|b' hangs on nothing" in lines[-3]
    assert cells[-1][1:] == ["21", "hips", "nothing |"] and "broken.glb" in lines[-1]


def test_a_control_rig_keeps_its_tree(tmp_path: Path) -> None:
    control_fixtures.auto_rig_pro()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "rig.blend"))
    [row] = skeletons.rows_of(tmp_path / "rig.blend")
    assert row[3] == skeletons.CONTROLS

"""Contact sheets: both worlds show the same pose, differences are told, and nothing of the making is left."""

import json
from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
import pytest
from anyrig.addon import command, sheet
from anyrig.addon.pack import make_pack
from anyrig.backend.packs import Pack
from anyrig.tests.addon.test_render import saved

SMALL = ["--size", "64"]


def packed(folder: Path) -> tuple[Path, Pack]:
    path = saved(folder)
    pack = make_pack(bpy.data.objects["Post"], "post")
    pack.save(folder / "post.npz")
    return path, pack


def test_a_sheet_with_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = packed(tmp_path)
    out, features = tmp_path / "out", tmp_path / "features.json"
    arguments = ["sheet", str(path), "--packs", str(tmp_path), "-o", str(out), "--features", str(features), *SMALL]
    assert command.main(arguments) == 0
    assert "post: overlap from 0." in capsys.readouterr().out
    shown = json.loads((out / "sheet.json").read_text())["post"]
    assert [view["clip"] for view in shown] == ["rest", *["lean"] * 3, *["stand"] * 3]
    assert min(view["overlap"] for view in shown) > 0.7 and max(view["colour"] for view in shown) < 0.2
    assert [file.name for file in out.glob("*.png")] == ["sheet-00.png"]
    measured = json.loads(features.read_text())
    assert measured["pictures"] == 7 and 0.3 < measured["cosine"]["same picture"]["pooled"] < 1


def test_a_pack_that_is_wrong_stands_out(tmp_path: Path) -> None:
    path, pack = packed(tmp_path)
    wrong = pack.clips["lean"].copy()
    wrong[:, :, 0, 3] += 2.0
    [_, *views] = sheet.views_of(path, replace(pack, clips={"lean": wrong}), 64)
    assert max(view.overlap for view in views) < 0.2
    pale = replace(pack.surface, colours=np.ones_like(pack.surface.colours))
    assert min(view.colour for view in sheet.views_of(path, replace(pack, surface=pale), 64)) > 0.3


def test_meshes_that_the_armature_does_not_move_are_shown(tmp_path: Path) -> None:
    path, pack = packed(tmp_path)
    bpy.ops.wm.open_mainfile(filepath=str(path))
    bpy.ops.mesh.primitive_cube_add(size=1.0, location=(1.5, 0, 1))
    bpy.ops.wm.save_mainfile()
    assert sheet.views_of(path, pack, 64)[0].overlap < 0.7


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    path, pack = packed(tmp_path)
    sheet.views_of(path, pack, 32)
    assert len(bpy.data.scenes) == 1 and not bpy.data.cameras and not bpy.data.scenes[0].render.film_transparent


def test_what_cannot_be_shown_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, pack = packed(tmp_path)
    arguments = ["sheet", str(path), "--packs", str(tmp_path), "-o", str(tmp_path / "out"), *SMALL]
    replace(pack, clips={"gone": pack.clips["lean"]}).save(tmp_path / "post.npz")
    assert command.main(arguments) == 1 and "Clip 'gone' of pack 'post'" in capsys.readouterr().out
    (tmp_path / "post.npz").unlink()
    assert command.main(arguments) == 1 and "post.npz' cannot be read" in capsys.readouterr().out


def test_painted_materials_get_the_mean_of_their_paint() -> None:
    bpy.ops.mesh.primitive_cube_add()
    obj = bpy.context.object
    layer = obj.data.color_attributes.new("Tint", "FLOAT_COLOR", "CORNER")
    layer.data.foreach_set("color", np.tile([0.1, 0.5, 0.2, 1.0], len(layer.data)).astype(np.float32))
    paint = bpy.data.materials.new("Paint")
    if paint.node_tree is None:
        paint.use_nodes = True
    tint = paint.node_tree.nodes.new("ShaderNodeVertexColor")
    tint.layer_name = "Tint"
    paint.node_tree.links.new(tint.outputs["Color"], paint.node_tree.nodes["Principled BSDF"].inputs["Base Color"])
    obj.data.materials.append(paint)
    [(material, before)] = sheet.show_painted([obj])
    assert material == paint and before[:3] == pytest.approx((0.8, 0.8, 0.8))
    assert tuple(paint.diffuse_color)[:3] == pytest.approx((0.1, 0.5, 0.2), abs=1e-3)

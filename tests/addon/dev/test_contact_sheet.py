"""The contact sheet: one image a file, on which training and Blender show the same rig in the same places."""

from pathlib import Path

import bpy
import numpy as np
import pytest
from anyrig.addon.dev import commands, contact_sheet
from anyrig.addon.dev.demo_character import WALKER, make_character
from anyrig.addon.review.side_by_side_movie import PAPER
from anyrig.backend.video.image_sequence import decode_image

SIZE = contact_sheet.SIZE


def test_one_image_a_file_on_which_both_ways_of_drawing_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walker = make_character(WALKER, 12)
    walker.location, walker.scale = (1, 2, 0), (2, 2, 2)
    path, broken = tmp_path / "walker.blend", tmp_path / "broken.glb"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    broken.write_text("no rig")
    assert commands.main(["sheet", str(broken), str(path), "-o", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    assert "broken.glb" in printed and f"{path}: rest, " in printed
    [image] = (tmp_path / "out").iterdir()
    assert image.name == "walker.png"
    sheet = decode_image(image)
    assert sheet is not None and sheet.shape == (2 * SIZE + SIZE // 10, 3 * SIZE, 3)
    shown = (np.abs(sheet[: 2 * SIZE].astype(int) - PAPER[::-1]) > 40).any(-1)
    shown[:40, :90] = shown[SIZE : SIZE + 40, :90] = False  # the labels
    cells = shown.reshape(2, SIZE, 3, SIZE)
    for drawn, rendered in zip(cells[0].swapaxes(0, 1), cells[1].swapaxes(0, 1), strict=True):
        assert rendered.mean() > 0.03 and (drawn & rendered).sum() > 0.8 * (drawn | rendered).sum()
    assert (cells[1, :, 0] != cells[1, :, 1]).sum() > 100, "the rest pose and a step"

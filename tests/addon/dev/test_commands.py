"""`build.py dev ...`: what it passes on, and what it says of a bad path."""

from pathlib import Path

import pytest
from anyrig.addon.dev import commands, pack


@pytest.mark.parametrize("arguments", [("pack", "a.glb"), ("render", "a.glb")])
def test_a_file_in_place_of_a_folder_is_told(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("in the way")
    assert commands.main([*arguments, "-o", str(tmp_path / "out")]) == 1
    assert f"Error: '{tmp_path / 'out'}' cannot be read or written (File exists)" in capsys.readouterr().err


def test_help_and_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["--help"]) == commands.main(["pack", "--help"]) == 0
    assert "usage: build.py dev pack" in capsys.readouterr().out
    assert commands.main([]) == commands.main(["none"]) == commands.main(["pack"]) == 2


def test_pack_passes_its_arguments_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(pack, "pack_command", lambda arguments, say: seen.append(arguments) or 1)
    assert commands.main(["pack", "a.glb", "-o", "out"]) == 1 and seen == [["a.glb", "-o", "out"]]

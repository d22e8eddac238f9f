"""The released weights in Blender: download, own files, removal; the table of joint names; a capture with both."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyrig.addon as addon
import bpy
import numpy as np
import pytest
from anyrig.addon.capture import run_capture
from anyrig.addon.command_line import commands
from anyrig.addon.released_model import joint_name_table, weights_panel
from anyrig.addon.rendering import engines
from anyrig.addon.rig.armature import rig_from_armature
from anyrig.addon.settings import preference_values
from anyrig.addon.settings.capture_params import CaptureParams
from anyrig.addon.tasks import background_runner
from anyrig.addon.ui import wrapped_label
from anyrig.backend.capture_settings import Settings
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.backend.weights import http_download as backend_download
from anyrig.backend.weights.registry import TABLE, Folder
from anyrig.tests.addon.chance import Press
from anyrig.tests.addon.fixtures import human
from anyrig.tests.backend.served import Server, serving, write_release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def server(release: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(backend_download, "PAUSE", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        server.fill(release)
        monkeypatch.setattr(preference_values, "mirror", lambda _: server.address)
        yield server


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ANYRIG_WEIGHTS", str(tmp_path / "weights"))
    addon.register()
    system = bpy.context.preferences.system
    before = system.use_online_access
    system.use_online_access = True
    yield
    system.use_online_access = before
    addon.unregister()


def here(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "weights")


def test_download_is_refused_offline(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bpy.context.preferences.system.use_online_access = False
    assert not bpy.app.online_access and not bpy.ops.anyrig.download_weights.poll()
    assert commands.main(["download", "release"]) == 1
    assert "Online access is off" in capsys.readouterr().err
    assert commands.main(["download"]) == 0  # listing asks nobody
    assert server.requests == [] and len(here(tmp_path).missing()) == 4


def test_download_button_waited_for(server: Server, tmp_path: Path) -> None:
    assert bpy.ops.anyrig.download_weights() == {"FINISHED"}
    assert here(tmp_path).missing() == []
    assert bpy.ops.anyrig.remove_weights() == {"FINISHED"}
    assert background_runner.status()[0].endswith("freed.") and len(here(tmp_path).missing()) == 4


def test_download_that_fails_is_told(server: Server) -> None:
    server.faults[TABLE[1].url("")] = ["html"]
    with pytest.raises(RuntimeError, match="dinov2-large is damaged.*web page"):
        bpy.ops.anyrig.download_weights()
    assert background_runner.status()[1] and "web page" in background_runner.status()[0]


def press(operator: type = weights_panel.ANYRIG_OT_download_weights, directory: str = "") -> set[str]:
    click = Press(operator)
    click.in_background, click.directory = True, directory
    return click.execute(bpy.context)


def play() -> None:
    """The window's timer, until the job has been handed over."""
    for _ in range(4000):
        if background_runner.poll_current() is None:
            return
        background_runner.current() and background_runner.current()._ended.wait(0.005)
    raise AssertionError("the job does not end")


def test_download_beside_a_window_and_cancel(server: Server, tmp_path: Path) -> None:
    server.files[TABLE[1].url("")] += b" " * 4_000_000  # so that there is something to cancel
    assert press() == {"FINISHED"}
    assert not bpy.ops.anyrig.download_weights.poll() and not bpy.ops.anyrig.capture.poll()
    running = background_runner.current()
    while "dinov2" not in running.progress.stage:
        running._ended.wait(0.001)
    assert bpy.ops.anyrig.cancel() == {"FINISHED"}
    play()
    assert background_runner.status()[0].startswith("Cancelled") and here(tmp_path).has(TABLE[0])
    server.fill(write_release(tmp_path / "again"))
    press()
    play()
    assert background_runner.status() == ("Ready: dinov2-large, t5-base, t5-base tokenizer.", False)
    assert here(tmp_path).missing() == []


def test_cancelled_own_files_are_no_download(release: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / TABLE[2].local).write_bytes(release[TABLE[2].name])
    assert press(weights_panel.ANYRIG_OT_adopt_weights, str(tmp_path / "mine")) == {"FINISHED"}
    bpy.ops.anyrig.cancel()
    play()
    assert background_runner.status()[0].startswith("Cancelled") and "download" not in background_runner.status()[0]


@pytest.mark.parametrize("beside", [True, False])
def test_what_nobody_expects_can_be_reported_with_a_button(beside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_arguments: Any) -> Any:
        yield from ()
        raise ZeroDivisionError

    monkeypatch.setattr(weights_panel, "fetch_files", breaks)
    if beside:
        press()
        play()
    else:
        with pytest.raises(RuntimeError, match="Unexpected ZeroDivisionError"):
            bpy.ops.anyrig.download_weights()
    assert background_runner.status()[1] and background_runner.status_fix() == "copy_diagnostics"


def test_esc_cancels_a_download_as_it_does_a_capture(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[bool] = []
    monkeypatch.setattr(background_runner, "watch_escape", lambda: watched.append(background_runner.current() is not None))
    press()
    play()
    assert watched == [True]


def test_own_files(release: dict[str, bytes], tmp_path: Path) -> None:
    for item in TABLE:
        (tmp_path / "mine" / item.local).parent.mkdir(exist_ok=True)
        (tmp_path / "mine" / item.local).write_bytes(release[item.name])
    assert bpy.ops.anyrig.adopt_weights(directory=str(tmp_path / "mine")) == {"FINISHED"}
    assert here(tmp_path).missing() == []
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {item.local for item in TABLE}
    with pytest.raises(RuntimeError, match="None of the released weights is in"):
        bpy.ops.anyrig.adopt_weights(directory=str(tmp_path / "weights"))
    with pytest.raises(RuntimeError, match="No folder is chosen"):
        bpy.ops.anyrig.adopt_weights()


def test_the_command(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["download"]) == 0
    out = capsys.readouterr().out
    assert out.count("missing") == 4 and all(item.repo in out and item.licence in out for item in TABLE)
    assert commands.main(["download", "release"]) == 0
    out = capsys.readouterr().out
    assert "Downloading dinov2-large" in out and "Converting the network" in out and "missing" not in out
    assert commands.main(["download", "--remove"]) == 0
    assert commands.main(["download", "bert"]) == 1
    assert "'bert'" in capsys.readouterr().err


class Layout:
    """Takes down what a panel draws."""

    def __init__(self, drawn: list[tuple[str, Any]] | None = None) -> None:
        self.drawn = [] if drawn is None else drawn

    def _sub(self, **_: Any) -> "Layout":
        return Layout(self.drawn)

    row = column = split = _sub

    def __getattr__(self, kind: str) -> Any:
        def call(*arguments: Any, **options: Any) -> SimpleNamespace:
            self.drawn.append((kind, options.get("text", arguments[0] if arguments else None)))
            return SimpleNamespace()

        return call


def drawn(panel: Any) -> list[tuple[str, Any]]:
    layout = Layout()
    panel.draw(SimpleNamespace(layout=layout), bpy.context)
    return layout.drawn


def test_the_panel_lists_what_is_there(server: Server) -> None:
    panel = weights_panel.ANYRIG_PT_weights
    assert not panel.poll(bpy.context)
    bpy.context.scene.anyrig.model = "release"
    assert panel.poll(bpy.context)
    texts = [text for _, text in drawn(panel)]
    assert "dinov2-large" in texts and "1.22 GB" in texts and "Download (2.57 GB)" in texts and "Remove" not in texts
    assert "t5-base tokenizer): Apache-2.0" in " ".join(texts)
    bpy.context.preferences.system.use_online_access = False
    assert "Open Preferences" in [text for _, text in drawn(panel)]
    bpy.context.preferences.system.use_online_access = True
    bpy.ops.anyrig.download_weights()
    texts = [text for _, text in drawn(panel)]
    assert "Remove" in texts and not any("Download" in str(text) for text in texts)


def test_the_panel_fits_the_sidebar() -> None:
    bpy.context.preferences.system.use_online_access = False
    lines = [text for kind, text in drawn(weights_panel.ANYRIG_PT_weights) if kind == "label"]
    assert {"Apache-2.0", "MIT"} <= set(" ".join(lines).split()) and max(map(len, lines)) <= wrapped_label.WRAP


def test_the_capture_without_weights_says_what_to_do(tmp_path: Path) -> None:
    human()
    props = bpy.context.scene.anyrig
    props.video, props.model = film(tmp_path), "release"
    with pytest.raises(RuntimeError, match="missing: network, dinov2-large, t5-base.*download them under Model"):
        bpy.ops.anyrig.capture()
    assert not bpy.data.actions


def film(folder: Path) -> str:
    frames = []
    for index in range(6):
        frame = np.full((96, 128, 3), 200, np.uint8)
        frame[30:80, 20 + 4 * index : 50 + 4 * index] = (40, 90, 160)
        frames.append(frame)
    write_video(folder / "box.mp4", frames, 12.0)
    return str(folder / "box.mp4")


def test_video_to_keys_with_the_released_model(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_meshes = run_capture.render_meshes
    monkeypatch.setattr(run_capture, "render_meshes", lambda *a, **o: render_meshes(*a, size=48, **o))
    bpy.ops.anyrig.download_weights()
    obj = human()
    props = bpy.context.scene.anyrig
    props.video, props.model, props.device, props.view = film(tmp_path), "release", "cpu", "AZIMUTH"
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    first = obj.animation_data.action
    assert tuple(first.frame_range) == (1.0, 11.0)  # 6 images at 12 fps in a scene of 24
    # what the user says of the joints reaches the network
    bpy.ops.anyrig.guess_names()
    for joint in bpy.context.scene.anyrig_naming[0].joints:
        joint.label = f"Tail {joint.name}"
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    assert values(first) != values(obj.animation_data.action)


def values(action: bpy.types.Action) -> list[float]:
    curves = action.fcurves if hasattr(action, "fcurves") else action.layers[0].strips[0].channelbags[0].fcurves
    return [point.co[1] for curve in curves for point in curve.keyframe_points]


def test_the_preferences_say_where_the_weights_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_capture, "render_meshes", lambda _, rig, *__, **___: (np.array(rig.rest), []))
    monkeypatch.setattr(
        preference_values,
        "preferences",
        lambda _: SimpleNamespace(
            weights_folder=str(tmp_path), mirror="", engine=engines.WORKBENCH, clear_origin=False, isnet_file=""
        ),
    )
    obj = human()
    for model, folder in (("lite", ""), ("release", str(tmp_path))):
        params = CaptureParams(Clip("v.mp4"), Settings(model=model))
        assert run_capture.gather(bpy.context, [obj], params).params.settings.weights == folder
    assert preference_values.weights_folder(bpy.context) == str(tmp_path)


# Joint names


def cryptic() -> bpy.types.Object:
    obj = human()
    for place, bone in enumerate(obj.data.bones):
        bone.name = f"Bone.{place:03}"
    return obj


def test_joints_are_guessed_edited_and_forgotten() -> None:
    obj, scene = cryptic(), bpy.context.scene
    rig = rig_from_armature(obj)
    assert joint_name_table.with_joint_names(scene, obj, rig) is rig
    assert bpy.ops.anyrig.guess_names() == {"FINISHED"}
    (table,) = scene.anyrig_naming
    said = {joint.name: joint.label for joint in table.joints}
    assert said.keys() == set(rig.names) and {"Hips", "Head", "Left Knee", "Right Hand"} <= set(said.values())
    knee = next(joint for joint in table.joints if joint.label == "Left Knee")
    knee.label = "Left Hock"
    table.joints[0].label = ""
    labels = dict(zip(rig.names, joint_name_table.with_joint_names(scene, obj, rig).labels, strict=True))
    assert labels[knee.name] == "Left Hock" and labels[table.joints[0].name] == "Hips"
    drawn(joint_name_table.ANYRIG_PT_naming)
    assert bpy.ops.anyrig.clear_names() == {"FINISHED"}
    assert not scene.anyrig_naming and not bpy.ops.anyrig.clear_names.poll()


def test_the_table_is_saved_with_the_scene_and_the_rig_is_not_touched(tmp_path: Path) -> None:
    obj = cryptic()
    before = sorted(obj.keys()), sorted(obj.data.keys())
    bpy.ops.anyrig.guess_names()
    assert (sorted(obj.keys()), sorted(obj.data.keys())) == before
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    (table,) = bpy.context.scene.anyrig_naming
    assert table.armature == bpy.data.objects["Human"] and "Left Knee" in [joint.label for joint in table.joints]


def test_each_armature_has_its_own_table() -> None:
    one, two = cryptic(), human()
    scene = bpy.context.scene
    for obj in (one, two):
        scene.anyrig.armature = obj
        bpy.ops.anyrig.guess_names()
    assert [table.armature for table in scene.anyrig_naming] == [one, two]
    bpy.ops.anyrig.guess_names()
    assert len(scene.anyrig_naming) == 2
    assert joint_name_table.table_of(scene, two).joints[0].label == "Hips"


def test_the_table_is_not_shown_for_lite() -> None:
    assert not joint_name_table.ANYRIG_PT_naming.poll(bpy.context)
    bpy.context.scene.anyrig.model = "release"
    assert joint_name_table.ANYRIG_PT_naming.poll(bpy.context)
    with pytest.raises(RuntimeError, match="poll"):
        bpy.ops.anyrig.guess_names()

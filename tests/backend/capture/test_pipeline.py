"""The capture generator end to end, with random `tiny` weights and videos made here."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyrig.backend import cli
from anyrig.backend.capture import pipeline
from anyrig.backend.capture.inference import motion_of, network_inputs_of, predict_positions, predict_rotations, windows
from anyrig.backend.capture.memory_plan import ComputePlan
from anyrig.backend.capture.pipeline import _note_of_others, capture, capture_positions, run_pose2rot
from anyrig.backend.capture.view_matching import likeness_of
from anyrig.backend.capture_settings import Settings
from anyrig.backend.cli import main
from anyrig.backend.encoders.crops import clip_squares
from anyrig.backend.encoders.efficientnet import Encoder
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.camera import Camera, fit_distance
from anyrig.backend.geometry.rotations import axis_angle_to_matrix, geodesic_angle, quaternion_to_matrix
from anyrig.backend.model.config import TINY
from anyrig.backend.model.network import Video2Pose2Rot
from anyrig.backend.motion.bvh import read_bvh
from anyrig.backend.motion.motion import Motion
from anyrig.backend.output_checks import check_outputs
from anyrig.backend.progress import Progress, drained
from anyrig.backend.rendering import point_splatting
from anyrig.backend.rendering.capsules import capsules
from anyrig.backend.rig.rig import Rig, Target
from anyrig.backend.segmentation.sightings import Candidate
from anyrig.backend.segmentation.subject import Subject
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.backend.weights.model_file import load_model
from anyrig.tests.backend.rig.test_natural_rig import game_rig
from anyrig.tests.test_layout import BLENDER, run_blocked

TINY_SETTINGS = Settings(model="tiny", device="cpu")


def make_rig(name: str = "biped", spine: int = 3) -> Rig:
    """Two legs, a spine, two arms; in armature space, z up."""
    heads = [(0, 0, 1.0)] + [(0, 0, 1.0 + 0.3 * (i + 1)) for i in range(spine)]
    parents = [-1, *range(spine)]
    for side in (1, -1):
        hip = len(heads)
        heads += [(0.15 * side, 0, 0.95), (0.15 * side, -0.02, 0.5), (0.4 * side, 0, 1.3), (0.7 * side, 0.05, 1.3)]
        parents += [0, hip, spine, hip + 2]
    rest = np.tile(np.eye(4), (len(heads), 1, 1))
    rest[:, :3, 3] = heads
    tails = rest[:, :3, 3] + np.array([0, -0.05, -0.3])
    nothing = np.zeros(len(heads), bool)
    return Rig(name, tuple(f"bone {i}" for i in range(len(heads))), np.array(parents), rest, tails, nothing, nothing)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The biped of capsules waving its arms in front of grey, from 30 degrees."""
    rig = make_rig()
    frames = 12
    pose = np.tile(rig.rest, (frames, 1, 1, 1))
    swing = axis_angle_to_matrix(np.tile([0.0, 1.0, 0.0], (frames, 1)), np.sin(np.arange(frames) / 2))
    for arm in (6, 10):
        head = rig.heads[arm]
        for joint in (arm, arm + 1):
            pose[:, joint, :3, 3] = head + (swing @ (rig.heads[joint] - head)[:, None])[..., 0]
            pose[:, joint, :3, :3] = swing
    cloud = point_splatting.cloud_of(capsules(rig), rig.rest)
    points, normals = cloud.skin(torch.tensor(pose))
    camera = Camera((0, 0, 1.1), fit_distance(1.3, 0.6), np.radians(30), 0.1, 0.6, 240, 200)
    light = torch.tensor([0.3, -1.0, 1.0])
    rgba = point_splatting.render(
        points, normals, cloud.colours, torch.tensor(camera.projection), light, 200, 240, spacing=cloud.spacing
    )
    rgb = rgba[..., :3] * rgba[..., 3:] + 0.7 * (1 - rgba[..., 3:])
    path = tmp_path_factory.mktemp("video") / "wave.mp4"
    write_video(path, (rgb * 255).to(torch.uint8).numpy(), 24)
    return path


def target(rig: Rig) -> Target:
    return Target(
        rig,
        tuple(point_splatting.reference_views(rig, capsules(rig, 1500), np.array(rig.rest), np.radians([0, 90, 180]), size=96)),
    )


def test_a_rig_of_one_bone_is_captured_too(video: Path) -> None:
    rest, nothing = np.eye(4)[None], np.zeros(1, bool)
    rig = Rig("ball", ("ball",), np.array([-1]), rest, np.array([[0.0, 0.0, 1.0]]), nothing, nothing)
    [motion] = drained(capture([target(rig)], Clip(str(video)), replace(TINY_SETTINGS, refine="quick")))
    assert motion.rotations.shape == (12, 1, 4) and np.isfinite(motion.rotations).all()


def test_capture_returns_a_motion_for_every_rig(video: Path) -> None:
    rigs = [make_rig(), make_rig("tall", spine=6)]
    stages = []
    work = capture([target(rig) for rig in rigs], Clip(str(video)), TINY_SETTINGS)
    while True:
        try:
            progress = next(work)
        except StopIteration as stop:
            motions = stop.value
            break
        assert isinstance(progress, Progress) and 0 <= progress.done <= progress.total
        stages.append(progress.stage)
    assert {"Loading the model", "Finding the subject", "Matching the view", "Reading the motion", "Solving rotations"} == set(
        stages
    )
    for rig, motion in zip(rigs, motions, strict=True):
        assert motion.names == rig.names and len(motion) == 12
        assert np.allclose(motion.times, np.arange(12) / 24, atol=1e-3)
        assert motion.provenance["view"] in (0, 1, 2)
        assert (np.sum(motion.rotations[1:] * motion.rotations[:-1], axis=-1) > 0).all()


def test_rigs_together_or_alone_give_the_same(video: Path) -> None:
    rigs = [make_rig(), make_rig("tall", spine=6)]
    together = drained(capture([target(rig) for rig in rigs], Clip(str(video)), TINY_SETTINGS))
    for rig, both in zip(rigs, together, strict=True):
        alone = drained(capture([target(rig)], Clip(str(video)), TINY_SETTINGS))[0]
        assert np.abs(alone.positions - both.positions).max() < 1e-4
        assert geodesic_angle(alone.matrices, both.matrices).max() < 1e-3


def test_image_features_are_computed_once_for_all_rigs(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, crops: seen.append(len(crops)) or plain(self, crops))
    settings = replace(TINY_SETTINGS, batch=4)
    drained(capture([target(make_rig())], Clip(str(video)), settings))
    one = list(seen)
    seen.clear()
    drained(capture([target(make_rig(str(i))) for i in range(3)], Clip(str(video)), settings))
    frames = [4, 4, 4]
    assert one == [4, 4, 2, 3, *frames]  # clear frames, views, clip
    assert seen == [4, 4, 2, 3, 3, 3, *frames]


def test_other_objects_are_told_unless_the_user_chose() -> None:
    others = (Candidate((0, 0, 9, 9), 0.5), Candidate((9, 0, 20, 9), 1.0))
    subject = Subject(np.arange(2.0), np.zeros((2, 4)), np.ones(2), "isnet", [], others=others)
    assert _note_of_others(Clip("v.mp4"), subject).startswith("2 other objects could be the subject: check with Show Subject")
    assert _note_of_others(Clip("v.mp4"), replace(subject, others=others[:1])).startswith("1 other object could")
    assert (
        _note_of_others(Clip("v.mp4", box=(0, 0, 9, 9)), subject) == "" == _note_of_others(Clip("v"), replace(subject, others=()))
    )


def test_stages_alone_give_what_capture_gives(video: Path) -> None:
    rig = make_rig()
    whole = drained(capture([target(rig)], Clip(str(video)), TINY_SETTINGS))[0]
    stage1 = drained(capture_positions([target(rig)], Clip(str(video)), TINY_SETTINGS))
    take = drained(run_pose2rot(load_model("tiny", torch.device("cpu")), stage1.predictions))[0]
    subject = stage1.subject
    motion = motion_of(take, subject.times, subject.boxes, subject.confidence, TINY_SETTINGS, {})
    assert np.abs(whole.positions - motion.positions).max() < 1e-5
    assert geodesic_angle(whole.matrices, motion.matrices).max() < 1e-4


def test_closing_stops_the_work(video: Path) -> None:
    work = capture([target(make_rig())], Clip(str(video)), TINY_SETTINGS)
    for _ in range(4):
        next(work)
    work.close()
    with pytest.raises(StopIteration):
        next(work)


def random_network(config=TINY) -> Video2Pose2Rot:
    torch.manual_seed(3)
    network = Video2Pose2Rot(config).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


def test_windows_equal_the_whole_clip() -> None:
    network = random_network()
    rig = make_rig()
    views = target(rig).references
    model = replace(load_model("tiny", torch.device("cpu")), network=network)
    torch.manual_seed(0)
    tokens = torch.randn(1, 196, 432, dtype=torch.float64)
    clip = torch.randn(41, 196, 432, dtype=torch.float64)
    inputs, _ = network_inputs_of(model, [rig], [views[0]], tokens)
    whole = network.video2pos(clip[None], inputs)[0]
    chunks = list(clip.split(6))
    parts = torch.cat(list(predict_positions(network, inputs, chunks, 41, core=7)), dim=1)
    assert (parts - whole).abs().max() < 1e-9
    rot6d = network.pos2rot(whole, inputs)
    assert (torch.cat(list(predict_rotations(network, inputs, whole, core=5)), dim=1) - rot6d).abs().max() < 1e-9


def test_windows_cover_every_frame_once() -> None:
    kept = [(start, end) for _, _, start, end in windows(200, 5, 64)]
    assert kept == [(0, 64), (64, 128), (128, 192), (192, 200)]
    assert [low for low, *_ in windows(200, 5, 64)] == [0, 59, 123, 187]


def test_matching_finds_the_side_the_video_shows() -> None:
    torch.manual_seed(0)
    views = torch.randn(8, 196, 320)
    frames = views[5] + 0.5 * torch.randn(4, 196, 320)
    assert likeness_of(views, frames, 320).argmax() == 5
    assert likeness_of(views, frames[:1], 320).argmax() == 5
    views[3, :, 300:], frames[..., 300:] = 9, 9  # what trained eyes saw does not count
    assert likeness_of(views, frames, 300).argmax() == 5


def test_matching_is_not_led_astray_by_poses_unlike_the_reference() -> None:
    """Two frames show the reference's pose from side 2, the rest of the clip another one, which looks a little like side 6."""
    torch.manual_seed(0)
    views = torch.randn(8, 196, 320)
    apart = torch.randn(5, 196, 320)
    frames = torch.cat([views[2] + apart[:2], 0.6 * views[6] + apart[2:]])
    assert torch.nn.functional.cosine_similarity(views.flatten(1)[:, None], frames.flatten(1), dim=-1).mean(1).argmax() == 6
    assert likeness_of(views, frames, 320).argmax() == 2


def test_heading_follows_the_reference_or_the_view() -> None:
    """The root of the take is rotated by 20 degrees about the vertical in all frames."""
    rig = make_rig()
    reference = target(rig).references[1]
    pose = np.tile(np.array([1.0, 0, 0, 0, 1, 0]), (4, len(rig.names), 1))
    # in the camera's frame the reference's root is Y(a); 20 degrees more
    from anyrig.backend.capture.inference import RigPrediction
    from anyrig.backend.geometry.camera import view_yaw
    from anyrig.backend.geometry.rotations import matrix_to_rot6d

    pose[:, 0] = matrix_to_rot6d(view_yaw(reference.azimuth - np.radians(20)))
    take = RigPrediction(rig, reference, np.zeros((4, len(rig.names), 3)), pose, reference.azimuth)
    rest = (np.arange(4) / 24, np.zeros((4, 4)), np.ones(4))
    straight = motion_of(take, *rest, Settings(heading="rig"), {})
    assert np.degrees(geodesic_angle(straight.matrices[:, 0], np.eye(3))).max() < 1e-5
    turned = motion_of(take, *rest, Settings(heading="view"), {})
    # z up: a yaw about the armature's z
    expected = axis_angle_to_matrix(np.array([0.0, 0, 1]), np.radians(20))
    assert np.degrees(geodesic_angle(quaternion_to_matrix(turned.rotations[:, 0]), expected)).max() < 1e-5
    assert np.isclose(np.degrees(straight.provenance["azimuth"] - turned.provenance["azimuth"]), -20)


def test_crops_keep_their_size_while_the_box_breathes() -> None:
    boxes = np.tile([100.0, 100, 200, 160], (40, 1))
    boxes[::2, 2] += 20
    squares = clip_squares(boxes)
    side = squares[:, 2] - squares[:, 0]
    assert np.ptp(side) < 1e-9 and side[0] == pytest.approx(144)


def test_command_line(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig = tmp_path / "rig.json"
    rig.write_text(make_rig().to_json())
    base = ["capture", "--rig", str(rig), "--model", "tiny", "--device", "cpu"]
    take, positions, again = tmp_path / "take.npz", tmp_path / "positions", tmp_path / "again.npz"
    assert main([*base, "--video", str(video), "--out", str(take), "--bvh", str(tmp_path / "take.bvh")]) == 0
    assert main([*base, "--video", str(video), "--stage", "video2pose", "--out", str(positions)]) == 0
    assert main([*base, "--stage", "pose2rot", "--positions", str(positions), "--out", str(again)]) == 0
    one, two = Motion.load(take), Motion.load(again)
    assert geodesic_angle(one.matrices, two.matrices).max() < 1e-4
    assert (tmp_path / "take.bvh").read_text().startswith("HIERARCHY")
    with np.load(positions) as data:
        assert {"position", "times", "names"} <= set(data.files) and data["position"].shape[0] == 12
    capsys.readouterr()


@pytest.mark.parametrize("model", ["tiny", "lite"])
def test_a_rig_file_is_read_as_its_natural_skeleton(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The foot of a game rig hangs on its shin in the take, whatever the network was shown."""
    game, shown = game_rig(), []

    def made_up(targets: list[Target], *_: Any) -> Generator[Any, None, list[Motion]]:
        shown.append(targets[0].rig)
        joints, still = len(shown[0].names), np.array([[[1.0, 0, 0, 0]]])
        yield Progress("Reading the motion", 1, 1)
        arrays = (
            np.arange(2.0),
            np.tile(still, (2, joints, 1)),
            np.zeros((2, joints, 3)),
            np.zeros((2, 4)),
            np.ones((2, joints)),
        )
        return [Motion(shown[0].names, *arrays)]

    monkeypatch.setattr(cli, "capture", made_up)
    monkeypatch.setattr(cli, "probe", lambda _: None)
    rig, bvh = tmp_path / "rig.json", tmp_path / "take.bvh"
    rig.write_text(game.to_json())
    options = ["--model", model, "--device", "cpu", "--video", "v.mp4", "--out", str(tmp_path / "t.npz"), "--bvh", str(bvh)]
    assert main(["capture", "--rig", str(rig), *options]) == 0
    assert (shown[0].parents.tolist() == game.parents.tolist()) == (model == "lite")
    written = read_bvh(bvh)[0]
    assert written.names[written.parents[written.names.index("foot")]] == "shin"


# what only training and tests install (pyproject.toml): a capture has torch, numpy, scipy, OpenCV and safetensors
NOT_RUN_TIME = {"matplotlib", "PIL", "transformers", "tokenizers", "sentencepiece", "pytest", "hypothesis"}


def test_capturing_needs_the_run_time_libraries_alone(video: Path, tmp_path: Path) -> None:
    rig = tmp_path / "rig.json"
    rig.write_text(make_rig().to_json())
    options = ["capture", "--rig", str(rig), "--model", "tiny", "--device", "cpu", "--video", str(video)]
    options += ["--out", str(tmp_path / "take.npz")]
    then = f"sys.exit(sys.modules['anyrig.backend.cli'].main({options!r}))"
    done = run_blocked(BLENDER | NOT_RUN_TIME, ("cli",), then)
    assert done.returncode == 0, done.stderr
    assert len(Motion.load(tmp_path / "take.npz")) == 12


def test_help_imports_no_training() -> None:
    show_help = """
from contextlib import suppress
for command in ("capture", "weights", "bench", "train", "ablate", "evaluate", "creatures", "cutout", "isnet"):
    with suppress(SystemExit):
        sys.modules["anyrig.backend.cli"].main([command, "--help"])
print(sorted(name for name in sys.modules if name.startswith("anyrig.backend.train.")))
"""
    done = run_blocked(BLENDER | NOT_RUN_TIME, ("cli",), show_help)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: python -m backend ") == 9
    assert done.stdout.rstrip().endswith("['anyrig.backend.train.parsers']")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--video", "no.mp4"], "no.mp4"),
        ([], "--video"),
        (["--stage", "pose2rot"], "--positions"),
        (["--video", "x", "--reference", "7"], "rest"),
        (["--video", "VIDEO", "--model", "no.safetensors"], "no.safetensors"),
        (["--video", "VIDEO", "--bvh", "no/t.bvh"], "'no/t.bvh' cannot be written, as there is no folder"),
    ],
)
def test_command_line_errors(
    arguments: list[str], words: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = tmp_path / "rig.json"
    rig.write_text(make_rig().to_json())
    model = [] if "--model" in arguments else ["--model", "tiny"]
    given = [str(video) if argument == "VIDEO" else argument for argument in arguments]
    assert main(["capture", "--rig", str(rig), "--out", str(tmp_path / "t.npz"), *model, *given]) == 1
    printed = capsys.readouterr().err
    sentence = printed.rstrip("\n").split("\n")[-1]
    assert words in sentence and "\r" not in sentence  # on a line of its own, below any bar
    assert "Finding the subject" not in printed or "--model" in arguments, "told before the work begins"


@pytest.mark.parametrize("protected", ["/proc/version", "/proc/new"])
@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a place where nobody may write")
def test_protected_outputs(protected: str) -> None:
    with pytest.raises(UserError, match=f"'{protected}' cannot be written"):
        check_outputs(None, "", protected)


def test_a_target_needs_an_image() -> None:
    with pytest.raises(UserError, match="biped"):
        Target(make_rig(), ())


def test_refining_goes_on_with_the_cpu_if_the_graphics_card_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []

    def refine(_fits: object, _footage: object, _mode: str, device: torch.device) -> Generator[Progress, None, list[str]]:
        devices.append(device.type)
        yield Progress("Refining", 0, 1)
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ["refined"]

    monkeypatch.setattr(pipeline, "refine", refine)
    monkeypatch.setattr(pipeline, "footage_of", lambda *_: None)
    plan = ComputePlan(torch.device("cuda"), None, 4, 64, "")
    steps = pipeline._refined([], [], Clip("x"), None, Settings(refine="quick"), plan)
    stages = []
    with pytest.raises(StopIteration) as end:
        while True:
            stages.append(next(steps).stage)
    assert end.value.value == ["refined"] and devices == ["cuda", "cpu"]
    assert any("goes on with the CPU" in stage for stage in stages)

"""The benchmark, and the straightforward implementation that it compares with: it agrees with the network, whatever it pads to."""

import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from anyrig.backend.baseline import padded
from anyrig.backend.capture.inference import predict_positions
from anyrig.backend.cli import main
from anyrig.backend.model.config import TINY, Config
from anyrig.backend.model.inputs import NetworkInputs
from anyrig.backend.model.network import Video2Pose2Rot
from anyrig.backend.train.benchmark import benchmark
from anyrig.backend.train.benchmark.benchmark import random_inputs
from anyrig.backend.video.reader import read_frames, write_video
from anyrig.backend.weights.model_file import load_model
from torch import Tensor

SMALL = Config(
    width=32, heads=4, image_width=24, name_width=16, ref_layers=2, layers=3, rest_layers=2, pose_layers=2, memory_layers=2,
    decoder_layers=3, cross_layers=2,
)  # fmt: skip


def case(joints: int, pairs: int, rigs: int = 1) -> tuple[Video2Pose2Rot, NetworkInputs, Tensor]:
    torch.manual_seed(joints)
    network = Video2Pose2Rot(SMALL).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    inputs = random_inputs(SMALL, [joints + 2 * rig for rig in range(rigs)], pairs, tokens=5, dtype=torch.float64)
    return network, inputs, torch.randn(rigs, 9, 5, SMALL.image_width, dtype=torch.float64)


@pytest.mark.parametrize(("joints", "pairs", "rigs", "pad"), [(7, 1, 1, 7), (7, 1, 1, 12), (11, 3, 1, 20), (6, 2, 2, 13)])
def test_both_implementations_agree(joints: int, pairs: int, rigs: int, pad: int) -> None:
    network, inputs, image = case(joints, pairs, rigs)
    with torch.no_grad():
        ours, theirs = network(image, inputs), padded.run_both_stages(network, image, inputs, pad)
    mask = inputs.graph.mask
    for left, right in zip(ours, theirs, strict=True):
        assert right.shape[2] == pad
        error = (left - right[:, :, : left.shape[2]]).abs().amax((1, 3))
        assert error[mask].max() < 1e-9 and left.abs().max() > 0.1


def test_the_benchmark_times_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    video = tmp_path / "video.mp4"
    frames = np.full((6, 90, 160, 3), 180, np.uint8)
    for index, frame in enumerate(frames):
        frame[20:70, 20 + 8 * index : 50 + 8 * index] = (190, 40, 40)
    write_video(video, frames, 24)
    command = [
        "bench",
        "--model",
        "tiny",
        "--device",
        "cpu",
        "--joints",
        "5",
        "--rigs",
        "2",
        "--threads",
        "1",
        "--json",
        str(out),
    ]
    assert main([*command, "--video", str(video)]) == 0
    report = json.loads(out.read_text())
    assert {"decode", "matte", "crop", "encoder", "stage 1", "stage 2"} == set(report["steps"])
    assert all(step["seconds"] > 0 and step["peak_mib"] != 0 for step in report["steps"].values())
    assert report["frames"] == 6 and report["rigs"] == 2 and report["load"] > 0 and report["machine"]["date"]
    assert report["file to motion"]["frames_per_second"] > 0 and report["file to motion"]["first_result"] > 0
    assert 0 < report["file to motion"]["first_progress"] < report["file to motion"]["first_result"]
    assert "frames per second" in capsys.readouterr().out
    assert main([*command, "--frames", "1"]) == 1
    assert "at least 2 frames" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_told_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "nowhere" / "bench.json"
    for command in (["bench", "--model", "no.safetensors"], ["evaluate", "--packs", str(tmp_path)]):
        assert main([*command, "--json", str(nowhere)]) == 1
        assert f"'{nowhere}' cannot be written, as there is no folder" in capsys.readouterr().err


def test_a_path_that_the_system_refuses_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["creatures", "-o", str(tmp_path / "file"), "--count", "1"]) == 1
    assert f"'{tmp_path / 'file'}' cannot be read or written (File exists)" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_clip() -> None:
    """Stage 1 holds one window of tokens, however many frames there are."""
    model = load_model("tiny", torch.device("cpu"))
    inputs = random_inputs(TINY, [4], 1, TINY.grid**2)
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def chunks(count: int) -> Iterator[Tensor]:
        nonlocal most
        for _ in range(count // 4):
            chunk = torch.zeros(4, TINY.grid**2, TINY.image_width)
            alive.append(weakref.ref(chunk))
            yield chunk
            del chunk
            most = max(most, sum(reference() is not None for reference in alive))

    done = sum(part.shape[1] for part in predict_positions(model.network, inputs, chunks(120), 120, core=8))
    assert done == 120 and most <= 6


def test_the_drawn_camera_pans(tmp_path: Path) -> None:
    clip = benchmark.draw_video(tmp_path / "pan.mp4", 3, panning=True)
    frames = [frame.image for frame in read_frames(clip)]
    assert frames[0].shape == (1080, 1920, 3)
    assert np.abs(frames[2].astype(int) - frames[0]).mean() > 0.2, "the wall moves"

"""The fallbacks when a device's memory runs out, by an encoder that pretends, and the memory in use afterwards."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from anyrig.backend.capture import memory_plan
from anyrig.backend.capture import pipeline as capturing
from anyrig.backend.capture.memory_plan import ComputePlan
from anyrig.backend.capture.pipeline import capture
from anyrig.backend.capture_settings import Settings
from anyrig.backend.encoders.efficientnet import Encoder
from anyrig.backend.errors import UserError
from anyrig.backend.progress import result_of
from anyrig.backend.rendering.capsules import capsules
from anyrig.backend.rendering.point_splatting import reference_views
from anyrig.backend.rig.rig import Rig, Target
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.backend.weights import model_file

TINY = Settings(model="tiny", device="cpu")
CARD = ComputePlan(torch.device("cuda"), None, 4, 64)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Target], Clip]:
    """A square that moves to and fro, and a rig of three bones."""
    path = tmp_path_factory.mktemp("memory") / "square.mp4"
    frames = np.full((10, 96, 128, 3), 190, np.uint8)
    for index, frame in enumerate(frames):
        frame[30:70, 20 + 5 * index : 50 + 5 * index] = (200, 40, 30)
    write_video(path, frames, 24)
    rest = np.tile(np.eye(4), (3, 1, 1))
    rest[:, 2, 3] = (0.0, 0.5, 1.0)
    nothing = np.zeros(3, bool)
    tails = rest[:, :3, 3] + np.array([0, 0, 0.4])
    rig = Rig("pole", ("a", "b", "c"), np.array([-1, 0, 1]), rest, tails, nothing, nothing)
    views = reference_views(rig, capsules(rig, 500), np.array(rest), np.radians([0, 90]), size=64)
    return [Target(rig, tuple(views))], Clip(str(path))


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The plan is a graphics card's, and every call of the encoder is written down."""
    seen: list[int] = []
    plain = Encoder.encode

    def encode(self: Encoder, crops: torch.Tensor) -> torch.Tensor:
        seen.append(len(crops))
        return plain(self, crops)

    monkeypatch.setattr(Encoder, "encode", encode)
    monkeypatch.setattr(capturing, "compute_plan_of", lambda *_: CARD)
    return seen


SHORTAGES = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "Metal": RuntimeError(
        "MPS backend out of memory (MPS allocated: 1.49 GiB, max allowed: 30.19 GiB). Tried to allocate 9.19 MiB"
    ),
    "CUDA's libraries": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "numpy": MemoryError("Unable to allocate 2.00 TiB for an array"),
}


def fail(monkeypatch: pytest.MonkeyPatch, most: int, times: int, error: Exception = SHORTAGES["CUDA"]) -> None:
    """The encoder runs out of memory above `most` images, `times` times."""
    plain = Encoder.encode
    left = [times]

    def encode(self: Encoder, crops: torch.Tensor) -> torch.Tensor:
        if len(crops) > most and left[0]:
            left[0] -= 1
            raise type(error)(str(error))  # a new one each time, with a traceback of its own
        return plain(self, crops)

    monkeypatch.setattr(Encoder, "encode", encode)


def last_index(stages: list[str], stage: str) -> int:
    return len(stages) - 1 - stages[::-1].index(stage)


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_half_as_much_is_tried_once(work, attempts: list[int], shortage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = result_of(capture(*work, TINY))[0]
    fail(monkeypatch, most=2, times=99, error=SHORTAGES[shortage])
    attempts.clear()
    stages = []
    running = capture(*work, TINY)
    while True:
        try:
            stages.append(next(running).stage)
        except StopIteration as stop:
            motion = stop.value[0]
            break
    assert max(attempts) == 2
    assert np.abs(motion.rotations - wanted.rotations).max() < 1e-4
    assert motion.provenance["device"] == "cuda"
    (note,) = motion.provenance["notes"]
    assert "out of memory" in note and note in stages
    assert stages.count("Loading the model") == 1
    assert stages.index(note) > last_index(stages, "Finding the subject")  # which is not looked for again


def test_then_the_processor(work, attempts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = result_of(capture(*work, TINY))[0]
    fail(monkeypatch, most=0, times=2)
    motion = result_of(capture(*work, TINY))[0]
    assert motion.provenance["device"] == "cpu"
    assert "CPU" in motion.provenance["notes"][0]
    assert np.abs(motion.rotations - wanted.rotations).max() < 1e-4
    assert wanted.provenance["notes"] == []


def test_what_metal_cannot_do_the_processor_does(work, attempts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = result_of(capture(*work, TINY))[0]
    missing = NotImplementedError(
        "The operator 'aten::_linalg_det.result' is not currently implemented for the MPS device. If you want"
    )
    fail(monkeypatch, most=0, times=1, error=missing)
    with pytest.raises(NotImplementedError):  # no other device has an excuse
        result_of(capture(*work, TINY))
    fail(monkeypatch, most=0, times=1, error=missing)
    monkeypatch.setattr(capturing, "compute_plan_of", lambda *_: CARD._replace(device=torch.device("mps")))
    motion = result_of(capture(*work, TINY))[0]
    assert motion.provenance["device"] == "cpu"
    (note,) = motion.provenance["notes"]
    assert "cannot do all of it (The operator 'aten::_linalg_det.result' is not currently implemented for the MPS device)" in note
    assert np.abs(motion.rotations - wanted.rotations).max() < 1e-4


def test_then_a_sentence(work, attempts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, most=0, times=99)
    with pytest.raises(UserError, match="ran out of memory: trim the clip"):
        result_of(capture(*work, TINY))


def test_main_memory_that_runs_out_is_told(work, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's and OpenCV's own words."""
    for greedy in (
        lambda *_: torch.empty(2**50),
        lambda *_: cv2.copyMakeBorder(np.zeros((9, 9), np.uint8), 0, 2**30, 0, 2**30, 0),
    ):
        monkeypatch.setattr(Encoder, "encode", greedy)
        with pytest.raises(UserError, match="ran out of memory: trim the clip"):
            result_of(capture(*work, TINY))


def test_other_errors_are_not_hidden(work, attempts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, most=0, times=1, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        result_of(capture(*work, TINY))


def test_what_a_smaller_plan_is() -> None:
    half = memory_plan.halve(CARD)
    assert half is not None and (half.batch, half.core, half.device.type) == (2, 32, "cuda")
    last = memory_plan.halve(half)
    assert last is not None and last.device.type == "cpu" and last.half is None
    assert memory_plan.halve(last) is None


def test_the_second_attempt_finds_the_memory_of_the_first_free(
    work, attempts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Encoder.encode
    held: list[weakref.ref] = []
    in_use: list[bool] = []

    def encode(self: Encoder, crops: torch.Tensor) -> torch.Tensor:
        activations = torch.empty(1000)
        if len(crops) > 2:
            held.append(weakref.ref(activations))
            kept.append(torch.OutOfMemoryError("CUDA out of memory"))
            raise kept[-1]
        in_use.extend(tensor() is not None for tensor in held)
        return plain(self, crops)

    kept: list[Exception] = []  # as a log or a debugger may keep an error, with its traceback
    monkeypatch.setattr(Encoder, "encode", encode)
    result_of(capture(*work, TINY))
    assert in_use and not any(in_use)


@pytest.mark.parametrize("ending", ["done", "closed", "failed"])
def test_the_models_memory_is_given_back(work, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref] = []
    given: list[bool] = []
    plain = model_file.load_model

    def load(*arguments):
        model = plain(*arguments)
        held.append(weakref.ref(model.network))
        return model

    monkeypatch.setattr(capturing, "load_model", load)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append(True))
    targets, clip = work
    if ending == "failed":
        fail(monkeypatch, most=0, times=99)
        with pytest.raises(UserError, match="memory") as error:
            result_of(capture(targets, clip, TINY))
    else:
        running = capture(targets, clip, TINY)
        if ending == "closed":
            stages = (progress.stage for progress in running)
            assert "Reading the motion" in stages
            running.close()
        else:
            result_of(running)
        error = None
    gc.collect()
    assert given and held[0]() is None
    del error


def test_a_note_is_kept_with_the_take(work, attempts: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, most=2, times=99)
    motion = result_of(capture(*work, replace(TINY, batch=3)))[0]
    motion.save(tmp_path / "take.npz")
    assert type(motion).load(tmp_path / "take.npz").provenance["notes"] == motion.provenance["notes"]

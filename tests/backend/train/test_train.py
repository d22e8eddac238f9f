"""Training and measuring on a small pack made here."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from anyrig.backend.capture.inference import RigPrediction, motion_of
from anyrig.backend.capture_settings import Settings
from anyrig.backend.cli import main
from anyrig.backend.encoders.efficientnet import EfficientNetLite0, Encoder
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.camera import project, view_yaw
from anyrig.backend.geometry.rotations import geodesic_angle, matrix_to_rot6d, rot6d_to_matrix
from anyrig.backend.model.config import TINY
from anyrig.backend.model.network import Video2Pose2Rot
from anyrig.backend.rig.rig import Reference
from anyrig.backend.rig.skeleton import forward_kinematics, network_axes
from anyrig.backend.train.evaluation.evaluate_packs import evaluate, references, splat_crops, static_joints
from anyrig.backend.train.evaluation.evaluate_pose2rot import evaluate_pose2rot
from anyrig.backend.train.loop.losses import batch_of, losses, training_dtype, travel
from anyrig.backend.train.loop.run import Run, TrainingPlan
from anyrig.backend.train.packs.rig_packs import Pack, load_packs
from anyrig.backend.train.packs.splits import split_packs
from anyrig.backend.train.samples.samples import Recipe, Sample, Windows
from anyrig.backend.weights.model_file import load_model, save_model
from anyrig.tests.scripts import ROOT

CPU = torch.device("cpu")
MakePack = Callable[..., Pack]
TRAIN = ["-m", "backend", "train"]


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "model.safetensors"
    save_model(path, Video2Pose2Rot(TINY), EfficientNetLite0().state_dict(), {})
    return path


@pytest.fixture(scope="module")
def samples(make_pack: MakePack) -> list[Sample]:
    torch.manual_seed(0)
    encoder = Encoder(EfficientNetLite0().state_dict())
    source = iter(Windows([make_pack(), make_pack("newt")], TINY, encoder.encode, Recipe(4), seed=3))
    return [next(source) for _ in range(3)]


def test_samples_agree_with_themselves(samples: list[Sample]) -> None:
    for sample in samples:
        joints = len(sample.body.skeleton)
        assert joints == 6 + 4  # four leaves, each with a tip
        assert sample.tokens.shape == (5, 196, 432) and sample.tokens.isfinite().all()
        assert sample.position.shape == (4, joints, 3) and sample.uv.shape == (4, joints, 2)
        assert sample.uv.abs().max() < 1.3
        # rotations and positions belong together: forward kinematics with the rest offsets gives the positions
        skeleton = sample.body.skeleton
        _, places = forward_kinematics(
            skeleton.parents, skeleton.offsets / sample.pairs.scale, sample.rotations.numpy().astype(float)
        )
        assert np.abs(places - sample.position.numpy()).max() < 1e-5
        # the reference pair too
        assert sample.pairs.position.shape == (3, joints, 3) and np.abs(sample.pairs.position).max() < 3


def test_samples_are_seeded(make_pack: MakePack) -> None:
    def first(seed: int) -> Sample:
        return next(
            iter(Windows([make_pack()], TINY, lambda crops: crops.float().mean((1, 2, 3))[:, None, None], Recipe(3), seed))
        )

    assert torch.equal(first(1).position, first(1).position)
    assert torch.equal(first(1).tokens, first(1).tokens)
    assert not torch.equal(first(1).position, first(2).position)


def test_samples_of_varied_rigs_and_creatures_agree_too(make_pack: MakePack) -> None:
    encode = lambda crops: crops.float().mean((1, 2, 3))[:, None, None]  # noqa: E731
    sizes = set()
    for recipe in (Recipe(3, varied=1.0), Recipe(3, creatures=1.0, kinds=50), Recipe(3, varied=1.0, creatures=1.0, kinds=50)):
        source = iter(Windows([make_pack()], TINY, encode, recipe, 1))
        for sample in (next(source) for _ in range(3)):
            skeleton = sample.body.skeleton
            sizes.add(len(skeleton))
            bones = sample.position - sample.position[:, np.maximum(skeleton.parents, 0)]
            lengths = bones.norm(dim=-1)[:, ~skeleton.translates]
            assert (lengths - lengths[:1]).abs().max() < 1e-4  # bones keep their length
            assert sample.position.isfinite().all() and sample.uv.abs().max() < 2
    assert len(sizes) > 3


def test_padding_does_not_change_the_losses(samples: list[Sample]) -> None:
    torch.manual_seed(0)
    model = Video2Pose2Rot(TINY).eval()
    alone = batch_of(samples[:1], CPU)
    terms = losses(model, alone, torch.ones(1, dtype=torch.bool))
    assert set(terms) == {"position", "speed", "rotation", "root", "turning", "chain", "place", "travel", "likeness", "bone"}
    truth = losses(
        model, replace(alone, position=model.video2pos(alone.image, alone.inputs)[0].detach()), torch.ones(1, dtype=torch.bool)
    )
    assert truth["position"] < 0.02 * terms["position"] + 1e-3


def test_a_take_that_goes_less_far_than_the_truth_costs_travel_wherever_it_is(samples: list[Sample]) -> None:
    batch = batch_of(samples[:2], CPU)
    joints = batch.weight[:, 0].bool()
    torch.manual_seed(0)
    truth = torch.randn_like(batch.position).cumsum(1)
    assert (travel(truth + 5.0) - travel(truth))[joints].abs().max() < 1e-4
    timid = (travel(0.25 * truth) / travel(truth))[joints]
    assert timid.numpy() == pytest.approx(0.25, abs=1e-3)
    still = batch.position[:, :1].expand_as(batch.position).clone().requires_grad_()
    travel(still).sum().backward()
    assert still.grad is not None and still.grad.isfinite().all()


def test_the_geodesic_loss_is_an_angle(samples: list[Sample]) -> None:
    torch.manual_seed(0)
    model, batch, predicted = Video2Pose2Rot(TINY), batch_of(samples[:2], CPU), torch.ones(2, dtype=torch.bool)
    terms, plain = (losses(model, batch, predicted, geodesic=choice) for choice in (True, False))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=training_dtype(CPU) == torch.bfloat16):
        rot6d = model.pos2rot(model.video2pos(batch.image, batch.inputs)[0], batch.inputs)
    angle = torch.from_numpy(geodesic_angle(rot6d_to_matrix(rot6d.double().numpy()), batch.rotations.double().numpy()))
    weight = batch.rotates.expand(angle.shape)
    assert terms["rotation"].item() == pytest.approx(((angle * weight).sum() / weight.sum()).item(), rel=1e-3)
    assert terms["position"] == plain["position"] and terms["rotation"] != plain["rotation"]


def plan(minutes: float) -> TrainingPlan:
    return TrainingPlan(
        minutes=minutes, batch=2, frames=3, pool=3, fresh=0.5, workers=0, config=TINY, device="cpu", save_every=0.0
    )


def test_a_run_learns_saves_and_resumes(encoder_file: Path, tmp_path: Path, make_pack: MakePack) -> None:
    packs = [make_pack()]
    run = Run(plan(0.03), packs, encoder_file, tmp_path)
    path = run.train()
    assert run.step > 0 and run.spent >= 0.03 * 60
    again = Run(plan(0.06), packs, encoder_file, tmp_path)
    assert (again.step, again.spent) == (run.step, run.spent)
    for key, value in run.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
    model = load_model(str(path), CPU)
    assert model.config == TINY and model.card["steps"] == run.step and model.card["clips"] == 5
    assert {"commit", "hardware", "date", "torch"} <= set(model.card)
    finished = Run(plan(0.03), packs, encoder_file, tmp_path)
    finished.train()
    assert finished.step == run.step  # the budget is spent


def steps(count: int) -> TrainingPlan:
    return TrainingPlan(
        steps=count, batch=2, frames=3, pool=3, fresh=0.5, workers=0, held_out=2, config=TINY, device="cpu", save_every=1e9
    )


def test_a_resumed_run_is_the_same_to_the_bit(encoder_file: Path, tmp_path: Path, make_pack: MakePack) -> None:
    packs = [make_pack()]
    whole = Run(steps(8), packs, encoder_file, tmp_path / "whole")
    whole.train()
    part = Run(steps(8), packs, encoder_file, tmp_path / "parts")
    part._finished = lambda: part.step >= 3  # stopped in the middle of its schedule
    part.train()
    rest = Run(steps(8), packs, encoder_file, tmp_path / "parts")
    assert rest.step == 3
    rest.train()
    assert rest.step == whole.step == 8
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, rest.network.state_dict()[key]), key
    for key, value in whole.average.state_dict().items():
        assert torch.equal(value, rest.average.state_dict()[key]), key


def test_images_from_workers_become_the_same_tokens(
    encoder_file: Path, tmp_path: Path, make_pack: MakePack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU worker processes draw and the run encodes; the samples are those that a CPU makes in one place, at one precision."""
    monkeypatch.setattr("anyrig.backend.train.loop.run.training_dtype", lambda _device: torch.bfloat16)
    run = Run(replace(steps(2), workers=1), [make_pack()], encoder_file, tmp_path)
    direct = next(run._samples())
    run.device = FakeGpu("cpu")
    split = next(run._samples())
    assert torch.equal(direct.tokens, split.tokens) and torch.equal(direct.position, split.position)


class FakeGpu(str):
    """The CPU's name, the type of a GPU."""

    type = "cuda"


def test_a_run_draws_its_curves(encoder_file: Path, tmp_path: Path, make_pack: MakePack) -> None:
    Run(steps(3), [make_pack()], encoder_file, tmp_path, held={"validation": [make_pack("newt")], "none": []}).train()
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert set(line["watch"]) == {"validation"}
    assert set(line["watch"]["validation"]) == {"mpjpe_cm", "copy_mpjpe_cm", "angle_deg", "copy_angle_deg", "liveness"}
    image = cv2.imread(str(tmp_path / "curves.png"))
    assert image is not None and image.std() > 5


def test_a_killed_run_goes_on(encoder_file: Path, tmp_path: Path, make_pack: MakePack) -> None:
    """Killed while it writes: whatever is on disk can be resumed from."""
    make_pack().save(tmp_path / "lizard.npz")
    command = [
        *TRAIN,
        "--packs",
        str(tmp_path),
        "--out",
        str(tmp_path / "run"),
        "--encoder",
        str(encoder_file),
        "--steps",
        "100000",
    ]
    command += ["--pool", "2", "--batch", "2", "--workers", "0", "--save-every", "0"]
    with subprocess.Popen([sys.executable, *command], cwd=ROOT) as process:
        try:
            wait_for(tmp_path / "run" / "last.pt", process)
        finally:  # leaving the block waits for the process
            process.kill()
    plan = TrainingPlan(steps=100000, batch=2, pool=2, workers=0, device="cpu")
    assert Run(plan, [make_pack()], encoder_file, tmp_path / "run").step >= 1


def wait_for(path: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)


def test_two_processes_train_one_model(encoder_file: Path, tmp_path: Path, make_pack: MakePack) -> None:
    make_pack().save(tmp_path / "lizard.npz")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *TRAIN]
    options = ["--packs", str(tmp_path), "--out", str(tmp_path / "run"), "--encoder", str(encoder_file), "--steps", "3"]
    small = ["--pool", "2", "--batch", "2", "--workers", "0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, *options, *small], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["step"] == 3 and len(state["processes"]) == 2
    first, second = (chance["rng"]["state"]["state"] for chance in state["processes"])
    assert first != second  # each draws its own samples
    assert load_model(str(tmp_path / "run" / "model.safetensors"), CPU).card["processes"] == 2


AVERAGE = """
import sys, torch
from backend.train.loop import distributed
with distributed.process_group(torch.device("cpu")):
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.grad = torch.full((1, 1), 1.0 + 2 * distributed.rank())
    number = distributed.average(layer, 10.0 * distributed.rank())
    with open(sys.argv[1] + str(distributed.rank()), "w") as file:
        file.write(f"{layer.weight.grad.item()} {number}")
"""


def test_gradients_and_clocks_are_averaged(tmp_path: Path) -> None:
    """Every process ends with the mean of the gradients, and of the clocks."""
    script = tmp_path / "average.py"
    script.write_text(AVERAGE)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(tmp_path / "result")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *launch], cwd=ROOT, env=environment, capture_output=True, timeout=300, check=True)
    assert [(tmp_path / f"result{rank}").read_text() for rank in range(2)] == ["2.0 5.0", "2.0 5.0"]


def test_a_run_needs_an_end() -> None:
    with pytest.raises(UserError, match="minutes or in steps"):
        TrainingPlan()


def test_stages_have_learning_rates_of_their_own(encoder_file: Path, tmp_path: Path, make_pack: MakePack) -> None:
    run = Run(replace(plan(1.0), rate=1e-3, first_stage=0.25), [make_pack()], encoder_file, tmp_path)
    stages = {id(value): name.split(".")[0] for name, value in run.network.named_parameters()}
    for optimiser, rate in zip(run.optimisers, (1e-3, 1e-3 / 3), strict=True):
        peaks = {stages[id(group["params"][0])]: group["peak"] for group in optimiser.param_groups}
        assert peaks == {"video2pos": pytest.approx(rate / 4), "pos2rot": pytest.approx(rate)}
    counted = sum(len(group["params"]) for optimiser in run.optimisers for group in optimiser.param_groups)
    assert counted == sum(value.requires_grad for value in run.network.parameters())


def test_weights_for_other_trees_start_with_a_new_trust_in_inverse_kinematics(tmp_path: Path, make_pack: MakePack) -> None:
    torch.manual_seed(3)
    network = Video2Pose2Rot(replace(TINY, natural=False))
    torch.nn.init.constant_(network.pos2rot.decoder.estimate.trust[1].bias, -3.0)
    save_model(tmp_path / "old.safetensors", network, EfficientNetLite0().state_dict(), {})
    run = Run(plan(1.0), [make_pack()], tmp_path / "old.safetensors", tmp_path / "run", str(tmp_path / "old.safetensors"))
    assert run.network.pos2rot.decoder.estimate.trust[1].bias.item() == 1.0
    key = "video2pos.ref_encoder.img_proj.weight"
    assert torch.allclose(run.network.state_dict()[key], network.state_dict()[key], atol=1e-3)  # files hold half precision


def test_a_step_lowers_the_loss(encoder_file: Path, tmp_path: Path, samples: list[Sample], make_pack: MakePack) -> None:
    run = Run(plan(1.0), [make_pack()], encoder_file, tmp_path)
    values = [sum(run._update(samples[:2]).values()) for _ in range(40)]
    assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5])


def test_splits(tmp_path: Path, make_pack: MakePack) -> None:
    packs = [make_pack("lizard", 8), make_pack("newt", 3), make_pack("toad", 3)]
    lists = {
        "seen": [{"file": "lizard", "clip": "move 0"}], "unseen": [{"file": "toad", "clip": "move 1"}],
        "never_train_clips": [{"file": "newt", "clip": "move 2"}], "never_train_files": ["toad"],
    }  # fmt: skip
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(lists))
    parts = {name: {(p.name, clip) for p in part for clip in p.clips} for name, part in split_packs(packs, path).items()}
    assert parts["seen"] == {("lizard", "move 0")} and parts["unseen"] == {("toad", "move 1")}
    assert len(parts["validation"]) == 1
    assert not parts["train"] & (parts["seen"] | parts["unseen"] | parts["validation"] | {("newt", "move 2")})
    assert len(parts["train"] | parts["validation"]) == 7 + 2
    more = lists | {
        "new_motions": [{"file": "newt", "clip": "move 0"}], "new_validation": [{"file": "lizard", "clip": "move 5"}],
    }  # fmt: skip
    path.write_text(json.dumps(more))
    parts = {name: {(p.name, clip) for p in part for clip in p.clips} for name, part in split_packs(packs, path).items()}
    assert parts["new_motions"] == {("newt", "move 0")} and parts["new_validation"] == {("lizard", "move 5")}
    assert sum(len(parts[name]) for name in ("train", "validation", "new_validation")) == 7 + 1
    lists["seen"].append({"file": "newt", "clip": "swim"})
    path.write_text(json.dumps(lists))
    with pytest.raises(UserError, match="swim"):
        split_packs(packs, path)
    with pytest.raises(UserError, match=r"none\.json"):
        split_packs(packs, tmp_path / "none.json")


def test_evaluate_and_its_command(
    encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_pack: MakePack
) -> None:
    make_pack("lizard", 2, 4).save(tmp_path / "lizard.npz")
    out = tmp_path / "rows.json"
    assert main(["evaluate", "--packs", str(tmp_path), "--model", str(encoder_file), "--device", "cpu", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [(row["clip"], row["reference"]) for row in rows] == [
        (f"move {i}", kind) for i in range(2) for kind in ("rest", "action")
    ]
    keys = (
        "species split clip frames joints reference angle_deg copy_angle_deg mpjpe_cm copy_mpjpe_cm mpjve_cm angular_velocity_deg"
    )
    assert {*keys.split(), "liveness", "heading_deg"} <= set(rows[0])
    said = capsys.readouterr().out
    assert all(word in said for word in ("travel", "centred", "train, all", "reference rest"))
    # the same again is the same to the last digit
    assert list(evaluate(load_packs(tmp_path), load_packs(tmp_path), "train", load_model(str(encoder_file), CPU))) == rows


def test_static_joints_and_references(make_pack: MakePack) -> None:
    pack = make_pack()
    assert static_joints(pack).tolist() == [False, False, False, True, False, False]
    assert [kind for kind, _ in references(pack, "move 4")] == ["rest", "action"]
    assert np.array_equal(references(pack, "move 4")[1][1], pack.clips["move 0"][0])


def test_film_frames_the_subject(make_pack: MakePack) -> None:
    from anyrig.backend.rendering import point_splatting

    pack = make_pack()
    shot = splat_crops(point_splatting.cloud_of(pack.surface, pack.rig.rest), pack.clips["move 1"], 0.7, 0.1)
    ink = (shot.crops < 250).any(-1).float().mean((1, 2))
    assert ((ink > 0.02) & (ink < 0.9)).all()
    root = project(shot.projection, pack.clips["move 1"][:, 0, :3, 3])
    assert ((root > shot.squares[:, :2]) & (root < shot.squares[:, 2:])).all()


def test_train_command(encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--packs", str(tmp_path), "--out", str(tmp_path / "run"), "--budget", "0.01"]) == 1
    assert "rig packs" in capsys.readouterr().err


def test_the_second_stage_alone(
    encoder_file: Path, tmp_path: Path, make_pack: MakePack, capsys: pytest.CaptureFixture[str]
) -> None:
    """Anchored inverse kinematics recovers the rotations from true positions with tips, and loses them in noise."""
    packs = [make_pack("lizard", 2, 4)]
    packs[0].save(tmp_path / "lizard.npz")
    model = load_model(str(encoder_file), CPU)
    exact, noisy = (list(evaluate_pose2rot(packs, packs, model, noise)) for noise in (0.0, 5.0))
    assert len(exact) == 4 and {row["noise_cm"] for row in noisy} == {5.0}
    for clean, rough in zip(exact, noisy, strict=True):
        assert clean["copy_angle_deg"] == rough["copy_angle_deg"] and clean["mpjpe_cm"] < rough["mpjpe_cm"] < 12
        assert clean["ik_angle_deg"] < 0.5 * clean["copy_angle_deg"] and clean["ik_angle_deg"] < rough["ik_angle_deg"]
    out = tmp_path / "rows.json"
    options = ["--model", str(encoder_file), "--device", "cpu", "--stage", "pose2rot", "--noise", "1", "--json", str(out)]
    assert main(["evaluate", "--packs", str(tmp_path), *options]) == 0
    assert json.loads(out.read_text())[0]["noise_cm"] == 1.0 and "IK angle" in capsys.readouterr().out


def test_creatures_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["creatures", "-o", str(tmp_path), "--count", "2", "--seed", "4"]) == 0
    packs = load_packs(tmp_path)
    assert len(packs) == 2 and all(pack.clips for pack in packs)
    assert "2/2" in capsys.readouterr().out
    copy = {"file": packs[0].name, "clip": next(iter(packs[0].clips))}
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"seen": [copy], "unseen": [], "never_train_clips": [], "never_train_files": []}))
    folder = tmp_path / "again"
    assert (
        main(["creatures", "-o", str(folder), "--count", "2", "--seed", "4", "--packs", str(tmp_path), "--splits", str(splits)])
        == 0
    )
    assert "0 clips are too similar" in capsys.readouterr().out  # a clip is no copy of itself


def test_nothing_to_train_or_measure_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--out", str(tmp_path / "run"), "--steps", "1"]) == 1
    assert "nothing to train on" in capsys.readouterr().err
    assert main(["evaluate", "--json", str(tmp_path / "rows.json")]) == 1
    assert "nothing to measure on" in capsys.readouterr().err
    make = ["--packs", str(tmp_path), "--split", "dreams", "--json", str(tmp_path / "rows.json"), "--model", "tiny"]
    assert main(["creatures", "-o", str(tmp_path), "--count", "1"]) == 0
    assert main(["evaluate", *make]) == 1
    assert "no split 'dreams'" in capsys.readouterr().err


def test_positions_lie_between_what_was_seen_and_what_the_rig_does(make_pack: MakePack) -> None:
    rig = make_pack().rig
    heads = rig.rest[:, :3, 3] - rig.rest[0, :3, 3]
    azimuth = 0.7
    blank = Reference(np.array(rig.rest), np.zeros((4, 4, 4), np.uint8), azimuth, np.eye(3, 4))
    # the rest pose in the view's frame, seen 20 % too large
    yaw = view_yaw(azimuth) @ network_axes(rig)
    local = np.tile(np.eye(3), (1, 6, 1, 1))
    local[:, 0] = view_yaw(azimuth)
    take = RigPrediction(rig, blank, 1.2 * (heads @ yaw.T)[None], matrix_to_rot6d(local), azimuth)
    motion = motion_of(take, np.zeros(1), np.zeros((1, 4)), np.ones(1), Settings(heading="view"), {})
    assert motion.positions[0] == pytest.approx(1.1 * heads)

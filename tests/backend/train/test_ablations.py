"""A part that is left out has no influence, and runs without it train and are measured in the same way."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from anyrig.backend.cli import main
from anyrig.backend.encoders.efficientnet import EfficientNetLite0, Encoder
from anyrig.backend.errors import UserError
from anyrig.backend.model.config import LITE, TINY
from anyrig.backend.model.inputs import NetworkInputs
from anyrig.backend.model.network import Video2Pose2Rot
from anyrig.backend.train.evaluation.ablations import PARTS, Without, config_without, inputs_without, side_error
from anyrig.backend.train.loop.losses import Batch, batch_of, losses, total
from anyrig.backend.train.loop.run import Run, TrainingPlan
from anyrig.backend.train.packs.rig_packs import Pack
from anyrig.backend.train.samples.samples import SIDE_ERROR, Recipe, Windows
from anyrig.backend.weights.model_file import load_network, save_model


@pytest.fixture(scope="module")
def batch(make_pack: Callable[..., Pack]) -> Batch:
    torch.manual_seed(0)
    encoder = Encoder(EfficientNetLite0().state_dict())
    source = iter(Windows([make_pack()], TINY, encoder.encode, Recipe(3), seed=3))
    return batch_of([next(source) for _ in range(2)], "cpu", pairs=2)


@pytest.fixture(scope="module")
def network() -> Video2Pose2Rot:
    torch.manual_seed(0)
    network = Video2Pose2Rot(TINY).eval()
    for value in network.parameters():  # not the zeros that some heads start from
        torch.nn.init.normal_(value, std=0.2) if value.dim() > 1 else None
    return network


@pytest.mark.parametrize(
    ("part", "fields"),
    [("reference", ("position", "rot6d", "tokens", "uv")), ("rest", ("offsets",)), ("names", ("names",))],
)
def test_the_network_does_not_see_it(batch: Batch, network: Video2Pose2Rot, part: str, fields: tuple[str, ...]) -> None:
    """Whatever the left-out inputs hold, the result is the same; with the whole method it is not."""
    other = batch.inputs
    for field in fields:
        other = disturbed(other, field)
    with torch.inference_mode():
        blind = Without(network, [part])
        for first, second in zip(stages(blind, batch, batch.inputs), stages(blind, batch, other), strict=True):
            assert torch.equal(first, second)
        whole = zip(stages(network, batch, batch.inputs), stages(network, batch, other), strict=True)
        assert any(not torch.allclose(first, second, atol=1e-3) for first, second in whole)


def disturbed(inputs: NetworkInputs, field: str) -> NetworkInputs:
    value = getattr(inputs, field)
    return replace(inputs, **{field: value + torch.randn(value.shape, generator=torch.Generator().manual_seed(1))})


def stages(network: torch.nn.Module, batch: Batch, inputs: NetworkInputs) -> tuple[torch.Tensor, torch.Tensor]:
    moving = ~inputs.static_position[:, None, :, None] if not isinstance(network, Without) else 1.0
    position = network.video2pos(batch.image, inputs)[0] * moving
    return position, network.pos2rot(batch.position, inputs)


def test_without_a_reference_the_pose_is_the_rest_pose(batch: Batch) -> None:
    rest = inputs_without(batch.inputs, ["reference"])
    parents = batch.inputs.graph.parents
    bones = rest.position[:, 0] - rest.position[:, 0].gather(1, parents[..., None].expand(-1, -1, 3))
    child = parents != torch.arange(parents.shape[1])
    assert torch.allclose(bones[child], batch.inputs.offsets[child], atol=1e-6)
    assert torch.equal(rest.rot6d[0, 0, 0], torch.tensor([1.0, 0, 0, 0, 1, 0])) and rest.rot6d.shape[1] == 1


def test_the_gradient_is_cut_between_the_stages(batch: Batch) -> None:
    def reach(cut: bool) -> float:
        torch.manual_seed(0)
        network = Video2Pose2Rot(TINY)
        for head in (network.pos2rot.decoder.head[3], network.video2pos.temporal_model.head[3]):
            torch.nn.init.normal_(head.weight)
        terms = losses(network, batch, torch.ones(2, dtype=torch.bool), cut=cut)
        terms["rotation"].backward()
        return sum(float(p.grad.abs().sum()) for p in network.video2pos.parameters() if p.grad is not None)

    assert reach(cut=True) == 0.0 and reach(cut=False) > 0.0


def test_config_and_sides() -> None:
    assert not config_without(LITE, ["aids"]).aids and config_without(LITE, ["aids"]).tips
    assert not config_without(LITE, ["tips"]).tips
    assert config_without(LITE, ["names"]) == LITE
    assert side_error([]) == SIDE_ERROR and side_error(["side"]) > 3
    with pytest.raises(UserError, match="'luck'"):
        config_without(LITE, ["luck"])


def test_the_help_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ablate", "--help"])
    assert ", ".join(PARTS) in " ".join(capsys.readouterr().out.split())


def test_a_network_without_aids_trains(batch: Batch) -> None:
    torch.manual_seed(0)
    terms = losses(Video2Pose2Rot(config_without(TINY, ["aids"])), batch, torch.ones(2, dtype=torch.bool))
    assert "place" not in terms and total(terms).isfinite()


def test_the_command_compares(make_pack: Callable[..., Pack], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packs = [make_pack(name, 5, 4) for name in ("lizard", "newt")]
    save(packs, tmp_path / "packs")
    torch.manual_seed(0)
    save_model(tmp_path / "encoder.safetensors", Video2Pose2Rot(TINY), EfficientNetLite0().state_dict(), {})
    arguments = [
        "ablate",
        "--packs",
        str(tmp_path / "packs"),
        "--out",
        str(tmp_path / "runs"),
        "--steps",
        "1",
        "--part",
        "names",
        "--start",
        "lite",
    ]
    options = [
        "--encoder",
        str(tmp_path / "encoder.safetensors"),
        "--pool",
        "1",
        "--batch",
        "1",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    assert main([*arguments, *options]) == 0
    rows = json.loads((tmp_path / "runs" / "ablations.json").read_text())
    assert [row["without"] for row in rows] == ["", "names"] and all("mpjpe_ratio" in row for row in rows)
    assert "without names" in capsys.readouterr().out
    assert "names" in PARTS


def test_without_a_part_a_run_keeps_the_weights_that_still_fit(make_pack: Callable[..., Pack], tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = tmp_path / "start.safetensors"
    save_model(start, Video2Pose2Rot(TINY), EfficientNetLite0().state_dict(), {})
    plan = TrainingPlan(steps=1, config=TINY, device="cpu", without=("aids",))
    run = Run(plan, [make_pack()], start, tmp_path / "run", str(start))
    begun, kept = load_network(str(start), torch.device("cpu")).state_dict(), run.network.state_dict()
    assert 0 < len(kept) < len(begun) and all(torch.equal(kept[key], begun[key]) for key in kept)
    whole = Run(TrainingPlan(steps=1, config=TINY, device="cpu"), [make_pack()], start, tmp_path / "whole", str(start))
    assert all(torch.equal(value, begun[key]) for key, value in whole.network.state_dict().items())


@pytest.mark.parametrize("without", [(), ("names",)])
def test_a_network_of_other_sizes_is_no_start(without: tuple[str, ...], make_pack: Callable[..., Pack], tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_model(start, Video2Pose2Rot(TINY), EfficientNetLite0().state_dict(), {})
    plan = TrainingPlan(steps=1, config=replace(TINY, width=2 * TINY.width), device="cpu", without=without)
    with pytest.raises(UserError, match=r"start\.safetensors' has other sizes or parts than the one to train"):
        Run(plan, [make_pack()], start, tmp_path / "run", str(start))


def save(packs: list[Pack], folder: Path) -> None:
    folder.mkdir()
    for pack in packs:
        pack.save(folder / f"{pack.name}.npz")

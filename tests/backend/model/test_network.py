import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from anyrig.backend.model.config import TINY, Config
from anyrig.backend.model.inputs import NetworkInputs, SkeletonGraph
from anyrig.backend.model.network import Video2Pose2Rot
from safetensors import safe_open
from torch import Tensor

DATA = Path(__file__).parents[2] / "data"
SMALL = Config(
    width=32, heads=4, image_width=24, name_width=16, ref_layers=2, layers=3, rest_layers=2, pose_layers=2, memory_layers=2,
    decoder_layers=3, cross_layers=2,
)  # fmt: skip


def load(dtype: torch.dtype) -> tuple[Video2Pose2Rot, dict[str, Tensor]]:
    with safe_open(DATA / "parity_tiny.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    weights = {key[2:]: value.to(dtype) for key, value in tensors.items() if key.startswith("w.")}
    model = Video2Pose2Rot(SMALL).to(dtype).eval()
    model.load_state_dict(weights, strict=True)
    return model, tensors


def inputs_of(
    tensors: dict[str, Tensor], case: str, dtype: torch.dtype, memory: str = "memory", joints: int | None = None
) -> NetworkInputs:
    def get(key: str) -> Tensor:
        value = tensors[f"{case}.in.{key}"]
        return value.to(dtype) if value.is_floating_point() else value

    joints = joints or get("joint_mask").shape[1]
    cut = slice(joints)
    parents = torch.arange(joints)[None].clone()
    real = get("parents")[:joints]
    parents[0, : len(real)] = real.clamp(min=0)
    graph = SkeletonGraph(
        relation=(6 * get("graph_hop") + get("graph_edge"))[:, cut, cut],
        ancestors=get("ancestor_mask")[:, cut, cut].bool(),
        mask=get("joint_mask")[:, cut].bool(),
        parents=parents,
    )
    return NetworkInputs(
        graph, get("joint_t5embed")[:, cut], get("offset_a")[:, cut], get(f"{memory}_pose")[:, :, cut], get(f"{memory}_rot6d")[:, :, cut],
        get("ref_image_embed"), get("static_pos_joint_mask")[:, cut].bool(), get("static_rot_joint_mask")[:, cut].bool(),
        uv=torch.zeros(1, joints, 2, dtype=dtype), unit=torch.ones(1, dtype=dtype),
    )  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-4)])
@pytest.mark.parametrize("case", ["a", "b"])
def test_parity(case: str, dtype: torch.dtype, tolerance: float) -> None:
    model, tensors = load(dtype)
    inputs = inputs_of(tensors, case, dtype)
    mask = inputs.graph.mask[0]
    position, rot6d = model(tensors[f"{case}.in.image_embed"].to(dtype), inputs)
    again = model.pos2rot(position, inputs_of(tensors, case, dtype, "memory2"))
    for name, value in (("position", position), ("rot6d", rot6d), ("rot6d_memory2", again)):
        expected = tensors[f"{case}.out.{name}"][:, :, mask]
        assert (value[:, :, mask].double() - expected).abs().max() < tolerance, name


def test_padding_changes_nothing() -> None:
    model, tensors = load(torch.float64)
    image = tensors["b.in.image_embed"].double()
    joints = int(tensors["b.in.joint_mask"].sum())
    padded = model(image, inputs_of(tensors, "b", torch.float64))
    plain = model(image, inputs_of(tensors, "b", torch.float64, joints=joints))
    for left, right in zip(padded, plain, strict=True):
        assert (left[:, :, :joints] - right).abs().max() < 1e-12


def permuted(inputs: NetworkInputs, order: Tensor) -> NetworkInputs:
    back = torch.argsort(order)
    graph = inputs.graph
    graph = SkeletonGraph(
        graph.relation[:, order][:, :, order],
        graph.ancestors[:, order][:, :, order],
        graph.mask[:, order],
        back[graph.parents[:, order]],
    )
    return replace(
        inputs, graph=graph, names=inputs.names[:, order], offsets=inputs.offsets[:, order], position=inputs.position[:, :, order],
        rot6d=inputs.rot6d[:, :, order], static_position=inputs.static_position[:, order], static_rotation=inputs.static_rotation[:, order],
        uv=inputs.uv[:, order],
    )  # fmt: skip


def aided(inputs: NetworkInputs, config: Config) -> tuple[NetworkInputs, Tensor]:
    """The same skeleton for a network with aids, and image tokens for it."""
    torch.manual_seed(0)
    joints = inputs.graph.mask.shape[1]
    tokens = torch.randn(1, 10, config.grid**2, config.image_width, dtype=torch.float64)
    names = torch.randn(1, joints, config.name_width, dtype=torch.float64)
    uv = torch.rand(1, joints, 2, dtype=torch.float64) - 0.5
    inputs = replace(inputs, names=names, tokens=tokens[:, 0], uv=uv, unit=torch.tensor([1.2], dtype=torch.float64))
    return inputs, tokens[:, 1:]


def randomised(config: Config) -> Video2Pose2Rot:
    """Layers that start at zero get values, so that every path counts."""
    torch.manual_seed(1)
    model = Video2Pose2Rot(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize("aids", [False, True])
def test_permuting_joints_permutes_the_output(aids: bool) -> None:
    model, tensors = load(torch.float64)
    inputs = inputs_of(tensors, "a", torch.float64)
    image = tensors["a.in.image_embed"].double()
    order = torch.arange(13)
    if aids:
        model = randomised(TINY)
        inputs, image = aided(inputs, TINY)
        order[1:] = torch.randperm(12) + 1  # the aids read everything relative to the root, joint 0
    else:
        order = torch.randperm(13)
    before = model(image, inputs)
    after = model(image, permuted(inputs, order))
    for left, right in zip(before, after, strict=True):
        assert (left[:, :, order] - right).abs().max() < 1e-9


@pytest.mark.parametrize("aids", [False, True])
def test_each_frame_depends_on_its_margin_alone(aids: bool) -> None:
    """What makes windowed inference exact: a frame further away than the margins has no influence."""
    config = replace(TINY if aids else SMALL, layers=1, pose_layers=1, decoder_layers=1, cross_layers=1)
    model = randomised(config)
    _, tensors = load(torch.float64)
    inputs, image = aided(inputs_of(tensors, "a", torch.float64), config)
    if not aids:  # which see nothing of it
        inputs = replace(inputs, uv=torch.full_like(inputs.uv, torch.nan), unit=torch.full_like(inputs.unit, torch.nan))
    image = torch.cat([image, image.flip(1)], dim=1)
    whole = model(image, inputs)
    changed = image.clone()
    changed[:, -1] *= -1
    other = model(changed, inputs)
    reach = image.shape[1] - 1 - sum(config.margins)
    for left, right in zip(whole, other, strict=True):
        difference = (left - right).abs().amax((0, 2, 3))
        assert difference[:reach].max() < 1e-12
        assert difference[-1] > 1e-6


def test_several_reference_pairs() -> None:
    model, tensors = load(torch.float64)
    inputs = inputs_of(tensors, "a", torch.float64, "memory2")
    position = model.video2pos(tensors["a.in.image_embed"].double(), inputs_of(tensors, "a", torch.float64))[0]
    out = model.pos2rot(position, inputs)
    swapped = replace(inputs, position=inputs.position[:, [0, 1, 1]], rot6d=inputs.rot6d[:, [0, 1, 1]])
    assert out.shape == (1, 9, 13, 6)
    assert (model.pos2rot(position, swapped) - out).abs().max() > 1e-6


def test_release_names_and_shapes() -> None:
    with torch.device("meta"):
        model = Video2Pose2Rot(Config())
    expected = json.loads((DATA / "release_state_dict.json").read_text())
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == expected


def test_static_joints_keep_the_reference() -> None:
    model, tensors = load(torch.float64)
    inputs = inputs_of(tensors, "a", torch.float64)
    position, rot6d = model(tensors["a.in.image_embed"].double(), inputs)
    assert (position[:, :, 3] == inputs.position[:, :1, 3]).all()
    assert (rot6d[:, :, 4] == inputs.rot6d[:, :1, 4]).all()


def test_aids_start_at_the_reference() -> None:
    _, tensors = load(torch.float64)
    inputs, image = aided(inputs_of(tensors, "a", torch.float64), TINY)
    model = Video2Pose2Rot(TINY).double().eval()
    rot6d = model.pos2rot(inputs.position[:, :1].expand(-1, 9, -1, -1), inputs)
    assert rot6d.isfinite().all()
    assert model(image, inputs)[0][:, :, 0].abs().max() == 0

"""Batched kinematics in torch against the plain ones in numpy."""

import numpy as np
import pytest
import torch
from anyrig.backend.geometry import rotations, torch_kinematics
from anyrig.backend.rig import skeleton


def tree(joints: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parents, offsets and random local rotations (5, J, 3, 3)."""
    rng = np.random.default_rng(seed)
    parents = np.array([-1] + [rng.integers(max(0, joint - 4), joint) for joint in range(1, joints)])
    offsets = rng.normal(size=(joints, 3))
    offsets[0] = 0
    return parents, offsets, rotations.rot6d_to_matrix(rng.normal(size=(5, joints, 6)))


def batched(parents: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(np.maximum(parents, 0))[None], torch.tensor(skeleton.ancestor_mask(parents))[None]


@pytest.mark.parametrize("joints", [1, 2, 17, 40])
def test_forward_kinematics_equals_the_plain_one(joints: int) -> None:
    parents, offsets, local = tree(joints, joints)
    rotations, positions = skeleton.forward_kinematics(parents, offsets, local)
    index, ancestors = batched(parents)
    out = torch_kinematics.local_to_global(index, torch.tensor(local)[None])
    assert np.abs(out[0].numpy() - rotations).max() < 1e-12
    places = torch_kinematics.positions_from_rotations(index, ancestors, torch.tensor(offsets)[None], out)
    assert np.abs(places[0].numpy() - positions).max() < 1e-12
    assert np.abs(torch_kinematics.global_to_local(index, out)[0].numpy() - local).max() < 1e-12


def test_rot6d_equals_the_plain_one() -> None:
    values = np.random.default_rng(0).normal(size=(50, 6))
    matrix = torch_kinematics.rot6d_to_matrix(torch.tensor(values))
    assert np.abs(matrix.numpy() - rotations.rot6d_to_matrix(values)).max() < 1e-12
    assert np.abs(torch_kinematics.matrix_to_rot6d(matrix).numpy() - rotations.matrix_to_rot6d(matrix.numpy())).max() < 1e-12


@pytest.mark.parametrize("angle", [0.0, 1e-4, 1.0, np.pi - 1e-4])
def test_geodesic_angle_has_a_finite_gradient(angle: float) -> None:
    turn = torch.tensor(rotations.axis_angle_to_matrix(np.array([0.0, 0.6, 0.8]), np.array(angle)), requires_grad=True)
    value = torch_kinematics.geodesic_angle(torch.eye(3, dtype=torch.float64), turn)
    assert value.item() == pytest.approx(angle, abs=2e-6)
    value.backward()
    assert turn.grad is not None and turn.grad.isfinite().all()


def test_anchored_ik_keeps_a_reference_that_does_not_move() -> None:
    parents, offsets, local = tree(20, 1)
    rotations, positions = skeleton.forward_kinematics(parents, offsets, local)
    index, _ = batched(parents)
    mask = torch.ones(1, 20, dtype=torch.bool)
    out = torch_kinematics.anchored_ik(
        index, mask, torch.tensor(positions[:1])[None], torch.tensor(positions[:1]), torch.tensor(rotations[:1])
    )
    assert np.abs(out[0, 0].numpy() - rotations[0]).max() < 1e-6


def test_anchored_ik_follows_a_turn_of_the_whole_body_and_of_one_limb() -> None:
    parents, offsets, local = tree(20, 2)
    global_rotations, positions = skeleton.forward_kinematics(parents, offsets, local)
    whole = rotations.yaw_to_matrix(np.array(0.8))
    index, _ = batched(parents)
    mask = torch.ones(1, 20, dtype=torch.bool)
    anchor = (torch.tensor(positions[:1]), torch.tensor(global_rotations[:1]))
    out = torch_kinematics.anchored_ik(index, mask, torch.tensor(positions[:1] @ whole.T)[None], *anchor)
    assert np.abs(out[0, 0].numpy() - whole @ global_rotations[0]).max() < 1e-6
    bent = local[:1].copy()
    joint = next(j for j in range(19, 0, -1) if (parents == j).any())
    bent[:, joint] = bent[:, joint] @ rotations.axis_angle_to_matrix(np.array([1.0, 0, 0]), np.array(0.5))
    moved = skeleton.forward_kinematics(parents, offsets, bent)[1]
    out = torch_kinematics.anchored_ik(index, mask, torch.tensor(moved)[None], *anchor)
    child = int(np.flatnonzero(parents == joint)[0])
    predicted = out[0, 0, joint].numpy() @ offsets[child]
    true = moved[0, child] - moved[0, joint]
    assert predicted @ true / np.linalg.norm(predicted) / np.linalg.norm(true) > 0.99


@pytest.mark.parametrize(("length", "share"), [(0.5, 0.96), (0.1, 0.5), (0.02, 0.04)])
def test_anchored_ik_follows_short_bones_less(length: float, share: float) -> None:
    """A bone turned a little about an axis across it, held by the parent's rotation with the weight 0.1."""
    parents = torch.tensor([[0, 0, 1]])
    straight = torch.tensor([[[0.0, 0, 0], [0, 1, 0], [0, 1 + length, 0]]], dtype=torch.float64)
    turned = straight.clone()
    turned[0, 2] = turned[0, 1] + length * torch.tensor([np.sin(0.1), np.cos(0.1), 0])
    eye = torch.eye(3, dtype=torch.float64).expand(1, 3, 3, 3)
    mask = torch.ones(1, 3, dtype=torch.bool)
    out = torch_kinematics.anchored_ik(parents, mask, turned[None], straight, eye, rounds=30, hold=0.1, short=0.1)[0, 0]
    root, bone = (torch.atan2(out[joint, 0, 1], out[joint, 1, 1]).item() for joint in (0, 1))
    # the moment is share * (turned direction) (bone)^T + 0.1 * (the root's rotation)
    between = np.arctan2(share * np.sin(0.1 - root), share * np.cos(0.1 - root) + 2 * 0.1)
    assert bone - root == pytest.approx(between, rel=0.05)


@pytest.mark.parametrize("length", [0.0, 1e-7, 0.3, 3.1])
def test_rotation_vectors_turn_as_they_should(length: float) -> None:
    axis = np.array([2.0, -1.0, 0.5])
    theta = torch.tensor(axis / np.linalg.norm(axis) * length, requires_grad=True)
    matrix = torch_kinematics.rotvec_to_matrix(theta)
    assert np.allclose(matrix.detach().numpy(), rotations.rotvec_to_matrix(theta.detach().numpy()), atol=1e-9)
    matrix.sum().backward()
    assert theta.grad is not None and theta.grad.isfinite().all()

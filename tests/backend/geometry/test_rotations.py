"""Rotations: every representation and back, at tiny and large angles, in both precisions."""

import numpy as np
import pytest
from anyrig.backend.geometry import rotations as R
from hypothesis import given
from hypothesis import strategies as st

ANGLES = [0.0, 1e-7, 1e-4, 0.3, np.pi / 2, 2.0, np.pi - 1e-4, np.pi - 1e-7, np.pi]
KINDS = [(np.float64, 1e-12), (np.float32, 3e-6)]
ANGLE = st.one_of(st.sampled_from(ANGLES), st.floats(0, np.pi))
PART = st.floats(-1, 1).filter(lambda value: abs(value) > 1e-3)
AXIS = st.tuples(st.floats(-1, 1), st.floats(-1, 1), PART).map(lambda axis: np.array(axis) / np.linalg.norm(axis))
KIND = st.sampled_from(KINDS)


def turn(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rodrigues' formula, as an oracle."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    # sin(pi) is not zero in floating point, which is the exact value for this angle: keep it
    return np.eye(3) + np.sin(angle) * cross + 2 * np.sin(angle / 2) ** 2 * cross @ cross


@given(AXIS, ANGLE, KIND)
def test_axis_angle_is_rodrigues(axis, angle, kind):
    dtype, tolerance = kind
    matrix = R.axis_angle_to_matrix(axis.astype(dtype), np.array(angle, dtype))
    assert matrix.dtype == dtype
    assert np.abs(matrix - turn(axis, float(dtype(angle)))).max() < tolerance


@given(AXIS, ANGLE, KIND)
def test_quaternion_round_trip(axis, angle, kind):
    dtype, tolerance = kind
    matrix = turn(axis, angle).astype(dtype)
    quaternion = R.matrix_to_quaternion(matrix)
    assert quaternion.dtype == dtype and quaternion[0] >= 0
    assert abs(np.linalg.norm(quaternion) - 1) < tolerance
    assert np.abs(R.quaternion_to_matrix(quaternion) - matrix).max() < tolerance
    expected = np.array([np.cos(angle / 2), *(np.sin(angle / 2) * axis)])
    sign = 1 if expected @ quaternion > 0 else -1  # at half a turn both signs have w = 0
    assert np.abs(quaternion - sign * expected).max() < tolerance


@given(AXIS, ANGLE, KIND)
def test_rot6d_round_trip(axis, angle, kind):
    dtype, tolerance = kind
    matrix = turn(axis, angle).astype(dtype)
    rot6d = R.matrix_to_rot6d(matrix)
    assert rot6d.dtype == dtype
    assert np.array_equal(rot6d, [*matrix[0], *matrix[1]])  # rows, not columns
    assert np.abs(R.rot6d_to_matrix(rot6d) - matrix).max() < tolerance


@given(AXIS, ANGLE, AXIS, st.floats(0, np.pi), KIND)
def test_geodesic_angle_is_exact_at_every_size(axis, angle, other, start, kind):
    dtype, tolerance = kind
    left = turn(other, start)
    right = left @ turn(axis, angle)
    assert abs(float(R.geodesic_angle(left.astype(dtype), right.astype(dtype))) - angle) < tolerance
    assert R.geodesic_angle(right, left) == pytest.approx(R.geodesic_angle(left, right), abs=1e-12)


def test_tiny_angles_keep_their_digits():
    axis = np.array([0.6, 0.0, 0.8])
    for angle in (1e-4, 1e-7, 1e-10):
        matrix = turn(axis, angle)
        assert R.geodesic_angle(np.eye(3), matrix) == pytest.approx(angle, rel=1e-6)
        assert R.matrix_to_quaternion(matrix)[1:] == pytest.approx(axis * angle / 2, rel=1e-6)
        assert np.pi - R.geodesic_angle(np.eye(3), turn(axis, np.pi - angle)) == pytest.approx(angle, rel=1e-4)


@given(AXIS, ANGLE, KIND)
def test_rotation_vectors_round_trip(axis, angle, kind):
    dtype, tolerance = kind
    rotvec = (angle * axis).astype(dtype)
    matrix = R.rotvec_to_matrix(rotvec)
    assert matrix.dtype == dtype and np.abs(matrix - turn(axis, angle)).max() < 3 * tolerance
    again = R.matrix_to_rotvec(turn(axis, angle).astype(dtype))
    assert again.dtype == dtype and np.linalg.norm(again) <= np.pi + tolerance
    # near half a turn the axis may be the opposite one
    assert min(np.abs(again - rotvec).max(), np.abs(again + (2 * np.pi - angle) * axis).max()) < 10 * tolerance


@pytest.mark.parametrize("angle", [0.0, 1e-300, 1e-160, 1e-13, 1e-12, 1e-10, 1e-7])
def test_tiny_rotation_vectors_keep_their_digits(angle):
    rotvec = angle * np.array([0.6, 0.0, 0.8])
    matrix = R.rotvec_to_matrix(rotvec)
    assert np.isfinite(matrix).all()
    assert R.matrix_to_rotvec(matrix) == pytest.approx(rotvec, rel=1e-6, abs=1e-155)


@given(AXIS, st.floats(-30, 30))
def test_long_rotation_vectors_are_whole_turns_further(axis, angle):
    short = R.matrix_to_rotvec(R.rotvec_to_matrix(angle * axis))
    assert np.abs(R.rotvec_to_matrix(short) - turn(axis, angle)).max() < 1e-12


@given(AXIS, ANGLE, AXIS, st.floats(0, np.pi), st.floats(0, 1), st.sampled_from([1, -1]))
def test_slerp_turns_evenly_the_shorter_way(axis, angle, other, start, weight, sign):
    first = R.matrix_to_quaternion(turn(other, start))
    last = sign * R.quaternion_multiply(first, np.array([np.cos(angle / 2), *(np.sin(angle / 2) * axis)]))
    between = R.slerp(first, last, np.array([weight]))
    assert np.linalg.norm(between) == pytest.approx(1, abs=1e-12)
    # at half a turn both ways are as long: it lies on one of them
    ways = (turn(other, start) @ turn(axis, part * weight) for part in ((angle,) if angle < 3.14 else (angle, angle - 2 * np.pi)))
    assert min(np.abs(R.quaternion_to_matrix(between) - way).max() for way in ways) < 1e-9
    assert np.array_equal(R.slerp(first, last, np.array([0.0])), first)
    end = R.slerp(first, last, np.array([1.0]))
    assert min(np.abs(end - last).max(), np.abs(end + last).max()) < 1e-15


def test_slerp_of_many_frames_and_equal_rotations():
    rng = np.random.default_rng(0)
    quaternions = rng.normal(size=(5, 3, 4))
    quaternions /= np.linalg.norm(quaternions, axis=-1, keepdims=True)
    weight = rng.random((5, 1, 1))
    assert R.slerp(quaternions, quaternions[::-1], weight).shape == (5, 3, 4)
    assert np.abs(R.slerp(quaternions, -quaternions, weight) - quaternions).max() < 1e-15


@given(AXIS, ANGLE, AXIS, ANGLE)
def test_products_of_quaternions_are_products_of_matrices(axis, angle, other, second):
    left, right = (R.matrix_to_quaternion(turn(*pair)) for pair in ((axis, angle), (other, second)))
    product = R.quaternion_to_matrix(R.quaternion_multiply(left, right))
    assert np.abs(product - turn(axis, angle) @ turn(other, second)).max() < 1e-12


@given(st.floats(-3.1, 3.1), KIND)
def test_yaw(angle, kind):
    dtype, tolerance = kind
    matrix = R.yaw_to_matrix(dtype(angle))
    assert matrix.dtype == dtype
    assert np.abs(matrix - turn(np.array([0.0, 1, 0]), angle)).max() < tolerance
    assert abs(float(R.matrix_to_yaw(matrix)) - angle) < 10 * tolerance


def test_yaw_turns_z_towards_x():
    assert np.allclose(R.yaw_to_matrix(np.pi / 2) @ [0, 0, 1], [1, 0, 0])


@given(st.floats(-3, 3), st.floats(0, np.pi - 0.1), st.floats(0, 6.3))
def test_yaw_of_a_swing_after_a_twist_is_the_twist(yaw, swing, side):
    level = np.array([np.cos(side), 0.0, np.sin(side)])  # a swing has a level axis
    matrix = turn(level, swing) @ R.yaw_to_matrix(yaw)
    assert R.matrix_to_yaw(matrix) == pytest.approx(yaw, abs=1e-9)


def test_batches_have_any_shape():
    quaternions = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    matrices = R.quaternion_to_matrix(quaternions)
    assert matrices.shape == (2, 3, 5, 3, 3)
    for convert, back in ((R.matrix_to_quaternion, R.quaternion_to_matrix), (R.matrix_to_rot6d, R.rot6d_to_matrix)):
        assert np.abs(back(convert(matrices)) - matrices).max() < 1e-12
        assert np.array_equal(convert(matrices)[1, 2, 4], convert(matrices[1, 2, 4]))
    assert R.geodesic_angle(matrices, matrices).shape == R.matrix_to_yaw(matrices).shape == (2, 3, 5)
    assert R.axis_angle_to_matrix(np.array([0.0, 0, 1]), np.zeros((4, 2))).shape == (4, 2, 3, 3)
    assert R.quaternion_to_matrix(np.zeros((0, 4))).shape == (0, 3, 3)


def test_single_rotations_keep_float32():
    matrix = np.eye(3, dtype=np.float32)
    quaternion = R.matrix_to_quaternion(matrix)
    values = [R.geodesic_angle(matrix, matrix), R.matrix_to_yaw(matrix), R.quaternion_multiply(quaternion, quaternion)]
    assert [np.asarray(value).dtype for value in values] == [np.float32] * 3


def test_integers_become_floats():
    assert R.quaternion_to_matrix([0, 0, 2, 0]).tolist() == [[-1, 0, 0], [0, 1, 0], [0, 0, -1]]
    assert R.rot6d_to_matrix([2, 0, 0, 1, 3, 0]).tolist() == np.eye(3).tolist()


@pytest.mark.parametrize("dtype,tolerance", KINDS)
def test_continuous_changes_signs_only(dtype, tolerance):
    random = np.random.default_rng(1)
    steps = random.normal(size=(50, 3, 4)) * 0.1 + [1, 0, 0, 0]
    smooth = np.empty((50, 3, 4))
    smooth[0] = random.normal(size=(3, 4))
    for frame in range(1, 50):
        smooth[frame] = R.quaternion_multiply(smooth[frame - 1], steps[frame])
    signs = random.choice([-1, 1], size=(50, 3, 1))
    signs[0] = 1
    fixed = R.continuous((smooth * signs).astype(dtype))
    assert fixed.dtype == dtype
    assert np.abs(fixed - smooth.astype(dtype)).max() == 0
    assert R.continuous(smooth[:0]).shape == (0, 3, 4)


@given(AXIS, ANGLE, st.tuples(*[st.floats(0.05, 20)] * 3), KIND)
def test_rotation_part_ignores_scale_along_the_bones_axes(axis, angle, scale, kind):
    dtype, tolerance = kind
    affine = np.eye(4, dtype=dtype)
    affine[:3, :3] = turn(axis, angle) * np.array(scale)
    affine[:3, 3] = [1, 2, 3]
    part = R.nearest_rotation(affine)
    assert part.dtype == dtype
    assert np.abs(part - turn(axis, angle)).max() < 3 * tolerance


@given(AXIS, ANGLE, st.floats(-0.5, 0.5))
def test_rotation_part_of_a_shear_is_the_nearest_rotation(axis, angle, shear):
    # a symmetric stretch in the rotated axes: its polar factor is the rotation itself
    stretch = np.array([[1, shear, 0], [shear, 1, 0], [0, 0, np.sqrt(1 + shear**2)]])
    assert np.abs(R.nearest_rotation(turn(axis, angle) @ stretch) - turn(axis, angle)).max() < 1e-9


def test_rotation_part_of_a_sheared_bone_does_not_depend_on_its_stretch():
    sheared = np.eye(3) + np.random.default_rng(3).uniform(-0.3, 0.3, size=(3, 3))
    assert np.abs(R.nearest_rotation(sheared * np.array([1, 9, 0.2])) - R.nearest_rotation(sheared)).max() < 1e-12


def test_rotation_part_of_a_mirror_is_proper():
    mirrored = R.quaternion_to_matrix(np.random.default_rng(2).normal(size=(20, 4))) * np.array([1, -1, 1])
    parts = R.nearest_rotation(mirrored)
    assert np.allclose(np.linalg.det(parts), 1)
    assert np.allclose(parts @ np.swapaxes(parts, -1, -2), np.eye(3))

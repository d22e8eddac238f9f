"""Takes laid on footage made in code: what is found, what is left alone, windows, cancelling."""

from collections.abc import Container, Generator, Sequence
from contextlib import closing
from dataclasses import replace

import cv2
import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import axis_angle_to_matrix, geodesic_angle, matrix_to_quaternion
from anyrig.backend.motion.motion import Motion
from anyrig.backend.progress import Progress, result_of
from anyrig.backend.refine import refine as refine_module
from anyrig.backend.refine.fit import Fit
from anyrig.backend.refine.footage import Footage
from anyrig.backend.refine.overlap import posed_points
from anyrig.backend.refine.pins import carried, frames_around
from anyrig.backend.refine.refine import FitTarget, refine, thinned, window_bounds
from anyrig.backend.rendering.capsules import capsules
from anyrig.backend.rig.skeleton import global_to_local, local_to_global
from anyrig.tests.backend.refine.test_fit import SCALE, SIZE, mattes_of, motion_of, star, swung

QUICK = refine_module.SETTINGS["quick"]
FAST = replace(QUICK, points=300, shared=replace(QUICK.shared, steps=(20, 10, 30)), fit=replace(QUICK.fit, steps=(30, 0, 90)))


def take(share: float, frames: int = 13, fps: float = 24.0) -> Motion:
    """The star swinging its limbs once a second by a share of the full angle."""
    motion = motion_of(star(), swung(share, frames, (frames - 1) / fps))
    return replace(motion, times=np.arange(frames) / fps, provenance={"azimuth": 0.0})


def footage_of(motion: Motion, images: bool = True) -> Footage:
    """The star in the middle of the image, spotted, before a grey wall."""
    rig = star()
    surface = capsules(rig, 4000)
    points = posed_points(rig, surface, motion)
    mattes = mattes_of(points)
    low, high = points[..., :2].min(1) * SCALE, points[..., :2].max(1) * SCALE
    boxes = np.column_stack([160 + low[:, 0], 130 - high[:, 1], 160 + high[:, 0], 130 - low[:, 1]])
    spots = np.random.default_rng(0).integers(0, 255, len(surface))

    def draw(frame: int) -> np.ndarray:
        image = np.full(SIZE, 120, np.uint8)
        places = np.rint(points[frame, :, :2] * (SCALE, -SCALE) + (160, 130)).astype(int)
        for (x, y), spot in zip(places, spots, strict=True):
            cv2.circle(image, (int(x), int(y)), 2, int(spot), -1)
        return np.dstack([image] * 3)

    def chosen(only: Container[int]) -> Generator[np.ndarray, None, None]:
        yield from (draw(frame) for frame in range(len(motion)) if frame in only)

    return Footage(motion.times, np.ones(len(motion)), boxes, mattes.__getitem__, chosen if images else None)


def refined(motion: Motion, footage: Footage, mode: str = "quick", **how: object) -> Motion:
    rig = star()
    how.setdefault("settings", FAST)
    return result_of(refine([FitTarget(rig, capsules(rig, 2000), motion)], footage, mode, **how))[0]


def apart(left: Motion, right: Motion, joints: Sequence[int] = (3, 5)) -> float:
    """Mean degrees between the rotations of two takes; of the limbs that swing, unless others are named."""
    chosen = list(joints)
    return float(np.degrees(geodesic_angle(left.matrices[:, chosen], right.matrices[:, chosen]).mean()))


def test_limbs_that_keep_still_swing_as_the_film_does() -> None:
    truth, raw = take(1.0), take(0.2)
    found = refined(raw, footage_of(truth))
    assert apart(found, truth) < 0.5 * apart(raw, truth)
    before, after = found.provenance["refine"]["overlap"]
    assert after > before and found.raw is raw
    assert found.path.shape == (13, 3) and np.allclose(found.path, (160, 130, 60), rtol=0.05)


def test_off_returns_the_take() -> None:
    raw = take(0.2)
    assert refined(raw, footage_of(take(1.0)), "off") is raw


def test_joints_that_cover_the_film_less_are_less_certain() -> None:
    still = refined(take(1.0), footage_of(take(1.0))).confidence
    rig, wrong = star(), take(0.0)
    frozen = FitTarget(rig, capsules(rig, 2000), wrong, joints=np.zeros(7, bool))
    [lost] = result_of(refine([frozen], footage_of(take(1.0)), settings=FAST))
    assert np.allclose(lost.rotations, wrong.rotations, atol=1e-6)
    arm = 5
    assert lost.confidence[3, arm] < 0.7 * still[3, arm] and still.min() > 0.5


def test_several_rigs_share_the_film() -> None:
    rig, film = star(), footage_of(take(1.0))
    targets = [FitTarget(rig, capsules(rig, 2000), take(share)) for share in (0.2, 0.5)]
    together = result_of(refine(targets, film, settings=FAST))
    alone = [result_of(refine([target], film, settings=FAST))[0] for target in targets]
    assert all(np.array_equal(a.rotations, b.rotations) for a, b in zip(together, alone, strict=True))


def test_closing_leaves_the_raw_take() -> None:
    raw = take(0.2)
    before = raw.rotations.copy()
    work = refine([FitTarget(star(), capsules(star(), 2000), raw)], footage_of(take(1.0)))
    with closing(work):
        seen = [next(work) for _ in range(40)]
    assert all(isinstance(each, Progress) and each.done <= each.total for each in seen)
    assert np.array_equal(raw.rotations, before) and raw.raw is None


def test_another_video_is_an_error() -> None:
    with pytest.raises(UserError, match="13 frames and the video 14"):
        refined(take(0.2), footage_of(take(1.0, 14)))


def test_windows_agree_with_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = 48
    truth, raw = take(1.0, frames), take(0.2, frames)
    film = footage_of(truth, images=False)
    whole = refined(raw, film)
    monkeypatch.setattr(refine_module, "WINDOW", 24)
    parts = refined(raw, film)
    assert len(window_bounds(frames)) > 1
    assert apart(parts, whole) < 0.15 * apart(raw, truth)
    steps = np.degrees(geodesic_angle(parts.matrices[1:], parts.matrices[:-1]))
    assert steps.max() < 1.5 * np.degrees(geodesic_angle(truth.matrices[1:], truth.matrices[:-1])).max()


@pytest.mark.parametrize("count", [1, 2, 5, 63, 64, 65, 200, 1001])
def test_windows_cover_all_frames(count: int) -> None:
    bounds = window_bounds(count)
    assert bounds[0][0] == 0 and bounds[-1][1] == count
    assert all(low < high for low, high in bounds)
    assert all(after[0] < before[1] for before, after in zip(bounds, bounds[1:]))
    assert max(high - low for low, high in bounds) <= 1.5 * refine_module.WINDOW


@pytest.mark.parametrize("fps", [12.0, 24.0, 60.0, 240.0])
def test_fitted_frames_are_evenly_spaced(fps: float) -> None:
    chosen = thinned(np.arange(100) / fps, 30)
    assert chosen[0] == 0 and chosen[-1] == 99
    assert np.ptp(np.diff(chosen)) <= 1 and len(chosen) <= max(100 * 30 / fps + 2, 2) or fps <= 30


def test_a_perfect_take_is_left_alone() -> None:
    truth = take(1.0, 24)
    found = refined(truth, footage_of(truth))
    rig, surface = star(), capsules(star(), 500)
    way = np.linalg.norm(posed_points(rig, surface, found) - posed_points(rig, surface, truth), axis=-1).mean()
    assert apart(found, truth, range(7)) < 0.5 and way < 0.005 * 3.3


def test_a_still_subject_stays_still() -> None:
    """Its pose is not quite the film's: the limbs may go to where they belong, and stay there."""
    raw = replace(take(0.0), rotations=np.repeat(take(0.4).rotations[3:4], 13, axis=0))
    found = refined(raw, footage_of(take(0.0)))
    steps = np.degrees(geodesic_angle(found.matrices[1:], found.matrices[:-1]))
    assert steps.max() < 0.2


def test_a_trembling_take_of_a_still_subject_calms_down() -> None:
    random = np.random.default_rng(0)
    shake = axis_angle_to_matrix(np.broadcast_to([0.0, 1, 0], (24, 7, 3)), random.normal(0, 0.05, (24, 7)))
    still = take(0.0, 24)
    raw = replace(still, rotations=matrix_to_quaternion(shake @ still.matrices))
    found = refined(raw, footage_of(still))
    tremble = [geodesic_angle(each.matrices[1:], each.matrices[:-1]).mean() for each in (found, raw)]
    assert tremble[0] < 0.7 * tremble[1]


@pytest.mark.parametrize("unit", [100.0])
def test_the_unit_of_the_rig_does_not_matter(unit: float) -> None:
    rig, raw, film = star(), take(0.2), footage_of(take(1.0), images=False)
    rest = np.array(rig.rest)
    rest[:, :3, 3] *= unit
    other = replace(rig, rest=rest, tails=rig.tails * unit)
    surface = capsules(rig, 2000)
    scaled = replace(surface, points=surface.points * unit)
    [found] = result_of(refine([FitTarget(other, scaled, raw)], film, settings=FAST))
    assert apart(found, refined(raw, film)) < 0.5
    assert np.allclose(found.path[:, 2] * unit, refined(raw, film).path[:, 2], rtol=0.01)


def test_the_frame_rate_does_not_matter() -> None:
    """The same half second at 24 and at 48 frames a second."""
    truth, raw = (take(share, 13, 24.0) for share in (1.0, 0.2))
    fast_truth, fast_raw = (take(share, 25, 48.0) for share in (1.0, 0.2))
    found = refined(raw, footage_of(truth, images=False))
    fast = refined(fast_raw, footage_of(fast_truth, images=False))
    alike = replace(found, times=found.times, rotations=fast.rotations[::2])
    assert apart(found, alike) < 0.2 * apart(raw, truth)


def test_it_is_deterministic() -> None:
    raw, film = take(0.2), footage_of(take(1.0))
    assert np.array_equal(refined(raw, film).rotations, refined(raw, film).rotations)


def local_of(motion: Motion) -> np.ndarray:
    return global_to_local(star().parents, motion.matrices)


def test_outside_a_range_nothing_changes() -> None:
    raw = take(0.2, 30)
    found = refined(raw, footage_of(take(1.0, 30)), frames=(8, 20))
    outside = np.r_[0:8, 20:30]
    assert np.allclose(found.rotations[outside], raw.rotations[outside]) and np.allclose(
        found.positions[outside], raw.positions[outside]
    )
    assert apart(found, raw) > 1
    steps = np.degrees(geodesic_angle(found.matrices[1:], found.matrices[:-1]))
    assert steps.max() < 12


def test_only_chosen_joints_change() -> None:
    rig, raw = star(), take(0.2)
    target = FitTarget(rig, capsules(rig, 2000), raw, np.arange(7) == 5)
    [found] = result_of(refine([target], footage_of(take(1.0)), settings=FAST))
    changed = np.degrees(geodesic_angle(local_of(found), local_of(raw))).max(0)
    assert changed[5] > 5 and np.delete(changed, 5).max() < 0.01


def test_a_pinned_pose_stays_and_its_neighbours_go_along() -> None:
    frames, pin, arm = 61, 30, 6
    raw, film = take(1.0, frames), footage_of(take(1.0, frames), images=False)
    turned = np.array(local_of(raw))
    turned[pin, arm] = axis_angle_to_matrix(np.array([0.0, 1, 0]), np.array(0.5)) @ turned[pin, arm]
    edited = replace(raw, rotations=matrix_to_quaternion(local_to_global(star().parents, turned)), pins=np.array([[pin, arm]]))
    found = refined(edited, film, frames=frames_around(edited.pins, frames))
    away = np.degrees(geodesic_angle(local_of(found)[:, arm], local_of(raw)[:, arm]))
    assert np.allclose(local_of(found)[pin, arm], turned[pin, arm], atol=1e-6)
    assert away[pin] > 25 and away[pin - 1] > 15 and away[pin + 1] > 15 and away[[0, 60]].max() < 5
    assert found.pins.tolist() == [[pin, arm]] and found.raw is edited
    others = np.delete(np.degrees(geodesic_angle(local_of(found), local_of(raw))), arm, axis=1)
    assert others.mean() < 1.5


def test_carried_values_are_exact_on_their_frames() -> None:
    times, frames = np.arange(40) / 24, np.array([10, 12, 30])
    values = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -2]])
    spread = carried(times, frames, values)
    assert np.allclose(spread[frames], values, atol=1e-6) and np.abs(spread[21]).max() < 0.3


def test_a_fit_that_covers_the_film_less_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, overlaps = take(0.3), iter((0.6, 0.5))
    monkeypatch.setattr("anyrig.backend.refine.track.mean_overlap", lambda *_: next(overlaps))
    found = refined(raw, footage_of(take(1.0)))
    assert np.array_equal(found.rotations, raw.rotations) and np.array_equal(found.positions, raw.positions)
    assert np.array_equal(found.confidence, raw.confidence) and not len(found.path) and found.camera == raw.camera
    assert found.provenance["refine"]["overlap"] == [0.6, 0.6] and found.raw is not None


def test_confidence_does_not_fall_again_where_a_part_is_fitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fit, "residual", lambda fit: fit.local.new_full(fit.local.shape[:2], 0.5))
    footage = footage_of(take(1.0))
    first = refined(take(0.3), footage)
    again = refined(first, footage, frames=(3, 10))
    assert first.raw is not None and np.allclose(first.confidence, first.raw.confidence * np.exp(-0.5))
    assert np.allclose(again.confidence, first.confidence)

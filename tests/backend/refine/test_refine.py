"""Takes laid on footage made in code: what is found, what is left alone, windows, cancelling."""

from collections.abc import Container, Generator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle
from anyrig.backend.motion.motion import Motion
from anyrig.backend.progress import Progress, result_of
from anyrig.backend.refine import refine as refine_module
from anyrig.backend.refine.footage import Footage
from anyrig.backend.refine.overlap import posed_points
from anyrig.backend.refine.refine import FitTarget, refine, thinned, window_bounds
from anyrig.backend.rendering.capsules import capsules
from anyrig.tests.backend.refine.test_fit import mattes_of, motion_of, star, swung

SIZE = 2.9  # units that the star is high


def take(share: float, frames: int = 12, fps: float = 24.0) -> Motion:
    """The star swinging its limbs once in half a second by a share of the full angle."""
    motion = motion_of(star(), swung(share, frames, frames / 24 * 24 / fps / 0.5))
    return replace(motion, times=np.arange(frames) / fps, provenance={"azimuth": 0.0})


def footage_of(motion: Motion, images: bool = True) -> Footage:
    rig = star()
    mattes = mattes_of(posed_points(rig, capsules(rig, 4000), motion))
    boxes = np.array([[160 - 90, 130 - 130, 160 + 90, 130 + 80]] * len(motion), float)

    def chosen(only: Container[int]) -> Generator[np.ndarray, None, None]:
        yield from (np.dstack([matte] * 3) for frame, matte in enumerate(mattes) if frame in only)

    return Footage(motion.times, np.ones(len(motion)), boxes, mattes.__getitem__, chosen if images else None)


def refined(motion: Motion, footage: Footage, mode: str = "quick", **how: object) -> Motion:
    rig = star()
    return result_of(refine([FitTarget(rig, capsules(rig, 2000), motion)], footage, mode, **how))[0]


def moved(left: Motion, right: Motion) -> tuple[float, float]:
    """Mean degrees between the rotations of two takes, and the mean distance of their surfaces' points over the star's height."""
    rig, surface = star(), capsules(star(), 300)
    points = posed_points(rig, surface, left) - posed_points(rig, surface, right)
    angle = np.degrees(geodesic_angle(left.matrices, right.matrices).mean())
    return float(angle), float(np.linalg.norm(points, axis=-1).mean()) / SIZE


def test_limbs_that_keep_still_swing_as_the_film_does() -> None:
    truth, raw = take(1.0), take(0.2)
    found = refined(raw, footage_of(truth))
    assert moved(found, truth)[1] < 0.6 * moved(raw, truth)[1]
    before, after = found.provenance["refine"]["overlap"]
    assert after > before and found.raw is raw
    assert found.path.shape == (12, 3) and np.allclose(found.path, (160, 130, 60), rtol=0.05)


def test_off_returns_the_take() -> None:
    raw = take(0.2)
    assert refined(raw, footage_of(take(1.0)), "off") is raw


def test_joints_that_cover_the_film_less_are_less_certain() -> None:
    still = refined(take(1.0), footage_of(take(1.0))).confidence
    rig, wrong = star(), take(0.0)
    frozen = FitTarget(rig, capsules(rig, 2000), wrong, joints=np.zeros(7, bool))
    [lost] = result_of(refine([frozen], footage_of(take(1.0))))
    assert np.allclose(lost.rotations, wrong.rotations, atol=1e-6)
    arm = 5
    assert lost.confidence[3, arm] < 0.7 * still[3, arm] and still.min() > 0.5


def test_several_rigs_share_the_film() -> None:
    rig, film = star(), footage_of(take(1.0))
    targets = [FitTarget(rig, capsules(rig, 2000), take(share)) for share in (0.2, 0.5)]
    together = result_of(refine(targets, film))
    alone = [result_of(refine([target], film))[0] for target in targets]
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
    with pytest.raises(UserError, match="12 frames and the video 13"):
        refined(take(0.2), footage_of(take(1.0, 13)))


def test_windows_agree_with_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = 48
    truth, raw = take(1.0, frames), take(0.2, frames)
    film = footage_of(truth, images=False)
    whole = refined(raw, film)
    monkeypatch.setattr(refine_module, "WINDOW", 24)
    parts = refined(raw, film)
    assert len(window_bounds(frames)) > 1
    angle, way = moved(parts, whole)
    assert angle < 0.35 * moved(raw, truth)[0] and way < 0.02
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

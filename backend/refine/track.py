"""One take while it is fitted: from a Motion to what the fit needs, and from what windows found to the refined Motion."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..arrays import Array
from ..geometry.camera import view_rotation, view_yaw
from ..geometry.rotations import (
    continuous,
    matrix_to_quaternion,
    matrix_to_rotvec,
    nearest_rotation,
    rotvec_to_matrix,
    slerp,
)
from ..motion.motion import Motion, fk_heads
from ..motion.smoothing import bell, mean_over_time
from ..rig.point_cloud import Surface
from ..rig.rig import Rig
from ..rig.skeleton import global_to_local, local_to_global, network_axes
from .background import Seen
from .body import body_of
from .evidence import Evidence
from .fit import Fit, FitSettings
from .footage import Footage
from .overlap import posed_points, take_overlap
from .pins import carried, spread_pins

COMPARED = 12  # frames that the overlap is measured on
BLEND = 0.2  # seconds over which a range that is fitted passes into the frames around it


@dataclass(frozen=True)
class RefineSettings:
    """rate: fitted frames a second, at most; the frames between them follow smoothly. points: of the surface. shared, fit: steps and weights
    of the fit to a few frames of the whole clip, and of that to the windows. keep: share of the change that all frames have in common that
    is kept: much of it is not the pose, but another camera or another body. doubt: a gain in silhouette, in the unit of the fit's loss, that
    is worth half of the change; a take that already lies on the film is left alone. calm: seconds, width of the bell that the take is smoothed with
    first. lateral, own: shares of the axis across the body, and of those that a joint moves about in the take, in how freely it bends
    (hinge_metric)."""

    rate: float = 30.0
    points: int = 600
    shared: FitSettings = FitSettings(steps=(30, 20, 60), flow=0.0, rate=0.03, mean=0.4)
    fit: FitSettings = FitSettings(steps=(40, 0, 110), flow=2.0, prior=0.02, depth=0.3, steady=0.1)
    keep: float = 0.2
    doubt: float = 0.02
    calm: float = 0.03
    lateral: float = 0.8
    own: float = 0.1


@dataclass(frozen=True, eq=False)
class FitTarget:
    """A take to lay on the footage. motion: one of `motion_of`, whose provenance has the camera's azimuth. surface: in the rig's space.

    joints: (J,) bool, those that may change, or None for all that are neither static nor props.
    """

    rig: Rig
    surface: Surface
    motion: Motion
    joints: NDArray[np.bool_] | None = None


class Track:
    """One take while it is fitted. frames: the first and one past the last of those that may change."""

    def __init__(
        self,
        target: FitTarget,
        footage: Footage,
        frames: tuple[int, int],
        fitted: NDArray[np.int64],
        settings: RefineSettings,
        device: torch.device,
    ) -> None:
        self.target, self.footage, self.frames, self.fitted = target, footage, frames, fitted
        self.settings, self.device = settings, device
        rig, motion = target.rig, target.motion
        self.part = frames != (0, len(motion)) or target.joints is not None or len(motion.pins) > 0
        # a whole take is fitted afresh, so that doing it twice changes nothing; a part of it goes on from what is there
        self.start = motion if self.part or motion.raw is None else motion.raw
        # camera <- network <- armature: G_camera = Y A G A^T, p_camera = Y A p
        self.axes = view_yaw(float(motion.provenance["azimuth"])) @ network_axes(rig)
        local = global_to_local(rig.parents, self.axes @ self.start.matrices @ network_axes(rig).T)
        inside = (motion.pins[:, 0] >= frames[0]) & (motion.pins[:, 0] < frames[1])
        self.pins = motion.pins[inside]
        self.pinned = local[self.pins[:, 0], self.pins[:, 1]]
        local = spread_pins(motion.times, local, self.pins)
        self.local, self.given = calmed(
            motion.times, 0.0 if self.part else settings.calm, local, self.start.positions @ self.axes.T
        )
        # how far each joint is from its mean over the clip, as vectors that rotate after it
        mean = nearest_rotation(self.local.mean(0))
        self.moves = matrix_to_rotvec(np.swapaxes(mean, -1, -2) @ self.local)
        hinges = hinge_metric(local_to_global(rig.parents, self.local), self.moves, settings.lateral, settings.own)
        self.hinges = torch.as_tensor(hinges, dtype=torch.float32, device=device)
        self.body = body_of(rig, target.surface, settings.points).to(device)
        free = ~rig.static & ~rig.props if target.joints is None else np.array(target.joints, np.bool_)
        self.free = torch.as_tensor(free.astype(np.float32), device=device)
        count, joints = len(motion), len(rig.names)
        self.bend, self.weight = np.zeros((count, joints, 3)), np.zeros(count)
        self.path, self.error = np.zeros((count, 3)), np.zeros((count, joints))
        self.gained = 0.0
        self.camera, self.constant = torch.zeros(2, device=device), torch.zeros(joints, 3, device=device)

    def _fit(self, frames: NDArray[np.int64], evidence: Evidence, settings: FitSettings) -> Fit:
        local, given, times, moves = (
            torch.tensor(values[frames], dtype=torch.float32, device=self.device)
            for values in (self.local, self.given, self.footage.times, self.moves)
        )
        fit = Fit(self.body, evidence.to(self.device), local, given, self.free, settings, times, moves, self.hinges)
        for frame, joint in self.pins:
            for place in np.flatnonzero(frames == frame):
                fit.pinned[place, joint] = 1.0
        return fit

    def fit_shared(self, observed: tuple[NDArray[np.int64], Evidence]) -> Generator[tuple[int, int], None, None]:
        """Find the camera and the constant bend on a few frames of the clip."""
        fit = self._fit(*observed, self.settings.shared)
        yield from fit.run()
        with torch.no_grad():
            self.camera, self.constant = fit.state.camera.detach(), fit.bend().mean(0)

    def energy(self, evidence: Evidence) -> float:
        """How far the take is from a few mattes once it was fitted to them, and how far it was bent for that."""
        fit = self._fit(np.arange(len(self.fitted)), evidence, self.settings.shared)
        for _ in fit.run():
            pass
        with torch.no_grad():
            heads = fit.pose()[1]
            return fit.missed() + self.settings.shared.prior * float(fit.priors(heads, fit.bend()))

    def fit_window(self, low: int, high: int, seam: int, evidence: Evidence) -> Generator[tuple[int, int], None, None]:
        """Fit the fitted frames from `low` to before `high`, and add what was found to that of the windows before.

        seam: fitted frames that it shares with each of its neighbours.
        """
        fitted = self.fitted[low:high]
        fit = self._fit(fitted, evidence, self.settings.fit)
        fit.hold(self.camera, self.constant)
        yield from fit.run()
        self.gained += max(fit.misses[2] - fit.missed(), 0.0) * len(fitted) / len(self.fitted)
        frames = np.arange(fitted[0], fitted[-1] + 1)
        share = seam_weights(frames, fitted, seam, low > 0, high < len(self.fitted))
        with torch.no_grad():
            basis = fit.basis_at(torch.tensor(self.footage.times[frames], dtype=torch.float32))
            bend = torch.tensordot(basis, fit.state.change, 1).cpu().double().numpy()
            bend += fit.state.gain.cpu().double().numpy()[:, None] * self.moves[frames]
            place, scale = fit.state.place * evidence.size, fit.state.scale.exp()[:, None]
            path = torch.cat([place, scale], dim=1).cpu().double().numpy()
            error = fit.residual().cpu().double().numpy()
        self.bend[frames] += share[:, None, None] * bend
        self.path[frames] += share[:, None] * _between(frames, fitted, path)
        self.error[frames] += share[:, None] * _between(frames, fitted, error)
        self.weight[frames] += share

    def refined(self, mode: str, seconds: float, seen: Seen | None = None) -> Motion:
        """The take with what was found. seen: of the background; None leaves what the take knows of it."""
        motion, rig, known = self.target.motion, self.target.rig, np.maximum(self.weight, 1e-9)
        done = np.flatnonzero(self.weight)
        rotations = self._rotations(done, self.bend[done] / known[done, None, None])
        found = matrix_to_quaternion(self.axes.T @ local_to_global(rig.parents, rotations) @ network_axes(rig))
        quaternions, confidence = np.array(motion.rotations), np.array(motion.confidence)
        quaternions[done] = slerp(motion.rotations[done], found, self._shares(done)[:, None, None])
        confidence[done] = (motion.raw or motion).confidence[done] * np.exp(-self.error[done] / known[done, None])
        changed = replace(motion, rotations=continuous(quaternions), confidence=confidence, raw=motion.raw or motion)
        positions = np.array(motion.positions)
        positions[done] = (fk_heads(rig, changed) @ network_axes(rig))[done]
        path = self.path[done] / known[done, None] * (self.footage.pixel, self.footage.pixel, 1 / self.footage.pixel)
        if len(done) < len(motion):
            whole = _between(np.arange(len(motion)), done, path) if not len(motion.path) else np.array(motion.path)
            whole[done] = path
            path = whole
        # look = R_x(pitch) R_y(yaw), and R_y(yaw) Y(a) = Y(a - yaw)
        pitch, yaw = (float(angle) for angle in self.camera)
        about = {"mode": mode, "azimuth": float(motion.provenance["azimuth"]) - yaw, "pitch": pitch, "seconds": seconds}
        before = motion.provenance.get("refine", {})
        about |= {key: before[key] for key in ("camera", "picture") if key in before}
        changed = replace(changed, positions=positions, path=path, provenance={**motion.provenance, "refine": about})
        if seen is not None:
            about |= {"camera": seen.camera, "picture": seen.size}
            changed = replace(changed, background=seen.background)
        assert changed.raw is not None
        before, after = (mean_overlap(rig, self.target.surface, each, self.footage) for each in (changed.raw, changed))
        if after < before and not self.part:  # the fit was led astray: nothing that it found is kept
            of_the_film = {key: about[key] for key in ("mode", "seconds", "camera", "picture") if key in about}
            kept = {"refine": of_the_film | {"overlap": [before, before]}}
            return replace(changed.raw, background=changed.background, raw=changed.raw, provenance={**motion.provenance, **kept})
        about["overlap"] = [before, after]
        return changed

    def _rotations(self, frames: NDArray[np.int64], bend: Array) -> Array:
        """(N, J, 3, 3) local rotations of the fitted frames with what their bends (N, J, 3) change; pinned ones are as they were set."""
        total = bend + self.constant.cpu().double().numpy()
        total -= (1 - self.settings.keep) * common_part(total)
        total *= self.free.cpu().double().numpy()[:, None] * self.gained / (self.gained + self.settings.doubt)
        for joint in np.unique(self.pins[:, 1]):
            held = np.searchsorted(frames, np.unique(self.pins[self.pins[:, 1] == joint, 0]))
            total[:, joint] -= carried(self.footage.times[frames], held, total[held, joint])
        local = self.local[frames] @ rotvec_to_matrix(total)
        local[np.searchsorted(frames, self.pins[:, 0]), self.pins[:, 1]] = self.pinned
        return local

    def _shares(self, frames: NDArray[np.int64]) -> Array:
        """How much of the fit each frame takes: it fades in and out where a range ends within the clip, but not on a pinned frame."""
        times, (start, stop) = self.footage.times, self.frames
        share = np.ones(len(frames))
        if start > 0:
            share = np.minimum(share, (times[frames] - times[start - 1]) / BLEND)
        if stop < len(times):
            share = np.minimum(share, (times[stop] - times[frames]) / BLEND)
        share[np.isin(frames, self.pins[:, 0])] = 1.0
        return share


def common_part(bend: Array) -> Array:
    """(T, J, 3) -> (J, 3) what all frames have in common: of the values on most frames, the one nearest to zero."""
    low, high = np.quantile(bend, (0.1, 0.9), axis=0)
    return np.clip(0.0, low, high)


def hinge_metric(rotations: Array, moves: Array, lateral: float, own: float) -> Array:
    """(J, 3, 3) the inverse of how freely each joint bends about each axis, as a covariance with a trace of 3.

    A silhouette does not tell a leg that swings past the camera from one that is spread. Nearly all that animals and people do is in the
    plane that halves them: about the axis across the body, which is x at rest and root x in the camera's frame; in the frame of a joint
    with rotation G that is G^T G_root x. The rest is shared between the axes that the joint moves about in the take, and all. How much the
    axis across counts is how much of the take's own movement is about it: fish bend about another.

    rotations: (T, J, 3, 3) global rotations in the camera's axes. moves: (T, J, 3) as in Fit.
    """
    across = np.einsum("tjba,tb->tja", rotations, rotations[:, 0, :, 0])
    energy = (moves[:, 1:] ** 2).sum()
    share = ((moves * across).sum(-1)[:, 1:] ** 2).sum() / max(energy, 1e-9)
    across_share = lateral * float(np.clip(2 * share, 0, 1))
    hinge = np.einsum("tja,tjb->jab", across, across) / len(rotations)
    spread = np.einsum("tja,tjb->jab", moves, moves)
    trace = np.trace(spread, axis1=1, axis2=2)[:, None, None]
    spread = np.where(trace > 1e-6, spread / np.maximum(trace, 1e-9), np.eye(3) / 3)
    return np.linalg.inv((1 - across_share - own) * np.eye(3) + 3 * across_share * hinge + 3 * own * spread)


def calmed(times: Array, width: float, local: Array, positions: Array) -> tuple[Array, Array]:
    """Rotations (T, J, 3, 3) and positions (T, J, 3), each a mean over time with a bell of `width` seconds; 0 leaves them as they are."""
    if not width:
        return local, positions
    near = bell(times, width)
    return nearest_rotation(mean_over_time(near, local)), mean_over_time(near, positions)


def mean_overlap(rig: Rig, surface: Surface, motion: Motion, footage: Footage) -> float:
    """The overlap of a take with the mattes, a mean over COMPARED frames: see overlap.take_overlap."""
    seen = np.flatnonzero(footage.confidence > 0)
    if not len(seen):
        return 0.0
    chosen = seen[np.unique(np.linspace(0, len(seen) - 1, COMPARED).round().astype(int))]
    points = posed_points(rig, surface, motion)[chosen] @ view_rotation(*motion.camera).T
    return float(take_overlap(points, [footage.matte(int(frame)) for frame in chosen]).mean())


def seam_weights(frames: NDArray[np.int64], fitted: NDArray[np.int64], seam: int, before: bool, after: bool) -> Array:
    """How much of each frame of a window counts: it rises over the seam with the window before, and falls over that with the one after.

    seam: fitted frames that two windows share.
    """
    weight, shared = np.ones(len(frames)), min(seam, len(fitted))
    if before:
        weight = np.minimum(weight, (frames - frames[0] + 1) / (fitted[shared - 1] - fitted[0] + 2))
    if after:
        weight = np.minimum(weight, (frames[-1] + 1 - frames) / (fitted[-1] - fitted[-shared] + 2))
    return weight


def _between(frames: NDArray[np.int64], fitted: NDArray[np.int64], values: Array) -> Array:
    """Values (N, C) of the fitted frames -> (T, C) those of all frames, in a straight line between them."""
    return np.stack([np.interp(frames, fitted, column) for column in values.T], axis=1)

"""Lays takes on the footage: a generator over windows of a video that returns the refined takes beside the raw ones.

    takes = yield from refine([FitTarget(rig, surface, motion)], footage_of(clip, subject), "quick")

A long clip is fitted in windows that overlap. What all frames share (the camera's pitch and yaw, and how the pose differs from the film's
on every frame) is found first, on a few frames of the whole clip, and held in the windows, so they agree at their seams.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..arrays import Array
from ..errors import UserError
from ..geometry.camera import view_rotation, view_yaw
from ..geometry.rotations import continuous, matrix_to_quaternion, nearest_rotation
from ..geometry.torch_kinematics import rotvec_to_matrix
from ..motion.motion import Motion, fk_heads
from ..progress import Progress
from ..rig.point_cloud import Surface
from ..rig.rig import Rig
from ..rig.skeleton import global_to_local, local_to_global, network_axes
from .body import body_of
from .evidence import Evidence, Observed, diagonal
from .fit import Fit, FitSettings
from .footage import Footage
from .overlap import posed_points, take_overlap

MODES = ("off", "quick", "thorough")
STAGE = "Laying it on the film"
WINDOW, SEAM = 64, 12  # fitted frames of a window, and of them how many it shares with the next
SHARED = 24  # frames that the shared values are fitted to
COMPARED = 12  # frames that the overlap is measured on


@dataclass(frozen=True)
class RefineSettings:
    """rate: fitted frames a second, at most; the frames between them follow smoothly. points: of the surface. shared, fit: steps and weights
    of the fit to a few frames of the whole clip, and of that to the windows. keep: share of the change that all frames have in common that
    is kept: much of it is not the pose, but another camera or another body."""

    rate: float = 30.0
    points: int = 800
    shared: FitSettings = FitSettings(steps=(15, 20, 40), flow=0.0)
    fit: FitSettings = FitSettings(steps=(10, 0, 60))
    keep: float = 0.5
    calm: float = 0.03


SETTINGS = {"quick": RefineSettings(), "thorough": RefineSettings()}


@dataclass(frozen=True, eq=False)
class FitTarget:
    """A take to lay on the footage. motion: one of `motion_of`, whose provenance has the camera's azimuth. surface: in the rig's space.

    joints: (J,) bool, those that may change, or None for all that are neither static nor props.
    """

    rig: Rig
    surface: Surface
    motion: Motion
    joints: NDArray[np.bool_] | None = None


def refine(
    targets: Sequence[FitTarget],
    footage: Footage,
    mode: str = "quick",
    frames: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
    settings: RefineSettings | None = None,
) -> Generator[Progress, None, list[Motion]]:
    """Fit each take to the footage. Yields Progress; returns the refined takes, with the raw ones as `Motion.raw`.

    frames: fit only these, from the first to before the last; the rest of the take stays as it is.
    The motion's `path` is where it lies in the picture; its confidence says how well each joint covers the film; its provenance has, under
    "refine", the mode, the overlap before and after, and the camera's azimuth and pitch as the fit has them (`Motion.camera`).
    Closing the generator stops the work; the takes that went in are unchanged then.
    Raises UserError if a take and the footage have different frames, and what reading the video raises.
    """
    if mode == "off" or not targets:
        return [target.motion for target in targets]
    chosen = settings or SETTINGS[mode]
    for target in targets:
        if len(target.motion) != len(footage):
            raise UserError(
                f"The take has {len(target.motion)} frames and the video {len(footage)}: choose the video and the range it was captured from."
            )
    start, stop = frames or (0, len(footage))
    fitted = start + thinned(footage.times[start:stop], chosen.rate)
    tracks = [_Track(target, footage, fitted, chosen, torch.device(device)) for target in targets]
    began = time.perf_counter()
    total = len(fitted) + SHARED
    yield Progress(STAGE, 0, total)
    observed = _observe_mattes(footage, fitted[np.unique(np.linspace(0, len(fitted) - 1, SHARED).round().astype(int))])
    for done, track in enumerate(tracks):
        for step, steps in track.fit_shared(observed):
            yield Progress(STAGE, int(SHARED * (done + step / steps) / len(tracks)), total)
    with closing(_windows(footage, fitted)) as windows:
        for low, high, evidence in windows:
            for done, track in enumerate(tracks):
                for step, steps in track.fit_window(low, high, evidence):
                    share = (done + step / steps) / len(tracks)
                    yield Progress(STAGE, SHARED + low + int(share * (high - low)), total)
    seconds = (time.perf_counter() - began) / len(tracks)
    refined = [track.refined(mode, seconds) for track in tracks]
    yield Progress(STAGE, total, total)
    return refined


def thinned(times: Array, rate: float) -> NDArray[np.int64]:
    """Numbers of evenly spaced frames, at most `rate` a second, the first and the last among them."""
    if len(times) < 3:
        return np.arange(len(times))
    spacing = (times[-1] - times[0]) / (len(times) - 1)
    every = max(1, int(np.floor(1 / (rate * spacing) + 1e-3)))
    return np.unique(np.linspace(0, len(times) - 1, 1 + max(1, round((len(times) - 1) / every))).round().astype(np.int64))


def _observe_mattes(footage: Footage, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], Evidence]:
    observed = Observed(diagonal(footage.boxes))
    for frame in frames:
        observed.add(footage.matte(int(frame)), float(footage.confidence[frame]), footage.boxes[frame])
    return frames, observed.window(0, len(frames))


def _windows(footage: Footage, fitted: NDArray[np.int64]) -> Generator[tuple[int, int, Evidence], None, None]:
    """Yield windows of the fitted frames: the first, one past the last, and the evidence. Only one window is in memory."""
    observed = Observed(diagonal(footage.boxes))
    images = footage.images(set(fitted.tolist())) if footage.images is not None else None
    bounds = window_bounds(len(fitted))
    try:
        for place, frame in enumerate(fitted):
            image = None if images is None else next(images, None)
            observed.add(footage.matte(int(frame)), float(footage.confidence[frame]), footage.boxes[frame], image)
            while bounds and place + 1 == bounds[0][1]:
                low, high = bounds.pop(0)
                yield low, high, observed.window(low, high)
                observed.forget(bounds[0][0] if bounds else high)
    finally:
        if images is not None:
            images.close()


def window_bounds(count: int) -> list[tuple[int, int]]:
    """Windows of about WINDOW frames over so many, each SEAM frames into the next."""
    pieces = max(1, round((count - SEAM) / (WINDOW - SEAM)))
    edges = np.linspace(0, count - min(SEAM, count), pieces + 1).round().astype(int)
    return [(int(a), int(b) + min(SEAM, count)) for a, b in zip(edges[:-1], edges[1:])]


class _Track:
    """One take while it is fitted."""

    def __init__(
        self, target: FitTarget, footage: Footage, fitted: NDArray[np.int64], settings: RefineSettings, device: torch.device
    ) -> None:
        self.target, self.footage, self.fitted, self.settings, self.device = target, footage, fitted, settings, device
        rig, motion = target.rig, target.motion
        self.raw = motion.raw or motion
        # camera <- network <- armature: G_camera = Y A G A^T, p_camera = Y A p
        self.axes = view_yaw(float(motion.provenance["azimuth"])) @ network_axes(rig)
        local = global_to_local(rig.parents, self.axes @ self.raw.matrices @ network_axes(rig).T)
        self.local, self.given = calmed(motion.times, settings.calm, local, self.raw.positions @ self.axes.T)
        self.body = body_of(rig, target.surface, settings.points).to(device)
        free = ~rig.static & ~rig.props if target.joints is None else np.array(target.joints, np.bool_)
        self.free = torch.as_tensor(free.astype(np.float32), device=device)
        frames, joints = len(motion), len(rig.names)
        self.bend, self.weight = np.zeros((frames, joints, 3)), np.zeros(frames)
        self.path, self.error = np.zeros((frames, 3)), np.zeros((frames, joints))
        self.camera, self.constant = torch.zeros(2), torch.zeros(joints, 3)

    def _fit(self, frames: NDArray[np.int64], evidence: Evidence, settings: FitSettings) -> Fit:
        local, given, times = (
            torch.tensor(values[frames], dtype=torch.float32, device=self.device)
            for values in (self.local, self.given, self.footage.times)
        )
        return Fit(self.body, evidence.to(self.device), local, given, self.free, settings, times)

    def fit_shared(self, observed: tuple[NDArray[np.int64], Evidence]) -> Generator[tuple[int, int], None, None]:
        """Find the camera and the constant bend on frames of the whole clip."""
        fit = self._fit(*observed, self.settings.shared)
        yield from fit.run()
        with torch.no_grad():
            self.camera, self.constant = fit.state.camera.detach(), fit.bend().mean(0)

    def fit_window(self, low: int, high: int, evidence: Evidence) -> Generator[tuple[int, int], None, None]:
        """Fit the fitted frames from `low` to before `high`, and add what was found to that of the windows before."""
        fitted = self.fitted[low:high]
        fit = self._fit(fitted, evidence, self.settings.fit)
        fit.hold(self.camera, self.constant)
        yield from fit.run()
        frames = np.arange(fitted[0], fitted[-1] + 1)
        basis = fit.basis_at(torch.tensor(self.footage.times[frames], dtype=torch.float32))
        share = seam_weights(frames, fitted, low > 0, high < len(self.fitted))
        with torch.no_grad():
            bend = torch.einsum("tk,kjc->tjc", basis, fit.state.change.cpu()).double().numpy()
            place = (fit.state.place * evidence.size).cpu().double().numpy()
            path = np.column_stack([place, fit.state.scale.exp().cpu().double().numpy()])
            error = fit.residual().cpu().double().numpy()
        self.bend[frames] += share[:, None, None] * bend
        self.path[frames] += share[:, None] * _between(frames, fitted, path)
        self.error[frames] += share[:, None] * _between(frames, fitted, error)
        self.weight[frames] += share

    def refined(self, mode: str, seconds: float) -> Motion:
        """The take with what was found."""
        rig, motion = self.target.rig, self.target.motion
        known = np.maximum(self.weight, 1e-9)
        done = self.weight > 0
        bend = self.bend / known[:, None, None]
        mean = bend[done].mean(0)
        constant = self.constant.cpu().double().numpy() + mean
        total = bend - mean + self.settings.keep * constant
        local = self.local @ rotvec_to_matrix(torch.as_tensor(total)).numpy()
        rotations = self.axes.T @ local_to_global(rig.parents, local) @ network_axes(rig)
        quaternions = np.where(done[:, None, None], matrix_to_quaternion(rotations), motion.rotations)
        path = self.path / known[:, None] * (self.footage.pixel, self.footage.pixel, 1 / self.footage.pixel)
        confidence = self.raw.confidence * np.exp(-self.error / known[:, None])
        changed = replace(
            motion, rotations=continuous(quaternions), confidence=np.where(done[:, None], confidence, motion.confidence)
        )
        heads = fk_heads(rig, changed) @ network_axes(rig)
        changed = replace(changed, positions=np.where(done[:, None, None], heads, motion.positions), path=path, raw=self.raw)
        # look = R_x(pitch) R_y(yaw), and R_y(yaw) Y(a) = Y(a - yaw)
        pitch, yaw = (float(angle) for angle in self.camera)
        about = {"mode": mode, "azimuth": float(motion.provenance["azimuth"]) - yaw, "pitch": pitch, "seconds": seconds}
        changed = replace(changed, provenance={**motion.provenance, "refine": about})
        about["overlap"] = [take_overlaps(rig, self.target.surface, each, self.footage) for each in (self.raw, changed)]
        return changed


def calmed(times: Array, width: float, local: Array, positions: Array) -> tuple[Array, Array]:
    """Rotations (T, J, 3, 3) and positions (T, J, 3), each a mean over time with a bell of `width` seconds; 0 leaves them as they are."""
    if not width:
        return local, positions
    near = 1 + int(np.ceil(3 * width / max(float(np.diff(times).min(initial=1.0)), 1e-6)))
    rotations, places = np.zeros_like(local), np.zeros_like(positions)
    total = np.zeros(len(times))
    for shift in range(-near, near + 1):
        frames = np.arange(max(0, -shift), len(times) - max(0, shift))
        share = np.exp(-0.5 * ((times[frames + shift] - times[frames]) / width) ** 2)
        rotations[frames] += share[:, None, None, None] * local[frames + shift]
        places[frames] += share[:, None, None] * positions[frames + shift]
        total[frames] += share
    return nearest_rotation(rotations), places / total[:, None, None]


def take_overlaps(rig: Rig, surface: Surface, motion: Motion, footage: Footage) -> float:
    """The overlap of a take with the mattes, a mean over COMPARED frames: see overlap.take_overlap."""
    seen = np.flatnonzero(footage.confidence > 0)
    if not len(seen):
        return 0.0
    chosen = seen[np.unique(np.linspace(0, len(seen) - 1, COMPARED).round().astype(int))]
    points = posed_points(rig, surface, motion)[chosen] @ view_rotation(*motion.camera).T
    return float(take_overlap(points, [footage.matte(int(frame)) for frame in chosen]).mean())


def seam_weights(frames: NDArray[np.int64], fitted: NDArray[np.int64], before: bool, after: bool) -> Array:
    """How much of each frame of a window counts: it rises over the seam with the window before, and falls over that with the one after."""
    weight = np.ones(len(frames))
    seam = fitted[min(SEAM, len(fitted)) - 1] - fitted[0] + 1
    if before:
        weight = np.minimum(weight, (frames - frames[0] + 1) / (seam + 1))
    if after:
        weight = np.minimum(weight, (frames[-1] + 1 - frames) / (seam + 1))
    return weight


def _between(frames: NDArray[np.int64], fitted: NDArray[np.int64], values: Array) -> Array:
    """Values (N, C) of the fitted frames -> (T, C) those of all frames, in a straight line between them."""
    return np.stack([np.interp(frames, fitted, column) for column in values.T], axis=1)

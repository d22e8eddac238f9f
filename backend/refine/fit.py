"""Fits a take to its video by gradient descent: the rig's surface, projected, against mattes and optical flow. torch.

The fit starts from the network's take and stays near it: what a silhouette cannot say (depth, twist, heading) is held by priors.
The projection is weak perspective: a pixel is scale (x, -y) + place, with x and y in the axes of a level camera.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.torch_kinematics import rotvec_to_matrix
from .body import Body
from .evidence import Evidence

SPACING = 0.8  # of the subject's size over the root of the number of points: how far a matte's points are from the nearest


@dataclass(frozen=True)
class FitSettings:
    """Weights and widths of the fit. Lengths are shares of the subject's size, angles radians, times seconds.

    steps: of gradient descent for place and scale alone; for camera and root as well; for all joints. refresh: steps between two
    searches for nearest points. rate: of Adam. width: residual from which an error counts linearly. matte, body, flow: weights of
    the distances matte -> body, body -> matte, and of the flow. prior: weight of the priors, whose standard deviations follow.
    limb: of a joint's bend; mean: of its mean over time; root: of the root's rotation; camera: of pitch and yaw; depth: of a head's depth;
    scale: of the logarithm of the scale over time; steady: of the acceleration of heads, in bodies in the time of a frame at 24 a second.
    group: weight of the penalty that is zero for most joints. knots: of a bend over time, in a second.
    """

    steps: tuple[int, int, int] = (15, 20, 60)
    refresh: int = 4
    rate: float = 0.05
    width: float = 0.02
    matte: float = 1.0
    body: float = 1.0
    flow: float = 0.5
    prior: float = 0.02
    limb: float = 0.25
    mean: float = 0.2
    root: float = 0.1
    camera: float = 0.12
    depth: float = 0.03
    scale: float = 0.03
    steady: float = 0.02
    group: float = 0.02
    knots: float = 12.0
    slack: float = 1.0
    decay: float = 0.1
    eps: float = 1e-8


@dataclass(eq=False)
class State:
    """What is fitted. constant: (J, 3) rotation vectors that every frame's bend has. change: (K, J, 3) the knots of what it has beside that.
    camera: (2,) pitch and yaw in radians. place: (T, 2) of the root in sizes of the subject. scale: (T,) logarithm of pixels per unit."""

    constant: Tensor
    change: Tensor
    camera: Tensor
    place: Tensor
    scale: Tensor


def spline(at: Tensor, times: Tensor, spacing: float) -> Tensor:
    """(N, K) at times (N,) the uniform cubic B-splines over frames at `times` (T,); rows sum to 1.

    Their knots are so many seconds apart, or a frame if that is more.
    """
    span = float(times[-1] - times[0])
    pieces = max(1, min(math.ceil(span / spacing), len(times) - 3))
    place = (at - times[0]) / max(span, 1e-9) * pieces
    piece = place.floor().clamp(0, pieces - 1)
    u = place - piece
    values = [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3]
    basis = torch.zeros(len(at), pieces + 3, device=at.device)
    rows = torch.arange(len(at), device=at.device)
    for shift, value in enumerate(values):
        basis[rows, piece.long() + shift] = value / 6
    return basis


class Fit:
    """One take over T frames. local: (T, J, 3, 3) the take's local rotations, root first, whose root maps rest to the axes of the
    level camera the take was matched to. given: (T, J, 3) positions of joints that translate, in the camera's axes."""

    def __init__(
        self,
        body: Body,
        evidence: Evidence,
        local: Tensor,
        given: Tensor,
        free: Tensor,
        settings: FitSettings,
        times: Tensor | None = None,
    ) -> None:
        self.body, self.evidence, self.local, self.given, self.free, self.settings = body, evidence, local, given, free, settings
        self.times = torch.arange(len(local), device=local.device) / 24 if times is None else times
        times = self.times
        self.basis = self.basis_at(times)
        self.tick = float((times[-1] - times[0]) / max(len(times) - 1, 1)) * 24 if len(times) > 1 else 1.0
        with torch.no_grad():
            rotations, self.heads = body.pose(local, given)
            points = body.skin(rotations, self.heads)
        self.extent = float((points.amax(1) - points.amin(1))[:, :2].norm(dim=-1).median())  # units of the rig
        place, scale = first_place(points, evidence)
        # Points of a matte lie between those of the surface: so far from the nearest one they say nothing, and the body stays as it is.
        self.slack = settings.slack * SPACING * evidence.size / points.shape[1] ** 0.5
        joints = local.shape[1]
        self.held = False
        self.state = State(
            local.new_zeros(joints, 3),
            local.new_zeros(self.basis.shape[1], joints, 3),
            local.new_zeros(2),
            place / evidence.size,
            scale,
        )

    def basis_at(self, times: Tensor) -> Tensor:
        """(N, K) the splines of the changes at these times (N,)."""
        return spline(times.to(self.times), self.times, 1 / self.settings.knots)

    def hold(self, camera: Tensor, constant: Tensor) -> None:
        """Give the camera and the constant bend, and leave them as they are."""
        self.state.camera, self.state.constant, self.held = camera.clone(), constant.clone(), True

    def bend(self) -> Tensor:
        """(T, J, 3) rotation vectors after the take's local rotations."""
        return self.state.constant + torch.einsum("tk,kjc->tjc", self.basis, self.state.change)

    def pose(self) -> tuple[Tensor, Tensor]:
        """Global rotations (T, J, 3, 3) and heads (T, J, 3) of the state."""
        return self.pose_of(self.bend())

    def pose_of(self, bend: Tensor) -> tuple[Tensor, Tensor]:
        local = self.local @ rotvec_to_matrix(bend)
        pitch, yaw = self.state.camera.unbind()
        zero = torch.zeros_like(pitch)
        look = rotvec_to_matrix(torch.stack([pitch, zero, zero])) @ rotvec_to_matrix(torch.stack([zero, yaw, zero]))
        local = torch.cat([look @ local[:, :1], local[:, 1:]], 1)
        return self.body.pose(local, self.given)

    def project(self, points: Tensor) -> Tensor:
        """Points (T, P, 3) in the camera's axes -> pixels (T, P, 2)."""
        flip = points.new_tensor([1.0, -1.0])
        return points[..., :2] * flip * self.state.scale.exp()[:, None, None] + self.state.place[:, None] * self.evidence.size

    def run(self) -> Iterator[tuple[int, int]]:
        """Yields (done, total) steps."""
        settings, state = self.settings, self.state
        total, done = sum(settings.steps), 0
        root = torch.zeros_like(self.free)
        root[0] = self.free[0]
        bends = [state.constant, state.change]
        for each in (state.camera, *bends):
            each.requires_grad_(False)
        everything = [state.place, state.scale, *([state.change] if self.held else [state.camera, *bends])]
        stages = (([state.place, state.scale], root), (everything, root), (everything, self.free))
        for steps, (chosen, moving) in zip(settings.steps, stages, strict=True):
            for each in everything:
                each.requires_grad_(any(each is other for other in chosen))
            rates = {id(state.place): settings.rate / 3}
            groups = [{"params": [each], "lr": rates.get(id(each), settings.rate)} for each in chosen]
            optimiser = torch.optim.Adam(groups, eps=settings.eps / len(self.local))
            first = [group["lr"] for group in optimiser.param_groups]
            for step in range(steps):
                for group, rate in zip(optimiser.param_groups, first):
                    group["lr"] = rate * (settings.decay + (1 - settings.decay) * (0.5 + 0.5 * math.cos(math.pi * step / steps)))
                if step % settings.refresh == 0:
                    nearest = self.nearest()
                optimiser.zero_grad()
                loss = self.loss(nearest)
                loss.backward()
                for each in bends:
                    if each.grad is not None:
                        each.grad *= moving[:, None]
                optimiser.step()
                done += 1
                yield done, total

    @torch.no_grad()
    def nearest(self) -> tuple[Tensor, Tensor]:
        """The surface point nearest to each sample of the matte (T, M), and which points can be seen (T, P)."""
        rotations, heads = self.pose()
        pixels = self.project(self.body.skin(rotations, heads, 2))
        nearest = torch.cdist(self.evidence.samples, pixels).argmin(-1)
        facing = self.body.rotate_normals(rotations)[..., 2] > 0.2
        return nearest, facing

    def loss(self, found: tuple[Tensor, Tensor]) -> Tensor:
        """The energy of the state."""
        nearest, facing = found
        evidence, settings = self.evidence, self.settings
        bend = self.bend()
        rotations, heads = self.pose_of(bend)
        pixels = self.project(self.body.skin(rotations, heads, 2))
        seen = evidence.seen[:, None]
        width = settings.width * evidence.size
        missed = pixels.gather(1, nearest[..., None].expand(-1, -1, 2)) - evidence.samples
        away = (missed.norm(dim=-1) - self.slack).clamp(min=0)
        value = settings.matte * (huber(away, width) * seen).mean()
        beyond = (evidence.outside(pixels) - evidence.pixel).clamp(min=0)  # the outline itself is known to a pixel
        value = value + settings.body * (huber(beyond, width) * seen).mean()
        if evidence.flow is not None and settings.flow:
            target, weight = evidence.next_place(pixels[:-1])
            weight = weight * facing[:-1] * seen[:-1] * seen[1:]
            value = value + settings.flow * (
                huber((pixels[1:] - target).norm(dim=-1), width / 2) * weight
            ).sum() / weight.sum().clamp(min=1)
        return value + settings.prior * self.priors(heads, bend)

    @torch.no_grad()
    def residual(self) -> Tensor:
        """(T, J) how far the surface around each joint is from the matte, in widths of the settings: a mean of the points that it moves of
        their way to the matte, and of the way of the matte's samples to them."""
        rotations, heads = self.pose()
        pixels = self.project(self.body.skin(rotations, heads))
        width = self.settings.width * self.evidence.size
        outside = (self.evidence.outside(pixels) - self.evidence.pixel).clamp(min=0) / width
        away, nearest = torch.cdist(self.evidence.samples, pixels).min(-1)
        away = (away - self.slack).clamp(min=0) / width
        missed = torch.zeros_like(outside).scatter_reduce(1, nearest, away, "amax")
        weights = self.body.weights
        total = weights.sum(0)
        error = (outside + missed) @ weights / total.clamp(min=1e-6)
        return error * self.evidence.seen[:, None]

    def priors(self, heads: Tensor, bend: Tensor) -> Tensor:
        """How far the state is from the network's take, in standard deviations."""
        settings, state = self.settings, self.state
        mean = bend.mean(0) if not self.held else state.constant
        change = (bend - mean)[:, 1:].square().sum(-1)
        value = (change / settings.limb**2).mean()
        value = value + (settings.group * (change.mean(0) + 1e-6).sqrt()).mean() / settings.limb**2
        value = value + (mean[1:].square().sum(-1) / settings.mean**2).mean()
        value = value + (settings.group * (mean[1:].square().sum(-1) + 1e-6).sqrt()).mean() / settings.mean**2
        value = value + (bend[:, 0].square().sum(-1) / settings.root**2).mean()
        value = value + (state.camera.square() / settings.camera**2).sum()
        value = value + ((heads - self.heads)[..., 2].square() / (settings.depth * self.extent) ** 2).mean()
        scale = state.scale - state.scale.mean()
        value = value + (scale.square() / settings.scale**2).mean()
        if len(heads) > 2:
            jolt = (heads[2:] - 2 * heads[1:-1] + heads[:-2]) / self.tick**2
            value = value + (jolt.square().sum(-1) / (settings.steady * self.extent) ** 2).mean()
        return value


def huber(length: Tensor, width: float) -> Tensor:
    """Half a square below `width`, linear above, in units of `width`."""
    ratio = length / width
    return torch.where(ratio < 1, ratio.square() / 2, ratio - 0.5)


@torch.no_grad()
def first_place(points: Tensor, evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Place (T, 2) and logarithm of scale (T,) that give the points (T, P, 3) the centre and spread of the mattes; the scale is one
    for all frames, as a median."""
    flat = points[..., :2] * points.new_tensor([1.0, -1.0])
    ours, theirs = flat.std(1).norm(dim=-1), evidence.samples.std(1).norm(dim=-1)
    known = evidence.seen > 0
    ratio = (theirs / ours)[known].median() if known.any() else torch.tensor(1.0)
    place = evidence.samples.mean(1) - ratio * flat.mean(1)
    return place, ratio.log().expand(len(points)).clone()

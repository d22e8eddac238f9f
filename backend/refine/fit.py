"""Fits a take to its video by gradient descent: the rig's surface, projected, against mattes and optical flow. torch.

The fit starts from the network's take and stays near it: what a silhouette cannot say (depth, twist, heading) is held by priors.
The projection is weak perspective: a pixel is scale (x, -y) + place, with x and y in the axes of a level camera.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.torch_kinematics import rotvec_to_matrix
from .body import Body
from .evidence import Evidence

CELL = 1.0  # of the subject's size over the root of the number of points: side of the cells of the depth buffer
THICK = 0.06  # of the body's size: points that are less far behind the nearest one of their cell count as seen
FLOW_GAIN = 0.25  # weight of the flow beside the mattes in how much nearer a fit comes
FACING = 0.2  # cosine between a normal and the way to the viewer from which a point faces the camera
SPACING = 0.8  # of the subject's size over the root of the number of points: how far a matte's points are from the nearest


@dataclass(frozen=True)
class FitSettings:
    """Weights and widths of the fit. Lengths are shares of the subject's size, angles radians, times seconds.

    steps: of gradient descent for place and scale alone; for camera and root as well; for all joints. refresh: steps between two
    searches for nearest points. rate: of Adam. width: residual from which an error counts linearly. matte, body, flow: weights of
    the distances matte -> body, body -> matte, and of the flow. prior: weight of the priors, whose standard deviations follow.
    limb: of a joint's bend; mean: of its mean over time; root: of the root's rotation; camera: of pitch and yaw; depth: of a head's depth;
    scale: of the logarithm of the scale over time; steady: of the acceleration of heads, in bodies in the time of a frame at 24 a second.
    gain: of the factor on a joint's own movement in the take, less 1; pin: of a pinned joint. group: weight of the penalty that is zero for
    most joints. knots: of a bend over time, in a second. slack: of the way between points, how far a matte's sample may be from the nearest.
    decay: share of the rate that is left at the end. eps: of Adam, for one frame.
    """

    steps: tuple[int, int, int] = (15, 20, 60)
    refresh: int = 4
    rate: float = 0.02
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
    steady: float = 0.06
    gain: float = 0.7
    group: float = 0.02
    knots: float = 12.0
    slack: float = 1.0
    decay: float = 0.1
    eps: float = 0.02
    pin: float = 0.02


@dataclass(eq=False)
class State:
    """What is fitted. gain: (J,) the factor on a joint's movement about its mean, less 1. constant: (J, 3) rotation vectors that every
    frame's bend has. change: (K, J, 3) the knots of what it has beside that. camera: (2,) pitch and yaw in radians. place: (T, 2) of the root in sizes of the subject. scale: (T,) logarithm of pixels per unit."""

    gain: Tensor
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
    level camera the take was matched to. given: (T, J, 3) positions of joints that translate, in the camera's axes. free: (J,) 1 for joints
    that may change, 0 for others. times: (T,) seconds. moves: (T, J, 3) the take's own movement about its mean, as rotation vectors.
    hinges: (J, 3, 3) the metric of bends (track.hinge_metric)."""

    def __init__(
        self,
        body: Body,
        evidence: Evidence,
        local: Tensor,
        given: Tensor,
        free: Tensor,
        settings: FitSettings,
        times: Tensor | None = None,
        moves: Tensor | None = None,
        hinges: Tensor | None = None,
    ) -> None:
        self.body, self.evidence, self.local, self.given, self.free, self.settings = body, evidence, local, given, free, settings
        self.moves = torch.zeros(*local.shape[:2], 3) if moves is None else moves
        self.shape = torch.eye(3, device=local.device).expand(local.shape[1], 3, 3) if hinges is None else hinges
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
        self.pinned = local.new_zeros(*local.shape[:2])  # (T, J) 1 where a rotation is the animator's
        self.state = State(
            local.new_zeros(joints),
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
        change = torch.tensordot(self.basis, self.state.change, 1)
        return self.state.constant + change

    def whole_bend(self) -> Tensor:
        """(T, J, 3) the bends, and what the gain makes of the take's own movement."""
        return self.bend() + self.state.gain[:, None] * self.moves

    def pose(self) -> tuple[Tensor, Tensor]:
        """Global rotations (T, J, 3, 3) and heads (T, J, 3) of the state."""
        return self.pose_of(self.whole_bend())

    def pose_of(self, bend: Tensor) -> tuple[Tensor, Tensor]:
        """Global rotations (T, J, 3, 3) and heads (T, J, 3) with these bends (T, J, 3), in the axes of the camera."""
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
        bends = [state.constant, state.change, state.gain]
        for each in (state.camera, *bends):
            each.requires_grad_(False)
        movement = [state.gain, state.change] if settings.gain else [state.change]
        everything = [state.place, state.scale, *(movement if self.held else [state.camera, state.constant, *movement])]
        self.misses: list[float] = []
        with torch.no_grad():
            points = self.body.skin(*self.pose(), 2)
        # place and scale alone first, while the points keep still
        stages = (([state.place, state.scale], root, points), (everything, root, None), (everything, self.free, None))
        for steps, (chosen, moving, still) in zip(settings.steps, stages, strict=True):
            for each in everything:
                each.requires_grad_(any(each is other for other in chosen))
            rates = {id(state.place): settings.rate / 3, id(state.gain): settings.rate * 3}
            adam = Adam([(each, rates.get(id(each), settings.rate)) for each in chosen], settings.eps / len(self.local))
            self.misses.append(self.missed())
            for step in range(steps):
                share = settings.decay + (1 - settings.decay) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
                if step % settings.refresh == 0:
                    nearest = self.nearest()
                self.loss(nearest, still).backward()
                for each in bends:
                    if each.grad is not None:
                        each.grad *= moving[:, None] if each.dim() > 1 else moving
                adam.step(share)
                done += 1
                yield done, total

    @torch.no_grad()
    def missed(self) -> float:
        """How far the projected surface is from what the video says, in the unit of the loss; the flow counts less than in the fit."""
        nearest, facing = self.nearest()
        pixels = self.project(self.body.skin(*self.pose(), 2))
        value = self.off_mattes(pixels, nearest)
        if self.evidence.flow is not None and self.settings.flow:
            value = value + FLOW_GAIN * self.off_flow(pixels, facing)
        return float(value)

    @torch.no_grad()
    def nearest(self) -> tuple[Tensor, Tensor]:
        """The surface point nearest to each sample of the matte (T, M), and which points can be seen (T, P)."""
        rotations, heads = self.pose()
        points = self.body.skin(rotations, heads)
        pixels = self.project(points)
        nearest = torch.cdist(self.evidence.samples, pixels).argmin(-1)
        facing = self.body.rotate_normals(rotations)[..., 2] > FACING
        return nearest, facing & self.in_front(pixels, points[..., 2])

    def in_front(self, pixels: Tensor, depth: Tensor) -> Tensor:
        """(T, P) whether no other point hides each one, by a coarse depth buffer. pixels: (T, P, 2). depth: (T, P) towards the viewer."""
        cell = CELL * self.evidence.size / pixels.shape[1] ** 0.5
        place = ((pixels - pixels.amin((0, 1))) / cell).long()
        width = int(place[..., 0].max()) + 1
        index = place[..., 1] * width + place[..., 0]
        nearest = depth.new_full((len(pixels), int(index.max()) + 1), -torch.inf).scatter_reduce(1, index, depth, "amax")
        return depth > nearest.gather(1, index) - THICK * self.extent

    def loss(self, found: tuple[Tensor, Tensor], points: Tensor | None = None) -> Tensor:
        """The energy of the state. points: (T, P, 2) if they are known and only place and scale change."""
        if points is not None:
            return self.mismatch(self.project(points), *found) + self.settings.prior * self.scale_prior()
        bend = self.bend()
        rotations, heads = self.pose_of(self.whole_bend())
        pixels = self.project(self.body.skin(rotations, heads, 2))
        return self.mismatch(pixels, *found) + self.settings.prior * (self.priors(heads, bend) + self.scale_prior())

    def mismatch(self, pixels: Tensor, nearest: Tensor, facing: Tensor) -> Tensor:
        """How far projected points (T, P, 2) are from what the video says."""
        value = self.off_mattes(pixels, nearest)
        if self.evidence.flow is None or not self.settings.flow:
            return value
        return value + self.settings.flow * self.off_flow(pixels, facing)

    def off_flow(self, pixels: Tensor, facing: Tensor) -> Tensor:
        """How far points that can be seen move from where the flow takes them."""
        evidence, seen = self.evidence, self.evidence.seen[:, None]
        target, weight = evidence.next_place(pixels[:-1])
        weight = weight * facing[:-1] * seen[:-1] * seen[1:]
        wrong = (pixels[1:] - target).square().sum(-1) / (self.settings.width * evidence.size / 2) ** 2
        # the logarithm lets go of what is wrong: flow often is, where something moves fast or passes before something else
        return (torch.log1p(wrong) * weight).sum() / (2 * weight.sum().clamp(min=1))

    def off_mattes(self, pixels: Tensor, nearest: Tensor) -> Tensor:
        """How far samples of the mattes are from their nearest points, and points (T, P, 2) from the mattes."""
        evidence, settings = self.evidence, self.settings
        seen = evidence.seen[:, None]
        width = settings.width * evidence.size
        missed = pixels.gather(1, nearest[..., None].expand(-1, -1, 2)) - evidence.samples
        away = (missed.norm(dim=-1) - self.slack).clamp(min=0)
        value = settings.matte * (huber(away, width) * seen).mean()
        beyond = (evidence.outside(pixels) - evidence.pixel).clamp(min=0)  # the outline itself is known to a pixel
        return value + settings.body * (huber(beyond, width) * seen).mean()

    def scale_prior(self) -> Tensor:
        """How far the scale of each frame is from their mean, in standard deviations."""
        scale = self.state.scale - self.state.scale.mean()
        return (scale.square() / self.settings.scale**2).mean()

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
        away = (bend - mean)[:, 1:]
        change = (torch.einsum("tja,jab->tjb", away, self.shape[1:]) * away).sum(-1)
        value = (change / settings.limb**2).mean()
        if settings.gain:
            value = value + (state.gain.square() / settings.gain**2).mean()
        value = value + (settings.group * (change.mean(0) + 1e-6).sqrt()).mean() / settings.limb**2
        common = (torch.einsum("ja,jab->jb", mean[1:], self.shape[1:]) * mean[1:]).sum(-1)
        value = value + (common / settings.mean**2).mean()
        value = value + (settings.group * (common + 1e-6).sqrt()).mean() / settings.mean**2
        value = value + (bend[:, 0].square().sum(-1) / settings.root**2).mean()
        if bool(self.pinned.any()):
            value = value + (self.whole_bend().square().sum(-1) * self.pinned).sum() / settings.pin**2 / self.pinned.sum()
        value = value + (state.camera.square() / settings.camera**2).sum()
        value = value + ((heads - self.heads)[..., 2].square() / (settings.depth * self.extent) ** 2).mean()
        if len(heads) > 2:
            jolt = (heads[2:] - 2 * heads[1:-1] + heads[:-2]) / self.tick**2
            value = value + (jolt.square().sum(-1) / (settings.steady * self.extent) ** 2).mean()
        return value


class Adam:
    """Adam (Kingma and Ba 2015) for a few tensors, each with its own rate. torch's imports its compiler first, which takes seconds.

    eps: gradients that are smaller than this, as a root mean square over steps, move a value by less than its rate.
    """

    def __init__(self, rates: Sequence[tuple[Tensor, float]], eps: float) -> None:
        self.rates, self.eps, self.count = rates, eps, 0
        self.first = [torch.zeros_like(each) for each, _ in rates]
        self.second = [torch.zeros_like(each) for each, _ in rates]

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Move by a share of the rates, and clear the gradients."""
        self.count += 1
        for (value, rate), first, second in zip(self.rates, self.first, self.second, strict=True):
            if value.grad is None:
                continue
            first.lerp_(value.grad, 0.1)
            second.mul_(0.999).addcmul_(value.grad, value.grad, value=0.001)
            size = (second / (1 - 0.999**self.count)).sqrt_().add_(self.eps)
            value.addcdiv_(first, size, value=-rate * share / (1 - 0.9**self.count))
            value.grad = None


def huber(length: Tensor, width: float) -> Tensor:
    """Half a square below `width`, linear above, in units of `width`."""
    ratio = length / width
    return torch.where(ratio < 1, ratio.square() / 2, ratio - 0.5)


@torch.no_grad()
def first_place(points: Tensor, evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Place (T, 2) and logarithm of scale (T,) that give the points (T, P, 3) the middle and spread of the mattes; the scale is one for
    all frames, as a median."""
    flat = points[..., :2] * points.new_tensor([1.0, -1.0])
    ours, theirs = flat.var(1, unbiased=False).sum(-1).sqrt(), evidence.middle[:, 2]
    known = evidence.seen > 0
    ratio = (theirs / ours)[known].median() if known.any() else points.new_tensor(1.0)
    place = evidence.middle[:, :2] - ratio * flat.mean(1)
    return place, ratio.log().expand(len(points)).clone()

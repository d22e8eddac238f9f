"""Draws rigs without Blender: the points of a skinned cloud become oriented discs in a depth buffer. torch, on CPU or CUDA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..geometry.camera import frame_points
from ..geometry.rotations import Array
from ..rig.point_cloud import Surface
from ..rig.rig import Reference, Rig
from .capsules import capsules

__all__ = ["Cloud", "Shading", "capsules", "cloud_of", "point_spacing", "reference_view", "reference_views", "render", "skin"]

REACH = 1.5  # disc radius over point spacing: 1 - exp(-pi 1.5^2) = 99.9 % of a randomly sampled surface is covered
SMALLEST, LARGEST = 0.75, 8.0  # radii in pixels; more than half a pixel's diagonal, 0.71, always covers a pixel's centre
STEEPEST = 8.0  # steepest slope of a disc: seen more edge-on, it could miss all pixel centres
BEND = 0.25  # depth of a disc's edge behind its centre, in radii
NEAREST = 1e-30  # depth keys stay positive
NEIGHBOURS = 6
EMPTY = torch.iinfo(torch.int64).max
GAMMA = 2.2  # sRGB's curve, nearly


@dataclass(frozen=True)
class Shading:
    """Lighting of the points, in linear units: albedo * (ambient + lambert * max(0, n.l)) + rim * (1 - |n.v|)^3."""

    ambient: float = 0.35
    lambert: float = 0.75
    rim: float = 0.06


@dataclass(frozen=True, eq=False)
class Cloud:
    """A `Surface` as tensors on one device.

    points, normals, colours: (P, 3). joints: (P, 4) int64. weights: (P, 4). inverse_rest: (J, 4, 4), inverse rest matrices.
    spacing: (P,) local distance between the points at rest.
    """

    points: Tensor
    normals: Tensor
    colours: Tensor
    joints: Tensor
    weights: Tensor
    inverse_rest: Tensor
    spacing: Tensor

    def to(self, device: torch.device | str) -> Cloud:
        """The same cloud on another device."""
        return Cloud(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def skin(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Pose the points by joint matrices (T, J, 4, 4) -> points (T, P, 3) and unit normals (T, P, 3), in the space of the pose.

        Linear blend skinning.
        """
        # pose rest^-1 maps a point at rest to its place in the pose
        delta = (pose.to(self.inverse_rest) @ self.inverse_rest)[:, :, :3].flatten(2)  # (T, J, 12)
        blend = self.weights[:, :1] * delta[:, self.joints[:, 0]]
        for slot in range(1, self.joints.shape[1]):
            blend = torch.addcmul(blend, self.weights[:, slot : slot + 1], delta[:, self.joints[:, slot]])
        blend = blend.unflatten(2, (3, 4))  # (T, P, 3, 4)
        points = (blend[..., :3] * self.points[:, None]).sum(-1) + blend[..., 3]
        normals = (blend[..., :3] * self.normals[:, None]).sum(-1)
        return points, torch.nn.functional.normalize(normals, dim=-1)


def cloud_of(surface: Surface, rest: Array, device: torch.device | str = "cpu", spacing: Tensor | None = None) -> Cloud:
    """Make a Cloud of a surface and the rest matrices (J, 4, 4) of its rig. spacing: (P,) if it is known already.

    Raises UserError if the surface is bound to joints that the rig lacks.
    """
    if len(surface) and not 0 <= surface.joints.min() <= surface.joints.max() < len(rest):
        joint = surface.joints.max()
        raise UserError(f"The surface is bound to joint {joint}, but the rig has {len(rest)}: make the pack again.")
    values = {key: torch.tensor(getattr(surface, key), device=device) for key in ("points", "normals", "colours", "weights")}
    return Cloud(
        joints=torch.tensor(surface.joints, dtype=torch.int64, device=device),
        inverse_rest=torch.tensor(np.linalg.pinv(rest), dtype=torch.float32, device=device),
        spacing=point_spacing(values["points"], values["normals"]) if spacing is None else spacing,
        **values,
    )


def skin(surface: Surface, rest: Array, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Pose a surface once, on the pose's device: see `Cloud.skin`."""
    return cloud_of(surface, rest, pose.device).skin(pose)


@torch.no_grad()
def point_spacing(points: Tensor, normals: Tensor, chunk: int = 1024) -> Tensor:
    """Points and normals (P, 3) -> (P,) the side of a square as large as each point's share of the surface.

    It is computed from the distance to the sixth neighbour on the same side of the surface, and kept within a factor 3 of the median.
    """
    count = min(NEIGHBOURS, len(points) - 1)
    if count < 1:
        return torch.zeros(len(points), device=points.device)
    spacing = []
    for part, facing in zip(points.split(chunk), normals.split(chunk), strict=True):
        apart = torch.cdist(part, points)
        apart.masked_fill_(facing @ normals.T < 0, torch.inf)
        spacing.append(apart.topk(count + 1, largest=False).values[:, -1])
    # count points in a disc of that radius: pi r^2 / count is the area of one
    side = torch.cat(spacing) * math.sqrt(math.pi / count)
    middle = side.nanmedian().nan_to_num(posinf=0)
    return side.clamp(middle / 3, middle * 3)


@dataclass(frozen=True, eq=False)
class _Discs:
    """The N discs that can touch the image, largest first; all arrays are (N,).

    source: index into the flattened (T, P). pixel: index of the central pixel in the padded images.
    shift_x, shift_y: from the point to the centre of that pixel. slope_x, slope_y: depth gained per pixel, in pixels.
    unit: size of a pixel at the point, in units of depth. bend: depth of the disc's edge behind its centre, per square of the distance.
    With it, of two discs in one plane the pixel takes the one whose centre is nearer, so borders between colours stay clean.
    """

    source: Tensor
    pixel: Tensor
    shift_x: Tensor
    shift_y: Tensor
    slope_x: Tensor
    slope_y: Tensor
    depth: Tensor
    unit: Tensor
    bend: Tensor
    radius: Tensor


@torch.no_grad()
def render(
    points: Tensor,
    normals: Tensor,
    colours: Tensor,
    projection: Tensor,
    light: Tensor,
    height: int,
    width: int,
    *,
    spacing: Tensor | None = None,
    shading: Shading | None = None,
    samples: int = 1,
) -> Tensor:
    """Draw T clouds of P points -> RGBA (T, height, width, 4) float32, 0..1, straight alpha, sRGB as displayed.

    points, normals: (T, P, 3) in the space that the projection maps to pixels. Points behind the camera or off the image are left out.
    projection: (T, 3, 4) or (3, 4), as camera.Camera.projection; its third row gives the depth in the unit of the points.
    colours: (P, 3) or (T, P, 3). light: (3,) or (T, 3), from the subject towards the light.
    spacing: (P,) distance between points (`Cloud.spacing`), estimated from the first frame if not given.
    samples: 2 draws at twice the size and averages, for smooth edges.
    """
    frames = len(points)
    apart = point_spacing(points[0], normals[0]) if spacing is None else spacing
    zoom = points.new_tensor([samples, samples, 1.0])[:, None]
    projection = (projection.to(points) * zoom).expand(frames, 3, 4)
    size = (height * samples, width * samples)
    discs, border, eye = _discs(points, normals, projection, apart, size, LARGEST * samples)
    buffer = _draw_discs(discs, frames * (size[0] + 2 * border) * (size[1] + 2 * border), size[1] + 2 * border)
    buffer = buffer.view(frames, size[0] + 2 * border, size[1] + 2 * border)
    buffer = buffer[:, border : border + size[0], border : border + size[1]].contiguous()
    gap = 2 * apart.median() if len(apart) else apart.sum()
    for _ in range(2):
        buffer = _close_holes(buffer, gap)
    shades = _shade(points, normals, colours, eye, light.to(points).expand(frames, 3), shading or Shading())
    return _average(_paint(buffer, shades.flatten(0, 1)), samples)


def _discs(
    points: Tensor, normals: Tensor, projection: Tensor, spacing: Tensor, size: tuple[int, int], largest: float
) -> tuple[_Discs, int, Tensor]:
    """The discs, the border of pixels that they need around the image, and the camera's positions (T, 3)."""
    linear = projection[..., :3]
    inverse = torch.linalg.inv(linear)
    eye = -(inverse @ projection[..., 3:])[..., 0]
    image = points @ linear.mT + projection[:, None, :, 3]
    depth = image[..., 2]
    u, v = image[..., 0] / depth, image[..., 1] / depth
    # A pixel (u, v) shows points x = eye + depth ray with ray = linear^-1 (u, v, 1). On the disc's plane n.x is constant, so
    # depth (n.ray) is too: d depth / du = -depth (n.ray)_u / (n.ray), and n.ray = (n linear^-1).(u, v, 1).
    plane = normals @ inverse
    facing = plane[..., 0] * u + plane[..., 1] * v + plane[..., 2]
    # the linear part is diag(f, -f, -1) times a rotation, so |det| = f^2, and a pixel is depth / f wide
    focal = torch.linalg.det(linear).abs().sqrt()[:, None]
    slope_x, slope_y = _slopes(plane, facing, focal)
    radius = (REACH * spacing * focal / depth).clamp(SMALLEST, largest)
    # points that face away lie behind those that face the camera
    depth_key = depth + torch.where(facing > 0, spacing, 0)
    height, width = size
    visible = (depth > 0) & (u > -radius) & (u < width + radius) & (v > -radius) & (v < height + radius)
    order = torch.where(visible, radius, -1).flatten().argsort(descending=True)[: int(visible.sum())]
    border = 2 * math.ceil(float(radius.flatten()[order[:1]].sum())) + 2

    def pick(value: Tensor) -> Tensor:
        return value.expand(depth.shape).flatten()[order]

    u, v = pick(u), pick(v)
    column, row = u.floor(), v.floor()
    stride = width + 2 * border
    pixel = (order // points.shape[1]) * (stride * (height + 2 * border))
    pixel = pixel + (row.long() + border) * stride + column.long() + border
    unit, radius = pick(depth / focal), pick(radius)
    shift_x, shift_y = column + 0.5 - u, row + 0.5 - v
    discs = _Discs(
        order, pixel, shift_x, shift_y, pick(slope_x), pick(slope_y), pick(depth_key), unit, BEND * unit / radius, radius
    )
    return discs, border, eye


def _slopes(plane: Tensor, facing: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    """Depth gained per pixel to the right and down, in pixels, no steeper than STEEPEST."""
    tiny = torch.finfo(facing.dtype).tiny
    away = torch.where(facing.abs() > tiny, facing, tiny)
    slope_x, slope_y = -focal * plane[..., 0] / away, -focal * plane[..., 1] / away
    steepness = torch.hypot(slope_x, slope_y)
    limit = torch.where(steepness > STEEPEST, STEEPEST / steepness, 1)
    return (slope_x * limit).nan_to_num(0), (slope_y * limit).nan_to_num(0)


def _draw_discs(discs: _Discs, pixels: int, stride: int) -> Tensor:
    """The nearest disc of every pixel as a key, (pixels,) int64, or EMPTY.

    The upper half of a key are the bits of the depth, the lower half is the index into (T, P). Positive floats have the order of their
    bits, so the minimum of the keys is the depth test.
    """
    buffer = torch.full((pixels,), EMPTY, device=discs.pixel.device)
    if not len(discs.pixel):
        return buffer
    reach = math.ceil(float(discs.radius[0]) + 0.5)
    steps = [(dx, dy) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    # a disc touches the pixel (dx, dy) away only if the radius makes up for the distance less the shift (at most 0.71)
    needed = discs.radius.new_tensor([max(math.hypot(dx, dy) - 0.71, 0) for dx, dy in steps])
    counts = torch.searchsorted(-discs.radius, -needed, right=True).tolist()
    limit = discs.radius.square()
    for (dx, dy), count in zip(steps, counts, strict=True):
        if count:
            keys = _keys(discs, limit, dx, dy, count)
            buffer.scatter_reduce_(0, discs.pixel[:count] + (dy * stride + dx), keys, "amin")
    return buffer


def _keys(discs: _Discs, limit: Tensor, dx: int, dy: int, count: int) -> Tensor:
    """The keys that the first `count` discs write to the pixel (dx, dy) away from their central one; EMPTY outside the disc."""
    x, y = discs.shift_x[:count] + dx, discs.shift_y[:count] + dy
    rise = x * discs.slope_x[:count] + y * discs.slope_y[:count]
    distance = torch.addcmul(torch.addcmul(x * x, y, y), rise, rise)
    depth = torch.addcmul(discs.depth[:count], rise, discs.unit[:count])
    depth = torch.addcmul(depth, distance, discs.bend[:count]).clamp_min_(NEAREST)
    keys = (depth.view(torch.int32).long() << 32) | discs.source[:count]
    return keys if dx == dy == 0 else torch.where(distance <= limit[:count], keys, EMPTY)


def _close_holes(buffer: Tensor, gap: Tensor) -> Tensor:
    """Fill holes in keys (T, height, width): a pixel that is empty, or `gap` behind 5 of its 8 neighbours, takes the nearest key."""
    frames, height, width = buffer.shape
    # pad() would convert EMPTY to a double, which cannot hold it
    padded = buffer.new_full((frames, height + 2, width + 2), EMPTY)
    padded[:, 1:-1, 1:-1] = buffer
    # the upper half of EMPTY are the bits of a NaN, which compares as false: an empty pixel must be far away instead
    depth = torch.where(padded == EMPTY, torch.inf, (padded >> 32).int().view(torch.float32))
    here = depth[:, 1:-1, 1:-1] - gap
    nearer = torch.zeros_like(buffer, dtype=torch.int8)
    for dy, dx in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)):
        nearer += depth[:, dy : dy + height, dx : dx + width] < here
    across = torch.minimum(torch.minimum(padded[:, :, :-2], padded[:, :, 1:-1]), padded[:, :, 2:])
    nearest = torch.minimum(torch.minimum(across[:, :-2], across[:, 1:-1]), across[:, 2:])
    return torch.where(nearer >= 5, nearest, buffer)


def _shade(points: Tensor, normals: Tensor, colours: Tensor, eye: Tensor, light: Tensor, shading: Shading) -> Tensor:
    """Light the colours -> (T, P, 3). A point seen from behind is lit as the back of a sheet."""
    normalize = torch.nn.functional.normalize
    towards = normalize(eye[:, None] - points, dim=-1)
    facing = (normals * towards).sum(-1)
    lambert = (normals @ normalize(light, dim=-1)[..., None])[..., 0] * facing.sign()
    strength = shading.ambient + shading.lambert * lambert.clamp_min(0)
    rim = shading.rim * (1 - facing.abs()).clamp(0, 1) ** 3
    lit = colours.clamp(0, 1) ** GAMMA * strength[..., None] + rim[..., None]
    return lit.clamp(0, 1) ** (1 / GAMMA)


def _paint(buffer: Tensor, shades: Tensor) -> Tensor:
    """Keys (T, height, width) and colours (T P, 3) -> RGBA (T, height, width, 4)."""
    covered = (buffer.flatten() != EMPTY).nonzero()[:, 0]
    source = buffer.flatten()[covered] & 0xFFFFFFFF
    image = shades.new_zeros((buffer.numel(), 4))
    image[covered] = torch.nn.functional.pad(shades[source], (0, 1), value=1.0)
    return image.view(*buffer.shape, 4)


def _average(image: Tensor, samples: int) -> Tensor:
    """Average boxes of samples x samples pixels, weighted by alpha."""
    if samples == 1:
        return image
    premultiplied = image  # empty pixels are all zero, covered ones have alpha 1
    small = torch.nn.functional.avg_pool2d(premultiplied.movedim(-1, 1), samples).movedim(1, -1)
    return torch.cat([small[..., :3] / small[..., 3:].clamp_min(1e-6), small[..., 3:]], dim=-1)


def reference_views(
    rig: Rig, surface: Surface, pose: Array, azimuths: Sequence[float], pitch: float = 0.1, size: int = 320
) -> list[Reference]:
    """Draw the rig in a pose (J, 4, 4), armature space, from each azimuth (radians, camera.Camera) -> a Reference per azimuth.

    pitch: radians above the horizon. size: pixels of the square images. Raises UserError if the pose leaves nothing to draw.
    """
    cloud = cloud_of(surface, rig.rest)
    points, normals = cloud.skin(torch.tensor(pose, dtype=torch.float32)[None])
    # cameras are defined in world axes: p_world = world p_armature
    world = torch.tensor(rig.world, dtype=torch.float32)
    points, normals = points @ world.T, normals @ world.T
    if not len(surface) or not bool(points.isfinite().all()):
        raise UserError("The rig has no surface to draw in this pose: reset the pose, or check the scale of its bones.")
    cameras = [frame_points(points[0].numpy(), azimuth, pitch, size) for azimuth in azimuths]
    drawn = render(
        points.expand(len(cameras), -1, -1),
        normals.expand(len(cameras), -1, -1),
        cloud.colours,
        torch.tensor(np.stack([camera.projection for camera in cameras]), dtype=torch.float32),
        torch.tensor(np.stack([key_light(camera.rotation) for camera in cameras]), dtype=torch.float32),
        size,
        size,
        spacing=cloud.spacing,
        samples=2,
    )
    images = (drawn * 255).round().to(torch.uint8).numpy()
    return [
        Reference(pose, image, camera.azimuth, _in_armature(camera.projection, rig.world))
        for image, camera in zip(images, cameras, strict=True)
    ]


def reference_view(rig: Rig, surface: Surface, pose: Array, azimuth: float, pitch: float = 0.1, size: int = 320) -> Reference:
    """Draw the rig from one azimuth: see `reference_views`."""
    return reference_views(rig, surface, pose, [azimuth], pitch, size)[0]


def key_light(rotation: Array) -> Array:
    """Direction (3,) towards a light over the viewer's left shoulder, world axes. rotation: (3, 3) from world axes to the camera's."""
    # camera axes: x right, y up, z towards the viewer
    return rotation.T @ np.array([-0.45, 0.65, 0.6])


def _in_armature(projection: Array, world: Array) -> Array:
    """A projection of world space as one of armature space, (3, 4). world: (3, 3) from armature to world axes."""
    # P (world p) = (P world) p: only the linear part changes
    return np.concatenate([projection[:, :3] @ world, projection[:, 3:]], axis=1)

"""Samples the visible meshes of an armature at rest as a skinned point cloud (`Surface`), in world axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import bpy
import numpy as np
from bpy.types import Mesh, Object
from numpy.typing import NDArray

from ...backend.arrays import Array
from ...backend.errors import UserError
from ...backend.rig.point_cloud import Surface
from .material_colours import SurfaceSamples, colour_at
from .meshes import carried_by, is_deformed, rest_position, visible_meshes
from .point_sampling import bvh_trees, is_exposed, poisson_disc_sample, thickness

POINTS = 8000
FITTED = 2000  # points that a take is refined with
ROUND = 0.94  # cosine of 20 degrees: up to this angle a shading normal counts as that of a bent surface
CANDIDATES = 10  # for each point that is kept
KEYS = ("points", "normals", "colours", "joints", "weights")
OPAQUE = 0.5  # fainter points are left out


@dataclass(frozen=True, eq=False)
class _Triangles:
    """One evaluated mesh at rest in world axes: K triangles, V vertices.

    corners, vertices: (K, 3) int. area: (K,). normals: (loops, 3) unit, at the corners. weights: (V, J), rows sum to 1.
    """

    obj: Object
    mesh: Mesh
    positions: Array
    normals: Array
    corners: NDArray[np.int64]
    vertices: NDArray[np.int64]
    area: Array
    material: NDArray[np.int64]
    weights: Array


def joint_of_bone(armature: Object, names: Sequence[str]) -> dict[str, int]:
    """Every bone -> the joint that moves it: itself, else its nearest ancestor among the joints, else the root."""
    index = {name: joint for joint, name in enumerate(names)}
    found = {}
    for bone in armature.data.bones:
        line = (b.name for b in (bone, *bone.parent_recursive))
        found[bone.name] = next((index[name] for name in line if name in index), 0)
    return found


def surface_of(
    armature: Object, names: Sequence[str], points: int = POINTS, seed: int = 0, deforms: Array | None = None
) -> Surface:
    """Sample about `points` points over the parts of the meshes that can be seen, at rest; closer together on thin parts.

    World axes. `joints` index `names`, a rig's joints. Modifiers are applied, the armature's own at rest.
    deforms: (K, J, 4, 4) the joints' movements away from rest, in world axes, of poses in which more may be seen.
    Raises UserError if there is no visible mesh to sample.
    """
    joints = joint_of_bone(armature, names)
    with rest_position(armature):
        depsgraph = bpy.context.evaluated_depsgraph_get()
        parts = [_triangles(obj, armature, joints, len(names), depsgraph) for obj in visible_meshes(armature)]
        parts = [part for part in parts if part.area.sum() > 0]
        if not parts:
            raise UserError(f"Armature '{armature.name}' moves no visible mesh: show one, or parent one to it with weights.")
        area = np.concatenate([part.area for part in parts])
        chosen = _spread(area, points * CANDIDATES, np.random.default_rng(seed))
        starts = np.cumsum([0, *(len(part.area) for part in parts)])
        samples = [_sample(part, chosen[(chosen >= a) & (chosen < b)] - a, seed) for part, a, b in zip(parts, starts, starts[1:])]
        for part in parts:
            part.obj.to_mesh_clear()
    whole = _join(samples)
    opaque = len(whole) / len(chosen)
    return _thinned(whole, parts, float(area.sum()) * opaque, round(points * opaque), seed, deforms)


def armature_surface(armature: Object, names: Sequence[str], points: int = FITTED) -> Surface:
    """The points of `surface_of` in armature space, as the rig has them: for refining a take, and for its silhouette."""
    surface, world = surface_of(armature, names, points), np.array(armature.matrix_world, np.float64)
    # a point W p of the world is p in armature space; a normal n of the world is W^T n there, but for its length
    places = (surface.points - world[:3, 3]) @ np.linalg.inv(world[:3, :3]).T
    return replace(surface, points=places, normals=_unit(surface.normals @ world[:3, :3]))


def _thinned(whole: Surface, parts: Sequence[_Triangles], area: float, count: int, seed: int, deforms: Array | None) -> Surface:
    """Keep `count` of the candidates: those seen at rest or in one of the poses, spread evenly for the body's thickness."""
    # two generators: the number of rays must not change the choice of points
    rays, darts = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    triangles = [part.vertices for part in parts]
    tree = bvh_trees([part.positions for part in parts], triangles)
    points, normals = whole.points.astype(np.float64), whole.normals.astype(np.float64)
    size = float(np.ptp(points, axis=0).max())
    seen = is_exposed(tree, points, normals, size, rays)
    for deform in () if deforms is None else deforms:
        hidden = np.flatnonzero(~seen)
        blend = np.einsum("pk,pkij->pij", whole.weights[hidden], deform[whole.joints[hidden]])
        posed = bvh_trees([_moved(np.einsum("vj,jab->vab", part.weights, deform), part.positions) for part in parts], triangles)
        turned = _unit(np.einsum("pij,pj->pi", blend[:, :3, :3], normals[hidden]))
        seen[hidden] = is_exposed(posed, _moved(blend, points[hidden]), turned, size, rays)
    kept = np.flatnonzero(seen) if seen.sum() > count else np.arange(len(whole))
    depth = thickness(tree, points[kept], normals[kept], size)
    kept = kept[poisson_disc_sample(points[kept], normals[kept], depth, area * len(kept) / len(whole), count, darts)]
    return Surface(**{key: getattr(whole, key)[kept] for key in KEYS})


def _moved(matrices: Array, points: Array) -> Array:
    """Affine matrices (P, 4, 4) on points (P, 3)."""
    return np.einsum("pij,pj->pi", matrices[:, :3, :3], points) + matrices[:, :3, 3]


def _triangles(obj: Object, armature: Object, joints: dict[str, int], count: int, depsgraph: bpy.types.Depsgraph) -> _Triangles:
    evaluated = obj.evaluated_get(depsgraph)
    mesh = evaluated.to_mesh()
    mesh.calc_loop_triangles()
    world = np.array(evaluated.matrix_world, dtype=np.float64)
    positions = _read(mesh.vertices, "co", 3) @ world[:3, :3].T + world[:3, 3]
    # A normal stays perpendicular to the surface under M^-T. That also keeps it on the outer side when M mirrors: for a point
    # x inside, n . x < 0 goes to (M^-T n) . (M x) = n . x.
    normals = _read(mesh.corner_normals, "vector", 3) @ np.linalg.pinv(world[:3, :3])
    vertices = _read(mesh.loop_triangles, "vertices", 3, np.int32)
    edges = positions[vertices[:, 1:]] - positions[vertices[:, :1]]
    return _Triangles(
        obj=evaluated,
        mesh=mesh,
        positions=positions,
        normals=_unit(normals),
        corners=_read(mesh.loop_triangles, "loops", 3, np.int32),
        vertices=vertices,
        area=np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1) / 2,
        material=_read(mesh.loop_triangles, "material_index", 1, np.int32)[:, 0],
        weights=_weights(obj, mesh, armature, joints, count),
    )


def _read(items: bpy.types.bpy_prop_collection, name: str, width: int, kind: type = np.float32) -> NDArray:
    flat = np.empty(width * len(items), kind)
    items.foreach_get(name, flat)
    return flat.reshape(-1, width).astype(np.int64 if kind is np.int32 else np.float64)


def _weights(obj: Object, mesh: Mesh, armature: Object, joints: dict[str, int], count: int) -> Array:
    """(V, J), rows sum to 1, as Blender's armature modifier blends. Vertices without weight follow the root."""
    weights = np.zeros((len(mesh.vertices), count))
    if not is_deformed(obj, armature):
        weights[:, joints.get(carried_by(obj, armature)[1], 0)] = 1.0
        return weights
    bones = armature.data.bones
    moved = {g.index: joints[g.name] for g in obj.vertex_groups if g.name in bones and bones[g.name].use_deform}
    for vertex in mesh.vertices:
        for group in vertex.groups:
            if group.group in moved:
                weights[vertex.index, moved[group.group]] += group.weight
    total = weights.sum(1, keepdims=True)
    weights[total[:, 0] <= 1e-6, 0] = 1.0
    return weights / np.where(total <= 1e-6, 1.0, total)


def _spread(area: Array, points: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Indices of triangles, ascending, each in proportion to its area (systematic sampling)."""
    edges = np.cumsum(area)
    marks = (np.arange(points) + random.random()) / points * edges[-1]
    return np.minimum(np.searchsorted(edges, marks, side="right"), len(area) - 1)


def _sample(part: _Triangles, chosen: NDArray[np.int64], seed: int) -> tuple[Surface, Array]:
    """Points on the chosen triangles, and their opacities (P,)."""
    random = np.random.default_rng([seed, len(part.area)])
    # uniform in a triangle: without the square root points would crowd at the first corner (Osada et al. 2002)
    r, s = np.sqrt(random.random(len(chosen))), random.random(len(chosen))
    share = np.column_stack([1 - r, r * (1 - s), r * s])
    spots = SurfaceSamples(part.mesh, part.corners[chosen], part.vertices[chosen], share)
    colours, opacity = _colours(part, spots, part.material[chosen])
    normals = _lying(spots.mix(part.normals[spots.corners]), part.positions[spots.vertices])
    joints, weights = strongest(spots.mix(part.weights[spots.vertices]))
    return Surface(spots.mix(part.positions[spots.vertices]), normals, colours, joints, weights), opacity


def _lying(shading: Array, corners: Array) -> Array:
    """Shading normals (P, 3) of points in triangles (P, 3, 3) -> unit normals for discs that lie on the surface.

    A smoothly shaded box has normals between its sides, and discs along them would stick out. If the shading normal is far from the
    triangle's own normal, the triangle's normal is used, on the side of the shading normal.
    """
    edges = corners[:, 1:] - corners[:, :1]
    flat = _unit(np.cross(edges[:, 0], edges[:, 1]))
    smooth = _unit(shading)
    along = (flat * smooth).sum(1, keepdims=True)
    return np.where(np.abs(along) < ROUND, flat * np.where(along < 0, -1.0, 1.0), smooth)


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


def _colours(part: _Triangles, spots: SurfaceSamples, slots: NDArray[np.int64]) -> tuple[Array, Array]:
    colours, opacity = np.zeros((len(spots), 3)), np.ones(len(spots))
    materials = [slot.material for slot in part.obj.material_slots] or [None]
    for slot in np.unique(slots):
        here = slots == slot
        material = materials[min(slot, len(materials) - 1)]
        colours[here], opacity[here] = colour_at(material, spots.subset(here))
    return colours, opacity


def strongest(weights: Array, keep: int = 4) -> tuple[NDArray[np.int32], Array]:
    """(P, J) -> the joints (P, 4) with most weight and their weights (P, 4), which sum to 1 again."""
    missing = max(0, keep - weights.shape[1])
    padded = np.pad(weights, ((0, 0), (0, missing)))
    order = np.argsort(-padded, axis=1, kind="stable")[:, :keep]
    best = np.take_along_axis(padded, order, axis=1)
    return np.where(best > 0, order, 0).astype(np.int32), best / best.sum(1, keepdims=True)


def _join(samples: Sequence[tuple[Surface, Array]]) -> Surface:
    """All opaque points, or all points of a character that has no opaque ones."""
    opacity = np.concatenate([values for _, values in samples])
    keep = opacity >= OPAQUE if (opacity >= OPAQUE).any() else opacity >= 0
    return Surface(*(np.concatenate([getattr(surface, key) for surface, _ in samples])[keep] for key in KEYS))

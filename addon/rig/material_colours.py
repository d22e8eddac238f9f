"""Reads the colour of a material at points of a mesh from its nodes: textures, vertex colours, plain values.

Colours are scene-linear, as in Blender's nodes, until `linear_to_display` at the end. Lighting is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from bpy.types import Image, Material, Mesh, Node, NodeSocket
from numpy.typing import NDArray

from ...backend.arrays import Array

GREY = np.array([0.8, 0.8, 0.8, 1.0])  # Blender's colour of a mesh without materials, linear
SHADER_COLOURS = ("Base Color", "Color")


@dataclass(frozen=True, eq=False)
class SurfaceSamples:
    """P points on a mesh: the corners of the triangle around each, and their weights.

    corners: (P, 3) int, loop indices. vertices: (P, 3) int. share: (P, 3), rows sum to 1.
    """

    mesh: Mesh
    corners: NDArray[np.int64]
    vertices: NDArray[np.int64]
    share: Array

    def __len__(self) -> int:
        return len(self.share)

    def subset(self, chosen: NDArray[np.bool_]) -> SurfaceSamples:
        return SurfaceSamples(self.mesh, self.corners[chosen], self.vertices[chosen], self.share[chosen])

    def mix(self, values: Array) -> Array:
        """(P, 3, n) values at the corners -> (P, n)."""
        return (values * self.share[..., None]).sum(1)

    def attribute(self, name: str) -> Array:
        """(P, 4) linear colours of a colour attribute, the active one without a name; white if there is none."""
        found = self.mesh.color_attributes.get(name) if name else self.mesh.color_attributes.active_color
        if found is None:
            return np.ones((len(self), 4))
        flat = np.empty(4 * len(found.data), np.float32)
        found.data.foreach_get("color", flat)
        return self.mix(flat.reshape(-1, 4)[self.corners if found.domain == "CORNER" else self.vertices])

    def uv(self, name: str) -> Array | None:
        """(P, 2) texture coordinates of a UV map, the one used for rendering without a name."""
        layers = self.mesh.uv_layers
        layer = layers.get(name) if name else next((x for x in layers if x.active_render), layers.active)
        if layer is None:
            return None
        flat = np.empty(2 * len(layer.data), np.float32)
        layer.data.foreach_get("uv", flat)
        return self.mix(flat.reshape(-1, 2)[self.corners])


def linear_to_display(linear: Array) -> Array:
    """Scene-linear -> sRGB display values, clipped to 0..1 (IEC 61966-2-1)."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def display_to_linear(display: Array) -> Array:
    """The inverse of `linear_to_display` on 0..1."""
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def colour_at(material: Material | None, spots: SurfaceSamples) -> tuple[Array, Array]:
    """(P, 3) sRGB display colours 0..1 and (P,) opacities of a material, as it looks in even white light."""
    rgba = _material(material, spots)
    return linear_to_display(rgba[:, :3]), np.clip(rgba[:, 3], 0.0, 1.0)


def _material(material: Material | None, spots: SurfaceSamples) -> Array:
    if material is None:
        coloured = len(spots.mesh.color_attributes) > 0
        return spots.attribute("") if coloured else np.tile(GREY, (len(spots), 1))
    output = material.node_tree.get_output_node("ALL") if _has_nodes(material) else None
    shader = _linked(output.inputs["Surface"]) if output is not None else None
    found = _shader(shader, spots) if shader is not None else None
    return np.tile(np.array(material.diffuse_color), (len(spots), 1)) if found is None else found


def _has_nodes(material: Material) -> bool:
    # Blender 5 always uses the nodes, and warns when use_nodes is read
    return material.node_tree is not None and (bpy.app.version >= (5, 0, 0) or material.use_nodes)


def _linked(socket: NodeSocket | None) -> Node | None:
    return socket.links[0].from_node if socket is not None and socket.is_linked and len(socket.links) else None


def _shader(node: Node, spots: SurfaceSamples) -> Array | None:
    """(P, 4) colour of the first shader upstream that has one; of a mix with transparency, that of the other shader."""
    if node.bl_idname == "ShaderNodeBsdfTransparent":
        return None
    colour = next((node.inputs[name] for name in SHADER_COLOURS if name in node.inputs), None)
    if colour is None:
        below = (_linked(socket) for socket in node.inputs if socket.type == "SHADER")
        return next((found for n in below if n is not None and (found := _shader(n, spots)) is not None), None)
    rgba = _value(colour, spots)
    alpha = _value(node.inputs["Alpha"], spots)[:, 0] if "Alpha" in node.inputs else np.ones(len(spots))
    return np.column_stack([rgba[:, :3] + _emission(node, spots), alpha])


def _emission(node: Node, spots: SurfaceSamples) -> Array:
    """(P, 3) emission of a Principled shader."""
    if "Emission Color" not in node.inputs:
        return np.zeros((len(spots), 3))
    strength = node.inputs["Emission Strength"]
    if not strength.is_linked and strength.default_value == 0.0:
        return np.zeros((len(spots), 3))
    return _value(node.inputs["Emission Color"], spots)[:, :3] * _value(strength, spots)[:, :1]


def _value(socket: NodeSocket, spots: SurfaceSamples) -> Array:
    """(P, 4) linear value of an input. Unknown nodes pass on their first colour input."""
    if not socket.is_linked or not len(socket.links):
        return _constant(getattr(socket, "default_value", 0.0), len(spots))
    source = socket.links[0].from_socket
    node = source.node
    match node.bl_idname:
        case "ShaderNodeTexImage":
            rgba = _texture(node, spots)
            return np.repeat(rgba[:, 3:], 4, 1) if source.name == "Alpha" else rgba
        case "ShaderNodeVertexColor":
            return _attribute(spots, node.layer_name, source.name)
        case "ShaderNodeAttribute":
            return _attribute(spots, node.attribute_name, source.name)
        case "ShaderNodeMix" | "ShaderNodeMixRGB":
            return _mix(node, spots)
        case "ShaderNodeRGB" | "ShaderNodeValue":
            return _constant(node.outputs[0].default_value, len(spots))
    upstream = next((s for s in node.inputs if s.type == "RGBA" and s.is_linked), None)
    upstream = upstream or next((s for s in node.inputs if s.type == "RGBA" or s.is_linked), None)
    return np.tile(GREY, (len(spots), 1)) if upstream is None else _value(upstream, spots)


def _constant(value: Any, count: int) -> Array:
    numbers = np.ones(4)
    numbers[: len(value) if hasattr(value, "__len__") else 4] = value
    return np.tile(numbers, (count, 1))


def _attribute(spots: SurfaceSamples, name: str, output: str) -> Array:
    rgba = spots.attribute(name)
    return np.repeat(rgba[:, 3:], 4, 1) if output == "Alpha" else rgba


def _mix(node: Node, spots: SurfaceSamples) -> Array:
    """Compute Mix and Multiply as Blender does; other blend modes count as Mix."""
    if node.bl_idname == "ShaderNodeMixRGB":
        factor, a, b = node.inputs[0], node.inputs[1], node.inputs[2]
    else:  # one node holds sockets of every data type; those in use are enabled
        enabled = [socket for socket in node.inputs if socket.enabled]
        factor, a, b = (next(s for s in enabled if s.name == name) for name in ("Factor", "A", "B"))
    t = np.clip(_value(factor, spots)[:, :1], 0.0, 1.0)
    left, right = _value(a, spots), _value(b, spots)
    return left * (1 - t) + t * (left * right if getattr(node, "blend_type", "MIX") == "MULTIPLY" else right)


def _texture(node: Node, spots: SurfaceSamples) -> Array:
    """(P, 4) colour of the repeated image, interpolated as the node says: UVs on the borders of a small palette matter too.

    Texture transforms are ignored, but for the choice of a UV map.
    """
    image, vector = node.image, _linked(node.inputs["Vector"])
    uv = spots.uv(vector.uv_map if vector is not None and vector.bl_idname == "ShaderNodeUVMap" else "")
    pixels = image_pixels(image) if image is not None and uv is not None else None
    if image is None or pixels is None or uv is None:
        return np.tile(GREY, (len(spots), 1))
    height, width = pixels.shape[:2]
    place = uv * [width, height]
    coded = not image.is_float and image.colorspace_settings.name == "sRGB"
    if node.interpolation == "Closest":
        return _texels(pixels, np.floor(place).astype(np.int64), coded)
    # texel i has its centre at i + 0.5
    low = np.floor(place - 0.5).astype(np.int64)
    x, y = (place - 0.5 - low).T[..., None]
    below, above = (
        _texels(pixels, low + [0, row], coded) * (1 - x) + _texels(pixels, low + [1, row], coded) * x for row in (0, 1)
    )
    return below * (1 - y) + above * y


def _texels(pixels: Array, texel: NDArray[np.int64], coded: bool) -> Array:
    """(P, 4) linear values of texels (P, 2), column and row. coded: the pixels are stored as sRGB."""
    height, width = pixels.shape[:2]
    column, row = (texel % [width, height]).T
    rgba = pixels[row, column].astype(np.float64)
    if coded:
        rgba[:, :3] = display_to_linear(rgba[:, :3])
    return rgba


def image_pixels(image: Image) -> Array | None:
    """(H, W, 4) stored values, first row at the bottom (v = 0); None if the image has no data."""
    width, height = image.size
    flat = np.empty(4 * width * height, np.float32)
    if not len(flat) or len(image.pixels) != len(flat):
        return None
    image.pixels.foreach_get(flat)
    return flat.reshape(height, width, 4)

"""The sides from which the video may see the rig, to choose from by images of it.

The images are previews, which no file keeps: until they are made again the sides go by their names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import bpy
import bpy.utils.previews
import numpy as np
from numpy.typing import NDArray

# counter-clockwise as seen from above, in steps of an eighth of a turn (camera.Camera); "left" is the viewer's when in front
NAMES = ("Front", "Front Right", "Right", "Back Right", "Back", "Back Left", "Left", "Front Left")
AZIMUTHS = tuple(number * math.pi / 4 for number in range(len(NAMES)))

_previews: dict[str, Any] = {}
_items: list[tuple[str, str, str, int, int]] = []  # Blender keeps no reference to the strings of an enum of its own


def azimuth_of(side: str) -> float:
    """Radians, -pi < azimuth <= pi; 0 is Blender's front view, a quarter turn looks from +X."""
    azimuth = AZIMUTHS[int(side)]
    return azimuth if azimuth <= math.pi else azimuth - 2 * math.pi


def items(_props: Any, _context: bpy.types.Context | None) -> list[tuple[str, str, str, int, int]]:
    """The enum's items; the same number is the same side with and without an image."""
    collection = _previews.get("collection")
    found = []
    for number, name in enumerate(NAMES):
        icon = collection[str(number)].icon_id if collection and str(number) in collection else 0
        text = f"{round(math.degrees(AZIMUTHS[number]))}° around the rig from Blender's front view"
        found.append((str(number), name, text, icon, number))
    if found != _items:
        _items[:] = found
    return _items


def show(images: Sequence[NDArray[np.uint8]]) -> None:
    """Set the images of all sides, RGBA (H, W, 4) each."""
    collection = _previews["collection"]
    collection.clear()
    for number, image in enumerate(images):
        put(collection, str(number), image)


def put(collection: Any, name: str, image: NDArray[np.uint8]) -> None:
    """Add an RGBA image (H, W, 4) to a collection of previews, as a large image and as an icon."""
    preview = collection.new(name)
    # Blender's first row is at the bottom, the image's at the top; it draws previews as premultiplied by their alpha
    straight = image[::-1].astype(np.float32) / 255
    pixels = np.concatenate([straight[..., :3] * straight[..., 3:], straight[..., 3:]], axis=-1).ravel()
    preview.image_size = preview.icon_size = image.shape[1], image.shape[0]
    preview.image_pixels_float.foreach_set(pixels)
    preview.icon_pixels_float.foreach_set(pixels)


def shown() -> bool:
    return bool(_previews.get("collection"))


def clear() -> None:
    if "collection" in _previews:
        _previews["collection"].clear()


def register() -> None:
    _previews["collection"] = bpy.utils.previews.new()


def unregister() -> None:
    bpy.utils.previews.remove(_previews.pop("collection"))
    _items.clear()

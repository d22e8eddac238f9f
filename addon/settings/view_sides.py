"""The sides from which a video may show the rig, with their images, and the image of the last capture's view.

The images are Blender's previews, which are not saved with the file: until they are rendered again, the panel lists names alone.
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

SIDES, CAPTURE = "sides", "capture"

_previews: dict[str, Any] = {}  # collections of previews: the sides by their number, and the view of the last capture
_items: list[tuple[str, str, str, int, int]] = []  # Blender keeps no reference to the strings of a dynamic enum


def azimuth_of(side: str) -> float:
    """Radians, -pi < azimuth <= pi; 0 is Blender's front view, a quarter turn looks from +X."""
    azimuth = AZIMUTHS[int(side)]
    return azimuth if azimuth <= math.pi else azimuth - 2 * math.pi


def items(_props: Any, _context: bpy.types.Context | None) -> list[tuple[str, str, str, int, int]]:
    """The items of the enum. A side keeps its number with and without an image."""
    collection = _previews.get(SIDES)
    found = []
    for number, name in enumerate(NAMES):
        icon = collection[str(number)].icon_id if collection and str(number) in collection else 0
        text = f"{round(math.degrees(AZIMUTHS[number]))}° around the rig from Blender's front view"
        found.append((str(number), name, text, icon, number))
    if found != _items:
        _items[:] = found
    return _items


def show_sides(images: Sequence[NDArray[np.uint8]]) -> None:
    """Set the images of all sides, RGBA (H, W, 4) each."""
    _previews[SIDES].clear()
    for number, image in enumerate(images):
        _add(SIDES, str(number), image)


def show_capture(image: NDArray[np.uint8]) -> None:
    """Set the image of the last capture's view, RGBA (H, W, 4); none is shown while the add-on is not registered."""
    if CAPTURE in _previews:
        _previews[CAPTURE].clear()
        _add(CAPTURE, CAPTURE, image)


def capture_preview() -> Any:
    """Blender's preview of the last capture's view, or None."""
    return _previews.get(CAPTURE, {}).get(CAPTURE)


def _add(collection: str, name: str, image: NDArray[np.uint8]) -> None:
    """Add an RGBA image (H, W, 4), as a large image and as an icon."""
    preview = _previews[collection].new(name)
    # Blender's first row is at the bottom, the image's at the top; it draws previews as premultiplied by their alpha
    straight = image[::-1].astype(np.float32) / 255
    pixels = np.concatenate([straight[..., :3] * straight[..., 3:], straight[..., 3:]], axis=-1).ravel()
    preview.image_size = preview.icon_size = image.shape[1], image.shape[0]
    preview.image_pixels_float.foreach_set(pixels)
    preview.icon_pixels_float.foreach_set(pixels)


def are_shown() -> bool:
    return bool(_previews.get(SIDES))


def reset() -> None:
    """Remove all images."""
    while _previews:
        bpy.utils.previews.remove(_previews.popitem()[1])
    _items.clear()


def register() -> None:
    for name in (SIDES, CAPTURE):
        _previews[name] = bpy.utils.previews.new()


def unregister() -> None:
    reset()

"""Draws pictures over one viewport, in the part that sidebars and headers leave free. Draw Subject Box and Show Subject use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

SHARE = 0.94  # of the free part of the viewport
LONGEST = 1600  # pixels of an image on the screen

_painters: set[Painter] = set()  # those that draw now, to be removed when the add-on is disabled

Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Placement:
    """Where an image of (width, height) pixels is shown in a region whose y points up: its lower left corner, and its scale."""

    width: int
    height: int
    left: float
    bottom: float
    scale: float

    @classmethod
    def fitted(cls, width: int, height: int, free: Rectangle) -> Placement:
        """The image centred in the free part of the region."""
        x0, y0, x1, y1 = free
        scale = SHARE * min((x1 - x0) / width, (y1 - y0) / height)
        return cls(width, height, (x0 + x1 - scale * width) / 2, (y0 + y1 - scale * height) / 2, scale)

    def to_image(self, x: float, y: float) -> tuple[float, float]:
        """Region -> image, whose y points down; held within its edges."""
        # the region's y runs up from the image's lower edge, which is the image's y = height
        across, down = (x - self.left) / self.scale, self.height - (y - self.bottom) / self.scale
        return min(max(across, 0.0), self.width), min(max(down, 0.0), self.height)

    def to_region(self, x: float, y: float) -> tuple[float, float]:
        return self.left + x * self.scale, self.bottom + (self.height - y) * self.scale

    def holds(self, x: float, y: float) -> bool:
        """Whether a point of the region is on the image."""
        across, up = (x - self.left) / self.scale, (y - self.bottom) / self.scale
        return 0 <= across < self.width and 0 <= up < self.height


def grid(count: int, width: int, height: int, free: Rectangle) -> list[Placement]:
    """Places for `count` images of one size, row by row from the top left, as large as they fit."""
    x0, y0, x1, y1 = free

    def cells(columns: int) -> tuple[float, float]:
        return (x1 - x0) / columns, (y1 - y0) / math.ceil(count / columns)

    columns = max(range(1, count + 1), key=lambda n: min(cells(n)[0] / width, cells(n)[1] / height))
    across, down = cells(columns)
    corners = ((x0 + i % columns * across, y1 - (i // columns + 1) * down) for i in range(count))
    return [Placement.fitted(width, height, (x, y, x + across, y + down)) for x, y in corners]


def free_part(window: Any, others: Sequence[Any]) -> Rectangle:
    """The part of the viewport's main region without sidebars and headers, in its own pixels."""
    x0, y0, x1, y1 = 0.0, 0.0, float(window.width), float(window.height)
    for region in others:
        over = (
            region.x < window.x + window.width and region.x + region.width > window.x and region.width > 1 and region.height > 1
        )
        if region.type == "TOOLS" and over:
            x0 = max(x0, region.x + region.width - window.x)
        elif region.type == "UI" and over:
            x1 = min(x1, region.x - window.x)
        elif region.type in ("HEADER", "TOOL_HEADER") and region.y > window.y:
            y1 = min(y1, region.y - window.y)
    # the sidebar covers nearly all of a small viewport: use the whole region
    return (x0, y0, x1, y1) if x1 - x0 > 50 and y1 - y0 > 50 else (0.0, 0.0, float(window.width), float(window.height))


def viewport(context: bpy.types.Context) -> bpy.types.Area | None:
    """The viewport in use, else the largest of the window."""
    if context.area is not None and context.area.type == "VIEW_3D":
        return context.area
    areas = [area for area in context.window.screen.areas if area.type == "VIEW_3D"] if context.window else []
    return max(areas, key=lambda area: area.width * area.height, default=None)


def regions_of(area: bpy.types.Area) -> tuple[bpy.types.Region, Rectangle]:
    """The viewport's main region, and its free part."""
    main = next(region for region in area.regions if region.type == "WINDOW")
    return main, free_part(main, [region for region in area.regions if region.type != "WINDOW"])


@dataclass(eq=False)
class Picture:
    """An image (H, W, 3) uint8 RGB at its place."""

    image: NDArray[np.uint8]
    place: Placement
    texture: Any = None


class Painter:
    """Draws pictures, and boxes over them, in one viewport until `remove` is called. boxes: x0, y0, x1, y1 in the region's pixels."""

    def __init__(
        self, region: bpy.types.Region, pictures: Sequence[Picture], boxes: Callable[[], Iterable[Rectangle]] = tuple
    ) -> None:
        self._region, self._pictures, self._boxes = region.as_pointer(), list(pictures), boxes
        self._handle: Any = bpy.types.SpaceView3D.draw_handler_add(self._draw, (), "WINDOW", "POST_PIXEL")
        _painters.add(self)

    def show(self, pictures: Sequence[Picture]) -> None:
        """Draw these pictures from now on."""
        self._pictures = list(pictures)

    def remove(self) -> None:
        if self._handle is not None:
            bpy.types.SpaceView3D.draw_handler_remove(self._handle, "WINDOW")
            self._handle, self._pictures = None, []
            _painters.discard(self)

    def _draw(self) -> None:
        region = bpy.context.region
        if region is None or region.as_pointer() != self._region:  # the other viewports
            return
        import gpu

        gpu.state.blend_set("ALPHA")
        _fill(_corners(0, 0, region.width, region.height), (0.0, 0.0, 0.0, 0.7))
        for picture in self._pictures:
            _show(picture)
        for box in self._boxes():
            corners = _corners(*box)
            _fill(corners, (1.0, 0.6, 0.1, 0.15))
            gpu.state.line_width_set(2.0)
            _fill(corners, (1.0, 0.6, 0.1, 1.0), "LINE_LOOP")
            gpu.state.line_width_set(1.0)
        gpu.state.blend_set("NONE")


def _show(picture: Picture) -> None:
    from gpu_extras.presets import draw_texture_2d

    if picture.texture is None:
        picture.texture = texture_of(picture.image)
    place = picture.place
    # the colours are linear: Blender before 5.0 converts all drawing to sRGB, later versions only on request
    options = {"is_scene_linear_with_rec709_srgb_target": True} if bpy.app.version >= (5, 0, 0) else {}
    size = place.width * place.scale, place.height * place.scale
    draw_texture_2d(picture.texture, (place.left, place.bottom), *size, **options)


def texture_of(image: NDArray[np.uint8]) -> Any:
    """(H, W, 3) RGB -> a texture, reduced to the size of a screen."""
    import gpu

    pixels = screen_pixels(image)
    height, width = pixels.shape[:2]
    return gpu.types.GPUTexture((width, height), format="RGBA16F", data=gpu.types.Buffer("FLOAT", pixels.size, pixels.ravel()))


def screen_pixels(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """sRGB -> (H', W', 4) float32 0..1, linear, the first row at the bottom, the longer side at most LONGEST."""
    small = screen_image(image)
    pixels = np.ones((*small.shape[:2], 4), np.float32)
    steps = np.arange(256) / 255
    # IEC 61966-2-1
    linear = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4).astype(np.float32)
    pixels[..., :3] = linear[small[::-1]]
    return pixels


def screen_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) -> the image with a longer side of at most LONGEST."""
    import cv2

    height, width = image.shape[:2]
    share = min(1.0, LONGEST / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    return image if share == 1.0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _corners(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _fill(corners: list[tuple[float, float]], colour: tuple[float, float, float, float], kind: str = "TRI_FAN") -> None:
    import gpu
    from gpu_extras.batch import batch_for_shader

    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    batch = batch_for_shader(shader, kind, {"pos": corners})
    shader.bind()
    shader.uniform_float("color", colour)
    batch.draw(shader)


def reset() -> None:
    """Remove the images that are drawn over viewports."""
    for painter in list(_painters):
        painter.remove()


def register() -> None:
    """Nothing to register: `unregister` removes what is drawn."""


def unregister() -> None:
    reset()

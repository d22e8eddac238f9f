"""Carries mattes and labels from one frame to another by optical flow. Uses OpenCV and numpy.

A flow (h, w, 2) float32 belongs to the pixels of one frame, the here: what is at x here is at x + flow(x) in the other frame, there.
Pulling an image through it fetches the there to the here. Flows are found at FLOW_SIDE pixels and enlarged where they are used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from ..arrays import Array, Image, Pixels

FLOW_SIDE = 480  # pixels of the longer side of the images between which flow is found
OUTSIDE = 64.0  # colour error, 0 to 255, of what comes from outside the other image
TRUST = 8.0  # colour error at which a source counts e times less


@dataclass(frozen=True, eq=False)
class View:
    """One frame at the size at which flow is found. colours: (h, w, 3) uint8 RGB, softened. grey: (h, w) uint8."""

    colours: Image
    grey: Image

    @classmethod
    def of(cls, image: Image) -> View:
        """Make it from a frame (H, W, 3) uint8 RGB of any size."""
        height, width = image.shape[:2]
        scale = min(1.0, FLOW_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = image if scale == 1.0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return cls(cv2.blur(small, (3, 3)), cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))


class FlowFinder:
    """Finds dense flow with DIS (Kroeger et al. 2016). Not for several threads at once."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def find(self, here: View, there: View) -> Array:
        """Find the flow from `here` to `there`."""
        if min(here.grey.shape) < 16:  # DIS needs patches of 8 pixels
            return np.zeros((*here.grey.shape, 2), np.float32)
        return self._dis.calc(here.grey, there.grey, None)


def chained(first: Array, second: Array) -> Array:
    """Join flows a -> b and b -> c to a -> c: f(x) + g(x + f(x))."""
    return first + _fetched(second, _places(first), cv2.BORDER_REPLICATE)


def pulled(image: Pixels, flow: Array, nearest: bool = False) -> Pixels:
    """Fetch an image (H, W[, C]) of the frame there to the pixels here. The flow may be smaller. nearest: for labels."""
    places = _places(_enlarged(flow, image.shape[:2]))
    return _fetched(image, places, cv2.BORDER_REPLICATE, cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR)


def colour_error(here: View, there: View, flow: Array) -> Array:
    """(h, w) how unlike the pixels are that the flow joins, 0 to 255, smoothed; OUTSIDE where the flow leaves the image."""
    places = _places(flow)
    fetched = _fetched(there.colours, places, cv2.BORDER_REPLICATE)
    error = cv2.absdiff(here.colours, fetched).astype(np.float32).mean(axis=-1)
    height, width = flow.shape[:2]
    x, y = places[..., 0], places[..., 1]
    error[(x < -1) | (y < -1) | (x > width) | (y > height)] = OUTSIDE
    return cv2.blur(error, (9, 9))


@dataclass(frozen=True, eq=False)
class Cutting:
    """What was found on a frame. matte: (H, W) uint8 of all objects together. labels: (H, W) uint8, at every pixel of the image the
    object that it belongs to if the matte covers it; 0 if there is none."""

    matte: Image
    labels: Image

    def pulled(self, flow: Array) -> Cutting:
        """Carry it to the frame that the flow belongs to."""
        return Cutting(pulled(self.matte, flow), pulled(self.labels, flow, nearest=True))

    def mask(self, label: int, least: int = 128) -> Pixels:
        """(H, W) bool: where an object is."""
        return (self.matte >= least) & (self.labels == label)


def blended(before: Cutting, after: Cutting, errors: tuple[Array, Array], share: float) -> Cutting:
    """Mix what was carried to a frame from the key frames before and after it.

    errors: the `colour_error` of either. share: of the way from the one to the other, 0 to 1. A source counts more the nearer it is
    in time and the more its colours agree.
    """
    size = before.matte.shape[1], before.matte.shape[0]
    weights = [part * np.exp(-error / TRUST) + 1e-6 for part, error in zip((1 - share, share), errors, strict=True)]
    part = cv2.resize((weights[1] / (weights[0] + weights[1])).astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    matte = before.matte + (after.matte.astype(np.float32) - before.matte) * part
    return replace(before, matte=matte.round().astype(np.uint8), labels=np.where(part < 0.5, before.labels, after.labels))


def _places(flow: Array) -> Array:
    return _grid(flow.shape[0], flow.shape[1]) + flow


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> Array:
    grid = np.empty((height, width, 2), np.float32)
    grid[..., 0], grid[..., 1] = np.arange(width), np.arange(height)[:, None]
    return grid


def _enlarged(flow: Array, shape: tuple[int, ...]) -> Array:
    if flow.shape[:2] == tuple(shape):
        return flow
    scale = np.array([shape[1] / flow.shape[1], shape[0] / flow.shape[0]], np.float32)
    return cv2.resize(flow, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR) * scale


def _fetched(image: Pixels, places: Array, border: int, how: int = cv2.INTER_LINEAR) -> Pixels:
    return cv2.remap(image, places[..., 0], places[..., 1], how, borderMode=border)

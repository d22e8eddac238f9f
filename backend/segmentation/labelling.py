"""Tells the objects of a key frame apart, and which of them were seen before. Uses OpenCV and numpy.

A label is a number from 1 to 255 that an object keeps from frame to frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..arrays import Array, Image, Pixels
from .carrying import Cutting
from .matte import Box
from .sightings import colour_bins, colours_of

SEEN = 96  # of 255: the cover from which a pixel belongs to an object
BRIDGED = 0.012  # half the width of a gap, over the longer side of the image, that parts nothing: bars, branches
SMALLEST = 3e-4  # of the image's pixels
CLAIM = 0.25  # share of the smaller of two areas that must lie on each other
BESIDE = 0.06  # gap between parts of one object, over its diagonal
PART = 0.25  # area of such a part, over the object's, that need not have its colours
ALIKE = 0.5  # share of the colours that a larger part must have in common with it
NEAR = 0.05  # distance, over the object's diagonal, that weighs as much as a colour that is e times as likely another's
UNKNOWN = 4.0  # as much as a colour weighs that an object has in e^-4 of its pixels: for objects not yet seen by themselves
FAR = 3.0  # most that a distance weighs
KEPT = 0.7  # of what is known of an object's colours when it is seen again by itself
APART = 0.25  # gap over the diagonal at which parts of one object become two, if both are
LARGE = 0.3  # as large as this share of the larger one
GROWTH = 0.25  # share of its area that an object may gain at once, out of reach of where it was
REACH = 0.1  # that reach, over its diagonal


@dataclass(eq=False)
class Labeller:
    """Labels the objects of one key frame after another. last: the highest label given so far. joined: how often two objects were
    one connected region, by pair; met: how often both were seen. looks: the colours of each object (see `colours_of`) when it was by
    itself."""

    last: int = 0
    joined: dict[tuple[int, int], int] = field(default_factory=dict)
    met: dict[tuple[int, int], int] = field(default_factory=dict)
    looks: dict[int, Array] = field(default_factory=dict)

    def label(self, matte: Image, carried: Cutting | None, image: Image) -> Cutting:
        """matte: (H, W) uint8 of the key frame. carried: what the last key frame showed, carried here. image: (H, W, 3) uint8 RGB."""
        bridge = _disc(max(1, round(BRIDGED * max(matte.shape))))
        mask = cv2.morphologyEx((matte >= SEEN).astype(np.uint8), cv2.MORPH_CLOSE, bridge)
        _, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        large = stats[:, 4] >= max(12.0, SMALLEST * matte.size)
        large[0] = False
        before = np.zeros(matte.shape, np.uint8) if carried is None else np.where(carried.matte >= SEEN, carried.labels, 0)
        labels = np.zeros(matte.shape, np.uint8)
        unclaimed, shared = list[int](), np.zeros(matte.shape, bool)
        for region in np.argsort(-stats[:, 4]):
            if not large[region]:
                continue
            pixels = regions == region
            owners = _owners(pixels, before)
            if not owners:
                unclaimed.append(region)
            else:
                shared |= pixels if len(owners) > 1 else False
                labels[pixels] = _likeliest_owner(pixels, before, owners, image, self.looks)
        self._part_strangers(labels, before, shared)
        self._part_separated(labels, shared)
        for region in unclaimed:
            labels[regions == region] = self._beside(labels, regions == region, image) or self.new()
        self._count_meetings(labels, regions)
        self._note_looks(labels, regions, image)
        return Cutting(matte, _spread(labels))

    def new(self) -> int:
        """Give a new label; the last one stands for all that come after 254 others."""
        self.last = min(self.last + 1, 255)
        return self.last

    def _part_strangers(self, labels: Pixels, before: Pixels, shared: Pixels) -> None:
        """Give what is suddenly joined to an object, out of its reach, a label of its own: the crowd behind a dancer.

        Not at the image's edge, where an object may come into view, nor where several objects share a region.
        """
        for label in _present(labels):
            old, now = before == label, labels == label
            box = _mask_box(old)
            if box is None or _touches_edge(now) or (now & shared).any():
                continue
            reach = round(REACH * _diagonal(box)) + 2
            far = now & (cv2.dilate(old.astype(np.uint8), _disc(reach)) == 0)
            if far.sum() > GROWTH * old.sum():
                labels[far] = self.new()

    def _part_separated(self, labels: Pixels, shared: Pixels) -> None:
        """Give a large part that has gone away from the rest of its object a label of its own: two animals that stood together.

        Not where another object may be in front.
        """
        for label in _present(labels):
            if (shared & (labels == label)).any():
                continue
            count, parts, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=8)
            main = 1 + int(np.argmax(stats[1:, 4]))
            for part in range(1, count):
                if part == main or stats[part, 4] < LARGE * stats[main, 4]:
                    continue
                smaller = min(_diagonal(_box(stats[part])), _diagonal(_box(stats[main])))
                if _distance(parts == part, parts == main) > APART * smaller:
                    labels[parts == part] = self.new()

    def _beside(self, labels: Pixels, region: Pixels, image: Image) -> int:
        """The label of the object that a region is a part of, 0 if it is none's: near it, and small or of its colours."""
        for label in _present(labels):
            own = labels == label
            diagonal = _diagonal(_mask_box(own) or (0, 0, 0, 0))
            if _distance(region, own) > BESIDE * diagonal:
                continue
            alike = np.minimum(colours_of(image, region), colours_of(image, own)).sum()
            if region.sum() <= PART * own.sum() or alike >= ALIKE:
                return label
        return 0

    def _count_meetings(self, labels: Pixels, regions: Pixels) -> None:
        present = _present(labels)
        shared = (
            [set(_present(labels[regions == region])) for region in np.unique(regions[labels > 0])] if len(present) > 1 else []
        )
        for i, first in enumerate(present):
            for second in present[i + 1 :]:
                pair = (min(first, second), max(first, second))
                self.met[pair] = self.met.get(pair, 0) + 1
                self.joined[pair] = self.joined.get(pair, 0) + any({first, second} <= each for each in shared)

    def _note_looks(self, labels: Pixels, regions: Pixels, image: Image) -> None:
        """Note the colours of the objects that touch no other."""
        for label in _present(labels):
            mask = labels == label
            if (np.isin(regions, np.unique(regions[mask])) & (labels > 0) & ~mask).any():
                continue
            now, known = colours_of(image, mask), self.looks.get(label)
            self.looks[label] = now if known is None else KEPT * known + (1 - KEPT) * now


def _owners(pixels: Pixels, before: Pixels) -> list[int]:
    """The objects whose carried pixels lie on a region, or whose pixels it lies on, with a good share of either."""
    counts, areas = np.bincount(before[pixels], minlength=256), np.bincount(before.ravel(), minlength=256)
    counts[0] = 0
    shares = counts / np.maximum(np.minimum(areas, pixels.sum()), 1)
    return [int(label) for label in np.flatnonzero(shares >= CLAIM)]


def _likeliest_owner(pixels: Pixels, before: Pixels, owners: list[int], image: Image, looks: Mapping[int, Array]) -> Pixels:
    """(n,) the label of the likeliest owner for each of a region's pixels: the nearest, and the one of that colour."""
    if len(owners) == 1:
        return np.full(int(pixels.sum()), owners[0], np.uint8)
    bins, costs = colour_bins(image), []
    for label in owners:
        away = cv2.distanceTransform((before != label).astype(np.uint8), cv2.DIST_L2, 3)
        reach = NEAR * _diagonal(_mask_box(before == label) or (0, 0, *image.shape[1::-1]))
        unlike = -np.log(looks[label][bins] + 1e-3) if label in looks else UNKNOWN
        costs.append(cv2.blur((np.minimum(away / reach, FAR) + unlike).astype(np.float32), (7, 7))[pixels])
    return np.array(owners, np.uint8)[np.argmin(costs, axis=0)]


def _spread(labels: Pixels) -> Image:
    """Give every pixel the label of the nearest object, for soft edges and for what flow carries a little too far."""
    present = _present(labels)
    if len(present) < 2:
        return np.full(labels.shape, present[0] if present else 0, np.uint8)
    away = [cv2.distanceTransform((labels != label).astype(np.uint8), cv2.DIST_L2, 3) for label in present]
    return np.array(present, np.uint8)[np.argmin(away, axis=0)]


def _present(labels: Pixels) -> list[int]:
    """The labels that occur, the largest object first."""
    counts = np.bincount(labels.ravel(), minlength=256)
    counts[0] = 0
    return [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]


def _distance(first: Pixels, second: Pixels) -> float:
    """Pixels between the nearest points of two masks."""
    return float(cv2.distanceTransform((~second).astype(np.uint8), cv2.DIST_L2, 3)[first].min())


def _touches_edge(mask: Pixels) -> bool:
    return bool(mask[:2].any() or mask[-2:].any() or mask[:, :2].any() or mask[:, -2:].any())


def _mask_box(mask: Pixels) -> Box | None:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return (x, y, x + width, y + height) if width else None


def _box(stats: Array) -> Box:
    x, y, width, height = (float(value) for value in stats[:4])
    return x, y, x + width, y + height


def _diagonal(box: Box) -> float:
    return float(np.hypot(box[2] - box[0], box[3] - box[1]))


def _disc(radius: int) -> Pixels:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))

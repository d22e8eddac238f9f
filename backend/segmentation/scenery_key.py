"""Keys open scenery, sky and ground, before a still camera, and the shadows cast on it. Uses OpenCV and numpy.

A subject that stays in place never reveals the background behind it. But sky and ground have nearly one colour along each row,
which the sides of the image show. Where colours do not suffice, the network of cutout_network.py completes the matte.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from ..arrays import Array, Pixels
from .backdrop_key import steadiest_colours
from .cutout_network import Cutout, cut_out
from .matte import Picker, difference, fill_holes, mask_box, shade_vectors, soft_matte

_SIDE = 0.14  # of the width: columns at either side that are taken for background
_SHADE = (0.95, 1.04)  # cube root of luminance: variation of a band by its own texture
_RAMP = 9.0
_ROUGHEST = 8.0  # tolerance above which a row has more than one colour
_DARKEST, _LIGHTEST = 0.1, 0.8  # light in a shadow's core, as a share of the light around it
_PENUMBRA = 0.016  # of the width: largest width of a shadow's soft rim
_ALIKE = 0.14  # largest relative difference between a shadow's colour and the expected one
_REACH = 0.2  # of the subject's diagonal: largest gap between its parts
_LEVELS = (np.arange(256) / 255.0) ** 2.2


@dataclass(frozen=True, eq=False)
class Shadow:
    """Cast shadows. ground: (H, W, 3) linear RGB without shadow. core: (3,) shares of R, G and B that are left in a shadow."""

    ground: Pixels
    core: Array

    def mask(self, image: Pixels, differs: Pixels) -> Pixels:
        """The pixels (H, W) bool that are only shadow. image: (H, W, 3) uint8 RGB. differs: (H, W) bool, all but the ground.

        Light in a penumbra is a mixture of full and no sunlight. A dark patch within the subject is not its shadow: a shadow
        touches the background.
        """
        box = mask_box(differs)
        shadow = np.zeros(differs.shape, bool)
        if box is None:
            return shadow
        part = _box_slices(box, 4, differs.shape)
        here = differs[part]
        ratio = _to_linear(cv2.blur(image[part], (3, 3))) / self.ground[part]
        core, alike = self._shaded(ratio, here)
        reach = 2 * round(_PENUMBRA * differs.shape[1]) + 1
        near = cv2.dilate(core, np.ones((reach, reach), np.uint8))
        shadow[part] = _keep_beside_background(alike & near, here)
        return shadow

    def _shaded(self, ratio: Pixels, here: Pixels) -> tuple[Pixels, Pixels]:
        """Light (H, W, 3) as a share of that on the ground -> (H, W) uint8: the shadow's core, and all possible shadow.

        A penumbra mixes full light and the core's. Corners may be darker than the core, where the sky gives little light either.
        """
        lost = 1.0 - self.core
        share = np.clip((1.0 - ratio) @ lost / (lost @ lost), 0.0, 1.0)
        dim = np.clip(ratio @ self.core / (self.core @ self.core), 0.35, 1.0)
        expected = np.where(share[..., None] < 1.0, 1.0 - share[..., None] * lost, dim[..., None] * self.core)
        error = np.abs(ratio - expected).max(axis=-1) / expected.mean(axis=-1)
        # light reflected by the subject tints the darkest parts
        alike = (here & (share > 0.15) & (error < np.where(dim < 0.8, 1.6 * _ALIKE, _ALIKE))).astype(np.uint8)
        alike = cv2.morphologyEx(cv2.medianBlur(alike, 5), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        core = alike & (share > 0.75)
        return cv2.morphologyEx(core.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), alike


def _box_slices(box: tuple[float, ...], margin: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    x0, y0, x1, y1 = (int(side) for side in box)
    return np.s_[max(y0 - margin, 0) : min(y1 + margin, shape[0]), max(x0 - margin, 0) : min(x1 + margin, shape[1])]


def _keep_beside_background(alike: Pixels, differs: Pixels) -> Pixels:
    """(H, W) bool: the components of `alike` that largely border on background, and lie lower than the rest of `differs`."""
    count, labels, stats, centres = cv2.connectedComponentsWithStats(alike, connectivity=4)
    rim = (cv2.erode(alike, np.ones((3, 3), np.uint8)) == 0) & (alike > 0)
    outside = cv2.dilate((~differs).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    outline = np.bincount(labels[rim], minlength=count)
    free = np.bincount(labels[rim & outside], minlength=count)
    kept = (free > 0.3 * outline) & (stats[:, 4] >= 12)
    rest = np.nonzero(differs & (alike == 0))[0]
    if len(rest):
        kept &= centres[:, 1] > rest.mean()
    kept[0] = False
    return kept[labels]


def _to_linear(image: Pixels) -> Pixels:
    """uint8 with a gamma of 2.2 -> linear float32, 0..1."""
    return _LEVELS.astype(np.float32)[image]


def find_shadow(images: Pixels, background: Pixels, masks: Pixels) -> Shadow | None:
    """Find the darkness of cast shadows, or None if there are none.

    images: (N, H, W, 3) uint8 RGB. background: (H, W, 3) shade vectors. masks: (N, H, W) bool, pixels that differ from it. A
    shadow's core has nearly one colour relative to the ground. Outdoors, where only the sky lights it, it is bluish. The most
    frequent of such colours, above all low in the masks, is the shadow's.
    """
    ground = np.maximum(_to_linear(_to_rgb(background)), 0.004)
    points, weights = [], []
    for image, mask in zip(images, masks, strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows) < 30:
            continue
        ratio = _to_linear(cv2.blur(image, (3, 3)))[rows, columns] / ground[rows, columns]
        points.append(np.log(np.maximum(ratio, 1e-3)))
        low, high = np.percentile(rows, [2, 98])
        weights.append(np.clip((rows - low) / max(high - low, 1.0), 0.0, 1.0) ** 2)
    if not points:
        return None
    core = _densest_colour(np.concatenate(points), np.concatenate(weights), 0.02)
    return None if core is None else Shadow(ground, np.exp(core))


def _densest_colour(points: Array, weights: Array, least: float) -> Array | None:
    """The densest of the colours that a shadow can have, (3,); None if its share of the weights is below `least`.

    points: (P, 3) logarithms of light relative to the ground. weights: (P,).
    """
    red, green, blue = points.T
    tint = blue - red
    can = (points.mean(axis=1) > np.log(_DARKEST)) & (points.mean(axis=1) < np.log(_LIGHTEST))
    can &= (tint > -0.12) & (tint < 1.1) & (np.abs(green - red - 0.45 * tint) < 0.22)
    total, points, weights = weights.sum(), points[can], weights[can]
    if weights.sum() < least * total:
        return None
    edges = [np.arange(-3.6, 1.2, 0.12)] * 3
    counts, _ = np.histogramdd(points, edges, weights=weights)
    smooth = counts
    for axis in range(3):
        smooth = smooth + np.roll(smooth, 1, axis) + np.roll(smooth, -1, axis)
    best = np.array([edges[0][index] + 0.06 for index in np.unravel_index(np.argmax(smooth), smooth.shape)])
    near = np.abs(points - best).max(axis=1) < 0.2
    return np.median(points[near], axis=0) if weights[near].sum() > least * total else None


def _to_rgb(vectors: Pixels) -> Pixels:
    """Shade vectors (..., 3) of `shade_vectors` -> uint8 RGB."""
    lab = (vectors - np.array([16, -128, -128], np.float32)) * np.array([255 / 100, 1, 1], np.float32)
    return cv2.cvtColor(np.clip(np.rint(lab), 0, 255).astype(np.uint8), cv2.COLOR_Lab2RGB)


@dataclass(frozen=True, eq=False)
class Scenery:
    """Sky and ground as bands of colour. backdrop: (H, W, 3) shade vectors. low: (H, W) largest distance of background from it."""

    backdrop: Pixels
    low: Pixels
    shadow: Shadow | None = None

    @cached_property
    def image(self) -> Pixels:
        """The backdrop as (H, W, 3) uint8 RGB."""
        return _to_rgb(self.backdrop)

    def key(self, image: Pixels) -> Pixels:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 matte of everything but background and shadow."""
        return self.key_with_shadow(image)[0]

    def pick(self, image: Pixels, picker: Picker, holes: float, network: Cutout) -> Pixels:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 matte of the subject: the picker chooses it, the network completes it.

        The network runs twice: the picker may have seen only a hand, whose surroundings are not the whole subject's. Scraps far
        from the rest are dropped, as they are bits of shadow.
        """
        matte, dark = self.key_with_shadow(image)
        rough = picker.pick(matte, holes)
        rough = np.maximum(rough, cut_out(network, image, self.image, rough, dark))
        return Picker(reach=_REACH).pick(cut_out(network, image, self.image, rough, dark), 0.0)

    def key_with_shadow(self, image: Pixels) -> tuple[Pixels, Pixels]:
        """-> the soft matte of `key`, and (H, W) bool, the pixels that are only shadow."""
        matte = soft_matte(difference(shade_vectors(image), self.backdrop, _SHADE), self.low, self.low + _RAMP)
        if self.shadow is None:
            return matte, np.zeros(matte.shape, bool)
        dark = self.shadow.mask(image, matte >= 64)
        return _clear_shadow(matte, dark), dark


def _clear_shadow(matte: Pixels, dark: Pixels) -> Pixels:
    """Clear shadows (H, W) bool and the slivers along their rims from a soft matte (H, W) uint8."""
    if not dark.any():
        return matte
    cleared = np.where(dark, 0, matte).astype(np.uint8)
    solid = cv2.morphologyEx((cleared >= 96).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    rim = (cv2.dilate(dark.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0) & (cv2.dilate(solid, np.ones((3, 3), np.uint8)) == 0)
    cleared[rim] = 0
    return cleared


def find_scenery(samples: Pixels, network: Cutout | None = None) -> Scenery | None:
    """(N, H, W, 3) uint8 RGB samples -> the scenery behind the subject, or None if the camera moves or there is no such scenery.

    The sides of the image must agree with bands of colour, and all that differs must be one compact subject and little else. With
    a network, the latter may hold only after the network has joined the parts.
    """
    images = samples[:: max(1, len(samples) // 14)]
    if not _stands_still(images):
        return None
    steady = steadiest_colours(images)
    backdrop, low = _bands(shade_vectors(steady))
    if np.median(low) > _ROUGHEST:
        return None
    found = Scenery(*_refine_with_image(images, steady, backdrop, low))
    masks = np.stack([found.key(image) >= 96 for image in images])
    found = replace(found, shadow=find_shadow(images, found.backdrop, masks))
    keyed = [found.key_with_shadow(image) for image in images]
    if _show_one_subject(np.stack([matte for matte, _ in keyed])):
        return found
    return found if network is not None and _show_one_subject(_mattes_with_network(found, images, keyed, network)) else None


def _mattes_with_network(found: Scenery, images: Pixels, keyed: list[tuple[Pixels, Pixels]], network: Cutout) -> Pixels:
    """(N, H, W) uint8: the mattes of all that differs, completed by the network."""
    picker = Picker(reach=0.15)
    pairs = zip(images, keyed, strict=True)
    wholes = [cut_out(network, image, found.image, picker.pick(matte), dark) for image, (matte, dark) in pairs]
    return np.stack([np.maximum(whole, matte) for whole, (matte, _) in zip(wholes, keyed, strict=True)])


def _refine_with_image(images: Pixels, steady: Pixels, backdrop: Pixels, low: Pixels) -> tuple[Pixels, Pixels]:
    """-> backdrop and tolerance, replaced by the steadiest colours of the pixels wherever these are within the tolerance.

    There the ground's own texture is known, so limbs that pass over it differ more clearly.
    """
    pixels = shade_vectors(steady)
    known = cv2.erode((difference(pixels, backdrop, _SHADE) < low).astype(np.uint8), np.ones((5, 5), np.uint8))
    rest = np.stack([difference(shade_vectors(image), pixels, _SHADE) for image in images])
    noise = cv2.GaussianBlur(1.8 * np.percentile(rest, 30, axis=0).astype(np.float32), (0, 0), 2.0)
    weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), 1.0)
    precise = np.minimum(low, np.clip(2.0 * noise, 3.0, 10.0))
    return backdrop + weight[..., None] * (pixels - backdrop), low + weight * (precise - low)


def _stands_still(images: Pixels) -> bool:
    """True if nearly all pixels at the border keep their colour."""
    band = np.zeros(images.shape[1:3], bool)
    margin = max(2, round(0.06 * min(band.shape)))
    band[:margin] = band[:, :margin] = band[:, -margin:] = True
    low, high = np.percentile(np.stack([cv2.blur(image, (5, 5)) for image in images])[:, band], [10, 90], axis=0)
    return bool(np.percentile((high - low).max(axis=-1), 85) < 12)


def _bands(vectors: Pixels) -> tuple[Pixels, Pixels]:
    """(H, W, 3) shade vectors -> bands (H, W, 3), each row interpolated from its left to its right side, and tolerances (H, W).

    If one side is darker, the brighter side gives the colour of the whole row: a shadow may extend out of the image.
    """
    width = vectors.shape[1]
    columns = max(3, round(_SIDE * width))
    sides = [np.median(part, axis=1) for part in (vectors[:, :columns], vectors[:, -columns:])]
    sides = [cv2.medianBlur(np.ascontiguousarray(side[None].astype(np.float32)), 5)[0] for side in sides]
    light = [side[:, :1] for side in sides]
    brighter = np.where(light[0] > light[1], sides[0], sides[1])
    shaded = np.minimum(*light) < 0.9 * np.maximum(*light)
    left, right = (np.where(shaded, brighter, side)[:, None] for side in sides)
    along = ((np.arange(width) + 0.5) / width)[None, :, None]
    # the medians of the sides are the colours at their middles
    along = np.clip((along - _SIDE / 2) / (1 - _SIDE), 0.0, 1.0)
    backdrop = (left * (1 - along) + right * along).astype(np.float32)
    rest = difference(vectors, backdrop, _SHADE)
    rest = np.concatenate([rest[:, :columns], rest[:, -columns:]], axis=1)
    noise = np.percentile(rest, 70, axis=1)
    noise = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(noise, 7, mode="edge"), 15), axis=1)
    step = np.abs(np.gradient(backdrop, axis=0)).max(axis=-1)  # the horizon is never quite level
    low = np.clip(2.2 * noise, 4.0, 10.0)[:, None] + 1.5 * cv2.dilate(step, np.ones((3, 3), np.uint8))
    return backdrop, low.astype(np.float32)


def _show_one_subject(mattes: Pixels) -> bool:
    """True if most of the mattes (N, H, W) of all that differs show one compact subject and little else."""
    picker = Picker(reach=0.15)
    good = 0
    for matte in mattes:
        picked = picker.pick(matte) >= 128
        box = mask_box(picked)
        if box is None:
            continue
        height, width = picked.shape
        sides = (box[0] <= 1) + (box[1] <= 1) + (box[2] >= width - 1) + (box[3] >= height - 1)
        beside = ((matte >= 128) & ~picked).sum()
        filled = fill_holes(picked, picked.size).sum()
        compact = picked.sum() > 0.15 * (box[2] - box[0]) * (box[3] - box[1]) and filled < 1.25 * picked.sum()
        good += compact and sides <= 2 and 2e-3 < picked.mean() < 0.6 and beside < 0.2 * picked.sum() + 2e-3 * picked.size
    return good > 0.6 * len(mattes)

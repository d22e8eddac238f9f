"""Chooses the subject among the objects of a clip, and finds it again after it was hidden. Uses OpenCV and numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import uniform_filter

from ..arrays import Array, Image, Pixels
from .matte import Box

CENTRAL = 0.6  # distance from the centre over half the image's diagonal at which an object counts e times less
LIVELY = 0.004  # motion per frame, over the image's diagonal, from which an object counts fully
STILL = 0.25  # what a still object counts for beside a lively one
ALIKE = 0.55  # colours in common from which a later object may be the subject again
RESIZED = 3.0  # how many times larger or smaller it may be then
TOGETHER = 0.1  # share of its key frames that it may share with the subject then
JOINED = 0.9  # share of the common key frames on which two objects must touch to be one
OFTEN = 3  # and the number of those key frames
RIVAL = 0.35  # importance over the subject's from which another object is told


@dataclass(frozen=True, eq=False)
class Sighting:
    """An object on a key frame. key: the key frame's number. box: in the mattes' pixels. area: share of the image. size: (width,
    height) of the mattes. motion: against the background, per frame and over the image's diagonal. colours: see `colours_of`."""

    key: int
    time: float
    box: Box
    area: float
    size: tuple[int, int]
    motion: float
    colours: Array


def colour_bins(image: Image) -> Pixels:
    """(H, W) int: the bin of each pixel's colour, of 8 x 8 x 8 in Lab."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab).astype(np.int32) >> 5
    return (lab[..., 0] * 8 + lab[..., 1]) * 8 + lab[..., 2]


def colours_of(image: Image, mask: Pixels) -> Array:
    """(512,) shares of the colours under a mask, in the bins of `colour_bins`; they sum to 1. Each counts in the bins around it too."""
    counts = np.bincount(colour_bins(image)[mask], minlength=512).reshape(8, 8, 8) / max(float(mask.sum()), 1.0)
    return uniform_filter(counts, 3, mode="nearest").astype(np.float32).ravel()


def importance(sighting: Sighting) -> float:
    """How likely an object is the subject: large, central, and moving against the background."""
    centre = np.array([sighting.box[0] + sighting.box[2], sighting.box[1] + sighting.box[3]]) / 2
    half = np.array(sighting.size) / 2
    away = float(np.linalg.norm(centre - half) / np.linalg.norm(half))
    lively = STILL + (1 - STILL) * min(1.0, sighting.motion / LIVELY)
    return float(np.sqrt(sighting.area)) * float(np.exp(-((away / CENTRAL) ** 2))) * lively


@dataclass(frozen=True)
class Candidate:
    """Another object that could be the subject: a box in the mattes' pixels, and when it was seen, in seconds."""

    box: Box
    time: float


def choose_labels(
    sightings: Mapping[int, Sequence[Sighting]],
    joined: Mapping[tuple[int, int], int],
    met: Mapping[tuple[int, int], int],
    chosen: Iterable[int] = (),
) -> tuple[set[int], list[Candidate]]:
    """Choose the labels of the subject. chosen: those that the user chose. joined, met: see `Labeller`.

    -> the labels, the same subject found again among them, and the other objects of some weight, the weightiest first.
    """
    groups = _groups(sightings, joined, met)
    scores = [sum(importance(one) for label in group for one in sightings[label]) for group in groups]
    if not groups:
        return set(), []
    wanted = set(chosen) & set(sightings)
    subject = wanted or groups[int(np.argmax(scores))]
    subject = subject | _found_again(subject, [group for group in groups if not group & subject], sightings)
    best = max(sum(importance(one) for label in subject for one in sightings[label]), 1e-12)
    others = [
        (score, group) for score, group in zip(scores, groups, strict=True) if not group & subject and score >= RIVAL * best
    ]
    others.sort(key=lambda other: -other[0])
    return subject, [_candidate([one for label in group for one in sightings[label]]) for _, group in others]


def _groups(
    sightings: Mapping[int, Sequence[Sighting]], joined: Mapping[tuple[int, int], int], met: Mapping[tuple[int, int], int]
) -> list[set[int]]:
    """Unite labels that are one region nearly whenever both are seen."""
    groups = {label: {label} for label in sightings}
    for pair, together in joined.items():
        if together >= OFTEN and together >= JOINED * met[pair] and pair[0] in groups and pair[1] in groups:
            union = groups[pair[0]] | groups[pair[1]]
            groups |= dict.fromkeys(union, union)
    return [group for label, group in groups.items() if label == min(group)]


def _found_again(subject: set[int], others: list[set[int]], sightings: Mapping[int, Sequence[Sighting]]) -> set[int]:
    """The groups that look like the subject and are seen when it is not."""
    again, seen = set[int](), [one for label in subject for one in sightings[label]]
    for _ in others:
        keys = {one.key for one in seen}
        best, most = None, ALIKE
        for group in others:
            theirs = [one for label in group for one in sightings[label]]
            shared = sum(one.key in keys for one in theirs)
            ratio = np.median([one.area for one in theirs]) / np.median([one.area for one in seen])
            alike = _likeness(seen, theirs)
            if not group & again and shared <= TOGETHER * len(theirs) and 1 / RESIZED < ratio < RESIZED and alike > most:
                best, most = group, alike
        if best is None:
            break
        again |= best
        seen += [one for label in best for one in sightings[label]]
    return again


def _likeness(first: Sequence[Sighting], second: Sequence[Sighting]) -> float:
    """Share of the colours in common, 0 to 1: where the second is first and last seen, with the first's nearest sighting."""
    keys = np.array([one.key for one in first])
    pairs = [(first[int(np.argmin(np.abs(keys - one.key)))], one) for one in (second[0], second[-1])]
    return float(np.mean([np.minimum(a.colours, b.colours).sum() for a, b in pairs]))


def _candidate(seen: Sequence[Sighting]) -> Candidate:
    best = max(seen, key=importance)
    return Candidate(best.box, best.time)

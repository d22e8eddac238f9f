"""A folder of scenes as the source of a training run's batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import UserError
from ..samples.samples import Sample, perturb_pairs
from .draw_scenes import scene_path
from .scene import PICTURES, REFERENCES, Scene

FIRST_SHARE = (0.4, 0.2)  # of the reference pairs: the first and the second picture; in the others any picture is the reference
NOISY_SHARE = 0.2  # of the reference pairs: a little off from the image, as a user's may be
CHOICE = 4  # scenes that are looked at for each one of a batch, which need little padding then


class SceneFolder:
    """The scenes 0, 1, 2, ... of a folder, as many as there are without a gap. More may be drawn meanwhile (`look`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.joints: list[int] = []
        self.apart: list[bool] = []

    def look(self, count: int | None = None) -> int:
        """Find new scenes, at most until there are `count`, and return their number. Raises UserError if there is none, or not so many."""
        while (count is None or len(self.joints) < count) and scene_path(self.folder, len(self.joints)).exists():
            with np.load(scene_path(self.folder, len(self.joints))) as data:
                self.joints.append(len(data["skeleton.parents"]))
                self.apart.append(bool(data["apart"]))
        if len(self.joints) < (count or 1):
            raise UserError(
                f"Scenes folder '{self.folder}' holds {len(self.joints)} scenes and needs {count or 1}: draw them with "
                "`python -m backend scenes`."
            )
        return len(self.joints)

    def draw_batch(self, count: int, known: int, apart: bool, rng: np.random.Generator, start: float) -> list[Sample]:
        """`count` samples of the first `known` scenes, of one kind, with similar numbers of joints. start: 0..1, small to large rigs."""
        kind = np.flatnonzero(np.array(self.apart[:known]) == apart)
        if not len(kind):
            kind = np.arange(known)
        some = rng.choice(kind, min(CHOICE * count, len(kind)), replace=False)
        ordered = sorted(some.tolist(), key=lambda number: (self.joints[number], number))
        first = int(start * (len(ordered) - min(count, len(ordered)) + 1))
        return [self.sample(number, rng) for number in ordered[first : first + count]]

    def sample(self, number: int, rng: np.random.Generator) -> Sample:
        """One sample of a scene: a reference and a window of six of the other pictures."""
        scene = Scene.load(scene_path(self.folder, number))
        sample = scene.sample(*choose_pictures(scene, rng))
        return replace(sample, pairs=perturb_pairs(sample.pairs, rng)) if rng.random() < NOISY_SHARE else sample


def choose_pictures(scene: Scene, rng: np.random.Generator) -> tuple[int, Sequence[int], Sequence[int]]:
    """The reference, the pictures of the window, and two more poses as reference pairs."""
    choice = rng.random()
    references = REFERENCES if not scene.apart else PICTURES
    reference = next((i for i, share in enumerate(np.cumsum(FIRST_SHARE)) if choice < share), None)
    if reference is None:
        reference = int(rng.integers(references))
    window = np.arange(REFERENCES, PICTURES)
    if scene.apart:
        window = rng.permutation(np.delete(np.arange(PICTURES), reference))[: PICTURES - REFERENCES]
    others = np.delete(np.arange(PICTURES), reference)
    return reference, window.tolist(), rng.choice(others, 2, replace=False).tolist()

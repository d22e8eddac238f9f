"""How alike two worlds of pictures look to the image encoder: point splats for training, Blender's renders for measuring.

Every statistic of the two worlds stands beside the same one within a world, without which it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..matte import mask_box
from ..rotation import Array
from ..vision import SIZE, Encoder, crop, crop_box
from ..weights import encoder_of

Image = NDArray[np.uint8]
WHITE = 250  # a token's patch that is darker somewhere shows the subject
BATCH = 16
PAIRS = 400  # drawn at most for each kind of comparison
SPLITS = 10


@dataclass(frozen=True, eq=False)
class Pair:
    """The same pose in both worlds: crops (224, 224, 3) uint8 RGB on white. rig, clip: what it shows; clips of rigs differ."""

    left: Image
    right: Image
    rig: str
    clip: str


@dataclass(frozen=True, eq=False)
class Features:
    """Of N pictures in one world. tokens: (N, K, D). seen: (N, K) bool, the tokens that show the subject."""

    tokens: Array
    seen: NDArray[np.bool_]

    @cached_property
    def pooled(self) -> Array:
        """(N, D): the mean over all tokens, as they are."""
        return self.tokens.mean(1)


def pair_of(left: Image, right: Image, rig: str, clip: str) -> Pair:
    """Two pictures (H, W, 4) uint8 RGBA of one pose from one camera -> the same square cut out of both.

    Raises UserError if the pictures show nothing.
    """
    box = mask_box(np.maximum(left[..., 3], right[..., 3]) > 127)
    if box is None:
        raise UserError(f"The pictures of '{clip}' are empty: look at its pack with `anyrig sheet`.")
    square = crop_box(np.array(box))
    cut = [crop(image[..., :3], image[..., 3], square) for image in (left, right)]
    return Pair(cut[0], cut[1], rig, clip)


def measure(pairs: Sequence[Pair], source: str = "lite") -> dict[str, object]:
    """`compare` of what the encoder of `source` (weights.encoder_of) makes of the pairs."""
    encoder = Encoder(encoder_of(source))
    left, right = (features([getattr(pair, side) for pair in pairs], encoder) for side in ("left", "right"))
    return compare(left, right, [pair.rig for pair in pairs], [pair.clip for pair in pairs])


def features(crops: Sequence[Image], encoder: Encoder) -> Features:
    """Crops (224, 224, 3) -> their features."""
    tokens = [encoder.encode(np.stack(crops[i : i + BATCH])).float().numpy() for i in range(0, len(crops), BATCH)]
    return Features(np.concatenate(tokens), np.stack([shown(picture, encoder.grid) for picture in crops]))


def shown(picture: Image, grid: int) -> NDArray[np.bool_]:
    """(grid * grid,): the patches of a crop on white that show the subject, row by row."""
    step = SIZE // grid
    return (picture.reshape(grid, step, grid, step, 3) < WHITE).any(axis=(1, 3, 4)).ravel()


def compare(left: Features, right: Features, rigs: Sequence[str], clips: Sequence[str], seed: int = 0) -> dict[str, object]:
    """Two worlds of N pictures each, picture i in the same pose in both -> {"pictures", "cosine", "distance"}.

    cosine: mean similarity {"pooled", "tokens"} of the same picture in both worlds, of frames of one clip within each world,
    and of different rigs within each world. Tokens count where either picture shows the subject.
    distance: Frechet distance of pooled features (`frechet`), means over random halves of the pictures, all of one size: the
    halves of the left world, and a half of the left against the other half of the right. Beside them all of both worlds.
    Raises UserError if there are too few pictures to compare.
    """
    if len(rigs) < 4:
        raise UserError(f"There are {len(rigs)} pictures to compare: give at least 4.")
    rng = np.random.default_rng(seed)
    same = [(i, i) for i in range(len(rigs))]
    every = list(combinations(range(len(rigs)), 2))
    clip = _some([(i, j) for i, j in every if clips[i] == clips[j]], rng)
    other = _some([(i, j) for i, j in every if rigs[i] != rigs[j]], rng)
    cosine = {"same picture": similarity(left, right, same)}
    for name, world in (("left", left), ("right", right)):
        cosine |= {f"frames of a clip, {name}": similarity(world, world, clip), f"rigs, {name}": similarity(world, world, other)}
    return {
        "pictures": len(rigs),
        "rigs": len(set(rigs)),
        "cosine": cosine,
        "distance": distances(left.pooled, right.pooled, rng),
    }


def _some(pairs: list[tuple[int, int]], rng: np.random.Generator) -> list[tuple[int, int]]:
    chosen = rng.permutation(len(pairs))[:PAIRS]
    return [pairs[i] for i in chosen]


def similarity(left: Features, right: Features, pairs: Sequence[tuple[int, int]]) -> dict[str, float | None]:
    """Mean cosines over pairs (picture of the left, picture of the right); None without pairs."""
    if not pairs:
        return {"pooled": None, "tokens": None}
    pooled = [float(_cosine(left.pooled[i], right.pooled[j])) for i, j in pairs]
    tokens = [
        float(_cosine(left.tokens[i, s], right.tokens[j, s]).mean())
        for i, j in pairs
        if (s := left.seen[i] | right.seen[j]).any()
    ]
    return {"pooled": float(np.mean(pooled)), "tokens": float(np.mean(tokens)) if tokens else None}


def _cosine(left: Array, right: Array) -> Array:
    length = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return (left * right).sum(-1) / np.maximum(length, 1e-12)


def distances(left: Array, right: Array, rng: np.random.Generator) -> dict[str, float]:
    """Frechet distances of pooled features (N, D), with random halves of the pictures."""
    inner, across = [], []
    for _ in range(SPLITS):
        order = rng.permutation(len(left))
        first, second = order[: len(left) // 2], order[len(left) // 2 :]
        inner.append(frechet(left[first], left[second]))
        across.append(frechet(left[first], right[second]))
    return {"worlds": frechet(left, right), "halves": float(np.mean(inner)), "halves across": float(np.mean(across))}


def frechet(left: Array, right: Array) -> float:
    """Frechet distance of two normal distributions fitted to rows (N, D) and (M, D) (Heusel et al. 2017), N, M > 1.

    |m1 - m2|^2 + Tr C1 + Tr C2 - 2 Tr (C1 C2)^1/2. With C = X^T X / (n - 1), X centred, the eigenvalues of C1 C2 are the squared
    singular values of X1 X2^T over (n1 - 1)(n2 - 1), so the last trace is their sum: no root of a singular matrix is needed.
    """
    one, other = left.astype(np.float64), right.astype(np.float64)
    apart = one.mean(0) - other.mean(0)
    one, other = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (one, other))
    common = np.linalg.svd(one @ other.T, compute_uv=False).sum()
    return float(apart @ apart + (one**2).sum() + (other**2).sum() - 2 * common)

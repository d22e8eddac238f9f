"""The distance between two worlds of pictures, on features that are made up."""

import numpy as np
import pytest
import scipy.linalg
from anyrig.backend.errors import UserError
from anyrig.backend.train.likeness import Features, compare, frechet, pair_of, shown, similarity

RIGS = [f"rig {i // 10}" for i in range(60)]
CLIPS = [f"clip {i // 5}" for i in range(60)]


def world(seed: int = 0) -> Features:
    """60 pictures, 9 tokens, 12 channels: rigs far apart, clips less, frames least."""
    rng = np.random.default_rng(seed)
    rig, clip = (np.repeat(rng.normal(0, size, (60 // n, 1, 12)), n, axis=0) for size, n in ((1.0, 10), (0.4, 5)))
    return Features(1 + rig + clip + rng.normal(0, 0.1, (60, 9, 12)), np.ones((60, 9), bool))


def test_a_world_is_like_itself() -> None:
    found = compare(world(), world(), RIGS, CLIPS)
    assert found["cosine"]["same picture"] == pytest.approx({"pooled": 1, "tokens": 1})
    assert found["distance"]["worlds"] == pytest.approx(0, abs=1e-9)
    assert found["distance"]["halves"] == pytest.approx(found["distance"]["halves across"])
    frames, rigs = (found["cosine"][f"{kind}, left"] for kind in ("frames of a clip", "rigs"))
    assert 1 > frames["pooled"] > rigs["pooled"] + 0.1 and 1 > frames["tokens"] > rigs["tokens"] + 0.1


def test_a_shifted_world_is_farther() -> None:
    here, measured = world(), []
    for size in (0.2, 0.8):
        moved = Features(here.tokens + np.linspace(-size, size, 12), here.seen)
        measured.append(compare(here, moved, RIGS, CLIPS))
    near, far = measured
    assert 1 > near["cosine"]["same picture"]["pooled"] > far["cosine"]["same picture"]["pooled"]
    shift = (np.linspace(-0.8, 0.8, 12) ** 2).sum()
    assert far["distance"]["worlds"] == pytest.approx(shift) and far["distance"]["worlds"] > 10 * near["distance"]["worlds"]
    assert far["distance"]["halves across"] == pytest.approx(far["distance"]["halves"] + shift, rel=0.5)


def test_the_distance_is_that_of_the_textbook() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(0, 1, (50, 6)), rng.normal(0.3, 2, (40, 6)) @ rng.normal(size=(6, 6))
    one, other = np.cov(left.T), np.cov(right.T)
    apart = ((left.mean(0) - right.mean(0)) ** 2).sum()
    expected = apart + np.trace(one + other - 2 * scipy.linalg.sqrtm(one @ other).real)
    assert frechet(left, right) == pytest.approx(expected)


def test_only_tokens_that_show_the_subject_count() -> None:
    tokens = np.ones((1, 2, 3))
    other = tokens.copy()
    other[0, 1] = [1, -1, 0]
    seen = np.array([[True, False]])
    assert similarity(Features(tokens, seen), Features(other, seen), [(0, 0)])["tokens"] == pytest.approx(1)
    assert similarity(Features(tokens, seen), Features(other, ~seen), [(0, 0)])["tokens"] == pytest.approx(0.5)
    assert similarity(Features(tokens, seen), Features(other, seen), []) == {"pooled": None, "tokens": None}


def test_both_worlds_are_cut_out_alike() -> None:
    left, right = np.zeros((2, 64, 64, 4), np.uint8)
    left[20:40, 10:30] = right[24:44, 14:34] = (200, 0, 0, 255)
    pair = pair_of(left, right, "a", "a walk")
    rows = [np.flatnonzero((picture[..., 1] < 128).any(1)) for picture in (pair.left, pair.right)]
    assert pair.left.shape == (224, 224, 3) and rows[1][0] - rows[0][0] == pytest.approx(4 * 224 / (24 * 1.2), abs=1.5)
    assert 0 < shown(pair.left, 14).sum() < 196


def test_too_little_to_compare_is_a_sentence() -> None:
    with pytest.raises(UserError, match="'a walk' are empty"):
        pair_of(np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 4), np.uint8), "a", "a walk")
    few = Features(world().tokens[:3], world().seen[:3])
    with pytest.raises(UserError, match="3 pictures"):
        compare(few, few, RIGS[:3], CLIPS[:3])

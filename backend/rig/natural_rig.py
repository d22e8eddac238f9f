"""A rig without a surface in its natural skeleton: what a BVH or a rig's JSON file says is the tree of bones and their ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from .natural_skeleton import Bones, natural_skeleton
from .rig import MARKS, Rig


def natural_rig(rig: Rig, keep: Collection[str] = ()) -> Rig:
    """The rig in its natural skeleton, decided by bone ends alone; unchanged if it already is, as rigs that the add-on reads are.

    Further roots are children of the root that translate: as stray parts they hang on the bone at whose end they begin, or stay props.
    keep: names of bones that stay where the rig has them.
    """
    if rig.hung.any() or rig.props.any():
        return rig
    parents = np.where(rig.translates & (rig.parents == 0), -1, rig.parents)
    natural = natural_skeleton(Bones(rig.names, parents, rig.heads, rig.tails), None, keep)
    hung = {part.name for part in natural.hung}
    order = natural.order
    parts = {key: getattr(rig, key)[order] for key in ("rest", "tails", *MARKS)}
    parts |= {
        "translates": natural.translates,
        "props": natural.loose,
        "hung": np.array([name in hung for name in natural.names]),
    }
    labels = tuple(rig.labels[joint] for joint in order) if rig.labels else ()
    return replace(rig, names=natural.names, parents=natural.parents, labels=labels, **parts)

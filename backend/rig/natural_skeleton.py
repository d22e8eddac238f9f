"""The skeleton of the body, where a game rig's bones tell another story. numpy only.

Game rigs hang feet on roots of their own (once targets of inverse kinematics) or on a root at the ground beside the body, joined to
their shins by the skin alone. Here such stray parts are hung on the bone that their surface touches, and roots that only carry
rigging step aside. All is decided from the rest pose and the skin, never from names or from motions.

1. The body's root is the root whose bones move most skin.
2. While it moves no skin itself, it may be rigging. Of its children the one with most skin is the trunk, the others are stray parts.
   When the trunk, with all that was hung on it, holds nearly all skin, the root steps aside for it.
   A fork where the trunk does not hold nearly all at first may be the body's own: there thighs and spine part. Only at the first fork,
   and only parts go that touch most a bone which ends a limb, or one that begins much nearer to them than the root.
3. The other roots are stray parts too.
4. A stray part hangs on the bone that its skin touches most: points that both move, or points of the part near points of the bone.
   What counts is the skin of the part's first bones: neither two dancers' hands nor a foot's toes decide.
5. Several bones of one limb may touch the part: then it is the last of them along which the part begins. A foot begins at the far end
   of a shin, and at the near end of a heel that hangs on the shin too.
6. Where no skin touches, a part whose head lies at a bone's end hangs on that bone.
7. What nothing touches (weapons, props) is a child of the root that translates, and no part of the body.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .skin_contact import Skin, SkinContact

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]

# Lengths are in units of the body's size. "Zoo": what was measured on the rigs of the two open zoos.
TOUCHES = 0.03  # least share of a part's skin that touches the bone it hangs on; zoo: 0.08 to 1
# A bone that moves less than this share of all skin moves none. Zoo: roots that carry rigging at most 0.005, others from 0.02 on.
NO_SKIN = 0.01
# Zoo: roots at the ground have 0.92 or more in one child or are the first to fork; in bodies the trunk holds at most 0.84.
NEARLY_ALL = 0.88
ALIKE = 1 / 3  # bones that touch a part at least this share of what the first one does may be the one that carries it
# How far along a bone a part must begin to be carried by it; 1 is the middle of the bone's skin. Zoo: at most 0.41, and from 1.3 on.
BEGINS = 0.6
# A part belongs to a bone's limb, not to the root, if it begins so much nearer to the bone's head. Zoo: 0.4, and limbs of the root 1.3.
FARTHER_ON = 0.7
AT_END = 0.03  # how near to a bone's end a part's head is that hangs there; zoo: at most 0.03, and from 0.05 on
PART = 0.2  # of all skin; what moves more is a body of its own, of which only the first bones count
LITTLE = 0.05  # a first bone with less than this share of its part's skin does not stand for the part alone


@dataclass(frozen=True, eq=False)
class Bones:
    """J bones at rest, in any order.

    parents: (J,) indices, -1 for a root. heads, tails: (J, 3) in one space and unit.
    Raises UserError if the shapes do not belong together, a name occurs twice, or a bone is its own ancestor.
    """

    names: tuple[str, ...]
    parents: NDArray[np.integer]
    heads: Array
    tails: Array

    def __post_init__(self) -> None:
        count = len(self.names)
        shapes = {"parents": (count,), "heads": (count, 3), "tails": (count, 3)}
        for key, shape in shapes.items():
            value = np.array(getattr(self, key), np.int64 if key == "parents" else np.float64)
            if value.shape != shape or not np.isfinite(value).all():
                raise UserError(f"The bones' {key} are not finite numbers of shape {shape}: export the rig again.")
            object.__setattr__(self, key, value)
        object.__setattr__(self, "names", tuple(self.names))
        if not count or len(set(self.names)) != count:
            raise UserError("The skeleton has no bones, or two of one name: export the rig again.")
        if self.parents.max() >= count:
            raise UserError("A bone's parent is not among the bones: export the rig again.")
        above = self.parents
        for _ in range(count):  # no chain is longer than there are bones
            if (above < 0).all():
                return
            above = np.where(above < 0, -1, self.parents[above])
        raise UserError(f"Bone '{self.names[int(np.argmax(above >= 0))]}' is its own ancestor: export the rig again.")


@dataclass(frozen=True)
class Hung:
    """A part, named by its first bone, that hangs on another bone than in the armature.

    share: of the part's skin, 0..1, that touches the bone. None: its head is at the bone's end, and no skin says more.
    """

    name: str
    bone: str
    share: float | None


@dataclass(frozen=True, eq=False)
class NaturalSkeleton:
    """N joints, the root first and parents before their children, else in the order of the armature.

    order: (N,) indices of the joints among the bones. parents: (N,) indices of joints, -1 for the root.
    hung: what hangs on another bone than in the armature. aside: roots that are no joints, from the ground up.
    props: first bones of parts that touch nothing; children of the root that translate.
    """

    names: tuple[str, ...]
    order: NDArray[np.int64]
    parents: NDArray[np.int32]
    hung: tuple[Hung, ...]
    aside: tuple[str, ...]
    props: tuple[str, ...]

    @property
    def translates(self) -> Mask:
        """(N,) first joints of props."""
        return np.array([name in self.props for name in self.names])

    @property
    def loose(self) -> Mask:
        """(N,) all joints of props: no part of the body."""
        found = self.translates
        for joint in range(1, len(found)):
            found[joint] |= found[self.parents[joint]]
        return found


def natural_skeleton(bones: Bones, skin: Skin | None = None, keep: Collection[str] = ()) -> NaturalSkeleton:
    """The rule at the head of this file. Without skin, bone ends alone decide, and only roots that parts were taken from step aside.

    keep: names of bones that stay where the armature has them: they are not hung and do not step aside. One that is a root beside the body,
    or whose own root stepped aside, is a prop then.
    """
    body = _Body(bones, skin, keep)
    root, aside = _carrier(body, body.heaviest(np.flatnonzero(body.parents < 0)))
    strays = [joint for joint in np.flatnonzero(body.parents < 0).tolist() if joint != root and joint not in aside]
    firm = body.below(root)
    firm[root] &= not body.is_bare(root)
    _hang(body, strays, firm)
    props = [joint for joint in strays if joint not in body.hung]
    body.parents[props] = root
    order = _in_order(body.parents, root, aside)
    place = np.full(len(order) + len(aside) + 1, -1)
    place[order] = np.arange(len(order))
    return NaturalSkeleton(
        names=tuple(bones.names[joint] for joint in order),
        order=order,
        parents=np.where(order == root, -1, place[body.parents[order]]).astype(np.int32),
        hung=tuple(body.hung[joint] for joint in order if joint in body.hung),
        aside=tuple(bones.names[joint] for joint in aside),
        props=tuple(bones.names[joint] for joint in order if joint in props),
    )


def describe(natural: NaturalSkeleton) -> list[str]:
    """What differs from the armature, in sentences; nothing for an ordinary rig."""
    lines = []
    for part in natural.hung:
        why = "its head is at that bone's end" if part.share is None else f"{_percent(part.share)} of its surface touches it"
        lines.append(f"'{part.name}' hangs on '{part.bone}': {why}.")
    lines += [f"'{name}' steps aside for '{natural.names[0]}', which carries the body." for name in natural.aside]
    lines += [f"'{name}' hangs on nothing: its surface touches that of no other bone." for name in natural.props]
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


class _Body:
    """The bones while they are hung: `parents` and `hung` change, all else stays. Lengths are in units of the body's size."""

    def __init__(self, bones: Bones, skin: Skin | None, keep: Collection[str]) -> None:
        self.names, self.parents, self.armature = bones.names, bones.parents.copy(), bones.parents
        self.is_end = ~np.isin(np.arange(len(bones.names)), bones.parents)
        self.kept = np.isin(bones.names, list(keep))
        self.hung: dict[int, Hung] = {}
        count = len(bones.names)
        mass = np.zeros(count)
        if skin is not None and len(skin.points):
            np.add.at(mass, skin.joints, skin.weights)
        self.has_skin = bool(mass.sum() > 0)
        # each of very many bones moves little
        self.no_skin = min(NO_SKIN, 0.5 / max(np.count_nonzero(mass), 1))
        # without skin, bones count
        self.mass = mass / mass.sum() if self.has_skin else np.full(count, 1 / count)
        middle, size = self._measure(np.concatenate([bones.heads, bones.tails]), skin)
        self.heads, self.tails = (bones.heads - middle) / size, (bones.tails - middle) / size
        self.contact = SkinContact(skin, middle, size, count) if skin is not None and self.has_skin else None

    def _measure(self, ends: Array, skin: Skin | None) -> tuple[Array, float]:
        """The middle and the size of what moves with the heaviest root: a sphere that leaves out 5 %, such as a prop far away."""
        whole = self.below(self.heaviest(np.flatnonzero(self.parents < 0)))
        points = ends[np.tile(whole, 2)]
        if skin is not None and self.has_skin:
            points = skin.points[(skin.weights * whole[skin.joints]).sum(1) > 0.5]
        middle = points.mean(0)
        size = 2 * float(np.quantile(np.linalg.norm(points - middle, axis=1), 0.95))
        return middle, size if size > 0 else 1.0

    def children(self, joint: int) -> NDArray[np.integer]:
        return np.flatnonzero(self.parents == joint)

    def below(self, joint: int) -> Mask:
        """(J,) the bone and all that hangs on it."""
        found = np.zeros(len(self.parents), np.bool_)
        found[joint] = True
        while True:
            more = found | (self.parents >= 0) & found[self.parents]
            if (more == found).all():
                return found
            found = more

    def weight(self, joint: int) -> float:
        """The share of all skin that the bone and all below it move."""
        return float(self.mass[self.below(joint)].sum())

    def heaviest(self, joints: NDArray[np.integer]) -> int:
        return int(joints[int(np.argmax([self.weight(joint) for joint in joints]))])

    def is_bare(self, joint: int) -> bool:
        """True if the bone moves no skin; where there is none, nothing says so."""
        return self.has_skin and bool(self.mass[joint] < self.no_skin)

    def line(self, joint: int) -> Iterator[int]:
        """The bone and all that it hangs on."""
        while joint >= 0:
            yield joint
            joint = int(self.parents[joint])

    def touched(self, part: int) -> Array:
        """(J,) how much of the part's skin each bone outside of it touches, 0..1."""
        whole = self.below(part)
        if self.contact is None:
            return np.zeros(len(whole))
        share = self.contact.touched(self._first(part, whole), whole)
        # a foot may begin at its toes; a second body does not hang on the hand that it holds
        if share.max() >= TOUCHES or self.mass[whole].sum() > PART:
            return share
        return self.contact.touched(whole, whole)

    def _first(self, part: int, whole: Mask) -> Mask:
        """(J,) the first bones of a part that move a good share of its skin, and those above them."""
        found, todo = np.zeros(len(whole), np.bool_), [part]
        while todo:
            joint = todo.pop()
            found[joint] = True
            if self.mass[joint] < LITTLE * self.mass[whole].sum():
                todo += self.children(joint).tolist()
        return found

    def near_ends(self, part: int) -> Array:
        """(J,) distance from the part's head to each bone's nearest end: its tail, or where a child begins; inf for the part's own."""
        apart = np.linalg.norm(self.tails - self.heads[part], axis=1)
        # a tail at its own head is no end: many files have no tails
        apart[np.linalg.norm(self.tails - self.heads, axis=1) < 1e-3] = np.inf
        # as the armature has it: a foot that was hung does not make its shin's end
        others = np.flatnonzero((self.armature >= 0) & ~self.below(part))
        np.minimum.at(apart, self.armature[others], np.linalg.norm(self.heads[others] - self.heads[part], axis=1))
        apart[self.below(part)] = np.inf
        return apart

    def hang(self, part: int, bone: int, share: float | None) -> None:
        self.parents[part] = bone
        self.hung[part] = Hung(self.names[part], self.names[bone], share)


def _carrier(body: _Body, root: int) -> tuple[int, list[int]]:
    """Step 2: -> the root that carries the body, and those that step aside for it; what still hung on these are roots then."""
    aside: list[int] = []
    first = True
    while (body.is_bare(root) or not body.has_skin) and len(children := body.children(root)):
        trunk = body.heaviest(children)
        share = body.weight(trunk) / max(body.weight(root) - body.mass[root], 1e-12)
        strays = [int(child) for child in children if child != trunk]
        if strays and share < NEARLY_ALL and not first:
            break
        first &= not strays
        firm = body.below(trunk)
        # a thigh beside the hips hangs on their common root; only what is all of the body takes its neighbours
        firm[trunk] = share >= NEARLY_ALL
        before = len(body.hung)
        _hang(body, strays, firm, limbs_of=root if share < NEARLY_ALL else -1, by_ends=share >= NEARLY_ALL or not body.has_skin)
        if body.kept[root] or body.weight(trunk) < NEARLY_ALL * (body.weight(root) - body.mass[root]):
            break
        if not body.has_skin and len(body.hung) == before:
            break  # nothing shows that this root carries rigging
        if body.has_skin and body.mass[[*aside, root]].sum() >= NO_SKIN:
            break  # a row of small bones that together are a part of the body
        body.parents[body.children(root)] = -1
        aside.append(root)
        root = trunk
    return root, aside


def _hang(body: _Body, strays: Sequence[int], firm: Mask, limbs_of: int = -1, by_ends: bool = True) -> None:
    """Steps 4 to 6: hang what can be hung on the bones `firm` (J,), or on parts that were hung before it.

    Two feet that touch each other hang on no foot: firm bones come first, if they touch a part not much less than the strays do.
    limbs_of: a root whose limbs the strays may be. They stay there, but for what touches most a bone that ends a limb, or one that begins
    much nearer than the root.
    """
    settled = firm.copy()
    waiting = [joint for joint in strays if not body.kept[joint]]
    touched = {part: body.touched(part) for part in waiting}

    def on_skin(part: int, bones: Mask, alike: float) -> tuple[int, float] | None:
        share = touched[part] * bones
        if share.max() < max(TOUCHES, alike * touched[part].max()):
            return None
        bone = _bone_of(body, part, share)
        return bone, float(share[bone])

    def at_end(part: int) -> tuple[int, None] | None:
        apart = np.where(settled, body.near_ends(part), np.inf)
        return (int(apart.argmin()), None) if apart.min() <= AT_END else None

    def farther_on(part: int) -> tuple[int, float] | None:
        apart = np.linalg.norm(body.heads - body.heads[part], axis=1)
        return on_skin(part, firm & (body.is_end | (apart < FARTHER_ON * apart[limbs_of])), 1.0)

    rules = [farther_on]
    if limbs_of < 0:
        rules = [partial(on_skin, bones=bones, alike=alike) for bones, alike in ((firm, ALIKE), (settled, 1.0), (settled, 0.0))]
    if by_ends:
        rules.append(at_end)
    while True:
        placed = ({part: place for part in waiting if (place := rule(part)) is not None} for rule in rules)
        found = next((places for places in placed if places), {})
        for part, (bone, share) in found.items():
            body.hang(part, bone, share)
        if not found:
            return
        for part in found:
            settled |= body.below(part)
        waiting = [part for part in waiting if part not in found]


def _bone_of(body: _Body, part: int, share: Array) -> int:
    """Step 5. share: (J,) as much of the part as each bone touches."""
    best = int(share.argmax())
    limb = body.below(best)
    limb[list(body.line(best))] = True
    alike = np.flatnonzero(limb & (share >= ALIKE * share[best]))
    depths = {joint: len(list(body.line(joint))) for joint in alike.tolist()}
    before = [joint for joint in alike.tolist() if _place(body, part, joint) >= BEGINS]
    if before:
        return max(before, key=lambda joint: (depths[joint], share[joint]))
    return min(depths, key=lambda joint: (depths[joint], -share[joint]))


def _place(body: _Body, part: int, bone: int) -> float:
    """Where a part begins along a bone: 0 at its head, 1 in the middle of its skin; off the bone's axis the distance counts."""
    assert body.contact is not None
    along, away = body.contact.centres[bone] - body.heads[bone], body.heads[part] - body.heads[bone]
    length = float(np.linalg.norm(along))
    if length < 1e-6:
        return np.inf  # skin all around its head: it begins nowhere
    place = float(along @ away) / length**2
    return max(place, float(np.linalg.norm(away)) / length) if place > 0 else place


def _in_order(parents: NDArray[np.integer], root: int, aside: Collection[int]) -> NDArray[np.int64]:
    """The joints that are left, parents first, otherwise as they come."""
    found: dict[int, None] = {root: None}
    for joint in range(len(parents)):
        line = []
        while joint not in found and joint not in aside:
            line.append(joint)
            joint = int(parents[joint])
        found |= dict.fromkeys(reversed(line))
    return np.array(list(found), np.int64)

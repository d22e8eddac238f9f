"""What hangs where: characters made of tubes, one for each bone that moves skin, rigged as games rig them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.rig import natural_skeleton as N
from anyrig.backend.rig.natural_skeleton import Bones, NaturalSkeleton, describe, natural_skeleton
from anyrig.backend.rig.skin_contact import Skin, SkinContact, sampled
from hypothesis import given, settings
from hypothesis import strategies as st

Point = tuple[float, float, float]
FEW = settings(max_examples=25, deadline=None)


@dataclass(frozen=True)
class Bone:
    """radius: of its tube of skin; 0: it moves none."""

    name: str
    parent: str | None
    head: Point
    tail: Point
    radius: float = 0.03


def bones_of(specs: list[Bone]) -> Bones:
    index = {spec.name: i for i, spec in enumerate(specs)}
    parents = np.array([-1 if spec.parent is None else index[spec.parent] for spec in specs])
    heads, tails = (np.array([getattr(spec, key) for spec in specs], float) for key in ("head", "tail"))
    return Bones(tuple(index), parents, heads, tails)


def skin_of(specs: list[Bone], soft: float = 0.0, density: float = 40000.0) -> Skin:
    """Points on closed tubes, evenly. soft: how far the skin at the end of one also follows its neighbours; 0 is a robot."""
    random = np.random.default_rng(1)
    bones, points, owners = bones_of(specs), [], []
    for joint, spec in enumerate(specs):
        length = np.linalg.norm(bones.tails[joint] - bones.heads[joint])
        axis = (bones.tails[joint] - bones.heads[joint]) / length
        side, caps = (int(density * np.pi * spec.radius * each) for each in (2 * length, 2 * spec.radius))
        along = np.append(random.random(side), random.integers(0, 2, caps))
        out = spec.radius * np.append(np.ones(side), np.sqrt(random.random(caps)))
        around = np.cross(random.normal(size=(side + caps, 3)), axis)
        around *= (out / np.linalg.norm(around, axis=1))[:, None]
        points.append(bones.heads[joint] + along[:, None] * length * axis + around)
        owners.append(np.full(side + caps, joint))
    place, owner = np.concatenate(points), np.concatenate(owners)
    weights = np.eye(len(specs))[owner]
    if soft:
        apart = np.array([distance(place, bones.heads[j], bones.tails[j]) for j in range(len(specs))]).T
        apart[:, [spec.radius == 0 for spec in specs]] = np.inf
        weights = np.exp(-(((apart - apart.min(1, keepdims=True)) / soft) ** 2))
        weights[weights < 0.02] = 0
        weights /= weights.sum(1, keepdims=True)
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    best = np.take_along_axis(weights, joints, 1)
    return Skin(place, joints, best / best.sum(1, keepdims=True))


def distance(points: np.ndarray, head: np.ndarray, tail: np.ndarray) -> np.ndarray:
    along = tail - head
    part = np.clip((points - head) @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - head - part[:, None] * along, axis=1)


def natural(specs: list[Bone], soft: float = 0.0, keep: tuple[str, ...] = ()) -> NaturalSkeleton:
    found = natural_skeleton(bones_of(specs), skin_of(specs, soft), keep)
    check_order(found, specs)
    return found


def check_order(found: NaturalSkeleton, specs: list[Bone]) -> None:
    """One root, in front; parents before children; every bone is a joint or stepped aside."""
    assert found.parents[0] == -1 and (found.parents[1:] >= 0).all()
    assert (found.parents < np.arange(len(found.names))).all()
    names = [spec.name for spec in specs]
    assert found.names == tuple(names[joint] for joint in found.order)
    assert sorted([*found.names, *found.aside]) == sorted(names)


def tree(found: NaturalSkeleton) -> dict[str, str | None]:
    return {name: found.names[parent] if parent >= 0 else None for name, parent in zip(found.names, found.parents)}


def hung(found: NaturalSkeleton) -> dict[str, str]:
    return {part.name: part.bone for part in found.hung}


def outcome(found: NaturalSkeleton) -> tuple:
    return tree(found), set(found.aside), set(found.props)


def untouched(found: NaturalSkeleton, specs: list[Bone]) -> bool:
    return found.names == tuple(spec.name for spec in specs) and tree(found) == {spec.name: spec.parent for spec in specs}


# characters, about a metre tall


def both(specs: list[Bone]) -> list[Bone]:
    """Bones named .L, and their mirror images."""

    def flipped(spec: Bone) -> Bone:
        parent = spec.parent and spec.parent.replace(".L", ".R")
        head, tail = ((-x, y, z) for x, y, z in (spec.head, spec.tail))
        return replace(spec, name=spec.name.replace(".L", ".R"), parent=parent, head=head, tail=tail)

    return specs + [flipped(spec) for spec in specs]


def human(root: str | None = None) -> list[Bone]:
    arm = [
        Bone("clavicle.L", "chest", (0.02, 0, 0.8), (0.1, 0, 0.8)),
        Bone("arm.L", "clavicle.L", (0.1, 0, 0.8), (0.26, 0, 0.8)),
        Bone("forearm.L", "arm.L", (0.26, 0, 0.8), (0.42, 0, 0.8)),
        Bone("hand.L", "forearm.L", (0.42, 0, 0.8), (0.5, 0, 0.8)),
    ]
    leg = [
        Bone("thigh.L", "hips", (0.08, 0, 0.5), (0.08, 0, 0.27), 0.05),
        Bone("shin.L", "thigh.L", (0.08, 0, 0.27), (0.08, 0.02, 0.05), 0.04),
    ]
    foot = [Bone("foot.L", "shin.L", (0.08, 0.02, 0.05), (0.08, -0.1, 0.02))]
    spine = [
        Bone("hips", root, (0, 0, 0.5), (0, 0, 0.6), 0.09),
        Bone("chest", "hips", (0, 0, 0.6), (0, 0, 0.82), 0.09),
        Bone("head", "chest", (0, 0, 0.85), (0, 0, 1), 0.07),
    ]
    return spine + both(arm) + both(leg) + both(foot)


GROUND = Bone("root", None, (0, 0, 0), (0, 0, 0.1), 0)


def moved(specs: list[Bone], parents: dict[str, str | None]) -> list[Bone]:
    """Some bones hang elsewhere; parents that were not above come first."""
    return [replace(spec, parent=parents.get(spec.name, spec.parent)) for spec in specs]


def game_human() -> list[Bone]:
    """Feet and a body on a root at the ground."""
    return [GROUND, *moved(human("root"), {"foot.L": "root", "foot.R": "root"})]


def quadruped() -> list[Bone]:
    """Four feet with toes, each on a root of its own, and a body that moves no skin and has no neighbours."""
    specs = [
        Bone("body", None, (0, 0, 0.2), (0, 0, 0.25), 0),
        Bone("pelvis", "body", (0, 0.3, 0.5), (0, 0.1, 0.52), 0.08),
        Bone("chest", "pelvis", (0, 0.1, 0.52), (0, -0.25, 0.5), 0.1),
        Bone("head", "chest", (0, -0.3, 0.55), (0, -0.5, 0.7), 0.06),
    ]
    for end, trunk, y in (("front", "chest", -0.22), ("back", "pelvis", 0.28)):
        leg = [
            Bone(f"{end} thigh.L", trunk, (0.1, y, 0.5), (0.1, y, 0.28), 0.04),
            Bone(f"{end} shin.L", f"{end} thigh.L", (0.1, y, 0.28), (0.1, y, 0.08), 0.03),
            Bone(f"{end} foot.L", None, (0.1, y, 0.08), (0.1, y - 0.04, 0.02)),
            Bone(f"{end} toe.L", f"{end} foot.L", (0.1, y - 0.04, 0.02), (0.1, y - 0.09, 0.02), 0.02),
        ]
        specs += both(leg)
    return specs


def spider() -> list[Bone]:
    specs = [
        GROUND,
        Bone("body", "root", (0, 0, 0.2), (0, 0, 0.3), 0),
        Bone("trunk", "body", (0, 0.1, 0.2), (0, -0.1, 0.2), 0.08),
    ]
    for leg in range(8):
        x, y = (-1) ** leg * 0.5, (leg // 2 - 1.5) * 0.25
        specs += [
            Bone(f"leg {leg}", "body", (0.15 * x, 0.3 * y, 0.2), (0.6 * x, 0.6 * y, 0.4), 0.02),
            Bone(f"shin {leg}", f"leg {leg}", (0.6 * x, 0.6 * y, 0.4), (0.9 * x, 0.9 * y, 0.1), 0.015),
            Bone(f"foot {leg}", "root", (0.9 * x, 0.9 * y, 0.1), (x, y, 0), 0.015),
        ]
    return specs


def mech() -> list[Bone]:
    """A body bone without skin in front of the hips, where torso and thighs part; heels on the shins, and feet on roots of their own."""
    specs = [
        Bone("body", None, (0, -0.1, 0.5), (0, -0.1, 0.6), 0),
        Bone("torso", "body", (0, 0, 0.5), (0, 0, 0.7), 0.12),
        Bone("head", "torso", (0, 0, 0.72), (0, 0, 0.8), 0.08),
    ]
    leg = [
        Bone("thigh.L", "body", (0.16, 0, 0.5), (0.16, -0.05, 0.27), 0.05),
        Bone("shin.L", "thigh.L", (0.16, -0.05, 0.27), (0.16, 0, 0.05), 0.04),
        Bone("heel.L", "shin.L", (0.16, 0, 0.05), (0.16, 0.1, 0.02)),
    ]
    return specs + both(leg) + both([Bone("foot.L", None, (0.16, -0.01, 0.05), (0.16, -0.13, 0.02))])


SHINS = {f"{end} foot.{side}": f"{end} shin.{side}" for end in ("front", "back") for side in "LR"}
SOFT = (0.0, 0.02)


# what must not change


@pytest.mark.parametrize("soft", SOFT)
def test_an_ordinary_skeleton_stays_as_it_is(soft: float) -> None:
    found = natural(human(), soft)
    assert untouched(found, human()) and not found.hung and not found.aside and not found.props
    assert describe(found) == [] and not found.translates.any() and not found.loose.any()


def test_a_root_that_moves_skin_stays() -> None:
    """Even if feet hang on it: bones that move the body are no rigging."""
    specs = [replace(spec, radius=0.1) if spec.name == "root" else spec for spec in game_human()]
    assert untouched(natural(specs), specs)


@pytest.mark.parametrize("soft", SOFT)
def test_where_thighs_and_spine_part_the_body_begins(soft: float) -> None:
    """Hips that move no skin are no root at the ground, with or without one below them."""
    hips = [replace(spec, radius=0) if spec.name == "hips" else spec for spec in human()]
    assert tree(natural(hips, soft)) == {spec.name: spec.parent for spec in hips}
    below = [GROUND, *moved(hips, {"hips": "root"})]
    found = natural(below, soft)
    assert found.aside == ("root",) and tree(found) == {spec.name: spec.parent for spec in hips}


@pytest.mark.parametrize("soft", SOFT)
def test_thighs_stay_on_the_body_of_a_robot(soft: float) -> None:
    found = natural(mech(), soft)
    assert hung(found) == {"foot.L": "shin.L", "foot.R": "shin.R"}
    assert tree(found)["thigh.L"] == "body" and not found.aside


def test_a_limb_of_the_body_stays_whatever_it_touches_beside_it() -> None:
    """Thighs that part from torso and body: they touch the torso, the trunk, or most of all a coat that hangs from the chest."""
    wide = [replace(spec, radius=0.15) if spec.name == "torso" else spec for spec in mech()]
    share = touching(wide)["thigh.L"]
    assert share["torso"] > N.TOUCHES
    assert tree(natural(wide))["thigh.L"] == "body"
    # nor does it matter that the torso ends there
    assert tree(natural([spec for spec in wide if spec.name != "head"]))["thigh.L"] == "body"
    coat = mech() + both(
        [Bone("coat.L", "torso", (0.1, 0, 0.68), (0.16, 0, 0.44), 0.07), Bone("hem.L", "coat.L", (0.16, 0, 0.44), (0.16, 0, 0.4))]
    )
    share = touching(coat)["thigh.L"]
    assert max(share, key=share.__getitem__) == "coat.L"
    assert tree(natural(coat))["thigh.L"] == "body"
    both_of_them = [replace(spec, radius=0.15) if spec.name == "torso" else spec for spec in mech()] + both(
        [Bone("gun.L", "torso", (0.2, 0, 0.6), (0.2, 0, 0.45), 0.01)]
    )
    share = touching(both_of_them)["thigh.L"]
    assert N.TOUCHES < share["gun.L"] < share["torso"]
    assert tree(natural(both_of_them))["thigh.L"] == "body"


def test_a_fork_above_the_first_is_the_body_s_own() -> None:
    """A tail that touches the end of a coat leaves a root at the ground, but not hips that stand on one."""
    hips = [replace(spec, radius=0) if spec.name == "hips" else spec for spec in human()]
    hips += [Bone("coat", "chest", (0, 0.1, 0.6), (0, 0.1, 0.5)), Bone("tail", "hips", (0, 0.1, 0.49), (0, 0.3, 0.4))]
    assert hung(natural(hips)) == {"tail": "coat"}
    game = [GROUND, *moved(hips, {"hips": "root", "foot.L": "root", "foot.R": "root"})]
    assert hung(natural(game)) == {"foot.L": "shin.L", "foot.R": "shin.R"}


@FEW
@given(st.data())
def test_a_tree_whose_root_moves_skin_stays_whatever_it_looks_like(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    parents = [None] + [f"b{data.draw(st.integers(0, joint - 1))}" for joint in range(1, count)]
    ends = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(2, count, 3))
    specs = [Bone(f"b{j}", parents[j], tuple(ends[0, j]), tuple(ends[1, j]), 0.1 if j == 0 else 0.03) for j in range(count)]
    assert natural_skeleton(bones_of(specs), skin_of(specs, density=400)).names == tuple(spec.name for spec in specs)


# stray parts


@pytest.mark.parametrize("soft", SOFT)
def test_feet_on_roots_of_their_own_hang_on_their_shins(soft: float) -> None:
    found = natural(quadruped(), soft)
    assert hung(found) == SHINS
    assert tree(found)["front toe.L"] == "front foot.L"
    assert found.names[0] == "pelvis" and found.aside == ("body",) and not found.props
    assert all(part.share > 3 * N.TOUCHES for part in found.hung)


@pytest.mark.parametrize("soft", SOFT)
def test_feet_and_body_on_a_root_at_the_ground(soft: float) -> None:
    found = natural(game_human(), soft)
    assert tree(found) == {spec.name: spec.parent for spec in human()}
    assert found.aside == ("root",) and hung(found) == {"foot.L": "shin.L", "foot.R": "shin.R"}
    assert len(describe(found)) == 3
    assert describe(found)[-1] == "'root' steps aside for 'hips', which carries the body."
    assert describe(found)[0].startswith("'foot.L' hangs on 'shin.L': ") and describe(found)[0].endswith(
        " % of its surface touches it."
    )


@pytest.mark.parametrize("soft", SOFT)
def test_eight_feet_of_a_spider(soft: float) -> None:
    found = natural(spider(), soft)
    assert hung(found) == {f"foot {leg}": f"shin {leg}" for leg in range(8)}
    assert found.aside == ("root",) and found.names[0] == "body"


def test_big_boots_hang_too() -> None:
    """The trunk holds far from nearly all skin, but they end its legs."""
    specs = [replace(spec, radius=0.07) if spec.name.startswith("foot") else spec for spec in game_human()]
    bones, skin = bones_of(specs), skin_of(specs)
    boots = (skin.joints[:, 0] == bones.names.index("foot.L")) | (skin.joints[:, 0] == bones.names.index("foot.R"))
    assert boots.mean() > 1.2 * (1 - N.NEARLY_ALL)
    assert hung(natural(specs)) == {"foot.L": "shin.L", "foot.R": "shin.R"}


def touching(specs: list[Bone], soft: float = 0.0) -> dict[str, dict[str, float]]:
    """Part -> bone -> how much of the part's skin touches it, as the armature has them."""
    body = N._Body(bones_of(specs), skin_of(specs, soft), ())
    return {spec.name: dict(zip(body.names, body.touched(joint).tolist())) for joint, spec in enumerate(specs)}


def feet_together(left: float, right: float, shin: float = 0.04) -> list[Bone]:
    """Feet of these radii side by side below thin legs that are close together."""
    specs = {spec.name: spec for spec in game_human()}
    for name, x, radius in (("L", 0.025, left), ("R", -0.025, right)):
        foot, leg, thigh = specs[f"foot.{name}"], specs[f"shin.{name}"], specs[f"thigh.{name}"]
        specs[f"thigh.{name}"] = replace(thigh, head=(x, 0, 0.5), tail=(x, 0, 0.27), radius=0.02)
        specs[f"shin.{name}"] = replace(leg, head=(x, 0, 0.27), tail=(x, 0.02, 0.05), radius=shin)
        specs[f"foot.{name}"] = replace(foot, head=(x, 0.02, 0.05), tail=(x, -0.1, 0.02), radius=radius)
    return list(specs.values())


@pytest.mark.parametrize("specs", [feet_together(0.025, 0.025, 0.02), feet_together(0.008, 0.04, 0.04)])
def test_feet_that_touch_each_other_hang_on_their_own_shins(specs: list[Bone]) -> None:
    """Equal feet touch each other most; of unequal ones the small foot does, the big one touches its shin."""
    left, right = (touching(specs)[name] for name in ("foot.L", "foot.R"))
    assert left["foot.R"] > left["shin.L"] > N.ALIKE * left["foot.R"]
    assert (right["foot.L"] > right["shin.R"]) == (specs[-1].radius < 0.03)
    assert hung(natural(specs)) == {"foot.L": "shin.L", "foot.R": "shin.R"}


def test_feet_that_hardly_touch_their_shins_hang_there_all_the_same() -> None:
    specs = feet_together(0.025, 0.025, 0.003)
    share = touching(specs)["foot.L"]
    assert N.TOUCHES < share["shin.L"] < N.ALIKE * share["foot.R"]
    assert hung(natural(specs)) == {"foot.L": "shin.L", "foot.R": "shin.R"}
    assert all(part.share is not None for part in natural(specs).hung)


def test_a_part_hangs_on_a_part() -> None:
    """Toes with a root of their own touch the foot alone, which has one too."""
    specs = [spec for spec in quadruped() if "front" in spec.name or spec.name in ("body", "pelvis", "chest", "head")]
    specs = moved(specs, {"front toe.L": None, "front toe.R": None})
    assert hung(natural(specs)) == {
        "front foot.L": "front shin.L", "front foot.R": "front shin.R", "front toe.L": "front foot.L", "front toe.R": "front foot.R",
    }  # fmt: skip


def test_a_part_waits_for_the_part_that_it_touches_most() -> None:
    """A hump on the back carries a neck with a head, and the head an ear, whose lobe lies on the hump; each has a root of its own."""
    specs = human() + [
        Bone("hump", None, (0, 0.09, 0.7), (0, 0.2, 0.7), 0.06),
        Bone("neck", None, (0, 0.2, 0.7), (0, 0.3, 0.7), 0.04),
        Bone("skull", "neck", (0, 0.3, 0.7), (0, 0.4, 0.7), 0.06),
        Bone("ear", None, (0, 0.32, 0.76), (0, 0.18, 0.78), 0.02),
    ]
    share = touching(specs)["ear"]
    assert share["skull"] > share["hump"] > N.TOUCHES
    assert hung(natural(specs)) == {"hump": "chest", "neck": "hump", "ear": "skull"}


def test_a_foot_that_begins_at_its_toes() -> None:
    """Reverse foot: the toes are the root and move the foot; the shin touches the foot alone."""
    specs = [spec for spec in human() if spec.name != "foot.L"]
    specs += [
        Bone("toe.L", None, (0.08, -0.14, 0.02), (0.08, -0.18, 0.02), 0.02),
        Bone("foot.L", "toe.L", (0.08, -0.12, 0.02), (0.08, 0.02, 0.04)),
    ]
    assert hung(natural(specs)) == {"toe.L": "shin.L"}


def test_toes_wait_for_the_foot_that_they_touch_more_than_the_shin() -> None:
    specs = [spec for spec in quadruped() if "back" not in spec.name]
    specs = moved(specs, {"front toe.L": None, "front toe.R": None})
    # tall toes, that reach the shin beside the foot
    radii = {"toe": 0.06, "foot": 0.04, "shin": 0.05}
    specs = [replace(spec, radius=radii.get(spec.name[6:-2], spec.radius)) for spec in specs]
    share = touching(specs)["front toe.L"]
    assert N.TOUCHES < share["front shin.L"] < N.ALIKE * share["front foot.L"]
    assert hung(natural(specs))["front toe.L"] == "front foot.L"


@pytest.mark.parametrize("radius", [0.04, 0.012])
def test_a_heel_beside_the_foot_does_not_carry_it(radius: float) -> None:
    """The foot touches a thick shin more than the heel, and a thin shin less."""
    specs = [replace(spec, radius=radius) if spec.name.startswith("shin") else spec for spec in mech()]
    share = touching(specs)["foot.L"]
    assert min(share["heel.L"], share["shin.L"]) > N.TOUCHES
    assert (share["heel.L"] > share["shin.L"]) == (radius < 0.03)
    assert hung(natural(specs))["foot.L"] == "shin.L"


def test_a_foot_hangs_on_the_shin_though_it_follows_the_thigh_more() -> None:
    """Careless weights: the foot's skin follows the thigh, two bones up, more than the shin."""
    specs = game_human()
    skin, names = skin_of(specs), [spec.name for spec in specs]
    joints = np.stack([skin.joints[:, 0]] * 3, axis=1)
    for side in "LR":
        foot = skin.joints[:, 0] == names.index(f"foot.{side}")
        joints[foot, 1:] = names.index(f"thigh.{side}"), names.index(f"shin.{side}")
    careless = np.where((joints[:, :1] == joints[:, 1:2]), [1.0, 0, 0], [0.4, 0.35, 0.25])
    careless[joints[:, 0] == joints[:, 1]] = 1, 0, 0
    found = natural_skeleton(bones_of(specs), Skin(skin.points - 0.03 * (joints[:, :1] != joints[:, 1:2]), joints, careless))
    assert hung(found) == {"foot.L": "shin.L", "foot.R": "shin.R"}


def test_a_part_in_front_of_a_limb_hangs_on_its_first_bone() -> None:
    """A second root before the pelvis touches pelvis and chest: the body goes on from the pelvis."""
    specs = [spec for spec in quadruped() if spec.parent and "foot" not in spec.name and "toe" not in spec.name]
    specs = [replace(spec, radius=0.05) if spec.name == "pelvis" else spec for spec in moved(specs, {"pelvis": None})]
    specs.append(Bone("rump", None, (0, 0.37, 0.5), (0, -0.2, 0.6), 0.07))
    share = touching(specs)["rump"]
    assert N.ALIKE * share["chest"] < share["pelvis"] < share["chest"]
    assert hung(natural(specs)) == {"rump": "pelvis"}


def test_a_braid_hangs_on_the_head_though_it_lies_on_the_back() -> None:
    specs = human() + [
        Bone("hair", None, (0, 0.06, 0.95), (0, 0.1, 0.86), 0.02),
        Bone("braid", "hair", (0, 0.1, 0.82), (0, 0.1, 0.5), 0.02),
    ]
    whole = N._Body(bones_of(specs), skin_of(specs), ())
    part = whole.below(len(specs) - 2)
    share = dict(zip(whole.names, whole.contact.touched(part, part).tolist()))
    assert share["chest"] > 2 * share["head"] > 0
    assert hung(natural(specs)) == {"hair": "head"}


def test_hair_eyes_jiggle_and_a_sword_hang_on_what_they_touch() -> None:
    specs = human("root") + [
        Bone("eye", None, (0.03, -0.06, 0.95), (0.03, -0.075, 0.95), 0.012),
        Bone("hair", None, (0, 0.06, 0.98), (0, 0.09, 0.85), 0.02),
        Bone("hair end", "hair", (0, 0.09, 0.85), (0, 0.1, 0.7), 0.015),
        Bone("belly", "root", (0, -0.05, 0.66), (0, -0.11, 0.66), 0.06),
        Bone("sword", "root", (0.5, 0, 0.8), (0.5, -0.5, 0.8), 0.01),
        Bone("tail", "root", (0, 0.09, 0.55), (0, 0.3, 0.5)),
    ]
    found = natural([GROUND, *specs])
    assert hung(found) == {"eye": "head", "hair": "head", "belly": "chest", "sword": "hand.L", "tail": "hips"}
    assert found.names[0] == "hips"


def test_what_touches_nothing_is_a_prop() -> None:
    specs = game_human() + [
        Bone("ball", "root", (0.6, -0.5, 0.1), (0.6, -0.5, 0.2)),
        Bone("shield", None, (-0.7, -0.5, 0.3), (-0.7, -0.5, 0.5)),
        Bone("rim", "shield", (-0.7, -0.5, 0.5), (-0.7, -0.5, 0.6)),
    ]
    found = natural(specs)
    assert found.props == ("ball", "shield") and tree(found)["ball"] == tree(found)["shield"] == "hips"
    assert {name for name, each in zip(found.names, found.translates) if each} == {"ball", "shield"}
    assert {name for name, each in zip(found.names, found.loose) if each} == {"ball", "shield", "rim"}
    assert describe(found)[-1] == "'shield' hangs on nothing: its surface touches that of no other bone."


def test_of_two_dancers_the_second_hangs_on_no_hand() -> None:
    first = [replace(spec, radius=0.13) if spec.name.startswith("hand") else spec for spec in human()]
    second = [
        replace(spec, name=f"{spec.name} 2", parent=spec.parent and f"{spec.parent} 2", radius=0.95 * spec.radius,
                head=(spec.head[0] + 0.99, *spec.head[1:]), tail=(spec.tail[0] + 0.99, *spec.tail[1:]))
        for spec in first
    ]  # fmt: skip
    body = N._Body(bones_of(first + second), skin_of(first + second), ())
    part = body.below(len(first))
    assert body.contact.touched(part, part).max() > N.TOUCHES
    found = natural(first + second)
    assert not found.hung and found.props == ("hips 2",)
    assert found.loose.sum() == len(second)


def test_a_heavy_prop_far_away_does_not_blow_the_body_up() -> None:
    specs = game_human() + [
        Bone("rocket", None, (60, 0, 0), (60, 0, 3), 0.05),
        Bone("ball", "root", (0.2, -0.3, 0.1), (0.2, -0.4, 0.1)),
    ]
    found = natural(specs)
    assert hung(found) == {"foot.L": "shin.L", "foot.R": "shin.R"} and found.props == ("rocket", "ball")


def test_nothing_hangs_on_the_crumbs_of_skin_of_a_root_that_moves_none() -> None:
    """The body bone of a robot moves a speck by mistake, which a stray part touches."""
    specs = mech()
    specs[0] = replace(specs[0], head=(0, -0.4, 0.5), tail=(0, -0.4, 0.51), radius=0.01)
    specs.append(Bone("drone", None, (0, -0.4, 0.515), (0, -0.4, 0.55), 0.01))
    assert touching(specs)["drone"]["body"] > N.TOUCHES
    assert natural(specs).props == ("drone",)


# roots


def test_roots_without_skin_step_aside_one_after_the_other() -> None:
    top = [Bone("armature", None, (0, 0, 0), (0, 0, 0.1), 0), replace(GROUND, parent="armature")]
    found = natural(top + game_human()[1:])
    assert found.aside == ("armature", "root") and found.names[0] == "hips"
    assert tree(found) == {spec.name: spec.parent for spec in human()}


def test_a_root_beside_the_body_keeps_its_children() -> None:
    """Two thirds of the skin are not nearly all: a body and a cart that touch nothing stay on their root."""
    specs = [GROUND, *human("root"), Bone("cart", "root", (1, 0, 0.2), (1, 1, 0.2), 0.1)]
    found = natural(specs)
    assert untouched(found, specs) and not found.props


# the user's word


def test_a_bone_that_the_user_keeps_is_not_hung() -> None:
    found = natural(quadruped(), keep=("front foot.L",))
    assert hung(found) == {name: bone for name, bone in SHINS.items() if name != "front foot.L"}
    assert found.props == ("front foot.L",) and tree(found)["front toe.L"] == "front foot.L"


def test_a_root_that_the_user_keeps_does_not_step_aside() -> None:
    found = natural(game_human(), keep=("root", "foot.R"))
    assert found.names[0] == "root" and not found.aside and not found.props
    assert tree(found)["hips"] == tree(found)["foot.R"] == "root" and tree(found)["foot.L"] == "shin.L"


def test_names_that_are_not_there_are_no_matter() -> None:
    assert outcome(natural(game_human(), keep=("tentacle",))) == outcome(natural(game_human()))


# without skin


@pytest.mark.parametrize("specs", [human(), quadruped()[:4], [Bone("one", None, (0, 0, 0), (0, 0, 1))], mech()[:3]])
def test_without_skin_an_ordinary_skeleton_stays(specs: list[Bone]) -> None:
    assert untouched(natural_skeleton(bones_of(specs)), specs)


@pytest.mark.parametrize("weightless", [False, True])
@pytest.mark.parametrize("make", [game_human, quadruped, spider, mech])
def test_without_skin_bone_ends_decide(make, weightless: bool) -> None:
    """As with skin; but a root that nothing was taken from stays, as nothing says that it moves none."""
    specs = make()
    skin = replace(skin_of(specs), weights=0 * skin_of(specs).weights) if weightless else None
    found = natural_skeleton(bones_of(specs), skin)
    check_order(found, specs)
    assert hung(found) == hung(natural(specs))
    assert found.aside == (("root",) if specs[0].name == "root" else ())
    assert describe(found)[0].endswith("its head is at that bone's end.")


def test_targets_far_from_everything_are_props_without_skin() -> None:
    specs = human() + both([Bone("pole.L", None, (0.08, -0.5, 0.3), (0.08, -0.5, 0.4), 0)])
    assert natural_skeleton(bones_of(specs)).props == ("pole.L", "pole.R")


def test_a_bone_without_a_tail_has_no_end() -> None:
    """Many files have no tails: a part at the head of the last bone of a limb hangs on the bone before, which ends there."""
    specs = [Bone("hat", None, (0, 0, 0.85), (0, 0, 0.95), 0), *reversed(human())]
    bones = bones_of(specs)
    assert hung(natural_skeleton(replace(bones, tails=bones.heads))) == {"hat": "chest"}


def test_a_shell_with_a_gap_hangs_on_the_end_of_the_bone() -> None:
    """A robot whose foot's shell begins well below its shin's: bones meet, skins do not."""
    specs = [spec for spec in quadruped() if "toe" not in spec.name]
    skin = skin_of(specs)
    feet = np.isin(skin.joints[:, 0], [j for j, spec in enumerate(specs) if "foot" in spec.name])
    points = skin.points - feet[:, None] * np.array([0, 0, 0.15])
    found = natural_skeleton(bones_of(specs), replace(skin, points=points))
    assert hung(found) == SHINS and all(part.share is None for part in found.hung)


# invariances


def placed(specs: list[Bone], skin: Skin, scale: float, turn: np.ndarray, shift: np.ndarray) -> tuple[Bones, Skin]:
    bones = bones_of(specs)
    heads, tails, points = (scale * values @ turn.T + shift for values in (bones.heads, bones.tails, skin.points))
    return replace(bones, heads=heads, tails=tails), replace(skin, points=points)


def character(specs: list[Bone], soft: float) -> tuple[list[Bone], Skin, tuple]:
    skin = skin_of(specs, soft, density=20000)
    return specs, skin, outcome(natural_skeleton(bones_of(specs), skin))


CHARACTERS = {
    "quadruped": character(quadruped(), 0.02),
    "human": character(game_human(), 0),
    "mech": character(mech(), 0),
    "spider": character(spider(), 0.02),
}


@FEW
@given(st.sampled_from(sorted(CHARACTERS)), st.floats(-3, 3), st.booleans(), st.integers(0, 999))
def test_size_place_turn_and_mirror_do_not_matter(name: str, power: float, mirror: bool, seed: int) -> None:
    specs, skin, expected = CHARACTERS[name]
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn)) * (-1 if mirror else 1)
    there = placed(specs, skin, 10**power, turn, 10**power * random.normal(size=3))
    assert outcome(natural_skeleton(*there)) == expected


@FEW
@given(st.sampled_from(sorted(CHARACTERS)), st.integers(0, 999))
def test_the_order_of_bones_and_points_does_not_matter(name: str, seed: int) -> None:
    specs, skin, expected = CHARACTERS[name]
    random = np.random.default_rng(seed)
    bones, order, rows = bones_of(specs), random.permutation(len(specs)), random.permutation(len(skin.points))
    place = np.append(np.argsort(order), -1)
    mixed = Bones(tuple(bones.names[j] for j in order), place[bones.parents[order]], bones.heads[order], bones.tails[order])
    found = natural_skeleton(mixed, Skin(skin.points[rows], place[skin.joints[rows]], skin.weights[rows]))
    assert outcome(found) == expected
    assert (found.parents < np.arange(len(found.names))).all()


@FEW
@given(st.sampled_from(sorted(CHARACTERS)), st.integers(0, 999))
def test_noise_and_fewer_points_do_not_matter(name: str, seed: int) -> None:
    specs, skin, expected = CHARACTERS[name]
    random = np.random.default_rng(seed)
    rows = random.permutation(len(skin.points))[: 2 * len(skin.points) // 3]
    points = skin.points[rows] + random.normal(0, 1e-4, (len(rows), 3))
    found = natural_skeleton(bones_of(specs), Skin(points, skin.joints[rows], skin.weights[rows]))
    assert outcome(found) == expected


@FEW
@given(st.data())
def test_any_forest_becomes_one_tree(data: st.DataObject) -> None:
    """Whatever the bones and the skin are, parents come first, nothing is lost, and asking again says the same."""
    count = data.draw(st.integers(1, 14))
    parents = [None] + [data.draw(st.sampled_from([None, *(f"b{k}" for k in range(j))])) for j in range(1, count)]
    ends = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(2, count, 3)) * 0.3
    radii = [data.draw(st.sampled_from([0.0, 0.02, 0.1])) for _ in range(count)]
    specs = [Bone(f"b{j}", parents[j], tuple(ends[0, j]), tuple(ends[1, j]), radii[j]) for j in range(count)]
    skin = skin_of(specs, density=500)
    found = natural_skeleton(bones_of(specs), skin)
    check_order(found, specs)
    again = natural_skeleton(bones_of(specs), skin)
    assert outcome(found) == outcome(again) and found.hung == again.hung
    assert {part.name for part in found.hung}.isdisjoint(found.props)


# meshes


def test_points_lie_on_triangles_by_area_and_weights_are_merged() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 3, 5]], float)
    joints, weights = np.array([[0, 1]] * 3 + [[1, 2]] * 3), np.array([[0.5, 0.5]] * 3 + [[1.0, 0.0]] * 3)
    skin = sampled(vertices, np.array([[0, 1, 2], [3, 4, 5]]), joints, weights, 1000)
    upper = skin.points[:, 2] > 1
    assert (len(upper), upper.sum()) == (1000, 900) and np.allclose(skin.points[:, 2], 5 * upper)
    assert (skin.points[:, :2] >= 0).all() and (skin.points[:, :2].sum(1) <= np.where(upper, 3, 1) + 1e-9).all()
    assert np.allclose(skin.weights.sum(1), 1)
    totals = np.zeros((1000, 3))
    np.add.at(totals, (np.arange(1000)[:, None], skin.joints), skin.weights)
    assert np.allclose(totals[~upper], [0.5, 0.5, 0]) and np.allclose(totals[upper], [0, 1, 0])
    assert ((skin.weights > 0).sum(1) == np.where(upper, 1, 2)).all()


def test_a_mesh_without_area_is_no_skin() -> None:
    flat = sampled(np.zeros((3, 3)), np.array([[0, 1, 2]]), np.zeros((3, 1), int), np.ones((3, 1)))
    assert not len(flat.points) and untouched(natural_skeleton(bones_of(human()), flat), human())


def test_points_that_no_bone_moves_touch_nothing() -> None:
    """A floor below the feet that nothing moves."""
    specs, skin = game_human(), skin_of(game_human())
    floor = np.random.default_rng(0).random((4000, 3)) * [1, 1, 0] - [0.5, 0.5, 0]
    rows = np.zeros((4000, 4))
    head = rows + [spec.name for spec in specs].index("head")
    more = Skin(np.concatenate([skin.points, floor]), np.concatenate([skin.joints, head]), np.concatenate([skin.weights, rows]))
    found, expected = natural_skeleton(bones_of(specs), more), natural(specs)
    assert outcome(found) == outcome(expected)
    assert np.allclose([part.share for part in found.hung], [part.share for part in expected.hung], rtol=0.1)


def test_what_both_move_and_what_lies_near_counts_once() -> None:
    points = np.random.default_rng(0).random((500, 3))
    weights = np.where(np.arange(500)[:, None] % 2, [0.6, 0.4], [0.4, 0.6])
    contact = SkinContact(Skin(points, np.tile([0, 1], (500, 1)), weights), np.zeros(3), 50.0, 2)
    first = np.array([True, False])
    assert contact.touched(first, first).tolist() == pytest.approx([0, 1])


def test_points_that_nothing_moves_are_nobody_s() -> None:
    points = np.random.default_rng(0).random((500, 3))
    weights = np.where(np.arange(500)[:, None] % 2, [1.0, 0.0], [0.0, 0.0])
    contact = SkinContact(Skin(points, np.tile([0, 1], (500, 1)), weights), np.zeros(3), 50.0, 2)
    joints = np.where(np.arange(500)[:, None] % 2, [0, 1], [1, 0])
    other = SkinContact(Skin(points, joints, weights), np.zeros(3), 50.0, 2)
    first = np.array([True, False])
    assert contact.touched(first, first).tolist() == other.touched(first, first).tolist() == [0, 0]


# errors


def test_broken_skeletons_are_refused() -> None:
    ends = np.zeros((2, 3))
    with pytest.raises(UserError, match="no bones, or two of one name"):
        Bones(("a", "a"), np.array([-1, 0]), ends, ends)
    with pytest.raises(UserError, match="no bones"):
        Bones((), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(UserError, match="'a' is its own ancestor"):
        Bones(("a", "b"), np.array([1, 0]), ends, ends)
    with pytest.raises(UserError, match="not among the bones"):
        Bones(("a", "b"), np.array([-1, 2]), ends, ends)
    with pytest.raises(UserError, match="heads are not finite"):
        Bones(("a", "b"), np.array([-1, 0]), ends + np.nan, ends)
    with pytest.raises(UserError, match="do not belong together"):
        Skin(ends, np.zeros((2, 4)), np.zeros((2, 3)))

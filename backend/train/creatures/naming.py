"""Names the bones of creatures in the styles of common rigs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from .body import Bone
from .parts import Rng

SIDES = {"L": "left", "R": "right", "": ""}
_MIXAMO = {
    "pelvis": "Hips", "spine": "Spine", "neck": "Neck", "head": "Head", "collar": "Shoulder", "upper_arm": "Arm", "forearm": "ForeArm",
    "hand": "Hand", "thigh": "UpLeg", "shin": "Leg", "foot": "Foot", "toe": "ToeBase", "upper_leg": "UpLeg", "lower_leg": "Leg", "paw": "Foot",
}  # fmt: skip
_BIPED = {
    "pelvis": "Pelvis", "spine": "Spine", "neck": "Neck", "head": "Head", "collar": "Clavicle", "upper_arm": "UpperArm",
    "forearm": "Forearm", "hand": "Hand", "finger": "Finger", "thigh": "Thigh", "shin": "Calf", "foot": "Foot", "toe": "Toe0", "tail": "Tail",
    "ear": "Ponytail", "upper_leg": "UpperArm", "lower_leg": "Forearm", "paw": "Hand",
}  # fmt: skip
_JAPANESE = {
    "root": "全ての親", "pelvis": "下半身", "body": "センター", "base": "センター", "thorax": "胸", "spine": "上半身", "neck": "首", "head": "頭",
    "jaw": "顎", "ear": "耳", "horn": "角", "beak": "口", "collar": "肩", "upper_arm": "腕", "forearm": "ひじ", "hand": "手首",
    "finger": "指", "thigh": "足", "shin": "ひざ", "foot": "足首", "toe": "つま先", "upper_leg": "腕", "lower_leg": "ひじ", "paw": "手首",
    "tail": "尾", "wing": "翼", "wing_upper": "翼", "wing_lower": "羽", "wing_hand": "羽先", "abdomen": "腰", "antenna": "触角",
    "tentacle": "触手", "fin": "ひれ", "back_fin": "背ひれ", "tail_fin": "尾ひれ", "hip": "腰", "shoulder": "肩", "claw": "はさみ", "coxa": "足付け根",
    "front": "前", "hind": "後", "mid": "中", "back": "後", "twist": "捩", "end": "先", "ik": "ＩＫ", "arm": "アーム", "gun": "砲", "wheel": "車輪",
    "turret": "砲塔", "barrel": "砲身", "panel": "板",
}  # fmt: skip
_FINGERS = ("Thumb", "Index", "Middle", "Ring", "Pinky")
# words for the same parts, of which each rig uses one
_SYNONYMS = {
    "pelvis": ("hips", "pelvis", "hip", "body", "waist"), "spine": ("spine", "torso", "back", "chest"), "thigh": ("thigh", "up_leg", "upper_leg", "leg_upper"),
    "shin": ("shin", "calf", "lower_leg", "leg", "knee"), "foot": ("foot", "ankle", "foot"), "toe": ("toe", "toes", "ball"), "upper_arm": ("upper_arm", "arm", "arm_upper"),
    "forearm": ("forearm", "lower_arm", "elbow"), "collar": ("clavicle", "shoulder", "collar"), "upper_leg": ("upper_leg", "fore_leg_upper", "upper_arm"),
    "lower_leg": ("lower_leg", "fore_leg_lower", "forearm"), "paw": ("paw", "foot", "hand"), "hand": ("hand", "wrist", "palm"), "coxa": ("coxa", "hip", "shoulder"),
}  # fmt: skip

Namer = Callable[[Bone, int], str]


def names_of(bones: Sequence[Bone], rng: Rng, style: str | None = None) -> tuple[str, ...]:
    """A unique name for each bone, in the given style or a random one."""
    namer = STYLES[style or str(rng.choice(list(STYLES), p=_SHARES))](rng)
    names: list[str] = []
    for number, bone in enumerate(bones):
        name = wanted = namer(bone, number)
        for extra in range(1, len(bones) + 1):
            if name not in names:
                break
            name = f"{wanted}.{extra:03d}"
        names.append(name)
    return tuple(names)


def _bone_words(bone: Bone, words: dict[str, str] | None = None) -> list[str]:
    """Limb and role as words: "mid_front", "thigh" -> Mid Front Thigh. Limbs that are numbers are left out."""
    role = (words or {}).get(bone.role, bone.role)
    limb = [part.capitalize() for part in re.split("[_ ]", bone.limb) if part and not part.isdigit()]
    return [*limb, *(part[:1].upper() + part[1:] for part in role.split("_"))]


def _bone_numbers(bone: Bone, start: int = 1) -> list[int]:
    """The number of the limb, if it has one, and that of the bone in its chain, if it is not the only one."""
    limb = [int(bone.limb) + start] if bone.limb.isdigit() else []
    return limb if bone.alone else [*limb, bone.index + start]


def _mixamo_namer(rng: Rng) -> Namer:
    prefix = str(rng.choice(["mixamorig:", "mixamorig:", "mixamorig1:", "mixamorig_", ""]))

    def name(bone: Bone, number: int) -> str:
        side = SIDES[bone.side].capitalize()
        if bone.role == "finger" and int(bone.limb) < 5:
            return f"{prefix}{side}Hand{_FINGERS[int(bone.limb)]}{bone.index + 1}"
        count = "".join(str(value) for value in _bone_numbers(bone, 0 if bone.role in ("spine", "neck") else 1))
        return f"{prefix}{side}{''.join(_bone_words(bone, _MIXAMO))}{'' if count == '0' else count}"

    return name


def _rigify_namer(rng: Rng) -> Namer:
    prefix = str(rng.choice(["DEF-", "DEF-", "ORG-", ""]))
    count: Counter[str] = Counter()

    def name(bone: Bone, number: int) -> str:
        role = {"pelvis": "spine", "neck": "spine", "collar": "shoulder"}.get(bone.role, bone.role)
        side = f".{bone.side}" if bone.side else ""
        if bone.role == "finger" and int(bone.limb) < 5:
            return f"{prefix}{('thumb', 'f_index', 'f_middle', 'f_ring', 'f_pinky')[int(bone.limb)]}.{bone.index + 1:02d}{side}"
        base = f"{prefix}{bone.limb + '_' if bone.limb and not bone.limb.isdigit() else ''}{role}{side}"
        count[base] += 1
        return f"{base}.{count[base] - 1:03d}" if count[base] > 1 else base

    return name


def _biped_namer(rng: Rng) -> Namer:
    prefix = str(rng.choice(["Bip001", "Bip01", "Bip001", "Biped"]))

    def name(bone: Bone, number: int) -> str:
        if bone.role == "finger":
            return f"{prefix} {bone.side + ' ' if bone.side else ''}Finger{bone.limb}{bone.index or ''}"
        count = "".join(str(value) for value in _bone_numbers(bone, 0))
        words = [prefix, bone.side, " ".join(_bone_words(bone, _BIPED)) + ("" if count == "0" else count)]
        return " ".join(word for word in words if word)

    return name


def _japanese_namer(rng: Rng) -> Namer:
    wide = str.maketrans("0123456789", "０１２３４５６７８９")

    def name(bone: Bone, number: int) -> str:
        side = {"L": "左", "R": "右", "": ""}[bone.side]
        if bone.role == "finger" and int(bone.limb) < 5:
            return f"{side}{('親指', '人指', '中指', '薬指', '小指')[int(bone.limb)]}{bone.index + 1}".translate(wide)
        limb = "".join(_JAPANESE.get(part, "") for part in bone.limb.split("_"))
        count = "".join(str(value) for value in _bone_numbers(bone))
        role = "".join(_JAPANESE.get(part, part) for part in ([bone.role] if bone.role in _JAPANESE else bone.role.split("_")))
        return f"{side}{limb}{role}{count.translate(wide)}"

    return name


def _plain_namer(rng: Rng) -> Namer:
    """Names in CamelCase, snake_case or as words, with sides as .L, _l, Left and the like."""
    chosen = {role: str(rng.choice(words)) for role, words in _SYNONYMS.items()}
    case = str(rng.choice(["camel", "snake", "upper", "kebab"]))
    left, right, front = [
        (".L", ".R", False), ("_L", "_R", False), ("_l", "_r", False), ("Left", "Right", True), ("_left", "_right", False), ("L_", "R_", True),
        ("l_", "r_", True), (" Left", " Right", False),
    ][rng.integers(8)]  # fmt: skip
    join = {"camel": "", "snake": "_", "upper": "_", "kebab": "-"}[case]
    digits = int(rng.choice([1, 1, 2, 3]))

    def name(bone: Bone, number: int) -> str:
        words = _bone_words(bone, chosen) + [f"{value:0{digits}d}" for value in _bone_numbers(bone)]
        words = words if case == "camel" else [word.upper() if case == "upper" else word.lower() for word in words]
        side = {"L": left, "R": right, "": ""}[bone.side]
        return side + join.join(words) if front else join.join(words) + side

    return name


def _numbered_namer(rng: Rng) -> Namer:
    pattern = str(rng.choice(["bone_{:03d}", "Bone.{:03d}", "joint{}", "Joint_{:02d}", "b{:04d}", "{}"]))
    start = int(rng.choice([0, 1, 1, 12]))
    return lambda bone, number: pattern.format(number + start)


def _meaningless_namer(rng: Rng) -> Namer:
    letters = list(rng.choice(["abcdefghijklmnopqrstuvwxyz", "ABCDEFGHJKLMNPQRSTUVWXYZ", "bcdfghjklmnpqrstvwxz_"]))
    return lambda bone, number: "".join(rng.choice(letters, int(rng.integers(3, 9))))


STYLES: dict[str, Callable[[Rng], Namer]] = {
    "mixamo": _mixamo_namer, "rigify": _rigify_namer, "biped": _biped_namer, "japanese": _japanese_namer, "plain": _plain_namer,
    "numbered": _numbered_namer, "meaningless": _meaningless_namer,
}  # fmt: skip
_SHARES = (0.15, 0.15, 0.1, 0.1, 0.34, 0.08, 0.08)

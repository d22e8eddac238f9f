"""Control rigs, and deforming rigs with the bone names of well-known makers, made in code; with meshes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import bpy
from anyrig.tests.addon.fixtures import BoneSpec, Point, add_mesh, chain, make_rig

OFF = {"use_deform": False}


def rigify(kind: str) -> bpy.types.Object:
    """The rig that Rigify generates from its sample `kind`, with a mesh on its DEF- bones; the add-on stays enabled."""
    bpy.ops.preferences.addon_enable(module="rigify")
    getattr(bpy.ops.object, f"armature_{kind}_metarig_add")()
    metarig = bpy.context.object
    bpy.ops.pose.rigify_generate()
    obj = next(each for each in bpy.context.scene.objects if each.type == "ARMATURE" and each != metarig)
    bpy.data.objects.remove(metarig)
    add_mesh(obj, [bone.name for bone in obj.data.bones if bone.use_deform])
    bpy.context.view_layer.update()
    return obj


def copy_from(obj: bpy.types.Object, bone: str, target: str, switch: tuple[str, float] | None = None) -> None:
    """The bone copies another; only while the property `ik_fk_switch` of a control has a value, if given."""
    constraint = obj.pose.bones[bone].constraints.new("COPY_TRANSFORMS")
    constraint.target, constraint.subtarget = obj, target
    if switch is not None:
        driver = constraint.driver_add("influence").driver
        driver.type, driver.expression = "SCRIPTED", "var" if switch[1] else "1 - var"
        variable = driver.variables.new()
        variable.name = "var"
        variable.targets[0].id = obj
        variable.targets[0].data_path = f'pose.bones["{switch[0]}"]["ik_fk_switch"]'


def auto_rig_pro() -> bpy.types.Object:
    """The layers of an Auto-Rig Pro biped as far as naming goes: controls, FK and IK chains, a base chain that follows one of them by
    a switch, and stretching bones that deform. The IK chains are reduced to bones that stand still.
    """
    spine = [(0, 0, 1.0), (0, 0, 1.2), (0, 0.02, 1.45), (0, 0, 1.6), (0, 0, 1.8)]
    specs = [
        BoneSpec("c_traj", None, (0, 0, 0), (0, 0.5, 0), bone=OFF),
        BoneSpec("c_root_master.x", "c_traj", (0, 0, 1), (0, 0.3, 1), bone=OFF),
    ]
    specs += [
        BoneSpec("c_root.x", "c_root_master.x", (0, 0, 1), (0, 0.2, 1), bone=OFF),
        BoneSpec("root.x", "c_root.x", spine[0], spine[1]),
    ]
    above = "c_root_master.x"
    for name, head, tail in zip(
        ("spine_01.x", "spine_02.x", "neck.x", "head.x"), (spine[0], *spine[2:]), (*spine[2:], (0, 0, 2.0))
    ):
        specs += [BoneSpec(f"c_{name}", above, head, tail, bone=OFF), BoneSpec(name, f"c_{name}", head, tail)]
        above = name
    arm: list[Point] = [(0.18, 0.02, 1.45), (0.45, 0.03, 1.42), (0.7, 0, 1.4), (0.85, 0, 1.39)]
    leg: list[Point] = [(0.1, 0, 0.95), (0.11, -0.02, 0.5), (0.11, 0.02, 0.08), (0.11, -0.12, 0.03), (0.11, -0.2, 0.03)]
    shoulder = [
        BoneSpec("c_shoulder.l", "spine_02.x", (0.02, 0, 1.45), arm[0], bone=OFF),
        BoneSpec("shoulder.l", "c_shoulder.l", (0.02, 0, 1.45), arm[0]),
    ]
    limbs = (
        shoulder + _limb(("arm", "forearm", "hand"), "shoulder.l", arm) + _limb(("thigh", "leg", "foot", "toes"), "root.x", leg)
    )
    flipped = [_right(spec) for spec in limbs]
    obj = make_rig("Auto-Rig Pro", specs + limbs + flipped)
    for side in (".l", ".r"):
        for switch, parts in (("c_hand_ik", ("arm", "forearm", "hand")), ("c_foot_ik", ("thigh", "leg", "foot", "toes"))):
            obj.pose.bones[switch + side]["ik_fk_switch"] = 0.0
            for part in parts:
                base = {"toes": "toes_01"}.get(part, part) + side
                copy_from(obj, base, f"c_{part}_fk{side}", (switch + side, 1.0))
                copy_from(obj, base, f"{part}_ik{side}", (switch + side, 0.0))
    bpy.context.view_layer.update()
    return obj


def _limb(parts: tuple[str, ...], parent: str, points: list[Point]) -> list[BoneSpec]:
    specs = []
    fk = ik = base = parent
    for part, head, tail in zip(parts, points, points[1:]):
        joint = {"toes": "toes_01"}.get(part, part)
        last = part in ("hand", "foot", "toes")
        specs.append(BoneSpec(f"c_{part}_fk.l", fk, head, tail, roll=0.4, bone=OFF))
        specs.append(BoneSpec(f"{part}_ik.l", ik, head, tail, roll=0.4, bone=OFF))
        specs.append(BoneSpec(f"{joint}.l", base, head, tail, roll=0.4, bone={} if last else OFF))
        if not last:
            specs.append(BoneSpec(f"{part}_stretch.l", f"{joint}.l", head, tail, roll=0.4))
        fk, ik, base = f"c_{part}_fk.l", f"{part}_ik.l", f"{joint}.l"
        if part in ("hand", "foot"):
            specs.append(BoneSpec(f"c_{part}_ik.l", None, head, tail, bone=OFF))
    return specs


def _right(spec: BoneSpec) -> BoneSpec:
    (hx, hy, hz), (tx, ty, tz) = spec.head, spec.tail
    parent = spec.parent and (spec.parent[:-2] + ".r" if spec.parent.endswith(".l") else spec.parent)
    return replace(spec, name=spec.name[:-2] + ".r", parent=parent, head=(-hx, hy, hz), tail=(-tx, ty, tz), roll=-spec.roll)


# ---- makers' names: (trunk, arm, leg) from the hips on; {} is the side


def _biped(
    name: str, trunk: list[str], arm: list[str], leg: list[str], sides: tuple[str, str], extra: list[BoneSpec]
) -> bpy.types.Object:
    spine: list[Point] = [(0, 0, 1.0), (0, 0.01, 1.15), (0, 0.02, 1.3), (0, 0, 1.45), (0, 0, 1.6), (0, 0, 1.8)]
    specs = extra + chain(trunk, extra[0].name if extra else None, spine)
    for side, sign in zip(sides, (1, -1)):
        points: list[Point] = [(0.03, 0, 1.42), (0.18, 0.02, 1.42), (0.45, 0.03, 1.4), (0.7, 0, 1.38), (0.85, 0, 1.37)]
        below: list[Point] = [(0.1, 0, 0.95), (0.11, -0.02, 0.5), (0.11, 0.02, 0.08), (0.11, -0.12, 0.03), (0.11, -0.2, 0.03)]
        specs += chain([part.format(side) for part in arm], trunk[2], [(sign * x, y, z) for x, y, z in points], roll=sign * 0.5)
        specs += chain([part.format(side) for part in leg], trunk[0], [(sign * x, y, z) for x, y, z in below], roll=sign * -1.2)
    return make_rig(name, specs)


def mixamo() -> bpy.types.Object:
    obj = _biped(
        "Mixamo",
        [f"mixamorig:{part}" for part in ("Hips", "Spine", "Spine1", "Neck", "Head")],
        ["mixamorig:{}Shoulder", "mixamorig:{}Arm", "mixamorig:{}ForeArm", "mixamorig:{}Hand"],
        ["mixamorig:{}UpLeg", "mixamorig:{}Leg", "mixamorig:{}Foot", "mixamorig:{}ToeBase"],
        ("Left", "Right"),
        [],
    )
    obj.scale, obj.rotation_euler = (0.01, 0.01, 0.01), (1.5707963, 0, 0)
    bpy.context.view_layer.update()
    return obj


def vrm() -> bpy.types.Object:
    return _biped(
        "VRM",
        [f"J_Bip_C_{part}" for part in ("Hips", "Spine", "Chest", "Neck", "Head")],
        ["J_Bip_{}_Shoulder", "J_Bip_{}_UpperArm", "J_Bip_{}_LowerArm", "J_Bip_{}_Hand"],
        ["J_Bip_{}_UpperLeg", "J_Bip_{}_LowerLeg", "J_Bip_{}_Foot", "J_Bip_{}_ToeBase"],
        ("L", "R"),
        [BoneSpec("Root", None, (0, 0, 0), (0, 0.2, 0), weighted=False)],
    )


def unreal() -> bpy.types.Object:
    """With twist bones beside the limbs' bones, and roots for IK that move nothing."""
    obj = _biped(
        "Mannequin",
        ["pelvis", "spine_01", "spine_02", "neck_01", "head"],
        ["clavicle_{}", "upperarm_{}", "lowerarm_{}", "hand_{}"],
        ["thigh_{}", "calf_{}", "foot_{}", "ball_{}"],
        ("l", "r"),
        [
            BoneSpec("root", None, (0, 0, 0), (0, 0.2, 0), weighted=False),
            BoneSpec("ik_foot_root", "root", (0, 0, 0), (0, 0.1, 0), weighted=False),
        ],
    )
    bpy.context.view_layer.objects.active = obj
    bpy.ops.object.mode_set(mode="EDIT")
    for side in "lr":
        limb = obj.data.edit_bones[f"upperarm_{side}"]
        twist = obj.data.edit_bones.new(f"upperarm_twist_01_{side}")
        twist.head, twist.tail, twist.roll, twist.parent = limb.head, (limb.head + limb.tail) / 2, limb.roll, limb
    bpy.ops.object.mode_set(mode="OBJECT")
    add_mesh(obj, ["upperarm_twist_01_l", "upperarm_twist_01_r"])
    bpy.context.view_layer.update()
    return obj


def biped() -> bpy.types.Object:
    return _biped(
        "Biped",
        ["Bip01 Pelvis", "Bip01 Spine", "Bip01 Spine1", "Bip01 Neck", "Bip01 Head"],
        ["Bip01 {} Clavicle", "Bip01 {} UpperArm", "Bip01 {} Forearm", "Bip01 {} Hand"],
        ["Bip01 {} Thigh", "Bip01 {} Calf", "Bip01 {} Foot", "Bip01 {} Toe0"],
        ("L", "R"),
        [BoneSpec("Bip01", None, (0, 0, 1), (0, 0.1, 1), weighted=False)],
    )


def numbered() -> bpy.types.Object:
    """Names that say nothing."""
    count = iter(range(100))
    return _biped(
        "Numbered",
        [f"Bone.{next(count):03d}" for _ in range(5)],
        [f"Bone.{next(count):03d}{{}}" for _ in range(4)],
        [f"Bone.{next(count):03d}{{}}" for _ in range(4)],
        ("", ".001"),
        [],
    )


MAKERS: dict[str, Callable[[], bpy.types.Object]] = {each.__name__: each for each in (mixamo, vrm, unreal, biped, numbered)}

"""Joint names: cleaning over many naming styles, and the hashed vectors."""

import subprocess
import sys

import numpy as np
import pytest
from anyrig.backend.rig.joint_names import WIDTH, clean_name, hashed_embedding
from anyrig.tests.scripts import ROOT

STYLES = {
    "mixamorig:LeftUpLeg": "Left Up Leg",
    "mixamorig1:RightHandIndex3": "Right Hand Index",
    "mixamorig_Spine2": "Spine",
    "Armature|mixamorig:Hips": "Hips",
    "LeftToeBase_end": "Left Toe Base End",
    "DEF-upper_arm.L.001": "Upper Arm Left",
    "ORG-f_index.02.R": "F Index Right",
    "MCH-spine.003": "Spine",
    "shin.R": "Shin Right",
    "Bip01 L Thigh": "Left Thigh",
    "Bip001_R_Finger0Nub": "Right Finger Nub",
    "ValveBiped.Bip01_R_Hand": "Right Hand",
    "NPC L Thigh [LThg]": "Left Thigh",
    "BN_Tail_01": "Tail",
    "thigh_twist_01_l": "Thigh Twist Left",
    "upperarm_r": "Upperarm Right",
    "ik_foot_l": "Ik Foot Left",
    "IKFootL": "Ik Foot Left",
    "J_Bip_L_UpperLeg": "Left Upper Leg",
    "J_Bip_C_Hips": "Hips",
    "J_Sec_Hair1_01": "Hair",
    "CC_Base_L_Calf": "Left Calf",
    "jt_hip_L": "Hip Left",
    "b_LeftArm": "Left Arm",
    "PalmR.L": "Palm R Left",
    "PalmR.R": "Palm R Right",
    "lShldr": "Left Shldr",
    "RThighBend": "Right Thigh Bend",
    "leftupleg": "Left Upleg",
    "HandLeft": "Hand Left",
    "leg-front-lf": "Leg Front Left",
    "LEFT_FOOT": "Left Foot",
    "Spine_C": "Spine",
    "tail bone": "Tail",
    "左足首": "Left Ankle",
    "右ひじ": "Right Elbow",
    "上半身2": "Upper Body",
    "左足ＩＫ": "Left Leg Ik",
    "左人指１": "Left Index",
    "Base": "Base",
    "Бедро.L": "Бедро Left",
    "right": "Right",
    "Clavicle": "Clavicle",
    "Bone.003": "",
    "joint_12": "",
    "Bip01": "",
    "Armature": "",
    "017": "",
    "": "",
    "::": "",
}


@pytest.mark.parametrize("name", STYLES)
def test_clean_name(name: str) -> None:
    assert clean_name(name) == STYLES[name]


@pytest.mark.parametrize("name", STYLES)
def test_cleaning_twice_changes_nothing(name: str) -> None:
    assert clean_name(clean_name(name)) == clean_name(name)


def test_vectors_have_unit_length_and_meaningless_names_are_zero() -> None:
    vectors = hashed_embedding(list(STYLES))
    assert vectors.shape == (len(STYLES), WIDTH) and vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    expected = np.array([1.0 if clean else 0.0 for clean in STYLES.values()])
    np.testing.assert_allclose(lengths, expected, atol=1e-6)


def test_no_names() -> None:
    assert hashed_embedding([], 32).shape == (0, 32)


def test_same_part_in_other_styles_is_the_same_or_close() -> None:
    same = hashed_embedding(["mixamorig:LeftUpLeg", "DEF-up_leg.L.001", "Bip01 L UpLeg", "左 up leg"])
    np.testing.assert_allclose(same @ same.T, 1.0, atol=1e-6)
    glued, split, tail = hashed_embedding(["upperarm_l", "UpperArm.L", "tail_07"])
    assert glued @ split > 0.6 and abs(glued @ tail) < 0.3 and abs(split @ tail) < 0.3


def test_left_and_right_differ() -> None:
    left, right = hashed_embedding(["thigh_l", "thigh_r"])
    assert left @ right < 0.6


def test_different_parts_rarely_collide() -> None:
    parts = "Head Neck Spine Hips Thigh Calf Foot Toe Shoulder Forearm Hand Thumb Tail Wing Jaw Ear".split()
    likeness = hashed_embedding(parts) @ hashed_embedding(parts).T - np.eye(len(parts))
    assert np.abs(likeness).max() < 0.45


def test_vectors_do_not_depend_on_the_process() -> None:
    """Python's own hash() changes from run to run; trained weights would meet other vectors."""
    code = (
        "import sys, importlib.util; from importlib.machinery import ModuleSpec; from pathlib import Path\n"
        "spec = ModuleSpec('anyrig', None, is_package=True); spec.submodule_search_locations = [sys.argv[1]]\n"
        "sys.modules['anyrig'] = importlib.util.module_from_spec(spec)\n"
        "from anyrig.backend.rig.joint_names import hashed_embedding; print(hashed_embedding(['LeftUpLeg']).tobytes().hex())\n"
    )
    root = str(ROOT)
    other = subprocess.run(
        [sys.executable, "-c", code, root], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert other.stdout.strip() == hashed_embedding(["LeftUpLeg"]).tobytes().hex()


def test_known_vector() -> None:
    """The hash itself is part of every trained model."""
    vector = hashed_embedding(["tail"], 8)[0]
    np.testing.assert_allclose(vector, [-np.sqrt(0.5), 0, np.sqrt(0.5), 0, 0, 0, 0, 0], atol=1e-6)

"""`python -m backend refine`: lays a stored take on its video again."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..hardware.devices import pick_device
from ..motion.bvh import read_bvh, write_bvh
from ..motion.clean_up import PRESETS, clean_up, doubts, preset, settings_of, with_settings
from ..motion.motion import Motion
from ..motion.swap_sides import swap_sides
from ..output_checks import check_outputs, check_suffix
from ..progress import drained, staged
from ..rendering.capsules import capsules
from ..rig.limb_pairs import limb_pair
from ..rig.natural_rig import natural_rig
from ..rig.rig import Rig
from ..segmentation.subject_cache import find_kept_subject, subject_folder
from ..video.clip import Clip
from .footage import footage_of
from .refine import FitTarget, refine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("--take", required=True, type=Path, help="npz file of `capture`")
    parser.add_argument("--video", required=True, help="the video that it was captured from")
    parser.add_argument("--rig", required=True, help="rig file (.json or .bvh)")
    parser.add_argument("--matte", help="video, folder or sequence that is white where the subject is (default: found again)")
    parser.add_argument("--mode", choices=("quick", "thorough"), default="quick")
    parser.add_argument("--frames", type=int, nargs=2, metavar=("FIRST", "LAST"), help="fit these frames of the take alone")
    joints = parser.add_mutually_exclusive_group()
    joints.add_argument("--joints", nargs="+", metavar="NAME", help="let only these joints change")
    text = "exchange left and right of the limbs that these joints belong to, then fit these limbs alone"
    joints.add_argument("--swap", nargs="+", metavar="NAME", help=text)
    parser.add_argument("--out", required=True, type=Path, help="npz file to write")
    parser.add_argument("--bvh", type=Path, help="also write the take to this BVH file")
    add_clean_up(parser)
    parser.add_argument(
        "--isnet", default="", metavar="FILE", help="file of ISNet to use, or off for models of clear origin alone"
    )
    parser.add_argument(
        "--cache", default=str(subject_folder()), metavar="DIR", help="folder that keeps found subjects; '' for none"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))


def run_refine(options: argparse.Namespace) -> str:
    """Refine the take of a file and write it. -> a sentence with its overlap with the film before and after."""
    check_suffix(options.out, ".npz", "")
    check_suffix(options.bvh, ".bvh")
    check_outputs(options.out, options.bvh, inputs=(options.video, options.rig, options.matte))
    motion = Motion.load(options.take)
    rig = natural_rig(read_bvh(options.rig)[0] if options.rig.lower().endswith(".bvh") else Rig.load(options.rig))
    if rig.names != motion.names:
        raise UserError(f"Take '{options.take}' belongs to another rig than '{rig.name}': give the rig it was captured for.")
    clip = clip_of(motion, options.video, options.matte)
    device = pick_device(options.device)
    subject = drained(staged("Finding the subject", find_kept_subject(clip, device, options.isnet, options.cache)))
    frames = (options.frames[0], options.frames[1] + 1) if options.frames else None
    free = joints_of(rig, options.joints)
    if options.swap:
        motion, free = swapped(motion, rig, options.swap, frames)
    target = FitTarget(rig, capsules(rig), motion, free)
    [refined] = drained(refine([target], footage_of(clip, subject), options.mode, frames))
    warnings = save_cleaned(options, rig, refined)
    before, after = refined.provenance["refine"]["overlap"]
    return "\n".join([f"overlap with the film: {before:.0%} before, {after:.0%} after", *warnings])


def add_clean_up(parser: argparse.ArgumentParser) -> None:
    """The option that says how the take is cleaned up."""
    parser.add_argument(
        "--clean-up", choices=tuple(PRESETS), metavar="PRESET",
        help=f"{', '.join(PRESETS)}: stored in the take, whose movement stays as captured, and applied to the BVH (default: as stored)",
    )  # fmt: skip


def save_cleaned(options: argparse.Namespace, rig: Rig, motion: Motion) -> list[str]:
    """Write the take with its clean-up settings to --out, and cleaned up to --bvh. -> sentences on what makes it doubtful."""
    if options.clean_up:
        motion = with_settings(motion, preset(options.clean_up))
    settings = settings_of(motion)
    cleaned = clean_up(rig, motion, settings)  # raises before anything is written
    motion.save(options.out)
    if options.bvh:
        write_bvh(options.bvh, rig, cleaned)
    return [] if settings == preset("raw") else doubts(rig, motion, settings)


def clip_of(motion: Motion, video: str, matte: str | None = None) -> Clip:
    """The part of the video that a take was captured from, as its provenance says, in a file that may have moved since."""
    stored: dict[str, Any] = motion.provenance.get("clip", {})
    box = stored.get("box")
    clip = Clip(**{**stored, "path": video, "box": tuple(box) if box is not None else None})
    return replace(clip, matte=matte) if matte else clip


def swapped(motion: Motion, rig: Rig, names: list[str], frames: tuple[int, int] | None) -> tuple[Motion, np.ndarray]:
    """The take with left and right of these joints' limbs exchanged, and (J,) bool, the joints of the limbs. Raises UserError."""
    pairs = {frozenset(pair.roots): pair for pair in (limb_pair(rig, name) for name in names)}
    for pair in pairs.values():
        motion = swap_sides(motion, rig, pair, frames)
    return motion, np.any([pair.sides.any(0) for pair in pairs.values()], axis=0)


def joints_of(rig: Rig, names: list[str] | None) -> np.ndarray | None:
    """(J,) bool, the joints with these names; None for no names. Raises UserError for one that the rig lacks."""
    if not names:
        return None
    unknown = [name for name in names if name not in rig.names]
    if unknown:
        raise UserError(f"Rig '{rig.name}' has no bone '{unknown[0]}': check the name.")
    return np.isin(rig.names, names)

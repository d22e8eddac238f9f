"""Refines a stored take again, and swaps its limbs: gathers what that needs from the scene, computes without bpy, writes a new take."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...backend.errors import UserError, missing_library
from ...backend.motion.swap_sides import swap_sides
from ...backend.motion.take_file import Take
from ...backend.rig.limb_pairs import LimbPair, limb_pair
from ...backend.rig.point_cloud import Surface
from ...backend.rig.rig import Rig
from ..capture import run_capture, take_store
from ..rig.control_rigs import control_rig, key_bone
from ..rig.keyed_bones import is_selected
from ..rig.meshes import visible_meshes
from ..rig.surface_points import armature_surface
from ..rig.validation import validate_armature
from ..settings import capture_params, preference_values
from . import footage_camera, takes

if TYPE_CHECKING:
    from ...backend.motion.motion import Motion
    from ...backend.progress import Progress
    from ...backend.segmentation.subject import Subject

WHOLE, RANGE, PINS = "WHOLE", "RANGE", "PINS"
ALIKE = 0.3  # intersection over union of the boxes of one subject, found twice, is above this


@dataclass(frozen=True)
class RefineChoice:
    """What of a take to refine, and how.

    mode: "quick" or "thorough". part: WHOLE, RANGE or PINS, the frames around pins. frames: scene frames of RANGE, the first and the last.
    bones: whether only the joints of the selected pose bones may change. names: of the only joints that may change; () for all.
    swap: exchange left and right of the limbs that the selected bones, or those of these names, belong to; only the limbs change then.
    """

    mode: str = "quick"
    part: str = WHOLE
    frames: tuple[int, int] = (1, 1)
    bones: bool = False
    names: tuple[str, ...] = ()
    swap: bool = False


@dataclass(frozen=True, eq=False)
class RefineRequest:
    """All that refining a take and writing its keys need, without any bpy object.

    take: with the present place of its video. surface: in armature space; None for capsules along the bones. frames: of the take, the
    first and one past the last; None for all. joints: (J,) bool, those that may change; None for all.
    swapped: the two bones that each pair of limbs begins with whose motion is exchanged in the take already. unfit: why the take cannot be
    fitted to its video, which only limbs that were swapped can do without; "" if it can.
    """

    take: Take
    capture: run_capture.CaptureRequest
    mode: str
    surface: Surface | None
    frames: tuple[int, int] | None
    joints: NDArray[np.bool_] | None
    swapped: tuple[tuple[str, str], ...] = ()
    unfit: str = ""


def gather(context: bpy.types.Context, text: bpy.types.Text, choice: RefineChoice) -> RefineRequest:
    """Read the take, its armature's meshes and what is chosen. Main thread; changes nothing.

    Raises UserError: the video or the armature is missing, the armature cannot be written, or nothing of the take is chosen.
    """
    take = footage_camera.relocate_video(take_store.read(text), context.scene.anyrig.video)
    try:
        _check_video(take)
    except UserError as error:
        if not choice.swap:
            raise
        unfit = str(error)
    else:
        unfit = ""
    obj = takes.target_of(context, text, take.rig.names)
    validate_armature(context, obj)
    frames, joints = _frames_of(text, take, choice), _free_joints(obj, take, choice)
    pairs = _limbs(take, joints) if choice.swap else []
    for pair in pairs:
        take = replace(take, motion=swap_sides(take.motion, take.rig, pair, frames))
    if pairs:
        joints = np.any([pair.sides.any(0) for pair in pairs], axis=0)
    surface = armature_surface(obj, take.rig.names) if visible_meshes(obj) else None
    request = _capture_request(context, take, obj, choice.mode)
    swapped = tuple((take.rig.names[pair.roots[0]], take.rig.names[pair.roots[1]]) for pair in pairs)
    return RefineRequest(take, request, choice.mode, surface, frames, joints, swapped, unfit)


def _check_video(take: Take) -> None:
    """Raises UserError if the take cannot be fitted, as far as one can tell without reading the video."""
    if "azimuth" not in take.motion.provenance:
        raise UserError(f"Take '{take.name}' does not record from which side it was filmed: capture it again.")
    footage_camera.video_size(take.clip)  # raises UserError for a video that is missing or is none


def _limbs(take: Take, joints: NDArray[np.bool_] | None) -> list[LimbPair]:
    """The pairs of limbs that joints belong to, each once. Raises UserError if one belongs to none."""
    assert joints is not None
    pairs = [limb_pair(take.rig, take.rig.names[joint]) for joint in np.flatnonzero(joints)]
    return list({frozenset(pair.roots): pair for pair in pairs}.values())


def _capture_request(context: bpy.types.Context, take: Take, obj: bpy.types.Object, mode: str) -> run_capture.CaptureRequest:
    """The take as a capture that found it: its keys go where those of the take are, and otherwise as the panel says."""
    device = capture_params.device_from_context(context)
    isnet, cache = preference_values.isnet(context), preference_values.subject_folder()
    settings = replace(take.settings, device=device, isnet=isnet, cache=cache, refine=mode)
    output = {**capture_params.output_from_props(context.scene.anyrig), "start_frame": take.start_frame}
    subject = run_capture.ArmatureInput(obj.session_uid, take.rig, take.pose, (), ())
    return run_capture.request_of(context.scene, capture_params.CaptureParams(take.clip, settings, **output), [subject])


def scene_frames(text: bpy.types.Text, motion: Motion) -> NDArray[np.float64]:
    """(T,) the scene frames of a take, as its keys were written last."""
    about = take_store.about(text)
    return about["start_frame"] + motion.times * about["fps"]


def joints_of(obj: bpy.types.Object, rig: Rig) -> NDArray[np.bool_]:
    """(J,) the joints whose bones, or whose controls, are selected."""
    controls = control_rig(obj)
    selected = {bone.name for bone in obj.pose.bones if is_selected(bone)}
    return np.array([name in selected or key_bone(controls, name) in selected for name in rig.names], np.bool_)


def _free_joints(obj: bpy.types.Object, take: Take, choice: RefineChoice) -> NDArray[np.bool_] | None:
    """(J,) the joints that may change; None for all."""
    unknown = next((name for name in choice.names if name not in take.rig.names), None)
    if unknown is not None:
        raise UserError(f"Take '{take.name}' has no bone '{unknown}': check the name.")
    if choice.names:
        return np.isin(take.rig.names, choice.names)
    if not choice.bones and not choice.swap:
        return None
    joints = joints_of(obj, take.rig) & ~take.rig.static
    if not joints.any():
        fix = "a bone of each limb to swap" if choice.swap else "some in pose mode, or refine all bones"
        raise UserError(f"No bone of take '{take.name}' is selected: select {fix}.")
    return joints


def _frames_of(text: bpy.types.Text, take: Take, choice: RefineChoice) -> tuple[int, int] | None:
    """The chosen frames of the take, the first and one past the last; None for all."""
    from ...backend.refine.pins import frames_around

    if choice.part == PINS:
        around = frames_around(take.motion.pins, len(take.motion))
        if around is None:
            raise UserError(f"Take '{take.name}' has no pins: pin a pose first, or refine the whole take.")
        return around
    if choice.part == WHOLE:
        return None
    numbers, (first, last) = scene_frames(text, take.motion), choice.frames
    inside = np.flatnonzero((numbers > first - 0.5) & (numbers < last + 0.5))
    if not len(inside):
        raise UserError(
            f"Frames {first} to {last} hold nothing of take '{take.name}': "
            f"choose a range within frames {round(numbers[0])} to {round(numbers[-1])}."
        )
    return int(inside[0]), int(inside[-1]) + 1


def steps(request: RefineRequest) -> Generator[Progress, None, Take]:
    """Find the subject and fit the take to it, on any thread. Returns the refined take.

    Raises UserError if the video is not the one that the take was captured from. Limbs that were swapped stay as they are then.
    """
    unfit, motion = request.unfit, request.take.motion
    if not unfit:
        try:
            motion = yield from _found_and_fitted(request)
        except UserError as error:
            if not request.swapped:
                raise
            unfit = str(error)
    if unfit:
        motion = replace(motion, provenance=_without_overlap(motion.provenance))
    if request.swapped:
        about = {"limbs": [list(pair) for pair in request.swapped], "frames": request.frames, "unfit": unfit}
        motion = replace(motion, provenance={**motion.provenance, "swapped": about})
    settings = request.take.settings if unfit else request.capture.params.settings
    date = time.strftime("%Y-%m-%d %H:%M:%S")
    return replace(request.take, name=request.capture.name, date=date, settings=settings, motion=motion)


def _without_overlap(provenance: dict[str, Any]) -> dict[str, Any]:
    """A take's provenance without the overlap with its video, which was that of other poses."""
    refined = {key: value for key, value in provenance.get("refine", {}).items() if key != "overlap"}
    return {**provenance, "refine": refined} if refined else provenance


def _found_and_fitted(request: RefineRequest) -> Generator[Progress, None, Motion]:
    try:
        from ...backend.hardware.device_memory import releasing_device_memory
        from ...backend.hardware.devices import pick_device
        from ...backend.progress import staged
        from ...backend.segmentation.subject_cache import find_kept_subject
    except (ImportError, OSError) as error:  # OSError: a library that torch needs does not load (Windows)
        raise missing_library(error, "PyTorch") from error
    take, settings = request.take, request.capture.params.settings
    with releasing_device_memory():
        device = pick_device(settings.device)
        subject = yield from staged("Finding the subject", find_kept_subject(take.clip, device, settings.isnet, settings.cache))
        _check_subject(take, subject)
        return (yield from _fitted(request, subject, device.type))


def _fitted(request: RefineRequest, subject: Subject, device: str) -> Generator[Progress, None, Motion]:
    from ...backend.refine.footage import footage_of
    from ...backend.refine.refine import FitTarget, refine
    from ...backend.rendering.capsules import capsules

    take = request.take
    target = FitTarget(take.rig, request.surface or capsules(take.rig), take.motion, request.joints)
    footage = footage_of(subject.clip or take.clip, subject)
    # Metal lacks some of the operations
    work = refine([target], footage, request.mode, request.frames, device if device == "cuda" else "cpu")
    return (yield from work)[0]


def _check_subject(take: Take, subject: Subject) -> None:
    """Raises UserError if the video shows something else than when the take was captured."""
    times, boxes = take.motion.times, take.motion.boxes
    if len(subject.times) != len(times) or np.abs(subject.times - times).max() > 0.5 / _rate(times):
        raise UserError(
            f"The video '{take.clip.path}' has changed since take '{take.name}' was captured "
            f"({len(subject.times)} frames for {len(times)}): bring the old video back, or capture the new one."
        )
    seen = (subject.confidence > 0) & (take.motion.confidence.max(1) > 0)
    if seen.any() and np.median(_shares(subject.boxes[seen], boxes[seen])) < ALIKE:
        raise UserError(
            f"The subject of '{take.clip.path}' is not where it was when take '{take.name}' was captured: "
            "bring the old video back, or capture the new one."
        )


def _rate(times: NDArray[np.float64]) -> float:
    """Frames a second."""
    return float((len(times) - 1) / (times[-1] - times[0])) if len(times) > 1 else 1.0


def _shares(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) intersection over union of boxes (N, 4)."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    common = np.clip(high - low, 0, None).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-9)


def write(request: RefineRequest, take: Take) -> bpy.types.Text:
    """Store the refined take and write its keys as a new action. Main thread. Raises UserError; nothing is changed then."""
    (action,) = run_capture.write_takes(request.capture, [take])
    return next(text for text in take_store.stored() if take_store.about(text)["key"] == action[take_store.DATA])


def describe(request: RefineRequest, take: Take) -> str:
    """The panel's sentences for a take that was refined, or whose limbs were swapped."""
    new = "It is a new take and a new action."
    swapped = ", ".join(f"'{left}' and '{right}'" for left, right in request.swapped)
    done = f"Left and right were swapped in '{take.name}', from {swapped} down" if swapped else f"'{take.name}' was refined"
    unfit = take.motion.provenance["swapped"]["unfit"] if swapped else ""
    if unfit:
        return f"{done}. {new} It was not fitted to its video: {unfit}"
    before, after = (f"{100 * share:.0f} %" for share in take.motion.provenance["refine"]["overlap"])
    return f"{done}: it covers {after} of the silhouette, {before} before. {new}"

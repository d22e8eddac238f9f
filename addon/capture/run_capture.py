"""A capture in three steps: gather the input from the armatures, compute without bpy, write the keys.

The user may undo, rename or delete during the computation, so armatures are found again by their session_uid.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np

from ...backend.errors import UserError, missing_library, printable
from ...backend.geometry.camera import side_azimuths
from ...backend.geometry.rotations import Array
from ...backend.motion.motion import Motion, with_joints_of
from ...backend.motion.take_file import Take
from ...backend.progress import changed
from ...backend.rig.natural_skeleton import describe
from ...backend.rig.point_cloud import Surface
from ...backend.rig.rig import Reference, Rig
from ...backend.video.clip import Clip
from ...backend.weights.registry import takes_natural_skeleton
from ..keying.animation_state import all_or_none
from ..keying.nla import STRIP, extend_range, push_down
from ..keying.object_turns import SMALL, object_turns
from ..keying.write_action import whole_frames, write_motion
from ..released_model.joint_name_table import with_joint_names
from ..rendering.rig_views import draw_capsules, render_meshes
from ..rig.armature import check_solvable, read_rig
from ..rig.armature_tree import in_armature_tree
from ..rig.keyed_bones import chosen_bones
from ..rig.surface_points import armature_surface
from ..rig.validation import validate_armature
from ..settings import preference_values
from ..settings.capture_params import CaptureParams, output_from_props
from ..tasks.task import Snapshot, Task
from . import take_store
from .kept_bones import kept_bones

if TYPE_CHECKING:
    from ...backend.motion.clean_up import CleanUp
    from ...backend.progress import Progress


@dataclass(frozen=True, eq=False)
class ArmatureInput:
    """One armature of a capture.

    pose: (J, 4, 4) the reference pose. azimuths: radians, the sides to see it from, several or the one that the user chose.
    shown: the rig that the network sees, with the same joints and perhaps more, None for `rig` itself; shown_pose: its reference pose.
    references: the rendered views of its meshes, of `shown`; empty for an armature without meshes, which `steps` draws as capsules.
    surface: its meshes as points for `rig`, in armature space, if the take is to be refined; None for capsules.
    remarks: what hangs where in the natural skeleton, in sentences, for the take's provenance.
    """

    uid: int
    rig: Rig
    pose: Array
    azimuths: tuple[float, ...]
    references: tuple[Reference, ...]
    shown: Rig | None = None
    shown_pose: Array | None = None
    remarks: tuple[str, ...] = ()
    surface: Surface | None = None


@dataclass(frozen=True, eq=False)
class CaptureResult:
    """The motion of one armature, and the reference view that looks most like the video."""

    motion: Motion
    view: Reference


@dataclass(frozen=True, eq=False)
class CaptureRequest:
    """All that a capture and the writing of its keys need, without any bpy object.

    video_size: width and height in pixels; (0, 0) for a video that the panel does not show.
    """

    params: CaptureParams
    subjects: tuple[ArmatureInput, ...]
    scene_uid: int
    start_frame: int
    video_size: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """The name of the actions: the video's file name without its extension. Paths of Windows work on every system."""
        return printable(Path(self.params.clip.path.replace("\\", "/")).stem)


def gather(
    context: bpy.types.Context,
    objects: Sequence[bpy.types.Object],
    params: CaptureParams,
    bones: Sequence[Sequence[str] | None] | None = None,
) -> CaptureRequest:
    """Read rigs and poses and render the reference views. Main thread; changes nothing.

    bones: for each armature the names of the bones to key, or None for those that the params choose.
    Raises UserError: no armature, or what `validate_armature`, `read_rig` and `render_meshes` raise.
    """
    params = with_preferences(context, params)
    if not objects:
        raise UserError("No armature is chosen: select one, or pick one in the AnyRig panel.", fix="pick_armature")
    _check_names(objects, params.keep_bones)
    azimuths = tuple(side_azimuths()) if params.azimuth is None else (params.azimuth,)
    subjects = []
    for obj, names in zip(objects, bones or [None] * len(objects), strict=True):
        validate_armature(context, obj)
        chosen = names or chosen_bones(obj, params.bones, params.collection)
        keep = {*kept_bones(context.scene, obj), *(name for name in params.keep_bones if name in obj.data.bones)}
        own, natural = read_rig(obj, chosen, sorted(keep))
        if natural is not None:  # controls are solved in another way
            check_solvable(obj, own)
        rig = with_joint_names(context.scene, obj, own)
        shown = rig if takes_natural_skeleton(params.settings.model) else in_armature_tree(obj, rig, chosen)
        shown_pose, references = render_meshes(obj, shown, azimuths, frame=params.reference_frame, engine=params.engine)
        pose = shown_pose if shown is rig else shown_pose[[shown.names.index(name) for name in rig.names]]
        remarks = () if natural is None else tuple(describe(natural))
        surface = armature_surface(obj, rig.names) if references and params.settings.refine_mode != "off" else None
        subjects.append(
            ArmatureInput(obj.session_uid, rig, pose, azimuths, tuple(references), shown, shown_pose, remarks, surface)
        )
    return request_of(context.scene, params, subjects)


def _check_names(objects: Sequence[bpy.types.Object], bones: Sequence[str]) -> None:
    """Raises UserError for a bone to keep in place that no armature has."""
    for name in bones:
        if not any(obj.type == "ARMATURE" and name in obj.data.bones for obj in objects):
            listed = ", ".join(f"'{obj.name}'" for obj in objects)
            raise UserError(f"Bone '{name}', which is to stay in place, is not in {listed}: correct its name.")


def request_of(scene: bpy.types.Scene, params: CaptureParams, subjects: Sequence[ArmatureInput]) -> CaptureRequest:
    """The request for a capture that starts at the current frame, unless the params name another."""
    start = scene.frame_current if params.start_frame is None else params.start_frame
    props = getattr(scene, "anyrig", None)  # None where the add-on is not registered
    known = props is not None and bpy.path.abspath(props.video) == params.clip.path
    size = (props.video_size[0], props.video_size[1]) if known else (0, 0)
    return CaptureRequest(params, tuple(subjects), scene.session_uid, start, size)


def with_preferences(context: bpy.types.Context, params: CaptureParams) -> CaptureParams:
    """The params with what the preferences add: the folders of the released weights and of the kept subjects, and the choice of ISNet.

    What the params name themselves stays.
    """
    settings = params.settings
    weights = settings.weights or ("" if settings.model == "lite" else preference_values.weights_folder(context))
    isnet = settings.isnet or preference_values.isnet(context)
    cache = settings.cache or preference_values.subject_folder()
    return replace(params, settings=replace(settings, weights=weights, isnet=isnet, cache=cache))


def steps(request: CaptureRequest) -> Generator[Progress, None, list[CaptureResult]]:
    """Compute the motions, on any thread. torch is imported here, so that the window does not freeze for it either.

    While the takes are refined, each Progress has the results without that (`so_far`), which `unrefined` makes ready to write.
    """
    try:
        from ...backend.capture.pipeline import capture
        from ...backend.rig.rig import Target
    except (ImportError, OSError) as error:  # OSError: a library that torch needs does not load (Windows)
        raise missing_library(error, "PyTorch") from error
    targets = []
    for subject in request.subjects:
        shown, pose = subject.shown or subject.rig, subject.pose if subject.shown_pose is None else subject.shown_pose
        references = subject.references or tuple(draw_capsules(shown, pose, subject.azimuths))
        targets.append(Target(shown, references, subject.rig, subject.surface))

    def results_of(motions: Sequence[Motion]) -> list[CaptureResult]:
        return [
            CaptureResult(_for_keys(motion, subject), target.references[motion.provenance["view"]])
            for motion, target, subject in zip(motions, targets, request.subjects, strict=True)
        ]

    def with_results(progress: Progress) -> Progress:
        return progress if progress.so_far is None else replace(progress, so_far=results_of(progress.so_far))

    work = capture(targets, request.params.clip, request.params.settings)
    return results_of((yield from changed(work, with_results)))


def _for_keys(motion: Motion, subject: ArmatureInput) -> Motion:
    """The take for the joints that get keys; its provenance says what hangs where in their skeleton."""
    taken = with_joints_of(motion, subject.rig)
    return replace(taken, provenance={**taken.provenance, "skeleton": list(subject.remarks)}) if subject.remarks else taken


def unrefined(request: CaptureRequest, results: Sequence[CaptureResult]) -> tuple[CaptureRequest, list[CaptureResult]]:
    """The request and the results of a capture that was cancelled while it refined, as if it had been asked not to refine."""
    params = request.params
    plain = replace(request, params=replace(params, settings=replace(params.settings, refine="off")))
    return plain, [replace(result, motion=_without_refining(result.motion)) for result in results]


def _without_refining(motion: Motion) -> Motion:
    about = dict(motion.provenance)
    if "settings" in about:
        about["settings"] = {**about["settings"], "refine": "off"}
    if "seconds" in about:
        about["seconds"] = {step: seconds for step, seconds in about["seconds"].items() if step != "refine"}
    return replace(motion, provenance=about)


def write(request: CaptureRequest, results: Sequence[CaptureResult]) -> list[bpy.types.Action]:
    """Key every armature and store its take; all of them or, if one raises UserError, none. Main thread.

    The takes are backed up to the user folder first, so that neither a crash nor an error loses them.
    """
    return write_takes(request, _takes_of(request, results))


def write_takes(request: CaptureRequest, takes: Sequence[Take]) -> list[bpy.types.Action]:
    """As `write`, with takes that are made up already, one for each of the request's armatures."""
    take_store.write_backup(takes)
    scene, objects = _resolve(request)
    fps = scene.render.fps / scene.render.fps_base
    before = [take_store.PoseBefore.of(obj, subject.rig.names) for obj, subject in zip(objects, request.subjects, strict=True)]
    slots = [_in_use(obj) for obj in objects]
    with all_or_none(objects):
        actions = key_all(request, [take.motion for take in takes], objects, fps)
        _deliver(request.params, scene, objects, actions, slots)
        for take, action, pose in zip(takes, actions, before, strict=True):
            take_store.store(take, fps, pose)
            take_store.mark_current(action, take.key)
    return actions


def _deliver(
    params: CaptureParams,
    scene: bpy.types.Scene,
    objects: Sequence[bpy.types.Object],
    actions: Sequence[bpy.types.Action],
    earlier: Sequence[tuple[Any, Any]],
) -> None:
    """Make strips and extend the scene's range, if the params ask for it. earlier: the action and slot that each armature used before."""
    if params.output == STRIP:
        for obj, before in zip(objects, earlier, strict=True):
            push_down(obj, *before)
    if params.extend_range:
        ranges = [action.frame_range for action in actions]
        extend_range(scene, min(each[0] for each in ranges), max(each[1] for each in ranges))


def _in_use(obj: bpy.types.Object) -> tuple[Any, Any]:
    """The action and the slot that an armature uses."""
    data = obj.animation_data
    return data and data.action, getattr(data, "action_slot", None)


def _cleaned(
    obj: bpy.types.Object, subject: ArmatureInput, motion: Motion
) -> tuple[bpy.types.Object, ArmatureInput, Motion, CleanUp]:
    """What is keyed on one armature: its take, cleaned up as the take says."""
    from ...backend.motion.clean_up import clean_up, settings_of

    settings = settings_of(motion)
    return obj, subject, clean_up(subject.rig, motion, settings), settings


def key_all(
    request: CaptureRequest, motions: Sequence[Motion], objects: Sequence[bpy.types.Object], fps: float
) -> list[bpy.types.Action]:
    """Write the keys of every armature as new actions, cleaned up as each take says. Raises UserError; some may be keyed already then.

    An armature object that turns while the take plays, by its parents, constraints or NLA strips, is turned back by its keys.
    """

    def write(index: int, turns: Array | None = None) -> bpy.types.Action:
        obj, subject, motion, settings = taken[index]
        how = {"degrees": settings.keys_degrees, "percent": settings.keys_percent, "turns": turns}
        return write_motion(obj, subject.rig, motion, subject.pose, name=request.name, start_frame=start, fps=fps, **how)

    start, taken = request.start_frame, [_cleaned(*each) for each in zip(objects, request.subjects, motions, strict=True)]
    frames = [whole_frames(motion.times, start, fps) for _, _, motion, _ in taken]
    actions = [write(index) for index in range(len(taken))]
    known: list[Array | None] = [None] * len(taken)
    # an armature may hang on the bones of another, that on a third one's: each round sets one level right
    for _ in objects:
        found = [object_turns(obj, subject.rig.world, each) for (obj, subject, *_), each in zip(taken, frames)]
        late = [index for index, turns in enumerate(found) if _differ(turns, known[index])]
        for index in late:
            bpy.data.actions.remove(actions[index])
            actions[index] = write(index, found[index])
        known = found
        if not late:
            break
    return actions


def _differ(turns: Array | None, known: Array | None) -> bool:
    if turns is None or known is None:
        return turns is not known
    return float(np.abs(turns - known).max()) > SMALL


def apply_again(context: bpy.types.Context, text: bpy.types.Text, obj: bpy.types.Object) -> bpy.types.Action:
    """Write the keys of a stored take again, as a new action with the panel's settings under Output. The network is not needed.

    Raises UserError; nothing is changed then.
    """
    take, scene = take_store.read(text), context.scene
    subject = ArmatureInput(obj.session_uid, take.rig, take.pose, (), ())
    request = request_of(scene, CaptureParams(take.clip, take.settings, **output_from_props(scene.anyrig)), [subject])
    fps = scene.render.fps / scene.render.fps_base
    before, earlier = _in_use(obj), take_store.action_name(obj)
    with all_or_none([obj]):
        (action,) = key_all(request, [take.motion], [obj], fps)
        _deliver(request.params, scene, [obj], [action], [before])
        take_store.mark_current(action, take_store.about(text)["key"])
        take_store.set_about(text, fps=fps, start_frame=request.start_frame, earlier=earlier)
    return action


def _takes_of(request: CaptureRequest, results: Sequence[CaptureResult]) -> list[Take]:
    date, settings = time.strftime("%Y-%m-%d %H:%M:%S"), request.params.settings
    takes = []
    for subject, result in zip(request.subjects, results, strict=True):
        clip = _captured_clip(request, result.motion)
        about = (request.name, subject.rig.name, date, request.start_frame, clip, settings)
        takes.append(Take(*about, subject.rig, subject.pose, result.motion))
    return takes


def _captured_clip(request: CaptureRequest, motion: Motion) -> Clip:
    """The part of the video that the motion's times count from: one shot of a video with cuts."""
    values = motion.provenance.get("clip")
    return request.params.clip if values is None else Clip.from_json(json.dumps(values))


def _resolve(request: CaptureRequest) -> tuple[bpy.types.Scene, list[bpy.types.Object]]:
    """Find the scene and the armatures of a request again. Raises UserError if one was deleted meanwhile."""
    scene = _find(bpy.data.scenes, request.scene_uid)
    if scene is None:
        raise UserError("The scene was deleted during the capture: undo that, then recover the take under Takes.")
    objects = []
    for subject in request.subjects:
        obj = _find(bpy.data.objects, subject.uid)
        if obj is None:
            raise UserError(
                f"Armature '{subject.rig.name}' was deleted during the capture: undo that, then recover the take under Takes."
            )
        objects.append(obj)
    return scene, objects


def run_capture(
    context: bpy.types.Context,
    objects: Sequence[bpy.types.Object],
    params: CaptureParams,
    report: Callable[[Snapshot], None] | None = None,
) -> tuple[CaptureRequest, list[CaptureResult], list[bpy.types.Action]]:
    """Capture onto the armatures and wait for it; for background mode and scripts. `report` is called after every step.

    Raises UserError with what went wrong; the file is then as it was.
    """
    request = gather(context, objects, params)
    results = Task(steps(request)).drain(report).result()
    return request, results, write(request, results)


def _find(collection: bpy.types.bpy_prop_collection, uid: int) -> bpy.types.ID | None:
    return next((item for item in collection if item.session_uid == uid), None)

"""The operators of the queue: add jobs, run them, order and remove them, save them as a jobs file."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
from bpy.props import CollectionProperty, EnumProperty, StringProperty

from ...backend.errors import UserError
from ...backend.whole_file import write_whole
from ..capture.video_file import SUFFIXES
from ..settings.capture_params import params_from_context
from ..settings.chosen_armatures import armatures_from_context
from ..tasks import background_runner
from ..ui.operator_base import AnyRigOperator
from . import job_queue, jobs_file

VIDEOS = ";".join(f"*{suffix}" for suffix in SUFFIXES)


class _QueueOperator(AnyRigOperator):
    """An operator that changes the queue, also while a task runs."""

    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return "" if context.scene.anyrig_queue.jobs else "The queue is empty"


def _chosen(context: bpy.types.Context) -> int:
    """The index of the job chosen in the list."""
    queue = context.scene.anyrig_queue
    return min(max(queue.index, 0), len(queue.jobs) - 1)


def _captured(context: bpy.types.Context) -> str:
    """Why the chosen job cannot be changed, or ''."""
    queue = context.scene.anyrig_queue
    if not queue.jobs:
        return "The queue is empty"
    return "This job is running" if queue.jobs[_chosen(context)].key == job_queue.running_key() else ""


class ANYRIG_OT_queue_add(_QueueOperator, bpy.types.Operator):
    bl_idname = "anyrig.queue_add"
    bl_label = "Add to Queue"
    bl_description = "Add a job with the armatures, the video and the settings of the panel"

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        if not armatures_from_context(context):
            return "Pick an armature"
        return "" if context.scene.anyrig.video else "Pick a video"

    def run(self, context: bpy.types.Context) -> str:
        item = job_queue.add(context.scene, armatures_from_context(context), params_from_context(context))
        return f"Job {len(context.scene.anyrig_queue.jobs)}: {item.video} onto {job_queue.names_of(item)}"


class ANYRIG_OT_queue_add_videos(_QueueOperator, bpy.types.Operator):
    bl_idname = "anyrig.queue_add_videos"
    bl_label = "Add Videos to Queue"
    bl_description = "Add a job for each of several videos, with the armatures and the settings of the panel but without its trim"

    directory: StringProperty(name="Folder", description="Folder of the videos", subtype="DIR_PATH", options={"SKIP_SAVE"})
    files: CollectionProperty(
        name="Videos", description="File names of the videos", type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE"}
    )
    filter_glob: StringProperty(name="Kinds", description="Files to show", default=VIDEOS, options={"HIDDEN"})

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return "" if armatures_from_context(context) else "Pick an armature"

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> str:
        names = [each.name for each in self.files if each.name]
        if not names:
            raise UserError("No video is chosen: select one or more in the file browser.")
        # trim, box and matte belong to one video
        alike = params_from_context(context, video=str(Path(self.directory, names[0])))
        for name in names:
            clip = replace(
                alike.clip, path=str(Path(self.directory, name)), start=0.0, end=None, box=None, box_time=None, matte=None
            )
            job_queue.add(context.scene, armatures_from_context(context), replace(alike, clip=clip))
        return f"{len(names)} {'job' if len(names) == 1 else 'jobs'} added"


class ANYRIG_OT_queue_remove(_QueueOperator, bpy.types.Operator):
    bl_idname = "anyrig.queue_remove"
    bl_label = "Remove from Queue"
    bl_description = "Remove the chosen job from the queue; its keys stay"

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return _captured(context)

    def run(self, context: bpy.types.Context) -> str:
        queue, index = context.scene.anyrig_queue, _chosen(context)
        queue.jobs.remove(index)
        queue.index = max(min(index, len(queue.jobs) - 1), 0)
        return ""


class ANYRIG_OT_queue_move(_QueueOperator, bpy.types.Operator):
    bl_idname = "anyrig.queue_move"
    bl_label = "Move in Queue"
    bl_description = "Move the chosen job up or down, to run it earlier or later"

    direction: EnumProperty(
        name="Direction",
        description="Direction of the move",
        items=(("UP", "Up", "Run it earlier"), ("DOWN", "Down", "Run it later")),
    )

    def run(self, context: bpy.types.Context) -> str:
        queue, index = context.scene.anyrig_queue, _chosen(context)
        to = index + (-1 if self.direction == "UP" else 1)
        if 0 <= to < len(queue.jobs):
            queue.jobs.move(index, to)
            queue.index = to
        return ""


class ANYRIG_OT_queue_clear(_QueueOperator, bpy.types.Operator):
    bl_idname = "anyrig.queue_clear"
    bl_label = "Clear Queue"
    bl_description = "Remove jobs from the queue; their keys stay"

    which: EnumProperty(
        name="Which",
        description="Jobs to remove",
        items=(("DONE", "Done", "Jobs that are done"), ("ALL", "All", "All jobs but the running one")),
    )

    def run(self, context: bpy.types.Context) -> str:
        jobs, running = context.scene.anyrig_queue.jobs, job_queue.running_key()
        for index in reversed(range(len(jobs))):
            if jobs[index].key != running and (self.which == "ALL" or jobs[index].state == job_queue.DONE):
                jobs.remove(index)
        context.scene.anyrig_queue.index = 0
        return ""


class ANYRIG_OT_queue_retry(_QueueOperator, bpy.types.Operator):
    bl_idname = "anyrig.queue_retry"
    bl_label = "Do Job Again"
    bl_description = "Run the chosen job again with the queue"

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return _captured(context)

    def run(self, context: bpy.types.Context) -> str:
        item = context.scene.anyrig_queue.jobs[_chosen(context)]
        item.state, item.message = job_queue.WAITING, ""
        return ""


class ANYRIG_OT_queue_run(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.queue_run"
    bl_label = "Run Queue"
    bl_description = "Capture all waiting jobs one after another; a job that fails does not stop the others"
    # every job is an undo step of its own
    bl_options = {"REGISTER"}
    in_background = False

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if job_queue.waiting(context.scene) else "No job is waiting")

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        self.in_background = background_runner.has_window(context)
        return self.execute(context)

    def run(self, context: bpy.types.Context) -> str:
        if self.in_background:
            job_queue.start(context)
            return ""
        job_queue.run_here(context)
        return job_queue.summary()


class ANYRIG_OT_queue_export(_QueueOperator, bpy.types.Operator):
    bl_idname = "anyrig.queue_export"
    bl_label = "Save Queue as Jobs File"
    bl_description = "Write the queue to a JSON file for `--command anyrig batch` or Flamenco; each job saves its own .blend"
    bl_options = {"REGISTER"}

    filepath: StringProperty(name="File", description="The JSON file to write", subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_glob: StringProperty(name="Kinds", description="Files to show", default="*.json", options={"HIDDEN"})

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        if not context.scene.anyrig_queue.jobs:
            return "The queue is empty"
        return "" if bpy.data.filepath else "Save the file first: the jobs open it"

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        self.filepath = str(Path(bpy.data.filepath).with_suffix(".json"))
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> str:
        path = Path(bpy.path.abspath(self.filepath))
        if not path.name:
            raise UserError("No file is named: give the jobs file a name, such as jobs.json.")
        path = path.with_suffix(".json")
        jobs = [_exported(number, item, path.parent) for number, item in enumerate(context.scene.anyrig_queue.jobs, 1)]
        write_whole(path, json.dumps({"jobs": jobs}, indent=1) + "\n", "jobs file")
        return f"{path.name}: {len(jobs)} {'job' if len(jobs) == 1 else 'jobs'} for the .blend as it was saved last"


def _exported(number: int, item: job_queue.ANYRIG_QueueJob, folder: Path) -> dict[str, Any]:
    params, objects = job_queue.params_from_json(item.params), job_queue.objects_of(item)
    bones = {obj.name: names for obj, names in zip(objects, job_queue.bones_of(item), strict=True) if names is not None}
    return {
        "name": f"{number:03d}-{Path(item.video).stem}",
        "file": _relative(bpy.data.filepath, folder),
        "armatures": [obj.name for obj in objects],
        **jobs_file.values_of(params, lambda path: _relative(path, folder)),
        # by name, since the selection in the .blend may change before the jobs run
        **({jobs_file.BONES: bones} if bones else {}),
        "outputs": ["{name}.blend"],
    }


def _relative(path: str, folder: Path) -> str:
    """The path from the folder; unchanged on another drive, which has no relative path."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path


class ANYRIG_OT_save_flamenco(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.save_flamenco"
    bl_label = "Save Flamenco Job Type"
    bl_description = "Write the Flamenco job type that runs a jobs file on a farm, for the folder scripts beside flamenco-manager"
    bl_options = {"REGISTER"}

    directory: StringProperty(
        name="Folder", description="Folder to write the job type to", subtype="DIR_PATH", options={"SKIP_SAVE"}
    )

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return ""

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, _context: bpy.types.Context) -> str:
        from .run_jobs_file import save_job_type

        if not self.directory:
            raise UserError("No folder is chosen: choose the folder scripts beside flamenco-manager.")
        return f"Written: {save_job_type(Path(bpy.path.abspath(self.directory)))}"


CLASSES = (
    ANYRIG_OT_queue_add,
    ANYRIG_OT_queue_add_videos,
    ANYRIG_OT_queue_remove,
    ANYRIG_OT_queue_move,
    ANYRIG_OT_queue_clear,
    ANYRIG_OT_queue_retry,
    ANYRIG_OT_queue_run,
    ANYRIG_OT_queue_export,
    ANYRIG_OT_save_flamenco,
)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

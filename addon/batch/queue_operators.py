"""Add to Queue, Run Queue, and what is done with the list."""

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
    """Why the chosen job must be left alone, or ''."""
    queue = context.scene.anyrig_queue
    if not queue.jobs:
        return "The queue is empty"
    return "This job is running" if queue.jobs[_chosen(context)].key == job_queue.running_key() else ""


class ANYRIG_OT_queue_add(_QueueOperator, bpy.types.Operator):
    bl_idname = "anyrig.queue_add"
    bl_label = "Add to Queue"
    bl_description = "Add a job: these armatures, this video, these settings"

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
    bl_description = (
        "Choose many videos: a job for each of them, onto these armatures, with these settings but their whole length"
    )

    directory: StringProperty(name="Folder", description="Where the videos are", subtype="DIR_PATH", options={"SKIP_SAVE"})
    files: CollectionProperty(
        name="Videos", description="The videos' file names", type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE"}
    )
    filter_glob: StringProperty(name="Kinds", description="Which files are shown", default=VIDEOS, options={"HIDDEN"})

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return "" if armatures_from_context(context) else "Pick an armature"

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> str:
        names = [each.name for each in self.files if each.name]
        if not names:
            raise UserError("No video is chosen: mark one or more in the file browser.")
        # trim, box and matte belong to one video
        alike = params_from_context(context, video=str(Path(self.directory, names[0])))
        for name in names:
            clip = replace(alike.clip, path=str(Path(self.directory, name)), start=0.0, end=None, box=None, matte=None)
            job_queue.add(context.scene, armatures_from_context(context), replace(alike, clip=clip))
        return f"{len(names)} {'job' if len(names) == 1 else 'jobs'} added"


class ANYRIG_OT_queue_remove(_QueueOperator, bpy.types.Operator):
    bl_idname = "anyrig.queue_remove"
    bl_label = "Remove from Queue"
    bl_description = "Remove the chosen job from the queue; what it captured stays"

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
    bl_description = "Let the chosen job run earlier or later"

    direction: EnumProperty(
        name="Direction",
        description="Which way the job goes",
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
    bl_description = "Remove jobs from the queue; what they captured stays"

    which: EnumProperty(
        name="Which",
        description="The jobs to remove",
        items=(("DONE", "Done", "Those that are done"), ("ALL", "All", "All but the one that runs")),
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
    bl_description = "Let the chosen job run once more when the queue runs"

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
    bl_description = "Capture all waiting jobs, one after another; one that fails stops nothing else"
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
    bl_description = "Write the queue as a JSON file for `--command anyrig batch` or Flamenco; each job saves a .blend of its own"
    bl_options = {"REGISTER"}

    filepath: StringProperty(name="File", description="The JSON file to write", subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_glob: StringProperty(name="Kinds", description="Which files are shown", default="*.json", options={"HIDDEN"})

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
        try:
            path.write_text(json.dumps({"jobs": jobs}, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"Jobs file '{path}' cannot be written ({error.strerror}): choose another folder.") from error
        return f"{path.name}: {len(jobs)} {'job' if len(jobs) == 1 else 'jobs'} for the file as it was saved last"


def _exported(number: int, item: job_queue.ANYRIG_QueueJob, folder: Path) -> dict[str, Any]:
    params, objects = job_queue.params_from_json(item.params), job_queue.objects_of(item)
    bones = {obj.name: names for obj, names in zip(objects, job_queue.bones_of(item), strict=True) if names is not None}
    return {
        "name": f"{number:03d}-{Path(item.video).stem}",
        "file": _relative(bpy.data.filepath, folder),
        "armatures": [obj.name for obj in objects],
        **jobs_file.values_of(params, lambda path: _relative(path, folder)),
        # by their names: what is selected in the .blend may change before the jobs run
        **({jobs_file.BONES: bones} if bones else {}),
        "outputs": ["{name}.blend"],
    }


def _relative(path: str, folder: Path) -> str:
    """From the folder, as far as that is possible: another drive has no such path."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path


class ANYRIG_OT_save_flamenco(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.save_flamenco"
    bl_label = "Save Flamenco Job Type"
    bl_description = (
        "Write the job type that spreads a jobs file over a farm; its place is the folder scripts beside flamenco-manager"
    )
    bl_options = {"REGISTER"}

    directory: StringProperty(name="Folder", description="Where to write the job type", subtype="DIR_PATH", options={"SKIP_SAVE"})

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

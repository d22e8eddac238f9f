"""The operators of stored takes: show, compare, apply again, delete, and recover from backups after a crash."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, IntProperty, PointerProperty, StringProperty

from ...backend.errors import UserError
from ..capture import take_store
from ..keying.animation_state import Animation
from ..rig import control_rigs
from ..settings.chosen_armatures import armature_from_context
from ..tasks import background_runner
from ..ui.operator_base import AnyRigOperator

NO_TAKE = "There is no take in this file"


def selected(context: bpy.types.Context) -> bpy.types.Text | None:
    """The take chosen in the list, or the newest, as after the first capture in a file."""
    key, takes = context.scene.anyrig_takes.key, take_store.stored()
    chosen = (text for text in takes if take_store.about(text)["key"] == key)
    return next(chosen, takes[0] if takes else None)


def select(context: bpy.types.Context, text: bpy.types.Text) -> None:
    context.scene.anyrig_takes.key = take_store.about(text)["key"]


def target_of(context: bpy.types.Context, text: bpy.types.Text, bones: tuple[str, ...]) -> bpy.types.Object:
    """The armature to write a take to: its own if it still exists, else the panel's. Raises UserError."""
    obj = take_store.armature_of(text) or armature_from_context(context)
    if obj is None:
        raise UserError(
            f"Armature '{take_store.about(text)['armature']}' is not in this file: pick an armature with the same bones."
        )
    lacking = next((name for name in bones if name not in obj.data.bones), None)
    if lacking is not None:
        raise UserError(
            f"Bone '{lacking}' of take '{take_store.label(text)}' is not in armature '{obj.name}': pick one that has it."
        )
    return obj


def show(obj: bpy.types.Object, text: bpy.types.Text) -> bpy.types.Action:
    """Make the armature play the take. Raises UserError if its action is gone or the armature cannot be written."""
    action = take_store.action_of(text)
    if action is None:
        raise UserError(
            f"The action of take '{take_store.label(text)}' is not in this file: click Apply Again to write its keys."
        )
    assign(obj, action)
    return action


def assign(obj: bpy.types.Object, action: bpy.types.Action | None) -> None:
    """Make the armature play the action, or none; the action before it is kept in the file."""
    from ..rig import actions, validation

    validation.check_writable(obj)
    if action is not None and not _is_for_objects(action):
        raise UserError(f"Action '{action.name}' was not made for an armature: choose another one.")
    actions.replace_action(obj, action)
    obj.update_tag()


def _is_for_objects(action: bpy.types.Action) -> bool:
    """Whether an action can move an armature: it is not one of a camera, a material or shape keys. One without keys can."""
    kinds = {slot.target_id_type for slot in action.slots} if hasattr(action, "slots") else {action.id_root}
    return not kinds or bool(kinds & {"OBJECT", "UNSPECIFIED", ""})


@contextmanager
def showing(obj: bpy.types.Object, text: bpy.types.Text) -> Iterator[None]:
    """Make the armature play the take inside the block, then restore its animation and pose."""
    if take_store.plays(obj, take_store.action_of(text)):
        yield
        return
    before = Animation.of(obj)
    show(obj, text)
    try:
        yield
    finally:
        before.restore(obj)


def other_action(context: bpy.types.Context, text: bpy.types.Text) -> bpy.types.Action | None:
    """The action to compare a take with: the one chosen in the panel, else the one that the armature played before the capture.

    None if it played none. Raises UserError if the action was deleted or renamed.
    """
    own, picked = take_store.action_of(text), bpy.data.actions.get(context.scene.anyrig_takes.other)
    if picked is not None and picked != own:
        return picked
    name = take_store.about(text)["earlier"]
    if name and name not in bpy.data.actions:
        raise UserError(
            f"Action '{name}', played before take '{take_store.label(text)}', was deleted or renamed: choose an action to compare with."
        )
    return bpy.data.actions.get(name)


class TakeOperator(AnyRigOperator):
    """An operator that works on one take: `use` does the work and returns a sentence for the panel."""

    take: StringProperty(
        name="Take",
        description="Name of the take's text data-block; the take chosen in the list if empty",
        options={"SKIP_SAVE", "HIDDEN"},
    )
    use: Callable[[bpy.types.Context, bpy.types.Text], str]

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if selected(context) else NO_TAKE)

    def run(self, context: bpy.types.Context) -> str:
        text = take_store.find_take(self.take) if self.take else selected(context)
        message = self.use(context, text)
        background_runner.set_status(message)
        return message


class ANYRIG_OT_take_show(TakeOperator, bpy.types.Operator):
    bl_idname = "anyrig.take_show"
    bl_label = "Show Take"
    bl_description = "Make the armature play the action that was written from this take"
    bl_options = {"REGISTER", "UNDO"}

    def use(self, context: bpy.types.Context, text: bpy.types.Text) -> str:
        obj = target_of(context, text, ())
        action = show(obj, text)
        select(context, text)
        return f"'{obj.name}' plays '{action.name}'."


class ANYRIG_OT_take_compare(TakeOperator, bpy.types.Operator):
    bl_idname = "anyrig.take_compare"
    bl_label = "Compare Take"
    bl_description = "Switch the armature between this take and the action chosen below, or the one it played before the take"
    bl_options = {"REGISTER", "UNDO"}

    def use(self, context: bpy.types.Context, text: bpy.types.Text) -> str:
        obj = target_of(context, text, ())
        now, own = obj.animation_data and obj.animation_data.action, take_store.action_of(text)
        if own is None or now != own:
            shown = show(obj, text)
            if now is not None:
                context.scene.anyrig_takes.other = now.name
            return f"'{obj.name}' plays take '{shown.name}'."
        other = other_action(context, text)
        assign(obj, other)
        if other is None:
            restore_pose(obj, text)
        return f"'{obj.name}' plays '{other.name}'." if other else f"'{obj.name}' plays no action, as before the take."


class ANYRIG_OT_take_apply(TakeOperator, bpy.types.Operator):
    bl_idname = "anyrig.take_apply"
    bl_label = "Apply Take Again"
    bl_description = (
        "Write the keys of this take again, as a new action with the settings under Output; edited keys stay in the old action"
    )
    bl_options = {"REGISTER", "UNDO"}

    picked: BoolProperty(
        name="Onto the Picked Armature",
        description="Write to the armature of the panel instead of the one that was captured",
        default=False,
    )

    def use(self, context: bpy.types.Context, text: bpy.types.Text) -> str:
        from ..capture import run_capture

        names = take_store.read(text).rig.names
        obj = armature_from_context(context) if self.picked else None
        obj = _checked(obj, names, text) if obj is not None else target_of(context, text, names)
        action = run_capture.apply_again(context, text, obj)
        select(context, text)
        return f"Take '{action.name}': keyed again on '{obj.name}' from frame {take_store.about(text)['start_frame']} on."


class ANYRIG_OT_take_delete(TakeOperator, bpy.types.Operator):
    bl_idname = "anyrig.take_delete"
    bl_label = "Delete Take"
    bl_description = "Delete this take, and its action unless something else uses it; the armature plays its earlier action again"
    bl_options = {"REGISTER", "UNDO"}

    def invoke(self: Any, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if bpy.app.background:
            return self.execute(context)
        return context.window_manager.invoke_confirm(self, event)

    def use(self, _context: bpy.types.Context, text: bpy.types.Text) -> str:
        name, action = take_store.label(text), take_store.action_of(text)
        gone = action is not None and _drop_action(text, action)
        bpy.data.texts.remove(text)
        return f"Take '{name}' was deleted" + (", and its action." if gone else "; its action is kept." if action else ".")


class ANYRIG_OT_take_recover(bpy.types.Operator):
    bl_idname = "anyrig.take_recover"
    bl_label = "Recover Takes"
    bl_description = "Restore takes that were lost in a crash. AnyRig keeps backups of the most recent takes"
    bl_options = {"REGISTER", "UNDO"}

    file: StringProperty(
        name="File",
        description="A backup; all backups whose takes are not in this file if empty",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
    )
    choice: EnumProperty(name="Take", items=lambda _self, _context: _choices(), options={"SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        _offer()
        if bpy.app.background:
            return self.execute(context)
        return context.window_manager.invoke_props_dialog(self)

    def draw(self, _context: bpy.types.Context) -> None:
        self.layout.prop(self, "choice")

    def execute(self, context: bpy.types.Context) -> set[str]:
        chosen = self.file or (self.choice if self.choice != ALL else "")
        try:
            found, refused = _recover_all(context, [Path(chosen)] if chosen else take_store.missing_copies())
        except OSError as error:
            found, refused = [], [f"The folder of the copies cannot be read ({error.strerror}): allow Blender to read it."]
        for sentence in refused:
            self.report({"ERROR"}, sentence)
        if not found:
            message = refused[0] if refused else "There is nothing to recover: all takes with a backup are in this file."
            background_runner.set_status(message, is_error=bool(refused))
            return {"CANCELLED"}
        select(context, found[0])
        background_runner.set_status(
            f"Recovered {len(found)} {'take' if len(found) == 1 else 'takes'}: choose one and click Apply Again."
        )
        return {"FINISHED"}


ALL = "ALL"
# Blender keeps no reference to the strings of a dynamic enum and asks for them at every redraw, so they are made when the dialog opens.
_offered: list[tuple[str, str, str]] = []


def _offer() -> None:
    _offered[:] = [(ALL, "All", "Every take that is not in this file")]
    _offered.extend((str(path), path.name.removesuffix(take_store.SUFFIX), str(path)) for path in take_store.missing_copies())


def _choices() -> list[tuple[str, str, str]]:
    if not _offered:
        _offered.append((ALL, "All", "Every take that is not in this file"))
    return _offered


def _recover_all(context: bpy.types.Context, paths: list[Path]) -> tuple[list[bpy.types.Text], list[str]]:
    """-> the takes that were recovered, and an error for every copy that could not be read."""
    fps = context.scene.render.fps / context.scene.render.fps_base
    found, refused = [], []
    for path in paths:
        try:
            found.append(take_store.recover_takes(path, fps))
        except UserError as error:
            refused.append(str(error))
    return found, refused


def _checked(obj: bpy.types.Object, names: tuple[str, ...], text: bpy.types.Text) -> bpy.types.Object:
    lacking = next((name for name in names if name not in obj.data.bones), None)
    if lacking is not None:
        raise UserError(
            f"Bone '{lacking}' of take '{take_store.label(text)}' is not in armature '{obj.name}': pick one that has it."
        )
    return obj


def restore_pose(obj: bpy.types.Object, text: bpy.types.Text) -> None:
    """Restore the pose that the bones had, without an action, before the take."""
    rig = control_rigs.control_rig(obj)
    for name, basis in take_store.basis_of(text).items():
        bone = obj.pose.bones.get(control_rigs.key_bone(rig, name))
        if bone is not None:
            bone.matrix_basis = basis
    control_rigs.restore_controls(obj, take_store.controls_of(text))


def _drop_action(text: bpy.types.Text, action: bpy.types.Action) -> bool:
    """Delete the take's action if only the take's armature uses it; -> whether it was deleted."""
    obj = take_store.armature_of(text)
    plays = obj is not None and obj.animation_data is not None and obj.animation_data.action == action
    if action.library is not None or action.users - action.use_fake_user - plays > 0:
        return False
    if plays:
        earlier = bpy.data.actions.get(take_store.about(text)["earlier"])
        assign(obj, earlier)
        if earlier is None:
            restore_pose(obj, text)
    bpy.data.actions.remove(action)
    return True


def _index(props: ANYRIG_Takes) -> int:
    return next(
        (i for i, text in enumerate(bpy.data.texts) if take_store.is_take(text) and take_store.about(text)["key"] == props.key),
        -1,
    )


def _set_index(props: ANYRIG_Takes, index: int) -> None:
    text = bpy.data.texts[index] if 0 <= index < len(bpy.data.texts) else None
    props.key = take_store.about(text)["key"] if text is not None and take_store.is_take(text) else ""


class ANYRIG_Takes(bpy.types.PropertyGroup):
    key: StringProperty(name="Take", description="The take chosen in the list", options={"HIDDEN"})
    # the list holds all texts and hides those that are no takes, so indices shift: the key is stored
    index: IntProperty(name="Take", description="The take chosen in the list", get=_index, set=_set_index, options={"SKIP_SAVE"})
    other: StringProperty(
        name="Compare With",
        description="Action to compare the take with; if empty, the one that the armature played before the take",
    )


CLASSES = (
    ANYRIG_Takes,
    ANYRIG_OT_take_show,
    ANYRIG_OT_take_compare,
    ANYRIG_OT_take_apply,
    ANYRIG_OT_take_delete,
    ANYRIG_OT_take_recover,
)


def reset() -> None:
    """Forget the copies that were offered last."""
    _offered.clear()


def register() -> None:
    for each in CLASSES:
        bpy.utils.register_class(each)
    bpy.types.Scene.anyrig_takes = PointerProperty(type=ANYRIG_Takes)


def unregister() -> None:
    del bpy.types.Scene.anyrig_takes
    for each in reversed(CLASSES):
        bpy.utils.unregister_class(each)
    reset()

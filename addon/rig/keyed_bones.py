"""Chooses the bones of an armature that a take may key: deforming, selected, or those of a bone collection."""

from __future__ import annotations

import bpy

from ...backend.errors import UserError

DEFORM, SELECTED, COLLECTION = "DEFORM", "SELECTED", "COLLECTION"
WORDS = {DEFORM: "deform", SELECTED: "selected", COLLECTION: "collection"}


def choice_of(words: str) -> tuple[str, str] | None:
    """Read 'deform', 'selected' or 'collection:NAME' from a command or file -> choice and collection; None for other words."""
    kind, colon, name = words.partition(":")
    choice = next((each for each, word in WORDS.items() if word == kind), None)
    fits = bool(name) if choice == COLLECTION else not colon
    return (choice, name) if choice is not None and fits else None


def words_of(choice: str, collection: str = "") -> str:
    """The words that `choice_of` reads as this choice and collection."""
    return f"{WORDS[choice]}:{collection}" if choice == COLLECTION else WORDS[choice]


def chosen_bones(obj: bpy.types.Object, choice: str = DEFORM, collection: str = "") -> list[str] | None:
    """The names of the chosen bones for `rig_from_armature`, which leaves out bones that move nothing; None for all.

    Raises UserError if nothing is selected, or there is no such collection or nothing in it.
    """
    if choice == DEFORM or obj.type != "ARMATURE":
        return None
    if choice == SELECTED:
        names = [bone.name for bone in obj.pose.bones if is_selected(bone)] if obj.pose else []
        if not names:
            raise UserError(
                f"No bone of armature '{obj.name}' is selected: select some in pose mode, or set Bones to Deform.",
                fix="deform_bones",
            )
        return names
    return _of_collection(obj, collection)


def is_selected(bone: bpy.types.PoseBone) -> bool:
    # the selection belongs to the object from Blender 5.0 on, and to the armature before
    return bone.select if hasattr(bone, "select") else bone.bone.select


def _of_collection(obj: bpy.types.Object, name: str) -> list[str]:
    found = obj.data.collections_all.get(name)
    if found is None:
        known = ", ".join(f"'{each.name}'" for each in obj.data.collections_all) or "none"
        raise UserError(
            f"Armature '{obj.name}' has no bone collection '{name}': choose one of its own ({known}).", fix="deform_bones"
        )
    names = [bone.name for bone in found.bones_recursive]
    if not names:
        raise UserError(f"Bone collection '{name}' of armature '{obj.name}' is empty: choose another one.", fix="deform_bones")
    return names

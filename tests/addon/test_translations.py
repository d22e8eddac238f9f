"""Every translated text is one that the code shows, and every name in the panel is translated."""

import ast
import string
from pathlib import Path
from typing import Any

import bpy
import pytest
from anyrig.addon import fixes, sides, translations

ROOT = Path(__file__).resolve().parents[2]
SIDEBAR = ("panels", "takes_panel", "check_panel", "queue_panel", "weights", "naming")
TABLES = ("translations.py", "german_tooltips.py")
KINDS = ("Operator", "Panel", "Menu", "UIList", "FileHandler", "PropertyGroup", "AddonPreferences")
# they wait for Esc, and no menu lists them
UNSEEN = ("ANYRIG_OT_watch_escape", "ANYRIG_OT_take_turns")
OWN = {f"anyrig.addon.{name}" for name in SIDEBAR}


pytestmark = pytest.mark.usefixtures("registered")


def said() -> set[str]:
    """All string literals of the add-on but the translations themselves."""
    paths = [path for path in (ROOT / "addon").glob("*.py") if path.name not in TABLES]
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def shown() -> set[tuple[str, str]]:
    """(context, text) of the names that the panel's settings, sections and operators show."""
    settings = [
        each
        for each in bpy.context.scene.anyrig.bl_rna.properties
        if not each.is_hidden and each.identifier not in ("rna_type", "name")
    ]
    texts = {each.name for each in settings} | set(sides.NAMES)
    texts |= {cls.bl_label for cls in bpy.types.Panel.__subclasses__() if cls.__module__ in OWN}
    texts |= {item.name for each in settings if each.type == "ENUM" for item in each.enum_items_static}
    buttons = {getattr(bpy.ops.anyrig, name).get_rna_type().name for name in dir(bpy.ops.anyrig) if name != "watch_escape"}
    buttons |= {fix.label for fix in fixes.FIXES.values()}
    return {("*", text) for text in texts} | {("Operator", text) for text in buttons}


def written(calls: set[str]) -> set[str]:
    """The texts that the sidebar's modules write into their buttons or labels."""
    trees = [ast.parse((ROOT / "addon" / f"{name}.py").read_text(encoding="utf-8")) for name in SIDEBAR]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    drawn = [node for node in nodes if isinstance(node.func, ast.Attribute) and node.func.attr in calls]
    values = [keyword.value for node in drawn for keyword in node.keywords if keyword.arg == "text"]
    return {str(value.value) for value in values if isinstance(value, ast.Constant) and value.value}


def registered_classes() -> list[Any]:
    """All classes of the add-on that Blender knows now, by whatever module."""
    classes = [cls for kind in KINDS for cls in getattr(bpy.types, kind).__subclasses__()]
    return [cls for cls in classes if cls.__module__.startswith("anyrig.addon") and getattr(cls, "is_registered", True)]


def said_of(cls: Any) -> set[str]:
    """What a user can read of a class: its description, and its settings' names, tooltips and choices."""
    found = {getattr(cls, "bl_description", "")}
    if issubclass(cls, bpy.types.Operator):
        kind = getattr(bpy.ops.anyrig, cls.bl_idname.partition(".")[2]).get_rna_type()
    else:
        kind = cls.bl_rna
        found.add(getattr(cls, "bl_label", ""))
    for name in getattr(cls, "__annotations__", {}):
        each = kind.properties.get(name)
        if each is None or each.is_hidden:
            continue
        found |= {each.description, each.name if each.name != each.identifier else ""}  # a name that nobody gave is not shown
        if each.type == "ENUM":
            found |= {text for item in each.enum_items_static for text in (item.name, item.description)}
    return found - {""}


def test_every_text_of_every_class_is_translated() -> None:
    classes = [cls for cls in registered_classes() if cls.__name__ not in UNSEEN]
    assert len(classes) > 50
    missing = {(cls.__name__, text) for cls in classes for text in said_of(cls) if ("*", text) not in translations.GERMAN}
    assert missing == {("ANYRIG_PT_capture", "AnyRig"), ("ANYRIG_MT_menu", "AnyRig")}, (
        "give it a German text in addon/german_tooltips.py"
    )


def test_translated_texts_are_in_the_code() -> None:
    strange = {text for _, text in translations.GERMAN} - said()
    assert not strange, "nobody says this any more"


def test_names_in_the_panel_are_translated() -> None:
    assert shown() - set(translations.GERMAN) == {("*", "AnyRig")}


def test_texts_of_the_sidebar_are_translated() -> None:
    assert {("Operator", text) for text in written({"operator"})} <= set(translations.GERMAN)
    assert {("*", text) for text in written({"label", "prop", "prop_search", "menu"})} <= set(translations.GERMAN)


def test_translations_fill_in_the_same() -> None:
    def fields(text: str) -> set[tuple[str | None, str | None]]:
        return {(name, form) for _, name, form, _ in string.Formatter().parse(text) if name is not None}

    assert all(fields(key) == fields(text) for (_, key), text in translations.GERMAN.items())

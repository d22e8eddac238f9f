"""Run by Blender: makes what the test starts from. `blender -b --python scene.py -- REPOSITORY FOLDER`.

walk.mp4: the demo's character walks. walker.blend: the same character in its rest pose, with nothing else in the scene.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import bpy


def main(repository: str, folder: str) -> None:
    spec = ModuleSpec("anyrig", None, is_package=True)
    spec.submodule_search_locations = [repository]
    sys.modules["anyrig"] = importlib.util.module_from_spec(spec)
    from anyrig.addon.dev import demo, demo_character

    bpy.ops.object.select_all(action="SELECT")
    bpy.ops.object.delete()
    walker = demo_character.make_character(demo_character.WALKER, demo_character.WALK_FRAMES)
    demo.render_clip(walker, walker.animation_data.action, 1.05, 0.12, Path(folder, "walk.mp4"))
    demo.pose_reference(walker, None)
    for action in list(bpy.data.actions):
        bpy.data.actions.remove(action)
    bpy.context.view_layer.objects.active = walker
    walker.select_set(True)
    bpy.context.scene.frame_set(1)
    bpy.ops.wm.save_as_mainfile(filepath=str(Path(folder, "walker.blend")))


if __name__ == "__main__":
    main(*sys.argv[sys.argv.index("--") + 1 :])

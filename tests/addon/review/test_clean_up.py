"""Clean Up Take: settings are stored with the take, whose captured motion stays."""

import bpy
import numpy as np
import pytest
from anyrig.addon.capture import take_store
from anyrig.addon.review import clean_up
from anyrig.backend.motion.clean_up import HEADINGS, PATHS, PRESETS, preset, settings_of
from anyrig.tests.addon.fixtures import human
from anyrig.tests.addon.playback import curves_of, keys_of
from anyrig.tests.addon.review.test_takes import captured

pytestmark = pytest.mark.usefixtures("registered_apart")


def count(obj: bpy.types.Object) -> int:
    return sum(len(keys_of(curve)) for curve in curves_of(obj.animation_data.action))


def test_a_preset_is_applied_and_stored() -> None:
    obj = human()
    text = captured(obj)
    raw, before = take_store.read(text).motion, count(obj)
    assert bpy.ops.anyrig.take_clean_up(smooth=1.0, feet=1.0, keys_degrees=5.0, keys_percent=20.0) == {"FINISHED"}
    stored = take_store.read(text).motion
    assert settings_of(stored).feet == 1.0 and settings_of(stored).keys_degrees == 5.0
    assert np.array_equal(stored.rotations, raw.rotations) and count(obj) < before
    assert bpy.ops.anyrig.take_clean_up(preset="RAW") == {"FINISHED"}
    assert count(obj) == before and settings_of(take_store.read(text).motion) == preset("raw")


def test_the_choices_are_those_of_the_settings() -> None:
    def names(items: tuple[tuple[str, str, str], ...]) -> list[str]:
        return [name.lower().replace("_", " ") for name, _, _ in items]

    assert names(clean_up.HEADINGS) == list(HEADINGS) and names(clean_up.PATHS) == list(PATHS)
    assert [name.lower() for name, _, _ in clean_up.PRESETS] == list(PRESETS)

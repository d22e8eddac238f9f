"""Clean-up: settings, presets, and the one function that applies them to a stored take, in order and without the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import UserError
from ..rig.rig import Rig
from .cycles import fill_hidden, one_loop
from .foot_pins import pin_feet
from .heading import MODES as HEADINGS
from .heading import front_views, repair_heading, steady_heading
from .motion import Motion
from .smoothing import smoothed
from .trajectory import MODES as PATHS
from .trajectory import with_travel

STORED = "clean_up"  # in the provenance of a take
FRONT_SHARE = 0.5  # of the frames that may be seen from the front or back without a word


@dataclass(frozen=True)
class CleanUp:
    """How a take is cleaned up. Every strength is 0..1, and 0 changes nothing. Raises UserError for values outside of that.

    repair: of flips and sudden turns. hidden: how far hidden limbs follow those of the other side.
    smooth, smooth_seconds: of jitter, and the width that it is averaged over. limbs: joints with factors of that width, for all that hangs on
    them. heading, heading_strength, heading_seconds: see heading.steady_heading.
    path, path_strength: see trajectory.with_travel. feet: how firmly feet stand. loop: whether to write one cycle alone.
    keys_degrees, keys_percent: greatest error of fewer keys, in degrees at joints and percent of the rig's size at the ends; 0 keeps a key
    on every frame.
    """

    repair: float = 0.0
    hidden: float = 0.0
    smooth: float = 0.0
    smooth_seconds: float = 0.1
    limbs: tuple[tuple[str, float], ...] = ()
    heading: str = "free"
    heading_strength: float = 1.0
    heading_seconds: float = 0.3
    path: str = PATHS[0]
    path_strength: float = 1.0
    feet: float = 0.0
    loop: bool = False
    keys_degrees: float = 0.0
    keys_percent: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "limbs", tuple((str(name), float(factor)) for name, factor in self.limbs))
        for name in ("repair", "hidden", "smooth", "heading_strength", "path_strength", "feet"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"Clean-up '{name}' is {getattr(self, name)}: choose a value from 0 to 1.")
        for name in ("smooth_seconds", "heading_seconds", "keys_degrees", "keys_percent"):
            if not 0 <= getattr(self, name) < 1e6:
                raise UserError(f"Clean-up '{name}' is {getattr(self, name)}: choose 0 or more.")
        for name, choices in (("heading", HEADINGS), ("path", PATHS)):
            if getattr(self, name) not in choices:
                raise UserError(f"Clean-up '{name}' is '{getattr(self, name)}': choose one of {', '.join(choices)}.")

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> CleanUp:
        """Settings as `asdict` gives them, also by way of JSON. Raises UserError for values that are none of them."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise UserError(f"Clean-up '{min(unknown)}' is unknown: the take is of a newer version of AnyRig.")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise UserError(f"The take's clean-up settings cannot be read ({error}): set them again.") from error


PRESETS = {
    "raw": CleanUp(),
    "natural": CleanUp(
        repair=1.0, smooth=1.0, heading="smoothed", heading_strength=0.5, path="ground", feet=1.0, keys_degrees=1.0, keys_percent=1.0
    ),
    "game_loop": CleanUp(
        repair=1.0, hidden=1.0, smooth=1.0, heading="locked", path="in place", feet=1.0, loop=True, keys_degrees=1.0, keys_percent=1.0
    ),
}  # fmt: skip


def preset(name: str) -> CleanUp:
    """The preset of this name. Raises UserError for another name."""
    if name not in PRESETS:
        raise UserError(f"There is no clean-up '{name}': choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def settings_of(motion: Motion) -> CleanUp:
    """The settings that are stored in a take; raw if it has none."""
    return CleanUp.from_values(motion.provenance.get(STORED, {}))


def with_settings(motion: Motion, settings: CleanUp) -> Motion:
    """The stored take with these settings: its movement stays as it was captured."""
    values = {**asdict(settings), "limbs": [list(limb) for limb in settings.limbs]}
    return replace(motion, provenance={**motion.provenance, STORED: values})


def clean_up(rig: Rig, motion: Motion, settings: CleanUp) -> Motion:
    """The take, cleaned up. Keys are reduced later, when they are written. Settings that change nothing return the take itself.

    Heading first, since a flip would spoil all means; then jitter, the path, and feet on it; a loop of all that at the end.
    A loop on the spot is pinned as it would travel.
    """
    changed = repair_heading(rig, motion, settings.repair)
    changed = smoothed(rig, changed, settings.smooth_seconds, settings.smooth, dict(settings.limbs))
    changed = fill_hidden(rig, changed, settings.hidden)
    changed = steady_heading(rig, changed, settings.heading, settings.heading_strength, settings.heading_seconds)
    spot = settings.path == "in place"
    if spot and settings.feet:  # feet that stand on the ground pass beneath a body on the spot
        moving = with_travel(rig, changed, "ground", settings.path_strength)
        held = pin_feet(rig, moving, settings.feet)
        changed = replace(changed, rotations=held.rotations, positions=held.positions)
        changed = with_travel(rig, changed, settings.path, settings.path_strength)
    else:
        changed = with_travel(rig, changed, settings.path, settings.path_strength)
        changed = pin_feet(rig, changed, settings.feet)
    return one_loop(rig, changed) if settings.loop else changed


def doubts(rig: Rig, motion: Motion, settings: CleanUp) -> list[str]:
    """Sentences on what makes a clean take doubtful: views from the front or back, and a camera whose motion is not known."""
    found = []
    front = float(front_views(rig, motion).mean())
    if front > FRONT_SHARE:
        found.append(
            f"{front:.0%} of the take is seen from the front or back, where the swing of limbs hardly shows: a view from the side is better."
        )
    unknown = motion.provenance.get("refine", {}).get("camera", "unknown") == "unknown"
    if unknown and settings.path in ("ground", "free"):
        found.append("Whether the camera itself moved could not be told: if it did, its motion is in the path.")
    return found

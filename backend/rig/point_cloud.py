"""`Surface`: a skinned point cloud in place of a rig's meshes, which only Blender has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError


@dataclass(frozen=True, eq=False)
class Surface:
    """P points on the rig's meshes at rest, in armature space. Raises UserError for wrong shapes.

    points: (P, 3). normals: (P, 3), of length 1, outwards. colours: (P, 3) 0..1, sRGB as displayed.
    joints: (P, 4) int, the joints that move each point. weights: (P, 4) of those joints; rows sum to 1.
    """

    points: NDArray[np.float32]
    normals: NDArray[np.float32]
    colours: NDArray[np.float32]
    joints: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.points)
        widths = {"points": 3, "normals": 3, "colours": 3, "joints": 4, "weights": 4}
        for key, width in widths.items():
            value = np.array(getattr(self, key), dtype=np.int32 if key == "joints" else np.float32)
            if value.shape != (count, width):
                raise UserError(f"The surface's {key} have shape {value.shape}, expected {(count, width)}.")
            value.flags.writeable = False
            object.__setattr__(self, key, value)

    def __len__(self) -> int:
        return len(self.points)

"""A scene: pictures of one rig from about one side, encoded once, with what is true in each. Files that a training run reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...arrays import Image
from ...errors import NOT_NPZ, UserError
from ...geometry.camera import view_yaw
from ...geometry.rotations import matrix_to_rot6d
from ...model.encode_rig import ReferencePairs, SkeletonFeatures
from ...rig.skeleton import Skeleton, ancestor_mask, scale_of
from ...whole_file import whole_file
from ..samples.samples import Sample

REFERENCES = 2  # the first pictures of a scene: poses that a user's reference may show
PICTURES = 8  # of a scene
LEVELS = 127  # steps to either side of zero that a stored token has


@dataclass(frozen=True, eq=False)
class Scene:
    """P pictures of a rig. The first REFERENCES show poses as references do.

    body: the rig. tokens: (P, S, C) int8, and size: (P, S), the value of LEVELS in each token. apart: the pictures have nothing to do
    with one another; otherwise those after the references follow each other in time, seen by one camera.
    local: (P, K, 3, 3) local rotations, and position: (P, K, 3) relative to the root, both in the rig's own axes (y up) and units.
    uv: (P, K, 2) in the crops. azimuth: (P,) of the cameras, radians. unit: (P,) length of half the crop's side at the root.
    crops: the pictures as PNG files, for trained eyes.
    """

    body: SkeletonFeatures
    tokens: NDArray[np.int8]
    size: NDArray[np.float16]
    apart: bool
    local: NDArray[np.float32]
    position: NDArray[np.float32]
    uv: NDArray[np.float32]
    azimuth: NDArray[np.float32]
    unit: NDArray[np.float32]
    crops: Sequence[bytes]

    def sample(self, reference: int, frames: Sequence[int], more: Sequence[int] = ()) -> Sample:
        """The pictures `frames` as a window, with the picture `reference` as its first reference pair and the poses `more` as others.

        As in samples.Windows, everything is in the frame of the reference's camera, wherever the camera of the window stands.
        """
        joints = ~self.body.skeleton.tip
        scale = scale_of(self.body.skeleton.rest[joints], self.position[reference, joints])
        yaw = view_yaw(float(self.azimuth[reference]))
        position, local = self.position @ yaw.T / scale, self.local.astype(np.float64)
        local[:, 0] = yaw @ local[:, 0]
        pairs = [reference, *more]
        chosen = [reference, *frames]
        return Sample(
            self.body,
            ReferencePairs(
                scale,
                position[pairs],
                matrix_to_rot6d(local[pairs]),
                self.uv[reference].astype(np.float64),
                float(self.unit[reference]) / scale,
            ),
            restore_tokens(self.tokens[chosen], self.size[chosen]),
            torch.from_numpy(position[list(frames)].astype(np.float32)),
            torch.from_numpy(local[list(frames)].astype(np.float32)),
            torch.from_numpy(self.uv[list(frames)]),
            self.apart,
            torch.from_numpy(np.stack([unpack_picture(self.crops[picture]) for picture in chosen])),
        )

    def save(self, path: Path) -> None:
        """Write an npz file, at once or not at all."""
        skeleton = self.body.skeleton
        arrays: dict[str, Any] = {key: getattr(self, key) for key in FIELDS}
        arrays |= {f"skeleton.{key}": getattr(skeleton, key) for key in SKELETON_FIELDS}
        arrays |= {f"body.{key}": getattr(self.body, key) for key in BODY_FIELDS}
        arrays |= {"crops": np.frombuffer(b"".join(self.crops), np.uint8), "ends": np.cumsum([len(each) for each in self.crops])}
        with whole_file(path) as part, part.open("wb") as file:
            np.savez(file, apart=self.apart, joint_names=np.array(skeleton.names), **arrays)

    @classmethod
    def load(cls, path: Path) -> Scene:
        """Read a scene. Raises UserError if the file is missing or not a scene."""
        try:
            with np.load(path) as data:
                skeleton = Skeleton(
                    names=tuple(str(name) for name in data["joint_names"]),
                    **{key: data[f"skeleton.{key}"] for key in SKELETON_FIELDS},
                )
                body = SkeletonFeatures(
                    skeleton=skeleton,
                    ancestors=ancestor_mask(skeleton.parents),
                    **{key: data[f"body.{key}"] for key in BODY_FIELDS},
                )
                blob, ends = data["crops"].tobytes(), data["ends"].tolist()
                crops = [blob[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
                return cls(body=body, apart=bool(data["apart"]), crops=crops, **{key: data[key] for key in FIELDS})
        except OSError as error:
            raise UserError(f"Scene '{path}' cannot be read ({error}): draw it again with `scenes`.") from error
        except NOT_NPZ as error:
            raise UserError(f"'{path}' is not a scene ({error}): remove it and draw it again with `scenes`.") from error


FIELDS = ("tokens", "size", "local", "position", "uv", "azimuth", "unit")
SKELETON_FIELDS = ("parents", "offsets", "tip", "translates", "static")
BODY_FIELDS = ("relation", "names", "static_position", "static_rotation")


def pack_picture(crop: Image) -> bytes:
    """A crop (224, 224, 3) uint8 RGB as a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


def unpack_picture(data: bytes) -> Image:
    """The inverse of `pack_picture`."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def store_tokens(tokens: Tensor) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Tokens (P, S, C) -> int8 (P, S, C) and the value of LEVELS (P, S): a token keeps its direction, and half a step of its largest entry."""
    largest = tokens.float().abs().amax(-1).clamp(1e-4, 6e4)
    steps = (tokens.float() * (LEVELS / largest[..., None])).round().clamp(-LEVELS, LEVELS)
    return steps.to("cpu", torch.int8).numpy(), largest.to("cpu", torch.float16).numpy()


def restore_tokens(steps: NDArray[np.int8], size: NDArray[np.float16]) -> Tensor:
    """The inverse of `store_tokens`, float32."""
    return torch.from_numpy(steps).float() * (torch.from_numpy(size.astype(np.float32)) / LEVELS)[..., None]

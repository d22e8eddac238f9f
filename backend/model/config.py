"""The sizes of a network. Every weights file holds its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the network. The defaults are the released configuration.

    The fields' names are those in the weights files.
    """

    width: int = 256  # D, of the model
    heads: int = 8  # H
    image_width: int = 1024  # C, of an image token
    name_width: int = 768  # E, of a joint's name
    # stage 1
    ref_layers: int = 4
    layers: int = 8
    # stage 2
    rest_layers: int = 4
    pose_layers: int = 4
    memory_layers: int = 4
    decoder_layers: int = 8
    cross_layers: int = 6  # the first of the decoder's layers, which attend to the reference pairs
    image_radius: int = 2  # frames to either side whose image tokens a frame attends to
    joint_radius: int = 2  # frames to either side that a joint attends to
    dropout: float = 0.1
    aids: bool = False  # the geometric layers of `lite`
    grid: int = 14  # for them, image tokens are a map of grid x grid
    lift_layers: int = 2  # their layers that find depth
    # for them, channels of a second map of 2 grid x 2 grid cells that is trained with the network (model/eyes.py); 0 without it
    eyes: int = 0
    encoder: str = "dinov2-large"
    names: str = "t5-base"
    tips: bool = False  # leaf bones get a joint at their tail
    # trained on natural skeletons (backend/rig/natural_skeleton.py); False: on the trees that armatures have, which it is shown then
    natural: bool = False

    @property
    def token_width(self) -> int:
        """Channels of an image token with what the trained eyes see in its four cells."""
        return self.image_width + 4 * self.eyes

    @property
    def margins(self) -> tuple[int, int]:
        """Frames to either side that an output frame of stage 1 and of stage 2 depends on.

        Windows that overlap by this much give the same result as the whole clip (docs/architecture.md, Any length, exactly).
        """
        stage1 = self.image_radius + (self.joint_radius * self.lift_layers if self.aids else 0)
        return stage1, self.joint_radius * (self.pose_layers + self.decoder_layers)


LITE = Config(
    width=128, heads=4, image_width=432, name_width=128, ref_layers=2, layers=2, rest_layers=2, pose_layers=1, memory_layers=1,
    decoder_layers=2, cross_layers=2, image_radius=0, dropout=0.0, aids=True, eyes=48, encoder="efficientnet-lite0", names="hashed", tips=True,
    natural=True,
)  # fmt: skip
TINY = Config(
    width=32, heads=2, image_width=432, name_width=128, ref_layers=1, layers=1, rest_layers=1, pose_layers=1, memory_layers=1,
    decoder_layers=1, cross_layers=1, image_radius=1, dropout=0.0, aids=True, encoder="efficientnet-lite0", names="hashed", tips=True,
    natural=True,
)  # fmt: skip

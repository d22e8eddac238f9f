"""The sizes of a network; kept inside its weights file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Sizes of the network; the defaults are the released configuration. Kept inside the weights file.

    aids: `lite`'s geometric aids, on a grid x grid map of image tokens, and the layers that lift what they see to 3D.
    image_radius, joint_radius: frames to either side.
    """

    width: int = 256
    heads: int = 8
    image_width: int = 1024
    name_width: int = 768
    ref_layers: int = 4
    layers: int = 8
    rest_layers: int = 4
    pose_layers: int = 4
    memory_layers: int = 4
    decoder_layers: int = 8
    cross_layers: int = 6
    image_radius: int = 2
    joint_radius: int = 2
    dropout: float = 0.1
    aids: bool = False
    grid: int = 14
    lift_layers: int = 2
    encoder: str = "dinov2-large"
    names: str = "t5-base"
    tips: bool = False

    @property
    def margins(self) -> tuple[int, int]:
        """Frames to either side that one output frame of stage 1 and of stage 2 depends on (docs/architecture.md, Any length, exactly)."""
        stage1 = self.image_radius + (self.joint_radius * self.lift_layers if self.aids else 0)
        return stage1, self.joint_radius * (self.pose_layers + self.decoder_layers)


LITE = Config(
    width=128, heads=4, image_width=432, name_width=128, ref_layers=2, layers=2, rest_layers=2, pose_layers=1, memory_layers=1,
    decoder_layers=2, cross_layers=2, image_radius=0, dropout=0.0, aids=True, encoder="efficientnet-lite0", names="hashed", tips=True,
)  # fmt: skip
TINY = Config(
    width=32, heads=2, image_width=432, name_width=128, ref_layers=1, layers=1, rest_layers=1, pose_layers=1, memory_layers=1,
    decoder_layers=1, cross_layers=1, image_radius=1, dropout=0.0, aids=True, encoder="efficientnet-lite0", names="hashed", tips=True,
)  # fmt: skip

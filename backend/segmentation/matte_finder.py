"""Finds what stands out in single frames with ISNet, on the device that there is."""

from __future__ import annotations

import torch

from ..arrays import Image
from ..hardware.device_memory import ran_out, release_device_memory
from .film import STEP
from .isnet import find_mattes, load_isnet
from .isnet_files import is_bundled

OFF = "off"  # instead of a file: only models of clear origin


def uses_isnet(isnet: str) -> bool:
    """Tell whether ISNet can be used. isnet: a file of the user's own, "" for AnyRig's, OFF for none."""
    return isnet != OFF and (isnet != "" or is_bundled())


class MatteFinder:
    """Finds the matte of one frame (H, W, 3) uint8 RGB -> (512, 512) uint8, squashed. Goes on with the CPU if the device's memory
    runs out."""

    def __init__(self, device: torch.device, isnet: str = "") -> None:
        self._isnet, self._device = isnet, device
        self._network = load_isnet(device, isnet)

    @property
    def step(self) -> int:
        """Frames from key frame to key frame: a graphics card looks at every one."""
        return STEP if self._device.type == "cpu" else 1

    def __call__(self, image: Image) -> Image:
        try:
            return find_mattes(self._network, [image])[0]
        except RuntimeError as error:
            if self._device.type == "cpu" or not ran_out(error):
                raise
            del self._network
            release_device_memory(error)
        self._device = torch.device("cpu")
        self._network = load_isnet(self._device, self._isnet)
        return self(image)

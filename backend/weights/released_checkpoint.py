"""Reads, checks and converts the public V2 checkpoint and its encoders (docs/network.md, Public weights)."""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..encoders import dinov2, t5
from ..encoders.dinov2 import Dinov2, Dinov2Encoder
from ..encoders.t5 import T5Encoder
from ..encoders.t5_tokenizer import Tokenizer
from ..errors import UserError
from ..model.config import Config
from ..model.network import Video2Pose2Rot
from ..model.skip_init import build_without_init
from ..rig.joint_names import clean_name
from .registry import TABLE, Folder

STATES = ("model_state", "model", "model_state_dict", "state_dict")
BATCH = 64  # names per call
# harmless things that training scripts store beside the tensors: numbers and arrays of NumPy 1 and 2, and their options
_NUMPY = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.zeros(1).__reduce__()[0]}
HARMLESS: list[Any] = [
    np.ndarray, np.dtype, argparse.Namespace, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    *((made, f"numpy.{core}.multiarray.{name}") for name, made in _NUMPY.items() for core in ("core", "_core")),
]  # fmt: skip
LICENCE = "as its publisher says, kehong/MoCapAnythingV2-weights; converted, otherwise unchanged"

N = TypeVar("N", bound=nn.Module)
Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """name -> shape."""
    return {key: tuple(value.shape) for key, value in tensors.items()}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the network's state dict from a .pt file. Runs no code from the file. Raises UserError."""
    try:
        with torch.serialization.safe_globals(HARMLESS):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"Checkpoint '{path}' cannot be read ({error.strerror or error}): download it again.") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"Checkpoint '{path}' is damaged or holds more than weights ({first}): download it again.") from error
    state = next((found[key] for key in STATES if key in found), found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"Checkpoint '{path}' holds no network under {', '.join(STATES)}: choose video2pos2rot_epoch60.pt.")
    return {key.removeprefix("module."): value for key, value in state.items()}


def infer_config(shapes: Shapes, source: str) -> Config:
    """Infer widths and depths from a state dict's shapes. Raises UserError if the necessary tensors are missing."""
    try:
        width, image_width = shapes["video2pos.ref_encoder.img_proj.weight"]
        table, heads = shapes["pos2rot.pose_encoder.temporal_blocks.0.attn.temporal_bias.weight"]
        name_width = shapes["pos2rot.decoder.joint_t5proj.weight"][1]
    except (KeyError, ValueError) as error:
        raise UserError(f"'{source}' is not a video2pose2rot network (no {error}): choose video2pos2rot_epoch60.pt.") from error
    count = lambda stem: len({found[1] for key in shapes if (found := re.match(rf"{stem}\.(\d+)\.", key))})  # noqa: E731
    stage1, stage2 = r"video2pos\.(?:ref_encoder|temporal_model)", r"pos2rot"
    return Config(
        width=width, heads=heads, image_width=image_width, name_width=name_width, ref_layers=count(rf"{stage1}\.fusion_blocks"),
        layers=count(rf"{stage1}\.blocks_img"), rest_layers=count(rf"{stage2}\.rest_encoder\.layers"),
        pose_layers=count(rf"{stage2}\.pose_encoder\.temporal_blocks"), memory_layers=count(rf"{stage2}\.memory_encoder\.layers"),
        decoder_layers=count(rf"{stage2}\.decoder\.blocks"), cross_layers=_count_cross_layers(shapes), joint_radius=(table - 1) // 2,
        encoder=dinov2.NAMES.get(image_width, f"dinov2 of width {image_width}"), names="t5-base" if name_width == 768 else f"t5 of width {name_width}",
    )  # fmt: skip


def _count_cross_layers(shapes: Shapes) -> int:
    return len({key.split(".")[3] for key in shapes if re.match(r"pos2rot\.decoder\.blocks\.\d+\.cross\.", key)})


def shape_differences(expected: Shapes, found: Shapes) -> str:
    """The tensors that differ, as a text with names and shapes; '' if none do."""
    unknown, missing = sorted(found.keys() - expected.keys()), sorted(expected.keys() - found.keys())
    other = [key for key in sorted(expected.keys() & found.keys()) if expected[key] != found[key]]
    kinds = (
        ("that AnyRig does not know", [f"{key} {_shape_text(found[key])}" for key in unknown]),
        ("missing", [f"{key} {_shape_text(expected[key])}" for key in missing]),
        ("of another shape", [f"{key} {_shape_text(found[key])} instead of {_shape_text(expected[key])}" for key in other]),
    )
    listed = (f"{len(which)} {what}: {', '.join(which[:3])}{', ...' if len(which) > 3 else ''}" for what, which in kinds if which)
    return "; ".join(listed)


def _shape_text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def convert_checkpoint(checkpoint: Path, out: Path, provenance: Mapping[str, object]) -> Config:
    """Convert a .pt checkpoint to safetensors in float32 with the config inside. Raises UserError if it is another network."""
    state = {key: value.float().contiguous() for key, value in read_checkpoint(checkpoint).items()}
    config = infer_config(shapes_of(state), str(checkpoint))
    expected = shapes_of(build_without_init(lambda: Video2Pose2Rot(config)).state_dict())
    problem = shape_differences(expected, shapes_of(state))
    if problem:
        raise UserError(
            f"Checkpoint '{checkpoint}' is another version of the network ({problem}): update AnyRig, or get the file again."
        )
    metadata = {"config": json.dumps(asdict(config)), "card": json.dumps({"name": "release", **provenance}), "licence": LICENCE}
    partial = out.with_name(f"{out.name}.partial")
    try:
        save_file({key: value.clone() for key, value in state.items()}, partial, metadata)
        partial.replace(out)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"'{out}' cannot be written ({error}): make room or choose another folder for the weights.") from error
    return config


def image_encoder(folder: Folder, device: torch.device, width: int) -> Dinov2Encoder:
    """Load DINOv2 from the folder. width: of the tokens that the network reads. Raises UserError."""
    path = folder.file(TABLE[1])
    tensors = _encoder_tensors(path, dinov2.parameters_to_keep)
    config = dinov2.config_of(shapes_of(tensors), str(path))
    if config.width != width:
        raise UserError(
            f"'{path}' is {config.name} and gives tokens {config.width} wide, but the network reads {width}: get {_encoder_remedy(width)}."
        )
    return Dinov2Encoder(_load_strictly(lambda: Dinov2(config), tensors, path), device)


def _encoder_remedy(width: int) -> str:
    return f"model.safetensors of facebook/{dinov2.NAMES[width]}" if width in dinov2.NAMES else "the encoder it was trained with"


class T5Names:
    """Encodes joint names as the released network reads them. T5 is loaded for new names only, and freed afterwards."""

    def __init__(self, folder: Folder, width: int) -> None:
        self._weights, self._tokenizer, self.width = folder.file(TABLE[2]), folder.file(TABLE[3]), width
        self._known: dict[str, np.ndarray] = {"": np.zeros(width, np.float32)}

    def __call__(self, names: Sequence[str]) -> np.ndarray:
        """Names (J) as in the rig -> (J, E) float32: the mean over each cleaned name's tokens, zeros for a name without meaning.

        Raises UserError if a file is missing or unreadable, or does not have the network's size.
        """
        clean = [clean_name(name) for name in names]
        unseen = list(dict.fromkeys(name for name in clean if name not in self._known))
        if unseen:
            self._known |= zip(unseen, self._encode(unseen), strict=True)
        return np.stack([self._known[name] for name in clean])

    @torch.inference_mode()
    def _encode(self, names: Sequence[str]) -> np.ndarray:
        tokenizer = Tokenizer.load(self._tokenizer)
        tensors = _encoder_tensors(self._weights, t5.parameters_to_keep)
        config = t5.config_of(shapes_of(tensors), str(self._weights))
        if config.width != self.width:
            raise UserError(
                f"'{self._weights}' gives vectors {config.width} wide, but the network reads {self.width}: get that of t5-base."
            )
        network = _load_strictly(lambda: T5Encoder(config), tensors, self._weights)
        ids = [tokenizer.encode(name) for name in names]
        largest = max(map(max, ids))
        if largest >= config.words:
            raise UserError(f"'{self._tokenizer}' has more pieces than '{self._weights}' (id {largest}): get both from t5-base.")
        return np.concatenate(
            [_encode_batch(network, ids[start : start + BATCH], tokenizer.pad) for start in range(0, len(ids), BATCH)]
        )


def _encode_batch(network: T5Encoder, ids: Sequence[Sequence[int]], pad: int) -> np.ndarray:
    length = max(map(len, ids))
    rows = torch.tensor([[*row, *[pad] * (length - len(row))] for row in ids])
    mask = torch.arange(length)[None] < torch.tensor([len(row) for row in ids])[:, None]
    return network.pooled(rows, mask).numpy()


def _encoder_tensors(path: Path, kept: Callable[[Sequence[str]], Mapping[str, str]]) -> dict[str, Tensor]:
    """Read the encoder's tensors, under our names. Leaves out the rest of the file."""
    try:
        with safe_open(path, "pt") as file:
            return {ours: file.get_tensor(key).float() for key, ours in kept(list(file.keys())).items()}
    except FileNotFoundError:
        raise UserError(f"'{path}' is missing: download the released weights under Model, or choose lite.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"'{path}' cannot be read ({error}): remove the released weights and download them again.") from error


def _load_strictly(make: Callable[[], N], tensors: Mapping[str, Tensor], path: Path) -> N:
    network = build_without_init(make)
    problem = shape_differences(shapes_of(network.state_dict()), shapes_of(tensors))
    if problem:
        raise UserError(f"'{path}' is not the encoder that AnyRig knows ({problem}): get the published file.")
    network.load_state_dict(dict(tensors), strict=True, assign=True)
    return network.requires_grad_(False).eval()

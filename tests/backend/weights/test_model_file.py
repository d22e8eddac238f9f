from pathlib import Path

import pytest
import torch
from anyrig.backend.encoders.efficientnet import EfficientNetLite0
from anyrig.backend.errors import UserError
from anyrig.backend.hardware.devices import pick_device
from anyrig.backend.model.config import TINY
from anyrig.backend.model.network import Video2Pose2Rot
from anyrig.backend.weights.model_file import encoder_of, load_model, save_model
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_model(path, Video2Pose2Rot(TINY), EfficientNetLite0().state_dict(), {"steps": 3})
    return path


def test_round_trip(model_file: Path) -> None:
    model = load_model(str(model_file), CPU)
    assert model.config == TINY
    assert model.card == {"steps": 3}
    assert not model.network.training
    torch.manual_seed(0)
    expected = Video2Pose2Rot(TINY).state_dict()
    for key, value in model.network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, expected[key], rtol=2e-3, atol=1e-6), key
    assert model.encoder.encode(torch.zeros(1, 224, 224, 3, dtype=torch.uint8)).shape == (1, 196, 432)
    assert encoder_of(model_file).keys() == EfficientNetLite0().state_dict().keys()


def test_tiny_is_the_same_every_time() -> None:
    one, two = (load_model("tiny", CPU).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_missing_file() -> None:
    with pytest.raises(UserError, match=r"no\.safetensors.*does not exist"):
        load_model("no.safetensors", CPU)


def test_garbage(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"not a model at all, not at all")
    with pytest.raises(UserError, match="bad.safetensors"):
        load_model(str(path), CPU)


def test_file_without_config(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="config"):
        load_model(str(path), CPU)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_mismatch_names_the_tensor(model_file: Path, tmp_path: Path, change: str) -> None:
    from safetensors import safe_open

    with safe_open(model_file, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(model_file)
    key = "pos2rot.decoder.head.0.weight"
    if change == "missing":
        del tensors[key]
    elif change == "extra":
        key = "video2pos.temporal_model.blocks_img.0.ffn.0.weight"
        tensors[key] = torch.zeros(2)
    else:
        tensors[key] = torch.zeros(7)
    path = tmp_path / "other.safetensors"
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match=key):
        load_model(str(path), CPU)


def test_devices() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in ("cuda", "mps", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda"):
            pick_device("cuda")

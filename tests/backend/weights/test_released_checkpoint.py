"""The released model: converting the checkpoint, its encoders from files, and a capture with small random weights."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from anyrig.backend.capture.pipeline import capture
from anyrig.backend.capture_settings import Settings
from anyrig.backend.encoders.dinov2 import Dinov2Encoder
from anyrig.backend.encoders.t5_tokenizer import Tokenizer
from anyrig.backend.errors import UserError
from anyrig.backend.model.config import Config
from anyrig.backend.progress import result_of
from anyrig.backend.rendering.capsules import capsules
from anyrig.backend.rendering.point_splatting import reference_views
from anyrig.backend.rig.rig import Target
from anyrig.backend.train.packs.rig_packs import Pack
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.backend.weights.fetch import use_local_files
from anyrig.backend.weights.model_file import load_model
from anyrig.backend.weights.registry import TABLE, Folder
from anyrig.backend.weights.released_checkpoint import T5Names, convert_checkpoint, infer_config, read_checkpoint
from anyrig.tests.backend.served import CONFIG, T5, checkpoint, tokenizer, write_release
from safetensors import safe_open
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")
FFN = {f"video2pos.temporal_model.blocks_img.{i}.ffn.0.weight": torch.zeros(128, 32) for i in range(2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A complete release, the network converted."""
    given = tmp_path_factory.mktemp("given")
    write_release(given)
    ours = Folder(tmp_path_factory.mktemp("ours"))
    result_of(use_local_files(ours, given))
    return ours


# The checkpoint


def test_the_released_sizes_are_inferred_from_the_published_shapes() -> None:
    path = Path(__file__).parents[2] / "data" / "release_state_dict.json"
    shapes = {key: tuple(shape) for key, shape in json.loads(path.read_text()).items()}
    assert len(shapes) == 1024
    assert infer_config(shapes, "x") == Config()


def test_converting_keeps_every_number_and_the_config(tmp_path: Path) -> None:
    state = checkpoint(tmp_path / "a.pt")
    assert convert_checkpoint(tmp_path / "a.pt", tmp_path / "b.safetensors", {"source": "here"}) == CONFIG_AS_INFERRED
    written = load_file(tmp_path / "b.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], state[key]) for key in state)
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        metadata = file.metadata()
    assert Config(**json.loads(metadata["config"])) == CONFIG_AS_INFERRED
    assert json.loads(metadata["card"]) == {"name": "release", "source": "here"}
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"] == []


CONFIG_AS_INFERRED = dataclasses.replace(CONFIG, dropout=0.1)


@pytest.mark.parametrize("key", ["model", "model_state_dict", "state_dict", None])
def test_other_places_of_the_state_dict(tmp_path: Path, key: str | None) -> None:
    state = checkpoint(tmp_path / "a.pt")
    torch.save({key: state} if key else state, tmp_path / "b.pt")
    assert read_checkpoint(tmp_path / "b.pt").keys() == state.keys()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            FFN,
            r"2 that AnyRig does not know: video2pos\.temporal_model\.blocks_img\.0\.ffn\.0\.weight 128 x 32, .*blocks_img\.1\.ffn",
        ),
        ({"pos2rot.decoder.head.3.bias": None}, r"1 missing: pos2rot\.decoder\.head\.3\.bias 6"),
        ({"pos2rot.decoder.head.3.bias": torch.zeros(9)}, r"1 of another shape: pos2rot\.decoder\.head\.3\.bias 9 instead of 6"),
        ({"video2pos.ref_encoder.img_proj.weight": None}, "is not a video2pose2rot network"),
    ],
)
def test_another_version_of_the_network(tmp_path: Path, changes: dict, sentence: str) -> None:
    checkpoint(tmp_path / "a.pt", changes)
    with pytest.raises(UserError, match=f"a.pt.*{sentence}"):
        convert_checkpoint(tmp_path / "a.pt", tmp_path / "b.safetensors", {})
    assert not (tmp_path / "b.safetensors").exists()


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("/tmp/weights-evil"),))


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"model_state": {"x": torch.zeros(1)}, "more": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt.*holds more than weights"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not Path("/tmp/weights-evil").exists()


def test_damaged_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    for content in (b"", b"not a checkpoint", b"PK\3\4 cut off"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.pt.*damaged"):
            read_checkpoint(path)
    for held in ({"epoch": 3}, [1, 2], {"model": {}}):
        torch.save(held, path)
        with pytest.raises(UserError, match=r"bad\.pt.*holds no network"):
            read_checkpoint(path)
    with pytest.raises(UserError, match=r"none\.pt"):
        read_checkpoint(tmp_path / "none.pt")


# Names


def test_names_are_cleaned_encoded_and_averaged(folder: Folder) -> None:
    names = T5Names(folder, 24)
    vectors = names(["mixamorig:LeftUpLeg", "Bone.003", "LeftUpLeg", "head", "a much longer name of a joint"])
    assert vectors.shape == (5, 24) and vectors.dtype == np.float32
    assert not vectors[1].any() and vectors[[0, 3, 4]].any(1).all()
    np.testing.assert_array_equal(vectors[0], vectors[2])
    # alone or in a batch, asked before or not
    np.testing.assert_allclose(T5Names(folder, 24)(["head"])[0], vectors[3], atol=1e-6)
    np.testing.assert_array_equal(names(["head"])[0], vectors[3])


def test_the_encoder_of_names_equals_transformers(folder: Folder) -> None:
    from transformers import T5Config as TheirConfig
    from transformers import T5EncoderModel

    config = TheirConfig(
        vocab_size=T5.words, d_model=T5.width, d_kv=T5.head_width, d_ff=T5.hidden, num_layers=T5.layers, num_heads=T5.heads
    )
    theirs = T5EncoderModel(config).eval()
    missing, _ = theirs.load_state_dict(load_file(folder.file(TABLE[2])), strict=False)
    assert missing in ([], ["encoder.embed_tokens.weight"])
    ids = torch.tensor([Tokenizer(tokenizer()).encode("Left Up Leg")])
    with torch.no_grad():
        expected = theirs(input_ids=ids).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(T5Names(folder, 24)(["mixamorig:LeftUpLeg"])[0], expected, atol=1e-5)


def test_encoders_of_other_sizes_are_named(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t5-base\.safetensors' gives vectors 24 wide, but the network reads 768"):
        T5Names(folder, 768)(["head"])
    other = Folder(tmp_path)
    write_release(tmp_path)
    state = load_file(tmp_path / TABLE[1].local)
    state["encoder.layer.0.mlp.fc1.extra"] = torch.zeros(2, 3)
    save_file(state, tmp_path / TABLE[1].local)
    convert_checkpoint(tmp_path / TABLE[0].local, other.network, {})
    with pytest.raises(
        UserError, match=r"dinov2-large\.safetensors.*1 that AnyRig does not know: encoder\.layer\.0\.mlp\.fc1\.extra 2 x 3"
    ):
        load_model("release", CPU, tmp_path)
    (tmp_path / TABLE[1].local).write_bytes(b"garbage, garbage, garbage")
    with pytest.raises(UserError, match=r"dinov2-large\.safetensors' cannot be read"):
        load_model("release", CPU, tmp_path)


def test_missing_weights_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"missing: network, dinov2-large, t5-base, t5-base tokenizer.*weights --download release"
    ):
        load_model("release", CPU, tmp_path)


# The whole way


def test_the_release_loads(folder: Folder) -> None:
    model = load_model("release", CPU, folder.path)
    assert isinstance(model.encoder, Dinov2Encoder) and model.config == CONFIG_AS_INFERRED and model.card["name"] == "release"
    assert model.encoder.encode(np.zeros((2, 224, 224, 3), np.uint8)).shape == (2, 257, 64)
    # a network of one's own with the same encoders
    again = load_model(str(folder.network), CPU, folder.path)
    assert again.config == model.config


def filmed(pack: Pack, path: Path) -> Path:
    view = reference_views(pack.rig, capsules(pack.rig), pack.rig.rest, np.array([0.5]), size=96)[0].image
    alpha = view[..., 3:] / 255
    still = (view[..., :3] * alpha + 90 * (1 - alpha)).astype(np.uint8)
    write_video(path, np.stack([np.roll(still, shift, 1) for shift in range(8)]), 24)
    return path


def test_capture_with_the_release(folder: Folder, make_pack: Callable[..., Pack], tmp_path: Path) -> None:
    pack = make_pack()
    rig = pack.rig
    views = tuple(reference_views(rig, capsules(rig, 1500), rig.rest, np.radians([0, 90]), size=96))
    settings = Settings(model="release", device="cpu", weights=str(folder.path))
    clip = Clip(str(filmed(pack, tmp_path / "v.mp4")))
    motion = result_of(capture([Target(rig, views)], clip, settings))[0]
    assert motion.rotations.shape[:2] == (8, 6) and np.isfinite(motion.positions).all()
    assert motion.provenance["model"]["name"] == "release"
    # the names matter: "bone 3" means nothing, so its place was guessed; said otherwise, the motion is another
    named = dataclasses.replace(rig, labels=tuple(f"{word} part" for word in ("red", "green", "blue", "wide", "tall", "thin")))
    other = result_of(capture([Target(named, views)], clip, settings))[0]
    assert np.abs(other.positions - motion.positions).max() > 1e-6


def test_labels_are_kept_with_the_rig(make_pack: Callable[..., Pack]) -> None:
    rig = dataclasses.replace(make_pack().rig, labels=tuple("abcdef"))
    assert type(rig).from_json(rig.to_json()).labels == tuple("abcdef")
    old = re.sub(r', "labels": \[[^]]*\]', "", rig.to_json())
    assert type(rig).from_json(old).labels == ()
    with pytest.raises(UserError, match="6 joints but 2 labels"):
        dataclasses.replace(rig, labels=("a", "b"))

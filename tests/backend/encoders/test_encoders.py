"""DINOv2 and T5 against transformers, with random weights of small sizes."""

from pathlib import Path

import pytest
import torch
from anyrig.backend.encoders import dinov2, t5
from anyrig.backend.encoders.dinov2 import Dinov2, VitConfig
from anyrig.backend.encoders.t5 import T5Config, T5Encoder
from anyrig.backend.errors import UserError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, PreTrainedModel, T5EncoderModel, T5ForConditionalGeneration
from transformers import T5Config as TheirT5Config

VITS = [VitConfig(64, 2, 1, 256, 14, 5), VitConfig(192, 3, 3, 768, 14, 37), VitConfig(128, 1, 2, 512, 14, 16)]


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """Every parameter random, those that start at ones and zeros too, so that none can hide."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim == 1 else 0.1))
    return module.eval()


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def stored(model: PreTrainedModel, folder: Path) -> dict[str, Tensor]:
    """The file that transformers writes, named as the published ones are (in memory it has other names)."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def renamed(state: dict[str, Tensor], kept: dict[str, str]) -> dict[str, Tensor]:
    return {ours: state[key] for key, ours in kept.items()}


@pytest.mark.parametrize("config", VITS)
@pytest.mark.parametrize("size", [(224, 224), (70, 98)])
def test_dinov2_equals_transformers(config: VitConfig, size: tuple[int, int], tmp_path: Path) -> None:
    theirs = randomised(
        Dinov2Model(
            Dinov2Config(
                hidden_size=config.width, num_hidden_layers=config.layers, num_attention_heads=config.heads, patch_size=config.patch,
                image_size=config.patch * config.grid, mlp_ratio=config.hidden // config.width,
            )
        ),
        config.width,
    )  # fmt: skip
    written = stored(theirs, tmp_path)
    state = renamed(written, dinov2.parameters_to_keep(written))
    assert written.keys() - state.keys() == {"embeddings.mask_token"}
    assert dinov2.config_of(shapes(state), "x") == config
    ours = Dinov2(config).eval()
    ours.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images).last_hidden_state, rtol=0, atol=1e-5)


# names, as they are stored in the published files
DINO_KEYS = (
    "embeddings.cls_token embeddings.position_embeddings embeddings.patch_embeddings.projection.weight "
    "embeddings.patch_embeddings.projection.bias layernorm.weight layernorm.bias"
).split()
DINO_LAYER = (
    "norm1 attention.attention.query attention.attention.key attention.attention.value attention.output.dense norm2 mlp.fc1 mlp.fc2"
).split()
T5_LAYER = (
    "layer.0.SelfAttention.q layer.0.SelfAttention.k layer.0.SelfAttention.v layer.0.SelfAttention.o layer.0.layer_norm "
    "layer.1.DenseReluDense.wi layer.1.DenseReluDense.wo layer.1.layer_norm"
).split()


def test_the_large_dinov2_has_the_published_names_and_sizes() -> None:
    with torch.device("meta"):
        state = Dinov2(VitConfig()).state_dict()
    expected = set(DINO_KEYS)
    for layer in range(24):
        expected |= {f"encoder.layer.{layer}.{name}.{kind}" for name in DINO_LAYER for kind in ("weight", "bias")}
        expected |= {f"encoder.layer.{layer}.layer_scale{n}.lambda1" for n in (1, 2)}
    assert state.keys() == expected
    assert shapes(state)["embeddings.position_embeddings"] == (1, 1370, 1024)
    assert sum(value.numel() for value in state.values()) == 304_367_616  # 304,368,640 with the mask token
    assert dinov2.config_of(shapes(state), "x") == VitConfig()


def test_the_t5_base_encoder_has_the_published_names_and_sizes() -> None:
    with torch.device("meta"):
        state = T5Encoder(T5Config()).state_dict()
    expected = {"shared.weight", t5.TABLE, "encoder.final_layer_norm.weight"}
    expected |= {f"encoder.block.{block}.{name}.weight" for block in range(12) for name in T5_LAYER}
    assert state.keys() == expected
    assert sum(value.numel() for value in state.values()) == 109_628_544
    assert t5.config_of(shapes(state), "x") == T5Config()


def test_dinov2_leaves_out_the_mask_token_and_a_classifier() -> None:
    keys = ["dinov2.embeddings.mask_token", "dinov2.layernorm.weight", "classifier.weight", "other"]
    assert dinov2.parameters_to_keep(keys) == {"dinov2.layernorm.weight": "layernorm.weight", "other": "other"}


T5S = [T5Config(50, 24, 2, 3, 8, 40), T5Config(90, 32, 3, 2, 16, 64, 16), T5Config(40, 20, 1, 4, 7, 30)]


def their_t5(config: T5Config) -> TheirT5Config:
    return TheirT5Config(
        vocab_size=config.words, d_model=config.width, d_kv=config.head_width, d_ff=config.hidden, num_layers=config.layers,
        num_heads=config.heads, relative_attention_num_buckets=config.buckets, dropout_rate=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("config", T5S)
@pytest.mark.parametrize("length", [1, 9, 200])
def test_t5_equals_transformers(config: T5Config, length: int, tmp_path: Path) -> None:
    theirs = randomised(T5EncoderModel(their_t5(config)), length)
    written = stored(theirs, tmp_path)
    state = renamed(written, t5.parameters_to_keep(written))
    assert t5.config_of(shapes(state), "x") == config
    ours = T5Encoder(config).eval()
    ours.load_state_dict(state, strict=True)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(config.words, (3, length), generator=generator)
    mask = torch.arange(length)[None] < torch.tensor([length, (length + 1) // 2, 1])[:, None]
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(ours(ids, mask) * mask[..., None], expected * mask[..., None], rtol=0, atol=1e-5)
        mean = (expected * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        torch.testing.assert_close(ours.pooled(ids, mask), mean, rtol=0, atol=1e-5)


def test_a_whole_t5_with_its_decoder_loads_by_name(tmp_path: Path) -> None:
    config = T5S[0]
    written = stored(T5ForConditionalGeneration(their_t5(config)), tmp_path)
    assert any(key.startswith("decoder.") for key in written)
    kept = t5.parameters_to_keep(written)
    T5Encoder(config).load_state_dict(renamed(written, kept), strict=True)
    assert list(kept.values()).count("shared.weight") == 1
    assert t5.parameters_to_keep(["encoder.embed_tokens.weight", "lm_head.weight"]) == {
        "encoder.embed_tokens.weight": "shared.weight"
    }


@pytest.mark.parametrize("config_of", [dinov2.config_of, t5.config_of])
def test_other_files_are_refused_with_their_name(config_of: object) -> None:
    with pytest.raises(UserError, match=r"other\.safetensors"):
        config_of({"bert.weight": (3, 4)}, "other.safetensors")  # type: ignore[operator]

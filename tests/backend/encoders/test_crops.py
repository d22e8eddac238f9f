"""Crops, crop coordinates and the image encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anyrig.backend.encoders.crops import composite, composite_rgba, crop, crop_box, crop_side, to_crop
from anyrig.backend.encoders.efficientnet import (
    EfficientNetLite0,
    Encoder,
    SameConv,
    convert_package,
    convert_package_file,
    normalise,
    tokens_lite,
)
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import Array
from torch import Tensor
from torch.nn import functional as F

# Crops


def test_crop_box_pads_the_longer_side_and_keeps_the_centre() -> None:
    np.testing.assert_allclose(crop_box(np.array([10, 20, 110, 60])), [0, -20, 120, 100])
    np.testing.assert_allclose(
        crop_box(np.array([[10, 20, 110, 60], [0, 0, 10, 50]]), side=40), [[40, 20, 80, 60], [-15, 5, 25, 45]]
    )


def test_crop_box_of_an_empty_box_is_a_pixel() -> None:
    np.testing.assert_allclose(crop_box(np.array([5, 5, 5, 5])), [4.5, 4.5, 5.5, 5.5])


def test_crop_side_holds_every_box() -> None:
    assert crop_side(np.array([[0, 0, 100, 10], [0, 0, 10, 200]])) == pytest.approx(240)


def make_image(height: int, width: int, dots: list[tuple[int, int]]) -> tuple[Array, Array]:
    """A white image with black dots on the pixels (column, row), all of it subject."""
    image = np.full((height, width, 3), 255, np.uint8)
    for column, row in dots:
        image[row, column] = 0
    return image, np.full((height, width), 255, np.uint8)


def centroid(view: Array) -> Array:
    """(2,) the centre of the ink in crop coordinates."""
    ink = 255.0 - view[..., 0]
    axis = (np.arange(len(view)) + 0.5) / len(view) * 2 - 1
    return np.array([(ink.sum(0) * axis).sum(), (ink.sum(1) * axis).sum()]) / ink.sum()


@pytest.mark.parametrize("square", [(3, 5, 43, 45), (3.3, -6.6, 77.9, 68.0), (10.25, 9.5, 22.5, 21.75)])
@pytest.mark.parametrize("pixel", [(16, 14), (20, 17)])
def test_a_dot_lands_where_to_crop_says(square: tuple[float, ...], pixel: tuple[int, int]) -> None:
    view = crop(*make_image(60, 70, [pixel]), np.array(square))
    expected = to_crop(np.array(square), np.array(pixel) + 0.5)
    assert np.abs(expected).max() < 1
    np.testing.assert_allclose(centroid(view), expected, atol=0.004)  # half a pixel of the crop is 0.0045


def test_a_large_frame_shrinks_without_shift_or_aliasing() -> None:
    rng = np.random.default_rng(0)
    image, matte = make_image(1080, 1920, [])
    image[400:408, 900:908] = 0
    square = np.array([420.4, 0.2, 1500.4, 1080.2])
    np.testing.assert_allclose(centroid(crop(image, matte, square)), to_crop(square, np.array([904, 404])), atol=0.002)
    noise = rng.integers(0, 256, image.shape, dtype=np.uint8)
    assert crop(noise, matte, square).std() < 0.3 * noise.std()


def test_the_whole_image_at_its_own_size_is_itself() -> None:
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop(image, np.full((32, 32), 255, np.uint8), np.array([0, 0, 32, 32]), 32), image)


def test_background_and_outside_are_white_and_a_soft_matte_blends() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    matte = np.zeros((20, 20), np.uint8)
    matte[:, 10:] = 51
    view = crop(image, matte, np.array([-10, -10, 30, 30]), 40)
    assert (view[:8] == 255).all() and (view[:, 32:] == 255).all() and (view[12:28, 12:18] == 255).all()
    assert (view[12:28, 22:28] == 204).all()


def test_a_square_outside_the_image_is_white() -> None:
    assert (crop(*make_image(20, 20, [(3, 3)]), np.array([50.0, -90, 80, -60]), 16) == 255).all()


def test_colours_lie_over_an_image_or_a_colour() -> None:
    rgba = np.array([[[200, 100, 0, 0], [200, 100, 0, 51], [200, 100, 0, 255]]], np.uint8)
    assert composite_rgba(rgba, (0, 0, 255)).tolist() == [[[0, 0, 255], [40, 20, 204], [200, 100, 0]]]
    assert composite_rgba(rgba, 255)[0, 1].tolist() == [244, 224, 204]
    below = np.full((1, 3, 3), 100, np.uint8)
    assert composite_rgba(rgba, below, 0.5)[0, 2].tolist() == [150, 100, 50]
    tensor = torch.from_numpy(rgba / 255)
    assert np.allclose(composite(tensor[..., :3], tensor[..., 3:], 1.0) * 255, composite_rgba(rgba, 255), atol=0.51)


def test_to_crop_of_many_frames() -> None:
    squares = np.array([[0, 0, 10, 10], [10, 0, 30, 20]])
    points = np.array([[[0, 0], [5, 10]], [[10, 20], [20, 10]]])
    np.testing.assert_allclose(to_crop(squares[:, None], points), [[[-1, -1], [0, 1]], [[-1, 1], [0, 0]]])


# The encoder

STAGES = (
    "r1_k3_s1_e1_i32_o16 r2_k3_s2_e6_i16_o24 r2_k5_s2_e6_i24_o40 r3_k3_s2_e6_i40_o80 r3_k5_s1_e6_i80_o112 r4_k5_s2_e6_i112_o192"
)
STAGES += " r1_k3_s1_e6_i192_o320"


def package_layers() -> dict[str, tuple[str, tuple[int, int, int, int]]]:
    """The package's convolutions: name -> the batch norm after it, the weight's shape."""
    layers = {"_conv_stem": ("_bn0", (32, 3, 3, 3))}
    index = 0
    for stage in STAGES.split():
        repeats, kernel, _, expansion, inputs, outputs = (int(part.lstrip("rkseio")) for part in stage.split("_"))
        for repeat in range(repeats):
            entering = inputs if repeat == 0 else outputs
            hidden, block = entering * expansion, f"_blocks.{index}."
            if expansion > 1:
                layers[block + "_expand_conv"] = (block + "_bn0", (hidden, entering, 1, 1))
            layers[block + "_depthwise_conv"] = (block + "_bn1", (hidden, 1, kernel, kernel))
            layers[block + "_project_conv"] = (block + "_bn2", (outputs, hidden, 1, 1))
            index += 1
    return layers


def random_package() -> dict[str, Tensor]:
    """A state dict with the package's names and shapes and random weights; the stream of RandomState never changes."""
    rng = np.random.RandomState(0)
    state = {}
    for conv, (norm, shape) in package_layers().items():
        state[f"{conv}.weight"] = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        state[f"{norm}.weight"], state[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, (2, shape[0]))
        state[f"{norm}.bias"], state[f"{norm}.running_mean"] = rng.standard_normal((2, shape[0])) * 0.2
    return {key: torch.as_tensor(value, dtype=torch.float32) for key, value in state.items()}


@pytest.fixture(scope="module")
def package() -> dict[str, Tensor]:
    return random_package()


@pytest.fixture(scope="module")
def state(package: dict[str, Tensor]) -> dict[str, Tensor]:
    return convert_package(package)


def parity_images() -> Array:
    return np.random.RandomState(1).randint(0, 256, (2, 64, 64, 3)).astype(np.uint8)


# What the package efficientnet-lite-pytorch 0.1.0 computes for `random_package` and `parity_images`: [1, ::16, 1, 2] after
# block 10, [1, ::40, 1, 0] after block 15.
ORACLE_16 = [1.44889, 3.08951, -1.41975, -1.35702, -3.17896, -5.59739, -2.36116]
ORACLE_32 = [0.21625, 2.40907, 1.74722, -1.46406, -3.74374, -0.75599, 0.4467, -1.09197]


def test_features_equal_the_original_implementation(state: dict[str, Tensor]) -> None:
    s16, s32 = Encoder(state).network.features(normalise(torch.as_tensor(parity_images())))
    assert s16.shape == (2, 112, 4, 4) and s32.shape == (2, 320, 2, 2)
    np.testing.assert_allclose(s16[1, ::16, 1, 2], ORACLE_16, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(s32[1, ::40, 1, 0], ORACLE_32, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length, kernel, before, after", [(224, 3, 0, 1), (56, 5, 1, 2), (7, 3, 1, 1), (7, 5, 2, 2)])
def test_same_padding_at_stride_two(length: int, kernel: int, before: int, after: int) -> None:
    """TensorFlow: ceil(n / 2) outputs, the odd pixel of padding at the end."""
    torch.manual_seed(0)
    conv = SameConv(2, 3, kernel, stride=2)
    x = torch.randn(1, 2, length, length)
    padded = F.pad(x, (before, after, before, after))
    torch.testing.assert_close(conv(x), F.conv2d(padded, conv.weight, conv.bias, stride=2))


def test_encoder_is_frozen_and_gives_tokens(state: dict[str, Tensor]) -> None:
    encoder = Encoder(state)
    crops = np.random.default_rng(2).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    tokens = encoder.encode(crops)
    assert tokens.shape == (2, encoder.grid**2, encoder.width) == (2, 196, 432)
    assert tokens.dtype == torch.float32 and not tokens.requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())
    torch.testing.assert_close(encoder.encode(crops[1:]), tokens[1:], rtol=1e-4, atol=1e-4)


def test_encoder_takes_the_bundled_file_s_names_in_half_precision(state: dict[str, Tensor]) -> None:
    bundle = {f"encoder.{key}": value.half() for key, value in state.items()} | {"video2pos.head.weight": torch.zeros(1)}
    images = parity_images()
    whole, half = Encoder(state).encode(images), Encoder(bundle).encode(images)
    assert half.dtype == torch.float32
    assert (whole - half).norm() < 0.01 * whole.norm()
    assert Encoder(bundle, dtype=torch.bfloat16).encode(images).dtype == torch.bfloat16


def test_encoder_refuses_incomplete_weights(state: dict[str, Tensor]) -> None:
    with pytest.raises(RuntimeError, match="blocks.3.expand.bias"):
        Encoder({key: value for key, value in state.items() if key != "blocks.3.expand.bias"})


def test_normalise() -> None:
    crops = torch.tensor([[[[127, 255, 0]]]], dtype=torch.uint8)
    np.testing.assert_allclose(normalise(crops)[0, :, 0, 0], [0, 1, -127 / 128])


def test_tokens_are_row_major_and_keep_their_place() -> None:
    s16, s32 = torch.zeros(1, 112, 14, 14), torch.zeros(1, 320, 7, 7)
    s16[0, 5, 3, 9] = 1
    s32[0, 7, 2, 6] = 1
    tokens = tokens_lite(s16, s32)[0]
    assert tokens[:, 5].argmax() == 3 * 14 + 9
    coarse = tokens[:, 112 + 7].reshape(14, 14)
    assert coarse[4:6, 12:].min() > 0.5 and coarse.sum() == pytest.approx(4, abs=1.1) and coarse[:3].max() == 0


def test_converted_names_are_the_network_s(state: dict[str, Tensor]) -> None:
    expected = {key: value.shape for key, value in EfficientNetLite0().state_dict().items()}
    assert {key: value.shape for key, value in state.items()} == expected
    assert all(value.is_contiguous() for value in state.values())


def test_convert_package_file_names_what_is_wrong(tmp_path: Path, package: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match=r"no file '.*absent.pth'"):
        convert_package_file(tmp_path / "absent.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other.pth' has no weights named '_bn0.weight'"):
        convert_package_file(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(UserError, match=r"text.pth' is not"):
        convert_package_file(tmp_path / "text.pth")
    torch.save(package, tmp_path / "right.pth")
    assert convert_package_file(tmp_path / "right.pth").keys() == convert_package(package).keys()


def test_weights_in_half_precision_see_the_same(state: dict[str, Tensor]) -> None:
    images = parity_images()
    whole, half = (
        Encoder(state).encode(images),
        Encoder({key: value.half().float() for key, value in state.items()}).encode(images),
    )
    assert 0 < (whole - half).norm() < 0.01 * whole.norm()

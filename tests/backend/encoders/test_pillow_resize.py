"""Resizing and the preparation of images, against Pillow and the published processor: equal to the last bit."""

import numpy as np
import pytest
import torch
from anyrig.backend.encoders.dinov2 import crop_exactly, normalise, prepare_images
from anyrig.backend.encoders.pillow_resize import resize
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

SIZES = [(1, 1), (3, 2), (7, 300), (255, 257), (256, 256), (256, 311), (640, 480), (1500, 900)]


def images(height: int, width: int) -> list[np.ndarray]:
    """Noise, an edge between black and white, and a slope."""
    rng = np.random.default_rng(height * width)
    edge = np.zeros((height, width, 3), np.uint8)
    edge[:, width // 2 :] = 255
    slope = np.broadcast_to(np.linspace(0, 255, width, dtype=np.uint8)[None, :, None], (height, width, 3))
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8), edge, np.ascontiguousarray(slope)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("out", [(256, 256), (97, 401), (1, 3)])
def test_resizing_equals_pillow(size: tuple[int, int], out: tuple[int, int]) -> None:
    for image in images(*size):
        expected = np.asarray(Image.fromarray(image).resize(out, Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(resize(image, *out), expected)


PROCESSOR = BitImageProcessorPil(
    do_resize=True, size={"shortest_edge": 256}, resample=3, do_center_crop=True, crop_size={"height": 224, "width": 224},
    do_rescale=True, rescale_factor=1 / 255, do_normalize=True, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    do_convert_rgb=True,
)  # fmt: skip


@pytest.mark.parametrize("size", [(224, 224), (300, 200), (120, 500), (617, 617), (1080, 1080)])
def test_preparation_equals_the_published_processor(size: tuple[int, int]) -> None:
    """8-bit images equal; the float32 numbers to rounding of the last bit (the processor scales in another order)."""
    for image in images(*size):
        expected = PROCESSOR(Image.fromarray(image), return_tensors="pt").pixel_values
        found = normalise(torch.from_numpy(prepare_images(image))[None])
        assert found.shape == expected.shape == (1, 3, 224, 224)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        levels = (expected.permute(0, 2, 3, 1) * torch.tensor([0.229, 0.224, 0.225]) + torch.tensor([0.485, 0.456, 0.406])) * 255
        assert torch.equal(levels.round().to(torch.uint8)[0], torch.from_numpy(prepare_images(image)))


@pytest.mark.parametrize("box", [(10, 20, 90, 60), (-30, -50, 130, 110), (95.4, 60.6, 140.2, 105.4), (300, 0, 340, 40)])
def test_the_subject_is_cut_out_on_white(box: tuple[float, ...]) -> None:
    """As Pillow would do it: composite on white, paste into a white square, then the processor's steps."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (80, 120, 3), dtype=np.uint8)
    matte = np.where(rng.random((80, 120)) < 0.7, 255, 0).astype(np.uint8)
    x0, y0 = round(box[0]), round(box[1])
    side = round(box[2] - box[0])
    flat = Image.composite(Image.fromarray(image), Image.new("RGB", (120, 80), "white"), Image.fromarray(matte))
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(flat, (-x0, -y0))
    expected = canvas.resize((256, 256), Image.Resampling.BICUBIC).crop((16, 16, 240, 240))
    np.testing.assert_array_equal(crop_exactly(image, matte, np.array(box)), np.asarray(expected))

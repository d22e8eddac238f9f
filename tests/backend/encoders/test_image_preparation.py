"""The preparation of images for DINOv2, against the published processor, which resizes with Pillow: at most two levels apart."""

import numpy as np
import pytest
import torch
from anyrig.backend.encoders.dinov2 import crop_exactly, normalise, prepare_images
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil


def images(height: int, width: int) -> list[np.ndarray]:
    """Noise, an edge between black and white, and a slope."""
    rng = np.random.default_rng(height * width)
    edge = np.zeros((height, width, 3), np.uint8)
    edge[:, width // 2 :] = 255
    slope = np.broadcast_to(np.linspace(0, 255, width, dtype=np.uint8)[None, :, None], (height, width, 3))
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8), edge, np.ascontiguousarray(slope)]


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(found.astype(int) - expected)
    assert found.shape == expected.shape and difference.max() <= 2 and difference.mean() < 0.02


PROCESSOR = BitImageProcessorPil(
    do_resize=True, size={"shortest_edge": 256}, resample=3, do_center_crop=True, crop_size={"height": 224, "width": 224},
    do_rescale=True, rescale_factor=1 / 255, do_normalize=True, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    do_convert_rgb=True,
)  # fmt: skip


@pytest.mark.parametrize(
    "size", [(1, 1), (3, 2), (7, 300), (224, 224), (256, 311), (300, 200), (120, 500), (617, 617), (1080, 1080)]
)
def test_images_are_prepared_as_by_the_published_processor(size: tuple[int, int]) -> None:
    for image in images(*size):
        expected = PROCESSOR(Image.fromarray(image), return_tensors="pt").pixel_values
        prepared = prepare_images(image)
        found = normalise(torch.from_numpy(prepared)[None])
        assert found.shape == expected.shape == (1, 3, 224, 224)
        levels = (expected.permute(0, 2, 3, 1) * torch.tensor([0.229, 0.224, 0.225]) + torch.tensor([0.485, 0.456, 0.406])) * 255
        assert_close(prepared, levels[0].round().numpy())
        # the float32 numbers, to the rounding of the last bit: the processor scales in another order
        back = (found.permute(0, 2, 3, 1) * torch.tensor([0.229, 0.224, 0.225]) + torch.tensor([0.485, 0.456, 0.406])) * 255
        torch.testing.assert_close(back[0], torch.from_numpy(prepared).float(), rtol=0, atol=1e-4)


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
    assert_close(crop_exactly(image, matte, np.array(box)), np.asarray(expected))

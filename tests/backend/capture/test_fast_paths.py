"""Fast code gives the results of plain code, bit for bit where no sum is reordered."""

import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from anyrig.backend.capture.inference import network_inputs_of, predict_positions, predict_rotations, reference_crop
from anyrig.backend.capture.memory_plan import compute_plan_of, image_bytes
from anyrig.backend.capture_settings import Settings
from anyrig.backend.encoders import crops
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle, rot6d_to_matrix
from anyrig.backend.model.config import LITE, TINY, Config
from anyrig.backend.model.inputs import NetworkInputs
from anyrig.backend.model.network import Video2Pose2Rot
from anyrig.backend.rendering.capsules import capsules
from anyrig.backend.rendering.point_splatting import reference_views
from anyrig.backend.rig.rig import Rig
from anyrig.backend.segmentation.matte import difference, shade_vectors, shifted_difference, sort_planes
from anyrig.backend.train.benchmark.benchmark import random_inputs
from anyrig.backend.video.prefetch import prefetch
from anyrig.backend.weights.model_file import Model, load_model
from anyrig.tests.scripts import ROOT

SHADE = (0.88, 1.06)


def make_image(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("count", range(1, 42))
def test_ordering_images_is_sorting_them(count: int) -> None:
    images = make_image(count, count, 4, 5, 3)
    assert (sort_planes(images) == np.sort(images, axis=0)).all()


def plain_vectors(image: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(cv2.blur(image, (3, 3)), cv2.COLOR_RGB2Lab).astype(np.float32)
    lab *= np.array([100 / 255, 1, 1], np.float32)
    lab += np.array([16, -128, -128], np.float32)
    return lab


def plain_difference(vectors: np.ndarray, backdrop: np.ndarray) -> np.ndarray:
    def inner(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]

    factor = inner(vectors, backdrop) / np.maximum(inner(backdrop, backdrop), 1.0)
    rest = vectors - np.clip(factor, *SHADE)[..., None] * backdrop
    return np.sqrt(inner(rest, rest))


def test_differences_plane_by_plane_are_the_same() -> None:
    one, two = make_image(1, 40, 50, 3), make_image(2, 40, 50, 3)
    vectors, backdrop = plain_vectors(one), plain_vectors(two)
    assert (shade_vectors(one) == vectors).all()
    assert (difference(shade_vectors(one), shade_vectors(two), SHADE) == plain_difference(vectors, backdrop)).all()
    shifts = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    least = np.minimum.reduce([plain_difference(vectors, np.roll(backdrop, shift, axis=(0, 1))) for shift in shifts])
    assert (shifted_difference(shade_vectors(one), shade_vectors(two), SHADE) == least).all()


def plain_crop(image: np.ndarray, matte: np.ndarray, square: np.ndarray, size: int) -> np.ndarray:
    """The whole square resampled, whatever the matte leaves of it."""
    ink = (image.astype(np.float32) - 255) * (matte.astype(np.float32) * np.float32(1 / 255))[..., None]
    for axis, (start, end) in enumerate(((square[1], square[3]), (square[0], square[2]))):
        cut, weights = crops.resampling(start, end, (0, ink.shape[axis]), size)
        ink = np.moveaxis(np.tensordot(weights.toarray(), ink[cut] if axis == 0 else ink[:, cut], (1, axis)), 0, axis)
    return np.clip(np.rint(ink + 255), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("square", [(10.3, 20.1, 300.7, 310.5), (-40.0, 5.0, 100.0, 145.0), (50.0, 60.0, 90.5, 100.5)])
def test_cropping_within_the_mattes_box_is_cropping(square: tuple[float, ...]) -> None:
    image, matte = make_image(3, 320, 240, 3), np.zeros((320, 240), np.uint8)
    matte[70:190, 30:160] = make_image(4, 120, 130)
    wanted = plain_crop(image, matte, np.array(square), 64)
    found = crops.crop(image, matte, np.array(square), 64)
    assert np.abs(found.astype(int) - wanted).max() <= 1 and (found != wanted).mean() < 1e-3  # sums in another order


def test_an_empty_matte_gives_white() -> None:
    assert (crops.crop(make_image(5, 30, 40, 3), np.zeros((30, 40), np.uint8), np.array([5.0, 5, 25, 25])) == 255).all()


def test_loading_leaves_the_compiler_of_torch_alone() -> None:
    """It takes two seconds to import, and building modules on the meta device would."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch\nfrom backend.weights.model_file import load_model\n"
        "load_model('lite', torch.device('cpu'))\nassert 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def counted(last: int, seen: list[int]) -> Generator[int, None, None]:
    try:
        for number in range(last):
            seen.append(number)
            yield number
        raise UserError("the end is damaged")
    finally:
        seen.append(-1)


def test_ahead_keeps_order_and_passes_errors_on() -> None:
    seen: list[int] = []
    found = []
    with pytest.raises(UserError, match="damaged"):
        for number in prefetch(counted(20, seen), depth=3):
            found.append(number)
    assert found == list(range(20)) and seen[-1] == -1
    assert list(prefetch(number for number in range(7))) == list(range(7))


def test_closing_ends_the_thread_and_the_source() -> None:
    seen: list[int] = []
    before = threading.active_count()
    work = prefetch(counted(1000, seen), depth=3)
    assert [next(work), next(work)] == [0, 1]
    work.close()
    assert threading.active_count() == before
    assert seen[-1] == -1 and len(seen) <= 7  # never more than the depth ahead


@pytest.fixture(scope="module")
def lite() -> Model:
    return load_model("lite", torch.device("cpu"))


def biped(joints: int = 9) -> Rig:
    rest = np.tile(np.eye(4), (joints, 1, 1))
    rest[:, :3, 3] = np.random.default_rng(joints).normal(size=(joints, 3)) * 0.4 + [0, 0, 1]
    parents = np.array([-1, *(index // 2 for index in range(joints - 1))])
    nothing = np.zeros(joints, bool)
    return Rig(f"rig {joints}", tuple(f"bone {i}" for i in range(joints)), parents, rest, rest[:, :3, 3] + 0.1, nothing, nothing)


def seen(model: Model, joints: Sequence[int], frames: int) -> tuple[NetworkInputs, torch.Tensor]:
    """Rigs, their tokens and tokens of frames that show the first of them from one side after the other."""
    rigs = [biped(count) for count in joints]
    views = [reference_views(rig, capsules(rig, 800), np.array(rig.rest), np.linspace(0, 0.6, frames), size=96) for rig in rigs]
    clip = model.encoder.encode(np.stack([reference_crop(view) for view in views[0]]))
    tokens = torch.cat([model.encoder.encode(reference_crop(view[0])[None]) for view in views])
    return network_inputs_of(model, rigs, [view[0] for view in views], tokens)[0], clip


def test_half_precision_costs_less_than_a_tenth_of_a_degree(lite: Model) -> None:
    inputs, clip = seen(lite, [9], 8)

    def rotations(half: torch.dtype | None) -> np.ndarray:
        position = torch.cat(list(predict_positions(lite.network, inputs, [clip], len(clip), half=half)), dim=1)
        rot6d = torch.cat(list(predict_rotations(lite.network, inputs, position, half=half)), dim=1)
        assert position.dtype == rot6d.dtype == torch.float32
        return rot6d_to_matrix(rot6d[0].double().numpy())

    whole, half = rotations(None), rotations(torch.float16)
    error = np.degrees(geodesic_angle(whole, half)).mean()
    assert 1e-5 < error < 0.1


def test_a_network_trains_on_after_it_was_measured() -> None:
    network, inputs = Video2Pose2Rot(TINY), random_inputs(TINY, [4], 1, TINY.grid**2)
    tokens = torch.randn(5, TINY.grid**2, TINY.image_width)
    position = torch.cat(list(predict_positions(network.eval(), inputs, [tokens], 5)), dim=1)
    list(predict_rotations(network, inputs, position))
    network.train()
    network(tokens[None], inputs)[1].sum().backward()
    assert all(block.attn.linear_q.weight.grad is not None for block in network.pos2rot.pose_encoder.temporal_blocks)


@pytest.mark.parametrize("config", [TINY, LITE], ids=["image windows", "single images"])
def test_keys_of_the_image_are_made_once_for_all_rigs(config: Config, lite: Model) -> None:
    model = lite if config == LITE else load_model("tiny", torch.device("cpu"))
    inputs, clip = seen(model, [9, 5, 7], 6)
    network = model.network
    made: list[torch.Size] = []
    layer = network.video2pos.temporal_model.blocks_img[0].cross_attn.to_k
    handle = layer.register_forward_hook(lambda module, inputs, output: made.append(output.shape))
    with torch.inference_mode():
        together, each = (network.video2pos(image, inputs)[0] for image in (clip[None], clip.expand(3, -1, -1, -1)))
    handle.remove()
    assert [shape[0] for shape in made] == [1, 3]
    assert (together - each).abs().max() < 1e-5


GIB = 2**30


def test_a_plan_follows_the_free_memory() -> None:
    card, settings = torch.device("cuda"), Settings(batch=0)
    plan = compute_plan_of(card, LITE, settings, free=GIB)
    assert plan.half == torch.float16 and plan.batch * image_bytes(LITE) <= GIB < 2 * (plan.batch + 1) * image_bytes(LITE)
    assert compute_plan_of(card, LITE, settings, free=80 * GIB).batch == 64
    assert compute_plan_of(card, LITE, settings, free=1).batch == 1
    assert compute_plan_of(card, LITE, replace(settings, batch=7, precision="float32"), free=GIB)[1:3] == (None, 7)
    assert compute_plan_of(torch.device("cpu"), LITE, settings)[1:3] == (None, 4)
    # the released network sees 24 frames to either side: small windows would be mostly margin
    assert compute_plan_of(torch.device("cpu"), Config(), settings).core >= 4 * 24

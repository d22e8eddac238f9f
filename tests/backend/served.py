"""A small release (random weights, the real formats and names) and a local server that misbehaves on request."""

import argparse
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anyrig.backend.encoders.dinov2 import Dinov2, VitConfig
from anyrig.backend.encoders.t5 import T5Config, T5Encoder
from anyrig.backend.model.config import Config
from anyrig.backend.model.network import Video2Pose2Rot
from anyrig.backend.weights.registry import TABLE
from safetensors.torch import save_file
from torch import Tensor, nn

CONFIG = Config(
    width=32, heads=4, image_width=64, name_width=24, ref_layers=1, layers=2, rest_layers=1, pose_layers=2, memory_layers=1, decoder_layers=3,
    cross_layers=2, encoder="dinov2 of width 64", names="t5 of width 24",
)  # fmt: skip
VIT = VitConfig(64, 2, 1, 128, 14, 5)
T5 = T5Config(60, 24, 2, 3, 8, 40)
LETTERS = "▁eatnirolsdhmupgkfbcwvyxzjqHSCNLRTKFUAOEWPIMJBVD"


def random_state(module: nn.Module, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(value.shape, generator=generator) * 0.1 for key, value in module.state_dict().items()}


def tokenizer() -> dict[str, Any]:
    """As t5-base's, with letters as pieces and without a character map."""
    vocabulary = [
        ["<pad>", 0.0],
        ["</s>", 0.0],
        ["<unk>", 0.0],
        *[[letter, -3.0 - place / 50] for place, letter in enumerate(LETTERS)],
    ]
    metaspace = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    end = {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}
    return {
        "added_tokens": [{"id": id_, "content": content} for id_, content in enumerate(("<pad>", "</s>", "<unk>"))],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}], "special_tokens": end},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocabulary},
    }  # fmt: skip


def checkpoint(path: Path, changes: dict[str, Tensor | None] | None = None) -> dict[str, Tensor]:
    """A .pt as a training script of several GPUs leaves it; changes: tensors to add or, with None, to leave out."""
    state = random_state(Video2Pose2Rot(CONFIG), 1)
    for key, value in (changes or {}).items():
        if value is None:
            del state[key]
        else:
            state[key] = value
    extra = {"optimizer": {"step": torch.zeros(1)}, "epoch": 60, "best": np.float64(0.5), "args": argparse.Namespace(lr=1e-4)}
    torch.save({"model_state": {f"module.{key}": value for key, value in state.items()}, **extra}, path)
    return state


def write_release(folder: Path) -> dict[str, bytes]:
    """item name -> the file's bytes, as the hub would serve them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / item.local for item in TABLE]
    checkpoint(paths[0])
    images = random_state(Dinov2(VIT), 2) | {"embeddings.mask_token": torch.zeros(1, VIT.width)}
    save_file(images, paths[1], {"format": "pt"})
    names = random_state(T5Encoder(T5), 3)
    names |= {"lm_head.weight": torch.zeros(60, 24), "decoder.final_layer_norm.weight": torch.zeros(24)}
    save_file(names, paths[2], {"format": "pt"})
    paths[3].write_text(json.dumps(tokenizer()), encoding="utf-8")
    return {item.name: path.read_bytes() for item, path in zip(TABLE, paths, strict=True)}


class Server:
    """Serves files by path. faults: path -> what to do on the next requests for it, one each; then all is well.

    requests: (path, Range header) of each request. linked: path -> the SHA-256 told on the way.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.linked: dict[str, str] = {}
        self.resumes = True
        self.address = ""

    def fill(self, release: dict[str, bytes]) -> None:
        for item in TABLE:
            self.files[item.url("")] = release[item.name]

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        path, wanted = handler.path, handler.headers.get("Range")
        self.requests.append((path, wanted))
        faults = self.faults.get(path, [])
        fault = faults.pop(0) if faults else ""
        kind, _, detail = fault.partition(" ")
        if kind == "status":
            self._send(handler, int(detail), {}, b"no")
        elif kind == "redirect":
            self._send(handler, 302, {"Location": detail, **self._link(path)}, b"")
        elif kind == "html":
            self._send(handler, 200, {}, b"<!DOCTYPE html><html>Log in to this network</html>")
        elif path not in self.files:
            self._send(handler, 404, {}, b"")
        else:
            self._file(handler, path, wanted, kind, detail)

    def _link(self, path: str) -> dict[str, str]:
        return {"X-Linked-ETag": f'"{self.linked[path]}"'} if path in self.linked else {}

    def _file(self, handler: BaseHTTPRequestHandler, path: str, wanted: str | None, kind: str, detail: str) -> None:
        data = self.files[path]
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        headers = {"ETag": etag, **self._link(path)}
        start, status = 0, 200
        if wanted and self.resumes and handler.headers.get("If-Range") == etag:
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(data):
                self._send(handler, 416, {"Content-Range": f"bytes */{len(data)}"}, b"")
                return
            shift = int(detail) if kind == "misplaced" else 0
            headers["Content-Range"] = f"bytes {start + shift}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        length = len(body) + (int(detail) if kind == "announce" else 0)
        if kind == "drop":
            body = body[: int(detail)]
        if kind == "cut":  # a proxy that lost the end and says so
            body = body[: int(detail)]
            length = len(body)
        self._send(handler, status, headers, body, None if kind == "unsaid" else length)
        if kind == "stall":
            handler.wfile.flush()

    @staticmethod
    def _send(
        handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes, length: int | None = -1
    ) -> None:
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        if length is not None:
            handler.send_header("Content-Length", str(len(body) if length == -1 else length))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True


@contextmanager
def serving() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                state.respond(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

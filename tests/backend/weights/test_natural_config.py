"""Which skeleton a model wants is read from its file without loading it."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from anyrig.backend.model.config import LITE, TINY
from anyrig.backend.weights.registry import takes_natural_skeleton
from safetensors.numpy import save_file


@pytest.mark.parametrize(("natural", "keys"), [(True, {"natural": True}), (False, {"natural": False}), (False, {})])
def test_the_config_in_the_file_decides(tmp_path: Path, natural: bool, keys: dict[str, bool]) -> None:
    config = {key: value for key, value in asdict(TINY).items() if key != "natural"} | keys
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "m.safetensors", {"config": json.dumps(config)})
    assert takes_natural_skeleton(str(tmp_path / "m.safetensors")) is natural


def test_names(tmp_path: Path) -> None:
    assert takes_natural_skeleton("release") and takes_natural_skeleton("tiny")
    assert takes_natural_skeleton(str(tmp_path / "none.safetensors"))  # loading it says what is wrong
    assert not takes_natural_skeleton("lite")  # as long as the bundled weights are those of version 0.1
    assert LITE.natural and TINY.natural

"""Pickles that hold numpy arrays, numbers, text and plain containers, read without running anything that they name.

A pickle is a program: it may call whatever it can import, and numpy's own classes can be driven into bad memory with made-up
states. So nothing of numpy is handed to it either. Its names are looked up here, arrays and dtypes are built by this file.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError

_KINDS = re.compile(r"(?:[biufcSU?]|\|b)\d*|O8?")
_DAMAGED = (
    pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError, KeyError, IndexError, UnicodeError, RecursionError,
    MemoryError, OverflowError, ImportError,
)  # fmt: skip


def load_pickle(path: str | Path) -> Any:
    """The content of a pickle. Raises UserError if it is missing, damaged, or names a class that is not data."""
    return _loads(path, _read(path))


def load_object_npy(path: str | Path) -> Any:
    """What `numpy.save` made of a dictionary: an .npy file with one object in it. Raises as `load_pickle` does."""
    file = io.BytesIO(_read(path))
    try:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, kind = readers[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        raise UserError(f"'{path}' is not an .npy file ({error}): copy it again from the data set.") from error
    if shape != () or kind != np.dtype(object):
        raise UserError(f"'{path}' holds an array of {kind} and not a dictionary: copy it again from the data set.")
    array = _loads(path, file.read())
    if not isinstance(array, np.ndarray) or array.shape != ():
        raise UserError(f"'{path}' does not hold a dictionary: copy it again from the data set.")
    return array.item()


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}): check that the data set's folder is complete.") from error


def _loads(path: str | Path, content: bytes) -> Any:
    try:
        return _finished(_Reader(path, io.BytesIO(content)).load())
    except _DAMAGED as error:
        raise UserError(f"'{path}' is damaged ({error}): copy it again from the data set.") from error


class _Kind:
    """Stands for numpy.dtype: booleans, numbers, text and objects, no structures."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not _KINDS.fullmatch(code):
            raise pickle.UnpicklingError(f"arrays of {code!r} are not read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray until `_finished` takes its value out."""

    value: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        self.fill(data, kind, shape, "F" if fortran else "C")

    def fill(self, data: bytes | list, kind: _Kind, shape: tuple[int, ...], order: str) -> None:
        if kind.dtype.hasobject:
            if not isinstance(data, list) or len(data) != prod(shape):
                raise pickle.UnpicklingError("an array of objects has not as many as its shape says")
            flat = np.empty(len(data), object)
            for place, value in enumerate(data):
                flat[place] = _finished(value)
        else:
            flat = np.frombuffer(bytes(data), kind.dtype)
        self.value = flat.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _frombuffer(data: bytes, kind: _Kind, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.fill(data, kind, shape, order)
    return array


def _scalar(kind: _Kind, data: bytes) -> np.generic:
    return np.frombuffer(bytes(data), kind.dtype)[0]


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r} is not read")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How protocol 2 writes b""."""
    return b""


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): dict,
    ("__builtin__", "bytes"): _no_bytes,
}
for _module in ("builtins", "__builtin__"):  # since and before Python 3
    _NAMES |= {(_module, "set"): set, (_module, "frozenset"): frozenset}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _NAMES |= {
        (f"{_core}.multiarray", "_reconstruct"): _reconstruct,
        (f"{_core}.multiarray", "scalar"): _scalar,
        (f"{_core}.numeric", "_frombuffer"): _frombuffer,
    }


class _Reader(pickle.Unpickler):
    def __init__(self, path: str | Path, file: io.BytesIO) -> None:
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        found = _NAMES.get((module, name))
        if found is None:
            raise UserError(
                f"'{self.path}' asks for {module}.{name}, which is not data, and was not read: get the file from a source you trust."
            )
        return found


def _finished(value: Any) -> Any:
    """The same with arrays in the place of what stood for them."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _finished(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(inner) for inner in value)
    return value

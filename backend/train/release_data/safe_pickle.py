"""Reads pickles that hold numpy arrays, numbers, text and plain containers, and runs nothing that they name.

A pickle may call what `find_class` returns with any arguments, and set any state on the result. numpy's own dtypes, and arrays
over a buffer, can be driven into bad memory this way: a dtype is therefore read by `_Dtype`, and an array gets its state from
`_Array`.
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

_CODES = re.compile(r"(?:[biufcSU?]|\|b)\d*|O8?")  # booleans, numbers, text and objects, no structures
_DAMAGED = (
    pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError, KeyError, IndexError, UnicodeError, RecursionError,
    MemoryError, OverflowError, ImportError,
)  # fmt: skip


def load_pickle(path: str | Path) -> Any:
    """Read a pickle. Raises UserError if it is missing, damaged, or names a class that is not data."""
    return _unpickle(path, _read_bytes(path))


def load_object_npy(path: str | Path) -> Any:
    """Read a dictionary that `numpy.save` wrote: an .npy file with one object in it. Raises UserError as `load_pickle` does."""
    file = io.BytesIO(_read_bytes(path))
    try:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, kind = readers[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        raise UserError(f"'{path}' is not an .npy file ({error}): copy it again from the data set.") from error
    if shape != () or kind != np.dtype(object):
        raise UserError(f"'{path}' holds an array of {kind} and not a dictionary: copy it again from the data set.")
    array = _unpickle(path, file.read())
    if not isinstance(array, np.ndarray) or array.shape != ():
        raise UserError(f"'{path}' does not hold a dictionary: copy it again from the data set.")
    return array.item()


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}): check that the data set's folder is complete.") from error


def _unpickle(path: str | Path, content: bytes) -> Any:
    try:
        return _Unpickler(path, io.BytesIO(content)).load()
    except _DAMAGED as error:
        raise UserError(f"'{path}' is damaged ({error}): copy it again from the data set.") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, path: str | Path, file: io.BytesIO) -> None:
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise UserError(
                f"'{self.path}' was not read, because it asks for {module}.{name}, which is not data: get the file from a source you trust."
            )
        return found


class _Dtype:
    """Replaces numpy.dtype, of whose state only the byte order is read."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not _CODES.fullmatch(code):
            raise pickle.UnpicklingError(f"arrays of {code!r} are not read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose pickled state names a `_Dtype`."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, kind, fortran, data = state
        # numpy does not compare the two itself
        if kind.dtype.hasobject and (not isinstance(data, list) or len(data) != prod(shape)):
            raise pickle.UnpicklingError("an array of objects does not have as many as its shape says")
        super().__setstate__((version, shape, kind.dtype, fortran, data))


def _reconstruct(*_: object) -> np.ndarray:
    return _Array(0)


def _from_buffer(data: bytes, kind: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """How protocol 5 writes an array."""
    return np.frombuffer(bytes(data), kind.dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(kind: _Dtype, data: bytes) -> np.generic:
    return np.frombuffer(bytes(data), kind.dtype)[0]


def _bytes(text: str = "", encoding: str = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r} is not read")
    return text.encode("latin1")


# names of Python 3 and numpy 1; `find_class` translates those of Python 2 and numpy 2
_ALLOWED: dict[tuple[str, str], Callable[..., Any] | str] = {
    ("numpy", "ndarray"): "ndarray",  # an argument of _reconstruct; nothing that could be called
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _bytes,
    ("builtins", "bytes"): _bytes,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("collections", "OrderedDict"): dict,
}

"""CIFAR's files: Python 2 pickles of a dict, read by an unpickler that makes only arrays of bytes and plain values."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from .sets import DataError

SIDE = 32


@dataclass(frozen=True, slots=True)
class Record:
    """The dict that a file holds, its keys as text.

    Attributes:
        entries: the dict.
        where: the file, as errors call it.
        remedy: what errors say is to be done.
    """

    entries: dict[str, Any]
    where: str
    remedy: str

    @classmethod
    def read(cls, content: bytes, *, where: str, remedy: str) -> Record:
        """Return the record in a file's content.

        Raises:
            DataError: it is truncated, no pickle of a dict, or has something in it that CIFAR's files have not.
        """
        try:
            entries = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        # What `pickle` lets through, by the byte that is wrong.
        except (
            pickle.UnpicklingError,
            AttributeError,
            EOFError,
            IndexError,
            KeyError,
            MemoryError,
            OverflowError,
            TypeError,
            ValueError,
            struct.error,
        ) as error:
            reason = str(error) or type(error).__name__
            raise DataError(f"{where} is truncated or no file of CIFAR ({reason}): {remedy}") from error
        if not isinstance(entries, dict):
            raise DataError(f"{where} holds a {type(entries).__name__}, not a dict: {remedy}")
        return cls({_text(key): value for key, value in entries.items()}, where, remedy)

    def images(self) -> UInt8[Tensor, "images 32 32 3"]:
        """Return the images.

        Raises:
            DataError: they are missing or of another form.
        """
        data = self._entry("data")
        pixels = data.value if isinstance(data, _Array) else None
        if pixels is None or pixels.shape[1:] != (3 * SIDE * SIDE,):
            found = f"a {type(data).__name__}" if pixels is None else f"uint8 {list(pixels.shape)}"
            raise DataError(
                f"the data of {self.where} is {found}, not uint8 [images, {3 * SIDE * SIDE}]: {self.remedy}"
            )
        by_channel = pixels.reshape(-1, 3, SIDE, SIDE)
        return torch.from_numpy(by_channel.transpose(0, 2, 3, 1).copy())

    def labels(self, key: str, num_classes: int) -> Int64[Tensor, " images"]:
        """Return the labels under a key.

        Raises:
            DataError: they are missing or no labels of so many classes.
        """
        labels = self._entry(key)
        if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < num_classes for label in labels):
            raise DataError(
                f"the {key} of {self.where} are not a list of whole numbers from 0 to {num_classes - 1}: {self.remedy}"
            )
        return torch.tensor(labels, dtype=torch.int64)

    def names(self, key: str, num_classes: int) -> tuple[str, ...]:
        """Return the names of the classes, by label.

        Raises:
            DataError: they are missing, or not as many different names as there are classes.
        """
        names = self._entry(key)
        if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
            raise DataError(f"the {key} of {self.where} are not a list of names: {self.remedy}")
        texts = tuple(_text(name) for name in names)
        if not len(texts) == len(set(texts)) == num_classes:
            raise DataError(f"{self.where} names {len(set(texts))} classes, not {num_classes}: {self.remedy}")
        return texts

    def _entry(self, key: str) -> Any:
        if key not in self.entries:
            raise DataError(f"{self.where} has no entry {key!r}: {self.remedy}")
        return self.entries[key]


def _text(value: object) -> str:
    """Python 3 writes bytes where Python 2 wrote str."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in protocol 2."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes are encoded in {encoding}, not in latin1")
    return text.encode("latin1")


class _Bytes:
    """Stands for numpy.dtype: uint8 is the only one that CIFAR's files have."""

    def __init__(self, code: str, align: object, copy: object) -> None:
        if code not in ("u1", "|u1"):
            raise pickle.UnpicklingError(f"an array has the type {code!r}, not uint8")

    def __setstate__(self, state: object) -> None:
        """Nothing more is to be known of uint8."""


class _Array:
    """Stands for numpy.ndarray, whose own way back from a pickle trusts what it is told of types and lengths."""

    value: np.ndarray[Any, np.dtype[np.uint8]] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, columns_first, content = state
        if not isinstance(kind, _Bytes) or not isinstance(content, str | bytes):
            raise pickle.UnpicklingError("an array is not one of bytes")
        flat = np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, dtype=np.uint8)
        self.value = flat.reshape(shape, order="F" if columns_first else "C")


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    """Stands for NumPy's function, which makes an array that is still empty."""
    return _Array()


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Bytes,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle._Unpickler):
    """Finds only what CIFAR's files need: a pickle can name any function of Python, and have it called.

    Python's own, since the one in C takes gigabytes of memory if a damaged file asks for it. It costs 0.1 s.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it calls for {module}.{name}, which is refused")
        return _ALLOWED[module, name]

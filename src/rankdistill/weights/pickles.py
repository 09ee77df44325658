"""Pickled tensors of files that may come from anybody: looked through, and only then read.

A pickle can name any function to be called when it is read. torch's restricted reader calls none but its own few and
Python's plain containers. But some of these take memory for the asking, and tuples of tuples can be hashed for ever or
deeper than the stack. So the operations of a pickle are gone through before the first of them is done, and archives
are held to the length of their file.
"""

from __future__ import annotations

import argparse
import os
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch

_MOST_OBJECTS = 10_000_000
_MOST_NESTED = 100
_ENCODE = "_codecs encode"
_OLD_PICKLES = 5  # before PyTorch 1.6: magic number, protocol, system, content, names of the storages


class ForgedPickle(pickle.UnpicklingError):
    """A pickle holds what torch.save never writes. The message says what."""


def read_pickled(file: BinaryIO) -> Any:
    """Return what `torch.save` wrote: tensors on the CPU, plain containers, numbers and text.

    Args:
        file: open for reading, at its start.

    Raises:
        ForgedPickle: the file is whole, but no honest one.
        Exception: it is damaged or something else. The restricted reader checks little of what it reads, and NumPy and
            torch raise errors of any kind, SystemError among them, on what it gives them.
    """
    _look_through(file)
    file.seek(0)
    known = set(torch.serialization.get_safe_globals())
    harmless = [entry for entry in _HARMLESS if entry not in known]  # leaving the context forgets what it was given
    with torch.serialization.safe_globals(harmless), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that others' pickle protocol may not be understood
        return torch.load(file, map_location="cpu", weights_only=True)


def _number(kind: np.dtype[Any], content: bytes | str) -> Any:
    """Return a NumPy number, as NumPy's own function of this meaning; that one takes any size on trust."""
    raw = content.encode("latin1") if isinstance(content, str) else content  # text in files of Python 2
    if len(raw) != kind.itemsize:
        raise pickle.UnpicklingError(f"{len(raw)} bytes are no {kind}")
    return np.frombuffer(raw, kind)[0]


# A scalar's constructor by its name under NumPy 1 and 2, and the dtypes of the numbers that are found in checkpoints.
_HARMLESS: tuple[Callable[..., Any] | tuple[Callable[..., Any], str], ...] = (
    argparse.Namespace,
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
)


def _look_through(file: BinaryIO) -> None:
    if file.read(4) != b"PK\x03\x04":
        file.seek(0)
        for _ in range(_OLD_PICKLES):
            _check_operations(file)
        return
    length = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ForgedPickle("it is compressed")
        if sum(member.file_size for member in members) > length:
            raise ForgedPickle("its parts are longer than the file")
        for member in members:
            if member.filename.endswith(".pkl"):
                with archive.open(member) as content:
                    _check_operations(cast("BinaryIO", content))


class _Made(NamedTuple):
    """What is known of an object that a pickle makes: objects in it, tuples within tuples, the text it ends in."""

    objects: int = 1
    nested: int = 0
    text: str = ""


def _check_operations(file: BinaryIO) -> None:
    """Go through a pickle's operations, without doing them, up to its end.

    Raises:
        ForgedPickle: an object is too large, nested too deep, or made by a function that takes a size or a codec.
    """
    stack: list[_Made | None] = []  # None is a mark
    memo: dict[Any, _Made] = {}
    for operation, given, _ in pickletools.genops(file):
        name = operation.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if given is None else given] = stack[-1] or _Made()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[given])
        else:
            taken = _taken(stack, operation.stack_before)
            _check_codec(name, taken)
            made = _made(name, given, taken)
            if made.objects > _MOST_OBJECTS or made.nested > _MOST_NESTED:
                raise ForgedPickle("it holds objects within objects without end")
            stack += [None if kind is pickletools.markobject else made for kind in operation.stack_after]


def _taken(stack: list[_Made | None], kinds: list[pickletools.StackObject]) -> list[_Made]:
    """Take from the stack what an operation takes, the first of them first."""
    taken = []
    for kind in reversed(kinds):
        if kind is pickletools.stackslice:
            while (made := stack[-1]) is not None:
                taken.append(made)
                stack.pop()
        elif (made := stack.pop()) is not None:
            taken.append(made)
    return taken[::-1]


def _check_codec(name: str, taken: list[_Made]) -> None:
    """Raise unless the function that encodes text is called at once, for latin1: others take long for what is long."""
    for place, made in enumerate(taken):
        if made.text == _ENCODE and (name != "REDUCE" or place or taken[-1].text not in ("latin1", "latin-1")):
            raise ForgedPickle("it asks for a codec other than latin1")


def _made(name: str, given: Any, taken: list[_Made]) -> _Made:
    text = given if isinstance(given, str) else taken[-1].text if taken and name.startswith("TUPLE") else ""
    if name == "GLOBAL" and text.endswith(" bytearray"):
        raise ForgedPickle("it asks for a bytearray")
    return _Made(
        1 + sum(made.objects for made in taken),
        max((made.nested for made in taken), default=0) + name.startswith("TUPLE"),
        text,
    )

"""Splits of images that must be decoded, and where the decoded ones are kept for the next run.

What is kept of a part of a data set: its pixels as .npy, which is mapped into memory when it is used again, and a
manifest beside it, written last. The manifest has a digest of the files that the pixels come from, the SHA-256 of the
pixels, and size and time of the file that keeps them. So a changed source, a half-written file and a flipped bit are
noticed, and the images decoded anew. While size and time are the same, pixels are not read to be sure of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import mmap
import os
import stat
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..dataset import Split, check_memory
from .files import Files, read_regular
from .images import Decode, decoded_chunks, pillow, tell_unread

_FORMAT = 2  # of what is kept, and of how data sets decode: a new number has everything decoded anew
_DAY = 24 * 60 * 60
_MANIFEST_BYTES = 2**16

Listed = Sequence[tuple[str, int]]
"""(name of a file, label) of each image of a part."""


def user_cache() -> Path | None:
    """Return the user's folder for decoded images ($XDG_CACHE_HOME/rankdistill or ~/.cache/rankdistill), if any."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "rankdistill") if os.path.isabs(base) else None


def read_parts(
    data: str,
    parts: Mapping[str, tuple[Files, Listed]],
    decode: Decode,
    *,
    size: int,
    num_classes: int,
    cache: Path | None,
) -> tuple[Split, Split]:
    """Return the training and the test part, their images from the cache if they are there, else decoded.

    Images from the cache are mapped into memory: they may be larger than it, and changing them changes no file.

    Args:
        data: name of the data set, which always decodes in the same way.
        parts: "train" and "test" -> the files, and which of them in which order with which label.
        decode: makes an RGB image of `size` x `size` of a file's content.
        size: in pixels.
        num_classes: images with labels from there on are left out.
        cache: the folder of decoded images; None keeps nothing. Where it cannot be written, a warning is given.

    Raises:
        DataError: an image is missing or broken, or Pillow is not installed.
    """
    splits = []
    for files in dict.fromkeys(files for files, _ in parts.values()):
        tell_unread(files)
    for part in ("train", "test"):
        files, listed = parts[part]
        names = [name for name, label in listed if label < num_classes]
        labels = torch.tensor([label for _, label in listed if label < num_classes], dtype=torch.int64)
        pixels, digest = _pixels(files, names, decode, size, f"{data}-{num_classes}-{part}", cache)
        splits.append(Split(pixels.permute(0, 3, 1, 2), labels, digest))
    return splits[0], splits[1]


def _pixels(
    files: Files, names: Sequence[str], decode: Decode, size: int, part: str, cache: Path | None
) -> tuple[UInt8[Tensor, "images size size 3"], str | None]:
    """Return the pixels, and their digest where they are kept."""
    shape = [len(names), size, size, 3]
    if cache is not None and names:
        place = json.dumps([str(Path(files.where).resolve()), *_versions()])
        path = cache / f"{part}-{size}px-{hashlib.sha256(place.encode()).hexdigest()[:12]}.npy"
        expected = {"format": _FORMAT, "source": _source(files, names), "shape": shape}
        try:
            return _kept(path, expected) or _keep(path, decoded_chunks(files, names, decode, size), expected)
        except OSError as error:
            warnings.warn(
                f"decoded images cannot be kept in {cache} ({error}): choose another folder for the cache, or none",
                stacklevel=2,
            )
    check_memory(math.prod(shape), size)
    images = np.empty(shape, dtype=np.uint8)
    start = 0
    for chunk in decoded_chunks(files, names, decode, size):
        images[start : start + len(chunk)] = chunk
        start += len(chunk)
    return torch.from_numpy(images), None


def _versions() -> list[str]:
    """What decides how a file is decoded, beside the code of the data set."""
    pillow()
    from PIL import __version__, features

    return [__version__, str(features.version("jpg")), str(features.version("libjpeg_turbo"))]


def _source(files: Files, names: Sequence[str]) -> str:
    """Return a digest of the names and marks of the images, in their order."""
    total = hashlib.sha256()
    for name in names:
        total.update(f"{name}\n{files.marks.get(name)}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def _kept(path: Path, expected: dict[str, Any]) -> tuple[UInt8[Tensor, "images size size 3"], str] | None:
    """Return the pixels and their digest if they are those expected and whole, else None."""
    try:
        manifest = json.loads(read_regular(path.with_suffix(".json"), _MANIFEST_BYTES))
        if not isinstance(manifest, dict) or {name: manifest.get(name) for name in expected} != expected:
            return None
        pixels = _mapped(path, expected["shape"])
        mark = _mark(path.stat())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    digest = manifest.get("sha256")
    if not isinstance(digest, str):
        return None
    if manifest.get("mark") != mark:
        if hashlib.sha256(pixels.numpy().data).hexdigest() != digest:
            return None
        with suppress(OSError):  # a folder that may only be read
            _note(path, expected, digest, mark)
    return pixels, digest


def _keep(
    path: Path, chunks: Iterator[UInt8[np.ndarray, "chunk size size 3"]], expected: dict[str, Any]
) -> tuple[UInt8[Tensor, "images size size 3"], str]:
    """Write pixels, then their manifest; return the pixels and their digest.

    A reader in between finds that they do not fit.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a run that was killed
        if time.time() - left.stat().st_mtime > _DAY:
            left.unlink(missing_ok=True)
    total = hashlib.sha256()
    with _replacing(path) as file:
        file.write(_header(expected["shape"]))
        for chunk in chunks:
            file.write(chunk.data)
            total.update(chunk.data)
        file.flush()
        mark = _mark(os.fstat(file.fileno()))
        pixels = _mapped(Path(file.name), expected["shape"])  # before another process can put another in its place
    _note(path, expected, total.hexdigest(), mark)
    return pixels, total.hexdigest()


def _note(path: Path, expected: dict[str, Any], digest: str, mark: list[int]) -> None:
    """Write the manifest of a file of pixels."""
    with _replacing(path.with_suffix(".json")) as file:
        file.write(json.dumps(expected | {"sha256": digest, "mark": mark}, indent=2).encode())


def _mark(status: os.stat_result) -> list[int]:
    """Return what changes when somebody writes to a file: its size in bytes and its time in nanoseconds."""
    return [status.st_size, status.st_mtime_ns]


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name only when it is whole. Not flushed to disk: a torn file is noticed anyway."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _header(shape: Sequence[int]) -> bytes:
    """Return what an .npy file of uint8 in this shape starts with."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    return buffer.getvalue()


def _mapped(path: Path, shape: Sequence[int]) -> UInt8[Tensor, "images size size 3"]:
    """Return the array of an .npy file, mapped copy-on-write.

    Raises:
        ValueError: it has another shape, or the file another length.
    """
    header = _header(shape)
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe, which would be waited for
        raise ValueError(f"{path} is no file")
    with path.open("rb") as file:
        whole = os.fstat(file.fileno()).st_size == len(header) + math.prod(shape)
        if not whole or file.read(len(header)) != header:
            raise ValueError(f"{path} does not hold {tuple(shape)} bytes")
        # Without the flag Linux refuses private mappings that are larger than its memory; Python names it from 3.13.
        flag = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
        mapping = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | flag, mmap.PROT_READ | mmap.PROT_WRITE)
    return torch.frombuffer(mapping, dtype=torch.uint8, offset=len(header)).view(*shape)

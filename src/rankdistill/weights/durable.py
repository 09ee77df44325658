"""Files that survive: written beside their target, flushed, renamed, with a SHA-256 beside them.

A reader never sees half a file, and a flipped bit is an error instead of another network.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_DIGEST = re.compile(rb"[0-9a-fA-F]{64}(?=\s|$)")
_MOST_OF_DIGEST = 10_000

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "allow larger files",
    errno.EACCES: "allow writing there, or choose another folder",
    errno.EROFS: "choose another folder",
    errno.EISDIR: "a folder stands where the file goes: remove it",
    errno.EEXIST: "a file stands where a folder is needed: choose another folder",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another folder",
}


class WriteError(OSError):
    """A file cannot be written: no space, no permission, no folder. The message says which file and what to do."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash or on a full disk.

    Raises:
        WriteError: it cannot be written; what was there before is there still.
    """
    try:
        _replace(path, content)
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "choose another folder")
        raise WriteError(f"{path} cannot be written ({error.strerror or error}): {advice}") from error


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=2, default=str) + "\n").encode())


def write_with_digest(path: Path, content: bytes) -> None:
    """Write a file and its SHA-256 beside it (`<name>.sha256`, in the format of sha256sum), the digest first."""
    digest = hashlib.sha256(content).hexdigest()
    write_atomically(digest_path(path), f"{digest}  {path.name}\n".encode())
    write_atomically(path, content)


def digest_path(path: Path) -> Path:
    """Return where the SHA-256 of a file is kept."""
    return path.with_name(path.name + ".sha256")


def read_with_digest(path: Path, *, required: bool = False) -> bytes:
    """Return a file's content after comparing it with the SHA-256 beside it.

    Args:
        path: the file.
        required: refuse a file that has no SHA-256 beside it: one that this program wrote always has it.

    Raises:
        FileNotFoundError: there is no such file. ValueError: the content differs from the digest, the digest is
            missing though it is required, or the file of the digest holds none.
    """
    expected = _digest_beside(path, required=required)
    content = path.read_bytes()
    _compare(path, expected, hashlib.sha256(content))
    return content


def check_digest(path: Path) -> None:
    """Raise what `read_with_digest` raises; the file is not held in memory, nor read if no SHA-256 is beside it."""
    expected = _digest_beside(path, required=False)
    if expected is not None:
        with path.open("rb") as file:
            _compare(path, expected, hashlib.file_digest(file, "sha256"))


def _digest_beside(path: Path, *, required: bool) -> str | None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: check the path")
    beside = digest_path(path)
    if not beside.is_file():
        if required:
            raise ValueError(f"{path} has no SHA-256 beside it, in {beside.name}: it cannot be trusted")
        return None
    with beside.open("rb") as file:
        expected = _DIGEST.match(file.read(_MOST_OF_DIGEST))
    if expected is None:
        raise ValueError(f"{beside} holds no SHA-256: remove it if {path.name} is whole, or copy both again")
    return expected[0].decode().lower()


def _compare(path: Path, expected: str | None, found: hashlib._Hash) -> None:
    if expected is not None and found.hexdigest() != expected:
        raise ValueError(
            f"{path} is damaged (SHA-256 {found.hexdigest()[:12]}, expected {expected[:12]}): copy it again"
        )

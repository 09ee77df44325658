"""Files that survive: written beside their target, flushed, renamed, with a SHA-256 beside them.

A reader never sees half a file, and a flipped bit is an error instead of another network.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash or on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
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


def read_with_digest(path: Path) -> bytes:
    """Return a file's content after comparing it with the SHA-256 beside it, if there is one.

    Raises:
        FileNotFoundError: there is no such file. ValueError: the content differs from the digest.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: check the path")
    content = path.read_bytes()
    if digest_path(path).is_file():
        expected = digest_path(path).read_text().split()[0]
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise ValueError(f"{path} is damaged (SHA-256 {found[:12]}, expected {expected[:12]}): copy it again")
    return content

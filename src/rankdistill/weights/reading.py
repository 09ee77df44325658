"""Weights from a file, whoever wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from .durable import check_digest
from .foreign import check_values, read_checkpoint, unprefixed
from .storage import load_weights


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a network's weights, and what the file says about them.

    Args:
        path: a safetensors file, or a checkpoint of others (see `weights.foreign`), of which the student is taken if it
            holds a teacher as well. Compared with the SHA-256 beside it, if there is one.

    Returns:
        The weights, and the header that this program writes; empty for others' files.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is damaged, or its content is refused.
    """
    if is_safetensors(path):
        weights, header = load_weights(path)
        if not header:  # others'
            weights = unprefixed(weights, path)
        check_values(weights, path)
        return weights, header
    check_digest(path)
    return read_checkpoint(path).weights, {}


def is_safetensors(path: Path) -> bool:
    """Return whether a file is in the safetensors format, by its name or by its first bytes."""
    if path.suffix == ".safetensors":
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"

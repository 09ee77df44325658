"""Arrays of a teacher cache as files: written whole, their manifest last, and read only as what they must be."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..weights.durable import write_atomically

_MANIFEST_BYTES = 2**16


def write_rows(manifest: Path, arrays: Mapping[Path, np.ndarray]) -> None:
    """Write arrays, then the manifest with their SHA-256.

    Raises:
        WriteError: one of them cannot be written.
    """
    digests = {}
    for path, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        digests[path.name] = hashlib.sha256(buffer.getvalue()).hexdigest()
        write_atomically(path, buffer.getvalue())
    write_atomically(manifest, (json.dumps({"sha256": digests}) + "\n").encode())


def read_rows(manifest: Path, rows: Path, indices: Path, num_samples: int, dtype: str) -> tuple[Tensor, Tensor]:
    """Return logits [samples, views, classes] and the positions of their samples [samples], mapped into memory.

    Args:
        manifest: the file with the digests of the other two.
        rows: the file of the logits.
        indices: the file of the positions.
        num_samples: of the training set, which positions are below.
        dtype: of the logits.

    Raises:
        OSError: a file cannot be read. ValueError: a file is damaged, or is not what a cache of this run has.
    """
    try:
        with manifest.open("rb") as file:
            digests = json.loads(file.read(_MANIFEST_BYTES))["sha256"]
        expected = [str(digests[path.name]) for path in (rows, indices)]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{manifest.name} is no manifest of a cache") from error
    values, places = (_array(path, digest) for path, digest in zip((rows, indices), expected, strict=True))
    if values.ndim != 3 or values.dtype != np.dtype(dtype) or 0 in values.shape or values.shape[1] > 2:
        raise ValueError(f"{rows.name} holds no logits in {dtype}")
    if places.dtype != np.int64 or places.shape != values.shape[:1]:
        raise ValueError(f"{indices.name} does not belong to {rows.name}")
    if places.min() < 0 or places.max() >= num_samples:
        raise ValueError(f"{indices.name} names samples that there are not")
    return torch.from_numpy(values), torch.from_numpy(places)


def _array(path: Path, digest: str) -> np.ndarray:
    if not path.is_file():  # nothing is waited for, as a pipe would be
        raise FileNotFoundError(f"there is no file {path.name}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise ValueError(f"{path.name} is damaged")
    try:
        # Mapped copy-on-write: torch wants memory that may be written, and nothing reaches the file.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except Exception as error:  # NumPy parses headers as Python, with errors of any kind
        raise ValueError(f"{path.name} is no array") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path.name} is no array")
    return array

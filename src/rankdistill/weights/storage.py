"""Weights and checkpoints as files, each with a SHA-256 beside it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from .durable import check_digest, read_with_digest, write_with_digest
from .header import read_header
from .pickles import read_pickled

_ABOUT = "rankdistill"
_MOST_OF_TABLE = 2**24
_MOST_TENSORS = 50_000


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict: names, dtypes, shapes and values, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def save_weights(path: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a state dict as safetensors, with what there is to say `about` it, and its SHA-256 beside it.

    The same weights give the same bytes: one header entry, since safetensors writes several in random order.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    write_with_digest(path, to_safetensors(tensors, metadata={_ABOUT: json.dumps(about)}))


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a safetensors file, and what `save_weights` said about them (empty for others' files).

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is damaged, or no safetensors file, or says of itself
            what this program does not write.
    """
    check_digest(path)
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > _MOST_OF_TABLE:
            raise ValueError(f"{path} is not a readable safetensors file (its table is too long): fetch it again")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            if len(names) > _MOST_TENSORS:
                raise ValueError(f"{path} is no network of ours: it has {len(names):,} tensors")
            tensors = {name: file.get_tensor(name) for name in names}
            about = (file.metadata() or {}).get(_ABOUT)
    except (SafetensorError, OSError, RuntimeError, TypeError, LookupError, AttributeError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is not a readable safetensors file ({reason}): fetch it again") from error
    return tensors, {} if about is None else read_header(about, path)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint (nested dicts of tensors and plain values) with its SHA-256 beside it."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_with_digest(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Return what `save_state` wrote, on the CPU. Nothing is unpickled but tensors and plain values.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is damaged, or has no SHA-256 beside it, or
            `save_state` did not write it.
    """
    content = read_with_digest(path, required=True)
    try:
        state = read_pickled(io.BytesIO(content))
    except Exception as error:  # of any kind, see `read_pickled`
        raise ValueError(f"{path} is no checkpoint of this program") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no checkpoint of this program")
    return state

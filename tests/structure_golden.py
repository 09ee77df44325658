"""Golden numbers of the methods that change the student: files too large for this repository, in `shared` beside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

SHARED = Path(__file__).resolve().parents[2] / "shared" / "golden" / "feature"
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


@functools.cache
def _file(name: str) -> Mapping[str, np.ndarray]:
    return np.load(SHARED / f"{name}.npz")


def golden(file: str, name: str) -> Tensor:
    """Return an array. Tests that call this are marked `authors`, and are left out where the folder is absent."""
    return torch.from_numpy(np.asarray(_file(file)[name]))


def names(file: str) -> list[str]:
    """Return the names of the arrays of a file; empty where the folder is absent."""
    return list(_file(file)) if SHARED.is_dir() else []


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Return whether the largest difference is within `tolerance` times the largest expected value."""
    found, expected = found.detach().double(), expected.double()
    assert found.shape == expected.shape
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def gradient_is_right(file: str, name: str, gradient: Tensor, tolerance: float, case: str = "a") -> bool:
    """Compare a gradient with its norms by sample and with what the file has of it."""
    have = names(file)
    right = close(gradient.flatten(1).norm(dim=1), golden(file, f"{case}.gradnorm.{name}"), tolerance)
    if f"{case}.grad.{name}" in have:
        return right and close(gradient, golden(file, f"{case}.grad.{name}"), tolerance)
    return right and close(gradient[0], golden(file, f"{case}.grad0.{name}"), tolerance)


def load(module: nn.Module, file: str, prefix: str) -> nn.Module:
    """Load the arrays whose names continue `prefix` as the module's state does."""
    state = module.state_dict()
    for key in state:
        if not key.endswith("num_batches_tracked"):
            state[key] = golden(file, f"{prefix}.{key}").to(state[key])
    module.load_state_dict(state)
    return module

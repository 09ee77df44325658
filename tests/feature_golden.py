"""The numbers of the authors' code for methods on features, and comparisons with them.

Small files are in `tests/golden/feature`; the rest in the `shared` folder beside the project's root. Tests that need it
are marked `authors`, and are left out where that folder is absent.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rankdistill import Batch

_FOLDERS = (
    Path(__file__).resolve().parent / "golden" / "feature",
    Path(__file__).resolve().parents[2] / "shared" / "golden" / "feature",
)
DTYPES = [torch.float64, torch.float32]
BATCH = Batch(torch.zeros(4, 3, 8, 8), None)


@functools.cache
def _files(name: str) -> list[Mapping[str, np.ndarray]]:
    return [np.load(folder / f"{name}.npz") for folder in _FOLDERS if (folder / f"{name}.npz").is_file()]


def golden(file: str, name: str) -> Tensor:
    """Return an array of a golden file, of the first file that has it."""
    return torch.from_numpy(np.asarray(next(found[name] for found in _files(file) if name in found)))


def has(file: str, name: str) -> bool:
    """Return whether a golden file that is here has the array."""
    return any(name in found for found in _files(file))


def features(dtype: torch.dtype, *roles: str) -> tuple[list[Tensor], list[Tensor]]:
    """Return the student's features of case a, which are leaves, and the teacher's; stages are after the ReLU."""

    def read(who: str, role: str) -> Tensor:
        if role.startswith("stage"):
            return golden("inputs", f"a.{who}.pre{role.removeprefix('stage')}").to(dtype).relu()
        return golden("inputs", f"a.{who}.{role}").to(dtype)

    return [read("s", role).requires_grad_() for role in roles], [read("t", role) for role in roles]


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest expected value."""
    found, expected = found.detach().double(), expected.double()
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def check_gradient(file: str, name: str, leaf: Tensor, tolerance: float) -> None:
    """Compare a feature's gradient with what the file has of it: all of it or the first sample, and norms by sample."""
    gradient = leaf.grad
    assert gradient is not None
    assert relative_error(gradient.flatten(1).norm(dim=1), golden(file, f"a.gradnorm.{name}")) < tolerance
    if has(file, f"a.grad.{name}"):
        assert relative_error(gradient, golden(file, f"a.grad.{name}")) < tolerance
    elif has(file, f"a.grad0.{name}"):
        assert relative_error(gradient[0], golden(file, f"a.grad0.{name}")) < tolerance


def check_parameters(file: str, role: str, names: Mapping[str, nn.Parameter], tolerance: float) -> None:
    """Compare the gradients of parameters, by the names that the file has under a role, and their norms."""
    for name, parameter in names.items():
        gradient = parameter.grad
        assert gradient is not None
        norm = golden(file, f"a.pgrad.{role}norm.{name}")
        assert (gradient.norm() - norm).abs() < tolerance * max(float(norm), 1.0)
        if has(file, f"a.pgrad.{role}.{name}") and norm > 1e-9:
            assert relative_error(gradient, golden(file, f"a.pgrad.{role}.{name}")) < tolerance


def load(module: nn.Module, file: str, role: str, names: Mapping[str, str]) -> None:
    """Load a module's parameters and buffers from the arrays of a role: our name -> theirs."""
    state = {ours: golden(file, f"a.param.{role}.{theirs}") for ours, theirs in names.items()}
    counters = {name: value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")}
    module.load_state_dict(state | counters)

"""Case `a` of the golden files on logits: 8 samples of 100 classes; numbers of float64, for float32 too."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DTYPES = {"f64": torch.float64, "f32": torch.float32}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


class Golden:
    """A golden file; arrays come as tensors, by key or by what follows `a.f64.`."""

    def __init__(self, name: str) -> None:
        self.arrays = np.load(Path(__file__).parent / "golden" / f"{name}.npz")

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[key if key in self.arrays else f"a.f64.{key}"]))

    def inputs(self, precision: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the student's logits, with a gradient to come, the teacher's, and the labels."""
        student, teacher = (self[f"a.in.{who}"].to(DTYPES[precision]) for who in ("student", "teacher"))
        return student.requires_grad_(), teacher, self["a.in.target"]


def assert_golden(found: Tensor | None, expected: Tensor, tolerance: float | None = None) -> None:
    """Assert that the numbers are equal within a fraction of the largest one: 1e-9 in float64, 1e-5 in float32."""
    assert found is not None
    tolerance = TOLERANCE[found.dtype] if tolerance is None else tolerance
    error = (found.detach().double().squeeze() - expected.double().squeeze()).abs().max()
    assert error <= tolerance * expected.abs().max()

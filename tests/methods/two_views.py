"""What the golden tests of the two-view methods share."""

from pathlib import Path

import numpy as np
import torch

TOLERANCE = {"f64": 1e-9, "f32": 1e-5}
DTYPE = {"f64": torch.float64, "f32": torch.float32}


class Golden:
    """The arrays of one golden file."""

    def __init__(self, name: str) -> None:
        self.arrays = np.load(Path(__file__).parents[1] / "golden" / f"{name}.npz")

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name]))

    def logits(self, precision: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return student, teacher, student_strong, teacher_strong, the student's with gradients."""
        names = ("student", "teacher", "student_strong", "teacher_strong")
        values = (self[f"a.in.{name}"].to(DTYPE[precision]) for name in names)
        first, second, third, fourth = values
        return first.requires_grad_(), second, third.requires_grad_(), fourth


def close(found: torch.Tensor | None, expected: torch.Tensor, precision: str) -> bool:
    assert found is not None
    return bool((found.detach() - expected).abs().max() <= TOLERANCE[precision] * expected.abs().max())


def random_logits(size: int = 6, num_classes: int = 5) -> list[torch.Tensor]:
    """Return student, teacher, student_strong, teacher_strong in float64."""
    return list(torch.randn(4, size, num_classes, dtype=torch.float64).unbind())

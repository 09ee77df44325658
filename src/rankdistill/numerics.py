"""Precision of losses, and the checks of values that methods share."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 if it is in half precision, unchanged in float32 and float64."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def full_precision(tensor: Tensor) -> torch.autocast:
    """Return a context in which autocast is off on the tensor's device; every loss function computes inside one."""
    return torch.autocast(tensor.device.type, enabled=False)


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless the temperature is positive and finite."""
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}: it must be positive and finite")


def paired_logits(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both logits in at least float32, the teacher's detached.

    Raises:
        ValueError: they are not two [B, K] of one shape.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"the student's logits have shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}: "
            "logits of the same samples and classes, [batch, classes], are needed"
        )
    return at_least_float32(student), at_least_float32(teacher.detach())

"""Precision of losses, and the checks of values that methods share."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 if it is in half precision, unchanged in float32 and float64."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def full_precision(tensor: Tensor) -> torch.autocast:
    """Return a context in which autocast is off on the tensor's device; every loss function computes inside one."""
    return torch.autocast(tensor.device.type, enabled=False)


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless the value is positive and finite."""
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} is {value}: it must be positive and finite")


def check_not_negative(name: str, value: float) -> None:
    """Raise ValueError unless the value is finite and at least 0."""
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name} is {value}: it must be finite and not negative")


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise ValueError unless the value is finite and from `low` to `high`, both included."""
    if not (low <= value <= high and value < math.inf):
        limits = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} is {value}: it must be {limits}")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    known = [f'"{choice}"' for choice in choices]
    if f'"{value}"' not in known:
        raise ValueError(f"{name} is {value!r}: it must be {', '.join(known[:-1])} or {known[-1]}")


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

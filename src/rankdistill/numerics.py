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
        limits = limits if math.isfinite(value) else f"finite and {limits}"
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


def checked_classes(labels: Tensor | None, num_classes: int, loss: str) -> Tensor:
    """Return labels that are one class per sample, [B] int64; the rest as in `checked_labels`.

    Raises:
        ValueError: they are missing or mixed, or one is no class.
    """
    if labels is None or labels.ndim != 1:
        found = "None" if labels is None else f"of shape {tuple(labels.shape)}"
        raise ValueError(f"{loss} needs one class per sample, but Batch.labels is {found}: train on unmixed labels")
    return checked_labels(labels, num_classes, loss)


def checked_labels(labels: Tensor | None, num_classes: int, loss: str) -> Tensor:
    """Return labels as a loss takes them: classes [B] int64, or distributions [B, K].

    Values are looked at on the CPU alone, since looking would make an accelerator wait.

    Args:
        labels: classes [B] of any integer type, or distributions [B, K], whose rows sum to 1.
        num_classes: K, the number of classes.
        loss: its name, for messages.

    Raises:
        ValueError: there are no labels, their shape is another, a class is not in 0 .. K - 1, or a row sums to another
            number than 1.
    """
    if labels is None:
        raise ValueError(f"{loss} needs Batch.labels, which is None: leave it out for unlabelled data")
    if not isinstance(labels, Tensor):
        raise ValueError(f"the labels of {loss} are a {type(labels).__name__}: give a tensor, torch.tensor(labels)")
    if labels.is_floating_point():
        if labels.ndim != 2 or labels.shape[1] != num_classes:
            raise ValueError(
                f"the labels of {loss} have shape {tuple(labels.shape)} and are {labels.dtype}: give classes [batch] "
                f"as integers, or distributions [batch, {num_classes}]"
            )
        sums = labels.sum(1)
        if labels.is_cpu and bool(((sums - 1.0).abs() > 1e-3).any()):
            worst = float(sums[(sums - 1.0).abs().argmax()])
            raise ValueError(
                f"a row of the labels of {loss} sums to {worst:g}: rows are distributions over the classes; divide "
                "several-hot rows by their sums"
            )
        return labels
    if labels.ndim != 1 or labels.dtype == torch.bool:
        raise ValueError(
            f"the labels of {loss} have shape {tuple(labels.shape)} and are {labels.dtype}: give classes [batch] as "
            f"integers (labels.squeeze(1) of [batch, 1]), or distributions [batch, {num_classes}] as floats"
        )
    labels = labels.long()
    if labels.is_cpu and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        raise ValueError(
            f"{len(wrong)} of {len(labels)} labels of {loss} are no class, the first is {int(wrong[0])}: classes are 0 "
            f"to {num_classes - 1}; leave such samples out"
        )
    return labels

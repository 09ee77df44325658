"""Properties that some losses promise and others do not, as functions of a loss [B, K], [B, K] -> [B] or a scalar.

The file of a method's tests lists those of its loss. What every method must do is in `methods/test_every_method.py`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""Function of the values of student and teacher."""

LABELS = torch.tensor([0, 2, 1, 4])


def with_labels(loss: Callable[..., Tensor]) -> Loss:
    """Return the loss with labels of the first samples as its third argument."""
    return lambda student, teacher: loss(student, teacher, LABELS[: len(student)])


def shift_invariant(loss: Loss) -> None:
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64)
    shifts = 10 * torch.randn(2, 4, 1, dtype=torch.float64)
    torch.testing.assert_close(loss(student + shifts[0], teacher + shifts[1]), loss(student, teacher))


def zero_at_equality(loss: Loss, *, tolerance: float = 0.0) -> None:
    logits = torch.randn(4, 5, dtype=torch.float64)
    assert loss(logits, logits.clone()).abs().max() <= tolerance


def sample_by_sample(loss: Loss) -> None:
    """One value for each sample, which depends on no other sample."""
    student, teacher = torch.randn(2, 2, 5, dtype=torch.float64)
    found = loss(student, teacher)
    assert found.shape == (2,)
    torch.testing.assert_close(found[:1], loss(student[:1], teacher[:1]))


def two_classes(loss: Loss) -> None:
    """Finite, with a finite gradient, for one sample of two classes."""
    student, teacher = torch.randn(1, 2, requires_grad=True), torch.randn(1, 2)
    value = loss(student, teacher)
    value.sum().backward()
    assert value.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def half_precision(loss: Loss, shape: tuple[int, ...] = (4, 50)) -> None:
    student, teacher = torch.randn(2, *shape).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(student.float(), teacher.float()))

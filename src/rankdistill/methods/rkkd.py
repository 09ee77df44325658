"""Ranking loss for knowledge distillation, after Kendall's tau (ICML 2025). arXiv:2409.17823. A reconstruction.

    tau(s, t) = 2 / (C (C - 1)) sum_{i < j} tanh(k (s_i - s_j)) tanh(k (t_i - t_j))
    RKKD(s, t) = 1 - tau(s, t)

on raw logits, without softmax or temperature; for large k, one minus Kendall's rank correlation. It is used beside
another loss (KD, DKD, CTKD) and at that loss's weight.

Reconstructed from the abstract and reviews, without the paper's text or code: unknown are the normalisation, whether
pairs are averaged or summed, and whether all are used.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import check_positive, full_precision, paired_logits

_CHUNK = 2**20


def rkkd_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    steepness: float = 100.0,
) -> Float[Tensor, " batch"]:
    """Return one minus the smooth Kendall correlation of the two rows, per sample, from 0 to 2.

    Args:
        student: logits, [B, C] with C at least 2. Half precision is computed in float32.
        teacher: logits, [B, C]; no gradient flows into them. Classes that it ties contribute nothing.
        steepness: k > 0, per unit of logit. The larger, the closer to ranks, and the fewer pairs pass a gradient:
            those whose student logits differ by less than about 3 / k.

    Takes O(B C^2) time. Memory does not grow so: pairs are visited in chunks, with a few arrays of at most
    max(2^20, B C) numbers at a time, and the backward pass reads [B, C] only. A second derivative keeps all pairs.

    Raises:
        ValueError: the shapes differ, there is one class, or the steepness is not positive.

    Example:
        >>> import torch
        >>> from rankdistill import rkkd_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> rkkd_loss(student, teacher).shape
        torch.Size([4])
    """
    check_positive("steepness", steepness)
    student, teacher = paired_logits(student, teacher)
    if student.shape[1] < 2:
        raise ValueError(f"there are {student.shape[1]} classes: RKKD compares pairs of them, give it at least 2")
    with full_precision(student):
        losses: Tensor = _Kendall.apply(student, teacher, steepness)[0]
        return losses


class _Kendall(torch.autograd.Function):
    """The loss and its derivative in one sweep over pairs; keeping the pairs for autograd would take [B, C, C]."""

    @staticmethod
    def forward(student: Tensor, teacher: Tensor, steepness: float) -> tuple[Tensor, Tensor]:
        return _sweep(student, teacher, steepness)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[:2], output[1])
        ctx.steepness = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        student, teacher, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is to come
            slope = _sweep(student, teacher, ctx.steepness)[1]
        return grad.unsqueeze(1) * slope, None, None


def _sweep(student: Tensor, teacher: Tensor, steepness: float) -> tuple[Tensor, Tensor]:
    """Return the loss, [B], and its derivative with respect to the student's logits, [B, C]."""
    size, num_classes = student.shape
    num_pairs = num_classes * (num_classes - 1)  # ordered ones: each pair is visited from both its ends
    agreement = student.new_zeros(size)
    slopes = []
    step = max(1, _CHUNK // max(1, size * num_classes))
    for start in range(0, num_classes, step):
        first = slice(start, start + step)
        in_student = _signs(student, first, steepness)  # [B, n, C]
        in_teacher = _signs(teacher, first, steepness)
        product = in_student * in_teacher
        agreement = agreement + product.sum((1, 2))
        slopes.append(torch.addcmul(in_teacher, product, in_student, value=-1.0).sum(2))
    return 1.0 - agreement / num_pairs, torch.cat(slopes, dim=1) * (-2.0 * steepness / num_pairs)


def _signs(logits: Tensor, first: slice, steepness: float) -> Tensor:
    """Return tanh(k (x_i - x_j)) for the classes i of a slice and all j, [B, n, C]."""
    # The difference first: of near ties it is exact, and k times large logits would be rounded.
    return (logits[:, first].unsqueeze(2) - logits.unsqueeze(1)).mul_(steepness).tanh_()


class RKKD(Method):
    """The student orders each pair of classes as its teacher does, after Kendall's tau (a reconstruction).

    The method has no state.

    Args:
        steepness: how steeply a pair of logits becomes an order (k), positive; 100 is said to be the most accurate of
            the paper's.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, RKKD, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "rkkd": (0.9, RKKD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, *, steepness: float = 100.0) -> None:
        super().__init__()
        check_positive("steepness", steepness)
        self.steepness = steepness

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"rkkd": mean loss}."""
        return {"rkkd": rkkd_loss(student.logits, teacher.logits, steepness=self.steepness).mean()}

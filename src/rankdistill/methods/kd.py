"""Distilling the Knowledge in a Neural Network (Hinton, Vinyals and Dean, 2015). arXiv:1503.02531.

    KD(s, t) = T^2 KL(softmax(t / T) || softmax(s / T))

Recipes add cross-entropy; on CIFAR-100 with weights 0.1 (labels) and 0.9 (KD) and T = 4.
Differs from the authors' code: nothing; equal to mdistiller's and RepDistiller's loss to rounding.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output
from ..numerics import check_positive, full_precision, paired_logits


def kd_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    temperature: float = 4.0,
) -> Float[Tensor, " batch"]:
    """Return T^2 times the KL divergence of the tempered student from the tempered teacher, per sample, in nats.

    Args:
        student: logits, [B, K]. Half precision is computed in float32.
        teacher: logits, [B, K]; no gradient flows into them.
        temperature: T > 0. The factor T^2 keeps the gradient's size as T grows; at T = 1 this is plain KL.

    Zero where the two rows differ by a constant.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.
    """
    check_positive("temperature", temperature)
    student, teacher = paired_logits(student, teacher)
    with full_precision(student):
        log_student = F.log_softmax(student / temperature, dim=1)
        log_teacher = F.log_softmax(teacher / temperature, dim=1)
        divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)
        return temperature**2 * divergence


class KDLoss(nn.Module):
    """`kd_loss` averaged over the batch, a plain criterion: `KDLoss(temperature=4.0)(student_logits, teacher_logits)`.

    Args:
        temperature: T > 0; 4 is what CIFAR-100 benchmarks use.
    """

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean loss, a scalar in nats, of logits [B, K] and [B, K]."""
        return kd_loss(student, teacher, temperature=self.temperature).mean()


class KD(Method):
    """Vanilla knowledge distillation, mean over the batch, in nats. No state.

    Args:
        temperature: T > 0; 4 is what CIFAR-100 benchmarks use, 1 ImageNet ones.
    """

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"kd": mean loss}."""
        return {"kd": kd_loss(student.logits, teacher.logits, temperature=self.temperature).mean()}

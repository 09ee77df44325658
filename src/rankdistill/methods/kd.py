"""Distilling the Knowledge in a Neural Network (Hinton, Vinyals and Dean, 2015). arXiv:1503.02531.

    KD(s, t) = T^2 KL(softmax(t / T) || softmax(s / T))

Recipes add cross-entropy; on CIFAR-100 with weights 0.1 (labels) and 0.9 (KD) and T = 4.
Differs from the authors' code: nothing; equal to mdistiller's and RepDistiller's loss to rounding.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

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
        temperature: T, positive. The factor T^2 keeps the gradient's size as T grows; at T = 1 this is plain KL.

    Zero where the two rows differ by a constant.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.

    Example:
        >>> import torch
        >>> from rankdistill import kd_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> kd_loss(student, teacher).shape
        torch.Size([4])
    """
    check_positive("temperature", temperature)
    student, teacher = paired_logits(student, teacher)
    with full_precision(student):
        log_student = F.log_softmax(student / temperature, dim=1)
        log_teacher = F.log_softmax(teacher / temperature, dim=1)
        divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)
        return temperature**2 * divergence


class KD(Method):
    """The student's softened probabilities approach the teacher's (Hinton et al.), mean over the batch, in nats.

    The method has no state.

    Args:
        temperature: the temperature T, positive; 4 is what CIFAR-100 benchmarks use, 1 ImageNet ones.

    Example:
        >>> import torch
        >>> from rankdistill import KD, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "kd": (0.9, KD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    reads_logits_once = True

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"kd": mean loss}."""
        return {"kd": kd_loss(student.logits, teacher.logits, temperature=self.temperature).mean()}

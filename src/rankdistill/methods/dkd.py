"""Decoupled Knowledge Distillation (Zhao, Cui, Song, Qiu and Liang, CVPR 2022). arXiv:2203.08679.

With p = softmax(s / T), q = softmax(t / T), the label k, and p', q' the same without class k, renormalised:

    TCKD = T^2 KL((q_k, 1 - q_k) || (p_k, 1 - p_k))
    NCKD = T^2 KL(q' || p')
    DKD(s, t) = alpha TCKD + beta NCKD

while T^2 KL(q || p) = TCKD + (1 - q_k) NCKD. Recipes add cross-entropy of weight 1.
Differs from the authors' code: the probabilities of label and rest stay logarithms, and the label's column is masked
rather than lowered by 1000. Values are equal to rounding where theirs are finite; these are finite everywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import check_not_negative, check_positive, checked_classes, full_precision, paired_logits


def dkd_terms(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    *,
    temperature: float = 4.0,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Return TCKD and NCKD, the divergences on the label and among the other classes, per sample, in nats.

    Args:
        student: logits, [B, K] with K at least 2. Half precision is computed in float32.
        teacher: logits, [B, K]; no gradient flows into them.
        labels: classes, [B].
        temperature: T, positive; both terms have the factor T^2.

    Both are zero where the two rows differ by a constant. With two classes nothing is left beside the label, and NCKD
    is zero.

    Raises:
        ValueError: the shapes differ, there is one class, or the temperature is not positive.

    Example:
        >>> import torch
        >>> from rankdistill import dkd_terms
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> target, others = dkd_terms(student, teacher, torch.randint(100, (4,)))
    """
    check_positive("temperature", temperature)
    student, teacher = paired_logits(student, teacher)
    if student.shape[1] < 2:
        raise ValueError(f"there are {student.shape[1]} classes: DKD compares label and rest, give it at least 2")
    with full_precision(student):
        column = labels.unsqueeze(1)
        is_label = torch.arange(student.shape[1], device=student.device) == column
        student_gap, log_student = _split(student / temperature, column, is_label)
        teacher_gap, log_teacher = _split(teacher / temperature, column, is_label)

        on_label = F.logsigmoid(teacher_gap) - F.logsigmoid(student_gap)
        on_rest = F.logsigmoid(-teacher_gap) - F.logsigmoid(-student_gap)
        target = teacher_gap.sigmoid() * on_label + (-teacher_gap).sigmoid() * on_rest

        others = log_teacher.exp().masked_fill(is_label, 0.0)
        rest = (others * (log_teacher - log_student)).sum(1)
        return temperature**2 * target, temperature**2 * rest


def _split(logits: Tensor, column: Tensor, is_label: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p_k - log(1 - p_k), [B], and the log-probabilities of the other classes, [B, K] (any at the label)."""
    log_rest = logits.masked_fill(is_label, -torch.inf).logsumexp(1, keepdim=True)
    return (logits.gather(1, column) - log_rest).squeeze(1), logits - log_rest


def dkd_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Float[Tensor, " batch"]:
    """Return alpha TCKD + beta NCKD per sample, in nats; arguments and errors as in `dkd_terms`.

    Example:
        >>> import torch
        >>> from rankdistill import dkd_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> labels = torch.randint(100, (4,))
        >>> dkd_loss(student, teacher, labels, alpha=1.0, beta=8.0).shape
        torch.Size([4])
    """
    target, rest = dkd_terms(student, teacher, labels, temperature=temperature)
    return alpha * target + beta * rest


class DKD(Method):
    """KD in two parts, the label's class and all others, each with its weight; mean over the batch, in nats.

    The method has no state. The labels are classes.

    Args:
        alpha: the weight of the loss on the label's class (TCKD).
        beta: the weight of the loss on the other classes (NCKD); on CIFAR-100 from 2 to 8, larger for more confident
            teachers.
        temperature: the temperature T, positive; 4 on CIFAR-100, 1 on ImageNet.
        warmup: the number of epochs over which the loss grows linearly to its full size, which it has in epoch number
            `warmup`; 20 on CIFAR-100. 0 or 1 for none.

    Example:
        >>> import torch
        >>> from rankdistill import DKD, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "dkd": (1.0, DKD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    reads_logits_once = True

    def __init__(self, *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, warmup: int = 20) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_not_negative("alpha", alpha)
        check_not_negative("beta", beta)
        check_not_negative("warmup", warmup)
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature
        self.warmup = warmup

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"tckd": mean, "nckd": mean}, weighted and warmed up.

        Raises:
            ValueError: labels are missing or mixed.
        """
        labels = checked_classes(batch.labels, student.logits.shape[1], "DKD")
        target, rest = dkd_terms(student.logits, teacher.logits, labels, temperature=self.temperature)
        grown = 1.0 if batch.epoch >= self.warmup else batch.epoch / self.warmup
        return {"tckd": grown * self.alpha * target.mean(), "nckd": grown * self.beta * rest.mean()}

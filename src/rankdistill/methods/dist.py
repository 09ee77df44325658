"""Knowledge Distillation from A Stronger Teacher (Huang, You, Wang, Qian and Xu, NeurIPS 2022). arXiv:2205.10536.

With P = softmax(s / T) and Q = softmax(t / T), [B, K], and Pearson's correlation r:

    inter_b = T^2 (1 - r(P_b., Q_b.))  of the classes of a sample
    intra_c = T^2 (1 - r(P_.c, Q_.c))  of the samples of a class
    DIST(s, t) = beta mean_b inter_b + gamma mean_c intra_c

Recipes add cross-entropy of weight 1 and give DIST weight 2; T is 4 on CIFAR-100 and 1 on ImageNet.
Differs from the authors' code: nothing; equal to rounding.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import check_not_negative, check_positive, full_precision, paired_logits

_EPSILON = 1e-8  # the authors'; added to the product of the norms


def dist_terms(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " classes"]]:
    """Return the inter-class loss of each sample, [B], and the intra-class loss of each class, [K]; no unit.

    Args:
        student: logits, [B, K]. Half precision is computed in float32.
        teacher: logits, [B, K]; no gradient flows into them.
        temperature: T, positive; both terms have the factor T^2, and lie from 0 to 2 T^2.

    Zero where rows are equal up to a constant. The intra-class loss depends on the batch; of a batch of one it is T^2,
    without a gradient. A constant row or column has correlation 0, up to rounding; where it is the student's, the
    gradient is finite but as large as 1e8 times the teacher's deviations.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.

    Example:
        >>> import torch
        >>> from rankdistill import dist_terms
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> between_classes, between_samples = dist_terms(student, teacher)  # [batch], [classes]
    """
    check_positive("temperature", temperature)
    student, teacher = paired_logits(student, teacher)
    with full_precision(student):
        student = (student / temperature).softmax(1)
        teacher = (teacher / temperature).softmax(1)
        inter, intra = (1.0 - _correlation(student, teacher, dim=dim) for dim in (1, 0))
        return temperature**2 * inter, temperature**2 * intra


def _correlation(student: Tensor, teacher: Tensor, *, dim: int) -> Tensor:
    """Return Pearson's correlation along a dimension; 0 where either is constant."""
    student = student - student.mean(dim, keepdim=True)
    teacher = teacher - teacher.mean(dim, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(student, dim=dim) * torch.linalg.vector_norm(teacher, dim=dim)
    return (student * teacher).sum(dim) / (norms + _EPSILON)


def dist_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Return beta times the mean inter-class plus gamma times the mean intra-class loss; the rest as in `dist_terms`.

    It is a scalar, since the second mean is over classes.

    Example:
        >>> import torch
        >>> from rankdistill import dist_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> dist_loss(student, teacher).shape
        torch.Size([])
    """
    inter, intra = dist_terms(student, teacher, temperature=temperature)
    return beta * inter.mean() + gamma * intra.mean()


class DIST(Method):
    """The student's predictions correlate with the teacher's, between classes and within each class.

    The method has no state. Each process sees its own batch.

    Args:
        beta: the weight of the inter-class loss.
        gamma: the weight of the intra-class loss.
        temperature: the temperature T, positive; 4 on CIFAR-100, 1 on ImageNet.

    Example:
        >>> import torch
        >>> from rankdistill import DIST, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "dist": (2.0, DIST)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, *, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_not_negative("beta", beta)
        check_not_negative("gamma", gamma)
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"inter": mean over samples, "intra": mean over classes}, weighted."""
        inter, intra = dist_terms(student.logits, teacher.logits, temperature=self.temperature)
        return {"inter": self.beta * inter.mean(), "intra": self.gamma * intra.mean()}

"""Knowledge Distillation Based on Transformed Teacher Matching (Zheng and Yang, ICLR 2024). arXiv:2402.11148.

With p = softmax(s), which is not tempered, t' = softmax(t), and the exponent g = 1 / T:

    U = sum_i t'_i^g,    q = t'^g / U = softmax(g t)
    TTM(s, t) = KL(q || p),    WTTM(s, t) = U KL(q || p)

U is a sample weight from 1 (a certain teacher) to K^(1 - g) (a uniform one); it is not normalised over the batch.
There is no factor T^2. Recipes add cross-entropy of weight 1.
Differs from the authors' code: U and q are found from logarithms, so small probabilities do not vanish in float32.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import check_positive, full_precision, paired_logits


def ttm_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    exponent: float = 0.1,
) -> Float[Tensor, " batch"]:
    """Return the KL divergence of the student from the power-transformed teacher, per sample, in nats.

    Args:
        student: logits, [B, K]. Half precision is computed in float32.
        teacher: logits, [B, K]; no gradient flows into them.
        exponent: positive; 1 is KL without a transformation.

    Zero where the student's row is `exponent` times the teacher's, up to a constant.

    Raises:
        ValueError: the shapes differ, or the exponent is not positive.

    Example:
        >>> import torch
        >>> from rankdistill import ttm_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> ttm_loss(student, teacher).shape
        torch.Size([4])
    """
    check_positive("exponent", exponent)
    student, teacher = paired_logits(student, teacher)
    with full_precision(student):
        log_student = F.log_softmax(student, dim=1)
        log_teacher = F.log_softmax(exponent * teacher, dim=1)
        return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)


def wttm_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    exponent: float = 0.1,
) -> Float[Tensor, " batch"]:
    """Return U times `ttm_loss`, per sample, in nats; arguments and errors as there.

    Example:
        >>> import torch
        >>> from rankdistill import wttm_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> wttm_loss(student, teacher).shape
        torch.Size([4])
    """
    divergence = ttm_loss(student, teacher, exponent=exponent)
    return transformed_mass(teacher.detach().to(divergence.dtype), exponent=exponent) * divergence


def transformed_mass(logits: Float[Tensor, "batch classes"], *, exponent: float) -> Float[Tensor, " batch"]:
    """Return U, the sum over classes of the probabilities to the power `exponent`, per sample: 1 to K^(1 - exponent).

    Args:
        logits: [B, K], in float32 or float64.
        exponent: positive; above 1 the range is from K^(1 - exponent) to 1.
    """
    with full_precision(logits):
        return ((exponent * logits).logsumexp(1) - exponent * logits.logsumexp(1)).exp()


class TTM(Method):
    """KD with the temperature on the teacher alone, mean over the batch, in nats.

    The method has no state.

    Args:
        exponent: the exponent 1 / T of the teacher's probabilities, positive; from 0.1 to 0.4 on CIFAR-100 (Table 8).

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, TTM, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "ttm": (7.0, TTM)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, *, exponent: float = 0.1) -> None:
        super().__init__()
        check_positive("exponent", exponent)
        self.exponent = exponent

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"ttm": mean loss}."""
        return {"ttm": ttm_loss(student.logits, teacher.logits, exponent=self.exponent).mean()}


class WTTM(Method):
    """TTM with more weight on samples whose transformed teacher is smoother; mean over the batch, in nats.

    The method has no state.

    Args:
        exponent: the exponent 1 / T of the teacher's probabilities, positive; from 0.1 to 0.4 on CIFAR-100 (Table 9).

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, WTTM, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "wttm": (1.5, WTTM)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, *, exponent: float = 0.1) -> None:
        super().__init__()
        check_positive("exponent", exponent)
        self.exponent = exponent

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"wttm": mean loss}."""
        return {"wttm": wttm_loss(student.logits, teacher.logits, exponent=self.exponent).mean()}

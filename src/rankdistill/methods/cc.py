"""Correlation Congruence for Knowledge Distillation (Peng, Jin, Liu, Li, Wu, Liu, Zhou and Zhang, ICCV 2019).

arXiv:1904.01802.

    d_i = |E_s s_i - E_t t_i|,   E_s and E_t trained linear embeddings of pooled features
    CC(s, t) = mean over i = 1, ..., B - 1 of the inner product of d_i and d_{i+1}

Recipes add cross-entropy; in RepDistiller the weight of CC is 0.02. Take that one: with weight 1, the loss diverges
within a few steps of stochastic gradient descent.

This is not the correlation of kernels of the paper: the formula is that of the code which its authors gave to
RepDistiller, and whose numbers are compared everywhere. It depends on the order of the samples in the batch.

Differs from the authors' code: nothing in value; a batch of one gives 0 instead of NaN.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair
from ..numerics import at_least_float32, check_range, full_precision
from ._stages import pooled_widths


def cc_loss(student: Float[Tensor, "batch dim"], teacher: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Return the inner product of the embeddings' differences of neighbouring samples, mean over neighbours.

    It depends on the batch as a whole and on its order: on this process's batch, if there are several.

    Args:
        student: embeddings of the student's features, [B, D]. Half precision is computed in float32.
        teacher: embeddings of the teacher's, [B, D]. The gradient flows into these too: their embedding is trained.

    Zero where the embeddings are equal, and for a batch of one.

    Example:
        >>> import torch
        >>> from rankdistill import cc_loss
        >>> student, teacher = torch.randn(2, 4, 128)  # embeddings [batch, dim] of each
        >>> cc_loss(student, teacher).shape
        torch.Size([])
    """
    with full_precision(student):
        difference = (at_least_float32(student) - at_least_float32(teacher)).abs()
        return (difference[:-1] * difference[1:]).sum() / max(len(difference) - 1, 1)


class CC(Method):
    """The student learns how its teacher's pooled features relate samples to each other.

    Its state is the embeddings of both networks, which are trained. The recipes' weight is 0.02: with weight 1, the
    loss diverges.

    Args:
        student_width: the width of the student's pooled feature.
        teacher_width: the width of the teacher's pooled feature.
        dim: the width of the embeddings, at least 1.

    Raises:
        ValueError: dim is out of range.

    Example:
        >>> import torch
        >>> from rankdistill import CC, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "cc": (0.02, CC)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    student_needs = teacher_needs = ("pooled",)

    def __init__(self, student_width: int, teacher_width: int, *, dim: int = 128) -> None:
        super().__init__()
        check_range("dim", dim, 1)
        self.embed_student = nn.Linear(student_width, dim)
        self.embed_teacher = nn.Linear(teacher_width, dim)

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> CC:
        """Return the method for the widths of these networks."""
        return cls(*pooled_widths(pair, "CC"), **options)

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"cc": loss}."""
        embedded = self.embed_student(student.features["pooled"].flatten(1))
        target = self.embed_teacher(teacher.features["pooled"].flatten(1).detach())
        return {"cc": cc_loss(embedded, target)}

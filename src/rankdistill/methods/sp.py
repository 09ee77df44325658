"""Similarity-Preserving Knowledge Distillation (Tung and Mori, ICCV 2019). arXiv:1907.09682.

    G(f) = F F^T, each row over its Euclidean norm;   F the features of the batch, flattened, [B, D]
    SP(s, t) = mean over the B^2 elements of (G(s) - G(t))^2

of the last stage. Recipes add cross-entropy; in RepDistiller and mdistiller the weight of SP is 3000.

Differs from the authors' code: nothing; equal to RepDistiller's and mdistiller's loss to rounding.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output, Pair
from ..numerics import at_least_float32, full_precision
from ._features import paired_features, unit_length
from ._stages import deepest_roles


def similarity(features: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch batch"]:
    """Return the inner products of the samples' features, each row of unit length; zero for a zero feature.

    Args:
        features: [B, ...]. Half precision is computed in float32.
    """
    with full_precision(features):
        flat = at_least_float32(features).flatten(1)
        return unit_length(flat @ flat.T, 1)


def sp_loss(student: Float[Tensor, "batch ..."], teacher: Float[Tensor, "batch ..."]) -> Float[Tensor, ""]:
    """Return the mean squared difference of the two similarity matrices, a scalar.

    It depends on the batch as a whole: on this process's batch, if there are several.

    Args:
        student: features [B, ...], any shape. Half precision is computed in float32.
        teacher: features [B, ...], any shape; no gradient flows into them.

    Zero for a batch of one, and where the features differ by a factor or a rotation.

    Raises:
        ValueError: the batches differ.

    Example:
        >>> import torch
        >>> from rankdistill import sp_loss
        >>> student, teacher = torch.randn(4, 16, 8, 8), torch.randn(4, 32, 4, 4)  # [batch, ...] of any size
        >>> sp_loss(student, teacher).shape
        torch.Size([])
    """
    student, teacher = paired_features(student, teacher)
    with full_precision(student):
        return (similarity(student) - similarity(teacher)).square().mean()


class SP(Method):
    """The student learns which samples of a batch are alike for its teacher, at the deepest stage.

    The method has no state.

    Args:
        student_role: where the student's features are read.
        teacher_role: where the teacher's features are read. `for_pair` takes the deepest stages, whatever their
            shapes; "last" of a network without stages.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, SP, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "sp": (3000.0, SP)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, student_role: str, teacher_role: str) -> None:
        super().__init__()
        self.student_needs, self.teacher_needs = (student_role,), (teacher_role,)

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> SP:
        """Return the method for the deepest stages of these networks."""
        return cls(*deepest_roles(pair, "SP"), **options)

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"sp": loss}."""
        return {"sp": sp_loss(student.features[self.student_needs[0]], teacher.features[self.teacher_needs[0]])}

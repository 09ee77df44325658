"""Like What You Like: Knowledge Distill via Neuron Selectivity Transfer (Huang and Wang, 2017). arXiv:1707.01219.

    k(x, y) = (x . y)^2,   x and y channels of a map, flattened, over their Euclidean norms
    NST(s, t) = mean k(t, t) + mean k(s, s) - 2 mean k(s, t), over all pairs of channels, summed over stages

the squared maximum mean discrepancy of the channels under the quadratic kernel. Stages and pooling are those of AT;
widths may differ. Recipes add cross-entropy; in RepDistiller and mdistiller the weight of NST is 50.

Differs from the authors' code: nothing in value. Theirs holds [B, C, C', H W] at once; here it is the smaller one of
[B, C, C'] and [B, H W, H W], since NST = |X^T X / C - Y^T Y / C'|^2 with X, Y [channels, positions].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output, Pair
from ..numerics import full_precision
from ._features import paired_features, pool_to_match, unit_length
from ._stages import StagePair, stage_pairs


def nst_loss(student: Float[Tensor, "batch _ _ _"], teacher: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, " batch"]:
    """Return the squared maximum mean discrepancy of the channels of one stage, per sample.

    Args:
        student: [B, C, H, W]. Half precision is computed in float32.
        teacher: [B, C', H', W']; no gradient flows into it.

    Zero where the channels are permuted or scaled. A channel that is zero everywhere stays zero.

    Raises:
        ValueError: the batches differ.

    Example:
        >>> import torch
        >>> from rankdistill import nst_loss
        >>> student, teacher = torch.randn(2, 4, 16, 8, 8)  # maps [batch, channels, height, width] of each
        >>> nst_loss(student, teacher).shape
        torch.Size([4])
    """
    student, teacher = paired_features(student, teacher)
    with full_precision(student):
        student, teacher = (unit_length(x.flatten(2), 2) for x in pool_to_match(student, teacher))
        (_, num_student, num_positions), num_teacher = student.shape, teacher.shape[1]
        if 2 * num_positions <= num_student + num_teacher:
            kernels = student.mT @ student / num_student - teacher.mT @ teacher / num_teacher
            return kernels.square().sum((1, 2))
        return _mean_kernel(teacher, teacher) + _mean_kernel(student, student) - 2.0 * _mean_kernel(student, teacher)


def _mean_kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.mT).square().mean((1, 2))


class NST(Method):
    """The student's channels select what the teacher's select, at every stage; mean over the batch.

    The method has no state.

    Args:
        stages: the pairs of maps that are compared; `for_pair` pairs the networks' stages from the deepest.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, NST, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "nst": (50.0, NST)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, stages: Sequence[StagePair]) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.student_needs = tuple(stage.student.role for stage in stages)
        self.teacher_needs = tuple(stage.teacher.role for stage in stages)

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> NST:
        """Return the method for the stages of these networks."""
        return cls(stage_pairs(pair, "NST"), **options)

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"nst": mean loss}."""
        by_stage = [nst_loss(s.read(student), t.read(teacher)) for s, t in self.stages]
        return {"nst": torch.stack(by_stage).sum(0).mean()}

"""Paying More Attention to Attention (Zagoruyko and Komodakis, ICLR 2017). arXiv:1612.03928.

    Q(x) = mean over channels of |x|^p, flattened, over its Euclidean norm
    AT(s, t) = mean over positions of (Q(s) - Q(t))^2, summed over stages

of the stages' outputs without the stem; p is 2. The larger map of a pair is first averaged down to the smaller one.
Recipes add cross-entropy; in RepDistiller and mdistiller the weight of AT is 1000, on maps from
8x8 to 32x32: positions are averaged, so a weight belongs to a resolution.

Differs from the authors' code: absolute values are taken, as in the paper; RepDistiller and mdistiller leave them out,
which is the same for even p and for maps after a ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output, Pair
from ..numerics import at_least_float32, check_range, full_precision
from ._features import paired_features, pool_to_match, unit_length
from ._stages import StagePair, stage_pairs


def attention_map(feature: Float[Tensor, "batch _ height width"], *, power: float = 2.0) -> Float[Tensor, "batch _"]:
    """Return the mean of |feature|^power over channels as unit vectors [B, H W]; zero where the map is zero.

    Args:
        feature: [B, C, H, W]. Half precision is computed in float32.
        power: p, at least 1 and finite.
    """
    check_range("power", power, 1.0)
    with full_precision(feature):
        return unit_length(at_least_float32(feature).abs().pow(power).mean(1).flatten(1), 1)


def at_loss(
    student: Float[Tensor, "batch _ _ _"], teacher: Float[Tensor, "batch _ _ _"], *, power: float = 2.0
) -> Float[Tensor, " batch"]:
    """Return the mean squared difference of two attention maps of one stage, per sample.

    Args:
        student: [B, C, H, W]. Half precision is computed in float32.
        teacher: [B, C', H', W']; no gradient flows into it.
        power: p, at least 1 and finite.

    Zero where the maps differ by a positive factor. At most 2 / (number of positions).

    Raises:
        ValueError: the batches differ, or the power is out of range.

    Example:
        >>> import torch
        >>> from rankdistill import at_loss
        >>> student, teacher = torch.randn(2, 4, 16, 8, 8)  # maps [batch, channels, height, width] of each
        >>> at_loss(student, teacher).shape
        torch.Size([4])
    """
    student, teacher = paired_features(student, teacher)
    with full_precision(student):
        student, teacher = pool_to_match(student, teacher)
        return (attention_map(student, power=power) - attention_map(teacher, power=power)).square().mean(1)


class AT(Method):
    """The student learns where its teacher looks: maps of attention at every stage, mean over the batch.

    The method has no state.

    Args:
        stages: the pairs of maps that are compared; `for_pair` pairs the networks' stages from the deepest.
        power: the exponent p of the activations, at least 1 and finite.

    Example:
        >>> import torch
        >>> from rankdistill import AT, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "at": (1000.0, AT)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, stages: Sequence[StagePair], *, power: float = 2.0) -> None:
        super().__init__()
        check_range("power", power, 1.0)
        self.stages = tuple(stages)
        self.power = power
        self.student_needs = tuple(stage.student.role for stage in stages)
        self.teacher_needs = tuple(stage.teacher.role for stage in stages)

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> AT:
        """Return the method for the stages of these networks."""
        return cls(stage_pairs(pair, "AT"), **options)

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"at": mean loss}."""
        by_stage = [at_loss(s.read(student), t.read(teacher), power=self.power) for s, t in self.stages]
        return {"at": torch.stack(by_stage).sum(0).mean()}

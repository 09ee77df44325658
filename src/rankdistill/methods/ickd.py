"""Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation (Liu et al., ICCV 2021).

arXiv:2202.03680; here ICKD-C, the form for classification.

    G(f) = F F^T, each row over its Euclidean norm;   F a sample's map as [C, H W]
    ICKD(s, t) = sum of (G(E s) - G(t))^2 / C,   E a trained 1x1 convolution to the teacher's width, then batch norm

of the last stage, as the authors' code does; the paper divides by C^2 and does not normalise rows. Recipes add
cross-entropy; the weight of ICKD is 2.5.

Differs from the authors' code: nothing in value. Theirs also makes an embedding of the teacher's map, gives it to the
optimizer and never uses it; there is none here.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair
from ..numerics import at_least_float32, full_precision
from ._features import bridged, paired_features, unit_length
from ._stages import StagePair, deepest_pair


def channel_correlation(feature: Float[Tensor, "batch channels _ _"]) -> Float[Tensor, "batch channels channels"]:
    """Return the inner products of channels, each row of unit length; zero for a zero channel.

    Args:
        feature: [B, C, H, W]. Half precision is computed in float32.
    """
    with full_precision(feature):
        flat = at_least_float32(feature).flatten(2)
        return unit_length(flat @ flat.mT, 2)


def ickd_loss(student: Float[Tensor, "batch _ _ _"], teacher: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, " batch"]:
    """Return the squared difference of the channels' correlations over the number of channels, per sample.

    Args:
        student: the embedded map, [B, C, H, W]. Half precision is computed in float32.
        teacher: [B, C, H', W']; no gradient flows into it. Sizes may differ.

    Zero where maps differ by a factor, or by a permutation of positions.

    Raises:
        ValueError: the batches or the numbers of channels differ.

    Example:
        >>> import torch
        >>> from rankdistill import ickd_loss
        >>> student, teacher = torch.randn(2, 4, 16, 8, 8)  # maps [batch, channels, height, width] of each
        >>> ickd_loss(student, teacher).shape
        torch.Size([4])
    """
    student, teacher = paired_features(student, teacher)
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"the student's map has {student.shape[1]} channels, the teacher's {teacher.shape[1]}: "
            "embed the student's map in the teacher's width first"
        )
    with full_precision(student):
        difference = channel_correlation(student) - channel_correlation(teacher)
        return difference.square().sum((1, 2)) / teacher.shape[1]


class ICKD(Method):
    """The student learns how the channels of its teacher's deepest map correlate, mean over the batch.

    Its state is the embedding of the student's map, which is trained, and its batch norm's statistics.

    Args:
        stage: the pair of maps that are compared; `for_pair` takes the deepest stages, or "last" of a network
            without stages.

    Example:
        >>> import torch
        >>> from rankdistill import ICKD, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "ickd": (2.5, ICKD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, stage: StagePair) -> None:
        super().__init__()
        self.stage = stage
        self.student_needs, self.teacher_needs = (stage.student.role,), (stage.teacher.role,)
        width = stage.teacher.shape[0]
        self.embed = nn.Sequential(nn.Conv2d(stage.student.shape[0], width, 1, bias=False), nn.BatchNorm2d(width))

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> ICKD:
        """Return the method for the deepest stages of these networks."""
        return cls(deepest_pair(pair, "ICKD"), **options)

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"ickd": mean loss}."""
        embedded = bridged(self, self.embed, self.stage.student.read(student))
        return {"ickd": ickd_loss(embedded, self.stage.teacher.read(teacher)).mean()}

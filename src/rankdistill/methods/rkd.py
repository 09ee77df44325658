"""Relational Knowledge Distillation (Park, Kim, Lu and Cho, CVPR 2019). arXiv:1904.05068.

    distance: smooth L1 of |e_i - e_j| over its mean over pairs of samples, mean over (i, j)
    angle:    smooth L1 of the cosines of the angles at e_i between e_j and e_k, mean over (i, j, k)

of pooled features e. Recipes add cross-entropy; in RepDistiller and mdistiller distances have weight 25, angles 50.

Differs from the authors' code: distances are norms of differences instead of |a|^2 + |b|^2 - 2 ab, which in float32
loses what is near; equal features, which have no direction, pass no gradient through an angle instead of one of 1e12.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import check_not_negative, full_precision
from ._features import paired_features, unit_length


def rkd_distance_loss(
    student: Float[Tensor, "batch student_dim"], teacher: Float[Tensor, "batch teacher_dim"]
) -> Float[Tensor, ""]:
    """Return the smooth L1 difference of the relative distances between samples, mean over the B^2 pairs.

    It depends on the batch as a whole: on this process's batch, if there are several.

    Args:
        student: features [B, D]. Half precision is computed in float32.
        teacher: features [B, D']; no gradient flows into them.

    Zero where features differ by a rotation, a shift or a factor, and for fewer than 3 samples. Distances are at
    least 1e-6.

    Raises:
        ValueError: the batches differ.

    Example:
        >>> import torch
        >>> from rankdistill import rkd_distance_loss
        >>> student, teacher = torch.randn(4, 64), torch.randn(4, 128)  # pooled features [batch, width]
        >>> rkd_distance_loss(student, teacher).shape
        torch.Size([])
    """
    student, teacher = paired_features(student, teacher)
    with full_precision(student):
        return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def rkd_angle_loss(
    student: Float[Tensor, "batch student_dim"], teacher: Float[Tensor, "batch teacher_dim"]
) -> Float[Tensor, ""]:
    """Return the smooth L1 difference of the cosines of all angles between samples, mean over the B^3 triples.

    It depends on the batch as a whole: on this process's batch, if there are several. Memory grows with B^3 and B^2 D.

    Args:
        student: features [B, D]. Half precision is computed in float32.
        teacher: features [B, D']; no gradient flows into them.

    Zero where features differ by a rotation, a shift or a factor, and for fewer than 3 samples. A triple in which two
    samples have one feature has cosine 0.

    Raises:
        ValueError: the batches differ.

    Example:
        >>> import torch
        >>> from rankdistill import rkd_angle_loss
        >>> student, teacher = torch.randn(4, 64), torch.randn(4, 128)  # pooled features [batch, width]
        >>> rkd_angle_loss(student, teacher).shape
        torch.Size([])
    """
    student, teacher = paired_features(student, teacher)
    with full_precision(student):
        return F.smooth_l1_loss(_cosines(student), _cosines(teacher))


def _relative_distances(features: Tensor) -> Tensor:
    """Return distances over their mean over pairs of two samples, [B, B]; the diagonal is 0."""
    num_samples = len(features)
    squares = _differences(features).square().sum(2).clamp_min(1e-12)
    distances = squares.sqrt() * (1.0 - torch.eye(num_samples, dtype=features.dtype, device=features.device))
    return distances / (distances.sum() / max(num_samples * (num_samples - 1), 1)).clamp_min(1e-6)


def _cosines(features: Tensor) -> Tensor:
    """Return the cosine of the angle at sample i between samples j and k, [B, B, B]."""
    directions = unit_length(_differences(features), 2)
    return directions @ directions.mT


def _differences(features: Tensor) -> Tensor:
    """Return feature j minus feature i, [B, B, D]."""
    return features[None] - features[:, None]


class RKD(Method):
    """The student learns the distances and angles between its teacher's pooled features of a batch.

    The method has no state.

    Args:
        distance_weight: the weight of the distances, finite and not negative.
        angle_weight: the weight of the angles, finite and not negative.

    Raises:
        ValueError: a weight is out of range.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, RKD, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "rkd": (1.0, RKD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    student_needs = teacher_needs = ("pooled",)

    def __init__(self, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> None:
        super().__init__()
        check_not_negative("distance_weight", distance_weight)
        check_not_negative("angle_weight", angle_weight)
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"distance": weighted loss, "angle": weighted loss}."""
        pooled = [output.features["pooled"].flatten(1) for output in (student, teacher)]
        return {
            "distance": self.distance_weight * rkd_distance_loss(*pooled),
            "angle": self.angle_weight * rkd_angle_loss(*pooled),
        }

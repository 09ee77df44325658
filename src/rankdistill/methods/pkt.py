"""Learning Deep Representations with Probabilistic Knowledge Transfer (Passalis and Tefas, ECCV 2018).

arXiv:1803.10837.

    p_ij = (1 + cosine of features i and j) / 2, each row over its sum
    PKT(s, t) = mean over the B^2 elements of p(t) log((p(t) + eps) / (p(s) + eps)),   eps = 1e-7

of pooled features. Recipes add cross-entropy; in RepDistiller and mdistiller the weight of PKT is 30000.

Differs from the authors' code: the rows sum to 1, so sum p(t) log(...) is computed as a sum of terms none of which is
much larger than the loss; summed as it is written, float32 has lost three or four digits. NaN is not replaced by 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import full_precision
from ._features import paired_features

_EPS = 1e-7


def pkt_loss(
    student: Float[Tensor, "batch student_dim"], teacher: Float[Tensor, "batch teacher_dim"]
) -> Float[Tensor, ""]:
    """Return the divergence of the student's similarities from the teacher's, mean over the B^2 pairs, in nats.

    It depends on the batch as a whole: on this process's batch, if there are several.

    Args:
        student: features [B, D]. Half precision is computed in float32.
        teacher: features [B, D']; no gradient flows into them.

    Zero for a batch of one, and where features differ by a rotation or by a positive factor for each sample (but for
    norms near eps).

    Raises:
        ValueError: the batches differ.

    Example:
        >>> import torch
        >>> from rankdistill import pkt_loss
        >>> student, teacher = torch.randn(4, 64), torch.randn(4, 128)  # pooled features [batch, width]
        >>> pkt_loss(student, teacher).shape
        torch.Size([])
    """
    student, teacher = paired_features(student, teacher)
    with full_precision(student):
        p, q = _similarities(teacher), _similarities(student)
        # p log((p + eps) / (q + eps)) summed over a row, with sum p = sum q and r = (p - q) / (q + eps), is
        # (q + eps) ((1 + r) log(1 + r) - r) - eps log(1 + r) summed: small where r is.
        excess = (p - q) / (q + _EPS)
        log_ratio = excess.log1p()
        return ((q + _EPS) * ((1.0 + excess) * log_ratio - excess) - _EPS * log_ratio).mean()


def _similarities(features: Tensor) -> Tensor:
    """Return the probabilities p, [B, B]."""
    unit = features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + _EPS)
    similarity = 0.5 * (unit @ unit.T) + 0.5
    probabilities: Tensor = similarity / similarity.sum(1, keepdim=True)
    return probabilities


class PKT(Method):
    """The student learns the probabilities with which its teacher's pooled features find each other, in nats.

    The method has no state.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, PKT, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "pkt": (30000.0, PKT)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    student_needs = teacher_needs = ("pooled",)

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"pkt": loss}."""
        return {"pkt": pkt_loss(student.features["pooled"].flatten(1), teacher.features["pooled"].flatten(1))}

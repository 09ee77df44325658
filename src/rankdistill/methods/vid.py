"""Variational Information Distillation for Knowledge Transfer (Ahn, Hu, Damianou, Lawrence and Dai, CVPR 2019).

arXiv:1904.05835.

    v_c = log(1 + exp(alpha_c)) + eps,   one alpha for each channel of the teacher's stage
    VID(s, t) = mean over elements of ((mu(s) - t)^2 / v + log v) / 2, summed over stages

the negative log-likelihood, up to a constant, of the teacher's map under a Gaussian with mean mu(s), three trained 1x1
convolutions of the student's, and a trained variance v. Stages and pooling are those of AT. Recipes add cross-entropy;
the weight of VID is 1.

Differs from the authors' code: the variance is trained and saved, as in the paper and RepDistiller; in mdistiller it is
in no optimizer and no checkpoint, and stays 5. The logits are no further layer, as in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair
from ..numerics import at_least_float32, full_precision
from ._features import paired_features, pool_to_match
from ._stages import StagePair, stage_pairs


def vid_loss(
    mean: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
    variance: Float[Tensor, " channels"],
) -> Float[Tensor, " batch"]:
    """Return the Gaussian negative log-likelihood of one stage without its constant, per sample, mean over elements.

    In nats, and negative where the variance is small and the mean is right.

    Args:
        mean: what is predicted of the teacher's map, [B, C, H, W]. Half precision is computed in float32.
        teacher: [B, C, H, W]; no gradient flows into it.
        variance: [C], positive.

    Raises:
        ValueError: the batches differ.

    Example:
        >>> import torch
        >>> from rankdistill import vid_loss
        >>> mean, teacher = torch.randn(2, 4, 16, 8, 8)
        >>> vid_loss(mean, teacher, torch.full((16,), 5.0)).shape
        torch.Size([4])
    """
    mean, teacher = paired_features(mean, teacher)
    with full_precision(mean):
        variance = at_least_float32(variance)[:, None, None]
        return (0.5 * ((mean - teacher).square() / variance + variance.log())).flatten(1).mean(1)


class VID(Method):
    """The student's maps say as much as they can of the teacher's, at every stage; mean over the batch, in nats.

    Its state is the convolutions and the variances, which are all trained.

    Args:
        stages: the pairs of maps that are compared; `for_pair` pairs the networks' stages from the deepest.
        initial_variance: the variance v before the first step, more than `eps`.
        eps: the least variance, positive.

    Raises:
        ValueError: a variance is out of range.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, VID, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "vid": (1.0, VID)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, stages: Sequence[StagePair], *, initial_variance: float = 5.0, eps: float = 1e-5) -> None:
        super().__init__()
        if not 0.0 < eps < initial_variance < float("inf"):
            raise ValueError(
                f"eps is {eps} and initial_variance {initial_variance}: they must be positive, finite and ascending"
            )
        self.stages = tuple(stages)
        self.eps = eps
        self.student_needs = tuple(stage.student.role for stage in stages)
        self.teacher_needs = tuple(stage.teacher.role for stage in stages)
        widths = [(stage.student.shape[0], stage.teacher.shape[0]) for stage in stages]
        excess = initial_variance - eps
        alpha = excess + math.log(-math.expm1(-excess))  # log(exp(excess) - 1), without overflow
        self.regressors = nn.ModuleList(_regressor(student, teacher) for student, teacher in widths)
        self.alphas = nn.ParameterList(nn.Parameter(torch.full((teacher,), alpha)) for _, teacher in widths)

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> VID:
        """Return the method for the stages of these networks."""
        return cls(stage_pairs(pair, "VID"), **options)

    def variance(self, index: int) -> Float[Tensor, " channels"]:
        """Return v of a stage, counted from 0."""
        return F.softplus(self.alphas[index]) + self.eps

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"vid": mean loss}."""
        by_stage = []
        for index, (stage, regressor) in enumerate(zip(self.stages, self.regressors, strict=True)):
            student_map, teacher_map = pool_to_match(stage.student.read(student), stage.teacher.read(teacher))
            by_stage.append(vid_loss(regressor(student_map), teacher_map, self.variance(index)))
        return {"vid": torch.stack(by_stage).sum(0).mean()}


def _regressor(student: int, teacher: int) -> nn.Sequential:
    """Return three 1x1 convolutions without biases, ReLUs between them; PyTorch's initial weights."""
    return nn.Sequential(
        nn.Conv2d(student, teacher, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(teacher, teacher, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(teacher, teacher, 1, bias=False),
    )

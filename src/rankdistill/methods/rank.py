"""Ranks of the teacher, learned over classes and over samples. A method of this project, with no paper of its own.

    R = soft ranks of the rows of s, at epsilon times the standard deviation of each row     [B, C]
    Q = ranks of the rows of t, exact, equal logits sharing their average rank               [B, C]
    rank(s, t) = mean_b (1 - r(R_b., Q_b.)) + mean_c (1 - r(R_.c, Q_.c))

r is Pearson's correlation: of the classes of a sample, where it is Spearman's rho, and of the samples of a class.
Recipes add cross-entropy, give the sum weight 32, and clip gradients at norm 5.

What follows from it:

- Exact ranks read nothing but the teacher's order. A strictly increasing function of the teacher's logits, so any
  temperature or calibration, changes no bit of the loss.
- The gradient passes through the student's deviation, too. So the scale of a row does not change the loss, and the
  gradient is orthogonal to the row. Taken as a constant, the deviation would leave a push on the scale of the logits,
  which changes no rank.
- The gradient is proportional to 1 / deviation of the student's row. It is largest in the first steps, when logits are
  small; hence the clipping.
- Soft ranks pass a gradient within blocks of neighbouring classes. At epsilon 5 / C, the default, a standard deviation
  spans C / 5 ranks, so the fraction of neighbours that separate is about the same for every C. A fixed epsilon of 0.05
  would leave most of 10 classes without a gradient, and would make one block of 1,000.

Options: `axes` leaves one of the two means out. Soft ranks of the teacher keep small differences of its logits small,
and so read its values again. The squared distance also asks for the spread of the teacher's ranks, which soft ranks do
not reach; it has the unit of 1 - rho. Weights by the teacher's rank, 1 / Q, move the gradient to the classes that the
teacher puts first.

The file is long because axes, ranks, distance and weights are options, of which a study is to show which matter.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import check_choice, check_positive, full_precision, paired_logits
from ..softrank import rank_regime
from ..softrank.functions import centred_soft_rank
from ._features import unit_length

Axes = Literal["both", "classes", "samples"]
TeacherRanks = Literal["exact", "soft"]
RankDistance = Literal["correlation", "squared"]
RankWeights = Literal["none", "rank"]

_TINY = 1e-20  # added to the variance of a row
_RANKS_PER_DEVIATION = 0.2  # epsilon "auto" is 1 / (0.2 C): 0.05 at 100 classes


def exact_ranks(values: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
    """Return the ranks in each row, 1 for the largest value; equal values share the average of their ranks.

    They depend on comparisons alone: a strictly increasing function of the values changes nothing, and infinities are
    ranked. A row with NaN is NaN. No gradient passes.

    Example:
        >>> import torch
        >>> from rankdistill import exact_ranks
        >>> exact_ranks(torch.tensor([[2.0, 0.5, 2.0, -1.0]]))
        tensor([[1.5000, 3.0000, 1.5000, 4.0000]])
    """
    values = values.detach()
    ordered, order = values.sort(dim=1, descending=True)
    place = torch.arange(values.shape[1], device=values.device, dtype=values.dtype).expand_as(values)
    is_tied = ordered[:, 1:] == ordered[:, :-1]
    first = place.masked_fill(F.pad(is_tied, (1, 0)), 0.0).cummax(1).values
    last = place.masked_fill(F.pad(is_tied, (0, 1)), math.inf).flip(1).cummin(1).values.flip(1)
    ranks = torch.empty_like(ordered).scatter_(1, order, 0.5 * (first + last) + 1.0)
    return ranks.masked_fill(values.isnan().any(1, keepdim=True), math.nan)


def rank_terms(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    epsilon: float | Literal["auto"] = "auto",
    teacher_ranks: TeacherRanks = "exact",
    distance: RankDistance = "correlation",
    weights: RankWeights = "none",
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " classes"]]:
    """Return the distances of ranks over the classes of each sample, [B], and over the samples of each class, [C].

    Args:
        student: logits, [B, C] with C at least 2. Half precision is computed in float32.
        teacher: logits, [B, C]; no gradient flows into them.
        epsilon: positive, in standard deviations of the student's row. "auto" is 5 / C.
        teacher_ranks: "exact", or "soft", at epsilon times the standard deviation of the teacher's row.
        distance: "correlation", 1 - r, from 0 to 2; "squared", the mean squared difference less the squared difference
            of means, over twice the variance of 1 .. C. For hard ranks without ties they are equal over the classes.
        weights: of the elements of the means in a distance: "none", or "rank", 1 / the teacher's rank.

    A constant row of the student, or a constant row or column of ranks, has correlation 0 and passes no gradient. The
    distances over samples depend on the batch; of a batch of one they have no gradient.

    Raises:
        ValueError: the shapes differ, there is one class, epsilon is not positive and finite, or an option is unknown.

    Example:
        >>> import torch
        >>> from rankdistill import rank_terms
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> over_classes, over_samples = rank_terms(student, teacher)  # [batch], [classes]
    """
    check_options(epsilon, teacher_ranks, distance, weights)
    student, teacher = paired_logits(student, teacher)
    if student.shape[1] < 2:
        raise ValueError(f"there are {student.shape[1]} classes: ranks compare them, give it at least 2")
    with full_precision(student):
        middle = 0.5 * (student.shape[1] + 1)
        ours = _relative_ranks(student, epsilon)
        theirs = exact_ranks(teacher) - middle if teacher_ranks == "exact" else _relative_ranks(teacher, epsilon)
        by_rank = (theirs + middle).reciprocal() if weights == "rank" else None
        over_classes, over_samples = (_distance(ours, theirs, by_rank, dim, distance) for dim in (1, 0))
        return over_classes, over_samples


def check_options(
    epsilon: float | Literal["auto"], teacher_ranks: TeacherRanks, distance: RankDistance, weights: RankWeights
) -> None:
    """Raise ValueError unless these are options of `rank_terms`."""
    if epsilon != "auto":
        check_positive("epsilon", epsilon)
    check_choice("teacher_ranks", teacher_ranks, get_args(TeacherRanks))
    check_choice("distance", distance, get_args(RankDistance))
    check_choice("weights", weights, get_args(RankWeights))


def relative_epsilon(epsilon: float | Literal["auto"], num_classes: int) -> float:
    """Return epsilon in standard deviations of a row: itself, or 5 / C where it is "auto"."""
    return 1.0 / (_RANKS_PER_DEVIATION * num_classes) if epsilon == "auto" else epsilon


def _relative_ranks(logits: Tensor, epsilon: float | Literal["auto"]) -> Tensor:
    """Return the soft ranks of each row, less their mean, at epsilon times the row's standard deviation."""
    epsilon = relative_epsilon(epsilon, logits.shape[1])
    return centred_soft_rank(_over_deviation(logits), epsilon=epsilon, regularization="l2")


def _over_deviation(logits: Tensor) -> Tensor:
    """Return rows of mean 0 and standard deviation 1; zeros without a gradient if it is constant."""
    low, high = logits.detach().aminmax(dim=1, keepdim=True)
    is_constant = high - low <= torch.finfo(logits.dtype).eps * high.abs()
    return F.layer_norm(logits, logits.shape[1:], eps=_TINY).masked_fill(is_constant, 0.0)


def _distance(student: Tensor, teacher: Tensor, weights: Tensor | None, dim: int, distance: RankDistance) -> Tensor:
    """Return the distance of two matrices of ranks along a dimension, whose elements have these weights."""
    if distance == "squared":
        variance = (student.shape[1] ** 2 - 1) / 12.0
        squares: Tensor = _centred(student - teacher, weights, dim).square().sum(dim)
        return squares / (2.0 * variance)
    target = unit_length(_centred(teacher, weights, dim), dim)
    deviations = _centred(student, weights, dim)
    norm = torch.linalg.vector_norm(deviations, dim=dim)
    correlation: Tensor = (deviations * target).sum(dim) / norm.masked_fill(norm == 0.0, math.inf)
    return 1.0 - correlation


def _centred(ranks: Tensor, weights: Tensor | None, dim: int) -> Tensor:
    """Return ranks less their mean, times the roots of the weights' shares, so that squares add up to a mean."""
    if weights is None:
        return (ranks - ranks.mean(dim, keepdim=True)) / math.sqrt(ranks.shape[dim])
    shares = weights / weights.sum(dim, keepdim=True)
    return (ranks - (shares * ranks).sum(dim, keepdim=True)) * shares.sqrt()


def rank_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    axes: Axes = "both",
    epsilon: float | Literal["auto"] = "auto",
    teacher_ranks: TeacherRanks = "exact",
    distance: RankDistance = "correlation",
    weights: RankWeights = "none",
) -> Float[Tensor, ""]:
    """Return the mean over samples plus the mean over classes of `rank_terms`, or the one of the two that `axes` names.

    Example:
        >>> import torch
        >>> from rankdistill import rank_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> rank_loss(student, teacher).shape
        torch.Size([])
    """
    check_choice("axes", axes, get_args(Axes))
    terms = rank_terms(
        student, teacher, epsilon=epsilon, teacher_ranks=teacher_ranks, distance=distance, weights=weights
    )
    classes, samples = (term.mean() for term in terms)
    return {"classes": classes, "samples": samples}[axes] if axes != "both" else classes + samples


class Rank(Method):
    """The student's soft ranks correlate with its teacher's ranks, over classes and over samples.

    No state. Each process sees its own batch.

    Args:
        axes: "both"; "classes", of each sample; "samples", of each class.
        epsilon, teacher_ranks, distance, weights: as in `rank_terms`.

    Raises:
        ValueError: an option is unknown, or epsilon is not positive and finite.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, CrossEntropy, Rank, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "rank": (32.0, Rank)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    observes = True
    reads_logits_once = True

    def __init__(
        self,
        *,
        axes: Axes = "both",
        epsilon: float | Literal["auto"] = "auto",
        teacher_ranks: TeacherRanks = "exact",
        distance: RankDistance = "correlation",
        weights: RankWeights = "none",
    ) -> None:
        super().__init__()
        check_choice("axes", axes, get_args(Axes))
        check_options(epsilon, teacher_ranks, distance, weights)
        self.axes: Axes = axes
        self.epsilon: float | Literal["auto"] = epsilon
        self.teacher_ranks: TeacherRanks = teacher_ranks
        self.distance: RankDistance = distance
        self.weights: RankWeights = weights

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"classes": mean over samples, "samples": mean over classes}, or the one that `axes` names."""
        terms = rank_terms(
            student.logits,
            teacher.logits,
            epsilon=self.epsilon,
            teacher_ranks=self.teacher_ranks,
            distance=self.distance,
            weights=self.weights,
        )
        means = {name: term.mean() for name, term in zip(("classes", "samples"), terms, strict=True)}
        return means if self.axes == "both" else {self.axes: means[self.axes]}

    def observe(self, batch: Batch, student: Output, teacher: Output) -> dict[str, float]:
        """Return which fraction of neighbouring logits ranks separate: 0 is linear, 1 is hard ranks."""
        student_logits, teacher_logits = paired_logits(student.logits, teacher.logits)
        epsilon = relative_epsilon(self.epsilon, student_logits.shape[1])

        def separated(logits: Tensor) -> float:
            return rank_regime(_over_deviation(logits), epsilon).separated.mean().item()

        exact = self.teacher_ranks == "exact"
        return {
            "student_separated": separated(student_logits),
            "teacher_separated": _distinct(teacher_logits) if exact else separated(teacher_logits),
        }


def _distinct(logits: Tensor) -> float:
    """Return the fraction of neighbours in the order of a row that differ, mean over rows."""
    return (logits.sort(dim=1).values.diff(dim=1) != 0.0).float().mean().item()

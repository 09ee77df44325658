"""The operator's functions: soft ranks, soft sort, and how much of it all really ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from . import op

Regularization = Literal["l2", "kl"]
_SMALLEST, _LARGEST = 1e-300, 1e150  # the inverse and the square are finite


class RankRegime(NamedTuple):
    """How much of each row the operator really ranks.

    Attributes:
        blocks: [...] int64, the number of blocks; within a block ranks are linear in the values. 1 is the linear
            regime, n hard ranks; 0 a row with NaN or infinity.
        separated: [...] float32, the separated fraction of neighbours in the order, (blocks - 1) / (n - 1), from 0
            in the linear regime to 1 for hard ranks; 0 if n is 1, NaN in a row with NaN or infinity.
    """

    blocks: Tensor
    separated: Tensor


def soft_rank(
    values: Tensor,
    *,
    dim: int = -1,
    descending: bool = True,
    epsilon: float = 1.0,
    regularization: Regularization = "l2",
) -> Tensor:
    """Return differentiable ranks of the values along `dim`, from 1 to n, in the values' shape and dtype.

    They are the projection of values / epsilon on the permutahedron, the convex hull of the permutations of
    (1, ..., n): M. Blondel, O. Teboul, Q. Berthet, J. Djolonga, "Fast Differentiable Sorting and Ranking", ICML 2020.
    In a row whose range is at most epsilon n / 2, Euclidean ranks are linear: (n + 1) / 2 - (x - mean) / epsilon.
    Equal values get equal ranks. A row with NaN or infinity is NaN in value and gradient; others are not affected.

    Args:
        values: any shape but (), any float dtype; half precision is computed in float32.
        dim: the dimension that is ranked, of size n.
        descending: the largest value has rank 1; if false, the smallest has.
        epsilon: positive, in the values' unit. Towards 0 ranks become hard, towards infinity all (n + 1) / 2.
        regularization: "l2", the Euclidean projection, or "kl", the entropic one, which has no linear regime.

    Raises:
        TypeError: the values are not floating point, or epsilon is no number.
        ValueError: epsilon is not positive and finite, or `dim` or `regularization` is unknown.

    Example:
        >>> import torch
        >>> from rankdistill import soft_rank
        >>> soft_rank(torch.tensor([2.0, 0.5, 1.0, -1.0]), epsilon=0.1)
        tensor([1., 3., 2., 4.])
    """
    _check(values, dim, epsilon, regularization)
    scale = -1.0 / epsilon if descending else 1.0 / epsilon
    return _along(dim, values, lambda x: op.ranks(x, scale, regularization == "kl", 0.0))


def centred_soft_rank(values: Tensor, *, epsilon: float, regularization: Regularization) -> Tensor:
    """Return `soft_rank(values) - (n + 1) / 2` without that constant's rounding, which hides ranks at large epsilon."""
    _check(values, -1, epsilon, regularization)
    middle = 0.5 * (values.shape[-1] + 1)
    return _along(-1, values, lambda x: op.ranks(x, -1.0 / epsilon, regularization == "kl", middle))


def squared_rank_distance(
    student: Tensor, teacher: Tensor, *, epsilon: float, regularization: Regularization
) -> Tensor:
    """Return the mean squared difference of the soft ranks of two [rows, n], by row; the teacher's are constants."""
    _check(student, -1, epsilon, regularization)
    if regularization == "l2" and student.numel() > 0:
        loss = op.linear_squared_distance(student, teacher, -1.0 / epsilon)
        if loss is not None:
            return loss
    difference = centred_soft_rank(student, epsilon=epsilon, regularization=regularization) - centred_soft_rank(
        teacher.detach(), epsilon=epsilon, regularization=regularization
    )
    return difference.square().mean(-1)


def soft_sort(
    values: Tensor,
    *,
    dim: int = -1,
    descending: bool = True,
    epsilon: float = 1.0,
    regularization: Regularization = "l2",
) -> Tensor:
    """Return the values softly sorted along `dim`, in their shape and dtype.

    This is the projection of (n, ..., 1) / epsilon on the permutahedron of the values (Blondel et al., ICML 2020).
    A row with NaN or infinity is NaN in value and gradient; others are not affected.

    Args:
        values: any shape but (), any float dtype; half precision is computed in float32.
        dim: the dimension that is sorted, of size n.
        descending: the largest value comes first; if false, the smallest does.
        epsilon: positive, in the inverse of the values' unit. Towards 0 the result is sorted, towards infinity all
            elements are the mean ("l2") or the logarithm of the mean exponential ("kl", descending).
        regularization: "l2", the Euclidean projection, or "kl", the entropic one.

    Raises:
        TypeError: the values are not floating point, or epsilon is no number.
        ValueError: epsilon is not positive and finite, or `dim` or `regularization` is unknown.

    Example:
        >>> import torch
        >>> from rankdistill import soft_sort
        >>> soft_sort(torch.tensor([2.0, 0.5, 1.0, -1.0]), epsilon=0.1)
        tensor([ 2.0000,  1.0000,  0.5000, -1.0000])
    """
    _check(values, dim, epsilon, regularization)

    def descend(x: Tensor) -> Tensor:
        return op.soft_sort(x.sort(dim=-1, descending=True).values, epsilon, regularization == "kl")

    return _along(dim, values, descend if descending else lambda x: -descend(-x))


def rank_regime(logits: Tensor, epsilon: float = 1.0, *, regularization: Regularization = "l2") -> RankRegime:
    """Return, for each row of the logits [..., n], how many blocks `soft_rank` makes and what fraction it separates.

    Raises:
        TypeError, ValueError: as `soft_rank`.

    Example:
        >>> import torch
        >>> from rankdistill import rank_regime
        >>> regime = rank_regime(torch.randn(4, 100), epsilon=0.1)
    """
    _check(logits, -1, epsilon, regularization)
    n = logits.shape[-1]
    if logits.numel() == 0:
        blocks = logits.new_zeros(logits.shape[:-1], dtype=torch.int64)
    else:
        first = op.rank_blocks(_at_least_float32(logits.detach()), -1.0 / epsilon, regularization == "kl")
        distinct = torch.zeros_like(first).scatter(-1, first.clamp(min=0), 1).sum(-1)
        blocks = torch.where(first[..., 0] < 0, 0, distinct)
    separated = torch.where(blocks > 0, (blocks - 1) / max(n - 1, 1), math.nan)
    return RankRegime(blocks, separated)


def separating_epsilon(
    logits: Tensor, fraction: float = 0.5, *, regularization: Regularization = "l2", tolerance: float = 1e-3
) -> float:
    """Return the largest epsilon, within `tolerance` of it, at which `fraction` of neighbours in the order separate.

    The mean over rows of `rank_regime(...).separated` falls as epsilon grows; this bisects its logarithm. It reads
    results back from the device: use it before training, not in a step.

    Args:
        logits: [..., n], a teacher's, say; all finite. Neighbours that are equal never separate.
        fraction: above 0 and at most 1.
        regularization: as in `soft_rank`.
        tolerance: relative.

    Raises:
        ValueError: the fraction is out of range, the logits are not finite, or too many of them are equal.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction is {fraction}: it must be above 0 and at most 1")
    if logits.numel() == 0 or not torch.isfinite(logits).all():
        raise ValueError(f"logits of shape {tuple(logits.shape)} are empty or not all finite: give finite ones")

    def separates(epsilon: float) -> bool:
        return rank_regime(logits, epsilon, regularization=regularization).separated.mean().item() >= fraction

    spread = (logits.amax(-1) - logits.amin(-1)).max().item()
    high = spread
    while high > 0.0 and separates(high):
        high *= 2.0
    low = 0.5 * high
    while not separates(max(low, 1e-12 * spread) or 1.0):
        if low <= 1e-12 * spread:
            raise ValueError(
                f"no epsilon separates {fraction} of the neighbours: too many logits are equal; ask for less"
            )
        high, low = low, 0.5 * low
    while high > (1.0 + tolerance) * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if separates(middle) else (low, middle)
    return low


def check_epsilon(epsilon: float, name: str = "epsilon") -> None:
    """Raise TypeError unless epsilon is a number, and ValueError unless it and its square can be divided by."""
    if isinstance(epsilon, Tensor):
        raise TypeError(f"{name} is a tensor: it is one number for all rows, so give a float, as {name}.item()")
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float):
        raise TypeError(f"{name} is {epsilon!r}, a {type(epsilon).__name__}: give a positive number")
    if not 0.0 < epsilon < math.inf:
        raise ValueError(f"{name} is {epsilon}: it must be positive and finite")
    if not _SMALLEST <= epsilon <= _LARGEST:
        raise ValueError(f"{name} is {epsilon}: it must be from {_SMALLEST:g} to {_LARGEST:g}")


def check_regularization(regularization: str) -> None:
    """Raise ValueError if there is no such regularization."""
    if regularization not in ("l2", "kl"):
        raise ValueError(f'regularization is {regularization!r}: it must be "l2" or "kl"')


def _along(dim: int, values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of the last dimension, computed in at least float32, along `dim`."""
    if values.numel() == 0:
        return values.clone()
    if dim not in (-1, values.ndim - 1):
        return _along(-1, values.movedim(dim, -1), function).movedim(-1, dim)
    if values.dtype in (torch.float32, torch.float64):
        return function(values)
    return function(values.float()).to(values.dtype)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _check(values: Tensor, dim: int, epsilon: float, regularization: Regularization) -> None:
    if not values.dtype.is_floating_point:
        raise TypeError(f"the values are {values.dtype}: ranks are differentiable, so convert them, as values.float()")
    if not -values.ndim <= dim < values.ndim:
        raise ValueError(f"dim is {dim}, but the values have shape {tuple(values.shape)}: choose one of its dimensions")
    check_epsilon(epsilon)
    check_regularization(regularization)

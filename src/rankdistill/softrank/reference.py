"""The soft rank and soft sort written out plainly, one row at a time in float64: the oracle of the tests.

M. Blondel, O. Teboul, Q. Berthet, J. Djolonga, "Fast Differentiable Sorting and Ranking", ICML 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Row = Sequence[float]
Regularization = Literal["l2", "kl"]


def soft_rank(
    values: Tensor,
    *,
    dim: int = -1,
    descending: bool = True,
    epsilon: float = 1.0,
    regularization: Regularization = "l2",
) -> Tensor:
    """Return what `rankdistill.softrank.soft_rank` returns, in float64 and without a gradient."""
    sign = -1.0 if descending else 1.0
    return _by_row(lambda row: rank_row([sign * x for x in row], epsilon, regularization)[0], values, dim)


def soft_sort(
    values: Tensor,
    *,
    dim: int = -1,
    descending: bool = True,
    epsilon: float = 1.0,
    regularization: Regularization = "l2",
) -> Tensor:
    """Return what `rankdistill.softrank.soft_sort` returns, in float64 and without a gradient."""
    sign = 1.0 if descending else -1.0
    return _by_row(
        lambda row: [sign * x for x in sort_row([sign * x for x in row], epsilon, regularization)], values, dim
    )


def rank_row(theta: Row, epsilon: float, regularization: Regularization = "l2") -> tuple[list[float], list[list[int]]]:
    """Return the projection of theta / epsilon on the permutahedron of (n, ..., 1), and the blocks.

    The largest entry gets the value n (an ascending rank). A block is a list of positions in theta; the blocks come
    in descending order of theta. A row with NaN or infinity has the ranks NaN and no block.
    """
    n = len(theta)
    if not all(map(math.isfinite, theta)):
        return [math.nan] * n, []
    order = sorted(range(n), key=lambda i: -theta[i])
    s = [theta[i] / epsilon for i in order]
    rho = [float(n - i) for i in range(n)]
    w = rho if regularization == "l2" else [math.log(r) for r in rho]
    ranks = [0.0] * n
    blocks = pool_adjacent_violators(s, w, regularization)
    for a, b in blocks:
        for i in range(a, b):
            if regularization == "l2":
                ranks[order[i]] = (s[i] - _mean(s[a:b])) + _mean(w[a:b])
            else:
                ranks[order[i]] = math.exp((s[i] - s[a]) - _log_sum_exp_above(s[a:b])) * sum(rho[a:b])
    return ranks, [order[a:b] for a, b in blocks]


def sort_row(theta: Row, epsilon: float, regularization: Regularization = "l2") -> list[float]:
    """Return the projection of (n, ..., 1) / epsilon on the permutahedron of theta: theta sorted, largest first."""
    n = len(theta)
    if not all(map(math.isfinite, theta)):
        return [math.nan] * n
    w = sorted(theta, reverse=True)
    s = [(n - i) / epsilon for i in range(n)]
    result = [0.0] * n
    for a, b in pool_adjacent_violators(s, w, regularization):
        for i in range(a, b):
            if regularization == "l2":
                result[i] = (s[i] - _mean(s[a:b])) + _mean(w[a:b])
            else:
                result[i] = (s[i] - s[a]) - _log_sum_exp_above(s[a:b]) + w[a] + _log_sum_exp_above(w[a:b])
    return result


def pool_adjacent_violators(s: Row, w: Row, regularization: Regularization = "l2") -> list[tuple[int, int]]:
    """Return the blocks [a, b) on which the non-increasing isotonic fit to s against w is constant.

    A block's value is mean(s) - mean(w) ("l2") or logsumexp(s) - logsumexp(w) ("kl"). Neighbours whose values are
    equal are one block. The differences of s and of w are compared apart, so that large values lose nothing.
    """
    blocks: list[tuple[int, int]] = []
    for i in range(len(s)):
        blocks.append((i, i + 1))
        while len(blocks) > 1:
            (a, b), (_, c) = blocks[-2:]
            if _drop(s, a, b, c, regularization) > _drop(w, a, b, c, regularization):
                break
            blocks[-2:] = [(a, c)]
    return blocks


def _drop(x: Row, a: int, b: int, c: int, regularization: Regularization) -> float:
    """The value of block [a, b) less that of block [b, c), for x in descending order."""
    if regularization == "l2":
        return _mean(x[a:b]) - _mean(x[b:c])
    return (x[a] - x[b]) + (_log_sum_exp_above(x[a:b]) - _log_sum_exp_above(x[b:c]))


def _mean(x: Row) -> float:
    return x[0] + math.fsum(y - x[0] for y in x) / len(x)


def _log_sum_exp_above(x: Row) -> float:
    """logsumexp(x) - x[0], for x in descending order."""
    return math.log(math.fsum(math.exp(y - x[0]) for y in x))


def _by_row(function: Callable[[list[float]], list[float]], values: Tensor, dim: int) -> Tensor:
    rows = values.detach().double().movedim(dim, -1)
    results = [function(row.tolist()) for row in rows.reshape(-1, rows.shape[-1])]
    return torch.tensor(results, dtype=torch.float64).reshape(rows.shape).movedim(-1, dim)

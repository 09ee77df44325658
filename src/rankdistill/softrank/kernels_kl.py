"""The kernels of the entropic projection, in the manner of `kernels`.

A block's value is logsumexp(z) - log(sum of its ranks) for ranks, and the other way round for the sort. It is kept as
the first z of the block and the logarithm of the rest, so that large values neither overflow nor lose anything.
"""

from __future__ import annotations

import numpy as np

from .compiled import kernel
from .kernels import Array


@kernel
def pool_kl(
    keys: Array,
    order: Array,
    rows: Array,
    size: float,
    offset: float,
    ranks: Array,
    blocks: Array,
    sum_exp: Array,
    sum_rho: Array,
    rest: Array,
    start: Array,
) -> None:
    """Write the ranks and blocks of the listed rows, given their sorted keys and the positions these come from.

    `sum_exp`, `sum_rho`, `rest` and `start` are room for n each.
    """
    n = keys.shape[1]
    for k in range(len(rows)):
        r = rows[k]
        top = -1
        for i in range(n):
            a, e, w = i, 1.0, float(n - i)
            q = -np.log(w)
            while top >= 0 and size * (keys[k, a] - keys[k, start[top]]) <= q - rest[top]:
                e = sum_exp[top] + e * np.exp(size * (keys[k, start[top]] - keys[k, a]))
                w += sum_rho[top]
                a = start[top]
                q = np.log(e / w)
                top -= 1
            top += 1
            start[top], sum_exp[top], sum_rho[top], rest[top] = a, e, w, q
        end = n
        for t in range(top, -1, -1):
            a = start[t]
            for i in range(a, end):
                j = order[k, i]
                ranks[r, j] = np.exp(size * (keys[k, a] - keys[k, i])) * (sum_rho[t] / sum_exp[t]) - offset
                blocks[r, j] = a
            end = a


@kernel
def sort_blocks_kl(ordered: Array, epsilon: float, blocks: Array, sum_exp: Array, sum_rho: Array, start: Array) -> None:
    """Write the blocks of the soft sort of rows in descending order, except into rows that are marked bad."""
    n = ordered.shape[1]
    for r in range(len(ordered)):
        if blocks[r, 0] < 0:
            continue
        top = -1
        for i in range(n):
            a, w, e = i, 1.0, 1.0
            while top >= 0:
                step = (a - start[top]) / epsilon
                drop = ordered[r, start[top]] - ordered[r, a]
                if step - drop > np.log(w / sum_rho[top]) - np.log(e / sum_exp[top]):
                    break
                w = sum_rho[top] + w * np.exp(-step)
                e = sum_exp[top] + e * np.exp(-drop)
                a = start[top]
                top -= 1
            top += 1
            start[top], sum_rho[top], sum_exp[top] = a, w, e
        end = n
        for t in range(top, -1, -1):
            for i in range(start[t], end):
                blocks[r, i] = start[t]
            end = start[t]


@kernel
def level_blocks_kl(ordered: Array, blocks: Array, epsilon: float, result: Array) -> None:
    """Write the soft sort of rows in descending order: w - logsumexp(w) + logsumexp(row), w = (n, ..., 1) / epsilon."""
    n = ordered.shape[1]
    for r in range(len(ordered)):
        i = 0
        while i < n:
            start = i
            sum_exp = sum_rho = 0.0
            while i < n and blocks[r, i] <= start:
                sum_exp += np.exp(np.float64(ordered[r, i]) - ordered[r, start])
                sum_rho += np.exp((start - i) / epsilon)
                i += 1
            level = ordered[r, start] + np.log(sum_exp) - np.log(sum_rho) if blocks[r, 0] >= 0 else np.nan
            for j in range(start, i):
                result[r, j] = level + (start - j) / epsilon


@kernel
def spread_over_blocks_kl(gradient: Array, ordered: Array, blocks: Array, result: Array) -> None:
    """Write the sum of the gradient over each block times the block's softmax of the ordered row."""
    n = ordered.shape[1]
    for r in range(len(ordered)):
        i = 0
        while i < n:
            start = i
            total = sum_exp = 0.0
            while i < n and blocks[r, i] <= start:
                sum_exp += np.exp(np.float64(ordered[r, i]) - ordered[r, start])
                total += gradient[r, i]
                i += 1
            share = total / sum_exp if blocks[r, 0] >= 0 else np.nan
            for j in range(start, i):
                result[r, j] = share * np.exp(np.float64(ordered[r, j]) - ordered[r, start])


@kernel
def centre_blocks_kl(
    tangent: Array,
    ranks: Array,
    blocks: Array,
    first: int,
    last: int,
    scale: float,
    offset: float,
    result: Array,
    weighted: Array,
    weight: Array,
) -> None:
    """Write scale times the ranks times the tangent less its mean over each block, weighted by the ranks."""
    n = tangent.shape[1]
    for r in range(first, last):
        if blocks[r, 0] >= n:
            for i in range(n):
                result[r, i] = np.nan
            continue
        for b in range(n):
            weighted[b] = 0.0
            weight[b] = 0.0
        for i in range(n):
            rank = ranks[r, i] + offset
            weighted[blocks[r, i]] += rank * tangent[r, i]
            weight[blocks[r, i]] += rank
        for i in range(n):
            mean = weighted[blocks[r, i]] / weight[blocks[r, i]]
            result[r, i] = scale * (ranks[r, i] + offset) * (tangent[r, i] - mean)

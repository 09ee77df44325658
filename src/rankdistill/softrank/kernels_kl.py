"""The kernels of the entropic projection, in the manner of `kernels`.

A block's value is logsumexp(z) - log(sum of its ranks) for ranks, and the other way round for the sort. It is kept as
the first z of the block and the logarithm of the rest, so that large values neither overflow nor lose anything.
"""

from __future__ import annotations

import numpy as np

from .kernels import Array, kernel


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
    """As `pool_l2`, for the entropic projection: a block's value is logsumexp(z) - log(sum of its ranks)."""
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
def sort_blocks_kl(
    ordered: Array, epsilon: float, blocks: Array, sum_exp: Array, sum_rho: Array, start: Array
) -> None:
    """As `_pool_sorted_l2`, for the entropic projection."""
    num_rows, n = ordered.shape
    start = np.empty(n, np.int64)
    sum_rho = np.empty(n)
    sum_exp = np.empty(n)
    for r in range(num_rows):
        if blocks[r, 0] < 0:
            continue
        top = -1
        for i in range(n):
            a, p, e = i, 1.0, 1.0
            while top >= 0:
                b = start[top]
                step, drop = (a - b) / epsilon, np.float64(ordered[r, b]) - ordered[r, a]
                if step - drop > np.log(p / sum_rho[top]) - np.log(e / sum_exp[top]):
                    break
                p = sum_rho[top] + p * np.exp(-step)
                e = sum_exp[top] + e * np.exp(-drop)
                a = b
                top -= 1
            top += 1
            start[top], sum_rho[top], sum_exp[top] = a, p, e
        write_blocks(start, top, blocks[r])


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

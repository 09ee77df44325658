"""The loops over rows that numba compiles. Arrays are contiguous; sums are float64 whatever the dtype.

A block's number is the position, in sorted order, of its first element; -1 marks rows with NaN or infinity.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])


def _kernel(function: F) -> F:
    """Compile at the first call, cached on disk beside the source, else in the user's cache folder, else not at all.

    Reassociation lets sums use SIMD; no flag that assumes away NaN or infinity is set.
    """
    compiled = functools.partial(numba.njit, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
    try:
        return cast("F", compiled(function, cache=True))
    except RuntimeError:  # numba found no folder that it may write to
        return cast("F", compiled(function))


@_kernel
def extent(row: Array) -> tuple[float, float, float]:
    """Return the least and the greatest value and the mean of the row; if it holds NaN, the mean is NaN."""
    n = len(row)
    base = row[0]
    low = high = base
    total = 0.0
    for i in range(n):
        x = row[i]
        low = min(low, x)
        high = max(high, x)
        total += np.float64(x) - base
    return np.float64(low), np.float64(high), base + total / n


@_kernel
def range_test(
    values: Array,
    first: int,
    last: int,
    scale: float,
    reach: float,
    offset: float,
    packed: bool,
    ranks: Array,
    keys: Array,
    rows: Array,
) -> tuple[int, int]:
    """Fill in the ranks of linear and of bad rows; list the other rows, with their sort keys, from `first` on.

    Returns:
        how many rows are listed, and how many are bad.
    """
    n = values.shape[1]
    middle = 0.5 * (n + 1) - offset
    ranking = bad = 0
    positions = keys.view(np.int64)
    for r in range(first, last):
        low, high, mean = extent(values[r])
        spread = abs(scale) * (high - low) + (mean - mean)  # NaN in a bad row
        if spread <= reach:
            for i in range(n):
                ranks[r, i] = middle + scale * (values[r, i] - mean)
        elif np.isfinite(spread):
            slot = first + ranking
            rows[slot] = r
            ranking += 1
            if packed:
                sign = 1.0 if scale < 0 else -1.0
                for i in range(n):
                    keys[slot, i] = sign * values[r, i]
                for i in range(n):
                    positions[slot, i] |= i
        else:
            ranks[r, :] = np.nan
            bad += 1
    return ranking, bad


@_kernel
def pool_l2(
    values: Array, rows: Array, order: Array, mask: int, scale: float, offset: float, ranks: Array, blocks: Array
) -> None:
    """Pool adjacent violators over `order` (descending in scale * values), and scatter ranks and blocks.

    The sums of the values and of (n, ..., 1) are kept apart, in units of the values: nothing is lost for large ones.
    """
    n = values.shape[1]
    half = 0.5 / abs(scale)
    sign = 1.0 if scale > 0 else -1.0
    start = np.empty(n, np.int64)
    total = np.empty(n)
    mean = np.empty(n)
    below = np.empty(n)
    for k in range(len(rows)):
        r = rows[k]
        greatest = np.float64(values[r, order[k, 0] & mask])
        top = -1
        for i in range(n):
            s = m = below[i] = sign * (values[r, order[k, i] & mask] - greatest)
            a = i
            while top >= 0 and mean[top] - m <= half * (i + 1 - start[top]):
                s += total[top]
                a = start[top]
                m = s / (i + 1 - a)
                top -= 1
            top += 1
            start[top], total[top], mean[top] = a, s, m
        end = n
        for t in range(top, -1, -1):
            a = start[t]
            middle = n - 0.5 * (a + end - 1) - offset
            for i in range(a, end):
                j = order[k, i] & mask
                ranks[r, j] = abs(scale) * (below[i] - mean[t]) + middle
                blocks[r, j] = a
            end = a


@_kernel
def pool_kl(
    values: Array, rows: Array, order: Array, mask: int, scale: float, offset: float, ranks: Array, blocks: Array
) -> None:
    """As `_pool_l2`, for the entropic projection: a block's value is logsumexp(z) - log(sum of its ranks)."""
    n = values.shape[1]
    start = np.empty(n, np.int64)
    sum_exp = np.empty(n)
    sum_rho = np.empty(n)
    rest = np.empty(n)
    z = np.empty(n)
    for k in range(len(rows)):
        r = rows[k]
        greatest = np.float64(values[r, order[k, 0] & mask])
        top = -1
        for i in range(n):
            z[i] = scale * (values[r, order[k, i] & mask] - greatest)
            a, e, w = i, 1.0, np.float64(n - i)
            q = -np.log(w)
            while top >= 0 and z[start[top]] - z[a] <= q - rest[top]:
                e = sum_exp[top] + e * np.exp(z[a] - z[start[top]])
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
                j = order[k, i] & mask
                ranks[r, j] = np.exp(z[i] - z[a]) * (sum_rho[t] / sum_exp[t]) - offset
                blocks[r, j] = a
            end = a


@_kernel
def pool_sorted_l2(ordered: Array, epsilon: float, blocks: Array) -> None:
    """Pool adjacent violators of (n, ..., 1) / epsilon against rows in descending order; bad rows are left alone."""
    num_rows, n = ordered.shape
    start = np.empty(n, np.int64)
    total = np.empty(n)
    for r in range(num_rows):
        if blocks[r, 0] < 0:
            continue
        top = -1
        for i in range(n):
            a, s = i, np.float64(ordered[r, i]) - ordered[r, 0]
            while top >= 0:
                b = start[top]
                if 0.5 * (i + 1 - b) > epsilon * (total[top] / (a - b) - s / (i + 1 - a)):
                    break
                s += total[top]
                a = b
                top -= 1
            top += 1
            start[top], total[top] = a, s
        write_blocks(start, top, blocks[r])


@_kernel
def pool_sorted_kl(ordered: Array, epsilon: float, blocks: Array) -> None:
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


@_kernel
def write_blocks(start: Array, top: int, blocks: Array) -> None:
    """Write to each position the first position of its block."""
    end = len(blocks)
    for t in range(top, -1, -1):
        blocks[start[t] : end] = start[t]
        end = start[t]


@_kernel
def centre(tangent: Array, first: int, last: int, scale: float, result: Array) -> None:
    """Write scale times the tangent less its mean, for the rows first to last."""
    n = tangent.shape[1]
    for r in range(first, last):
        total = 0.0
        for i in range(n):
            total += tangent[r, i]
        mean = total / n
        for i in range(n):
            result[r, i] = scale * (tangent[r, i] - mean)


@_kernel
def centre_blocks(tangent: Array, blocks: Array, first: int, last: int, scale: float, result: Array) -> None:
    """Write scale times the tangent less its mean over each block."""
    n = tangent.shape[1]
    mean = np.empty(n)
    count = np.empty(n, np.int64)
    for r in range(first, last):
        if blocks[r, 0] < 0:
            result[r, :] = np.nan
            continue
        mean[:] = 0.0
        count[:] = 0
        for i in range(n):
            b = blocks[r, i]
            mean[b] += tangent[r, i]
            count[b] += 1
        for b in range(n):
            mean[b] /= max(count[b], 1)
        for i in range(n):
            result[r, i] = scale * (tangent[r, i] - mean[blocks[r, i]])


@_kernel
def centre_blocks_kl(
    tangent: Array, ranks: Array, blocks: Array, first: int, last: int, scale: float, offset: float, result: Array
) -> None:
    """Write scale times the ranks times the tangent less its mean over each block, weighted by the ranks."""
    n = tangent.shape[1]
    weighted = np.empty(n)
    weight = np.empty(n)
    for r in range(first, last):
        if blocks[r, 0] < 0:
            result[r, :] = np.nan
            continue
        weighted[:] = 0.0
        weight[:] = 0.0
        for i in range(n):
            b = blocks[r, i]
            rank = ranks[r, i] + offset
            weighted[b] += rank * tangent[r, i]
            weight[b] += rank
        for i in range(n):
            b = blocks[r, i]
            result[r, i] = scale * (ranks[r, i] + offset) * (tangent[r, i] - weighted[b] / weight[b])


@_kernel
def linear_l2(student: Array, teacher: Array, scale: float, loss: Array, difference: Array) -> bool:
    """Write the mean squared differences of linear ranks, and the differences; false if some row is not linear."""
    num_rows, n = student.shape
    for r in range(num_rows):
        low, high, student_mean = extent(student[r])
        teacher_low, teacher_high, teacher_mean = extent(teacher[r])
        if not abs(scale) * max(high - low, teacher_high - teacher_low) <= 0.5 * n:
            return False
        total = 0.0
        for i in range(n):
            d = scale * ((student[r, i] - student_mean) - (teacher[r, i] - teacher_mean))
            difference[r, i] = d
            total += d * d
        loss[r] = total / n
    return True

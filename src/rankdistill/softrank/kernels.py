"""The loops over rows that numba compiles. Arrays are contiguous; sums are float64 whatever the dtype.

A block's number is the position, in sorted order, of its first element; -1 marks rows with NaN or infinity. What is
used as an index is unsigned, which spares the test whether it counts from the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import kernel, part, simd_sum

Array = NDArray[Any]


@simd_sum
def inspect(row: Array, reach: float) -> tuple[int, float]:
    """Return 0, 1 or -1 for a row whose range is at most `reach`, a greater one, or one that is not finite; the mean.

    Nearly all rows are told by how far their values lie from the first, which takes one pass that uses SIMD.
    """
    base = np.float64(row[0])
    total = 0.0
    near = 0
    far = 0
    for i in range(len(row)):
        d = row[i] - base
        total += d
        near += abs(d) <= 0.5 * reach
        far += abs(d) > reach
    mean = base + total / len(row)
    if near == len(row):
        return 0, mean
    if not abs(total) < np.inf:
        return -1, mean
    if far > 0:
        return 1, mean
    low = high = row[0]
    for i in range(len(row)):
        low = min(low, row[i])
        high = max(high, row[i])
    return int(np.float64(high) - low > reach), mean


@simd_sum
def sum_of(row: Array) -> float:
    """Return the sum of the row, in float64."""
    total = 0.0
    for i in range(len(row)):
        total += row[i]
    return total


@simd_sum
def sum_of_squares(row: Array) -> float:
    """Return the sum of the squares of the row, in float64."""
    total = 0.0
    for i in range(len(row)):
        total += np.float64(row[i]) * row[i]
    return total


@kernel
def range_test(
    values: Array, first: int, last: int, scale: float, reach: float, offset: float, ranks: Array, rows: Array
) -> tuple[int, bool]:
    """Write the ranks of the linear rows, and NaN into bad ones, from first to last; list the others from `first` on.

    Returns:
        how many rows are listed, and whether there are bad ones.
    """
    n = values.shape[1]
    middle = 0.5 * (n + 1) - offset
    listed = 0
    any_bad = False
    for r in range(first, last):
        state, mean = inspect(values[r], reach)
        if state > 0:
            rows[first + listed] = r
            listed += 1
            continue
        if state < 0:
            mean = np.nan
            any_bad = True
        for i in range(n):
            ranks[r, i] = middle + scale * (values[r, i] - mean)
    return listed, any_bad


@kernel
def pack(values: Array, rows: Array, sign: float, mask: int, keys: Array, bits: Array) -> None:
    """Write the listed rows times the sign, their last bits replaced by positions; `bits` is the keys' memory."""
    for k in range(len(rows)):
        for i in range(keys.shape[1]):
            keys[k, i] = sign * values[rows[k], i]
        for i in range(keys.shape[1]):
            bits[k, i] = (bits[k, i] & ~mask) | i


@kernel
def unpack(values: Array, rows: Array, sign: float, mask: int, keys: Array, bits: Array, order: Array) -> bool:
    """Take the positions out of sorted keys and restore these; return whether that leaves them in order."""
    inversions = 0
    for k in range(len(rows)):
        for i in range(keys.shape[1]):
            order[k, i] = bits[k, i] & mask
            keys[k, i] = sign * values[rows[k], order[k, i]]
        for i in range(1, keys.shape[1]):
            inversions += keys[k, i] < keys[k, i - 1]
    return inversions == 0


@part
def pool(keys: Array, half: float, total: Array, end: Array) -> int:
    """Pool adjacent violators for Euclidean ranks, given keys in ascending order; return the number of blocks.

    Block t, from 1, takes the positions from end[t - 1] to end[t], and its keys add up to total[t]. Neighbours are
    joined if the difference of their means is at most `half` times their length, which is epsilon times the difference
    of their mean ranks. Keys and ranks are never added to each other, so large values lose nothing.
    """
    num_runs = np.int64(0)
    run = 0.0
    previous = -np.inf
    for i in range(len(keys)):  # runs of single violators: most of the joins, without a branch to mispredict
        joins = np.int64(keys[i] - previous <= 2.0 * half)
        previous = keys[i]
        run = run * joins + keys[i]
        num_runs += 1 - joins
        total[num_runs] = run
        end[num_runs] = i + 1
    top = 0
    end[0] = stop = 0.0
    for t in range(1, num_runs + 1):
        start, stop = stop, end[t]
        right = total[t]
        while top > 0:
            before, after = start - end[top - 1], stop - start
            if right * before - total[top] * after > half * (before + after) * (before * after):
                break
            right += total[top]
            top -= 1
            start = end[top]
        top += 1
        total[top], end[top] = right, stop
    return top


@kernel
def pool_l2(
    keys: Array,
    order: Array,
    rows: Array,
    size: float,
    offset: float,
    ranks: Array,
    blocks: Array,
    total: Array,
    end: Array,
    middle: Array,
    starts: Array,
) -> None:
    """Write the ranks and blocks of the listed rows, given their sorted keys and the positions these come from.

    `total`, `end`, `middle` and `starts` are room for n + 1 each.
    """
    n = keys.shape[1]
    for k in range(len(rows)):
        r = rows[k]
        num_blocks = pool(keys[k], 0.5 / size, total, end)
        for i in range(n):
            starts[i] = 0
        for t in range(num_blocks):
            starts[int(end[t])] = 1
            total[t] = total[t + 1] / (end[t + 1] - end[t])
            middle[t] = n + 0.5 - 0.5 * (end[t] + end[t + 1]) - offset
        t = -1
        for i in range(n):
            t += starts[i]
            j = order[k, i]
            ranks[r, j] = size * (total[t] - keys[k, i]) + middle[t]
            blocks[r, j] = end[t]


@kernel
def sort_blocks_l2(ordered: Array, epsilon: float, blocks: Array, total: Array, end: Array) -> None:
    """Write the blocks of the soft sort of rows in descending order, except into rows that are marked bad.

    What joins neighbours there keeps them apart here: values and ranks change places.
    """
    for r in range(len(ordered)):
        if blocks[r, 0] >= 0:
            num_blocks = pool(ordered[r], -0.5 / epsilon, total, end)
            for t in range(num_blocks):
                for i in range(int(end[t]), int(end[t + 1])):
                    blocks[r, i] = end[t]


@kernel
def level_blocks(x: Array, blocks: Array, slope: float, result: Array) -> None:
    """Write to each sorted position the mean of x over its block, plus `slope` for each position before the middle."""
    n = x.shape[1]
    for r in range(len(x)):
        i = 0
        while i < n:
            start = i
            total = 0.0
            while i < n and blocks[r, i] <= start:
                total += x[r, i]
                i += 1
            mean = total / (i - start) if blocks[r, 0] >= 0 else np.nan
            for j in range(start, i):
                result[r, j] = mean + slope * (0.5 * (start + i - 1) - j)


@kernel
def centre(tangent: Array, first: int, last: int, scale: float, result: Array) -> None:
    """Write scale times the tangent less its mean, for the rows first to last."""
    n = tangent.shape[1]
    for r in range(first, last):
        mean = sum_of(tangent[r]) / n
        for i in range(n):
            result[r, i] = scale * (tangent[r, i] - mean)


@kernel
def centre_blocks(
    tangent: Array, blocks: Array, first: int, last: int, scale: float, result: Array, mean: Array, count: Array
) -> None:
    """Write scale times the tangent less its mean over each block (unsigned); there is room for n means and counts."""
    n = tangent.shape[1]
    for r in range(first, last):
        if blocks[r, 0] >= n:
            for i in range(n):
                result[r, i] = np.nan
            continue
        for b in range(n):
            mean[b] = 0.0
            count[b] = 0.0
        for i in range(n):
            mean[blocks[r, i]] += tangent[r, i]
            count[blocks[r, i]] += 1.0
        for b in range(n):
            mean[b] /= max(count[b], 1.0)
        for i in range(n):
            result[r, i] = scale * (tangent[r, i] - mean[blocks[r, i]])


@kernel
def linear_l2(student: Array, teacher: Array, scale: float, loss: Array, slope: Array) -> bool:
    """Write the mean squared differences of linear ranks and their gradients; false if some row is not linear."""
    num_rows, n = student.shape
    reach = 0.5 * n / abs(scale)
    for r in range(num_rows):
        student_state, student_mean = inspect(student[r], reach)
        teacher_state, teacher_mean = inspect(teacher[r], reach)
        if student_state != 0 or teacher_state != 0:
            return False
        for i in range(n):
            d = (student[r, i] - student_mean) - (teacher[r, i] - teacher_mean)
            slope[r, i] = 2.0 * scale * scale / n * d
        loss[r] = sum_of_squares(slope[r]) * n / (4.0 * scale * scale)
    return True

"""The CPU path: NumPy's SIMD sort and kernels compiled by numba, over the rows of contiguous 2-D arrays.

Rows that pass the range test get the closed form (docs/soft-rank.md) and are never sorted. The kernels release the
interpreter lock and are serial; where it pays, rows are shared among threads of our own. numba's parallel layers are
not used: one dies in forked workers, the other aborts when two threads call it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from . import kernels

Array = NDArray[Any]
T = TypeVar("T")

# A float32 held as float64 ends in 29 zero bits: room for its position, so that one sort of float64 gives the order.
_POSITION_BITS = 29
_POSITION_MASK = (1 << _POSITION_BITS) - 1
# One more thread for so many elements: of a pass over memory, and of sorting and pooling.
_PASS_GRAIN = 500_000
_POOL_GRAIN = 16_000


def rank(values: Array, scale: float, kl: bool, offset: float) -> tuple[Array, Array | None]:
    """Return the projection of scale * values on the permutahedron of (n, ..., 1), less `offset`, and the blocks.

    Args:
        values: [rows, n], float32 or float64.
        scale: 1 / epsilon for ascending ranks, -1 / epsilon for descending ones.
        kl: the entropic projection instead of the Euclidean one.
        offset: subtracted before rounding to the values' dtype.

    Returns:
        ranks, like values, and blocks, [rows, n] int32: the position in sorted order of the first element of each
        element's block, -1 in rows that are not finite; None if every row is in the linear regime.
    """
    num_rows, n = values.shape
    packed = values.dtype == np.float32 and n <= _POSITION_MASK
    ranks = np.empty_like(values)
    keys = np.empty(values.shape if packed else (0, 0))
    rows = np.empty(num_rows, np.int64)
    reach = -1.0 if kl else 0.5 * n

    def range_test(first: int, last: int) -> tuple[int, int, int]:
        ranking, bad = kernels.range_test(values, first, last, scale, reach, offset, packed, ranks, keys, rows)
        return first, first + ranking, bad

    found = _share(range_test, [(0, num_rows)], values.size // _PASS_GRAIN)
    spans = [(first, last) for first, last, _ in found if last > first]
    any_bad = any(bad for _, _, bad in found)
    if not spans and not any_bad:
        return ranks, None
    blocks = np.zeros(values.shape, np.int32)
    if any_bad:
        blocks[np.isnan(ranks[:, 0])] = -1
    pool = kernels.pool_kl if kl else kernels.pool_l2

    def sort_and_pool(first: int, last: int) -> None:
        if packed:
            keys[first:last].sort(axis=1)
            order, mask = keys[first:last].view(np.int64), _POSITION_MASK
        else:
            ranking = values[rows[first:last]]
            order, mask = np.argsort(ranking if scale < 0 else -ranking, axis=1), -1
        pool(values, rows[first:last], order, mask, scale, offset, ranks, blocks)

    _share(sort_and_pool, spans, sum(last - first for first, last in spans) * n // _POOL_GRAIN)
    return ranks, blocks


def project(tangent: Array, ranks: Array | None, blocks: Array | None, scale: float, offset: float) -> Array:
    """Return the product of the soft rank's (symmetric) Jacobian with the tangent, [rows, n].

    `ranks` (None for the Euclidean ones) and `blocks` are those that `rank` returned for this scale and offset.
    """
    result = np.empty_like(tangent)

    def work(first: int, last: int) -> None:
        if blocks is None:
            kernels.centre(tangent, first, last, scale, result)
        elif ranks is None:
            kernels.centre_blocks(tangent, blocks, first, last, scale, result)
        else:
            kernels.centre_blocks_kl(tangent, ranks, blocks, first, last, scale, offset, result)

    _share(work, [(0, len(tangent))], tangent.size // _PASS_GRAIN)
    return result


def sort_blocks(ordered: Array, epsilon: float, kl: bool) -> Array:
    """Return the blocks of the soft sort of rows in descending order, as `rank` gives them, by sorted position."""
    blocks = np.zeros(ordered.shape, np.int32)
    blocks[~np.isfinite(ordered).all(axis=1)] = -1
    pool = kernels.pool_sorted_kl if kl else kernels.pool_sorted_l2
    pool(ordered, epsilon, blocks)
    return blocks


def linear_l2(student: Array, teacher: Array, scale: float) -> tuple[Array, Array] | None:
    """Return the mean squared difference of the Euclidean soft ranks by row, and the differences of the ranks.

    None unless every row of both is in the linear regime.
    """
    loss = np.empty(len(student), student.dtype)
    difference = np.empty_like(student)
    if kernels.linear_l2(student, teacher, scale, loss, difference):
        return loss, difference
    return None


def _share(work: Callable[[int, int], T], spans: list[tuple[int, int]], threads: int) -> list[T]:
    """Call `work` on every span of rows, shared among at most `threads` threads and as many as torch would use."""
    threads = min(threads, torch.get_num_threads())
    if threads < 2:
        return [work(first, last) for first, last in spans]
    step = -(-sum(last - first for first, last in spans) // threads)
    pieces = [(a, min(a + step, last)) for first, last in spans for a in range(first, last, step)]
    others = [_threads(os.getpid(), threads).submit(work, *piece) for piece in pieces[1:]]
    return [work(*pieces[0]), *(other.result() for other in others)]


@functools.lru_cache(maxsize=1)
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """Threads do not survive a fork: a forked process makes its own."""
    del process
    return ThreadPoolExecutor(count, thread_name_prefix="softrank")

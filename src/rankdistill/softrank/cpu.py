"""The CPU path: NumPy's SIMD sort and kernels compiled by numba, over the rows of contiguous 2-D arrays.

Rows that pass the range test get the closed form (docs/soft-rank.md) and are never sorted. The kernels release the
interpreter lock and are serial; where it pays, rows are shared among threads of our own. numba's parallel layers are
not used: one dies in forked workers, the other aborts when two threads call it.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from . import kernels, kernels_kl

Array = NDArray[Any]
T = TypeVar("T")

# Elements that are sorted and pooled at a time, while they are in the cache.
_CHUNK = 16_000
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
    ranks = np.empty_like(values)
    rows = np.empty(num_rows, np.int64)
    reach = -1.0 if kl else 0.5 * n / abs(scale)

    def range_test(first: int, last: int) -> tuple[int, int, bool]:
        return first, *kernels.range_test(values, first, last, scale, reach, offset, ranks, rows)

    tested = _share(range_test, 0, num_rows, values.size // _PASS_GRAIN)
    if not any(listed or bad for _, listed, bad in tested):
        return ranks, None
    blocks = np.zeros(values.shape, np.int32)
    if any(bad for _, _, bad in tested):
        blocks[np.isnan(ranks[:, 0])] = -1

    def sort_and_pool(first: int, last: int) -> None:
        _sort_and_pool(values, rows[first:last], scale, kl, offset, ranks, blocks)

    for first, listed, _ in tested:
        if listed:
            _share(sort_and_pool, first, first + listed, listed * n // _POOL_GRAIN)
    return ranks, blocks


def _sort_and_pool(
    values: Array, rows: Array, scale: float, kl: bool, offset: float, ranks: Array, blocks: Array
) -> None:
    """Fill in the ranks and blocks of the listed rows, in chunks of rows that stay in the cache.

    Keys are float64 with their position in the last bits, so that one SIMD sort gives the order. Those of float32
    values lose nothing; float64 values that agree in all other bits may come out of order, and are sorted again.
    """
    n = values.shape[1]
    sign = 1.0 if scale < 0 else -1.0
    mask = (1 << (n - 1).bit_length()) - 1
    step = min(max(_CHUNK // n, 1), len(rows))
    all_keys = np.empty((step, n))
    all_order = np.empty((step, n), np.uint64)
    pool: Callable[..., None]
    if kl:
        pool, room = kernels_kl.pool_kl, [*np.empty((3, n)), np.empty(n, np.int64)]
    else:
        pool, room = kernels.pool_l2, [*np.empty((3, n + 1)), np.empty(n + 1, np.int64)]
    for start in range(0, len(rows), step):
        listed = rows[start : start + step]
        keys, order = all_keys[: len(listed)], all_order[: len(listed)]
        bits = keys.view(np.int64)
        kernels.pack(values, listed, sign, mask, keys, bits)
        keys.sort(axis=1)
        if not kernels.unpack(values, listed, sign, mask, keys, bits, order):
            np.multiply(values[listed], sign, out=keys)
            order[:] = keys.argsort(axis=1)
            keys.sort(axis=1)
        pool(keys, order, listed, abs(scale), offset, ranks, blocks, *room)


def project(tangent: Array, ranks: Array | None, blocks: Array | None, scale: float, offset: float) -> Array:
    """Return the product of the soft rank's (symmetric) Jacobian with the tangent, [rows, n].

    `ranks` (None for the Euclidean ones) and `blocks` are those that `rank` returned for this scale and offset.
    """
    result = np.empty_like(tangent)

    def centre(first: int, last: int) -> None:
        if blocks is None:
            kernels.centre(tangent, first, last, scale, result)
            return
        room = np.empty((2, tangent.shape[1]))
        unsigned = blocks.view(np.uint32)
        if ranks is None:
            kernels.centre_blocks(tangent, unsigned, first, last, scale, result, *room)
        else:
            kernels_kl.centre_blocks_kl(tangent, ranks, unsigned, first, last, scale, offset, result, *room)

    _share(centre, 0, len(tangent), tangent.size // _PASS_GRAIN)
    return result


def sort_blocks(ordered: Array, epsilon: float, kl: bool) -> Array:
    """Return the blocks of the soft sort of rows in descending order, as `rank` gives them, by sorted position."""
    n = ordered.shape[1]
    blocks = np.zeros(ordered.shape, np.int32)
    blocks[~np.isfinite(ordered).all(axis=1)] = -1
    wide = ordered.astype(np.float64, copy=False)
    first, second = np.empty((2, n + 1))
    if kl:
        kernels_kl.sort_blocks_kl(wide, epsilon, blocks, first, second, np.empty(n, np.int64))
    else:
        kernels.sort_blocks_l2(wide, epsilon, blocks, first, second)
    return blocks


def level(ordered: Array, blocks: Array, epsilon: float, kl: bool) -> Array:
    """Return the soft sort of rows in descending order, given its blocks."""
    result = np.empty_like(ordered)
    if kl:
        kernels_kl.level_blocks_kl(ordered, blocks, epsilon, result)
    else:
        kernels.level_blocks(ordered, blocks, 1.0 / epsilon, result)
    return result


def level_gradient(gradient: Array, ordered: Array | None, blocks: Array) -> Array:
    """Return the gradient for the ordered rows (None: the Euclidean sort's does not depend on them)."""
    result = np.empty_like(gradient)
    if ordered is None:
        kernels.level_blocks(gradient, blocks, 0.0, result)
    else:
        kernels_kl.spread_over_blocks_kl(gradient, ordered, blocks, result)
    return result


def linear_l2(student: Array, teacher: Array, scale: float) -> tuple[Array, Array] | None:
    """Return the mean squared difference of the Euclidean soft ranks by row, and its gradient for the student.

    None unless every row of both is in the linear regime.
    """
    loss = np.empty(len(student), student.dtype)
    slope = np.empty_like(student)
    return (loss, slope) if kernels.linear_l2(student, teacher, scale, loss, slope) else None


def _share(work: Callable[[int, int], T], first: int, last: int, threads: int) -> list[T]:
    """Call `work` on the rows from first to last, in pieces for at most `threads` threads and as many as torch uses."""
    if threads < 2 or (threads := min(threads, last - first, torch.get_num_threads())) < 2:
        return [work(first, last)]
    bounds = [first + (last - first) * i // threads for i in range(threads + 1)]
    pool = _threads(os.getpid(), threads)
    others = [pool.submit(work, a, b) for a, b in itertools.pairwise(bounds[1:])]
    return [work(*bounds[:2]), *(other.result() for other in others)]


@functools.lru_cache(maxsize=1)
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """Threads do not survive a fork: a forked process makes its own."""
    del process
    return ThreadPoolExecutor(count, thread_name_prefix="softrank")

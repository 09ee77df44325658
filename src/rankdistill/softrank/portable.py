"""The operator in torch operations alone: the differentiable formulas given the blocks, and the blocks themselves.

These run on any device, without synchronising with the host, and under every transform. Blocks are found in
O(n log^2 n) operations and O(n) memory a row by solving the halves and merging them, in log2(n) rounds of a fixed
number of operations; the CPU has kernels of its own (`cpu`). Work is done in float64 where the device has it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def wide(values: Tensor) -> Tensor:
    """Return the values in the widest float dtype of their device."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def block_sum(values: Tensor, blocks: Tensor) -> Tensor:
    """Return, for each element of [..., n], the sum over its block."""
    bins = blocks.clamp(min=0)
    return torch.zeros_like(values).scatter_add(-1, bins, values).gather(-1, bins)


def ranks_of_blocks(values: Tensor, blocks: Tensor, scale: float, kl: bool, offset: float) -> Tensor:
    """Return the soft ranks of the values, less `offset`, differentiable in the values; `blocks` as `rank_blocks`."""
    x = wide(values)
    count = block_sum(torch.ones_like(x), blocks)
    middle = values.shape[-1] - blocks - 0.5 * (count - 1.0)
    if kl:
        bins = blocks.clamp(min=0)
        fixed = scale * x.detach()
        top = torch.full_like(x, -math.inf).scatter_reduce(-1, bins, fixed, "amax").gather(-1, bins)
        above = torch.exp(scale * x - top)
        ranks = above / block_sum(above, blocks) * (count * middle) - offset
    else:
        ranks = scale * (x - block_sum(x, blocks) / count) + (middle - offset)
    return (ranks * _nan_where_bad(blocks, x)).to(values.dtype)


def sorted_of_blocks(ordered: Tensor, blocks: Tensor, epsilon: float, kl: bool) -> Tensor:
    """Return the soft sort of rows in descending order, differentiable in them; `blocks` as `sort_blocks`."""
    x = wide(ordered)
    n = x.shape[-1]
    rho = torch.arange(n, 0, -1, dtype=x.dtype, device=x.device).expand_as(x)
    if kl:
        bins = blocks.clamp(min=0)
        top = x.detach().gather(-1, bins)
        step = (rho - (n - bins)) / epsilon
        weight = torch.log(block_sum(torch.exp(x - top), blocks)) - torch.log(block_sum(torch.exp(step), blocks))
        result = step + (top + weight)
    else:
        count = block_sum(torch.ones_like(x), blocks)
        result = block_sum(x, blocks) / count + (rho - block_sum(rho, blocks) / count) / epsilon
    return (result * _nan_where_bad(blocks, x)).to(ordered.dtype)


def project(tangent: Tensor, ranks: Tensor | None, blocks: Tensor | None, scale: float) -> Tensor:
    """Return the product of the soft rank's (symmetric) Jacobian with the tangent, differentiable.

    Args:
        tangent: [..., n].
        ranks: [..., n], the entropic soft ranks; None for the Euclidean ones.
        blocks: [..., n]; None if each row is one block.
        scale: as in `ranks_of_blocks`.
    """
    x = wide(tangent)
    bins = torch.zeros_like(x, dtype=torch.int64) if blocks is None else blocks.long()
    weight = torch.ones_like(x) if ranks is None else wide(ranks)
    mean = block_sum(weight * x, bins) / block_sum(weight, bins)
    return (scale * weight * (x - mean) * _nan_where_bad(bins, x)).to(tangent.dtype)


def sorted_gradient(gradient: Tensor, ordered: Tensor | None, blocks: Tensor) -> Tensor:
    """Return the gradient of `sorted_of_blocks` for the ordered rows (None: the Euclidean), differentiable in both."""
    x = wide(gradient)
    if ordered is None:
        weight = 1.0 / block_sum(torch.ones_like(x), blocks)
    else:
        top = ordered.detach().gather(-1, blocks.clamp(min=0))
        above = torch.exp(wide(ordered - top))
        weight = above / block_sum(above, blocks)
    return (weight * block_sum(x, blocks) * _nan_where_bad(blocks, x)).to(gradient.dtype)


def rank_blocks(values: Tensor, scale: float, kl: bool) -> Tensor:
    """Return the first sorted position of each element's block, [..., n] int64; -1 in rows that are not finite."""
    n = values.shape[-1]
    finite = torch.isfinite(values).all(-1, keepdim=True)
    x = wide(torch.where(finite, values, 0.0))
    ordered, order = x.sort(dim=-1, descending=scale > 0)
    # Nothing is joined across a gap of n; clamping the gaps keeps the sums accurate for large values.
    s = -_from_first((torch.diff(ordered).abs() * abs(scale)).clamp(max=float(n)))
    rho = torch.arange(n, 0, -1, dtype=x.dtype, device=x.device).expand_as(s)
    starts = _pool_kl(s, rho.log()) if kl else _pool_l2(s - rho)
    return torch.where(finite, torch.empty_like(order).scatter(-1, order, starts), -1)


def sort_blocks(ordered: Tensor, epsilon: float, kl: bool) -> Tensor:
    """Return the first position of each position's block in the soft sort of rows in descending order, as above."""
    n = ordered.shape[-1]
    finite = torch.isfinite(ordered).all(-1, keepdim=True)
    x = wide(torch.where(finite, ordered, 0.0))
    rho = torch.arange(n, 0, -1, dtype=x.dtype, device=x.device).expand_as(x)
    gaps = torch.diff(x).abs()
    if kl:
        w = -_from_first(gaps.clamp(max=n / epsilon + math.log(n) + 1.0))
        starts = _pool_kl((rho - n) / epsilon, w)
    else:
        # A gap of n (n + 1) / 2 joins the whole row.
        starts = _pool_l2(rho + _from_first((epsilon * gaps).clamp(max=0.5 * n * (n + 1))))
    return torch.where(finite, starts, -1)


def _nan_where_bad(blocks: Tensor, like: Tensor) -> Tensor:
    """A factor for each row: 1, or NaN where the blocks are -1. As a factor it makes the gradient NaN too."""
    return torch.where(blocks[..., :1] < 0, math.nan, 1.0).to(like.dtype)


def _from_first(gaps: Tensor) -> Tensor:
    return F.pad(gaps.cumsum(-1), (1, 0))


def _pool_l2(y: Tensor) -> Tensor:
    """Return the first position of each position's block in the non-increasing isotonic fit to y, [..., n]."""
    return _pool(y, torch.ones_like(y), y.amin(-1, keepdim=True), log=False)


def _pool_kl(s: Tensor, w: Tensor) -> Tensor:
    """As `_pool_l2`, for block values logsumexp(s) - logsumexp(w)."""
    return _pool(s, w, (s.amin(-1, keepdim=True) - w.amax(-1, keepdim=True)), log=True)


def _pool(numerator: Tensor, denominator: Tensor, floor: Tensor, *, log: bool) -> Tensor:
    """Pool adjacent violators; a block's value is the quotient of its sums (of logarithms, if `log`).

    Rows are padded to a power of two by values below `floor`, which is below every block's value: they never pool.
    """
    n = numerator.shape[-1]
    below = floor - torch.arange(1, (1 << (n - 1).bit_length()) - n + 1, dtype=floor.dtype, device=floor.device)
    numerator = torch.cat((numerator, below), -1)
    denominator = torch.cat((denominator, torch.zeros_like(below) if log else torch.ones_like(below)), -1)
    value = numerator - denominator if log else numerator / denominator
    start = torch.arange(value.shape[-1], device=value.device).expand_as(value)
    end = start + 1
    width = 1
    while width < n:
        halves = (*value.shape[:-1], -1, 2, width)
        first = torch.arange(0, value.shape[-1], 2 * width, device=value.device)[:, None, None]
        value, start, end = _merge(
            numerator.reshape(halves),
            denominator.reshape(halves),
            value.reshape(halves),
            start.reshape(halves) - first,
            end.reshape(halves) - first,
            log=log,
        )
        start, end = start + first, end + first
        value, start, end = (x.flatten(-3) for x in (value, start, end))
        width *= 2
    return start[..., :n]


def _merge(
    numerator: Tensor, denominator: Tensor, value: Tensor, start: Tensor, end: Tensor, *, log: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Join two solved halves, [..., 2, width]: some last blocks of the left and first ones of the right become one.

    A left element takes part if the mean from its block to the border, with all that is greater on the right, is not
    below it; a right element if the mean up to its block, with all that is smaller on the left, is not above it.
    """
    width = value.shape[-1]
    left, right = (x.contiguous() for x in value.unbind(-2))
    sums = [_sums_from_border(x, log=log) for x in (numerator, denominator)]

    def mean(begin: Tensor, stop: Tensor) -> Tensor:
        """The value of the range [begin, width) on the left with [0, stop) on the right."""
        parts = [(before.gather(-1, begin), after.gather(-1, stop)) for before, after in sums]
        if log:
            return torch.logaddexp(*parts[0]) - torch.logaddexp(*parts[1])
        return (parts[0][0] + parts[0][1]) / (parts[1][0] + parts[1][1])

    begins, stops = start[..., 0, :], end[..., 1, :] - width
    greater = torch.searchsorted(-right, -left)
    smaller = torch.searchsorted(-left, -right, right=True)
    joins_left = mean(begins, greater) >= left
    joins_right = mean(smaller, stops) <= right
    begin = torch.where(joins_left, begins, begins[..., -1:]).amin(-1, keepdim=True)
    stop = torch.where(joins_right, stops, stops[..., :1]).amax(-1, keepdim=True)
    position = torch.arange(2 * width, device=value.device).view(2, width)
    pooled = (position >= begin[..., None]) & (position < (stop + width)[..., None])
    pooled &= (left[..., -1:] <= right[..., :1])[..., None]
    return (
        torch.where(pooled, mean(begin, stop)[..., None], value),
        torch.where(pooled, begin[..., None], start),
        torch.where(pooled, (stop + width)[..., None], end),
    )


def _sums_from_border(halves: Tensor, *, log: bool) -> tuple[Tensor, Tensor]:
    """Sums from each position of the left half, and up to each of the right one, to the border; [..., width + 1]."""
    total, zero = (torch.logcumsumexp, -math.inf) if log else (torch.cumsum, 0.0)
    left, right = halves.unbind(-2)
    return F.pad(total(left.flip(-1), -1).flip(-1), (0, 1), value=zero), F.pad(total(right, -1), (1, 0), value=zero)

"""Which path a call takes: kernels behind an `autograd.Function`, or custom operators and torch operations.

Plain CPU tensors in eager mode go straight to the kernels. Everything else (other devices, `torch.compile`,
`torch.func` transforms) finds the blocks with a custom operator. They are constant almost everywhere; the result
follows from them in torch operations, so every transform, forward mode included, differentiates what it sees.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from . import portable

torch.library.define("rankdistill::rank_blocks", "(Tensor values, float scale, bool kl) -> Tensor")
torch.library.define("rankdistill::sort_blocks", "(Tensor ordered, float epsilon, bool kl) -> Tensor")


def rank_blocks(values: Tensor, scale: float, kl: bool) -> Tensor:
    """Return the blocks of the soft ranks of scale * values, [..., n] int64: see `portable.rank_blocks`."""
    blocks: Tensor = torch.ops.rankdistill.rank_blocks(values, scale, kl)
    return blocks


def sort_blocks(ordered: Tensor, epsilon: float, kl: bool) -> Tensor:
    """Return the blocks of the soft sort of rows in descending order, [..., n] int64: see `portable.sort_blocks`."""
    blocks: Tensor = torch.ops.rankdistill.sort_blocks(ordered, epsilon, kl)
    return blocks


def _rank_blocks_cpu(values: Tensor, scale: float, kl: bool) -> Tensor:
    _, blocks = _cpu().rank(_rows(values), scale, kl, 0.0)
    if blocks is None:
        return torch.zeros(values.shape, dtype=torch.int64)
    return torch.from_numpy(blocks).long().view(values.shape)


def _sort_blocks_cpu(ordered: Tensor, epsilon: float, kl: bool) -> Tensor:
    return torch.from_numpy(_cpu().sort_blocks(_rows(ordered), epsilon, kl)).long().view(ordered.shape)


def _fake_blocks(values: Tensor, strength: float, kl: bool) -> Tensor:
    del strength, kl
    return torch.empty(values.shape, dtype=torch.int64, device=values.device)


def _rank_blocks_batched(
    info: Any, in_dims: tuple[int, None, None], values: Tensor, scale: float, kl: bool
) -> tuple[Tensor, int]:
    del info
    return rank_blocks(values.movedim(in_dims[0], 0), scale, kl), 0


def _sort_blocks_batched(
    info: Any, in_dims: tuple[int, None, None], ordered: Tensor, epsilon: float, kl: bool
) -> tuple[Tensor, int]:
    del info
    return sort_blocks(ordered.movedim(in_dims[0], 0), epsilon, kl), 0


torch.library.impl("rankdistill::rank_blocks", "default", portable.rank_blocks)
torch.library.impl("rankdistill::rank_blocks", "cpu", _rank_blocks_cpu)
torch.library.register_fake("rankdistill::rank_blocks", _fake_blocks)
torch.library.register_vmap("rankdistill::rank_blocks", _rank_blocks_batched)
torch.library.impl("rankdistill::sort_blocks", "default", portable.sort_blocks)
torch.library.impl("rankdistill::sort_blocks", "cpu", _sort_blocks_cpu)
torch.library.register_fake("rankdistill::sort_blocks", _fake_blocks)
torch.library.register_vmap("rankdistill::sort_blocks", _sort_blocks_batched)


def ranks(values: Tensor, scale: float, kl: bool, offset: float) -> Tensor:
    """Return the ascending soft ranks of scale * values along the last dimension, less `offset`, differentiable.

    The values are float32 or float64, with at least one element.
    """
    if is_plain(values):
        result: Tensor = _Ranks.apply(values, scale, kl, offset)
        return result
    blocks = rank_blocks(values.detach(), scale, kl)
    return portable.ranks_of_blocks(values, blocks, scale, kl, offset)


def soft_sort(ordered: Tensor, epsilon: float, kl: bool) -> Tensor:
    """Return the soft sort of rows that are in descending order along the last dimension, differentiable.

    The values are float32 or float64, with at least one element.
    """
    if is_plain(ordered):
        result: Tensor = _Sorted.apply(ordered, epsilon, kl)
        return result
    return portable.sorted_of_blocks(ordered, sort_blocks(ordered.detach(), epsilon, kl), epsilon, kl)


def is_plain(values: Tensor) -> bool:
    """Return whether a kernel may read the tensor's memory: on the CPU, and no tracing, transform or subclass."""
    return (
        not torch.compiler.is_compiling()
        and values.is_cpu
        and type(values) in (Tensor, nn.Parameter)
        and torch._C._has_storage(values)  # not so under a transform
        and not torch._C._are_functorch_transforms_active()  # as Function.apply asks
        and torch._C._len_torch_dispatch_stack() == 0
        and forward_ad._current_level < 0
    )


class _Ranks(torch.autograd.Function):
    """The kernels. Forward mode and transforms take the other path, so there is no `jvp` and no `setup_context`.

    (The latter alone costs more than the kernels of a small batch.)
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: float, kl: bool, offset: float) -> Tensor:
        # Blocks are no tensor of the graph: as an attribute, they spare the cost of saving and checking one.
        ranks, ctx.blocks = _cpu().rank(_rows(values), scale, kl, offset)
        result = _like(ranks, values)
        if kl:
            ctx.save_for_backward(result)
        ctx.scale, ctx.kl, ctx.offset = scale, kl, offset
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        ranks = ctx.saved_tensors[0] if ctx.kl else None
        blocks = ctx.blocks
        if torch.is_grad_enabled() or not is_plain(gradient):
            weight = None if ranks is None else ranks + ctx.offset
            bins = None if blocks is None else torch.from_numpy(blocks).view(gradient.shape)
            return portable.project(gradient, weight, bins, ctx.scale), None, None, None
        rows = None if ranks is None else _rows(ranks)
        return _like(_cpu().project(_rows(gradient), rows, blocks, ctx.scale, ctx.offset), gradient), None, None, None


class _Sorted(torch.autograd.Function):
    """The soft sort of rows in descending order, by the kernels; as `_Ranks`."""

    @staticmethod
    def forward(ctx: Any, ordered: Tensor, epsilon: float, kl: bool) -> Tensor:
        rows = _rows(ordered)
        blocks = _cpu().sort_blocks(rows, epsilon, kl)
        ctx.save_for_backward(ordered if kl else None, torch.from_numpy(blocks).view(ordered.shape))
        return _like(_cpu().level(rows, blocks, epsilon, kl), ordered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ordered, blocks = ctx.saved_tensors
        if torch.is_grad_enabled() or not is_plain(gradient):
            return portable.sorted_gradient(gradient, ordered, blocks.long()), None, None
        rows = None if ordered is None else _rows(ordered)
        return _like(_cpu().level_gradient(_rows(gradient), rows, _rows(blocks)), gradient), None, None


class _LinearSquaredDistance(torch.autograd.Function):
    """The mean squared difference of Euclidean ranks by row, and its slope; None, None if a row is not linear.

    The slope is an output so that the second derivative can come by way of it.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, scale: float) -> tuple[Tensor | None, Tensor | None]:
        found = _cpu().linear_l2(_rows(student), _rows(teacher), scale)
        if found is None:
            return None, None
        loss, slope = torch.from_numpy(found[0]), torch.from_numpy(found[1])
        ctx.save_for_backward(slope)
        ctx.set_materialize_grads(False)
        ctx.scale = scale
        return loss, slope

    @staticmethod
    def backward(ctx: Any, loss: Tensor | None, slope: Tensor | None) -> tuple[Tensor | None, None, None]:
        (saved,) = ctx.saved_tensors
        gradient = None if loss is None else saved * loss.unsqueeze(1)
        if slope is not None:
            curvature = portable.project(slope, None, None, ctx.scale) * (2.0 * ctx.scale / saved.shape[1])
            gradient = curvature if gradient is None else gradient + curvature
        return gradient, None, None


def linear_squared_distance(student: Tensor, teacher: Tensor, scale: float) -> Tensor | None:
    """Return the mean squared difference of the Euclidean ranks of two [rows, n], by row, for a constant teacher.

    None if that is not one pass of a kernel: a row is not linear, or the tensors are not plain and of one dtype.
    """
    if not (is_plain(student) and is_plain(teacher) and student.dtype == teacher.dtype):
        return None
    loss: Tensor | None = _LinearSquaredDistance.apply(student, teacher, scale)[0]
    return loss


@functools.cache
def _cpu() -> Any:
    """The module of the kernels, imported at the first use: numba is slow to import."""
    return importlib.import_module(".cpu", __package__)


def _rows(values: Tensor) -> Any:
    """Return the tensor's memory as a contiguous NumPy array [rows, n]; a copy only if it is not contiguous."""
    array = values.contiguous().numpy(force=True)
    return array if array.ndim == 2 else array.reshape(-1, array.shape[-1])


def _like(rows: Any, values: Tensor) -> Tensor:
    """Return a tensor on the array's memory, in the shape of the values."""
    result = torch.from_numpy(rows)
    return result if values.ndim == 2 else result.view(values.shape)

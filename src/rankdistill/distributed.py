"""What processes that train together tell each other. Without a process group, each function is the identity.

Networks are not wrapped in DistributedDataParallel: update rules take several gradients of one forward pass, which it
leaves unreduced without a word, and a method's own parameters would have no owner. So one function averages gradients
after backward, wherever they come from. Every process must find gradients for the same tensors, which holds as long as
what a method runs is a function of the batch's step and not of its samples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_BUCKET = 25_000_000
"""Bytes of gradients that are averaged in one message."""


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0; 0 writes the files."""
    return dist.get_rank() if world_size() > 1 else 0


def share(size: int, device: torch.device) -> Tensor | float:
    """Return the factor of the mean over this process's `size` samples in the mean of the processes' means.

    It is 1 if all have equally many. No host synchronisation.
    """
    if world_size() == 1:
        return 1.0
    exact = torch.float32 if device.type == "mps" else torch.float64
    return size * world_size() / total(torch.tensor(float(size), device=device, dtype=exact))


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in messages of about 25 MB."""
    if world_size() == 1:
        return
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        dist.all_reduce(flat)
        flat /= world_size()
        _spread(flat, bucket)


def reduce_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient that is there by its mean over the processes."""
    average([parameter.grad for parameter in parameters if parameter.grad is not None])


def total(values: Tensor) -> Tensor:
    """Return the sum over the processes."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def any_of(flag: int) -> int:
    """Return the largest of the processes' numbers, so that all of them stop when one is told to."""
    return _host_max(flag) if world_size() > 1 else flag


def gather(rows: Tensor) -> Tensor:
    """Return the rows [n, ...] of all processes, in the order of their numbers; n may differ. No gradient flows."""
    if world_size() == 1:
        return rows
    sizes = [0] * world_size()
    dist.all_gather_object(sizes, len(rows), group=_host_group())
    padded = rows.detach().new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])


def of_first(values: Tensor) -> Tensor:
    """Return what process 0 has. No gradient flows."""
    if world_size() == 1:
        return values
    values = values.detach().clone()
    dist.broadcast(values, src=0)
    return values


def broadcast_buffers(*modules: nn.Module) -> None:
    """Copy the buffers of process 0 to all: batch norms' running statistics differ, since each saw its own samples."""
    if world_size() == 1:
        return
    buffers = sorted(
        (buffer for module in modules for buffer in module.buffers()), key=lambda buffer: str(buffer.dtype)
    )
    for bucket in _buckets(buffers):
        flat = torch.cat([buffer.reshape(-1) for buffer in bucket])
        dist.broadcast(flat, src=0)
        _spread(flat, bucket)


def broadcast_state(module: nn.Module) -> None:
    """Give all processes the state of process 0, what is no tensor included."""
    if world_size() > 1:
        states = [module.state_dict()]
        dist.broadcast_object_list(states, src=0)
        module.load_state_dict(states[0])


def barrier() -> None:
    """Wait for the others."""
    if world_size() > 1:
        dist.barrier()


class OtherProcessFailed(RuntimeError):
    """Process 0 failed, and says why itself."""


def on_first(action: Callable[[], object]) -> None:
    """Run an action in process 0, while the others wait. If it fails, it fails in all of them.

    Raises:
        OtherProcessFailed: in the other processes. In process 0, what the action raises.
    """
    failed: Exception | None = None
    if rank() == 0:
        try:
            action()
        except Exception as error:
            failed = error
    if any_of(int(failed is not None)):
        raise failed or OtherProcessFailed("process 0 failed, and says why")


def synchronized_batch_norm(module: nn.Module) -> None:
    """Let every batch norm of the module normalise over the samples of all processes; names and state stay the same.

    torch's own SyncBatchNorm refuses CPUs; this one works with any backend.
    """
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            child.forward = functools.partial(_synchronized, child)  # type: ignore[method-assign]


def _synchronized(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training or world_size() == 1:
        return type(norm).forward(norm, x)
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    with torch.autocast(x.device.type, enabled=False):
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = total(torch.tensor(float(x.numel() // x.shape[1]), device=x.device, dtype=wide.dtype))
        mean = cast("Tensor", _AllReduce.apply(wide.sum(axes))) / count
        centred = wide - mean.view(shape)
        variance = cast("Tensor", _AllReduce.apply(centred.square().sum(axes))) / count
        result = centred * torch.rsqrt(variance + norm.eps).view(shape)
        if norm.affine:
            result = torch.addcmul(norm.bias.view(shape), result, norm.weight.view(shape))
        if norm.track_running_stats and norm.running_mean is not None:
            _remember(norm, mean.detach(), (variance * count / (count - 1)).detach())
    return result.to(x.dtype)


def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    running_mean, running_var = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
    seen = cast("Tensor", norm.num_batches_tracked).add_(1)
    momentum = 1.0 / seen.to(mean.dtype) if norm.momentum is None else torch.full_like(mean[0], norm.momentum)
    running_mean.lerp_(mean.to(running_mean.dtype), momentum.to(running_mean.dtype))
    running_var.lerp_(variance.to(running_var.dtype), momentum.to(running_var.dtype))


class _AllReduce(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return total(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        return total(gradient)


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the parts of a flat tensor to the tensors that it was made of."""
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


def _buckets(tensors: Sequence[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size >= _BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
    if bucket:
        yield bucket


@functools.cache
def _host_group() -> Any:
    """A group that exchanges host memory: the main one on CPUs, one of its own beside NCCL."""
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


def _host_max(flag: int) -> int:
    found = torch.tensor(flag)
    dist.all_reduce(found, op=dist.ReduceOp.MAX, group=_host_group())
    return int(found)

"""The plain step: down the gradient of the summed losses."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .. import distributed
from ..contract import Batch, Losses
from .state import State

Update = Callable[[State, Batch], Losses]
"""One optimizer step on a batch; returns the losses."""


def descend(state: State, batch: Batch) -> Losses:
    """Take one step down the gradient of the summed losses."""
    state.optimizer.zero_grad(set_to_none=True)
    share = distributed.share(len(batch), batch.images.device)
    total: Losses = {}
    for part in batch.chunks(state.accumulate):
        losses = state.losses(part)
        objective = torch.stack(list(losses.values())).sum()
        weight = len(part) / len(batch)
        torch.autograd.backward(objective * (share * weight))
        for name, value in losses.items():
            total[name] = total[name] + weight * value.detach() if name in total else weight * value.detach()
    state.apply_gradients()
    return total

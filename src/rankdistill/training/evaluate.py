"""Accuracy of a network on labelled batches."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from .. import distributed
from ..contract import Batch
from .state import Autocast


@torch.no_grad()
def evaluate(module: nn.Module, batches: Iterable[Batch], autocast: Autocast = nullcontext) -> dict[str, float]:
    """Return top-1 and top-5 accuracy in percent of a network in eval mode, each sample counted once.

    With fewer than 6 classes there is no top-5. The module is left in eval mode. With several processes each gives
    its own part of the batches, and all get the accuracy over all parts.
    """
    module.eval()
    hits: list[Tensor] = []
    depth = 1
    for batch in batches:
        if batch.labels is None:
            raise ValueError("evaluation needs labels, and this batch has none")
        with autocast():
            logits = module(batch.images)
        depth = 5 if logits.shape[1] > 5 else 1
        found = logits.float().topk(depth, dim=1).indices == batch.labels[:, None]
        hits.append(
            torch.stack([found[:, 0].sum(), found.any(dim=1).sum(), found.new_tensor(len(batch), dtype=torch.int64)])
        )
    first, five, count = distributed.total(torch.stack(hits).sum(dim=0)).tolist()
    return {"top1": 100.0 * first / count} | ({"top5": 100.0 * five / count} if depth == 5 else {})

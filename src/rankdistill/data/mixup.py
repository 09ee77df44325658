"""Mixup and CutMix of training batches, by torchvision's implementation.

Zhang et al., mixup: Beyond Empirical Risk Minimization (ICLR 2018), arXiv:1710.09412. Yun et al., CutMix (ICCV 2019),
arXiv:1905.04899.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch.random import fork_rng
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..contract import Batch
from .schedule import Batches


class MixedLoader:
    """A loader whose batches are mixed with themselves; labels become distributions [B, K].

    The draws are a function of (seed, step), so a teacher's cache and a resumed run see the same mixtures. Both views
    of a sample are mixed alike.

    Args:
        loader: what is mixed.
        num_classes: K.
        seed: of the draws.
        mixup, cutmix: alpha of the Beta distribution of one of the two; the other is 0.
    """

    def __init__(
        self, loader: Batches, *, num_classes: int, seed: int, mixup: float = 0.0, cutmix: float = 0.0
    ) -> None:
        if (mixup > 0.0) == (cutmix > 0.0):
            raise ValueError(f"mixup is {mixup}, cutmix {cutmix}: one of them must be positive")
        self.loader = loader
        self._seed = seed
        kind, alpha = (v2.MixUp, mixup) if mixup else (v2.CutMix, cutmix)
        self._mix: Any = kind(alpha=alpha, num_classes=num_classes, labels_getter=lambda inputs: inputs[-1])

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.loader)

    @property
    def num_samples(self) -> int:
        """Return the number of samples in an epoch, of all processes together."""
        return self.loader.num_samples

    def epoch(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        """Yield the mixed batches of an epoch, from batch `first` on."""
        for batch in self.loader.epoch(number, first=first):
            yield self._mixed(batch)

    def _mixed(self, batch: Batch) -> Batch:
        with fork_rng([]):
            torch.manual_seed((self._seed * 0x9E3779B97F4A7C15 + batch.step) % 2**63)
            views = [batch.images] if batch.strong is None else [batch.images, batch.strong]
            # Of plain tensors torchvision would mix the first alone.
            *mixed, labels = self._mix(*map(tv_tensors.Image, views), batch.labels)
        images, *strong = (image.as_subclass(torch.Tensor) for image in mixed)
        return dataclasses.replace(batch, images=images, strong=strong[0] if strong else None, labels=labels)

"""Training batches that carry a batch of held-out images, for update rules that learn from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..core import Batch
from .loader import Loader


class WithHeldOut:
    """The batches of a loader; every so many steps, `Batch.held_out` is the next batch of another one.

    Which held-out batch a step gets is a function of the step: the other loader is gone through epoch by epoch.

    Args:
        loader: of the images that are trained on.
        held_out: of those that are not.
        every: steps from one held-out batch to the next, at least 1; step 0 has one.

    Raises:
        ValueError: `every` is less than 1.
    """

    def __init__(self, loader: Loader, held_out: Loader, *, every: int) -> None:
        if every < 1:
            raise ValueError(f"every is {every}: it must be at least 1")
        self.loader, self.held_out, self.every = loader, held_out, every

    def __len__(self) -> int:
        """Return the number of training batches in an epoch."""
        return len(self.loader)

    @property
    def num_samples(self) -> int:
        """Return the number of training samples in an epoch."""
        return self.loader.num_samples

    def epoch(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch `first` on; see `Loader.epoch`."""
        start = (number - 1) * len(self) + first
        held_out = self._from(-(-start // self.every))
        for batch in self.loader.epoch(number, first=first):
            yield dataclasses.replace(batch, held_out=next(held_out)) if batch.step % self.every == 0 else batch

    def _from(self, turn: int) -> Iterator[Batch]:
        epoch, first = divmod(turn, len(self.held_out))
        while True:
            yield from self.held_out.epoch(epoch + 1, first=first)
            epoch, first = epoch + 1, 0

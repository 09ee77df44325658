"""Training batches by a user's own transforms, sample by sample, in worker processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..contract import Batch
from .dataset import Split
from .device import sent
from .random import Stream, draws
from .schedule import Schedule
from .source import Normalize

Transform = Callable[[Tensor], Tensor]
"""From a uint8 image [C, H, W] to a tensor [C', H', W'], the same shape for all images: a v2 pipeline, for example."""

_Item = tuple[int, int, int]  # position in the split, seeds of the two views


class TransformLoader:
    """Training batches of a split, each sample transformed by itself, in worker processes if there are any.

    Python's, NumPy's and torch's random numbers are seeded before each transform, as a function of (seed, epoch,
    position in the split, view). So the stream does not depend on the number of workers or processes, a run goes on
    from any batch, and the process's own random state stays as it is. The order is that of `Loader` with this seed.

    Args:
        split: what to train on.
        transform: of each image. A uint8 result is normalised here; one in floating point is taken as it is.
        strong_transform: of the same image once more, for `Batch.strong`; None for one view.
        batch_size: as for `Loader`.
        seed: as for `Loader`.
        mean, std: per channel, for pixels scaled to 0 .. 1; used for uint8 results.
        num_workers: processes that transform; 0 for this one.
        rank: as for `Loader`.
        world_size: as for `Loader`.
        device: where the batches go.
        channels_last: memory format of the batches' images.
        start_method: how workers are started: "fork", "spawn" or "forkserver", which need transforms that can be
            pickled; None for the platform's way.

    Raises:
        ValueError: the split is empty, or an argument is out of range.
    """

    def __init__(
        self,
        split: Split,
        transform: Transform,
        *,
        batch_size: int,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        strong_transform: Transform | None = None,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
        start_method: str | None = None,
    ) -> None:
        if num_workers < 0:
            raise ValueError(f"num_workers is {num_workers}: it must be at least 0")
        self.schedule = Schedule(len(split), batch_size, seed, rank, world_size)
        self.num_workers = num_workers
        self._device = torch.device(device)
        self._samples = _Samples(split, transform, strong_transform)
        self._constants = tuple(mean), tuple(std)
        self._channels_last = channels_last
        self._start_method = start_method if num_workers else None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.schedule)

    @property
    def num_samples(self) -> int:
        """Return the number of samples in an epoch, of all processes together."""
        return self.schedule.num_samples

    def epoch(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch, from batch `first` on. Workers live as long as the epoch.

        Raises:
            ValueError: the epoch or the batch does not exist.
        """
        self.schedule.check(number, first)
        return self._batches(number, first)

    def _batches(self, number: int, first: int) -> Iterator[Batch]:
        order = self.schedule.order(number)
        seeds = draws(self.schedule.seed, number, order, stream=Stream.USER_TRANSFORM, count=2)
        items: list[_Item] = [*zip(order.tolist(), *seeds.T.tolist(), strict=True)]
        loader = DataLoader(
            self._samples,
            batch_sampler=[items[self.schedule.part(step)] for step in range(first, len(self))],
            num_workers=self.num_workers,
            pin_memory=self._device.type == "cuda",
            multiprocessing_context=self._start_method,
            generator=torch.Generator(),  # else it would draw from the process's own
        )
        for position, (indices, labels, *views) in enumerate(loader, start=(number - 1) * len(self) + first):
            images = [self._finished(sent(view, self._device)) for view in views]
            strong = images[1] if len(images) == 2 else None
            labels, indices = sent(labels, self._device), sent(indices, self._device)
            yield Batch(images[0], labels, indices, strong, epoch=number, step=position)

    def _finished(self, view: Tensor) -> Tensor:
        if view.dtype == torch.uint8:
            channels, height, width = view.shape[1:]
            normalize = Normalize((channels, height, width), *self._constants, self._device, self._channels_last)
            return normalize(view)
        return view.contiguous(memory_format=torch.channels_last if self._channels_last else torch.contiguous_format)


class _Samples(Dataset[tuple[Tensor, ...]]):
    """(index, label, view, second view if any) of an item: a position and the seeds of both views."""

    def __init__(self, split: Split, transform: Transform, strong_transform: Transform | None) -> None:
        self.split = split
        self.transforms = (transform,) if strong_transform is None else (transform, strong_transform)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, item: _Item) -> tuple[Tensor, ...]:
        index, *seeds = item
        image = self.split.images[index].contiguous()
        with _random_state_kept():
            views = [_transformed(each, image, seed) for each, seed in zip(self.transforms, seeds, strict=False)]
        return torch.tensor(index), self.split.labels[index], *views


def _transformed(transform: Transform, image: Tensor, seed: int) -> Tensor:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (what a transform may draw from)
    torch.default_generator.manual_seed(seed)
    view = transform(image.clone())
    if not isinstance(view, Tensor) or view.ndim != 3:
        raise ValueError(f"a transform returned {type(view).__name__}: make it return a tensor [C, H, W]")
    return view


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Leave this process's random state as it is; a worker's is nobody's."""
    if get_worker_info() is not None:
        yield
        return
    python, numpy, own = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(own)

"""Batches: shuffled and augmented for training, in order for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from ..contract import Batch
from ..geometry import Geometry, SecondView
from .dataset import Split
from .device import sent
from .prefetch import prefetched
from .random import Stream
from .schedule import HeldOutSchedule, Schedule
from .source import Normalize, Source
from .views.views import Drawn, Views

_AS_IT_IS = Geometry()
_DRAWN_AT_ONCE = 8192  # samples; draws of a single batch take longer than its augmentation


class Loader:
    """Training batches of a split, augmented in whole batches on the device.

    The order of an epoch and the augmentation of each image are functions of (seed, epoch, position in the split), the
    held-out batch of a step of (seed, step). So a run goes on from any batch, and any number of processes sees the
    same stream. Nothing waits for the device: what is random is drawn on the host and sent there.

    Args:
        split: what to train on. Its images may be a tensor on a mapped file (`torch.from_numpy` of a `numpy.memmap`).
        batch_size: samples per batch, of all processes together. The last batch of an epoch is smaller if need be; a
            single sample left over joins the batch before it, since batch norm and losses over pairs of samples cannot
            work on one.
        seed: of the order and the augmentation, in [0, 2^64).
        mean, std: per channel, for pixels scaled to 0 .. 1.
        geometry: how the pixels of each view move; by default they stay where they are.
        second_view: what `Batch.strong` is: MLKD's strong view, or another weak view. None for batches of one view.
        held_out: samples for `Batch.held_out`, in the weak view; its indices are positions in this split.
        held_out_every: steps from one held-out batch to the next; step 0 has one.
        held_out_batch_size: of all processes together; None for `batch_size`, or all samples if they are fewer.
        rank: of this process, from 0: it gets a contiguous part of every batch, at least one sample; see `Schedule`.
        world_size: how many processes there are.
        resident_share: the images are copied to the device if they take at most this share of its memory; see `Source`.
        prefetch: how many batches a thread makes ahead; None for 2 if images do not lie on the device, else 0.
        device: where the batches come from.
        channels_last: memory format of the batches' images.

    Raises:
        ValueError: the split is empty, or an argument is out of range.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        geometry: Geometry = _AS_IT_IS,
        second_view: SecondView | None = None,
        held_out: Split | None = None,
        held_out_every: int = 1,
        held_out_batch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        resident_share: float = 0.5,
        prefetch: int | None = None,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
    ) -> None:
        if held_out_every < 1:
            raise ValueError(f"held_out_every is {held_out_every}: it must be at least 1")
        if prefetch is not None and prefetch < 0:
            raise ValueError(f"prefetch is {prefetch}: it must be at least 0")
        self.schedule = Schedule(len(split), batch_size, seed, rank, world_size)
        channels, height, width = split.images.shape[1:]
        self._views = Views(seed, geometry, height, width, second_view)
        self._held_out_views = Views(seed, geometry, height, width, stream=Stream.HELD_OUT_VIEW)
        self._device = torch.device(device)
        # Apple's GPU has no float64, which autocontrast and resizing need.
        whole_numbers = second_view != "mlkd" and geometry.random_resized_crop is None
        home = torch.device("cpu") if self._device.type == "mps" and not whole_numbers else self._device
        self._source = Source(split, home, resident_share)
        self._normalize = Normalize((channels, *geometry.size(height, width)), mean, std, self._device, channels_last)
        self._held_out_every = held_out_every
        self._held_out: tuple[Source, HeldOutSchedule] | None = None
        if held_out is not None:
            size = min(batch_size, len(held_out)) if held_out_batch_size is None else held_out_batch_size
            schedule = HeldOutSchedule(len(held_out), size, seed, rank, world_size)
            self._held_out = Source(held_out, home, resident_share), schedule
        elif held_out_batch_size is not None:
            raise ValueError(f"held_out_batch_size is {held_out_batch_size}, but there is no held_out split: give one")
        self.prefetch = (0 if self._source.resident else 2) if prefetch is None else prefetch

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.schedule)

    @property
    def num_samples(self) -> int:
        """Return the number of samples in an epoch, of all processes together."""
        return self.schedule.num_samples

    def epoch(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch, from batch `first` on.

        Args:
            number: of the epoch, counted from 1.
            first: batches to leave out, to go on within an epoch.

        Raises:
            ValueError: the epoch or the batch does not exist.
        """
        self.schedule.check(number, first)
        batches = self._batches(number, first)
        return prefetched(batches, self.prefetch) if self.prefetch else batches

    def _batches(self, number: int, first: int) -> Iterator[Batch]:
        order = self.schedule.order(number)
        many = max(1, _DRAWN_AT_ONCE * self.schedule.world_size // self.schedule.batch_size)
        for start in range(first, len(self), many):
            steps = range(start, min(start + many, len(self)))
            parts = [order[self.schedule.part(step)] for step in steps]
            drawn = self._views.draw(number, torch.cat(parts))
            end = 0
            for step, indices in zip(steps, parts, strict=True):
                begin, end = end, end + len(indices)
                yield self._batch(number, (number - 1) * len(self) + step, indices, drawn[begin:end])

    def _batch(self, epoch: int, step: int, indices: Int64[Tensor, " batch"], drawn: Drawn) -> Batch:
        images, labels, there = self._source.take(indices)
        weak, strong = self._views.make(images, drawn)
        weak, strong = self._finished(weak), None if strong is None else self._finished(strong)
        labels, there = sent(labels, self._device), sent(there, self._device)
        return Batch(weak, labels, there, strong, self._held_out_batch(epoch, step), epoch=epoch, step=step)

    def _held_out_batch(self, epoch: int, step: int) -> Batch | None:
        if self._held_out is None or step % self._held_out_every:
            return None
        source, schedule = self._held_out
        parts = []
        for turn, indices in schedule.draw(step // self._held_out_every):
            images, labels, there = source.take(indices)
            view, _ = self._held_out_views.make(images, self._held_out_views.draw(turn, indices))
            parts.append((self._finished(view), sent(labels, self._device), sent(there, self._device)))
        images, labels, there = (torch.cat(values) for values in zip(*parts, strict=True))
        return Batch(images, labels, there, epoch=epoch, step=step)

    def _finished(self, view: Tensor) -> Tensor:
        return self._normalize(sent(view, self._device))


def evaluation_batches(
    split: Split,
    *,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    centre_crop: int | None = None,
    device: torch.device | str = "cpu",
    channels_last: bool = True,
) -> Iterator[Batch]:
    """Yield every sample of a split once, in order and not augmented; the last batch may be smaller.

    Batches are moved to the device one at a time. See `Loader` for the arguments; `centre_crop` is the side in pixels
    of the square in the middle that is taken of each image, None for all of it.

    Raises:
        ValueError: the split is empty, or an argument is out of range.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    if len(split) == 0:
        raise ValueError("the split is empty: give at least one sample")
    pixels = split.images if centre_crop is None else _centre(split.images, centre_crop)
    channels, height, width = pixels.shape[1:]
    normalize = Normalize((channels, height, width), mean, std, device, channels_last)
    for start in range(0, len(split), batch_size):
        images = pixels[start : start + batch_size].to(device, non_blocking=True)
        labels = split.labels[start : start + batch_size].to(device, non_blocking=True)
        indices = torch.arange(start, start + len(images), device=device)
        yield Batch(normalize(images), labels, indices)


def _centre(images: Tensor, size: int) -> Tensor:
    height, width = images.shape[2:]
    if not 1 <= size <= min(height, width):
        raise ValueError(f"centre_crop is {size}: give 1 to {min(height, width)} pixels, which the images have")
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, :, top : top + size, left : left + size]

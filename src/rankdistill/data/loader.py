"""Batches from data that lies on the device: shuffled and augmented for training, in order for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..core import Batch
from .augment import weak_view
from .random import Stream, draws, permutation
from .sets import Split


class Loader:
    """Training batches of a split that is copied to the device once.

    The order of an epoch and the augmentation of each image are functions of (seed, epoch, position in the split).
    Nothing waits for the device: all draws of an epoch are made on it at the epoch's start.

    Args:
        split: what to train on.
        batch_size: samples per batch. The last batch of an epoch is smaller if need be; a single sample left over
            joins the batch before it, since batch norm and losses over pairs of samples cannot work on one.
        seed: of the order and the augmentation, in [0, 2^64).
        mean, std: per channel, for pixels scaled to 0 .. 1.
        padding: pixels of zero padding around each image before it is cropped at random; 0 crops nothing.
        flip: whether half of the images are mirrored.
        device: where the images lie and the batches come from.
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
        padding: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
    ) -> None:
        _check_batches(split, batch_size)
        if padding < 0:
            raise ValueError(f"padding is {padding}: it must be 0 (no crop) or more")
        self.batch_size = batch_size
        self.seed = seed
        self.padding = padding
        self.flip = flip
        self._pixels = split.images.to(device).permute(0, 2, 3, 1).contiguous()  # [N, H, W, C]
        self._labels = split.labels.to(device)
        self._normalize = _Normalize(split, mean, std, device, channels_last)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        full, rest = divmod(self.num_samples, self.batch_size)
        return max(1, full + (rest > 1))

    @property
    def num_samples(self) -> int:
        """Return the number of samples in an epoch."""
        return len(self._labels)

    def epoch(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch `first` on.

        Args:
            number: of the epoch, counted from 1.
            first: batches to leave out, to go on within an epoch.

        Raises:
            ValueError: the epoch or the batch does not exist.
        """
        if number < 1 or not 0 <= first < len(self):
            raise ValueError(
                f"epoch {number}, batch {first} does not exist: epochs count from 1, batches to {len(self) - 1}"
            )
        device = self._labels.device
        order = permutation(self.seed, number, self.num_samples, device=device)
        words = draws(self.seed, number, order, stream=Stream.WEAK_VIEW, count=3)
        for position in range(first, len(self)):
            start = position * self.batch_size
            end = start + self.batch_size if position < len(self) - 1 else self.num_samples
            indices = order[start:end]
            images = self._pixels.index_select(0, indices).permute(0, 3, 1, 2)
            if self.padding or self.flip:
                images = weak_view(images, words[start:end], padding=self.padding, flip=self.flip)
            yield Batch(
                self._normalize(images),
                self._labels.index_select(0, indices),
                indices,
                epoch=number,
                step=(number - 1) * len(self) + position,
            )


def evaluation_batches(
    split: Split,
    *,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    channels_last: bool = True,
) -> Iterator[Batch]:
    """Yield every sample of a split once, in order and not augmented; the last batch may be smaller.

    Batches are moved to the device one at a time. See `Loader` for the arguments.

    Raises:
        ValueError: the split is empty, or an argument is out of range.
    """
    _check_batches(split, batch_size)
    normalize = _Normalize(split, mean, std, device, channels_last)
    for start in range(0, len(split), batch_size):
        images = split.images[start : start + batch_size].to(device, non_blocking=True)
        labels = split.labels[start : start + batch_size].to(device, non_blocking=True)
        indices = torch.arange(start, start + len(images), device=device)
        yield Batch(normalize(images), labels, indices)


class _Normalize:
    """uint8 images to float32: (image / 255 - mean) / std per channel, in the memory format asked for."""

    def __init__(
        self,
        split: Split,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        channels_last: bool,
    ) -> None:
        _, channels, height, width = split.images.shape
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise ValueError(f"mean {tuple(mean)}, std {tuple(std)}: give {channels} numbers each, std above 0")
        # As large as an image, since broadcasting over channels is several times slower on a CPU.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale, self.shift = (
            value.float().to(device).expand(height, width, channels).contiguous().permute(2, 0, 1)
            for value in (scale, shift)
        )
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        scaled = images.to(torch.float32, memory_format=torch.channels_last).mul_(self.scale).add_(self.shift)
        return scaled.contiguous(memory_format=self.memory_format)


def _check_batches(split: Split, batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    if len(split) == 0:
        raise ValueError("the split is empty: give at least one sample")

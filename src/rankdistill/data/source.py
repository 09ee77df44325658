"""Images and labels where batches are made of them: on the device if they fit, else where they are, maybe in a file."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .dataset import Split
from .device import memory, sent


class Source:
    """The samples of a split, to be taken by position.

    Images that fit in a share of the device's memory are copied there once, channels-last; on the CPU those that are
    channels-last already are used as they are. Others stay where they are, which may be a file that is mapped into
    memory, and are sent to the device batch by batch.

    Args:
        split: the samples.
        device: where batches are to be.
        share: of the memory, from 0 (copy nothing) to 1: of what is free on a CUDA device, of all that the machine has
            on others.

    Attributes:
        resident: whether the images were copied to the device, or lay there already.
    """

    def __init__(self, split: Split, device: torch.device, share: float) -> None:
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"resident_share is {share}: give a share of the device's memory from 0 to 1")
        self.device = device
        pixels = split.images.permute(0, 2, 3, 1)  # [N, H, W, C]
        self.resident = pixels.nbytes <= share * memory(device)
        self._pixels = pixels.to(device).contiguous() if self.resident else pixels
        self._labels = split.labels.to(device)

    def __len__(self) -> int:
        return len(self._labels)

    def take(
        self, indices: Int64[Tensor, " batch"]
    ) -> tuple[UInt8[Tensor, "batch channels height width"], Int64[Tensor, " batch"], Int64[Tensor, " batch"]]:
        """Return images (channels-last), labels and indices of samples, on the device; `indices` are on the CPU."""
        there = sent(indices, self.device)
        chosen = self._pixels.index_select(0, there if self.resident else indices)
        return sent(chosen, self.device).permute(0, 3, 1, 2), self._labels.index_select(0, there), there


class Normalize:
    """uint8 images to float32: (image / 255 - mean) / std per channel, in the memory format asked for.

    Args:
        shape: channels, height and width of the images.
        mean: per channel, for pixels scaled to 0 .. 1.
        std: likewise.
        device: where the images are.
        channels_last: memory format of the result.

    Raises:
        ValueError: there are not as many numbers as channels, or a std is not positive.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        channels_last: bool,
    ) -> None:
        channels, height, width = shape
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
        """Return the images normalised."""
        scaled = images.to(torch.float32, memory_format=torch.channels_last).mul_(self.scale).add_(self.shift)
        return scaled.contiguous(memory_format=self.memory_format)

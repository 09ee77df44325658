"""Augmentation of whole batches on their own device, each image with its own draw."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from .random import integers


def weak_view(
    images: Shaped[Tensor, "batch channels height width"],
    words: Int64[Tensor, "batch 3"],
    *,
    padding: int,
    flip: bool,
) -> Shaped[Tensor, "batch channels height width"]:
    """Return the images zero-padded, cropped at random and mirrored with probability 1/2: CIFAR's usual augmentation.

    Args:
        images: [B, C, H, W], of any dtype.
        words: [B, 3], uniform in [0, 2^32): row, column and side of each image, from `random.draws`.
        padding: pixels added on each side; 0 crops nothing. Each of the (2 * padding + 1)^2 positions is as likely.
        flip: whether to mirror at all (not digits, say).
    """
    top, left = integers(words[:, :2], 2 * padding + 1).unbind(1)
    mirrored = integers(words[:, 2], 2).bool() if flip else torch.zeros_like(top, dtype=torch.bool)
    return crop_and_flip(images, top, left, mirrored, padding=padding)


def crop_and_flip(
    images: Shaped[Tensor, "batch channels height width"],
    top: Int64[Tensor, " batch"],
    left: Int64[Tensor, " batch"],
    mirrored: Bool[Tensor, " batch"],
    *,
    padding: int,
) -> Shaped[Tensor, "batch channels height width"]:
    """Return each image, zero-padded on all sides, from its own corner on, then left-right mirrored where asked.

    Args:
        images: [B, C, H, W], of any dtype; fastest in channels-last memory, which the result always has.
        top: [B], row of the padded image that the crop starts at, in [0, 2 * padding].
        left: [B], the same for the column.
        mirrored: [B].
        padding: pixels added on each side.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    across = torch.arange(width, device=images.device)
    across = torch.where(mirrored[:, None], width - 1 - across, across) + left[:, None]  # [B, W]
    down = torch.arange(height, device=images.device) + top[:, None]  # [B, H]
    start = torch.arange(batch, device=images.device) * (padded.shape[1] * padded.shape[2])
    pixels = (start[:, None] + down * padded.shape[2])[:, :, None] + across[:, None, :]  # [B, H, W]
    cropped = padded.reshape(-1, channels).index_select(0, pixels.flatten())
    return cropped.view(batch, height, width, channels).permute(0, 3, 1, 2)

"""Where a view takes its pixels from: crop and flip, rotation, resized crop; whole batches, each image its own draw.

What is random is drawn on the host as a function of (seed, epoch, index) and sent to the device of the images as small
integers, so nothing waits for the device. The further operations of the second view are in `operations`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from ...geometry import Geometry
from ..device import sent
from ..random import integers, uniform
from .operate import move
from .operations import fixed_point, rotation
from .resample import NUM_TRY_WORDS, draw_boxes, resized


def num_words(geometry: Geometry) -> int:
    """Return how many words `moved` needs: row, column, side, angle, and those of the resized crop."""
    return 4 if geometry.random_resized_crop is None else 4 + NUM_TRY_WORDS


def moved(
    geometry: Geometry, images: Shaped[Tensor, "batch channels height width"], words: Int64[Tensor, "batch words"]
) -> Shaped[Tensor, "batch channels new_height new_width"]:
    """Return a view of each image.

    Args:
        geometry: how its pixels move.
        images: [B, C, H, W], of any dtype, on any device.
        words: [B, `num_words`], from `random.draws`, on the CPU.
    """
    if geometry.rotation:
        images = rotate(images, geometry.rotation * (2 * uniform(words[:, 3]) - 1))
    if geometry.random_resized_crop is not None:
        boxes = draw_boxes(words[:, :2], words[:, 4:], height=images.shape[2], width=images.shape[3])
        images = resized(images, boxes, geometry.random_resized_crop)
    if geometry.padding or geometry.flip:
        images = weak_view(images, sent(words[:, :3], images.device), padding=geometry.padding, flip=geometry.flip)
    return images


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
    rows = images.permute(0, 2, 3, 1)
    batch, height, width, channels = rows.shape
    padded = F.pad(rows, (0, 0, padding, padding, padding, padding))
    across = torch.arange(width, device=rows.device)
    across = torch.where(mirrored[:, None], width - 1 - across, across) + left[:, None]  # [B, W]
    down = torch.arange(height, device=rows.device) + top[:, None]  # [B, H]
    start = torch.arange(batch, device=rows.device) * (padded.shape[1] * padded.shape[2])
    pixels = (start[:, None] + down * padded.shape[2])[:, :, None] + across[:, None, :]  # [B, H, W]
    cropped = padded.reshape(-1, channels).index_select(0, pixels.flatten())
    return cropped.view(batch, height, width, channels).permute(0, 3, 1, 2)


def rotate(
    images: Shaped[Tensor, "batch channels height width"], degrees: Float64[Tensor, " batch"]
) -> Shaped[Tensor, "batch channels height width"]:
    """Return each image turned counter-clockwise about its centre, as Pillow's `rotate` does by default.

    Nearest pixel, zeros outside, same size; channels-last.

    Args:
        images: [B, C, H, W], of any dtype, on any device.
        degrees: [B], on the CPU, each in (-90, 90).
    """
    matrices = fixed_point(rotation(degrees, height=images.shape[2], width=images.shape[3]))
    return move(images.permute(0, 2, 3, 1), sent(matrices, images.device)).permute(0, 3, 1, 2)

"""Where a view takes its pixels from: crop and flip, rotation, resized crop; whole batches, each image its own draw.

What is random is drawn on the host as a function of (seed, epoch, index) and sent to the device of the images as small
integers, so nothing waits for the device. The further operations of the second view are in `operations`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from ..device import sent
from ..random import integers, uniform
from .operate import move
from .operations import fixed_point, rotation
from .resample import NUM_TRY_WORDS, draw_boxes, resized

_MAX_PADDING = 1024


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the pixels of a view move, in this order: rotation, crop, flip.

    Attributes:
        padding: pixels of zeros on each side of an image before it is cropped at random; 0 for no crop.
        flip: mirror each image with probability one half.
        rotation: turn each image by up to so many degrees either way, before it is cropped; at most 90, and 0 for no
            turn. Nearest pixel, black outside, same size: torchvision's RandomRotation, with 20 in mdistiller's recipe
            for Tiny-ImageNet.
        random_resized_crop: resize a random part of each image to so many pixels of a side, in place of the crop of
            `padding`; None for no such crop. A run evaluates on the middle of each image then. torchvision's
            RandomResizedCrop: 8 to 100 % of the area, width over height 3/4 to 4/3. uint8 only.

    Raises:
        ValueError: a number is out of range, or there are two kinds of crop.
    """

    padding: int = 0
    flip: bool = False
    rotation: float = 0.0
    random_resized_crop: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.padding <= _MAX_PADDING:
            raise ValueError(f"padding is {self.padding}: give 0 (no crop) to {_MAX_PADDING} pixels")
        if not 0.0 <= self.rotation <= 90.0:
            raise ValueError(f"rotation is {self.rotation}: give degrees from 0 (none) to 90")
        if self.random_resized_crop is not None and self.random_resized_crop < 1:
            raise ValueError(f"random_resized_crop is {self.random_resized_crop}: give the side in pixels, or None")
        if self.random_resized_crop is not None and self.padding:
            raise ValueError(f"padding is {self.padding} beside random_resized_crop, another crop: give padding 0")

    @property
    def num_words(self) -> int:
        """Return how many words `view` needs: row, column, side, angle, and those of the resized crop."""
        return 4 if self.random_resized_crop is None else 4 + NUM_TRY_WORDS

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of a view of images of this size."""
        return (height, width) if self.random_resized_crop is None else (self.random_resized_crop,) * 2

    def view(
        self, images: Shaped[Tensor, "batch channels height width"], words: Int64[Tensor, "batch words"]
    ) -> Shaped[Tensor, "batch channels new_height new_width"]:
        """Return a view of each image.

        Args:
            images: [B, C, H, W], of any dtype, on any device.
            words: [B, `num_words`], from `random.draws`, on the CPU.
        """
        if self.rotation:
            images = rotate(images, self.rotation * (2 * uniform(words[:, 3]) - 1))
        if self.random_resized_crop is not None:
            boxes = draw_boxes(words[:, :2], words[:, 4:], height=images.shape[2], width=images.shape[3])
            images = resized(images, boxes, self.random_resized_crop)
        if self.padding or self.flip:
            images = weak_view(images, sent(words[:, :3], images.device), padding=self.padding, flip=self.flip)
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

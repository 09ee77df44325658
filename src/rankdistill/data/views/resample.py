"""Random resized crops: a random part of each image, resized by Pillow's bilinear filter, which averages to reduce.

torchvision's RandomResizedCrop of a Pillow image, with other random numbers. Each of the two passes is Pillow's, bit
for bit, with weights of 22 bits: first along rows, then along columns. Pillow 13 turns this order round where that is
cheaper; some pixels of such images differ by a level or so, since the first pass rounds.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Int32, Int64, Shaped, UInt8
from torch import Tensor

from ..device import sent
from ..random import uniform

AREA = 0.08, 1.0
RATIO = 3 / 4, 4 / 3
NUM_TRIES = 10
NUM_TRY_WORDS = 2 * NUM_TRIES
_WEIGHT_BITS = 22


def draw_boxes(
    position: Int64[Tensor, "batch 2"], tries: Int64[Tensor, "batch tries"], *, height: int, width: int
) -> Int64[Tensor, "batch 4"]:
    """Return a random part of each image: top, left, height and width in pixels.

    Its area is uniform in `AREA` times the image's, the logarithm of width over height in that of `RATIO`, its position
    uniform. The first of ten tries that fits in the image is taken; if none does, the largest part in the middle whose
    ratio is allowed.

    Args:
        position: [B, 2], words for row and column, on the CPU.
        tries: [B, `NUM_TRY_WORDS`], words for area and ratio in turn.
        height: of the images, in pixels.
        width: likewise.
    """
    area, ratio = uniform(tries).view(-1, NUM_TRIES, 2).unbind(2)
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
    low, high = (math.log(value) for value in RATIO)
    ratio = torch.exp(low + (high - low) * ratio)
    across, down = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (across > 0) & (across <= width) & (down > 0) & (down <= height)  # [B, tries]
    first = (fits * torch.arange(NUM_TRIES, 0, -1)).argmax(dim=1, keepdim=True)
    fits, across, down = (value.gather(1, first).squeeze(1) for value in (fits, across, down))
    widest, highest = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    across, down = torch.where(fits, across, widest), torch.where(fits, down, highest)
    top, left = (
        torch.where(fits, (word * (rest + 1)) >> 32, rest // 2)
        for word, rest in zip(position.unbind(1), (height - down, width - across), strict=True)
    )
    return torch.stack([top, left, down, across], dim=1)


def resized(
    images: Shaped[Tensor, "batch channels height width"], boxes: Int64[Tensor, "batch 4"], size: int
) -> UInt8[Tensor, "batch channels {size} {size}"]:
    """Return a part of each image as size x size pixels, channels-last.

    Args:
        images: [B, C, H, W], uint8, on any device that has float64.
        boxes: [B, 4], from `draw_boxes`: top, left, height and width.
        size: of both sides of the result, in pixels.

    Raises:
        ValueError: the images are not uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images to resize are {images.dtype}: Pillow's rounding is defined on uint8, give that")
    batch, channels, height, _ = images.shape
    top, left, down, across = sent(boxes, images.device).unbind(1)
    columns = images.permute(0, 3, 2, 1).reshape(batch, -1, height * channels)
    narrow = _resampled(columns, left, across, size).view(batch, size, height, channels)
    rows = narrow.transpose(1, 2).reshape(batch, height, size * channels)
    return _resampled(rows, top, down, size).view(batch, size, size, channels).permute(0, 3, 1, 2)


def _resampled(
    lines: UInt8[Tensor, "batch length values"],
    start: Int64[Tensor, " batch"],
    extent: Int64[Tensor, " batch"],
    size: int,
) -> UInt8[Tensor, "batch {size} values"]:
    """Resize the part from `start` on of `extent` lines to `size` lines."""
    batch, length, values = lines.shape
    first, weights = _taps(extent, size, num=2 * math.ceil(max(length / size, 1.0)) + 1)
    start = torch.arange(batch, device=lines.device) * length + start
    last = (start + extent - 1)[:, None]
    flat = lines.reshape(batch * length, values)
    total = lines.new_full((batch * size, values), 1 << (_WEIGHT_BITS - 1), dtype=torch.int32)
    for tap, weight in enumerate(weights.unbind(2)):
        source = (start[:, None] + first + tap).clamp(max=last)
        total += flat.index_select(0, source.flatten()) * weight.flatten()[:, None]
    return (total >> _WEIGHT_BITS).to(torch.uint8).view(batch, size, values)


def _taps(
    extent: Int64[Tensor, " batch"], size: int, *, num: int
) -> tuple[Int64[Tensor, "batch size"], Int32[Tensor, "batch size num"]]:
    """Return which line each result starts at, and the weights of the lines from there on, in 22 bits."""
    scale = extent.double()[:, None] / torch.full_like(extent[:, None], size, dtype=torch.float64)
    support = scale.clamp(min=1.0)
    centre = (torch.arange(size, device=extent.device) + 0.5) * scale  # [B, S]
    first = (centre - support + 0.5).clamp(min=0.0).floor()
    end = torch.minimum((centre + support + 0.5).floor(), extent.double()[:, None])
    place = first[..., None] + torch.arange(num, device=extent.device)
    distance = (place - centre[..., None] + 0.5) * (torch.ones_like(support) / support)[..., None]
    weights = torch.where(place < end[..., None], 1.0 - distance.abs(), 0.0).clamp(min=0.0)
    total = weights[..., 0].clone()
    for tap in range(1, num):  # in this order, so that rounding is the same everywhere
        total += weights[..., tap]
    fixed = (weights / total[..., None] * 2.0**_WEIGHT_BITS + 0.5).floor()
    return first.long(), fixed.to(torch.int32)

"""The operations of MLKD's strong view on whole batches, each image with its own operations.

The same integers and float32 roundings as in Pillow's C code, hence the same bits, on any device that has float64 (for
autocontrast; Apple's has none). Which images get which operation is known on the host: indices are sent to the device,
and nothing comes back.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float32, Int32, Int64, Shaped, UInt8
from torch import Tensor

from ..device import sent
from .operations import CUTOUT_COLOUR, Operation, Operations

Images = UInt8[Tensor, "batch height width 3"]


def operate(
    images: Shaped[Tensor, "batch channels height width"], operations: Operations
) -> UInt8[Tensor, "batch 3 height width"]:
    """Return the images with their operations applied, and their boxes painted, on the same device, channels-last.

    Args:
        images: [B, 3, H, W] uint8, on a device that has float64.
        operations: of each image; on the CPU, so that a device need not say what it has.

    Raises:
        ValueError: the images are not uint8 in three channels.
    """
    if images.dtype != torch.uint8 or images.shape[1] != 3:
        raise ValueError(
            f"images are {images.dtype} with {images.shape[1]} channels: the operations are defined on uint8 RGB"
        )
    result = images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
    for slot in range(operations.kinds.shape[1]):
        order = operations.kinds[:, slot].argsort(stable=True)
        place = sent(order, result.device)
        numbers = sent(operations.integers[:, slot][order], result.device)
        factors = sent(operations.factors[:, slot][order], result.device)
        for kind, members in _groups(operations.kinds[:, slot][order]):
            chosen = result.index_select(0, place[members])
            changed = _changed(kind, chosen, numbers[members], factors[members])
            result.index_copy_(0, place[members], changed)
    return _filled(result, sent(operations.boxes, result.device)).permute(0, 3, 1, 2)


def move(
    images: Shaped[Tensor, "batch height width channels"], matrices: Int64[Tensor, "batch 6"]
) -> Shaped[Tensor, "batch height width channels"]:
    """Return for each place the pixel that an affine map in 16.16 fixed point sends it to, black outside the image."""
    batch, height, width, channels = images.shape
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)[:, None]
    a, b, c, d, e, f = matrices[:, :, None, None].unbind(1)
    column, row = (c + b * y + a * x) >> 16, (f + e * y + d * x) >> 16  # [B, H, W]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    start = torch.arange(batch, device=images.device)[:, None, None] * (height * width)
    source = torch.where(inside, start + row * width + column, 0)
    moved = images.reshape(-1, channels).index_select(0, source.flatten()).view_as(images)
    return moved * inside[..., None]


def _groups(kinds: Int64[Tensor, " batch"]) -> Iterator[tuple[Operation, slice]]:
    """Yield each kind that occurs, and where, in kinds that are in ascending order; all that move pixels as one."""
    grouped = kinds.clamp(max=int(Operation.ROTATE))
    end = 0
    for kind, count in enumerate(grouped.bincount().tolist()):
        start, end = end, end + count
        if count and kind != Operation.IDENTITY:
            yield Operation(kind), slice(start, end)


def _changed(kind: Operation, images: Images, numbers: Tensor, factors: Float32[Tensor, " batch"]) -> Images:
    if kind == Operation.ROTATE:
        return move(images, numbers)
    if kind == Operation.COLOR:
        return _blend(_grey(images)[..., None], images, factors[:, None, None, None])
    if kind == Operation.SHARPNESS:
        return _sharpened(images, factors[:, None, None, None])
    levels = torch.arange(256, device=images.device)
    table = _table(kind, images, levels, numbers, factors).expand(-1, -1, 3).contiguous()  # [B, 256, 1 or 3]
    return table.gather(1, images.flatten(1, 2).long()).view_as(images)


def _table(kind: Operation, images: Images, levels: Tensor, numbers: Tensor, factors: Tensor) -> Tensor:
    parameter = numbers[:, :1]
    if kind == Operation.POSTERIZE:
        table = levels & parameter
    elif kind == Operation.SOLARIZE:
        table = torch.where(levels < parameter, levels, 255 - levels)
    elif kind == Operation.BRIGHTNESS:
        table = _blend(torch.zeros_like(levels), levels, factors[:, None])
    elif kind == Operation.CONTRAST:
        count = images[0, :, :, 0].numel()
        mean = (2 * _grey(images).sum(dim=(1, 2)) + count) // (2 * count)
        table = _blend(mean[:, None], levels, factors[:, None])
    elif kind == Operation.AUTOCONTRAST:
        return _stretching(images, levels)
    else:
        return _equalizing(images, levels)
    return table.to(torch.uint8)[..., None]


def _stretching(images: Images, levels: Tensor) -> UInt8[Tensor, "batch 256 3"]:
    low, high = (extreme.double() for extreme in (images.amin(dim=(1, 2)), images.amax(dim=(1, 2))))  # [B, 3]
    flat = high <= low
    span = torch.where(flat, 1.0, high - low)
    scale = torch.where(flat, 1.0, torch.full_like(span, 255.0) / span)  # a scalar over a tensor would round twice
    offset = torch.where(flat, 0.0, -low * scale)
    stretched = levels[:, None] * scale[:, None] + offset[:, None]
    return stretched.trunc().clamp(0, 255).to(torch.uint8)


def _equalizing(images: Images, levels: Tensor) -> UInt8[Tensor, "batch 256 3"]:
    batch, height, width, _ = images.shape
    place = (torch.arange(batch, device=images.device)[:, None] * 3 + torch.arange(3, device=images.device)) * 256
    pixels = (images + place[:, None, None]).flatten()
    one = torch.ones((), dtype=torch.int32, device=images.device)
    counts = torch.zeros(batch * 768, dtype=torch.int32, device=images.device)
    counts = counts.scatter_add_(0, pixels, one.expand(len(pixels))).view(batch, 3, 256)
    darker = counts.cumsum(2) - counts  # pixels that are darker than the level
    brightest = torch.where(counts > 0, levels, 0).amax(dim=2, keepdim=True)
    step = (height * width - counts.gather(2, brightest)) // 255
    table = (step // 2 + darker) // step.clamp(min=1)
    return torch.where(step > 0, table.clamp(max=255), levels).to(torch.uint8).mT


def _sharpened(images: Images, factors: Tensor) -> Images:
    wide = images.to(torch.int16)
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    centre = wide[:, 1:-1, 1:-1]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * centre  # at most 13 * 255
    result = images.clone()
    result[:, 1:-1, 1:-1] = _blend((2 * total + 13) // 26, centre, factors)
    return result


def _grey(images: Images) -> Int32[Tensor, "batch height width"]:
    red, green, blue = images.int().unbind(3)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _blend(dull: Tensor, levels: Tensor, factors: Tensor) -> UInt8[Tensor, ...]:
    dull = dull.float()
    return (dull + factors * (levels.float() - dull)).to(torch.uint8)


def _filled(images: Images, boxes: Int64[Tensor, "batch 4"]) -> Images:
    _, height, width, _ = images.shape
    left, top, right, bottom = boxes[:, :, None].unbind(1)  # [B, 1]
    across = torch.arange(width, device=images.device)
    down = torch.arange(height, device=images.device)
    inside = ((down >= top) & (down <= bottom))[:, :, None] & ((across >= left) & (across <= right))[:, None, :]
    colour = torch.tensor(CUTOUT_COLOUR, dtype=torch.uint8, device=images.device)
    return torch.where(inside[..., None], colour, images)

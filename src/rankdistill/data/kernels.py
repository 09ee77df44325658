"""The loops over images that numba compiles: crops, and the operations of the strong view, one image at a time.

Images are uint8 and contiguous, red, green and blue side by side; `pitch` is the number of bytes in a row. Arithmetic
is that of Pillow's C code, so no flag lets the compiler change it: a fused multiplication and addition would round once
where Pillow rounds twice. All kernels are serial and give up the interpreter lock, so that they may run beside a
training step and in forked workers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

# The numbers of `operations.Operation`, as numba freezes them; a test compares them.
AUTOCONTRAST, EQUALIZE, BRIGHTNESS, COLOR, CONTRAST, SHARPNESS, POSTERIZE, SOLARIZE, ROTATE = range(1, 10)
CUTOUT_COLOUR = (125, 123, 114)


def kernel(function: F) -> F:
    """Compile at the first call, cached on disk beside the source, else in the user's cache folder, else not at all."""
    compile = functools.partial(numba.njit, nogil=True, error_model="numpy")
    function = inspect.unwrap(function)  # of what a type checker of the tests has put around it
    try:
        return cast("F", compile(function, cache=True))
    except RuntimeError:  # numba found no folder that it may write to
        return cast("F", compile(function))


@kernel
def crop(images: Array, corners: Array, mirrored: Array, padding: int, out: Array) -> None:
    """Write what `augment.crop_and_flip` returns, [B, H, W, C]; `corners` [B, 2] are row and column when padded."""
    num, height, width, channels = images.shape
    source, target = images.reshape(-1), out.reshape(-1)
    pitch = np.uintp(width * channels)
    for b in range(num):
        down = corners[b, 0] - padding
        across = corners[b, 1] - padding
        first = min(max(0, -across), width)  # the columns of the crop, not mirrored, that lie in the image
        last = max(min(width, width - across), first)
        before = np.uintp((width - last if mirrored[b] else first) * channels)
        size = np.uintp((last - first) * channels)
        for y in range(height):
            to = np.uintp(b * height + y) * pitch
            if not 0 <= y + down < height:
                for i in range(pitch):
                    target[to + i] = 0
                continue
            for i in range(before):
                target[to + i] = 0
            for i in range(before + size, pitch):
                target[to + i] = 0
            to += before
            start = np.uintp(((b * height + y + down) * width + first + across) * channels)
            if mirrored[b]:
                step = np.uintp(channels)
                for i in range(np.uintp(0), size, step):
                    for c in range(step):
                        target[to + size - step - i + c] = source[start + i + c]
            else:
                for i in range(size):
                    target[to + i] = source[start + i]


@kernel
def operate(
    images: Array, height: int, kinds: Array, integers: Array, factors: Array, boxes: Array, scratch: Array
) -> None:
    """Apply the operations of each image [B, bytes] in turn, then its cut-out, in place; see `Operations`.

    `scratch` is room for one image.
    """
    pitch = images.shape[1] // height
    table = np.empty(768, np.uint8)
    for b in range(len(images)):
        image = images[b]
        for slot in range(kinds.shape[1]):
            kind = kinds[b, slot]
            factor = factors[b, slot]
            if kind >= ROTATE:
                move(image, pitch, integers[b, slot], scratch)
            elif kind == COLOR:
                saturate(image, factor)
            elif kind == SHARPNESS:
                sharpen(image, pitch, factor, scratch)
            elif kind > 0:
                if kind == AUTOCONTRAST:
                    stretch_table(image, table)
                elif kind == EQUALIZE:
                    equalizing_table(image, table)
                elif kind == BRIGHTNESS:
                    blend_table(np.int32(0), factor, table)
                elif kind == CONTRAST:
                    blend_table(mean_grey(image), factor, table)
                else:
                    level_table(kind, integers[b, slot, 0], table)
                look_up(image, table)
        fill(image, pitch, boxes[b])


@kernel
def copy(source: Array, out: Array) -> None:
    """Write the source."""
    for i in range(len(source)):
        out[i] = source[i]


@kernel
def move(image: Array, pitch: int, matrix: Array, scratch: Array) -> None:
    """Replace each pixel by that which an affine map in 16.16 fixed point sends its place to, black outside."""
    copy(image, scratch)
    height = len(image) // pitch
    width = pitch // 3
    for y in range(height):
        across = matrix[2] + y * matrix[1]
        down = matrix[5] + y * matrix[4]
        row = image[y * pitch : (y + 1) * pitch]
        for i in range(0, pitch, 3):
            column, line = across >> 16, down >> 16
            across += matrix[0]
            down += matrix[3]
            if 0 <= column < width and 0 <= line < height:
                j = np.uintp(line * pitch + 3 * column)
                row[i] = scratch[j]
                row[i + 1] = scratch[j + np.uintp(1)]
                row[i + 2] = scratch[j + np.uintp(2)]
            else:
                row[i] = row[i + 1] = row[i + 2] = 0


@kernel
def grey(image: Array, i: int) -> np.int32:
    """Return the luma of ITU-R 601 of the pixel at `i`, in 16-bit fixed point, rounded."""
    red, green, blue = np.int32(image[i]), np.int32(image[i + 1]), np.int32(image[i + 2])
    return np.int32((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)


@kernel
def mean_grey(image: Array) -> np.int32:
    """Return the mean luma, rounded half up."""
    total = 0
    for i in range(0, len(image), 3):
        total += int(grey(image, i))
    count = len(image) // 3
    return np.int32((2 * total + count) // (2 * count))


@kernel
def blend(dull: np.int32, level: np.int32, factor: float) -> np.uint8:
    """Return dull + factor * (level - dull) in float32, truncated; the factor is between 0 and 1."""
    return np.uint8(np.int32(np.float32(dull) + factor * np.float32(level - dull)))


@kernel
def saturate(image: Array, factor: float) -> None:
    """Blend each pixel with its luma, in place."""
    for i in range(0, len(image), 3):
        dull = grey(image, i)
        for j in range(i, i + 3):
            image[j] = blend(dull, np.int32(image[j]), factor)


@kernel
def sharpen(image: Array, pitch: int, factor: float, scratch: Array) -> None:
    """Blend each pixel inside the border with the mean of the 3 x 3 around it, in which it counts 5 times."""
    copy(image, scratch)
    for y in range(1, len(image) // pitch - 1):
        above = scratch[(y - 1) * pitch : y * pitch]
        row = scratch[y * pitch : (y + 1) * pitch]
        below = scratch[(y + 1) * pitch : (y + 2) * pitch]
        out = image[y * pitch + 3 : (y + 1) * pitch - 3]
        for i in range(pitch - 6):
            level = np.int32(row[i + 3])
            total = np.int32(4) * level
            for j in (i, i + 3, i + 6):
                total += np.int32(above[j]) + np.int32(row[j]) + np.int32(below[j])
            out[i] = blend(np.int32((2 * total + 13) // 26), level, factor)


@kernel
def blend_table(dull: np.int32, factor: float, table: Array) -> None:
    """Write the table that blends every level with one grey level."""
    for level in range(256):
        blended = blend(dull, np.int32(level), factor)
        for c in range(3):
            table[3 * level + c] = blended


@kernel
def level_table(kind: int, parameter: int, table: Array) -> None:
    """Write the table that keeps the bits of a mask, or inverts the levels from a threshold on."""
    for level in range(256):
        inverted = level if level < parameter else 255 - level
        changed = level & parameter if kind == POSTERIZE else inverted
        for c in range(3):
            table[3 * level + c] = changed


@kernel
def stretch_table(image: Array, table: Array) -> None:
    """Write the table that stretches the levels of each channel to 0 .. 255, unless it has only one."""
    for c in range(3):
        low = 255
        high = 0
        for i in range(c, len(image), 3):
            low = min(low, image[i])
            high = max(high, image[i])
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        for level in range(256):
            table[3 * level + c] = min(max(int(level * scale + offset), 0), 255)


@kernel
def equalizing_table(image: Array, table: Array) -> None:
    """Write the table that evens out the histogram of each channel, unless too few pixels differ from the brightest."""
    histogram = np.empty(256, np.int64)
    for c in range(3):
        for level in range(256):
            histogram[level] = 0
        for i in range(c, len(image), 3):
            histogram[image[i]] += 1
        brightest = 255
        while histogram[brightest] == 0:
            brightest -= 1
        step = (len(image) // 3 - histogram[brightest]) // 255
        below = step // 2
        for level in range(256):
            table[3 * level + c] = min(below // step, 255) if step > 0 else level
            below += histogram[level]


@kernel
def look_up(image: Array, table: Array) -> None:
    """Replace each level by what the table has for it and its channel."""
    for i in range(0, len(image), 3):
        image[i] = table[3 * np.uintp(image[i])]
        image[i + 1] = table[3 * np.uintp(image[i + 1]) + np.uintp(1)]
        image[i + 2] = table[3 * np.uintp(image[i + 2]) + np.uintp(2)]


@kernel
def fill(image: Array, pitch: int, box: Array) -> None:
    """Paint the box from (left, top) to (right, bottom), all inclusive, as far as it lies in the image."""
    for y in range(box[1], min(box[3] + 1, len(image) // pitch)):
        for i in range(y * pitch + 3 * box[0], y * pitch + min(3 * box[2] + 3, pitch), 3):
            for c in range(3):
                image[i + c] = CUTOUT_COLOUR[c]

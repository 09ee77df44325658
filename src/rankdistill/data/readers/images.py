"""Decoding of image files by Pillow, many at once."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..dataset import DataError
from .files import Files

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_SIZE = 224
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_CHUNK_BYTES = 4 * 2**20


class UndecodableError(ValueError):
    """An image that cannot be used. The message goes on after the image's name: "is no whole JPEG"."""


Decode = Callable[[bytes], "Image"]
"""From the content of a file to an RGB image of the size that is wanted; raises UndecodableError."""


def pillow() -> ModuleType:
    """Return PIL.Image.

    Raises:
        DataError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("images are decoded and resized by Pillow: pip install rankdistill[train]") from error
    return Image


def is_image(name: str) -> bool:
    """Return whether the name ends as an image's, in lower or upper case."""
    return name.lower().endswith(SUFFIXES)


def open_rgb(content: bytes, *, formats: list[str] | None = None) -> Image:
    """Return the image in a file's content as RGB of 8 bits.

    Grey images and palettes become RGB, transparency is dropped, and a camera's note on orientation is ignored, all as
    torchvision's ImageFolder does.

    Args:
        content: of the file.
        formats: Pillow's names of the formats to allow; None allows all.

    Raises:
        UndecodableError: the image is truncated, of another format, has more than 8 bits or is of gigantic size.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=formats) as encoded:
            if encoded.mode.startswith(("I", "F")):  # Pillow would clip their values to 255
                raise UndecodableError(f"has pixels of mode {encoded.mode}, which are not of 8 bits")
            if "transparency" in encoded.info:
                return encoded.convert("RGBA").convert("RGB")
            return encoded.convert("RGB")
    # What Pillow's decoders let through, by format.
    except (OSError, EOFError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        kind = formats[0] if formats else "image"
        raise UndecodableError(f"is no whole {kind} of a format that is read") from error


def square(image: Image, size: int) -> Image:
    """Return the image with its shorter side resized to `size` pixels, and cropped to its centre.

    Pixel for pixel torchvision's Resize(size) and CenterCrop(size): bilinear, averaging over the area where it reduces.
    """
    from PIL.Image import Resampling

    width, height = image.size
    short = min(width, height)
    if short != size:
        width, height = size * width // short, size * height // short
        image = image.resize((width, height), Resampling.BILINEAR)
    if width == height:
        return image
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def square_of(size: int) -> Decode:
    """Return what decodes any image, and makes it a `square` of `size` pixels."""
    return lambda content: square(open_rgb(content), size)


def resized(images: UInt8[Tensor, "images side side 3"], size: int) -> UInt8[Tensor, "images size size 3"]:
    """Return images of `size` pixels, as `square` makes them; the same images if they have that size."""
    if size == images.shape[1]:
        return images
    from_array = pillow().fromarray
    pixels = np.stack([np.asarray(square(from_array(image), size)) for image in images.numpy()])
    return torch.from_numpy(pixels)


def decoded_chunks(
    files: Files, names: Sequence[str], decode: Decode, size: int
) -> Iterator[UInt8[np.ndarray, "chunk size size 3"]]:
    """Yield the decoded images in order, some at a time, with as many threads as there are cores.

    Pillow leaves Python's lock while it decodes and resizes, so threads help as much as images are large; at 64 x 64
    pixels they hardly do. Only a few chunks, of 4 MB or an image each, are in memory at once.

    Raises:
        DataError: an image cannot be read or decoded; its name is given.
    """
    pillow().preinit()  # before threads do

    def chunk(start: int) -> UInt8[np.ndarray, "chunk size size 3"]:
        chosen = names[start : start + step]
        pixels = np.empty((len(chosen), size, size, 3), dtype=np.uint8)
        for position, name in enumerate(chosen):
            content = files.read(name)
            try:
                pixels[position] = np.asarray(decode(content))
            except UndecodableError as error:
                raise DataError(f"{name} in {files.where} {error}: {files.remedy}") from error
        return pixels

    step = max(1, _CHUNK_BYTES // (size * size * 3))
    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting: deque[Future[UInt8[np.ndarray, "chunk size size 3"]]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, len(names), step):
            waiting.append(pool.submit(chunk, start))
            if len(waiting) > 2 * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

"""Decoding of image files by Pillow, many at once."""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..dataset import DataError, check_memory
from .files import Files

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_SIZE = 224
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats behind `SUFFIXES`. No other is opened: for EPS, Pillow would start Ghostscript."""

MAX_PIXELS = 2**26
"""The most that an image may have, of its own and resized: 67 million, in 268 MB."""

_UNREAD = (
    *("", ".avif", ".cr2", ".dng", ".eps", ".exr", ".gif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".jxl"),
    *(".nef", ".pbm", ".pfm", ".pnm", ".psd", ".raw", ".svg", ".tga"),
)
"""Endings of images that are not read, and of files that may be images."""

_SMALL_PIXELS, _PIXELS_A_BYTE = 2**24, 256  # larger images than this must have a byte for so many pixels
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


def tell_unread(files: Files) -> None:
    """Warn of files that seem to be images and are not read, once for all: how many, and how they end."""
    ends = Counter(end for end in (os.path.splitext(name)[1].lower() for name in files.marks) if end in _UNREAD)
    if ends:
        kinds = ", ".join(f"{count} {end or 'without an ending'}" for end, count in sorted(ends.items()))
        warnings.warn(
            f"{ends.total()} files in {files.where} are left out, since images like them are not read ({kinds}): "
            f"convert them to one of {', '.join(SUFFIXES)}",
            stacklevel=2,
        )


def open_rgb(content: bytes, *, formats: tuple[str, ...] = FORMATS) -> Image:
    """Return the image in a file's content as RGB of 8 bits.

    Grey images and palettes become RGB, transparency is dropped, and a camera's note on orientation is ignored, all as
    torchvision's ImageFolder does.

    Args:
        content: of the file.
        formats: Pillow's names of the formats to allow.

    Raises:
        UndecodableError: the image is truncated, of another format, has more than 8 bits, or is too large.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=formats) as encoded:
            width, height = encoded.size
            if width * height > min(MAX_PIXELS, max(_SMALL_PIXELS, _PIXELS_A_BYTE * len(content))):
                raise UndecodableError(
                    f"has {width} x {height} pixels in {len(content):,} bytes: at most {MAX_PIXELS:,} pixels are read, "
                    f"and more than {_SMALL_PIXELS:,} only of a file with a byte for {_PIXELS_A_BYTE} of them"
                )
            if encoded.mode.startswith(("I", "F")):  # Pillow would clip their values to 255
                raise UndecodableError(f"has pixels of mode {encoded.mode}, which are not of 8 bits")
            if "transparency" in encoded.info:
                return encoded.convert("RGBA").convert("RGB")
            return encoded.convert("RGB")
    except (UndecodableError, MemoryError):
        raise
    except Exception as error:  # Pillow does not say what its decoders raise for broken files: nearly everything
        kind = formats[0] if len(formats) == 1 else "image"
        raise UndecodableError(f"is no whole {kind} of a format that is read") from error


def square(image: Image, size: int) -> Image:
    """Return the image with its shorter side resized to `size` pixels, and cropped to its centre.

    Pixel for pixel torchvision's Resize(size) and CenterCrop(size): bilinear, averaging over the area where it reduces.

    Raises:
        UndecodableError: the image is so long and narrow that it would have too many pixels before it is cropped.
    """
    from PIL.Image import Resampling

    width, height = image.size
    short = min(width, height)
    if short != size:
        if size * size * max(width, height) > MAX_PIXELS * short:
            raise UndecodableError(f"has {width} x {height} pixels: too narrow to be resized to {size} pixels a side")
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
    check_memory(len(images) * size * size * 3, size)
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
    pillow().init()  # before threads do

    def chunk(start: int) -> UInt8[np.ndarray, "chunk size size 3"]:
        chosen = names[start : start + step]
        pixels = np.empty((len(chosen), size, size, 3), dtype=np.uint8)
        for position, name in enumerate(chosen):
            content = files.read(name)
            try:
                pixels[position] = np.asarray(decode(content))
            except (UndecodableError, MemoryError) as error:
                wrong = error if isinstance(error, UndecodableError) else "does not fit into the memory that is free"
                raise DataError(f"{name} in {files.where} {wrong}: {files.remedy}") from error
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

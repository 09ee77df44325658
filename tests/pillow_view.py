"""MLKD's strong view, one image at a time with Pillow: what the tests compare with, and the benchmark runs against."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from rankdistill.data.views import RANGES, Operation

Picture = Image.Image


def moved(image: Picture, *matrix: float) -> Picture:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


OPERATIONS: dict[str, Callable[[Picture, float], Picture]] = {
    "IDENTITY": lambda image, _: image,
    "AUTOCONTRAST": lambda image, _: ImageOps.autocontrast(image),
    "EQUALIZE": lambda image, _: ImageOps.equalize(image),
    "BRIGHTNESS": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "COLOR": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "CONTRAST": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "SHARPNESS": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
    "POSTERIZE": lambda image, v: ImageOps.posterize(image, int(v)),
    "SOLARIZE": lambda image, v: ImageOps.solarize(image, v),  # type: ignore[arg-type]
    "ROTATE": lambda image, v: image.rotate(v),
    "SHEAR_X": lambda image, v: moved(image, 1, v, 0, 0, 1, 0),
    "SHEAR_Y": lambda image, v: moved(image, 1, 0, 0, v, 1, 0),
    "TRANSLATE_X": lambda image, v: moved(image, 1, 0, v * image.width, 0, 1, 0),
    "TRANSLATE_Y": lambda image, v: moved(image, 1, 0, 0, 0, 1, v * image.height),
}


def cropped(image: Picture, top: int, left: int, mirrored: bool, padding: int) -> Picture:
    padded = ImageOps.expand(image, padding)
    image = padded.crop((left, top, left + image.width, top + image.height))
    return ImageOps.mirror(image) if mirrored else image


def cut_out(image: Picture, share: float, x: float, y: float) -> Picture:
    """Paint a box of `share` of the width around the centre (x, y), as the authors' code does."""
    side = share * image.width
    left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    right, bottom = min(image.width, left + side), min(image.height, top + side)
    image = image.copy()
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), (125, 123, 114))
    return image


def picture(array: NDArray[np.uint8]) -> Picture:
    return Image.fromarray(array)


def pixels(image: Picture) -> NDArray[np.uint8]:
    return np.asarray(image)


def weak_view(row: NDArray[np.uint8], words: list[int], padding: int) -> Picture:
    """Crop and mirror an image as its words say."""
    top, left = (word * (2 * padding + 1) >> 32 for word in words[:2])
    return cropped(picture(row), top, left, bool(words[2] >> 31), padding)


def strong_view(row: NDArray[np.uint8], geometry: list[int], words: list[int], padding: int) -> Picture:
    """Crop and mirror an image, apply two operations and cut out a box, as words of `random.draws` say."""
    image = weak_view(row, geometry, padding)
    shares = [(word + 0.5) / 2**32 for word in words[2:]]
    for word, share in zip(words[:2], shares, strict=False):
        kind = Operation(word * 14 >> 32)
        low, high = RANGES[kind]
        image = OPERATIONS[kind.name](image, low + (high - low) * share)
    x, y = (side + (1 - side) * share for side, share in zip(image.size, shares[3:], strict=True))
    return cut_out(image, 0.5 * shares[2], x, y)

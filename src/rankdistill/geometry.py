"""How the pixels of a view move, as values: what a run's configuration says, and `data.views` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SecondView = Literal["mlkd", "weak"]
"""The second view of an image: MLKD's strong view, or another weak view. Both have their own crop and flip."""

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

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of a view of images of this size."""
        return (height, width) if self.random_resized_crop is None else (self.random_resized_crop,) * 2

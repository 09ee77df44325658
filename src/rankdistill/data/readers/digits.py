"""Handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels with 17 grey levels, 10 classes.

Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998). No download.
They have no official split. Ours is 1,297 training and 500 test images, 50 test images per class, drawn by
`subsets.hold_out` with seed 0: it depends on nothing but this code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..dataset import DataError, DataSet, Request, Split, check_memory
from ..subsets import hold_out

NUM_TEST = 500
SPLIT_SEED = 0

# Over all pixels of the 1,297 training images at 8 x 8, scaled to 0 .. 1.
MEAN = 0.3063
STD = 0.3766


def load(request: Request) -> DataSet:
    """Return the digits as grey RGB images, by default 32 x 32, enlarged bilinearly from 8 x 8.

    Raises:
        DataError: `root` or `download` is given, the size is less than 8, or scikit-learn is not installed.
    """
    if request.root is not None or request.download:
        given = f"root {request.root}" if request.root is not None else "download"
        raise DataError(f"digits come with scikit-learn and are read from there: leave out {given}")
    size = request.size(32)
    if size < 8:
        raise DataError(f"image_size {size} is too small: digits have 8 x 8 pixels, give 8 or more")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("digits need scikit-learn: pip install rankdistill[train]") from error
    bundled = load_digits()
    check_memory(len(bundled.target) * size * size * 11, size)  # a float64 and three bytes a pixel
    levels = torch.from_numpy(bundled.images)[:, None]  # [N, 1, 8, 8] float64 of 0 .. 16
    # Sums of 64ths of small integers are exact in float64, so the rounded pixels are the same everywhere.
    grey = F.interpolate(levels, size=(size, size), mode="bilinear") * (255 / 16)
    pixels = grey.round().to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()
    labels = torch.from_numpy(bundled.target).to(torch.int64)
    train, test = hold_out(Split(pixels.permute(0, 3, 1, 2), labels), NUM_TEST, seed=SPLIT_SEED)
    names = tuple(str(digit) for digit in range(10))
    return DataSet("digits", train, test, names, (MEAN,) * 3, (STD,) * 3).first_classes(request.num_classes)

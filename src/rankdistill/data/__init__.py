"""Data sets as uint8 tensors, splits, augmentation, and the loader that makes batches of them."""

from __future__ import annotations

from . import cifar, digits, fashion_mnist, image_list, imagefolder, tiny_imagenet
from .augment import Geometry, crop_and_flip, operate, rotate, weak_view
from .loader import Loader, evaluation_batches
from .operations import RANGES, Operation, Operations, draw_operations
from .schedule import Batches
from .sets import DataError, DataSet, Load, Split
from .splits import few_labels, hold_out
from .views import Views
from .workers import TransformLoader

DATASETS: dict[str, Load] = {
    "digits": digits.load,
    "fashion_mnist": fashion_mnist.load,
    "cifar10": cifar.cifar10,
    "cifar100": cifar.cifar100,
    "tiny_imagenet": tiny_imagenet.load,
    "imagefolder": imagefolder.load,
    "csv": image_list.load,
}
"""Name -> function that reads the data set."""

__all__ = [
    "DATASETS",
    "RANGES",
    "Batches",
    "DataError",
    "DataSet",
    "Geometry",
    "Load",
    "Loader",
    "Operation",
    "Operations",
    "Split",
    "TransformLoader",
    "Views",
    "crop_and_flip",
    "draw_operations",
    "evaluation_batches",
    "few_labels",
    "hold_out",
    "operate",
    "rotate",
    "weak_view",
]

"""Data sets from files: each becomes uint8 tensors in a training and a test part."""

from __future__ import annotations

from ..dataset import Reader
from . import cifar, digits, fashion_mnist, image_list, imagefolder, tiny_imagenet

DATASETS: dict[str, Reader] = {
    "digits": Reader(digits.load),
    "fashion_mnist": Reader(fashion_mnist.load),
    "cifar10": Reader(cifar.cifar10),
    "cifar100": Reader(cifar.cifar100),
    "tiny_imagenet": Reader(tiny_imagenet.load),
    "imagefolder": Reader(imagefolder.load),
    "csv": Reader(image_list.load),
}
"""Name -> what reads the data set."""

"""The networks of the field, by the names that papers use."""

from collections.abc import Callable

from torch import nn

from .resnet import (
    resnet8,
    resnet8x4,
    resnet14,
    resnet14x4,
    resnet20,
    resnet20x4,
    resnet32,
    resnet32x4,
    resnet44,
    resnet56,
    resnet110,
)

MODELS: dict[str, Callable[[int], nn.Module]] = {
    "resnet8": resnet8,
    "resnet14": resnet14,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet44": resnet44,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "resnet8x4": resnet8x4,
    "resnet14x4": resnet14x4,
    "resnet20x4": resnet20x4,
    "resnet32x4": resnet32x4,
}
"""Name -> function of the number of classes."""

__all__ = ["MODELS", *MODELS]

"""The networks of the field, by the names that papers use."""

from collections.abc import Callable

from torch import nn

from .mobilenet import mobilenetv2, tiny_mobilenetv2
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
from .resnet_imagenet import resnet18, resnet50, tiny_resnet18
from .shufflenet import shufflenetv1, shufflenetv2, tiny_shufflenetv2
from .vgg import vgg8, vgg11, vgg13, vgg16, vgg19
from .wrn import wrn_16_1, wrn_16_2, wrn_28_2, wrn_40_1, wrn_40_2

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
    "wrn_16_1": wrn_16_1,
    "wrn_16_2": wrn_16_2,
    "wrn_28_2": wrn_28_2,
    "wrn_40_1": wrn_40_1,
    "wrn_40_2": wrn_40_2,
    "vgg8": vgg8,
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenetv2": mobilenetv2,
    "shufflenetv1": shufflenetv1,
    "shufflenetv2": shufflenetv2,
    "tiny_resnet18": tiny_resnet18,
    "tiny_mobilenetv2": tiny_mobilenetv2,
    "tiny_shufflenetv2": tiny_shufflenetv2,
}
"""Name -> function of the number of classes."""

__all__ = ["MODELS", *MODELS]

"""VGG with batch norm (Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556), cut down for small images.

Names and shapes of the state dict are those of RepDistiller and mdistiller, whose checkpoints load here unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..taps import Segment
from .blocks import draw_convolutions, draw_small_classifier, global_average, unchanged

_WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five groups of 3x3 convolutions with batch norm, the mean over the map, one linear layer.

    A 2x2 max pool follows groups 0, 1 and 2, and group 3 if the images have exactly 64 rows, as published. Where
    the network is entered at `stage3`, a map of 8 rows counts as one of such images.

    Args:
        depths: convolutions of each of the five groups.
        num_classes: width of the logits.

    Input: [B, 3, H, W] with H, W from 8 up (published for 32 and 64). Output: logits [B, num_classes].
    """

    def __init__(self, depths: tuple[int, int, int, int, int], num_classes: int) -> None:
        super().__init__()
        inputs = (3, *_WIDTHS)
        groups = [_group(inputs[n], _WIDTHS[n], depth) for n, depth in enumerate(depths)]
        self.block0, self.block1, self.block2, self.block3, self.block4 = groups
        # Not in place: their inputs are the pre-activation features.
        self.relu0, self.relu1, self.relu2, self.relu3, self.relu4 = (nn.ReLU() for _ in groups)
        self.pool = nn.MaxPool2d(2)
        self.avgpool = global_average()
        self.classifier = nn.Linear(_WIDTHS[-1], num_classes)
        self.roles = {
            "stem": "relu0",
            **{f"stage{n}": f"relu{n}" for n in (1, 2, 3, 4)},
            **{f"pre{n}": f"block{n}" for n in (1, 2, 3, 4)},
            "last": "relu4",
            "pooled": "avgpool",
        }
        draw_convolutions(self)
        draw_small_classifier(self.classifier)

    def segments(self) -> Sequence[Segment]:
        """Return the network as (role that the segment starts from, what it runs)."""
        return [
            ("images", self._stem),
            ("stem", lambda x: self.block1(self.pool(x))),
            ("pre1", self.relu1),
            ("stage1", lambda x: self.block2(self.pool(x))),
            ("pre2", self.relu2),
            ("stage2", lambda x: self.block3(self.pool(x))),
            ("pre3", self.relu3),
            ("stage3", lambda x: self._block4(x, pools=x.shape[2] == 8)),
            ("pre4", self.relu4),
            ("stage4", unchanged),
            ("last", self.avgpool),
            ("pooled", self.classifier),
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, [B, num_classes]."""
        x = self._stem(images)
        x = self.relu1(self.block1(self.pool(x)))
        x = self.relu2(self.block2(self.pool(x)))
        x = self.relu3(self.block3(self.pool(x)))
        x = self.relu4(self._block4(x, pools=images.shape[2] == 64))
        logits: Tensor = self.classifier(self.avgpool(x))
        return logits

    def _stem(self, images: Tensor) -> Tensor:
        x: Tensor = self.relu0(self.block0(images))
        return x

    def _block4(self, x: Tensor, *, pools: bool) -> Tensor:
        x = self.block4(self.pool(x) if pools else x)
        return x


def _group(in_channels: int, channels: int, depth: int) -> nn.Sequential:
    """Return `depth` convolutions, each with batch norm, with ReLUs between but none at the end."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [
            nn.Conv2d(channels if number else in_channels, channels, 3, 1, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers[:-1])


def vgg8(num_classes: int) -> VGG:
    """Return vgg8, a VGG with batch norm and 1 convolution a group; 3,965,028 parameters at 100 classes."""
    return VGG((1, 1, 1, 1, 1), num_classes)


def vgg11(num_classes: int) -> VGG:
    """Return vgg11, a VGG with batch norm and 1 convolution in the first two groups, 2 in the others."""
    return VGG((1, 1, 2, 2, 2), num_classes)


def vgg13(num_classes: int) -> VGG:
    """Return vgg13, a VGG with batch norm and 2 convolutions a group; 9,462,180 parameters at 100 classes."""
    return VGG((2, 2, 2, 2, 2), num_classes)


def vgg16(num_classes: int) -> VGG:
    """Return vgg16, a VGG with batch norm and 2 convolutions in the first two groups, 3 in the others."""
    return VGG((2, 2, 3, 3, 3), num_classes)


def vgg19(num_classes: int) -> VGG:
    """Return vgg19, a VGG with batch norm and 2 convolutions in the first two groups, 4 in the others."""
    return VGG((2, 2, 4, 4, 4), num_classes)

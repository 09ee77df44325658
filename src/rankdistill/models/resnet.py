"""CIFAR ResNets (He et al., CVPR 2016, section 4.2) and their four times wider variants (Tian et al., ICLR 2020).

Names and shapes of the state dict are those of RepDistiller and mdistiller, whose checkpoints load here unchanged.
Differs from the authors' code: the average pool is global, so inputs need not be 32x32 (equal there).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..taps import Segment
from .blocks import Block, draw_convolutions, global_average, stage_segments, unchanged


class BasicBlock(Block):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where stride or width changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()  # not in place: its input is the stage's pre-activation feature
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def before_activation(self, x: Tensor) -> Tensor:
        """Map [B, in, H, W] to the sum [B, channels, H / stride, W / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        output: Tensor = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))) + shortcut
        return output

    def activation(self, x: Tensor) -> Tensor:
        """Return the ReLU of the sum."""
        output: Tensor = self.relu2(x)
        return output


class ResNet(nn.Module):
    """A CIFAR ResNet of depth 6n + 2: a stem and three stages of n basic blocks, with strides 1, 2, 2.

    Args:
        depth: 6n + 2.
        widths: channels of the stem and of the three stages.
        num_classes: width of the logits.
        in_channels: channels of the images, 3 in all published checkpoints.

    Input: [B, in_channels, H, W] with H, W from 8 up (published for 32). Output: logits [B, num_classes].
    """

    def __init__(self, depth: int, widths: tuple[int, int, int, int], num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        blocks, remainder = divmod(depth - 2, 6)
        if remainder or blocks < 1:
            raise ValueError(f"depth is {depth}: a CIFAR ResNet has depth 6n + 2 (8, 14, 20, ...)")
        stem, *stages = widths
        self.conv1 = nn.Conv2d(in_channels, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(stem, stages[0], 1, blocks)
        self.layer2 = _stage(stages[0], stages[1], 2, blocks)
        self.layer3 = _stage(stages[1], stages[2], 2, blocks)
        self.avgpool = global_average()
        self.fc = nn.Linear(stages[2], num_classes)
        self.roles = {
            "stem": "relu",
            **{f"stage{n}": f"layer{n}" for n in (1, 2, 3)},
            **{f"pre{n}": f"<layer{n}.{blocks - 1}.relu2" for n in (1, 2, 3)},
            "last": "<avgpool",
            "pooled": "avgpool",
        }
        draw_convolutions(self)

    def segments(self) -> Sequence[Segment]:
        """Return the network as (role that the segment starts from, what it runs)."""
        return [
            ("images", self._stem),
            *stage_segments((self.layer1, self.layer2, self.layer3)),
            ("stage3", unchanged),
            ("last", self.avgpool),
            ("pooled", self.fc),
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, [B, num_classes]."""
        logits: Tensor = self.fc(self.avgpool(self.layer3(self.layer2(self.layer1(self._stem(images))))))
        return logits

    def _stem(self, images: Tensor) -> Tensor:
        x: Tensor = self.relu(self.bn1(self.conv1(images)))
        return x


def _stage(in_channels: int, channels: int, stride: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


_PLAIN = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)  # "x4": four times the plain width in each stage, the stem only twice


def resnet8(num_classes: int) -> ResNet:
    """Return resnet8, a CIFAR ResNet of 1 block a stage."""
    return ResNet(8, _PLAIN, num_classes)


def resnet14(num_classes: int) -> ResNet:
    """Return resnet14, a CIFAR ResNet of 2 blocks a stage."""
    return ResNet(14, _PLAIN, num_classes)


def resnet20(num_classes: int) -> ResNet:
    """Return resnet20, a CIFAR ResNet of 3 blocks a stage; 278,324 parameters at 100 classes."""
    return ResNet(20, _PLAIN, num_classes)


def resnet32(num_classes: int) -> ResNet:
    """Return resnet32, a CIFAR ResNet of 5 blocks a stage; 472,756 parameters at 100 classes."""
    return ResNet(32, _PLAIN, num_classes)


def resnet44(num_classes: int) -> ResNet:
    """Return resnet44, a CIFAR ResNet of 7 blocks a stage."""
    return ResNet(44, _PLAIN, num_classes)


def resnet56(num_classes: int) -> ResNet:
    """Return resnet56, a CIFAR ResNet of 9 blocks a stage; 861,620 parameters at 100 classes."""
    return ResNet(56, _PLAIN, num_classes)


def resnet110(num_classes: int) -> ResNet:
    """Return resnet110, a CIFAR ResNet of 18 blocks a stage; 1,736,564 parameters at 100 classes."""
    return ResNet(110, _PLAIN, num_classes)


def resnet8x4(num_classes: int) -> ResNet:
    """Return resnet8x4, a CIFAR ResNet, 4 times as wide, of 1 block a stage; 1,233,540 parameters at 100 classes."""
    return ResNet(8, _WIDE, num_classes)


def resnet14x4(num_classes: int) -> ResNet:
    """Return resnet14x4, a CIFAR ResNet, 4 times as wide, of 2 blocks a stage."""
    return ResNet(14, _WIDE, num_classes)


def resnet20x4(num_classes: int) -> ResNet:
    """Return resnet20x4, a CIFAR ResNet, 4 times as wide, of 3 blocks a stage."""
    return ResNet(20, _WIDE, num_classes)


def resnet32x4(num_classes: int) -> ResNet:
    """Return resnet32x4, a CIFAR ResNet, 4 times as wide, of 5 blocks a stage; 7,433,860 parameters at 100 classes."""
    return ResNet(32, _WIDE, num_classes)

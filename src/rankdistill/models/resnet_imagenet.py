"""ResNets of the ImageNet kind, four stages (He et al., CVPR 2016, arXiv:1512.03385), with a stem for small images.

The stem is a 3x3 convolution of stride 1 without a max pool. Names and shapes of the state dict are those of
RepDistiller and mdistiller (`ResNet50`, `ResNet18`), whose checkpoints load here unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..taps import Segment
from .blocks import Block, draw_convolutions, global_average, stage_segments, unchanged


class PlainBlock(Block):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = _shortcut(in_channels, planes, stride)
        self.relu = nn.ReLU()  # not in place: its input is the stage's pre-activation feature

    def before_activation(self, x: Tensor) -> Tensor:
        """Map [B, in, H, W] to the sum [B, planes, H / stride, W / stride]."""
        branch = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        output: Tensor = branch + self.shortcut(x)
        return output

    def activation(self, x: Tensor) -> Tensor:
        """Return the ReLU of the sum."""
        output: Tensor = self.relu(x)
        return output


class Bottleneck(Block):
    """1x1, 3x3 (with the stride) and 1x1 convolution to four times the planes, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        channels = self.expansion * planes
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(planes, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.shortcut = _shortcut(in_channels, channels, stride)
        self.relu = nn.ReLU()  # not in place: its input is the stage's pre-activation feature

    def before_activation(self, x: Tensor) -> Tensor:
        """Map [B, in, H, W] to the sum [B, 4 * planes, H / stride, W / stride]."""
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.relu2(self.bn2(self.conv2(branch)))
        output: Tensor = self.bn3(self.conv3(branch)) + self.shortcut(x)
        return output

    def activation(self, x: Tensor) -> Tensor:
        """Return the ReLU of the sum."""
        output: Tensor = self.relu(x)
        return output


class ImageNetResNet(nn.Module):
    """A stem of 64 channels and four stages of 64, 128, 256 and 512 planes, with strides 1, 2, 2, 2.

    Args:
        block: `PlainBlock` or `Bottleneck`.
        blocks: blocks of each stage.
        num_classes: width of the logits.

    Input: [B, 3, H, W] with H, W from 8 up (published for 32 and 64). Output: logits [B, num_classes].
    """

    def __init__(
        self, block: type[PlainBlock] | type[Bottleneck], blocks: tuple[int, int, int, int], num_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(block, 64, 64, 1, blocks[0])
        self.layer2 = _stage(block, 64 * block.expansion, 128, 2, blocks[1])
        self.layer3 = _stage(block, 128 * block.expansion, 256, 2, blocks[2])
        self.layer4 = _stage(block, 256 * block.expansion, 512, 2, blocks[3])
        self.avgpool = global_average()
        self.linear = nn.Linear(512 * block.expansion, num_classes)
        self.roles = {
            "stem": "relu",
            **{f"stage{n}": f"layer{n}" for n in (1, 2, 3, 4)},
            **{f"pre{n}": f"<layer{n}.{count - 1}.relu" for n, count in enumerate(blocks, start=1)},
            "last": "<avgpool",
            "pooled": "avgpool",
        }
        draw_convolutions(self)

    def segments(self) -> Sequence[Segment]:
        """Return the network as (role that the segment starts from, what it runs)."""
        return [
            ("images", self._stem),
            *stage_segments((self.layer1, self.layer2, self.layer3, self.layer4)),
            ("stage4", unchanged),
            ("last", self.avgpool),
            ("pooled", self.linear),
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, [B, num_classes]."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self._stem(images)))))
        logits: Tensor = self.linear(self.avgpool(x))
        return logits

    def _stem(self, images: Tensor) -> Tensor:
        x: Tensor = self.relu(self.bn1(self.conv1(images)))
        return x


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Return nothing where the shape stays, else a 1x1 convolution with batch norm."""
    if stride == 1 and in_channels == channels:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


def _stage(
    block: Callable[[int, int, int], PlainBlock] | type[Bottleneck], inputs: int, planes: int, stride: int, count: int
) -> nn.Sequential:
    first = block(inputs, planes, stride)
    return nn.Sequential(first, *(block(planes * first.expansion, planes, 1) for _ in range(count - 1)))


def resnet18(num_classes: int) -> ImageNetResNet:
    """Return resnet18, an ImageNet ResNet of 2 plain blocks a stage; 11,220,132 parameters at 100 classes."""
    return ImageNetResNet(PlainBlock, (2, 2, 2, 2), num_classes)


def resnet50(num_classes: int) -> ImageNetResNet:
    """Return resnet50, an ImageNet ResNet of 3, 4, 6 and 3 bottlenecks; 23,705,252 parameters at 100 classes."""
    return ImageNetResNet(Bottleneck, (3, 4, 6, 3), num_classes)


def tiny_resnet18(num_classes: int) -> ImageNetResNet:
    """Return tiny_resnet18, the resnet18 of tables on Tiny-ImageNet; 11,271,432 parameters at 200 classes."""
    return resnet18(num_classes)

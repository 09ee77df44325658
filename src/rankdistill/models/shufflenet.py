"""ShuffleNetV1 (Zhang et al., CVPR 2018, arXiv:1707.01083) and V2 (Ma et al., ECCV 2018, arXiv:1807.11164).

They are RepDistiller's and mdistiller's variants for 32x32 pixels, with a 1x1 convolution as stem; names and shapes of
the state dicts are theirs, so their checkpoints load here unchanged. Differs from their code: the average pool is
global, so inputs need not be 32x32 (equal there; theirs fails at 64x64). As in theirs, and unlike in the paper,
V1 has a ReLU after the depthwise convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..taps import Segment
from .blocks import Block, global_average, stage_segments, unchanged

_STEM = 24
_UNITS = (4, 8, 4)


class GroupedUnit(Block):
    """V1's unit: grouped 1x1 convolution, shuffle, depthwise 3x3 and grouped 1x1.

    With stride 1 added to the input; with stride 2 the averaged input comes after it, so the branch has the
    `channels - in_channels` that are left.
    """

    groups = 3

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        branch = channels - in_channels if stride == 2 else channels
        inner = branch // 4
        groups = 1 if in_channels == _STEM else self.groups
        self.conv1 = nn.Conv2d(in_channels, inner, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU(inplace=True)
        self.shuffle1 = nn.ChannelShuffle(groups)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(inner, branch, 1, groups=self.groups, bias=False)
        self.bn3 = nn.BatchNorm2d(branch)
        self.shortcut = nn.AvgPool2d(3, 2, 1) if stride == 2 else None
        self.relu = nn.ReLU()  # not in place: its input is the stage's pre-activation feature

    def before_activation(self, x: Tensor) -> Tensor:
        """Map [B, in, H, W] to the sum or concatenation [B, channels, H / stride, W / stride]."""
        branch = self.shuffle1(self.relu1(self.bn1(self.conv1(x))))
        branch = self.relu2(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        if self.shortcut is not None:
            return torch.cat([branch, self.shortcut(x)], dim=1)
        output: Tensor = branch + x
        return output

    def activation(self, x: Tensor) -> Tensor:
        """Return the ReLU of it."""
        output: Tensor = self.relu(x)
        return output


class ShuffleNetV1(nn.Module):
    """ShuffleNetV1 with 3 groups: a stem of 24 channels and stages of 4, 8 and 4 units with 240, 480, 960 channels.

    Args:
        num_classes: width of the logits.

    Input: [B, 3, H, W] with H, W from 8 up (published for 32). Output: logits [B, num_classes].
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _grouped_stage(_STEM, 240, _UNITS[0])
        self.layer2 = _grouped_stage(240, 480, _UNITS[1])
        self.layer3 = _grouped_stage(480, 960, _UNITS[2])
        self.avgpool = global_average()
        self.linear = nn.Linear(960, num_classes)
        self.roles = {
            "stem": "relu",
            **{f"stage{n}": f"layer{n}" for n in (1, 2, 3)},
            **{f"pre{n}": f"<layer{n}.{count - 1}.relu" for n, count in enumerate(_UNITS, start=1)},
            "last": "<avgpool",
            "pooled": "avgpool",
        }

    def segments(self) -> Sequence[Segment]:
        """Return the network as (role that the segment starts from, what it runs)."""
        return [
            ("images", self._stem),
            *stage_segments((self.layer1, self.layer2, self.layer3)),
            ("stage3", unchanged),
            ("last", self.avgpool),
            ("pooled", self.linear),
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, [B, num_classes]."""
        x = self.layer3(self.layer2(self.layer1(self._stem(images))))
        logits: Tensor = self.linear(self.avgpool(x))
        return logits

    def _stem(self, images: Tensor) -> Tensor:
        x: Tensor = self.relu(self.bn1(self.conv1(images)))
        return x


def _grouped_stage(in_channels: int, channels: int, count: int) -> nn.Sequential:
    first = GroupedUnit(in_channels, channels, 2)
    return nn.Sequential(first, *(GroupedUnit(channels, channels, 1) for _ in range(count - 1)))


class SplitUnit(Block):
    """V2's unit of stride 1: half of the channels pass, half are worked on; then both are shuffled.

    Its pre-activation feature is [passed half, worked half before its ReLU], not shuffled: in another order of
    channels than the output, and the first half is not negative. `joined` is where it is tapped.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.joined = nn.Identity()
        self.shuffle = nn.ChannelShuffle(2)

    def before_activation(self, x: Tensor) -> Tensor:
        """Map [B, channels, H, W] to [passed, worked before its ReLU], of the same shape."""
        passed, worked = x.chunk(2, dim=1)
        worked = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(worked)))))
        worked = self.bn3(self.conv3(worked))
        output: Tensor = self.joined(torch.cat([passed, worked], dim=1))
        return output

    def activation(self, x: Tensor) -> Tensor:
        """Return [passed, ReLU of worked], shuffled."""
        passed, worked = x.chunk(2, dim=1)
        output: Tensor = self.shuffle(torch.cat([passed, worked.relu()], dim=1))
        return output


class DownUnit(nn.Module):
    """V2's unit of stride 2: two branches of half the channels, concatenated and shuffled."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, 2, 1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)
        self.relu = nn.ReLU(inplace=True)
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in, H, W] to [B, channels, H / 2, W / 2]."""
        left = self.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = self.bn4(self.conv4(self.relu(self.bn3(self.conv3(x)))))
        right = self.relu(self.bn5(self.conv5(right)))
        output: Tensor = self.shuffle(torch.cat([left, right], dim=1))
        return output


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 of size 1: a stem of 24 channels, stages of 4, 8 and 4 units, 1024 channels at the end.

    `last` is the 1024 channels after their ReLU, `prelast` before it; the stages' features come before that layer.

    Args:
        num_classes: width of the logits.

    Input: [B, 3, H, W] with H, W from 8 up (published for 32). Output: logits [B, num_classes].
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _split_stage(_STEM, 116, _UNITS[0])
        self.layer2 = _split_stage(116, 232, _UNITS[1])
        self.layer3 = _split_stage(232, 464, _UNITS[2])
        self.conv2 = nn.Conv2d(464, 1024, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1024)
        self.relu2 = nn.ReLU()  # not in place: its input is a border
        self.avgpool = global_average()
        self.linear = nn.Linear(1024, num_classes)
        self.roles = {
            "stem": "relu",
            **{f"stage{n}": f"layer{n}" for n in (1, 2, 3)},
            **{f"pre{n}": f"layer{n}.{count - 1}.joined" for n, count in enumerate(_UNITS, start=1)},
            "prelast": "bn2",
            "last": "relu2",
            "pooled": "avgpool",
        }

    def segments(self) -> Sequence[Segment]:
        """Return the network as (role that the segment starts from, what it runs)."""
        return [
            ("images", self._stem),
            *stage_segments((self.layer1, self.layer2, self.layer3)),
            ("stage3", lambda x: self.bn2(self.conv2(x))),
            ("prelast", self.relu2),
            ("last", self.avgpool),
            ("pooled", self.linear),
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, [B, num_classes]."""
        x = self.layer3(self.layer2(self.layer1(self._stem(images))))
        logits: Tensor = self.linear(self.avgpool(self.relu2(self.bn2(self.conv2(x)))))
        return logits

    def _stem(self, images: Tensor) -> Tensor:
        x: Tensor = self.relu(self.bn1(self.conv1(images)))
        return x


def _split_stage(in_channels: int, channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(in_channels, channels), *(SplitUnit(channels) for _ in range(count - 1)))


def shufflenetv1(num_classes: int) -> ShuffleNetV1:
    """Return shufflenetv1, a ShuffleNet of version 1 with 3 groups; 949,258 parameters at 100 classes."""
    return ShuffleNetV1(num_classes)


def shufflenetv2(num_classes: int) -> ShuffleNetV2:
    """Return shufflenetv2, a ShuffleNet of version 2, of size 1; 1,355,528 parameters at 100 classes."""
    return ShuffleNetV2(num_classes)


def tiny_shufflenetv2(num_classes: int) -> ShuffleNetV2:
    """Return tiny_shufflenetv2, the shufflenetv2 of tables on Tiny-ImageNet; 1,458,028 parameters at 200 classes."""
    return shufflenetv2(num_classes)

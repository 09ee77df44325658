"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016, arXiv:1605.07146): `wrn_<depth>_<width>`.

Names and shapes of the state dict are those of RepDistiller and mdistiller, whose checkpoints load here unchanged.
Differs from the authors' code: the average pool is global, so inputs need not be 32x32 (equal there, where theirs
gives a wrong number of rows for other sizes without an error). mdistiller computes the pre-activation features by a
second call of three batch norms, whose running statistics are so updated twice in a training step; here the
features are what the network computes anyway, and one step is one update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from ..taps import Segment
from .blocks import draw_convolutions, global_average


class PreActivationBlock(nn.Module):
    """Twice batch norm, ReLU and a 3x3 convolution, added to the input: to the signed sum, no ReLU follows.

    Where the width changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()  # not in place: its input is the pre-activation feature of the stage before
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.convShortcut: nn.Module | None = None
        if in_channels != channels:
            self.convShortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in, H, W] to [B, channels, H / stride, W / stride]."""
        return self.after_norm(self.bn1(x), x)

    def after_norm(self, normed: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the block's output from that of its first norm; `x` is needed where the shortcut is the identity."""
        active = self.relu1(normed)
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        output: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(active)))) + shortcut
        return output


class WideStage(nn.Module):
    """Blocks of one width."""

    def __init__(self, in_channels: int, channels: int, stride: int, blocks: int) -> None:
        super().__init__()
        first = PreActivationBlock(in_channels, channels, stride)
        self.layer = nn.Sequential(first, *(PreActivationBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in, H, W] to [B, channels, H / stride, W / stride]."""
        output: Tensor = self.layer(x)
        return output

    def norm(self, x: Tensor) -> Tensor:
        """Return what the stage's first batch norm makes of the stage's input."""
        normed: Tensor = cast("PreActivationBlock", self.layer[0]).bn1(x)
        return normed

    def after_norm(self, normed: Tensor) -> Tensor:
        """Return the stage's output from that of its first batch norm."""
        output: Tensor = self.layer[1:](cast("PreActivationBlock", self.layer[0]).after_norm(normed))
        return output


class WideResNet(nn.Module):
    """A wide ResNet of depth 6n + 4: a bare convolution, three stages of n blocks with strides 1, 2, 2, norm, ReLU.

    The features `stageN` are the signed sums that the stages end with; `preN` is the batch norm that comes next,
    applied to them, and `last` is the ReLU of `pre3`.

    Args:
        depth: 6n + 4.
        width: the stages have 16, 32 and 64 times so many channels.
        num_classes: width of the logits.

    Input: [B, 3, H, W] with H, W from 8 up (published for 32). Output: logits [B, num_classes].
    """

    def __init__(self, depth: int, width: int, num_classes: int) -> None:
        super().__init__()
        blocks, remainder = divmod(depth - 4, 6)
        if remainder or blocks < 1:
            raise ValueError(f"depth is {depth}: a wide ResNet has depth 6n + 4 (10, 16, 22, ...)")
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = WideStage(16, 16 * width, 1, blocks)
        self.block2 = WideStage(16 * width, 32 * width, 2, blocks)
        self.block3 = WideStage(32 * width, 64 * width, 2, blocks)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU()
        self.avgpool = global_average()
        self.fc = nn.Linear(64 * width, num_classes)
        self.roles = {
            "stem": "conv1",
            **{f"stage{n}": f"block{n}" for n in (1, 2, 3)},
            "pre1": "block2.layer.0.bn1",
            "pre2": "block3.layer.0.bn1",
            "pre3": "bn1",
            "last": "relu",
            "pooled": "avgpool",
        }
        draw_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def segments(self) -> Sequence[Segment]:
        """Return the network as (role that the segment starts from, what it runs)."""
        return [
            ("images", self.conv1),
            ("stem", self.block1),
            ("stage1", self.block2.norm),
            ("pre1", self.block2.after_norm),
            ("stage2", self.block3.norm),
            ("pre2", self.block3.after_norm),
            ("stage3", self.bn1),
            ("pre3", self.relu),
            ("last", self.avgpool),
            ("pooled", self.fc),
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, [B, num_classes]."""
        x = self.block3(self.block2(self.block1(self.conv1(images))))
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn1(x))))
        return logits


def wrn_16_1(num_classes: int) -> WideResNet:
    """Return wrn_16_1, a wide ResNet of 2 blocks a stage and plain width."""
    return WideResNet(16, 1, num_classes)


def wrn_16_2(num_classes: int) -> WideResNet:
    """Return wrn_16_2, a wide ResNet of 2 blocks a stage and twice the width; 703,284 parameters at 100 classes."""
    return WideResNet(16, 2, num_classes)


def wrn_28_2(num_classes: int) -> WideResNet:
    """Return wrn_28_2, a wide ResNet of 4 blocks a stage and twice the width."""
    return WideResNet(28, 2, num_classes)


def wrn_40_1(num_classes: int) -> WideResNet:
    """Return wrn_40_1, a wide ResNet of 6 blocks a stage and plain width; 569,780 parameters at 100 classes."""
    return WideResNet(40, 1, num_classes)


def wrn_40_2(num_classes: int) -> WideResNet:
    """Return wrn_40_2, a wide ResNet of 6 blocks a stage and twice the width; 2,255,156 parameters at 100 classes."""
    return WideResNet(40, 2, num_classes)

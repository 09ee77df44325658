"""MobileNetV2 (Sandler et al., CVPR 2018, arXiv:1801.04381): the two variants of the distillation literature.

`mobilenetv2` is RepDistiller's and mdistiller's at half width for 32x32 pixels, with plain ReLUs; `tiny_mobilenetv2` is
mdistiller's for Tiny-ImageNet, full width, with ReLU6 and biased convolutions. Names and shapes of the state dicts are
theirs, so their checkpoints load here unchanged. Differs from their code: the average pool is global (equal at the
published sizes), and pooled features are always [B, C]. Neither of theirs has pre-activation features; since the
stages end without an activation, `preN` is the same map as `stageN` wherever `stageN` is a bottleneck's output.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..taps import Segment
from .blocks import draw_convolutions, draw_small_classifier, global_average, unchanged

# Expansion, channels, blocks, stride of the first block; channels before they are halved in the small variant.
_HALF = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_FULL = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """1x1 convolution up, depthwise 3x3 and 1x1 down without activation, added to the input if the shape stays."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.is_residual = stride == 1 and in_channels == channels
        inner = expansion * in_channels
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in, H, W] to [B, channels, H / stride, W / stride], signed."""
        output: Tensor = self.conv(x)
        return x + output if self.is_residual else output


class MobileNetV2(nn.Module):
    """MobileNetV2 for 32x32 pixels: a stem of stride 2, seven groups of inverted residuals, 1280 channels at the end.

    Args:
        num_classes: width of the logits.
        width: factor of the groups' channels; stem and end keep theirs, 16 (32 times `width`) and 1280.

    Input: [B, 3, H, W] with H, W from 32 up (published for 32). Output: logits [B, num_classes].
    """

    def __init__(self, num_classes: int, width: float = 0.5) -> None:
        super().__init__()
        stem = int(32 * width)
        self.conv1 = nn.Sequential(nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True))
        groups, inputs = [], stem
        for expansion, full, count, stride in _HALF:
            channels = int(full * width)
            first = InvertedResidual(inputs, channels, stride, expansion)
            rest = (InvertedResidual(channels, channels, 1, expansion) for _ in range(count - 1))
            groups.append(nn.Sequential(first, *rest))
            inputs = channels
        self.blocks = nn.Sequential(*groups)
        self.conv2 = nn.Sequential(
            nn.Conv2d(inputs, 1280, 1, bias=False),
            nn.BatchNorm2d(1280),
            nn.ReLU(),  # not in place: its input is a border
        )
        self.avgpool = global_average()
        classifier = nn.Linear(1280, num_classes)
        self.classifier = nn.Sequential(classifier)
        stages = {"1": "blocks.1", "2": "blocks.2", "3": "blocks.4", "4": "blocks.6"}
        self.roles = {
            "stem": "conv1",
            **{f"stage{n}": tap for n, tap in stages.items()},
            **{f"pre{n}": tap for n, tap in stages.items()},
            "prelast": "conv2.1",
            "last": "conv2",
            "pooled": "avgpool",
        }
        draw_convolutions(self)
        draw_small_classifier(classifier)

    def segments(self) -> Sequence[Segment]:
        """Return the network as (role that the segment starts from, what it runs)."""
        return [
            ("images", self.conv1),
            ("stem", self.blocks[:2]),
            ("pre1", unchanged),
            ("stage1", self.blocks[2]),
            ("pre2", unchanged),
            ("stage2", self.blocks[3:5]),
            ("pre3", unchanged),
            ("stage3", self.blocks[5:]),
            ("pre4", unchanged),
            ("stage4", self.conv2[:2]),
            ("prelast", self.conv2[2]),
            ("last", self.avgpool),
            ("pooled", self.classifier),
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, [B, num_classes]."""
        logits: Tensor = self.classifier(self.avgpool(self.conv2(self.blocks(self.conv1(images)))))
        return logits


class BiasedBottleneck(nn.Module):
    """1x1 convolution up, depthwise 3x3 and 1x1 down, all with biases, added to the input if the shape stays."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.is_residual = stride == 1 and in_channels == channels
        inner = expansion * in_channels
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, inner, 1),
            nn.BatchNorm2d(inner),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner),
            nn.BatchNorm2d(inner),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inner, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in, H, W] to [B, channels, H / stride, W / stride], signed."""
        output: Tensor = self.residual(x)
        return x + output if self.is_residual else output


class TinyMobileNetV2(nn.Module):
    """MobileNetV2 for Tiny-ImageNet: the stem's 1x1 convolution pads by 1, so 64 pixels become a map of 66.

    The roles `stage1` to `stage3` are the outputs of its second to fourth group, `stage4` and `last` the 1280 channels
    after ReLU6, as in mdistiller's list of features.

    Args:
        num_classes: width of the logits.

    Input: [B, 3, H, W] with H, W from 8 up (published for 64). Output: logits [B, num_classes].
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.pre = nn.Sequential(nn.Conv2d(3, 32, 1, padding=1), nn.BatchNorm2d(32), nn.ReLU6(inplace=True))
        groups, inputs = [], 32
        for expansion, channels, count, stride in _FULL:
            first = BiasedBottleneck(inputs, channels, stride, expansion)
            rest = [BiasedBottleneck(channels, channels, 1, expansion) for _ in range(count - 1)]
            groups.append(nn.Sequential(first, *rest) if rest else first)
            inputs = channels
        self.stage1, self.stage2, self.stage3, self.stage4, self.stage5, self.stage6, self.stage7 = groups
        self.conv1 = nn.Sequential(
            nn.Conv2d(inputs, 1280, 1),
            nn.BatchNorm2d(1280),
            nn.ReLU6(),  # not in place: its input is the last stage's pre-activation feature
        )
        self.avgpool = global_average()
        self.conv2 = nn.Conv2d(1280, num_classes, 1)
        self.roles = {
            "stem": "pre",
            **{f"stage{n}": f"stage{n + 1}" for n in (1, 2, 3)},
            "stage4": "conv1",
            **{f"pre{n}": f"stage{n + 1}" for n in (1, 2, 3)},
            "pre4": "conv1.1",
            "last": "conv1",
            "pooled": "avgpool",
        }

    def segments(self) -> Sequence[Segment]:
        """Return the network as (role that the segment starts from, what it runs)."""
        return [
            ("images", self.pre),
            ("stem", lambda x: self.stage2(self.stage1(x))),
            ("pre1", unchanged),
            ("stage1", self.stage3),
            ("pre2", unchanged),
            ("stage2", self.stage4),
            ("pre3", unchanged),
            ("stage3", lambda x: self.conv1[:2](self.stage7(self.stage6(self.stage5(x))))),
            ("pre4", self.conv1[2]),
            ("stage4", unchanged),
            ("last", self.avgpool),
            ("pooled", self._classify),
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, [B, num_classes]."""
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.pre(images)))))
        x = self.conv1(self.stage7(self.stage6(self.stage5(x))))
        return self._classify(self.avgpool(x))

    def _classify(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.conv2(pooled[:, :, None, None]).flatten(1)
        return logits


def mobilenetv2(num_classes: int) -> MobileNetV2:
    """Return mobilenetv2, a MobileNetV2 of half width for 32x32 pixels; 812,836 parameters at 100 classes."""
    return MobileNetV2(num_classes)


def tiny_mobilenetv2(num_classes: int) -> TinyMobileNetV2:
    """Return tiny_mobilenetv2, a MobileNetV2 of full width for Tiny-ImageNet; 2,497,480 parameters at 200 classes."""
    return TinyMobileNetV2(num_classes)

"""Small `Staged` networks, one for each way in which a family ends, and the toy networks of FCFD's golden file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Segment = tuple[str, Callable[[Tensor], Tensor]]


def _unit(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class Small(nn.Module):
    """A stem, two stages, and what a family has between the last stage and the pool.

    "plain": nothing, as ResNets. "norm": batch norm and ReLU on a signed map, as WRNs. "head": a convolution to more
    channels, as MobileNetV2. "convolution": that, and a 1x1 convolution as classifier, as Tiny-ImageNet's MobileNetV2.
    """

    def __init__(self, kind: str, widths: tuple[int, int, int] = (4, 6, 8), num_classes: int = 5) -> None:
        super().__init__()
        self.kind = kind
        self.stem = nn.Sequential(*_unit(3, widths[0]), nn.ReLU())
        self.stage1 = nn.Sequential(*_unit(widths[0], widths[1]), nn.Identity() if kind == "norm" else nn.ReLU())
        self.stage2 = nn.Sequential(*_unit(widths[1], widths[2], 2), nn.Identity() if kind == "norm" else nn.ReLU())
        channels = widths[2] + 4 if kind in ("head", "convolution") else widths[2]
        self.end: nn.Module = nn.Identity()
        if kind == "norm":
            self.end = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        elif kind != "plain":
            self.end = nn.Sequential(*_unit(widths[2], channels), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        if kind == "convolution":
            self.classifier: nn.Module = nn.Conv2d(channels, num_classes, 1)
        else:
            self.classifier = nn.Sequential(nn.Linear(channels, num_classes))
        self.roles = {
            "stem": "stem",
            "stage1": "stage1",
            "stage2": "stage2",
            "last": "<pool",
            "pooled": "pool",
        }

    def segments(self) -> Sequence[Segment]:
        return [
            ("images", self.stem),
            ("stem", self.stage1),
            ("stage1", self.stage2),
            ("stage2", self.end),
            ("last", self.pool),
            ("pooled", self._classify),
        ]

    def forward(self, images: Tensor) -> Tensor:
        return self._classify(self.pool(self.end(self.stage2(self.stage1(self.stem(images))))))

    def _classify(self, pooled: Tensor) -> Tensor:
        if self.kind == "convolution":
            return self.classifier(pooled[:, :, None, None]).flatten(1)
        return self.classifier(pooled)


class Toy(nn.Module):
    """FCFD's toy: stage i is a convolution and a batch norm, with a ReLU after or, from stage 1, before them."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, after_relu: bool, num_classes: int) -> None:
        super().__init__()
        inputs = [3, *channels]
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs[i], channels[i], 3, strides[i], 1, bias=False) for i in range(len(channels))
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for width in channels)
        self.fc = nn.Linear(channels[-1], num_classes)
        self.points = nn.ModuleList(nn.Identity() for _ in channels)
        self.after_relu = after_relu
        names = ["stem", *(f"stage{i}" for i in range(1, len(channels)))]
        self.roles = {name: f"points.{i}" for i, name in enumerate(names)}

    def segments(self) -> Sequence[Segment]:
        borders = ["images", *self.roles]
        stages = [(borders[i], lambda x, i=i: self._stage(i, x)) for i in range(len(self.convs))]
        return [*stages, (borders[-1], torch.relu), ("last", lambda x: x.mean(dim=(2, 3))), ("pooled", self.fc)]

    def forward(self, images: Tensor) -> Tensor:
        for _, run in self.segments():
            images = run(images)
        return images

    def _stage(self, i: int, x: Tensor) -> Tensor:
        if i and not self.after_relu:
            x = F.relu(x)
        x = self.bns[i](self.convs[i](x))
        return self.points[i](F.relu(x) if self.after_relu else x)

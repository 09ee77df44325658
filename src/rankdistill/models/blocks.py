"""What the networks share: blocks that can be cut before their last activation, borders of stages, the pool."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from torch import Tensor, nn

from ..taps import Segment


class Block(nn.Module):
    """A block that ends in an activation and can be cut before it."""

    def before_activation(self, x: Tensor) -> Tensor:
        """Return the pre-activation feature of the block's input."""
        raise NotImplementedError(f"{type(self).__name__} does not say what comes before its activation: override it")

    def activation(self, x: Tensor) -> Tensor:
        """Return the block's output from the pre-activation feature. Does not overwrite it."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its activation is: override it")

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        return self.activation(self.before_activation(x))


def stage_segments(stages: Sequence[nn.Sequential]) -> list[Segment]:
    """Return the segments of stages of `Block`s: from "stem" and each stage's output to "preN" and to "stageN"."""
    segments: list[Segment] = []
    start = "stem"
    for number, stage in enumerate(stages, start=1):
        last = cast("Block", stage[-1])
        segments += [(start, partial(_before_activation, stage)), (f"pre{number}", last.activation)]
        start = f"stage{number}"
    return segments


def _before_activation(stage: nn.Sequential, x: Tensor) -> Tensor:
    return cast("Block", stage[-1]).before_activation(stage[:-1](x))


def global_average() -> nn.Sequential:
    """Return the pool that ends every network here: [B, C, H, W] to [B, C], the mean over all positions."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def unchanged(x: Tensor) -> Tensor:
    """Return the feature itself, where one border has two roles."""
    return x


def draw_convolutions(module: nn.Module) -> None:
    """Draw each convolution from N(0, 2 / (kernel area * output channels)); its bias, if any, becomes zero."""
    for convolution in module.modules():
        if isinstance(convolution, nn.Conv2d):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)


def draw_small_classifier(classifier: nn.Linear) -> None:
    """Draw a classifier's weight from N(0, 0.01^2); its bias becomes zero."""
    nn.init.normal_(classifier.weight, 0.0, 0.01)
    nn.init.zeros_(classifier.bias)
